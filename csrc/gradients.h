// What becomes of the gradient of one window, backward. An engine walks for it: each element of the input adds what the windows that
// read it send. route(sum, gradients, kept offsets, offset of the tap) → sum of one that keeps, route(sum, gradients, divisor) of
// one that does not.
#pragma once

#include "plan.h"
#include "simd.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_woven = 4;  // phases of elements, a stride apart, that are gathered by packs and woven

// Offsets of whichever width the plan keeps.
struct AnyOffset {};

template <class K, class L, int N>
POOLWISE_INLINE Pack<L, N> load_offsets(const void* kept, Kept width, Int at) {
  if constexpr (!std::is_same_v<K, AnyOffset>) return load<L, N>(static_cast<const K*>(kept) + at);
  if (width == Kept::bytes) return load<L, N>(static_cast<const std::uint8_t*>(kept) + at);
  if (width == Kept::words) return load<L, N>(static_cast<const std::int32_t*>(kept) + at);
  return load<L, N>(static_cast<const Int*>(kept) + at);
}

template <class L, int N>
POOLWISE_INLINE void store_offsets(void* kept, Kept width, Int at, Pack<L, N> offsets) {
  if (kept == nullptr) return;
  if (width == Kept::bytes) return store<N, L>(static_cast<std::uint8_t*>(kept) + at, offsets);
  if (width == Kept::words) return store<N, L>(static_cast<std::int32_t*>(kept) + at, offsets);
  return store<N, L>(static_cast<Int*>(kept) + at, offsets);
}

// All of it to the element that won.
template <class T, class K, class A = Number<T>>
struct ToWinner {
  using Element = T;
  using Gradient = T;
  using Accumulator = A;
  using Offset = K;
  static constexpr bool keeps = true;

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, Pack<Lane<A>, N> kept, Int at) {
    return sum + (kept == static_cast<Lane<A>>(at) ? g : Pack<A, N>{});
  }
};

// The same share to each: the gradient over what a mean divides by, 1 for a sum. G: what memory holds of the gradient.
template <class T, class A, class G = T>
struct ToAll {
  using Element = T;
  using Gradient = G;
  using Accumulator = A;
  using Offset = AnyOffset;
  static constexpr bool keeps = false;

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, A divisor) {
    return sum + g / divisor;
  }
};

}  // namespace poolwise::POOLWISE_ISA
