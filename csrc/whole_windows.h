// What the engine of whole windows computes with: operations that need all of a window's elements at once.
//
// A body is an object made from a plan: read(pointer) → values; of(values, k, weights) → the result of k of them, in lanes that never
// meet; of_some(values, k, weights, there, taps) → the same where lanes lack taps: what is absent has the value absent(), there[t] is 1
// in the lanes that have tap t of each line and else 0, and a lane that has none gets nothing(); write(pointer, result). The values
// are scratch.
#pragma once

#include <array>
#include <utility>

#include "reductions.h"

namespace poolwise::POOLWISE_ISA {

// ---- sorting networks ------------------------------------------------------------------------------------------------------

// Calls at(i, j), i < j, for each exchange of Batcher's merge exchange of n elements (Knuth, The Art of Computer Programming, volume
// 3, section 5.2.2, algorithm M).
template <class At>
constexpr void for_exchanges(int n, At&& at) {
  int top = 1;
  while (top < n) top *= 2;
  for (int p = top / 2; p > 0; p /= 2)
    for (int q = top / 2, r = 0, d = p; d > 0; d = q - p, q /= 2, r = p) {
      for (int i = 0; i + d < n; ++i)
        if ((i & p) == r) at(i, i + d);
      if (q == p) break;
    }
}

template <int K>
struct Network {
  static constexpr int size = [] {
    int count = 0;
    for_exchanges(K, [&](int, int) { ++count; });
    return count;
  }();
  static constexpr auto pairs = [] {
    std::array<std::pair<int, int>, size + 1> all{};
    int count = 0;
    for_exchanges(K, [&](int i, int j) { all[count++] = {i, j}; });
    return all;
  }();
};

template <class V>
POOLWISE_INLINE void exchange(V& a, V& b) {
  const V low = a < b ? a : b;
  b = a < b ? b : a;
  a = low;
}

template <class V, int K, int... I>
POOLWISE_INLINE void sort_by_network(V (&v)[K], std::integer_sequence<int, I...>) {
  (exchange(v[Network<K>::pairs[I].first], v[Network<K>::pairs[I].second]), ...);
}

// Calls run(sorted) with an array of K sorted values in registers. What `run` does not look at is not computed.
template <int K, class V, class Run>
POOLWISE_INLINE V sorted_in_registers(const V* v, Run&& run) {
  V held[K];
  for (int i = 0; i < K; ++i) held[i] = v[i];
  sort_by_network(held, std::make_integer_sequence<int, Network<K>::size>{});
  return run(held, K);
}

// The same of k values: in registers for the windows that are everywhere (2×2, 2×2×2, 3×3, and 3×3 without a row), else in memory.
template <class V, class Run>
POOLWISE_INLINE V sorted(V* v, int k, Run&& run) {
  switch (k) {
    case 4: return sorted_in_registers<4>(v, run);
    case 6: return sorted_in_registers<6>(v, run);
    case 8: return sorted_in_registers<8>(v, run);
    case 9: return sorted_in_registers<9>(v, run);
  }
  for_exchanges(k, [&](int i, int j) POOLWISE_LAMBDA { exchange(v[i], v[j]); });
  return run(v, k);
}

// Lanes of element number `place` of k sorted values, another place in each lane.
template <class A, int N>
POOLWISE_INLINE Pack<A, N> picked_by_place(const Pack<A, N>* v, int k, Pack<Lane<A>, N> place) {
  Pack<A, N> found = v[0];
  for (int i = 1; i < k; ++i) found = place == static_cast<Lane<A>>(i) ? v[i] : found;
  return found;
}

// ---- the bodies ------------------------------------------------------------------------------------------------------------

// Where an element is not a number there is no order: the result of such lanes is NaN.
template <class A, int N>
POOLWISE_INLINE auto any_nan(const Pack<A, N>* v, int k) {
  auto nan = v[0] != v[0];
  for (int i = 1; i < k; ++i) nan |= v[i] != v[i];
  return nan;
}

// What the bodies of sorted elements share. What is absent sorts behind all that is there.
template <class N>
struct Sorted {
  using Element = typename N::Element;
  using Accumulator = typename N::Number;
  using L = Lane<Accumulator>;
  static constexpr bool floats = std::is_floating_point_v<Accumulator>;

  N numbers;
  explicit Sorted(const Plan& plan) : numbers(plan) {}

