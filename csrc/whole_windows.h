// What the engine of whole windows computes with: operations that need all of a window's elements at once.
//
// A body is an object made from a plan:
//   reader                            read<N>(pointer) → values
//   of<N, K>(values, k)               the result of k values, in lanes that never meet
//   of_some<N, K, Across>(…, some)    the same where lanes lack taps: what is absent has the value absent()
//   nothing<N>()                      the result of lanes that have none
//   raised<N>(values)                 if a body has it: what each element is to all of its windows, computed once where they overlap
//   settled<N>(total, sum)            then: the lanes whose result is sum / total, of Σ raised and Σ raised · value
//   write(pointer, result)
//   send<N, K, Across>(values, k, gradients, some): backward, what a window sends to each, in place of the values; `some` is
//                                     null where lanes lack no tap
//   Beside, absent_beside()           if a body has them: how a second array is read, whose k numbers stand behind the k values and are sent
//                                     to as these are; then `raised` is of those numbers, and
//   send_raised<N>(values, k, gradients)  sends from what is raised in their place; returns in which lanes that is right
// K and Across are k and the taps of a row where the compiler knows them, else 0. The values are scratch. A body whose `reads` is false
// has none of these but reader, absent and write: its result is Σ weight · value / Σ weight, which the engines add.
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

template <class B>
inline constexpr bool is_paired = requires { typename B::Beside; };

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
  static constexpr bool reads = true, floats = std::is_floating_point_v<Accumulator>;

  N reader;
  explicit Sorted(const Plan& plan) : reader(plan) {}

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
  // How many elements come before each in order, of equal ones the first; -1 of what is absent. Returns where there is no order.
  template <int M, int Across>
  POOLWISE_INLINE Pack<Lane<Accumulator>, M> rank(const Pack<Accumulator, M>* v, int k, const Some<Accumulator, M>* some, Pack<Lane<Accumulator>, M>* ranks) const {
    using Mask = Pack<Lane<Accumulator>, M>;
    for (int i = 0; i < k; ++i) ranks[i] = Mask{};
    for (int i = 0; i < k; ++i)
      for (int j = i + 1; j < k; ++j) {
        const Mask sooner = v[j] < v[i];
        ranks[i] -= some == nullptr ? sooner : sooner & (some->template has<Across>(j) != 0);
        ranks[j] -= some == nullptr ? ~sooner : ~sooner & (some->template has<Across>(i) != 0);
      }
    for (int i = 0; some != nullptr && i < k; ++i) ranks[i] = some->template has<Across>(i) != 0 ? ranks[i] : Mask{} - 1;
    return any_nan<Accumulator, M>(v, k);
  }
};

// Between which two of n sorted elements a result lies: the share of the higher is `part`.
struct Place {
  int low, high;
  double part;
};
struct AtMiddle {
  static constexpr bool halves = true;
  explicit AtMiddle(const Plan&) {}
  POOLWISE_INLINE Place of(int n) const { return {(n - 1) / 2, n / 2, 0.5}; }
};
struct AtQuantile {
  static constexpr bool halves = false;
  double q;
  explicit AtQuantile(const Plan& plan) : q(plan.parameter) {}
  POOLWISE_INLINE Place of(int n) const {
    const double place = q * (n - 1);
    const int low = static_cast<int>(place);
    return {low, low + (place > low), place - low};
  }
};

