#include "unpool.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace poolwise {
namespace {

constexpr Int bytes_per_piece = 1 << 18;  // enough work that handing it out costs nothing
constexpr Int bytes_worth_advice = 4 << 20;
constexpr Int indices_per_piece = bytes_per_piece / static_cast<Int>(sizeof(Int));

using Word = std::uint64_t;
constexpr Int word_bits = 64;

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

// ---- checks ------------------------------------------------------------------------------------------------------------

// Every partial product fits too: a size of 0 counts as 1.
void require_bytes(Int outer, Int plane, Int inner, Int itemsize) {
  Wide bytes = itemsize;
  for (const Int size : {outer, plane, inner}) {
    if (size < 0) refuse("unpool: sizes must be at least 0, got " + std::to_string(size));
    bytes *= larger(size, 1);
    if (bytes > INT64_MAX) refuse("unpool: the arrays' size does not fit in 64 bits");
  }
}

void require_memory(const char* name, const void* memory, Int elements, Int alignment) {
  if (elements == 0) return;
  if (memory == nullptr) refuse("unpool: " + std::string(name) + " must be given, got null");
  if (reinterpret_cast<std::uintptr_t>(memory) % static_cast<std::uintptr_t>(alignment) != 0)
    refuse("unpool: " + std::string(name) + " must be aligned to " + std::to_string(alignment) + " bytes, got other memory");
}

void require_arrays(const Unpool& unpool, const void* small, const Int* indices, const void* large) {
  require_memory("y", small, unpool.elements(), unpool.itemsize);
  require_memory("indices", indices, unpool.elements(), sizeof(Int));
  require_memory("out", large, unpool.outer * unpool.per_outer_out(), unpool.itemsize);
}

int threads_for(int asked) {
  if (asked < 0) refuse("threads: must be at least 0 (0: the module's count), got " + std::to_string(asked));
  return asked == 0 ? num_threads() : asked;
}

// ---- work --------------------------------------------------------------------------------------------------------------

template <class Task>
void share_task(Int n, Int piece, int threads, Task task) {
  share(n, piece, threads, [](void* context, Int begin, Int end) { (*static_cast<Task*>(context))(begin, end); }, &task);
}

// One comparison: a negative index is a huge unsigned number.
bool inside(const Unpool& unpool, Int index) { return static_cast<Word>(index) < static_cast<Word>(unpool.outputs); }

void lower(std::atomic<Int>& least, Int value) {
  Int known = least;
  while (value < known && !least.compare_exchange_weak(known, value)) {
  }
}

Int first_outside(const Unpool& unpool, const Int* indices, int threads) {
  const Int none = unpool.elements();
  std::atomic<Int> first{none};
  share_task(none, indices_per_piece, threads, [&](Int begin, Int end) {
    const Int* found = std::find_if(indices + begin, indices + end, [&](Int index) { return !inside(unpool, index); });
    if (found != indices + end) lower(first, found - indices);
  });
  return first == none ? -1 : first.load();
}

// Calls body(outer index) for every one, shared among threads.
template <class Body>
void each_outer(const Unpool& unpool, int threads, Body body) {
  const Int read = unpool.per_outer_in() * static_cast<Int>(sizeof(Int)), moved = unpool.per_outer_out() * unpool.itemsize;
  const Int piece = larger(1, bytes_per_piece / larger(1, smaller(read, bytes_per_piece) + smaller(moved, bytes_per_piece)));
  share_task(unpool.outer, piece, threads, [&](Int begin, Int end) {
    for (Int outer = begin; outer < end; ++outer) body(outer);
  });
}

template <class Element>
void scatter(const Unpool& unpool, const Element* y, const Int* indices, Element* out) {
  std::fill_n(out, unpool.per_outer_out(), Element(0));
  for (Int cell = 0; cell < unpool.inputs; ++cell, y += unpool.inner, indices += unpool.inner)
    for (Int i = 0; i < unpool.inner; ++i) {
      const Int index = indices[i];
      if (inside(unpool, index)) out[index * unpool.inner + i] = y[i];
    }
}

// Backwards, so that the first to reach a place is the one that had the last word there.
template <class Element>
void gather(const Unpool& unpool, const Element* g, const Int* indices, Element* gy) {
  const Int words = unpool.per_outer_out() / word_bits + 1;
  Word* taken = static_cast<Word*>(scratch(static_cast<std::size_t>(words) * sizeof(Word)));
  std::fill_n(taken, words, Word(0));
  for (Int cell = unpool.inputs - 1; cell >= 0; --cell)
    for (Int i = 0; i < unpool.inner; ++i) {
      const Int at = cell * unpool.inner + i, index = indices[at];
      gy[at] = 0;
      if (!inside(unpool, index)) continue;
      const Int place = index * unpool.inner + i;
      Word& word = taken[place / word_bits];
      const Word bit = Word(1) << (place % word_bits);
      if ((word & bit) == 0) gy[at] = g[place];
      word |= bit;
    }
}

// Calls body with a number of the elements' size: only their bits are moved.
template <class Body>
void with_element(Int itemsize, Body body) {
  switch (itemsize) {
    case 1: return body(std::uint8_t());
    case 2: return body(std::uint16_t());
    case 4: return body(std::uint32_t());
    default: return body(std::uint64_t());
  }
}

}  // namespace

Unpool unpool_of(Int itemsize, Int outer, Int inputs, Int outputs, Int inner) {
  if (itemsize != 1 && itemsize != 2 && itemsize != 4 && itemsize != 8)
    refuse("unpool: itemsize must be 1, 2, 4 or 8, got " + std::to_string(itemsize));
  require_bytes(outer, inputs, inner, sizeof(Int));
  require_bytes(outer, outputs, inner, itemsize);
  return {itemsize, outer, inputs, outputs, inner};
}

Int unpool_forward(const Unpool& unpool, const void* y, const Int* indices, void* out, int threads) {
  const int most = threads_for(threads);
  require_arrays(unpool, y, indices, out);
  const Int outside = first_outside(unpool, indices, most);
  if (outside >= 0) return outside;
  const Int bytes = unpool.outer * unpool.per_outer_out() * unpool.itemsize;
  if (bytes >= bytes_worth_advice) advise_huge_pages(out, static_cast<std::size_t>(bytes));
  with_element(unpool.itemsize, [&](auto element) {
    using Element = decltype(element);
    each_outer(unpool, most, [&](Int outer) {
      const Int from = outer * unpool.per_outer_in(), to = outer * unpool.per_outer_out();
      scatter(unpool, static_cast<const Element*>(y) + from, indices + from, static_cast<Element*>(out) + to);
    });
  });
  return -1;
}

Int unpool_backward(const Unpool& unpool, const void* g, const Int* indices, void* gy, int threads) {
  const int most = threads_for(threads);
  require_arrays(unpool, gy, indices, g);
  const Int outside = first_outside(unpool, indices, most);
  if (outside >= 0) return outside;
  with_element(unpool.itemsize, [&](auto element) {
    using Element = decltype(element);
    each_outer(unpool, most, [&](Int outer) {
      const Int to = outer * unpool.per_outer_in(), from = outer * unpool.per_outer_out();
      gather(unpool, static_cast<const Element*>(g) + from, indices + to, static_cast<Element*>(gy) + to);
    });
  });
  return -1;
}

}  // namespace poolwise