  Accumulator absent() const {
    if constexpr (floats)
      return std::numeric_limits<Accumulator>::infinity();
    else
      return std::numeric_limits<Accumulator>::max();
  }
  template <int M>
  POOLWISE_INLINE Pack<Accumulator, M> read(const Element* p) const {
    return numbers.template read<M>(p);
  }
  template <int M>
  POOLWISE_INLINE void write(Element* p, Pack<Accumulator, M> v) const {
    numbers.template write<M>(p, v);
  }
  // NaN, or the integer 0 among the numbers in order.
  template <int M>
  POOLWISE_INLINE Pack<Accumulator, M> nothing() const {
    if constexpr (floats) {
      return every<Accumulator, M>(std::numeric_limits<Accumulator>::quiet_NaN());
    } else {
      const Element zero{};
      const Pack<Accumulator, 1> key = numbers.template read<1>(&zero);
      return every<Accumulator, M>(key[0]);
    }
  }

 protected:
  // How many elements each lane has.
  template <int M>
  static POOLWISE_INLINE Pack<L, M> held(int k, const Pack<Accumulator, M>* there, int taps) {
    Pack<L, M> count{};
    for (int t = 0; t < taps; ++t) count -= there[t] != Accumulator(0);  // a comparison that holds is -1
    return count * every<L, M>(static_cast<L>(k / taps));
  }
  template <int M>
  POOLWISE_INLINE Pack<Accumulator, M> unless_nan(Pack<Accumulator, M> y, decltype(y != y) nan) const {
    if constexpr (floats) return nan ? nothing<M>() : y;
    return y;
  }
};

// The middle of the sorted elements: of an even number of floats the mean of the middle two, of integers the lower.
template <class Numbers>
struct Middle : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using Sorted<Numbers>::Sorted;

  template <int M>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k, const A*) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V y = sorted(v, k, [](const V* held, int n) POOLWISE_LAMBDA -> V {
      if (n % 2 || !Sorted<Numbers>::floats) return held[(n - 1) / 2];
      return between<M>(held[n / 2 - 1], held[n / 2]);
    });
    return this->template unless_nan<M>(y, nan);
  }
  template <int M>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const A*, const Pack<A, M>* there, int taps) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const auto count = this->template held<M>(k, there, taps);
    const V y = sorted(v, k, [count](const V* held, int n) POOLWISE_LAMBDA -> V {
      const V low = picked_by_place<A, M>(held, n, (count - 1) >> 1);
      if constexpr (Sorted<Numbers>::floats) return (count & 1) == 0 ? between<M>(low, picked_by_place<A, M>(held, n, count >> 1)) : low;
      return low;
    });
    return count == 0 ? this->template nothing<M>() : this->template unless_nan<M>(y, nan);
  }

 private:
  template <int M>
  static POOLWISE_INLINE Pack<A, M> between(Pack<A, M> a, Pack<A, M> b) {
    if constexpr (Sorted<Numbers>::floats) return a == b ? a : a * A(0.5) + b * A(0.5);  // halves of the smallest numbers are 0
    return a;
  }
};

// The most frequent element, of several the smallest.
template <class Numbers>
struct Commonest : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using L = Lane<A>;
  using Sorted<Numbers>::Sorted;

  template <int M>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k, const A*) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V y = sorted(v, k, [](const V* held, int n) POOLWISE_LAMBDA { return longest_run<M>(held, n, every<L, M>(static_cast<L>(n))); });
    return this->template unless_nan<M>(y, nan);
  }
  template <int M>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const A*, const Pack<A, M>* there, int taps) const {
    const auto nan = any_nan<A, M>(v, k);
    const auto count = this->template held<M>(k, there, taps);
    const Pack<A, M> y = sorted(v, k, [count](const Pack<A, M>* held, int n) POOLWISE_LAMBDA { return longest_run<M>(held, n, count); });
    return count == 0 ? this->template nothing<M>() : this->template unless_nan<M>(y, nan);
  }

 private:
  // Among the first `count` of n sorted values.
  template <int M>
  static POOLWISE_INLINE Pack<A, M> longest_run(const Pack<A, M>* held, int n, Pack<L, M> count) {
    Pack<A, M> best = held[0];
    Pack<L, M> run = every<L, M>(1), longest = run;
    for (int i = 1; i < n; ++i) {
      run = held[i] == held[i - 1] ? run + 1 : every<L, M>(1);
      const auto longer = (run > longest) & (count > static_cast<L>(i));
      best = longer ? held[i] : best;
      longest = longer ? run : longest;
    }
    return best;
  }
};