// The sorted elements at a place: floats are weighed, of integers it is the lower.
template <class Numbers, class At>
struct Ordinal : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using L = Lane<A>;

  At at;
  explicit Ordinal(const Plan& plan) : Sorted<Numbers>(plan), at(plan) {}

  template <int M, int K>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V y = sorted<K>(v, k, [this](const V* held, int n) POOLWISE_LAMBDA { return between<M>(held, at.of(n)); });
    return this->template unless_nan<M>(y, nan);
  }
  // Lanes lack whole columns of the window, so there are few numbers of elements that they may have.
  template <int M, int K, int Across>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const Some<A, M>& some) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const int across = Across > 0 ? Across : some.across;
    const V y = sorted<K>(v, k, [&](const V* held, int n) POOLWISE_LAMBDA {
      V found = between<M>(held, at.of(n));
      for (int columns = 1; columns < across; ++columns)
        found = some.held == static_cast<L>(columns) ? between<M>(held, at.of(n / across * columns)) : found;
      return found;
    });
    return some.held == 0 ? this->template nothing<M>() : this->template unless_nan<M>(y, nan);
  }

  template <int M, int K, int Across>
  POOLWISE_INLINE void send(Pack<A, M>* v, int k, Pack<A, M> g, const Some<A, M>* some) const {
    const int across = Across > 0 ? Across : some == nullptr ? 1 : some->across;
    const Place all = at.of(k);
    Pack<L, M> low = every<L, M>(static_cast<L>(all.low)), high = every<L, M>(static_cast<L>(all.high));
    Pack<A, M> part = every<A, M>(static_cast<A>(all.part));
    for (int columns = 1; some != nullptr && columns < across; ++columns) {
      const Place place = at.of(k / across * columns);
      const auto here = some->held == static_cast<L>(columns);
      low = here ? every<L, M>(static_cast<L>(place.low)) : low;
      high = here ? every<L, M>(static_cast<L>(place.high)) : high;
      part = here ? every<A, M>(static_cast<A>(place.part)) : part;
    }
    Pack<L, M> ranks[K > 0 ? K : most_window_taps];
    const auto nan = this->template rank<M, Across>(v, k, some, ranks);
    const Pack<A, M> zero{};
    for (int i = 0; i < k; ++i) {
      const auto lower = ranks[i] == low, higher = ranks[i] == high;
      const Pack<A, M> share = (lower ? 1 - part : zero) + (higher ? part : zero);
      v[i] = (lower | higher) & ~nan ? g * share : zero;
    }
  }

 private:
  template <int M>
  static POOLWISE_INLINE Pack<A, M> between(const Pack<A, M>* held, Place place) {
    using V = Pack<A, M>;
    const V low = held[place.low];
    if constexpr (Sorted<Numbers>::floats) {
      const A part = static_cast<A>(place.part);
      if (part == 0) return low;
      const V high = held[place.high];
      if constexpr (At::halves) return low == high ? low : low * A(0.5) + high * A(0.5);  // halves of the smallest numbers are 0
      const V apart = high - low, endless = low * static_cast<A>(1 - place.part) + high * part;
      const V y = apart - apart == 0 ? low + apart * part : endless;  // the difference of two large numbers may be none
      return y < low ? low : y > high ? high : y;
    }
    return low;
  }
};
template <class Numbers>
using Middle = Ordinal<Numbers, AtMiddle>;
template <class Numbers>
using Quantiles = Ordinal<Numbers, AtQuantile>;

// The mean of the largest elements, of all where there are fewer. What is absent is smaller than all that is there.
template <class Numbers>
struct Largest : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using L = Lane<A>;

  explicit Largest(const Plan& plan) : Sorted<Numbers>(plan), most_(plan.parameter < most_window_taps ? static_cast<int>(plan.parameter) : int(most_window_taps)) {}
  A absent() const { return -std::numeric_limits<A>::infinity(); }

  template <int M, int K>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V sum = sorted<K>(v, k, [this](const V* held, int n) POOLWISE_LAMBDA {
      V total = held[n - 1];
      for (int i = 1; i < n && i < most_; ++i) total += held[n - 1 - i];
      return total;
    });
    return this->template unless_nan<M>(sum / static_cast<A>(k < most_ ? k : most_), nan);
  }
  template <int M, int K, int Across>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const Some<A, M>& some) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const Pack<L, M> count = counted<M, Across>(k, &some);
    const V sum = sorted<K>(v, k, [&](const V* held, int n) POOLWISE_LAMBDA {
      V total = held[n - 1];
      for (int i = 1; i < n && i < most_; ++i) total = count > static_cast<L>(i) ? total + held[n - 1 - i] : total;
      return total;
    });
    return some.held == 0 ? this->template nothing<M>() : this->template unless_nan<M>(sum / converted<A, L, M>(count), nan);
  }
  template <int M, int K, int Across>
  POOLWISE_INLINE void send(Pack<A, M>* v, int k, Pack<A, M> g, const Some<A, M>* some) const {
    const Pack<L, M> count = counted<M, Across>(k, some);
    const Pack<A, M> zero{}, share = g / converted<A, L, M>(count);
    for (int i = 0; i < k; ++i) v[i] = -v[i];
    Pack<L, M> ranks[K > 0 ? K : most_window_taps];
    const auto nan = this->template rank<M, Across>(v, k, some, ranks);
    for (int i = 0; i < k; ++i) v[i] = (ranks[i] >= 0) & (ranks[i] < count) & ~nan ? share : zero;
  }

 private:
  // How many elements there are to the mean.
  template <int M, int Across>
  POOLWISE_INLINE Pack<L, M> counted(int k, const Some<A, M>* some) const {
    const auto most = every<L, M>(static_cast<L>(most_));
    const Pack<L, M> held = some == nullptr ? every<L, M>(static_cast<L>(k)) : some->held * static_cast<L>(k / (Across > 0 ? Across : some->across));
    return held < most ? held : most;
  }

  int most_;
};

