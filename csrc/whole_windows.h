// What the engine of whole windows computes with: operations that need all of a window's elements at once.
//
// A body is an object made from a plan:
//   reader                            read<N>(pointer) → values
//   weigh(weights, k)                 the weights of the windows that follow, of k taps
//   of<N, K>(values, k, weights)      the result of k values, in lanes that never meet
//   of_some<N, K, Across>(…, some)    the same where lanes lack taps: what is absent has the value absent()
//   nothing<N>()                      the result of lanes that have none
//   write(pointer, result)
//   send<N, K, Across>(values, k, weights, gradients, some): backward, what a window sends to each, in place of the values; `some` is
//                                     null where lanes lack no tap. A body whose `reads` is false sends its weights, whatever the values.
// K and Across are k and the taps of a row where the compiler knows them, else 0. The values are scratch.
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

// Calls run(sorted, k) with k sorted values: in registers where the compiler knows k, and then what `run` does not look at is not
// computed.
template <int K, class V, class Run>
POOLWISE_INLINE V sorted(V* v, int k, Run&& run) {
  if constexpr (K > 0) {
    V held[K];
    for (int i = 0; i < K; ++i) held[i] = v[i];
    sort_by_network(held, std::make_integer_sequence<int, Network<K>::size>{});
    return run(held, K);
  } else {
    for_exchanges(k, [&](int i, int j) POOLWISE_LAMBDA { exchange(v[i], v[j]); });
    return run(v, k);
  }
}

// ---- the bodies ------------------------------------------------------------------------------------------------------------

// Which taps of a row of the window each lane has, 1 or 0, and how many.
template <class A, int N>
struct Some {
  const Pack<A, N>* there;
  int across;
  Pack<Lane<A>, N> held;

  template <int Across>
  POOLWISE_INLINE Pack<A, N> has(int tap) const {
    return there[tap % (Across > 0 ? Across : across)];
  }
};

// Where one of the two is not a number.
template <class A, int N>
POOLWISE_INLINE Pack<Lane<A>, N> unordered(Pack<A, N> a, Pack<A, N> b) {
#if defined(__AVX512BW__)
  if constexpr (std::is_same_v<A, float> && N == 16)
    return same_bits<Pack<Lane<A>, N>>(_mm512_movm_epi32(_mm512_cmp_ps_mask(same_bits<__m512>(a), same_bits<__m512>(b), _CMP_UNORD_Q)));
#endif
#if defined(__AVX2__)
  if constexpr (std::is_same_v<A, float> && N == 8)
    return same_bits<Pack<Lane<A>, N>>(_mm256_cmp_ps(same_bits<__m256>(a), same_bits<__m256>(b), _CMP_UNORD_Q));
#endif
  return (a != a) | (b != b);
}

// Where an element is not a number there is no order: the result of such lanes is NaN.
template <class A, int N>
POOLWISE_INLINE Pack<Lane<A>, N> any_nan(const Pack<A, N>* v, int k) {
  Pack<Lane<A>, N> nan{};
  if constexpr (std::is_floating_point_v<A>)
    for (int i = 0; i < k; i += 2) nan |= unordered<A, N>(v[i], v[i + 1 < k ? i + 1 : i]);
  return nan;
}

// Floats as numbers of type A.
template <class T, class A>
struct Plain {
  using Element = T;
  template <int N>
  POOLWISE_INLINE Pack<A, N> read(const T* p) const {
    return load<A, N>(p);
  }
};

// What the bodies of sorted elements share. What is absent sorts behind all that is there.
template <class N>
struct Sorted {
  using Reader = N;
  using Element = typename N::Element;
  using Accumulator = typename N::Number;
  static constexpr bool floats = std::is_floating_point_v<Accumulator>;

  N reader;
  explicit Sorted(const Plan& plan) : reader(plan) {}
  void weigh(const Accumulator*, int) {}

  Accumulator absent() const {
    if constexpr (floats)
      return std::numeric_limits<Accumulator>::infinity();
    else
      return std::numeric_limits<Accumulator>::max();
  }
  template <int M>
  POOLWISE_INLINE void write(Element* p, Pack<Accumulator, M> v) const {
    reader.template write<M>(p, v);
  }
  // NaN, or the integer 0 among the numbers in order.
  template <int M>
  POOLWISE_INLINE Pack<Accumulator, M> nothing() const {
    if constexpr (floats) {
      return every<Accumulator, M>(std::numeric_limits<Accumulator>::quiet_NaN());
    } else {
      const Element zero{};
      const Pack<Accumulator, 1> key = reader.template read<1>(&zero);
      return every<Accumulator, M>(key[0]);
    }
  }

 protected:
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