// exp(x) for x ≤ 0, to about 2 ulp: 2^n · e^r with |r| ≤ ln 2 / 2 and a polynomial (Taylor's, degree 7: the next term is below 1e-8);
// 0 where it would be below the normal numbers.
template <int N>
POOLWISE_INLINE Pack<float, N> exponential(Pack<float, N> x) {
  using V = Pack<float, N>;
  constexpr float big = 0x1.8p23f;
  const V kept = x < -87.0f ? every<float, N>(-87.0f) : x;
  const V n = (kept * 0x1.715476p0f + big) - big;
  const V r = (kept - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts, the first of 15 bits
  V sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = (sum * r) * r + r + 1.0f;
  const auto power = converted<std::int32_t, float, N>(n) << 23;
  const V y = same_bits<V>(same_bits<Pack<std::int32_t, N>>(sum) + power);
  return x < -87.0f ? V{} : y;
}

// Σ x·exp(t·x) / Σ exp(t·x), the largest taken off every exponent; where that is infinite it is the result.
template <class T>
struct Softened {
  using Element = T;
  using Accumulator = float;

  float temperature;
  explicit Softened(const Plan& plan) : temperature(static_cast<float>(plan.temperature)) {}

  float absent() const { return -std::numeric_limits<float>::infinity(); }  // has no share

  template <int N>
  POOLWISE_INLINE Pack<float, N> read(const T* p) const {
    return load<float, N>(p);
  }
  template <int N>
  POOLWISE_INLINE Pack<float, N> nothing() const {
    return every<float, N>(std::numeric_limits<float>::quiet_NaN());
  }
  template <int N>
  POOLWISE_INLINE Pack<float, N> of(Pack<float, N>* v, int k, const float*) const {
    using V = Pack<float, N>;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    V top = v[0];
    for (int i = 1; i < k; ++i) top = v[i] > top ? v[i] : top;
    V total{}, below{};  // how far below the largest the mean is: nothing overflows on the way
    for (int i = 0; i < k; ++i) {
      const V distance = v[i] - top, share = exponential<N>(temperature * distance);
      total += share;
      below += share == 0 ? V{} : share * distance;
    }
    const V y = (top == infinity) | (top == -infinity) ? top : top + below / total;
    return any_nan<float, N>(v, k) ? nothing<N>() : y;
  }
  template <int N>
  POOLWISE_INLINE Pack<float, N> of_some(Pack<float, N>* v, int k, const float* weights, const Pack<float, N>* there, int taps) const {
    Pack<float, N> held = there[0];
    for (int t = 1; t < taps; ++t) held += there[t];
    return held == 0 ? nothing<N>() : of<N>(v, k, weights);
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<float, N> v) const {
    store<N, float>(p, v);
  }
};

// Σ w·x / Σ w over the elements that are there, added in A.
template <class T, class A>
struct Weighted {
  using Element = T;
  using Accumulator = A;

  explicit Weighted(const Plan&) {}

  A absent() const { return 0; }
  template <int N>
  POOLWISE_INLINE Pack<A, N> read(const T* p) const {
    return load<A, N>(p);
  }
  template <int N>
  POOLWISE_INLINE Pack<A, N> nothing() const {
    return every<A, N>(std::numeric_limits<A>::quiet_NaN());
  }
  template <int N>
  POOLWISE_INLINE Pack<A, N> of(const Pack<A, N>* v, int k, const A* weights) const {
    Pack<A, N> sum = v[0] * weights[0];
    A total = weights[0];
    for (int i = 1; i < k; ++i) sum += v[i] * weights[i], total += weights[i];
    return sum / total;
  }
  template <int N>
  POOLWISE_INLINE Pack<A, N> of_some(const Pack<A, N>* v, int k, const A* weights, const Pack<A, N>* there, int taps) const {
    Pack<A, N> sum{}, total{};
    for (int i = 0; i < k; ++i) sum += v[i] * weights[i], total += there[i % taps] * weights[i];
    return sum / total;  // NaN where nothing is there
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<A, N> v) const {
    store<N, A>(p, v);
  }
};

}  // namespace poolwise::POOLWISE_ISA
