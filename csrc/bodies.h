// What becomes of the elements of one window. A body is a short struct; the engines in forward.h and backward.h walk for it.
//
// Forward: State<N> holds N lanes of the reduction. start(offset of the first present tap), add(values, offset of their tap),
// finish(divisor) → values; a body with `keeps` also has `offset`, the winner's.
// Backward: add(sum, gradients, kept offsets, offset of the tap, divisor) → sum.
#pragma once

#include <limits>

#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// Orders: does v take the place of `best`? NaN always does, and nothing takes NaN's place but a later NaN;
// of equal elements the first stays.
struct Largest {
  template <class T>
  static constexpr T least = -std::numeric_limits<T>::infinity();
  template <class V>
  static POOLWISE_INLINE auto takes(V best, V v) {
    return (v > best) | (v != v);
  }
};

struct Smallest {
  template <class T>
  static constexpr T least = std::numeric_limits<T>::infinity();
  template <class V>
  static POOLWISE_INLINE auto takes(V best, V v) {
    return (v < best) | (v != v);
  }
};

// The best element alone.
template <class Order, class T>
struct Best {
  using Element = T;
  using Accumulator = T;
  static constexpr bool keeps = false, divides = false;
  static constexpr T absent = Order::template least<T>;

  template <int N>
  struct State {
    Pack<T, N> value;
    POOLWISE_INLINE void start(Int) { value = every<T, N>(absent); }
    POOLWISE_INLINE void add(Pack<T, N> v, Int) { value = Order::takes(value, v) ? v : value; }
    POOLWISE_INLINE Pack<T, N> finish(T) const { return value; }
  };
};

// The best element and where in the window it stood. Starting at the first present tap makes it the winner of a window of
// nothing but the order's least value, which never takes its own place.
template <class Order, class T, class K>
struct Winner {
  using Element = T;
  using Accumulator = T;
  using Offset = K;
  static constexpr bool keeps = true, divides = false;
  static constexpr T absent = Order::template least<T>;

  template <int N>
  struct State {
    Pack<T, N> value;
    Pack<Lane<T>, N> offset;
    POOLWISE_INLINE void start(Int first) {
      value = every<T, N>(absent);
      offset = every<Lane<T>, N>(static_cast<Lane<T>>(first));
    }
    POOLWISE_INLINE void add(Pack<T, N> v, Int at) { add(v, every<Lane<T>, N>(static_cast<Lane<T>>(at))); }
    POOLWISE_INLINE void add(Pack<T, N> v, Pack<Lane<T>, N> at) {
      const auto takes = Order::takes(value, v);
      value = takes ? v : value;
      offset = takes ? at : offset;
    }
    POOLWISE_INLINE Pack<T, N> finish(T) const { return value; }
  };

  template <int N>
  static POOLWISE_INLINE Pack<T, N> route(Pack<T, N> sum, Pack<T, N> g, Pack<Lane<T>, N> kept, Int at, T) {
    return sum + (kept == static_cast<Lane<T>>(at) ? g : Pack<T, N>{});
  }
};

// The sum, in A: wider than T where a window has so many taps that T would err by more than 4 ulp.
template <class T, class A>
struct Sum {
  using Element = T;
  using Accumulator = A;
  static constexpr bool keeps = false, divides = false;
  static constexpr A absent = 0;

  template <int N>
  struct State {
    Pack<A, N> value;
    POOLWISE_INLINE void start(Int) { value = Pack<A, N>{}; }
    POOLWISE_INLINE void add(Pack<A, N> v, Int) { value += v; }
    POOLWISE_INLINE Pack<A, N> finish(A) const { return value; }
  };

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, Pack<Lane<A>, N>, Int, A) {
    return sum + g;
  }
};

template <class T, class A>
struct Mean : Sum<T, A> {
  static constexpr bool divides = true;

  template <int N>
  struct State : Sum<T, A>::template State<N> {
    POOLWISE_INLINE Pack<A, N> finish(A divisor) const { return this->value / divisor; }
  };

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, Pack<Lane<A>, N>, Int, A divisor) {
    return sum + g / divisor;
  }
};

}  // namespace poolwise::POOLWISE_ISA
