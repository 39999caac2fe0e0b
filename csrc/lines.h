// What the engines of lines share: how a block's rows lie in memory, memory to work in, and lanes that lie a stride apart.
//
// A line is a row of a block, columns × inner lanes side by side. The engines work on whole packs alone: the lanes of the last pack
// that are beyond a line are computed from whatever is there and thrown away, so lines in scratch memory have `slack` behind them,
// and a row of the caller's array is read in place only where so much of the array follows it.
#pragma once

#include <cstring>

#include "reductions.h"
#include "threads.h"
#include "walk.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_memory = Int(1) << 24;     // bytes of scratch; a plan that needs more is left to the general engine
constexpr Int far = Int(1) << 31;             // starts, steps, dilations and taps up to here multiply without overflow
constexpr Int prefetch_distance = 1 << 10;    // bytes ahead of a row that is being read
constexpr Int window_line_bytes = 1 << 17;    // of the lines of one window, which should stay in the second cache
constexpr Int gather_distance = 1 << 12;      // and of rows that are all that is read, one behind the other

POOLWISE_INLINE bool is_near(const Axis& axis) {
  return axis.start >= -far && axis.start <= far && axis.step <= far && axis.dilation <= far && axis.taps <= far && axis.output <= far && axis.size <= far;
}

template <Int Distance = prefetch_distance>
POOLWISE_INLINE void ahead(const void* p, Int bytes) {
  for (Int b = 0; b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(p) + Distance + b);
}

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

// So many planes at least should be done by one thread in a row, where what they cost does not grow with their windows, and what it
// takes to begin does.
constexpr Int elements_at_least = 1 << 15;
POOLWISE_INLINE Int planes_at_least(const Plan& plan) {
  return ceil_div(Wide(elements_at_least) * plan.block.outer, larger(1, plan.input_size + plan.output_size));
}

// Where the last row in memory begins, in elements after the first element of the array.
POOLWISE_INLINE Int last_row(const Block& block, const RowStrides& strides) {
  const auto reach = [](Int n, Int stride) { return larger(0, (n - 1) * stride); };
  return reach(block.outer, strides.outer) + reach(block.axes[0].size, strides.plane) + reach(block.axes[1].size, strides.row);
}

// Lanes of the widest instruction set's packs. How a plan is cut is the same for all of them, since additions are in the order of the cuts.
template <class A>
inline constexpr Int widest = 64 / Int(sizeof(A));

// Lanes behind a line in scratch memory: two packs of what is written, up to four lanes apart, or one, up to eight, run over its end.
template <class A>
inline constexpr Int slack = 8 * widest<A> + 64;

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

// n lanes of what may be another type, to exactly where they belong.
template <class A, class From, class To>
POOLWISE_INLINE void copy_lanes(To* to, const From* from, Int n) {
  for_lanes<full<A>>(n, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, load<A, N>(from + lane + u * N));
  });
}

// Calls at<N, U>(lane) for U packs of N lanes at a time until n lanes are done, and up to N - 1 lanes more.
template <int N, int U = 2, class At>
POOLWISE_INLINE void for_packs(Int n, At&& at) {
  Int lane = 0;
  for (; lane + (U - 1) * N < n; lane += U * N) at.template operator()<N, U>(lane);
  for (; lane < n; lane += N) at.template operator()<N, 1>(lane);
}

// One window over all of the axis.
POOLWISE_INLINE bool one_window(const Axis& axis) {
  return axis.output == 1 && axis.spans == nullptr && axis.start == 0 && axis.taps == axis.size && axis.dilation == 1;
}

// ---- what is written ----------------------------------------------------------------------------------------------------

// An output that the caches cannot hold is written past them, in whole lines of theirs: a store that is not would read each line
// from memory first. What a kernel writes is collected until lines are whole.
constexpr Int bytes_worth_streaming = Int(16) << 20;
constexpr Int cache_line = 64;

POOLWISE_INLINE void stream_line(char* to, const char* from) {
#if defined(__AVX512BW__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_load_si512(from));
#elif defined(__AVX2__)
  for (int b = 0; b < cache_line; b += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + b), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + b)));
#elif defined(__x86_64__)
  for (int b = 0; b < cache_line; b += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + b), _mm_load_si128(reinterpret_cast<const __m128i*>(from + b)));
#else
  std::memcpy(to, from, cache_line);
#endif
}

template <class V>
class Stream {
 public:
  static constexpr Int room(Int elements) { return Arena::room<V>(elements) + 2 * cache_line; }
  Stream() = default;
  // Collects at most so many elements at a time, and what a pack runs over them.
  Stream(Arena& arena, Int elements) : held_(reinterpret_cast<char*>(arena.take<V>(elements + 2 * cache_line / Int(sizeof(V))))) {}