  template <int M, int K>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k, const A*) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    return this->template unless_nan<M>(sorted<K>(v, k, [](const V* held, int n) POOLWISE_LAMBDA { return middle<M>(held, n); }), nan);
  }
  // Lanes lack whole columns of the window, so there are few numbers of elements that they may have.
  template <int M, int K, int Across>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const A*, const Some<A, M>& some) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const int across = Across > 0 ? Across : some.across;
    const V y = sorted<K>(v, k, [&](const V* held, int n) POOLWISE_LAMBDA {
      V found = middle<M>(held, n);
      for (int columns = 1; columns < across; ++columns)
        found = some.held == static_cast<Lane<A>>(columns) ? middle<M>(held, n / across * columns) : found;
      return found;
    });
    return some.held == 0 ? this->template nothing<M>() : this->template unless_nan<M>(y, nan);
  }

 private:
  template <int M>
  static POOLWISE_INLINE Pack<A, M> middle(const Pack<A, M>* held, int n) {
    const Pack<A, M> low = held[(n - 1) / 2];
    if constexpr (Sorted<Numbers>::floats) {
      if (n % 2) return low;
      const Pack<A, M> high = held[n / 2];
      return low == high ? low : low * A(0.5) + high * A(0.5);  // halves of the smallest numbers are 0
    }
    return low;
  }
};