// The most frequent element, of several the smallest.
template <class Numbers>
struct Commonest : Sorted<Numbers> {
  using A = typename Numbers::Number;
  using L = Lane<A>;
  using Sorted<Numbers>::Sorted;

  template <int M, int K>
  POOLWISE_INLINE Pack<A, M> of(Pack<A, M>* v, int k) const {
    using V = Pack<A, M>;
    const auto nan = any_nan<A, M>(v, k);
    const V y = sorted<K>(v, k, [](const V* held, int n) POOLWISE_LAMBDA { return longest_run<M>(held, n, every<L, M>(static_cast<L>(n))); });
    return this->template unless_nan<M>(y, nan);
  }
  template <int M, int K, int Across>
  POOLWISE_INLINE Pack<A, M> of_some(Pack<A, M>* v, int k, const Some<A, M>& some) const {
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

// 2^x for -126 ≤ x ≤ 126, to 2e-7 of it, and 1 of 0: 2^n · 2^f with |f| ≤ 1/2 and the polynomial of the least relative error (9e-8)
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
  using Bits = Pack<std::uint32_t, N>;  // which wrap, where x is no such number
  return same_bits<V>(same_bits<Bits>(sum) + (same_bits<Bits>(whole) << 23));
}

// The natural logarithm of x from 1 to 2^22, exact of 1: of 2^n · m it is n log 2 + 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172,
// whose series is broken off at 2e-9 of it.
template <int N>
POOLWISE_INLINE Pack<float, N> logarithm(Pack<float, N> x) {
  using V = Pack<float, N>;
  using Bits = Pack<std::int32_t, N>;
  using Unsigned = Pack<std::uint32_t, N>;  // which wrap, where x is no such number
  const Bits power = (same_bits<Bits>(x * 0x1.6a09e6p-1f) >> 23) - 126;  // so that m is from √½ to √2
  const V m = same_bits<V>(same_bits<Unsigned>(x) - (same_bits<Unsigned>(power) << 23)), f = m - 1, s = f / (f + 2), z = s * s;
  V series = z * 0x1.c71c72p-3f + 0x1.24924ap-2f;
  series = series * z + 0x1.99999ap-2f;
  series = series * z + 0x1.555556p-1f;
  return converted<float, std::int32_t, N>(power) * 0x1.62e43p-1f + (s * 2 + s * z * series);
}

// What the bodies with a share of exp(t·x) for each element share; the largest is taken off every exponent. Where that is infinite,
// only those equal to it share.
template <class T>
struct Exponentials {
  using Reader = Plain<T, float>;
  using Element = T;
  using Accumulator = float;
  static constexpr bool reads = true;

  Reader reader;
  explicit Exponentials(const Plan& plan)
      : temperature(static_cast<float>(plan.parameter)),
        exponent_(static_cast<float>(plan.parameter * 0x1.715476p0 < most ? plan.parameter * 0x1.715476p0 : most)),
        least_(-100 / exponent_) {}

  float absent() const { return -infinity; }  // has no share
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<float, N> v) const {
    store<N, float>(p, v);
  }

 protected:
  static constexpr float infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();

  const float temperature;

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
  // exp(t·x), as far as sums of so many do not overflow: infinite from 2^100 on, 0 below 2^-126.
  template <int N>
  POOLWISE_INLINE Pack<float, N> exponential(Pack<float, N> v) const {
    using V = Pack<float, N>;
    const V power = exponent_ * v;
    const V y = power < -126 ? V{} : power > 100 ? every<float, N>(infinity) : power_of_two<N>(power);
    return v != v ? v : y;
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
  // The share of each, not yet over the total, which is returned; in place of the values, how far below the largest they are.
  template <int N, int Across>
  POOLWISE_INLINE Pack<float, N> share(Pack<float, N>* v, int k, const Some<float, N>* some, Pack<float, N>* shares) const {
    using V = Pack<float, N>;
    const V top = largest<N>(v, k);
    const auto even = is_infinite<N>(top);
    V total{};
    for (int i = 0; i < k; ++i) {
      const V one = some == nullptr ? every<float, N>(1) : some->template has<Across>(i);
      const V distance = even ? V{} : distance_of<N>(v[i], top);
      shares[i] = even ? (v[i] == top ? one : V{}) : share_of<N>(distance);
      total += shares[i];
      v[i] = distance;
    }
    return total;
  }

 private:
  float exponent_, least_;  // of 2, and the least distance
};

// Σ x·exp(t·x) / Σ exp(t·x); where the largest is infinite it is the result.
template <class T>
struct Softened : Exponentials<T> {
  using Base = Exponentials<T>;
  using Base::Base;

