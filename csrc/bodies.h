// What becomes of the elements of one window. A body is a short struct; the engines walk for it.
//
// Forward: State<N> holds N lanes of the reduction: start(offset of the first present tap, -1 in an empty window), add(values,
// offset of their tap), finish(share) → values. A body that `keeps` also has offset() of the winner, -1: nobody.
// Backward: route(sum, gradients, kept offsets, offset of the tap) → sum of one that keeps, route(sum, gradients, divisor) → sum.
#pragma once

#include <limits>

#include "plan.h"
#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// What a finished reduction is divided by, and how an integer is rounded.
template <class A, int N>
struct Share {
  Pack<A, N> divisor;
  bool truncate;
};

// ---- orders ------------------------------------------------------------------------------------------------------------

template <class T>
constexpr Number<T> lowest() {
  if constexpr (std::is_floating_point_v<Number<T>>) return -std::numeric_limits<Number<T>>::infinity();
  return std::numeric_limits<Number<T>>::lowest();
}
template <class T>
constexpr Number<T> highest() {
  if constexpr (std::is_same_v<T, Truth>) return 1;
  if constexpr (std::is_floating_point_v<Number<T>>) return std::numeric_limits<Number<T>>::infinity();
  return std::numeric_limits<Number<T>>::max();
}

// Does v take the place of `best`? NaN always does, and nothing takes NaN's place but a later NaN; of equal elements the first
// stays. `least` never takes a place, so a window of nothing else goes to its first present tap where `least_wins`.
struct Largest {
  static constexpr bool least_wins = true;
  template <class T>
  static constexpr Number<T> least = lowest<T>();
  template <class V>
  static POOLWISE_INLINE auto takes(V best, V v) {
    return (v > best) | (v != v);
  }
};

struct Smallest {
  static constexpr bool least_wins = true;
  template <class T>
  static constexpr Number<T> least = highest<T>();
  template <class V>
  static POOLWISE_INLINE auto takes(V best, V v) {
    return (v < best) | (v != v);
  }
};

// ReLU and max in one: the largest of zero and the elements; zero, not being an element, has no offset.
struct LargestAboveZero : Largest {
  static constexpr bool least_wins = false;
  template <class T>
  static constexpr Number<T> least = 0;
};

// ---- selections --------------------------------------------------------------------------------------------------------

// The best element alone.
template <class Order, class T, class A = Number<T>>
struct Best {
  using Element = T;
  using Result = T;
  using Accumulator = A;
  static constexpr bool keeps = false, divides = false, common = true;
  static constexpr A absent = Order::template least<T>;

  template <int N>
  struct State {
    Pack<A, N> value;
    POOLWISE_INLINE void start(Int) { value = every<A, N>(absent); }
    POOLWISE_INLINE void add(Pack<A, N> v, Int) { value = Order::takes(value, v) ? v : value; }
    POOLWISE_INLINE Pack<A, N> finish(const Share<A, N>&) const { return value; }
  };
};

// Offsets of whichever width the plan keeps, or none at all.
struct AnyOffset {};

template <class K, class L, int N>
POOLWISE_INLINE Pack<L, N> load_offsets(const void* kept, Kept width, Int at) {
  if constexpr (!std::is_same_v<K, AnyOffset>) return load<L, N>(static_cast<const K*>(kept) + at);
  if (width == Kept::bytes) return load<L, N>(static_cast<const std::uint8_t*>(kept) + at);
  if (width == Kept::words) return load<L, N>(static_cast<const std::int32_t*>(kept) + at);
  return load<L, N>(static_cast<const Int*>(kept) + at);
}

template <class K, class L, int N>
POOLWISE_INLINE void store_offsets(void* kept, Kept width, Int at, Pack<L, N> offsets) {
  if constexpr (!std::is_same_v<K, AnyOffset>) return store<N, L>(static_cast<K*>(kept) + at, offsets);
  if (kept == nullptr) return;
  if (width == Kept::bytes) return store<N, L>(static_cast<std::uint8_t*>(kept) + at, offsets);
  if (width == Kept::words) return store<N, L>(static_cast<std::int32_t*>(kept) + at, offsets);
  return store<N, L>(static_cast<Int*>(kept) + at, offsets);
}

// The best element and where in the window it stood, which lanes as wide as A must be able to hold.
template <class Order, class T, class K, class A = Number<T>>
struct Winner {
  using Element = T;
  using Result = T;
  using Accumulator = A;
  using Gradient = T;
  using Offset = K;
  static constexpr bool keeps = true, divides = false, common = std::is_same_v<K, std::uint8_t>;
  static constexpr bool least_wins = Order::least_wins;
  static constexpr A absent = Order::template least<T>;
  // Far enough below 0 to stay there when an engine adds the offset of a row of taps.
  static constexpr Lane<A> nobody = least_wins ? -1 : std::numeric_limits<Lane<A>>::lowest() / 2;

