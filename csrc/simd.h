// Packs of N lanes in the compiler's own vector types, how they meet the elements in memory, and how a row of lanes is cut into
// packs.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "geometry.h"

#define POOLWISE_LAMBDA __attribute__((always_inline))
#define POOLWISE_OUTLINE __attribute__((noinline)) inline

#if !defined(POOLWISE_ISA) || !defined(POOLWISE_VECTOR_BYTES)
#error "simd.h belongs to one instruction set: include it from isa.cc and isa_*.cc only"
#endif

namespace poolwise::POOLWISE_ISA {

// ---- packs -------------------------------------------------------------------------------------------------------------

template <class T, int N>
struct PackOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <>
struct PackOf<Wide, 1> {
  using type = Wide;  // no vector holds it
};
template <class T, int N>
using Pack = typename PackOf<T, N>::type;

// The integer as wide as an accumulator: what a comparison of packs yields, and what carries a tap's offset.
template <std::size_t Bytes>
struct IntegerOf;
template <>
struct IntegerOf<1> {
  using type = std::int8_t;
};
template <>
struct IntegerOf<2> {
  using type = std::int16_t;
};
template <>
struct IntegerOf<4> {
  using type = std::int32_t;
};
template <>
struct IntegerOf<8> {
  using type = std::int64_t;
};
template <>
struct IntegerOf<16> {
  using type = Wide;
};
template <class T>
using Lane = typename IntegerOf<sizeof(T)>::type;

template <class T>
inline constexpr int full = sizeof(T) > POOLWISE_VECTOR_BYTES ? 1 : POOLWISE_VECTOR_BYTES / sizeof(T);
template <>
inline constexpr int full<Wide> = 1;

template <class T, int N>
POOLWISE_INLINE Pack<T, N> every(T value) {
  return Pack<T, N>{} + value;
}

// 0, 1, 2 …
template <class T, int N>
POOLWISE_INLINE Pack<T, N> counted() {
  Pack<T, N> numbers{};
  for (int i = 0; i < N; ++i) numbers[i] = static_cast<T>(i);
  return numbers;
}

template <class To, class From>
POOLWISE_INLINE To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// ---- elements that are not numbers of C++ ------------------------------------------------------------------------------

struct Truth {  // a bool that is counted; any byte but 0 is true
  std::uint8_t byte;
};
struct Half {  // float16
  std::uint16_t bits;
};
struct Brain {  // bfloat16
  std::uint16_t bits;
};

// The number as which an element is computed with, before any widening.
template <class T>
struct NumberOf {
  using type = T;
};
template <>
struct NumberOf<Truth> {
  using type = std::uint8_t;
};
template <>
struct NumberOf<Half> {
  using type = float;
};
template <>
struct NumberOf<Brain> {
  using type = float;
};
template <class T>
using Number = typename NumberOf<T>::type;

template <int N>
using Words = Pack<std::uint32_t, N>;

template <int N>
POOLWISE_INLINE Pack<float, N> decoded(const Half*, Words<N> h) {
  const Words<N> exponent = h & 0x7c00u, sign = (h & 0x8000u) << 16;
  Words<N> bits = ((h & 0x7fffu) << 13) + (112u << 23);
  bits = exponent == 0x7c00u ? bits + (112u << 23) : bits;
  const auto tiny = same_bits<Words<N>>(same_bits<Pack<float, N>>(bits + (1u << 23)) - 0x1p-14f);
  return same_bits<Pack<float, N>>((exponent == 0u ? tiny : bits) | sign);
}
template <int N>
POOLWISE_INLINE Pack<float, N> decoded(const Brain*, Words<N> h) {
  return same_bits<Pack<float, N>>(h << 16);
}

// To the nearest, ties to even; NaN stays NaN.
template <int N>
POOLWISE_INLINE Words<N> encoded(const Half*, Pack<float, N> v) {
  const auto all = same_bits<Words<N>>(v);
  const Words<N> sign = (all >> 16) & 0x8000u, bits = all & 0x7fffffffu;
  const Words<N> normal = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  const Words<N> tiny = same_bits<Words<N>>(same_bits<Pack<float, N>>(bits) + 0.5f) - 0x3f000000u;
  const Words<N> huge = bits > 0x7f800000u ? Words<N>{} + 0x7e00u : Words<N>{} + 0x7c00u;
  return (bits >= 0x47800000u ? huge : bits < 0x38800000u ? tiny : normal) | sign;
}
template <int N>
POOLWISE_INLINE Words<N> encoded(const Brain*, Pack<float, N> v) {
  const auto bits = same_bits<Words<N>>(v);
  const Words<N> nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : nearest;
}

// ---- memory ------------------------------------------------------------------------------------------------------------

// GCC 12 takes most conversions between widths apart into single lanes, so those that kernels need are spelled out.
#if defined(__x86_64__)
template <bool IsLong>
struct RegisterOf {
  using type = __m128i;
};
template <>
struct RegisterOf<true> {
  using type = __m256i;
};

template <class V>
POOLWISE_INLINE auto in_register(const V& v) {
  typename RegisterOf<(sizeof v > 16)>::type r{};
  std::memcpy(&r, &v, sizeof v);
  return r;
}

#define POOLWISE_WIDEN(SET, BYTES, FROM, TO)                                                                          \
  if constexpr (sizeof(To) * N == BYTES && sizeof(From) * 8 == FROM && sizeof(To) * 8 == TO) {                        \
    if constexpr (std::is_signed_v<From>) return same_bits<Pack<To, N>>(SET##_cvtepi##FROM##_epi##TO(in_register(v))); \
    if constexpr (!std::is_signed_v<From>) return same_bits<Pack<To, N>>(SET##_cvtepu##FROM##_epi##TO(in_register(v))); \
  } else
#define POOLWISE_WIDEN_ALL(SET, BYTES)                                                            \
  POOLWISE_WIDEN(SET, BYTES, 8, 16) POOLWISE_WIDEN(SET, BYTES, 8, 32) POOLWISE_WIDEN(SET, BYTES, 16, 32) \
  POOLWISE_WIDEN(SET, BYTES, 32, 64)
#define POOLWISE_NARROW(BYTES, FROM, TO)                                                                   \
  if constexpr (sizeof(From) * N == BYTES && sizeof(From) * 8 == FROM && sizeof(To) * 8 == TO) {           \
    const auto cut = _mm512_cvtepi##FROM##_epi##TO(same_bits<__m512i>(v));                                 \
    Pack<To, N> to;                                                                                        \
    std::memcpy(&to, &cut, sizeof to);                                                                     \
    return to;                                                                                             \
  } else
#endif

template <class To, class From, int N>
POOLWISE_INLINE Pack<To, N> widened(Pack<From, N> v) {
  if constexpr (sizeof(To) == 8 && sizeof(From) == 1)  // GCC 12 fails on a mask that is merged into the instruction for it
    return __builtin_convertvector(v, Pack<To, N>);
  else if constexpr (sizeof(To) == 8 && sizeof(From) == 2)
    return widened<To, std::int32_t, N>(widened<std::int32_t, From, N>(v));
  else
#if defined(__AVX512BW__)
  POOLWISE_WIDEN_ALL(_mm512, 64)
#endif
#if defined(__AVX2__)
  POOLWISE_WIDEN_ALL(_mm256, 32)
#endif
#if defined(__SSE4_1__)
  POOLWISE_WIDEN_ALL(_mm, 16)
#endif
  return __builtin_convertvector(v, Pack<To, N>);
}

template <class To, class From, int N>
POOLWISE_INLINE Pack<To, N> narrowed(Pack<From, N> v) {
#if defined(__AVX512BW__)
  POOLWISE_NARROW(64, 16, 8) POOLWISE_NARROW(64, 32, 8) POOLWISE_NARROW(64, 64, 8) POOLWISE_NARROW(64, 32, 16)
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(From) == 4 && sizeof(To) == 1 && N == 8) {
    const __m256i every_fourth = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1,
                                                  -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i cut = _mm256_shuffle_epi8(same_bits<__m256i>(v), every_fourth);
    const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(cut), _mm256_extracti128_si256(cut, 1));
    Pack<To, N> to;
    std::memcpy(&to, &both, sizeof to);
    return to;
  } else
#endif
  return __builtin_convertvector(v, Pack<To, N>);
}

template <class To, class From, int N>
POOLWISE_INLINE Pack<To, N> converted(Pack<From, N> v) {
  constexpr bool whole = std::is_integral_v<To> && std::is_integral_v<From>;
  if constexpr (std::is_same_v<To, From>) {
    return v;
  } else if constexpr (std::is_same_v<To, Wide>) {
    return v[0];
  } else if constexpr (std::is_same_v<From, Wide>) {
    return Pack<To, N>{static_cast<To>(v)};
  } else if constexpr (N == 1) {
    return __builtin_convertvector(v, Pack<To, N>);
  } else if constexpr (whole && sizeof(To) > sizeof(From)) {
    return widened<To, From, N>(v);
  } else if constexpr (whole && sizeof(To) < sizeof(From)) {
    return narrowed<To, From, N>(v);
  } else if constexpr (std::is_integral_v<From> && sizeof(From) < 4) {
    return converted<To, std::int32_t, N>(widened<std::int32_t, From, N>(v));
  } else if constexpr (std::is_integral_v<To> && sizeof(To) < 4) {
    return narrowed<To, std::int32_t, N>(__builtin_convertvector(v, Pack<std::int32_t, N>));
#if defined(__AVX512BW__)
  } else if constexpr (std::is_same_v<To, double> && std::is_same_v<From, float> && N == 8) {
    return same_bits<Pack<To, N>>(_mm512_cvtps_pd(same_bits<__m256>(v)));
  } else if constexpr (std::is_same_v<To, double> && std::is_same_v<From, std::int32_t> && N == 8) {
    return same_bits<Pack<To, N>>(_mm512_cvtepi32_pd(same_bits<__m256i>(v)));
#endif
#if defined(__AVX2__)
  } else if constexpr (std::is_same_v<To, double> && std::is_same_v<From, float> && N == 4) {
    return same_bits<Pack<To, N>>(_mm256_cvtps_pd(same_bits<__m128>(v)));
#endif
  } else {
    return __builtin_convertvector(v, Pack<To, N>);
  }
}

// N elements at any address, as numbers of type To.
template <class To, int N, class From>
POOLWISE_INLINE Pack<To, N> load(const From* p) {
  if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, Brain>) {
    Pack<std::uint16_t, N> h;
    std::memcpy(&h, p, sizeof h);
#if defined(__AVX512BW__)
    if constexpr (std::is_same_v<From, Half> && N == 16) return converted<To, float, N>(same_bits<Pack<float, N>>(_mm512_cvtph_ps(in_register(h))));
#endif
#if defined(__F16C__)
    if constexpr (std::is_same_v<From, Half> && N == 8) return converted<To, float, N>(same_bits<Pack<float, N>>(_mm256_cvtph_ps(in_register(h))));
#endif
    return converted<To, float, N>(decoded<N>(p, converted<std::uint32_t, std::uint16_t, N>(h)));
  } else if constexpr (std::is_same_v<From, Truth>) {
    Pack<std::uint8_t, N> bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return converted<To, std::uint8_t, N>(same_bits<Pack<std::uint8_t, N>>(bytes != 0) & 1);
  } else {
    Pack<From, N> v;
    std::memcpy(&v, p, sizeof v);
    return converted<To, From, N>(v);
  }
}

