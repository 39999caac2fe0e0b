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
  Int lane = 0;
  for (; lane + 4 * N <= n; lane += 4 * N) at.template operator()<N, 4>(lane);
  for (; lane + N <= n; lane += N) at.template operator()<N, 1>(lane);
  if (lane == n) return;
  if (n >= N) return at.template operator()<N, 1>(n - N);
  for (; lane < n; ++lane) at.template operator()<1, 1>(lane);
}

}  // namespace poolwise::POOLWISE_ISA