  template <int N>
  struct State {
    Pack<A, N> value;
    Pack<Lane<A>, N> at;
    POOLWISE_INLINE void start(Int first) {
      value = every<A, N>(absent);
      at = every<Lane<A>, N>(least_wins ? static_cast<Lane<A>>(first) : nobody);
    }
    POOLWISE_INLINE void add(Pack<A, N> v, Int offset) { add(v, every<Lane<A>, N>(static_cast<Lane<A>>(offset))); }
    POOLWISE_INLINE void add(Pack<A, N> v, Pack<Lane<A>, N> offset) {
      const auto takes = Order::takes(value, v);
      value = takes ? v : value;
      at = takes ? offset : at;
    }
    // Where a mask decides which tap is the first that is present, that is known at the end.
    POOLWISE_INLINE void begun_at(Pack<Lane<A>, N> first) {
      if constexpr (least_wins) at = at < 0 ? first : at;
    }
    POOLWISE_INLINE Pack<A, N> finish(const Share<A, N>&) const { return value; }
    POOLWISE_INLINE Pack<Lane<A>, N> offset() const {
      if constexpr (least_wins) return at;
      return at < 0 ? every<Lane<A>, N>(-1) : at;
    }
  };

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, Pack<Lane<A>, N> kept, Int at) {
    return sum + (kept == static_cast<Lane<A>>(at) ? g : Pack<A, N>{});
  }
};

// ---- sums --------------------------------------------------------------------------------------------------------------

// The sum, in A: wider than T where a window has so many taps that T would err by more than 4 ulp; R is what memory gets.
template <class T, class A, class R = T>
struct Sum {
  using Element = T;
  using Result = R;
  using Accumulator = A;
  using Gradient = T;  // what memory holds of the output's gradient
  static constexpr bool keeps = false, divides = false, common = true;
  static constexpr A absent = 0;

  template <int N>
  struct State {
    Pack<A, N> value;
    POOLWISE_INLINE void start(Int) { value = Pack<A, N>{}; }
    POOLWISE_INLINE void add(Pack<A, N> v, Int) { value += v; }
    POOLWISE_INLINE Pack<A, N> finish(const Share<A, N>&) const { return value; }
  };

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, A) {
    return sum + g;
  }
};

template <class T, class A>
struct Mean : Sum<T, A> {
  static constexpr bool divides = true;

  template <int N>
  struct State : Sum<T, A>::template State<N> {
    POOLWISE_INLINE Pack<A, N> finish(const Share<A, N>& share) const { return this->value / share.divisor; }
  };

  template <int N>
  static POOLWISE_INLINE Pack<A, N> route(Pack<A, N> sum, Pack<A, N> g, A divisor) {
    return sum + g / divisor;
  }
};

// The sum of many doubles, which nothing wider can hold: what each addition loses is summed beside it (Knuth's two-sum, The Art of
// Computer Programming, volume 2, section 4.2.2). Where something is infinite, what is lost means nothing.
template <class T>
struct LongSum : Sum<T, double> {
  static constexpr bool common = false;

  template <int N>
  struct State {
    Pack<double, N> value, lost;
    POOLWISE_INLINE void start(Int) { value = lost = Pack<double, N>{}; }
    POOLWISE_INLINE void add(Pack<double, N> v, Int) {
      const Pack<double, N> sum = value + v, added = sum - value;
      lost += (value - (sum - added)) + (v - added);
      value = sum;
    }
    POOLWISE_INLINE Pack<double, N> total() const { return lost == lost ? value + lost : value; }
    POOLWISE_INLINE Pack<double, N> finish(const Share<double, N>&) const { return total(); }
  };
};

template <class T>
struct LongMean : LongSum<T> {
  static constexpr bool divides = true;

  template <int N>
  struct State : LongSum<T>::template State<N> {
    POOLWISE_INLINE Pack<double, N> finish(const Share<double, N>& share) const { return this->total() / share.divisor; }
  };
};

// Backward of a mean whose windows a mask has thinned out: its gradients come divided.
template <class T>
struct Shared : Sum<T, double> {
  using Gradient = double;
};

// The mean of integers: exact, rounded to the nearest (ties to even) or towards zero; what T cannot hold saturates.
template <class T, class A>
struct WholeMean : Sum<T, A> {
  static constexpr bool divides = true, common = false;

  static POOLWISE_INLINE A mean_of(A sum, A divisor, bool truncate) {
    if (divisor == 0) return 0;
    const A whole = sum / divisor, rest = sum % divisor, left = rest < 0 ? -rest : rest;
    const bool away = !truncate && (left > divisor - left || (left == divisor - left && whole % 2 != 0));
    const A mean = whole + (away ? (sum < 0 ? -1 : 1) : 0);
    constexpr A low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
    return mean < low ? low : mean > high ? high : mean;
  }

  template <int N>
  struct State : Sum<T, A>::template State<N> {
    POOLWISE_INLINE Pack<A, N> finish(const Share<A, N>& share) const {
      if constexpr (std::is_same_v<A, Wide>) {
        return mean_of(this->value, share.divisor, share.truncate);
      } else {
        Pack<A, N> means{};
        for (int i = 0; i < N; ++i) means[i] = mean_of(this->value[i], share.divisor[i], share.truncate);
        return means;
      }
    }
  };
};

}  // namespace poolwise::POOLWISE_ISA