template <int N, class From, class To>
POOLWISE_INLINE void store(To* p, Pack<From, N> v) {
  if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, Brain>) {
    const auto f = converted<float, From, N>(v);
#if defined(__AVX512BW__)
    if constexpr (std::is_same_v<To, Half> && N == 16) {
      const __m256i h = _mm512_cvtps_ph(same_bits<__m512>(f), _MM_FROUND_TO_NEAREST_INT);
      std::memcpy(static_cast<void*>(p), &h, sizeof h);
      return;
    }
#endif
#if defined(__F16C__)
    if constexpr (std::is_same_v<To, Half> && N == 8) {
      const __m128i h = _mm256_cvtps_ph(same_bits<__m256>(f), _MM_FROUND_TO_NEAREST_INT);
      std::memcpy(static_cast<void*>(p), &h, sizeof h);
      return;
    }
#endif
    const auto h = converted<std::uint16_t, std::uint32_t, N>(encoded<N>(p, f));
    std::memcpy(static_cast<void*>(p), &h, sizeof h);
  } else if constexpr (std::is_same_v<To, Truth>) {
    store<N, From>(&p->byte, v);
  } else {
    const auto narrow = converted<To, From, N>(v);
    std::memcpy(p, &narrow, sizeof narrow);
  }
}