  void start(V* to) {
    to_ = reinterpret_cast<char*>(to);
    lead_ = static_cast<Int>(reinterpret_cast<std::uintptr_t>(to) % cache_line);
    foreign_ = lead_;
  }
  // Where the next elements go, and that there are n.
  V* next() const { return reinterpret_cast<V*>(held_ + lead_); }
  void wrote(Int n) {
    const Int bytes = lead_ + n * Int(sizeof(V)), whole = bytes / cache_line * cache_line;
    char* line = to_ - lead_;
    Int at = 0;
    if (whole > 0 && foreign_ > 0) {
      std::memcpy(line + foreign_, held_ + foreign_, static_cast<std::size_t>(cache_line - foreign_));
      at = cache_line, foreign_ = 0;
    }
    for (; at < whole; at += cache_line) stream_line(line + at, held_ + at);
    if (whole > 0) std::memcpy(held_, held_ + whole, cache_line);
    to_ += n * Int(sizeof(V));
    lead_ = bytes - whole;
  }
  void finish() {
    std::memcpy(to_ - lead_ + foreign_, held_ + foreign_, static_cast<std::size_t>(lead_ - foreign_));
#if defined(__x86_64__)
    _mm_sfence();
#endif
  }

 private:
  char *held_ = nullptr, *to_ = nullptr;
  Int lead_ = 0, foreign_ = 0;  // bytes of the present line that are held, and how many of those are not this stream's
};

// ---- states in memory --------------------------------------------------------------------------------------------------

// A line of partial results.
template <class R>
struct Line {
  using A = typename R::Accumulator;
  using S = typename R::Second;
  static constexpr bool two = !std::is_void_v<S>;
  using Beside = std::conditional_t<two, S, char>;

  A* values = nullptr;
  Beside* seconds = nullptr;

  static constexpr Int room(Int lanes) { return Arena::room<A>(lanes + slack<A>) + (two ? Arena::room<Beside>(lanes + slack<A>) : 0); }
  Line() = default;
  Line(Arena& arena, Int lanes) : values(arena.take<A>(lanes + slack<A>)), seconds(two ? arena.take<Beside>(lanes + slack<A>) : nullptr) {}

  POOLWISE_INLINE Line from(Int lane) const {
    Line line = *this;
    line.values += lane;
    if constexpr (two) line.seconds += lane;
    return line;
  }
  template <int N>
  POOLWISE_INLINE typename R::template State<N> load(Int lane) const {
    if constexpr (two)
      return {POOLWISE_ISA::load<A, N>(values + lane), POOLWISE_ISA::load<S, N>(seconds + lane)};
    else
      return {POOLWISE_ISA::load<A, N>(values + lane)};
  }
  template <int N>
  POOLWISE_INLINE void store(Int lane, const typename R::template State<N>& state) const {
    POOLWISE_ISA::store<N, A>(values + lane, state.value);
    if constexpr (two) POOLWISE_ISA::store<N, S>(seconds + lane, state.second);
  }
};

// What a few elements may be added in.
template <class R>
struct FewOf {
  using type = typename R::Accumulator;
};
template <class R>
  requires requires { typename R::Few; }
struct FewOf<R> {
  using type = typename R::Few;
};

// Whether a few are added as they are before they come to an accumulator, which is wider, or keeps what an addition loses.
template <class R>
inline constexpr bool adds_few = (requires { typename R::Few; }) && (!std::is_same_v<typename FewOf<R>::type, typename R::Accumulator> || Line<R>::two);

// So many rows, two additions deep: they err by less than a unit in the sum's last place.
template <int Count, class Few, int M, class Row>
POOLWISE_INLINE Pack<Few, M> few_added(Row&& row) {
  Pack<Few, M> few = row(0);
  if constexpr (Count > 1) few += row(1);
  if constexpr (Count == 3) few += row(2);
  if constexpr (Count == 4) few += row(2) + row(3);
  return few;
}

// What a window's sum is divided by, or multiplied with.
template <class R>
struct DivisorOf {
  using type = typename R::Accumulator;
};
template <class R>
  requires requires { typename R::Divisor; }
struct DivisorOf<R> {
  using type = typename R::Divisor;
};

// Whether rows and taps weigh something, so that none stands for another.
template <class R>
inline constexpr bool weighs = requires { requires R::weighs; };
// Whether elements are raised to a power as they are read.
template <class R>
inline constexpr bool raises = requires { requires R::raises; };

// ---- lanes that lie a stride apart -------------------------------------------------------------------------------------

