// What the two fast engines for narrow `inner` (NCHW) share: a row split into phases.
//
// Phase r of a row holds the cells r, r + step, r + 2 step, …, with absent ones on both sides. Every tap then reads consecutive
// lanes of one phase, whatever the stride, the dilation and the padding.
#pragma once

#include "cells.h"
#include "threads.h"

namespace poolwise::POOLWISE_ISA {

// Beyond these a plan is left to the general engine: they bound the tables below and the memory of a thread.
constexpr Int most_phases = 64, most_taps = 128, most_rows = 128;
constexpr Int most_memory = Int(1) << 24;
constexpr Int far = Int(1) << 40;  // starts and dilations up to here cannot overflow when multiplied by the above
constexpr Int slack = 64;          // lanes beyond a row that a pack may touch

// How the block's rows lie in memory, in elements; each row itself is dense.
struct RowStrides {
  bool even;  // one stride serves each level
  Int outer, plane, row;
};

POOLWISE_OUTLINE RowStrides row_strides(const Plan& plan, Int itemsize, const void* memory, const Int* bytes) {
  const Block& block = plan.block;
  const Int row = block.axes[2].size * block.inner, plane = row * block.axes[1].size;
  if (bytes == nullptr) return {true, plane * block.axes[0].size, plane, row};
  RowStrides strides{reinterpret_cast<std::uintptr_t>(memory) % static_cast<std::uintptr_t>(itemsize) == 0, 0, 0, 0};
  int d = plan.ndim - 1;
  for (Int run = itemsize; d >= block.dims[2]; --d) {
    strides.even = strides.even && (bytes[d] == run || plan.dims[d].input == 1);
    run *= plan.dims[d].input;
  }
  const auto elements = [&](int dim) {
    strides.even = strides.even && bytes[dim] % itemsize == 0;
    return bytes[dim] / itemsize;
  };
  if (block.dims[1] >= 0) strides.row = elements(d--);
  if (block.dims[0] >= 0) strides.plane = elements(d--);
  Int extent = 1;
  for (; d >= 0; --d) {
    if (plan.dims[d].input == 1) continue;
    if (extent == 1) strides.outer = elements(d);
    strides.even = strides.even && elements(d) == strides.outer * extent;
    extent *= plan.dims[d].input;
  }
  return strides;
}

// What each column of a block is divided by, and what each row is.
POOLWISE_OUTLINE double column_divisor(const Plan& plan, Int j) { return plan.divided_by(plan.block.axes[2], true, j, 0); }
POOLWISE_OUTLINE double row_divisor(const Plan& plan, Int i0, Int i1) {
  return plan.divided_by(plan.block.axes[0], false, i0, 0) * plan.divided_by(plan.block.axes[1], false, i1, 0);
}

// Divisors of one plan: a factor per output column, and the rows' factor computed as they come. Only means look at them.
template <class B>
struct Divisors {
  using A = typename B::Accumulator;
  const Plan& plan;
  A* columns;
  double row = 1;

  // `memory` holds one number per output column.
  Divisors(const Plan& p, A* memory) : plan(p), columns(memory) {
    if constexpr (B::divides)
      for (Int j = 0; j < plan.block.axes[2].output; ++j) columns[j] = static_cast<A>(column_divisor(plan, j));
  }
  POOLWISE_INLINE void at_row(Int i0, Int i1) {
    if constexpr (B::divides) row = row_divisor(plan, i0, i1);
  }
};

// Hands out pieces of one block of memory.
class Arena {
 public:
  explicit Arena(void* memory) : next_(static_cast<char*>(memory)) {}
  template <class T>
  T* take(Int lanes) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += room<T>(lanes);
    return piece;
  }
  template <class T>
  static constexpr Int room(Int lanes) {
    return (lanes * Int(sizeof(T)) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

template <class T>
POOLWISE_INLINE void fill(T* p, Int n, T value) {
  for (Int i = 0; i < n; ++i) p[i] = value;
}

// Places for the rows that windows still need, taken in turn: a division would cost as much as pooling a short row.
struct Ring {
  Int at, size;
  POOLWISE_INLINE void advance() { at = at + 1 == size ? 0 : at + 1; }
};

// Cells of one phase: `begin` … `end` - 1 of them are present, the first of those at index `index` of the row.
struct Phase {
  Int begin, end, index;
};

POOLWISE_INLINE Phase phase_of(Int first_index, Int step, Int cells, Int size) {
  const Int begin = smaller(cells, larger(0, ceil_div(-Wide(first_index), step)));
  const Int end = larger(begin, smaller(cells, floor_div(Wide(size) - 1 - first_index, step) + 1));
  return {begin, end, first_index + begin * step};
}

template <class To, class From>
POOLWISE_INLINE void copy_lanes(To* to, const From* from, Int n) {
  using A = std::conditional_t<(sizeof(Number<To>) > sizeof(Number<From>)), Number<To>, Number<From>>;
  for_lanes<full<A>>(n, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, load<A, N>(from + lane + u * N));
  });
}

// From every `step`-th cell of a row to consecutive cells of a phase.
template <class A, class T>
POOLWISE_INLINE void copy_strided(A* to, const T* from, Int cells, Int step, Int inner) {
  for (Int m = 0; m < cells; ++m)
    for (Int c = 0; c < inner; ++c) store<1, A>(to + m * inner + c, load<A, 1>(from + m * step * inner + c));
}

// S phases at once: `from` is the element of phase 0, cell 0.
template <int S, class A, class T, int... P>
POOLWISE_INLINE void split_packs(A* const (&to)[S], const T* from, Int cells, std::integer_sequence<int, P...>) {
  for_lanes<full<A>>(cells, [&]<int N, int U>(Int cell) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) {
      const Int m = cell + u * N;
      Pack<A, N> packs[S];
      for (int s = 0; s < S; ++s) packs[s] = load<A, N>(from + m * S + s * N);
      (store<N, A>(to[P] + m, one_phase<A, N, S, P>(packs, packs[0])), ...);
    }
  });
}

template <int S, class A, class T, int... P>
POOLWISE_INLINE void weave_packs(T* to, A* const (&from)[S], Int cells, std::integer_sequence<int, P...>) {
  for_lanes<full<A>>(cells, [&]<int N, int U>(Int cell) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) {
      const Int m = cell + u * N;
      Pack<A, N> phases[S];
      for (int s = 0; s < S; ++s) phases[s] = load<A, N>(from[s] + m);
      (store<N, A>(to + m * S + P * N, woven<A, N, S, P>(phases, phases[0])), ...);
    }
  });
}

}  // namespace poolwise::POOLWISE_ISA