// A bit for each lane, of a comparison's result.
template <class L, int N>
POOLWISE_INLINE std::uint64_t lane_bits(Pack<L, N> mask) {
#if defined(__AVX512BW__)
  if constexpr (sizeof mask == 64) {
    const auto v = same_bits<__m512i>(mask);
    if constexpr (sizeof(L) == 8) return _mm512_movepi64_mask(v);
    if constexpr (sizeof(L) == 4) return _mm512_movepi32_mask(v);
    if constexpr (sizeof(L) == 2) return _mm512_movepi16_mask(v);
    if constexpr (sizeof(L) == 1) return _mm512_movepi8_mask(v);
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof mask == 32) {
    if constexpr (sizeof(L) == 8) return static_cast<unsigned>(_mm256_movemask_pd(same_bits<__m256d>(mask)));
    if constexpr (sizeof(L) == 4) return static_cast<unsigned>(_mm256_movemask_ps(same_bits<__m256>(mask)));
    if constexpr (sizeof(L) == 1) return static_cast<unsigned>(_mm256_movemask_epi8(same_bits<__m256i>(mask)));
  }
#endif
  std::uint64_t bits = 0;
  for (int i = 0; i < N; ++i) bits |= static_cast<std::uint64_t>(mask[i] != 0) << i;
  return bits;
}