// Every second lane of two packs, from 0 or from 1 on. Lanes narrower than 32 bits have no shuffle of two packs before AVX-512's
// VBMI: there the halves of wider lanes are cut off, which `joined` does for both packs at once.
template <class Half, class W, int N>
POOLWISE_INLINE Pack<Half, 2 * N> joined(Pack<W, N> a, Pack<W, N> b) {
  using To = Pack<Half, 2 * N>;
#if defined(__AVX512BW__)
  if constexpr (sizeof(a) == 64) {
    const auto v = same_bits<__m512i>(a), w = same_bits<__m512i>(b);
    const __m512i pairs = sizeof(W) == 2 ? _mm512_packus_epi16(v, w) : _mm512_packus_epi32(v, w);  // of 16 bytes each
    return same_bits<To>(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), pairs));
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(a) == 32) {
    const auto v = same_bits<__m256i>(a), w = same_bits<__m256i>(b);
    return same_bits<To>(_mm256_permute4x64_epi64(sizeof(W) == 2 ? _mm256_packus_epi16(v, w) : _mm256_packus_epi32(v, w), 0xd8));
  }
#endif
#if defined(__SSE4_1__)
  if constexpr (sizeof(a) == 16) {
    const auto v = same_bits<__m128i>(a), w = same_bits<__m128i>(b);
    return same_bits<To>(sizeof(W) == 2 ? _mm_packus_epi16(v, w) : _mm_packus_epi32(v, w));
  }
#endif
  To to;
  const auto low = converted<Half, W, N>(a), high = converted<Half, W, N>(b);
  std::memcpy(&to, &low, sizeof low);
  std::memcpy(reinterpret_cast<char*>(&to) + sizeof low, &high, sizeof high);
  return to;
}

template <int From, class T, int N>
POOLWISE_INLINE Pack<T, N> halved(Pack<T, N> a, Pack<T, N> b) {
  if constexpr (sizeof(T) < 4 && N > 1) {
    using Half = std::make_unsigned_t<Lane<T>>;
    using W = std::make_unsigned_t<typename IntegerOf<2 * sizeof(T)>::type>;
    const auto cut = [](Pack<T, N> v) POOLWISE_LAMBDA {
      const auto wide = same_bits<Pack<W, N / 2>>(v);
      return From == 1 ? wide >> (8 * sizeof(T)) : wide & static_cast<W>(std::numeric_limits<Half>::max());
    };
    return same_bits<Pack<T, N>>(joined<Half, W, N / 2>(cut(a), cut(b)));
  } else {
    const Pack<T, N> both[2] = {a, b};
    return one_phase<T, N, 2, From>(both, a);
  }
}

// N lanes, S apart, from p on. Reads S × N lanes.
template <int S, class T, int N>
POOLWISE_INLINE Pack<T, N> picked(const T* p) {
  if constexpr (S == 1) {
    return load<T, N>(p);
  } else if constexpr (S == 2) {
    return halved<0, T, N>(load<T, N>(p), load<T, N>(p + N));
  } else {
    Pack<T, N> packs[S];
    for (int s = 0; s < S; ++s) packs[s] = load<T, N>(p + s * N);
    return one_phase<T, N, S, 0>(packs, packs[0]);
  }
}

template <class R, int S, int M>
POOLWISE_INLINE typename R::template State<M> picked_state(const Line<R>& line, Int lane) {
  if constexpr (Line<R>::two)
    return {picked<S, typename R::Accumulator, M>(line.values + lane), picked<S, typename R::Second, M>(line.seconds + lane)};
  else
    return {picked<S, typename R::Accumulator, M>(line.values + lane)};
}

// Windows of S taps that stand S apart, out of S packs that follow one another, which are read once for all taps: of four each pair first,
// in the order of `balanced`.
template <class R, int S, int M, class State = typename R::template State<M>>
POOLWISE_INLINE State covered(const R& r, const Line<R>& line, Int lane) {
  using A = typename R::Accumulator;
  using Second = typename Line<R>::Beside;
  if constexpr (S % 2 == 0) {
    const auto half = [&](Int from) POOLWISE_LAMBDA {
      if constexpr (S == 2) return line.template load<M>(lane + from * M);
      else return covered<R, S / 2, M>(r, line, lane + from * (S / 2) * M);
    };
    const State a = half(0), b = half(1);
    if constexpr (Line<R>::two)
      return r.template merged<M>({halved<0, A, M>(a.value, b.value), halved<0, Second, M>(a.second, b.second)},
                                  r.template moved<M>({halved<1, A, M>(a.value, b.value), halved<1, Second, M>(a.second, b.second)}, S / 2));
    else
      return r.template merged<M>({halved<0, A, M>(a.value, b.value)}, {halved<1, A, M>(a.value, b.value)});
  } else {
    static_assert(S == 3 && !Line<R>::two);
    Pack<A, M> packs[S];
    for (int s = 0; s < S; ++s) packs[s] = load<A, M>(line.values + lane + s * M);
    const State first = r.template merged<M>({one_phase<A, M, S, 0>(packs, packs[0])}, {one_phase<A, M, S, 1>(packs, packs[0])});
    return r.template merged<M>(first, {one_phase<A, M, S, 2>(packs, packs[0])});
  }
}

