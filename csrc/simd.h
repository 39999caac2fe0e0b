// Packs of N lanes in the compiler's own vector types, and how a row of lanes is cut into packs.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "geometry.h"

#define POOLWISE_LAMBDA __attribute__((always_inline))

#if !defined(POOLWISE_ISA) || !defined(POOLWISE_VECTOR_BYTES)
#error "simd.h belongs to one instruction set: include it from isa.cc only"
#endif

namespace poolwise::POOLWISE_ISA {

template <class T, int N>
struct PackOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Pack = typename PackOf<T, N>::type;

// The integer as wide as an element: what a comparison of packs yields, and what carries a tap's offset.
template <class T>
struct LaneOf;
template <>
struct LaneOf<float> {
  using type = std::int32_t;
};
template <>
struct LaneOf<double> {
  using type = std::int64_t;
};
template <class T>
using Lane = typename LaneOf<T>::type;

template <class T>
inline constexpr int full = POOLWISE_VECTOR_BYTES / sizeof(T);

template <class To, int N, class From>
POOLWISE_INLINE Pack<To, N> load(const From* p) {
  Pack<From, N> v;
  std::memcpy(&v, p, sizeof v);
  if constexpr (std::is_same_v<To, From>)
    return v;
  else
    return __builtin_convertvector(v, Pack<To, N>);
}

template <int N, class From, class To>
POOLWISE_INLINE void store(To* p, Pack<From, N> v) {
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(p, &v, sizeof v);
  } else {
    const auto narrow = __builtin_convertvector(v, Pack<To, N>);
    std::memcpy(p, &narrow, sizeof narrow);
  }
}

template <class T, int N>
POOLWISE_INLINE Pack<T, N> every(T value) {
  return Pack<T, N>{} + value;
}

// Calls at<N, U>(lane) so that every lane below n is covered by U packs of N lanes. The last pack overlaps the one before it
// rather than being shorter, so `at` must give the same result when it meets a lane twice.
template <int N, class At>
POOLWISE_INLINE void for_lanes(Int n, At&& at) {
  if constexpr (N > 1) {
    if (n < N) return for_lanes<N / 2>(n, at);
  }
  Int lane = 0;
  for (; lane + 4 * N <= n; lane += 4 * N) at.template operator()<N, 4>(lane);
  for (; lane + N <= n; lane += N) at.template operator()<N, 1>(lane);
  if (lane < n) at.template operator()<N, 1>(n - N);
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

// Takes every S-th lane of S packs in a row, from `phase` on: one pick per pack after the first.
template <int N, int S, int Phase, int Next>
struct Every {
  static constexpr int of(int i) {
    const int lane = S * i + Phase;  // within the S packs
    if (Next == 1) return lane < 2 * N ? lane : i;
    return lane / N == Next ? N + lane % N : i;
  }
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