// Whether a comparison holds in every lane.
template <class L, int N>
POOLWISE_INLINE bool holds(Pack<L, N> mask) {
#if defined(__AVX512BW__)
  if constexpr (sizeof mask == 64) return _mm512_movepi8_mask(same_bits<__m512i>(mask)) == ~__mmask64(0);
#elif defined(__AVX2__)
  if constexpr (sizeof mask == 32) return _mm256_movemask_epi8(same_bits<__m256i>(mask)) == -1;
#endif
  bool all = true;
  for (int i = 0; i < N; ++i) all = all & (mask[i] != 0);
  return all;
}

#if defined(__FMA__)
// a · b + c, rounded once, of full packs.
template <int N>
POOLWISE_INLINE Pack<float, N> multiplied_and_added(Pack<float, N> a, Pack<float, N> b, Pack<float, N> c) {
#if defined(__AVX512BW__)
  return same_bits<Pack<float, N>>(_mm512_fmadd_ps(same_bits<__m512>(a), same_bits<__m512>(b), same_bits<__m512>(c)));
#else
  return same_bits<Pack<float, N>>(_mm256_fmadd_ps(same_bits<__m256>(a), same_bits<__m256>(b), same_bits<__m256>(c)));
#endif
}
#endif

// Square roots, each rounded correctly.
template <int N>
POOLWISE_INLINE Pack<double, N> root(Pack<double, N> v) {
#if defined(__AVX512BW__)
  if constexpr (N == 8) return same_bits<Pack<double, N>>(_mm512_sqrt_pd(same_bits<__m512d>(v)));
#endif
#if defined(__AVX2__)
  if constexpr (N == 4) return same_bits<Pack<double, N>>(_mm256_sqrt_pd(same_bits<__m256d>(v)));
#endif
  Pack<double, N> roots{};
  for (int i = 0; i < N; ++i) roots[i] = __builtin_sqrt(v[i]);
  return roots;
}

// The lanes base[places[0]], base[places[1]] …
template <class A, int N>
POOLWISE_INLINE Pack<A, N> gathered(const A* base, const std::int32_t* places) {
#if defined(__AVX512BW__)
  if constexpr (std::is_same_v<A, float> && N == 16)
    return same_bits<Pack<A, N>>(_mm512_i32gather_ps(_mm512_loadu_si512(places), base, 4));
  else if constexpr (std::is_same_v<A, double> && N == 8)
    return same_bits<Pack<A, N>>(_mm512_i32gather_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(places)), base, 8));
  else
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<A, float> && N == 8)
    return same_bits<Pack<A, N>>(_mm256_i32gather_ps(base, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places)), 4));
  else if constexpr (std::is_same_v<A, double> && N == 4)
    return same_bits<Pack<A, N>>(_mm256_i32gather_pd(base, _mm_loadu_si128(reinterpret_cast<const __m128i*>(places)), 8));
  else
#endif
  {
    Pack<A, N> lanes{};
    for (int i = 0; i < N; ++i) lanes[i] = base[places[i]];
    return lanes;
  }
}

// Some lanes of a pack of A: those of a range, or those that something holds for.
template <class A, int N>
class LaneSet {
#if defined(__AVX512BW__)
  static constexpr bool in_bits = sizeof(Pack<A, N>) == 64;
#else
  static constexpr bool in_bits = false;
#endif
  using Bits = std::conditional_t<N <= 8, std::uint8_t, std::conditional_t<N <= 16, std::uint16_t, std::conditional_t<N <= 32, std::uint32_t, std::uint64_t>>>;
  using Held = std::conditional_t<in_bits, Bits, Pack<Lane<A>, N>>;