// The most frequent element, of several the smallest.
template <class Numbers>
struct Commonest : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using L = Lane<A>;
  using Sorted<Numbers>::Sorted;

  template <int M, int K>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k, const A*) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V y = sorted<K>(v, k, [](const V* held, int n) POOLWISE_LAMBDA { return longest_run<M>(held, n, every<L, M>(static_cast<L>(n))); });
    return this->template unless_nan<M>(y, nan);
  }
  template <int M, int K, int Across>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const A*, const Some<A, M>& some) const {
    const auto nan = any_nan<A, M>(v, k);
    const auto count = some.held * every<L, M>(static_cast<L>(k / (Across > 0 ? Across : some.across)));
    const Pack<A, M> y = sorted<K>(v, k, [count](const Pack<A, M>* held, int n) POOLWISE_LAMBDA { return longest_run<M>(held, n, count); });
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

// 2^x for -126 ≤ x ≤ 0, to 2e-7 of it, and 1 of 0: 2^n · 2^f with |f| ≤ 1/2 and the polynomial of the least relative error (9e-8)
// among those of degree 5 that are 1 at 0.
template <int N>
POOLWISE_INLINE Pack<float, N> power_of_two(Pack<float, N> x) {
  using V = Pack<float, N>;
  constexpr float big = 0x1.8p23f;  // a sum with it has the nearest integer in its last bits
  const V whole = x + big, f = x - (whole - big);
  V sum = f * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  sum = sum * f + 0x1.c6b752p-5f;
  sum = sum * f + 0x1.ebf9bcp-3f;
  sum = sum * f + 0x1.62e42ap-1f;
  sum = sum * f + 1.0f;
  return same_bits<V>(same_bits<Pack<std::int32_t, N>>(sum) + (same_bits<Pack<std::int32_t, N>>(whole) << 23));
}

// Σ x·exp(t·x) / Σ exp(t·x), the largest taken off every exponent; where that is infinite it is the result.
template <class T>
struct Softened {
  using Reader = Plain<T, float>;
  using Element = T;
  using Accumulator = float;
  static constexpr bool reads = true;

  Reader reader;
  explicit Softened(const Plan& plan)
      : temperature_(static_cast<float>(plan.temperature)),
        exponent_(static_cast<float>(plan.temperature * 0x1.715476p0 < most ? plan.temperature * 0x1.715476p0 : most)),
        least_(-100 / exponent_) {}

  float absent() const { return -infinity; }  // has no share
  void weigh(const float*, int) {}

  template <int N>
  POOLWISE_INLINE Pack<float, N> nothing() const {
    return every<float, N>(std::numeric_limits<float>::quiet_NaN());
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<float, N> of(Pack<float, N>* v, int k, const float*) const {
    using V = Pack<float, N>;
    const V top = largest<N>(v, k);
    V total{}, below{};  // how far below the largest the mean is: nothing overflows on the way
    for (int i = 0; i < k; ++i) {
      const V distance = distance_of<N>(v[i], top), share = share_of<N>(distance);
      total += share;
      below += share * distance;
    }
    const V y = is_infinite<N>(top) ? top : top + below / total;
    return any_nan<float, N>(v, k) ? nothing<N>() : y;
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<float, N> of_some(Pack<float, N>* v, int k, const float* weights, const Some<float, N>& some) const {
    return some.held == 0 ? nothing<N>() : of<N, K>(v, k, weights);
  }

  // The share of each times 1 + t (x - y): that is the derivative of y. Where y is infinite, the share alone.
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<float, N>* v, int k, const float*, Pack<float, N> g, const Some<float, N>* some) const {
    using V = Pack<float, N>;
    const V top = largest<N>(v, k);
    const auto even = is_infinite<N>(top), nan = any_nan<float, N>(v, k);
    V shares[K > 0 ? K : most_window_taps], total{}, below{};
    for (int i = 0; i < k; ++i) {
      const V one = some == nullptr ? every<float, N>(1) : some->template has<Across>(i);
      const V distance = even ? V{} : distance_of<N>(v[i], top), share = share_of<N>(distance);
      shares[i] = even ? (v[i] == top ? one : V{}) : share;
      total += shares[i];
      below += shares[i] * distance;
      v[i] = distance;
    }
    const V mean = below / total;
    for (int i = 0; i < k; ++i) v[i] = nan ? nothing<N>() : g * (shares[i] / total) * (1 + temperature_ * (v[i] - mean));
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<float, N> v) const {
    store<N, float>(p, v);
  }

 private:
  static constexpr float infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();

  // From the largest, not beyond where the share would be so small that arithmetic is slow: there is none from there on.
  template <int N>
  POOLWISE_INLINE Pack<float, N> distance_of(Pack<float, N> v, Pack<float, N> top) const {
    const Pack<float, N> distance = v - top;
    return distance < least_ ? every<float, N>(least_) : distance;
  }
  template <int N>
  POOLWISE_INLINE Pack<float, N> share_of(Pack<float, N> distance) const {
    return distance == least_ ? Pack<float, N>{} : power_of_two<N>(exponent_ * distance);
  }
  template <int N>
  static POOLWISE_INLINE Pack<float, N> largest(const Pack<float, N>* v, int k) {
    Pack<float, N> top = v[0];
    for (int i = 1; i < k; ++i) top = v[i] > top ? v[i] : top;
    return top;
  }
  template <int N>
  static POOLWISE_INLINE auto is_infinite(Pack<float, N> v) {
    return (v == infinity) | (v == -infinity);
  }

  float temperature_, exponent_, least_;  // of e, of 2, and the least distance
};

// Σ w·x / Σ w over the elements that are there, added in A.
template <class T, class A>
struct Weighted {
  using Reader = Plain<T, A>;
  using Element = T;
  using Accumulator = A;
  static constexpr bool reads = false;  // the gradient does not depend on the elements

  Reader reader;
  explicit Weighted(const Plan&) {}

  A absent() const { return 0; }
  void weigh(const A* weights, int k) {
    all_ = 0;
    for (int i = 0; i < k; ++i) all_ += weights[i];
  }
  template <int N>
  POOLWISE_INLINE Pack<A, N> nothing() const {
    return every<A, N>(std::numeric_limits<A>::quiet_NaN());
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<A, N> of(const Pack<A, N>* v, int k, const A* weights) const {
    Pack<A, N> sum{};  // as in of_some: the same bits of a sum of -0
    for (int i = 0; i < k; ++i) sum += v[i] * weights[i];
    return all_ == 1 ? sum : sum / all_;
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<A, N> of_some(const Pack<A, N>* v, int k, const A* weights, const Some<A, N>& some) const {
    Pack<A, N> sum{};
    for (int i = 0; i < k; ++i) sum += v[i] * weights[i];
    return sum / total<N, Across>(k, weights, some);  // NaN where nothing is there
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<A, N> v) const {
    store<N, A>(p, v);
  }

 private:
  template <int N, int Across>
  static POOLWISE_INLINE Pack<A, N> total(int k, const A* weights, const Some<A, N>& some) {
    Pack<A, N> sum{};
    for (int i = 0; i < k; ++i) sum += some.template has<Across>(i) * weights[i];
    return sum;
  }

  A all_ = 1;  // the sum of the weights of a window
};

// The derivative of a Euclidean norm, which the engine of lines computes: x over it; 0 where it is 0. In float64 no square overflows.
template <class T>
struct OverNorm {
  using Reader = Plain<T, double>;
  using Element = T;
  using Accumulator = double;
  static constexpr bool reads = true;

  Reader reader;
  explicit OverNorm(const Plan&) {}

  double absent() const { return 0; }
  void weigh(const double*, int) {}
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<double, N>* v, int k, const double*, Pack<double, N> g, const Some<double, N>*) const {
    Pack<double, N> sum{};
    for (int i = 0; i < k; ++i) sum += v[i] * v[i];
    const Pack<double, N> norm = root<N>(sum);
    for (int i = 0; i < k; ++i) v[i] = norm == 0 ? Pack<double, N>{} : g * (v[i] / norm);
  }
};

}  // namespace poolwise::POOLWISE_ISA