  float absent() const { return -Base::most; }  // times no share it is 0
  template <int N>
  POOLWISE_INLINE Pack<float, N> nothing() const {
    return every<float, N>(std::numeric_limits<float>::quiet_NaN());
  }
  template <int N>
  POOLWISE_INLINE Pack<float, N> raised(Pack<float, N> v) const {
    return this->template exponential<N>(v);
  }
  // Where no share is lost beside the largest, and nothing is infinite or NaN.
  template <int N>
  POOLWISE_INLINE auto settled(Pack<float, N> total, Pack<float, N> sum) const {
    return (total >= 0x1p-60f) & (total < Base::infinity) & (sum - sum == 0);
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<float, N> of(Pack<float, N>* v, int k) const {
    using V = Pack<float, N>;
    const V top = Base::template largest<N>(v, k);
    V total{}, below{};  // how far below the largest the mean is: nothing overflows on the way
    for (int i = 0; i < k; ++i) {
      const V distance = this->template distance_of<N>(v[i], top), share = this->template share_of<N>(distance);
      total += share;
      below += share * distance;
    }
    const V y = Base::template is_infinite<N>(top) ? top : top + below / total;
    return any_nan<float, N>(v, k) ? nothing<N>() : y;
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<float, N> of_some(Pack<float, N>* v, int k, const Some<float, N>& some) const {
    take_out<N, Across>(v, k, some);
    return some.held == 0 ? nothing<N>() : of<N, K>(v, k);
  }
  // The share of each times 1 + t (x - y): that is the derivative of y. Where y is infinite, the share alone.
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<float, N>* v, int k, Pack<float, N> g, const Some<float, N>* some) const {
    using V = Pack<float, N>;
    if (some != nullptr) take_out<N, Across>(v, k, *some);
    const auto nan = any_nan<float, N>(v, k);
    V shares[K > 0 ? K : most_window_taps];
    const V total = this->template share<N, Across>(v, k, some, shares);
    V below{};
    for (int i = 0; i < k; ++i) below += shares[i] * v[i];
    const V mean = below / total;
    for (int i = 0; i < k; ++i) v[i] = nan ? nothing<N>() : g * (shares[i] / total) * (1 + this->temperature * (v[i] - mean));
  }

 private:
  // An element may be as small as what is absent.
  template <int N, int Across>
  static POOLWISE_INLINE void take_out(Pack<float, N>* v, int k, const Some<float, N>& some) {
    for (int i = 0; i < k; ++i) v[i] = some.template has<Across>(i) != 0 ? v[i] : every<float, N>(-Base::infinity);
  }
};

// Σ x·exp(t·l) / Σ exp(t·l), where the logits l are a second array. An infinite element that has no share adds nothing.
template <class T>
struct ByLogits : Softened<T> {
  using Base = Softened<T>;
  using Base::Base;
  using Beside = Plain<float, float>;