 public:
  static POOLWISE_INLINE LaneSet all() { return between(0, N); }
  static POOLWISE_INLINE LaneSet between(Int begin, Int end) {
    begin = begin < 0 ? 0 : begin > N ? N : begin, end = end < 0 ? 0 : end > N ? N : end;
    if constexpr (in_bits) {
      const auto below = [](Int n) { return n == 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << n) - 1; };
      return {static_cast<Bits>(below(end) & ~below(begin))};
    } else {
      const auto lanes = counted<Lane<A>, N>();
      return {(lanes >= static_cast<Lane<A>>(begin)) & (lanes < static_cast<Lane<A>>(end))};
    }
  }
  // Those where v is above w; NaN is not.
  static POOLWISE_INLINE LaneSet above(Pack<A, N> v, Pack<A, N> w) {
#if defined(__AVX512BW__)
    if constexpr (in_bits && std::is_same_v<A, float>) return {_mm512_cmp_ps_mask(same_bits<__m512>(v), same_bits<__m512>(w), _CMP_GT_OQ)};
    if constexpr (in_bits && std::is_same_v<A, std::int16_t>) return {_mm512_cmpgt_epi16_mask(same_bits<__m512i>(v), same_bits<__m512i>(w))};
    if constexpr (in_bits && std::is_same_v<A, double>) return {_mm512_cmp_pd_mask(same_bits<__m512d>(v), same_bits<__m512d>(w), _CMP_GT_OQ)};
#endif
    if constexpr (!in_bits) return {v > w};
  }
  POOLWISE_INLINE LaneSet& operator&=(LaneSet other) {
    held_ &= other.held_;
    return *this;
  }
  POOLWISE_INLINE bool is_all() const {
    if constexpr (in_bits)
      return held_ == static_cast<Bits>(-1);
    else
      return holds<Lane<A>, N>(held_);
  }
  // These lanes of v, the others of w.
  template <class V>
  POOLWISE_INLINE V of(V v, V w) const {
#if defined(__AVX512BW__)
    if constexpr (in_bits) {
      const auto a = same_bits<__m512i>(v), b = same_bits<__m512i>(w);
      if constexpr (sizeof(A) == 1) return same_bits<V>(_mm512_mask_blend_epi8(held_, b, a));
      if constexpr (sizeof(A) == 2) return same_bits<V>(_mm512_mask_blend_epi16(held_, b, a));
      if constexpr (sizeof(A) == 4) return same_bits<V>(_mm512_mask_blend_epi32(held_, b, a));
      if constexpr (sizeof(A) == 8) return same_bits<V>(_mm512_mask_blend_epi64(held_, b, a));
    }
#endif
    if constexpr (!in_bits) return held_ ? v : w;
  }

  LaneSet() = default;

 private:
  POOLWISE_INLINE LaneSet(Held held) : held_(held) {}
  Held held_;
};

// ---- rows of lanes -----------------------------------------------------------------------------------------------------

// Calls at<N, U>(lane) so that every lane below n is covered by U packs of N lanes. The last pack overlaps the one before it
// rather than being shorter, so `at` must give the same result when it meets a lane twice.
template <int N, class At>
POOLWISE_INLINE void for_short_row(Int n, At&& at) {
  if constexpr (N > 1) {
    if (n < N) return for_short_row<N / 2>(n, at);
  }
  Int lane = 0;
  for (; lane + N <= n; lane += N) at.template operator()<N, 1>(lane);
  if (lane < n) at.template operator()<N, 1>(n - N);
}

template <int N, class At>
POOLWISE_INLINE void for_lanes(Int n, At&& at) {
  if (n < N) {
    if constexpr (N > 1) for_short_row<N / 2>(n, at);
    return;
  }
  Int lane = 0;
  for (; lane + 4 * N <= n; lane += 4 * N) at.template operator()<N, 4>(lane);
  for (; lane + N <= n; lane += N) at.template operator()<N, 1>(lane);
  if (lane < n) at.template operator()<N, 1>(n - N);
}

// The same with full packs and single lanes alone, for what is too rare to be compiled in every width.
template <int N, class At>
POOLWISE_INLINE void for_rare_lanes(Int n, At&& at) {
  Int lane = 0;
  if constexpr (N > 1)
    for (; lane + N <= n; lane += N) at.template operator()<N, 1>(lane);
  for (; lane < n; ++lane) at.template operator()<1, 1>(lane);
}