// ---- lanes that belong together ------------------------------------------------------------------------------------------

// Of `Count` windows that are to lie in one pack, half of them in each of two: the first half of what is there of each, or the second.
template <int N, int Count, int Half>
struct Halves {
  static constexpr int of(int i) {
    constexpr int lanes = N / Count;
    const int window = i / lanes, pack = window < Count / 2 ? 0 : N;
    return pack + window % (Count / 2) * 2 * lanes + Half * lanes + i % lanes;
  }
};
template <class R, int N, int Count, int Half, class State>
POOLWISE_INLINE State halves(const State& a, const State& b) {
  constexpr auto lanes = std::make_integer_sequence<int, N>{};
  if constexpr (Line<R>::two)
    return {shuffled<Halves<N, Count, Half>>(a.value, b.value, lanes), shuffled<Halves<N, Count, Half>>(a.second, b.second, lanes)};
  else
    return {shuffled<Halves<N, Count, Half>>(a.value, b.value, lanes)};
}

// Packs in which a window is gathered: as many lanes on every instruction set, where the order of additions matters.
template <class R, class A = typename R::Accumulator>
inline constexpr int packs_of_window = R::idempotent || !std::is_floating_point_v<A> ? 1 : static_cast<int>(widest<A>) / full<A>;

// Packs of one window, the halves first; nothing is left of all but the first.
template <class R, int Count, class State>
POOLWISE_INLINE State in_one_pack(const R& r, State* packs) {
  if constexpr (Count > 1) {
    for (int v = 0; v < Count / 2; ++v) packs[v] = r.template merged<full<typename R::Accumulator>>(packs[v], packs[v + Count / 2]);
    return in_one_pack<R, Count / 2>(r, packs);
  }
  return packs[0];
}

// Packs of so many windows, each folded to its first lanes, one window after the other. The halves of a pack are merged first, so that
// it comes to the same on every instruction set, where what it has in several packs is merged so before.
template <class R, int Count, class State>
POOLWISE_INLINE State folded(const R& r, const State* windows) {
  constexpr int N = full<typename R::Accumulator>;
  if constexpr (Count == 1) {
    return windows[0];
  } else {
    const State a = folded<R, Count / 2>(r, windows), b = folded<R, Count / 2>(r, windows + Count / 2);
    return r.template merged<N>(halves<R, N, Count, 0>(a, b), halves<R, N, Count, 1>(a, b));
  }
}

// ---- taps in a tree ----------------------------------------------------------------------------------------------------

// Up to eight taps are merged in a tree as deep as the logarithm of their number; more in such trees, one after the other. Where an
// order is as good as any other they follow one another, which has the fewest branches. Count is the number of taps where the
// compiler knows it, else 0.
constexpr Int balanced_taps = 8;

template <class R, int M, int Count, class At>
POOLWISE_INLINE typename R::template State<M> balanced(const R& r, Int taps, At&& at) {
  using State = typename R::template State<M>;
  if constexpr (Count > 0) taps = Count;
  State all = at(0);
  if constexpr (R::idempotent) {
    for (Int t = 1; t < taps; ++t) all = r.template merged<M>(all, at(t));
  } else {
    const auto four = [&](Int t) POOLWISE_LAMBDA {
      if (t + 1 == taps) return at(t);
      const State two = r.template merged<M>(at(t), at(t + 1));
      if (t + 2 == taps) return two;
      return r.template merged<M>(two, t + 3 == taps ? at(t + 2) : r.template merged<M>(at(t + 2), at(t + 3)));
    };
    for (Int t = 0; t < taps; t += balanced_taps) {
      State eight = four(t);
      if (t + 4 < taps) eight = r.template merged<M>(eight, four(t + 4));
      all = t == 0 ? eight : r.template merged<M>(all, eight);
    }
  }
  return all;
}

// Writes S packs woven together: lane s of the result is lane 0 of pack s.
template <int S, class T, int N, class To, int... P>
POOLWISE_INLINE void weave(To* to, const Pack<T, N> (&phases)[S], std::integer_sequence<int, P...>) {
  (store<N, T>(to + P * N, woven<T, N, S, P>(phases, phases[0])), ...);
}

}  // namespace poolwise::POOLWISE_ISA