  float absent_beside() const { return -Base::infinity; }
  // Less may be lost than there: an element with a small share may be large.
  template <int N>
  POOLWISE_INLINE auto settled(Pack<float, N> total, Pack<float, N> sum) const {
    return (total >= 0x1p-24f) & (total < Base::infinity) & (sum - sum == 0);
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<float, N> of(Pack<float, N>* v, int k) const {
    Pack<float, N> shares[K > 0 ? K : most_window_taps];
    return weigh<N, 0>(v, k, nullptr, shares);
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<float, N> of_some(Pack<float, N>* v, int k, const Some<float, N>& some) const {
    Pack<float, N> shares[K > 0 ? K : most_window_taps];
    const Pack<float, N> y = weigh<N, Across>(v, k, &some, shares);
    return some.held == 0 ? this->template nothing<N>() : y;
  }
  // To an element its share, to its logit that times t (x - y).
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<float, N>* v, int k, Pack<float, N> g, const Some<float, N>* some) const {
    using V = Pack<float, N>;
    V shares[K > 0 ? K : most_window_taps];
    const V y = weigh<N, Across>(v, k, some, shares);
    for (int i = 0; i < k; ++i) {
      v[k + i] = g * (this->temperature * (shares[i] == 0 ? V{} : moved<N>(shares[i], v[i], y)));
      v[i] = g * shares[i];
    }
  }
  template <int N>
  POOLWISE_INLINE auto send_raised(Pack<float, N>* v, int k, Pack<float, N> g) const {
    using V = Pack<float, N>;
    V total{}, sum{};
    for (int i = 0; i < k; ++i) {
      total += v[k + i];
      sum += v[k + i] * v[i];
    }
    const V inverse = 1 / total, y = sum * inverse;
    for (int i = 0; i < k; ++i) {
      const V share = v[k + i] * inverse;
      v[k + i] = g * (this->temperature * moved<N>(share, v[i], y));
      v[i] = g * share;
    }
    return settled<N>(total, sum) & (y - y == 0);
  }

 private:
  // share · (x - y), by halves, as the difference of two large numbers may be none.
  template <int N>
  static POOLWISE_INLINE Pack<float, N> moved(Pack<float, N> share, Pack<float, N> x, Pack<float, N> y) {
    return (share + share) * (x * 0.5f - y * 0.5f);
  }
  // The shares, and the mean that they make: bounded, so that of equal elements it is that.
  template <int N, int Across>
  POOLWISE_INLINE Pack<float, N> weigh(Pack<float, N>* v, int k, const Some<float, N>* some, Pack<float, N>* shares) const {
    using V = Pack<float, N>;
    const auto nan = any_nan<float, N>(v + k, k);
    const V inverse = nan ? this->template nothing<N>() : 1 / this->template share<N, Across>(v + k, k, some, shares);
    V sum{}, least = every<float, N>(Base::infinity), most = -least;
    for (int i = 0; i < k; ++i) {
      shares[i] = nan ? inverse : shares[i] * inverse;
      const auto none = shares[i] == 0;
      sum += shares[i] * (none & Base::template is_infinite<N>(v[i]) ? V{} : v[i]);
      const V low = none ? every<float, N>(Base::infinity) : v[i], high = none ? every<float, N>(-Base::infinity) : v[i];
      least = low < least ? low : least;
      most = high > most ? high : most;
    }
    return sum < least ? least : sum > most ? most : sum;
  }
};

// log Σ exp(t·x) / t, whose derivatives are the shares.
template <class T>
struct LogOfSum : Exponentials<T> {
  using Base = Exponentials<T>;
  using Base::Base;