// Lane i of the result is lane `Pick::of(i)` of a followed by b.
template <class Pick, class V, int... I>
POOLWISE_INLINE V shuffled(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pick::of(I)...);
#else
  using Mask = decltype(a < b);
  return __builtin_shuffle(a, b, Mask{Pick::of(I)...});
#endif
}

// The same for lanes that only the run tells, and for which elements that takes few instructions: AVX2 moves no 16 bits across its
// halves, nothing before VBMI 8, and Clang has nothing for it but one lane after the other.
#if defined(__clang__) && !defined(__AVX512BW__)
template <class T>
inline constexpr bool picks_at_run = false;
#else
template <class T>
inline constexpr bool picks_at_run = sizeof(T) >= 4 || (sizeof(T) == 2 && POOLWISE_VECTOR_BYTES != 32);
#endif
// Whether engines that pick short rows' lanes so are compiled forward: SSE chooses only bytes of one pack, and of the poolings that were
// tried there they were sooner for two maxima alone; benchmarks/factors.md, 107.
#if defined(__SSE2__) && !defined(__AVX2__)
template <class T>
inline constexpr bool picks_forward = false;
#else
template <class T>
inline constexpr bool picks_forward = picks_at_run<T>;
#endif
template <class T, int N>
POOLWISE_INLINE Pack<T, N> picked_at_run(Pack<T, N> a, Pack<T, N> b, Pack<Lane<T>, N> lanes) {
#if defined(__AVX512BW__)
  if constexpr (sizeof a == 64 && sizeof(T) > 1) {
    const auto v = same_bits<__m512i>(a), w = same_bits<__m512i>(b), at = same_bits<__m512i>(lanes);
    if constexpr (sizeof(T) == 2) return same_bits<Pack<T, N>>(_mm512_permutex2var_epi16(v, at, w));
    if constexpr (std::is_same_v<T, float>) return same_bits<Pack<T, N>>(_mm512_permutex2var_ps(same_bits<__m512>(a), at, same_bits<__m512>(b)));
    if constexpr (std::is_same_v<T, double>) return same_bits<Pack<T, N>>(_mm512_permutex2var_pd(same_bits<__m512d>(a), at, same_bits<__m512d>(b)));
    if constexpr (sizeof(T) == 4) return same_bits<Pack<T, N>>(_mm512_permutex2var_epi32(v, at, w));
    return same_bits<Pack<T, N>>(_mm512_permutex2var_epi64(v, at, w));
  } else
#endif
  {
#if defined(__clang__)
    Pack<T, N> picked{};
    for (int i = 0; i < N; ++i) picked[i] = lanes[i] < N ? a[lanes[i]] : b[lanes[i] - N];
    return picked;
#else
    return __builtin_shuffle(a, b, lanes);
#endif
  }
}

// Takes every S-th lane of S packs in a row, from `phase` on: one pick per pack after the first.
constexpr int every_lane(int n, int step, int phase, int next, int i) {
  const int lane = step * i + phase;  // within the packs
  if (next == 1) return lane < 2 * n ? lane : i;
  return lane / n == next ? n + lane % n : i;
}
template <int N, int S, int Phase, int Next>
struct Every {
  static constexpr int of(int i) { return every_lane(N, S, Phase, Next, i); }
};

template <class T, int N, int S, int Phase, int Next = 1>
POOLWISE_INLINE Pack<T, N> one_phase(const Pack<T, N> (&packs)[S], Pack<T, N> so_far) {
  if constexpr (Next == S)
    return so_far;
  else
    return one_phase<T, N, S, Phase, Next + 1>(
        packs, shuffled<Every<N, S, Phase, Next>>(so_far, packs[Next], std::make_integer_sequence<int, N>{}));
}

// The opposite: pack number `Out` of S phases woven together.
template <int N, int S, int Out, int Next>
struct Woven {
  static constexpr int of(int i) {
    const int lane = Out * N + i;
    if (Next == 1) return lane % S == 1 ? N + lane / S : lane / S;
    return lane % S == Next ? N + lane / S : i;
  }
};

template <class T, int N, int S, int Out, int Next = 1>
POOLWISE_INLINE Pack<T, N> woven(const Pack<T, N> (&phases)[S], Pack<T, N> so_far) {
  if constexpr (Next == S)
    return so_far;
  else
    return woven<T, N, S, Out, Next + 1>(
        phases, shuffled<Woven<N, S, Out, Next>>(so_far, phases[Next], std::make_integer_sequence<int, N>{}));
}

}  // namespace poolwise::POOLWISE_ISA