  template <int N>
  POOLWISE_INLINE Pack<float, N> nothing() const {
    return every<float, N>(-Base::infinity);
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<float, N> of(Pack<float, N>* v, int k) const {
    using V = Pack<float, N>;
    const V top = Base::template largest<N>(v, k);
    V total{};
    for (int i = 0; i < k; ++i) total += this->template share_of<N>(this->template distance_of<N>(v[i], top));
    const V y = Base::template is_infinite<N>(top) ? top : top + logarithm<N>(total) / this->temperature;
    return any_nan<float, N>(v, k) ? every<float, N>(std::numeric_limits<float>::quiet_NaN()) : y;
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<float, N> of_some(Pack<float, N>* v, int k, const Some<float, N>&) const {
    return of<N, K>(v, k);  // of nothing but the absent, -inf, it is that
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<float, N>* v, int k, Pack<float, N> g, const Some<float, N>* some) const {
    using V = Pack<float, N>;
    const auto nan = any_nan<float, N>(v, k);
    V shares[K > 0 ? K : most_window_taps];
    const V total = this->template share<N, Across>(v, k, some, shares);
    for (int i = 0; i < k; ++i) v[i] = nan ? every<float, N>(std::numeric_limits<float>::quiet_NaN()) : g * (shares[i] / total);
  }
};

// Σ x·x⁺ / Σ x⁺ with the positive part x⁺; where there is none the mean, and an infinity where there is one. In float64 no square
// overflows.
template <class T>
struct Expected {
  using Reader = Plain<T, double>;
  using Element = T;
  using Accumulator = double;
  static constexpr bool reads = true;

  Reader reader;
  explicit Expected(const Plan&) {}

  double absent() const { return 0; }
  template <int N>
  POOLWISE_INLINE Pack<double, N> nothing() const {
    return every<double, N>(std::numeric_limits<double>::quiet_NaN());
  }
  template <int N, int K>
  POOLWISE_INLINE Pack<double, N> of(const Pack<double, N>* v, int k) const {
    return mean<N>(v, k, every<double, N>(k));
  }
  template <int N, int K, int Across>
  POOLWISE_INLINE Pack<double, N> of_some(const Pack<double, N>* v, int k, const Some<double, N>& some) const {
    return mean<N>(v, k, count<N, Across>(k, &some));  // NaN where nothing is there
  }
  // Of x > 0 it is (2 x - y) / Σ x⁺.
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<double, N>* v, int k, Pack<double, N> g, const Some<double, N>* some) const {
    using V = Pack<double, N>;
    const Sums<N> sums = sums_of<N>(v, k);
    const auto endless = sums.positive == infinity, none = sums.positive == 0, nan = any_nan<double, N>(v, k);
    const V y = sums.squares / sums.positive;
    V infinite{};
    for (int i = 0; i < k; ++i) infinite += v[i] == infinity ? every<double, N>(1) : V{};
    const V even = g / (endless ? infinite : count<N, Across>(k, some));
    for (int i = 0; i < k; ++i) {
      const V share = v[i] > 0 ? g * ((v[i] + (v[i] - y)) / sums.positive) : V{};
      v[i] = nan ? nothing<N>() : endless ? (v[i] == infinity ? even : V{}) : none ? even : share;
    }
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<double, N> v) const {
    store<N, double>(p, v);
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  template <int N>
  struct Sums {
    Pack<double, N> all, positive, squares;
  };
  template <int N>
  static POOLWISE_INLINE Sums<N> sums_of(const Pack<double, N>* v, int k) {
    Sums<N> sums{};
    for (int i = 0; i < k; ++i) {
      const Pack<double, N> positive = v[i] > 0 ? v[i] : Pack<double, N>{};
      sums.all += v[i];
      sums.positive += positive;
      sums.squares += positive * positive;
    }
    return sums;
  }
  template <int N, int Across>
  static POOLWISE_INLINE Pack<double, N> count(int k, const Some<double, N>* some) {
    if (some == nullptr) return every<double, N>(k);
    return converted<double, Lane<double>, N>(some->held * static_cast<Lane<double>>(k / (Across > 0 ? Across : some->across)));
  }
  template <int N>
  POOLWISE_INLINE Pack<double, N> mean(const Pack<double, N>* v, int k, Pack<double, N> count) const {
    const Sums<N> sums = sums_of<N>(v, k);
    const auto endless = sums.positive == infinity;
    const Pack<double, N> y = sums.positive > 0 ? sums.squares / sums.positive : sums.all / count;
    return any_nan<double, N>(v, k) ? nothing<N>() : endless ? every<double, N>(infinity) : y;
  }
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
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<A, N> v) const {
    store<N, A>(p, v);
  }
};

// The derivative of a power mean or norm y of n elements, which the engine of lines computes: |x / y|^(p - 1), with the sign of x in a
// norm, over n in a mean, of what was not raised to the least. Where y is infinite, NaN of what is infinite too, else 0.
template <class T>
struct OverRooted {
  using Reader = Plain<T, double>;
  using Element = T;
  using Accumulator = double;
  static constexpr bool reads = true;

  Reader reader;
  explicit OverRooted(const Plan& plan) : powers_(plan) {}

  double absent() const { return 0; }  // as small as what was raised
  template <int N, int K, int Across>
  POOLWISE_INLINE void send(Pack<double, N>* v, int k, Pack<double, N> g, const Some<double, N>* some) const {
    using V = Pack<double, N>;
    V sum{}, count{}, powers[K > 0 ? K : most_window_taps];
    for (int i = 0; i < k; ++i) {
      const V one = some == nullptr ? every<double, N>(1) : some->template has<Across>(i);
      powers[i] = one * powers_.template of<N>(v[i]);
      sum += powers[i];
      count += one;
    }
    const V y = powers_.template root<N>(powers_.averages ? sum / count : sum);
    const auto endless = y - y != 0;
    for (int i = 0; i < k; ++i) {
      const V share = endless & (v[i] - v[i] == 0) & (y == y) ? V{} : powers[i] / v[i] * (y / sum);
      v[i] = powers_.template passes<N>(v[i], y) ? g * share : V{};
    }
  }

 private:
  Powers powers_;
};

}  // namespace poolwise::POOLWISE_ISA
