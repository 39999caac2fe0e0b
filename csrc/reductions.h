// What the engine of lines computes with: reductions whose parts can be merged.
//
// State<N> holds N lanes of a partial result: a value and, where the reduction needs one, a second number beside it. A reduction
// is an object made from a plan: read(pointer) → values, taken(values, place) → the state of one element, nothing() → of none,
// followed(a, b): b stands after a in the window and a is not nothing, merged(a, b): in any order, moved(state, by): as seen from a
// window that begins so many taps before, finished(state), and write(pointer, finished state, divisor). One that keeps places also
// has place(finished state), -1: nobody's.
#pragma once

#include <limits>

#include "plan.h"
#include "powers.h"
#include "simd.h"

namespace poolwise::POOLWISE_ISA {

template <class A, class S, int N>
struct Partial {
  Pack<A, N> value;
  Pack<S, N> second;
};
template <class A, int N>
struct Partial<A, void, N> {
  Pack<A, N> value;
};

// ---- numbers in order --------------------------------------------------------------------------------------------------

// The larger, NaN where one of them is. A processor's own maximum gives its second operand where either is NaN, so only the first
// is to be looked at.
template <class A, int N>
POOLWISE_INLINE Pack<A, N> nan_or_larger(Pack<A, N> a, Pack<A, N> b) {
#if defined(__AVX512BW__)
  if constexpr (std::is_same_v<A, float> && N == 16) {
    const auto v = same_bits<__m512>(a), w = same_bits<__m512>(b);
    return same_bits<Pack<A, N>>(_mm512_mask_max_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v, w));
  } else if constexpr (std::is_same_v<A, double> && N == 8) {
    const auto v = same_bits<__m512d>(a), w = same_bits<__m512d>(b);
    return same_bits<Pack<A, N>>(_mm512_mask_max_pd(v, _mm512_cmp_pd_mask(v, v, _CMP_ORD_Q), v, w));
  } else
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<A, float> && N == 8) {
    const auto v = same_bits<__m256>(a), w = same_bits<__m256>(b);
    return same_bits<Pack<A, N>>(_mm256_blendv_ps(_mm256_max_ps(v, w), v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
  } else
#endif
    return ((b > a) | (b != b)) ? b : a;
}

// The same where neither is NaN.
template <class A, int N>
POOLWISE_INLINE Pack<A, N> larger_of_calm(Pack<A, N> a, Pack<A, N> b) {
#if defined(__AVX512BW__)
  if constexpr (std::is_same_v<A, float> && N == 16)
    return same_bits<Pack<A, N>>(_mm512_max_ps(same_bits<__m512>(a), same_bits<__m512>(b)));
  else if constexpr (std::is_same_v<A, double> && N == 8)
    return same_bits<Pack<A, N>>(_mm512_max_pd(same_bits<__m512d>(a), same_bits<__m512d>(b)));
  else
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<A, float> && N == 8)
    return same_bits<Pack<A, N>>(_mm256_max_ps(same_bits<__m256>(a), same_bits<__m256>(b)));
  else
#endif
    return b > a ? b : a;
}

// Elements as numbers of which the largest is sought: a minimum is sought among the negated.
template <class T, class A = Number<T>>
class Floating {
 public:
  using Element = T;
  using Number = A;

  explicit Floating(const Plan& plan)
      : sign_(plan.body == Body::min ? std::numeric_limits<Lane<A>>::lowest() : 0),
        least_(plan.body == Body::relumax ? 0 : -std::numeric_limits<A>::infinity()) {}

  A least() const { return least_; }
  template <int N>
  POOLWISE_INLINE Pack<A, N> read(const T* p) const {
    return turned<N>(load<A, N>(p));
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<A, N> v) const {
    store<N, A>(p, turned<N>(v));
  }
  template <class V>
  static POOLWISE_INLINE auto is_nan(V v) {
    return v != v;
  }
  template <int N>
  static POOLWISE_INLINE Pack<A, N> larger_of(Pack<A, N> a, Pack<A, N> b) {
    return nan_or_larger<A, N>(a, b);
  }

  // The lanes that are above minus infinity. Where all are, none is NaN.
  static constexpr bool calms = true;
  template <int N>
  static POOLWISE_INLINE LaneSet<A, N> calm(Pack<A, N> v) {
    return LaneSet<A, N>::above(v, every<A, N>(-std::numeric_limits<A>::infinity()));
  }

 private:
  template <int N>
  POOLWISE_INLINE Pack<A, N> turned(Pack<A, N> v) const {
    return same_bits<Pack<A, N>>(same_bits<Pack<Lane<A>, N>>(v) ^ sign_);
  }

  Lane<A> sign_;
  A least_;
};

// Integers and bools as signed integers in the same order, or in the opposite one. A wider A leaves room for places.
template <class T, class A = Lane<T>>
class Whole {
 public:
  using Element = T;
  using Number = A;

  explicit Whole(const Plan& plan) {
    const bool is_min = plan.body == Body::min;
    is_signed_ = plan.dtype >= Dtype::int8 && plan.dtype <= Dtype::int64;
    flip_ = static_cast<A>((is_min ? A(-1) : A(0)) ^ (is_wider || is_signed_ ? A(0) : std::numeric_limits<A>::lowest()));
    const A lowest = is_signed_ ? std::numeric_limits<Lane<T>>::lowest() : 0;
    const A highest = plan.dtype == Dtype::boolean ? 1 : is_signed_ ? std::numeric_limits<Lane<T>>::max() : mask;
    least_ = static_cast<A>((plan.body == Body::relumax ? A(0) : is_min ? highest : lowest) ^ flip_);
  }

  A least() const { return least_; }
  template <int N>
  POOLWISE_INLINE Pack<A, N> read(const T* p) const {
    const auto v = load<A, N>(reinterpret_cast<const Lane<T>*>(p));
    return (is_wider && !is_signed_ ? v & mask : v) ^ flip_;
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<A, N> v) const {
    store<N, A>(reinterpret_cast<Lane<T>*>(p), v ^ flip_);
  }
  template <class V>
  static POOLWISE_INLINE auto is_nan(V v) {
    return v != v;
  }

 private:
  static constexpr bool is_wider = sizeof(A) > sizeof(T);
  static constexpr A mask = static_cast<A>(static_cast<std::make_unsigned_t<Lane<T>>>(-1));

  A flip_, least_;
  bool is_signed_;
};

// float16 and bfloat16 as 16-bit integers in the order of their values: -0 becomes 0, and every NaN the same and the largest.
template <class T>
class Keys {
 public:
  using Element = T;
  using Number = std::int16_t;

  explicit Keys(const Plan& plan) : is_min_(plan.body == Body::min), least_(plan.body == Body::relumax ? 0 : -infinity) {}

  std::int16_t least() const { return least_; }
  template <int N>
  POOLWISE_INLINE Pack<std::int16_t, N> read(const T* p) const {
    Pack<std::int16_t, N> bits;
    std::memcpy(&bits, p, sizeof bits);
    const auto magnitude = bits & nan;
    const auto key = turned<N>(bits < 0 ? -magnitude : magnitude);
    return magnitude > infinity ? every<std::int16_t, N>(nan) : key;
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, Pack<std::int16_t, N> key) const {
    const auto ordered = key == nan ? every<std::int16_t, N>(quiet) : turned<N>(key);
    const Pack<std::int16_t, N> bits = ordered < 0 ? (-ordered) | std::numeric_limits<std::int16_t>::lowest() : ordered;
    std::memcpy(p, &bits, sizeof bits);
  }
  template <class V>
  static POOLWISE_INLINE auto is_nan(V v) {
    return v == nan;
  }

  static constexpr bool calms = true;
  template <int N>
  static POOLWISE_INLINE LaneSet<std::int16_t, N> calm(Pack<std::int16_t, N> v) {
    auto lanes = LaneSet<std::int16_t, N>::above(v, every<std::int16_t, N>(-infinity));
    return lanes &= LaneSet<std::int16_t, N>::above(every<std::int16_t, N>(nan), v);
  }

 private:
  static constexpr std::int16_t nan = 0x7fff;
  static constexpr std::int16_t infinity = std::is_same_v<T, Half> ? 0x7c00 : 0x7f80;
  static constexpr std::int16_t quiet = std::is_same_v<T, Half> ? 0x7e00 : 0x7fc0;  // the NaN that is written

  template <int N>
  POOLWISE_INLINE Pack<std::int16_t, N> turned(Pack<std::int16_t, N> v) const {
    return is_min_ ? -v : v;
  }

  bool is_min_;
  std::int16_t least_;
};

// Numbers that know where they are calm: among such, elements that follow one another are merged with one comparison.
template <class Numbers>
inline constexpr bool calm_numbers = requires { Numbers::calms; };

// ---- selections --------------------------------------------------------------------------------------------------------

// The largest number: NaN is larger than any, of equal ones the first stays.
template <class Numbers>
struct Extreme {
  using Element = typename Numbers::Element;
  using Result = Element;
  using Accumulator = typename Numbers::Number;
  using Second = void;
  static constexpr bool places = false, divides = false, idempotent = true, calms = calm_numbers<Numbers> && std::is_floating_point_v<Accumulator>;
  template <int N>
  using State = Partial<Accumulator, void, N>;

  Numbers numbers;
  bool zero_wins;  // over elements that are not above it
  explicit Extreme(const Plan& plan) : numbers(plan), zero_wins(plan.body == Body::relumax) {}

  template <int N>
  POOLWISE_INLINE Pack<Accumulator, N> read(const Element* p) const {
    return numbers.template read<N>(p);
  }
  template <int N>
  POOLWISE_INLINE State<N> nothing() const {
    return {every<Accumulator, N>(numbers.least())};
  }
  template <int N>
  POOLWISE_INLINE State<N> taken(Pack<Accumulator, N> v, Int) const {
    return {v};
  }
  template <int N>
  POOLWISE_INLINE State<N> followed(State<N> a, State<N> b) const {
    if constexpr (std::is_integral_v<Accumulator>)
      return {a.value > b.value ? a.value : b.value};
    else
      return {Numbers::template larger_of<N>(a.value, b.value)};
  }
  template <int N>
  POOLWISE_INLINE State<N> merged(State<N> a, State<N> b) const {
    return followed<N>(a, b);
  }
  template <int N>
  static POOLWISE_INLINE auto calm(Pack<Accumulator, N> v) {
    return Numbers::template calm<N>(v);
  }
  template <int N>
  POOLWISE_INLINE State<N> calmly(State<N> a, State<N> b) const {
    return {larger_of_calm<Accumulator, N>(a.value, b.value)};
  }
  template <int N>
  POOLWISE_INLINE State<N> moved(State<N> state, Int) const {
    return state;
  }
  template <int N>
  POOLWISE_INLINE State<N> finished(State<N> state) const {
    return zero_wins ? followed<N>(nothing<N>(), state) : state;
  }
  template <int N>
  POOLWISE_INLINE void write(Result* p, State<N> state, Pack<Accumulator, N>) const {
    numbers.template write<N>(p, state.value);
  }
};

// The same and its place: of equal ones the first place wins, of NaN the last.
template <class Numbers>
struct Placed {
  using Element = typename Numbers::Element;
  using Result = Element;
  using Accumulator = typename Numbers::Number;
  using Second = Lane<Accumulator>;
  static constexpr bool places = true, divides = false, idempotent = true, calms = calm_numbers<Numbers>;
  // Places of no element: before all and after all, far enough from 0 to stay there when an engine moves them.
  static constexpr Second after = std::numeric_limits<Second>::max() / 2, before = -after;
  template <int N>
  using State = Partial<Accumulator, Second, N>;

  Numbers numbers;
  bool zero_wins;  // over elements that are not above it
  explicit Placed(const Plan& plan) : numbers(plan), zero_wins(plan.body == Body::relumax) {}

  template <int N>
  POOLWISE_INLINE Pack<Accumulator, N> read(const Element* p) const {
    return numbers.template read<N>(p);
  }
  template <int N>
  POOLWISE_INLINE State<N> nothing() const {
    return {every<Accumulator, N>(numbers.least()), every<Second, N>(after)};
  }
  template <int N>
  POOLWISE_INLINE State<N> taken(Pack<Accumulator, N> v, Int place) const {
    return {v, every<Second, N>(static_cast<Second>(place))};
  }
  template <int N>
  POOLWISE_INLINE State<N> followed(State<N> a, State<N> b) const {
    return chosen<N>(a, b, (b.value > a.value) | Numbers::is_nan(b.value));
  }
  template <int N>
  POOLWISE_INLINE State<N> merged(State<N> a, State<N> b) const {
    // A place is compared where values are equal; of NaN the last wins, which is rare enough for a branch.
#if defined(__AVX512BW__)
    if constexpr (std::is_same_v<Accumulator, float> && N == 16) {
      const auto v = same_bits<__m512>(a.value), w = same_bits<__m512>(b.value);
      const auto p = same_bits<__m512i>(a.second), q = same_bits<__m512i>(b.second);
      if (__builtin_expect(_mm512_cmp_ps_mask(v, w, _CMP_UNORD_Q) == 0, 1)) {
        const __mmask16 first = _mm512_mask_cmp_epi32_mask(_mm512_cmp_ps_mask(v, w, _CMP_EQ_OQ), q, p, _MM_CMPINT_LT);
        const __mmask16 takes = _mm512_cmp_ps_mask(w, v, _CMP_GT_OQ) | first;
        return {same_bits<Pack<float, N>>(_mm512_mask_mov_ps(v, takes, w)),
                same_bits<Pack<Second, N>>(_mm512_mask_mov_epi32(p, takes, q))};
      }
    }
#endif
    const auto later = b.second > a.second, nan = Numbers::is_nan(a.value);
    const auto either = (b.value == a.value) | (Numbers::is_nan(b.value) & nan);
    const auto takes = (b.value > a.value) | (Numbers::is_nan(b.value) & ~nan);
    return chosen<N>(a, b, takes | (either & (later ^ ~nan)));
  }
  template <int N>
  static POOLWISE_INLINE auto calm(Pack<Accumulator, N> v) {
    return Numbers::template calm<N>(v);
  }
  // Where all are calm, and b stands after a or begins after it.
  template <int N>
  POOLWISE_INLINE State<N> calmly(State<N> a, State<N> b) const {
#if defined(__AVX512BW__)
    if constexpr (std::is_same_v<Accumulator, float> && N == 16) {
      const auto v = same_bits<__m512>(a.value), w = same_bits<__m512>(b.value);
      const auto takes = _mm512_cmp_ps_mask(w, v, _CMP_GT_OQ);
      return {same_bits<Pack<float, N>>(_mm512_max_ps(w, v)),
              same_bits<Pack<Second, N>>(_mm512_mask_mov_epi32(same_bits<__m512i>(a.second), takes, same_bits<__m512i>(b.second)))};
    }
#endif
    return chosen<N>(a, b, b.value > a.value);
  }
  template <int N>
  POOLWISE_INLINE State<N> moved(State<N> state, Int by) const {
    return {state.value, state.second + static_cast<Second>(by)};
  }
  template <int N>
  POOLWISE_INLINE void write(Result* p, State<N> state, Pack<Accumulator, N>) const {
    numbers.template write<N>(p, state.value);
  }
  template <int N>
  POOLWISE_INLINE State<N> finished(State<N> state) const {
    return zero_wins ? followed<N>({every<Accumulator, N>(numbers.least()), every<Second, N>(before)}, state) : state;
  }
  template <int N>
  POOLWISE_INLINE Pack<Second, N> place(State<N> state) const {
    return (state.second >= 0) & (state.second < static_cast<Second>(after / 2)) ? state.second : every<Second, N>(-1);
  }

 private:
  template <int N, class Mask>
  static POOLWISE_INLINE State<N> chosen(State<N> a, State<N> b, Mask takes) {
    return {takes ? b.value : a.value, takes ? b.second : a.second};
  }
};

// ---- sums --------------------------------------------------------------------------------------------------------------

// The mean of integers: exact, rounded to the nearest (ties to even) or towards zero; what T cannot hold saturates.
template <class T, class A>
POOLWISE_INLINE A whole_mean(A sum, A divisor, bool truncates) {
  if (divisor == 0) return 0;
  const A whole = sum / divisor, rest = sum % divisor, left = rest < 0 ? -rest : rest;
  const bool away = !truncates && (left > divisor - left || (left == divisor - left && whole % 2 != 0));
  const A mean = whole + (away ? (sum < 0 ? -1 : 1) : 0);
  constexpr A low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
  return mean < low ? low : mean > high ? high : mean;
}

// A quotient of whole numbers to the nearest, ties to even, by a number so large that nothing smaller than one stays beside it; or
// towards zero. Exact where the sum is below half of what A counts to: then no quotient is rounded to a tie that it is not.
template <class T, class A, int N>
POOLWISE_INLINE Pack<A, N> rounded(Pack<A, N> mean, bool truncates) {
  constexpr A big = sizeof(A) == 4 ? A(0x1.8p23) : A(0x1.8p52);
  constexpr A low = static_cast<A>(std::numeric_limits<T>::lowest()), high = static_cast<A>(std::numeric_limits<T>::max());
  mean = mean == mean ? mean : Pack<A, N>{};  // of nothing
  mean = mean < low ? every<A, N>(low) : mean > high ? every<A, N>(high) : mean;
  const auto nearest = (mean + big) - big;
  if (!truncates) return nearest;
  const auto beyond = mean < 0 ? nearest < mean : nearest > mean;
  return beyond ? nearest + (mean < 0 ? every<A, N>(1) : every<A, N>(-1)) : nearest;
}

// The sum or the mean, added in A.
template <class T, class A, class To = T>
struct Total {
  using Element = T;
  using Result = To;
  using Accumulator = A;
  using Second = void;
  static constexpr bool places = false, divides = true, idempotent = false;
  // A quotient in double is rounded once more: the product with the reciprocal does as well, and costs an eighth.
  static constexpr bool scales = std::is_floating_point_v<Number<T>> && sizeof(A) > sizeof(Number<T>);
  // What a few elements may be added in, see lines.h.
  using Few = std::conditional_t<scales, Number<T>, A>;
  template <int N>
  using State = Partial<A, void, N>;

  // Whether a sum that all windows divide by the same is known to: it is no mean then, and `write` needs no divisor.
  static constexpr bool shares = std::is_floating_point_v<Number<T>> && std::is_same_v<T, To>;
  enum class Share { product, corrected, quotient };  // of the sum and a reciprocal, where that is exact or in double; of that, set right; or divided

  bool is_mean, truncates;
  Share way = Share::product;
  A share{1}, count{1};
  // With a mask windows divide by what it leaves of them.
  explicit Total(const Plan& plan, bool masked = false) : is_mean(plan.body == Body::mean), truncates(plan.truncate) {
    if constexpr (shares) {
      if (!is_mean || masked || plan.shared_divisor == 0) return;
      is_mean = false, count = static_cast<A>(plan.shared_divisor), share = 1 / count;
      if (plan.exact_share > 0 || (scales && plan.shared_divisor >= 1)) return;
      const bool is_known = plan.shared_divisor >= 3 && plan.shared_divisor <= most_corrected && count == static_cast<A>(static_cast<int>(count));
      way = std::is_same_v<A, float> && is_known ? Share::corrected : Share::quotient;
    }
  }

  // What `write` takes for a divisor.
  template <class V>
  static POOLWISE_INLINE V written_by(V divisor) {
    if constexpr (scales) return 1 / divisor;
    return divisor;
  }

  template <int N>
  POOLWISE_INLINE Pack<A, N> read(const T* p) const {
    return load<A, N>(p);
  }
  template <int N>
  POOLWISE_INLINE State<N> nothing() const {
    return {Pack<A, N>{}};
  }
  template <int N>
  POOLWISE_INLINE State<N> taken(Pack<A, N> v, Int) const {
    return {v};
  }
  template <int N>
  POOLWISE_INLINE State<N> followed(State<N> a, State<N> b) const {
    return {a.value + b.value};
  }
  template <int N>
  POOLWISE_INLINE State<N> merged(State<N> a, State<N> b) const {
    return {a.value + b.value};
  }
  template <int N>
  POOLWISE_INLINE State<N> moved(State<N> state, Int) const {
    return state;
  }
  template <int N>
  POOLWISE_INLINE State<N> finished(State<N> state) const {
    return state;
  }
  template <int N>
  POOLWISE_INLINE void write(Result* p, State<N> state, Pack<A, N> divisor) const {
    if constexpr (shares)
      if (!is_mean) return store<N, A>(p, way == Share::product ? state.value * share : quotient<N>(state.value));
    if (!is_mean || !std::is_same_v<T, To>) return store<N, A>(p, state.value);
    if constexpr (std::is_same_v<T, Truth>) {
      return;  // has no mean
    } else if constexpr (std::is_same_v<A, Wide>) {
      store<N, A>(p, whole_mean<T, A>(state.value, divisor, truncates));
    } else if constexpr (std::is_integral_v<A>) {
      Pack<A, N> means{};
      for (int i = 0; i < N; ++i) means[i] = whole_mean<T, A>(state.value[i], divisor[i], truncates);
      store<N, A>(p, means);
    } else if constexpr (std::is_integral_v<T>) {
      store<N, A>(p, rounded<T, A, N>(state.value / divisor, truncates));
    } else {
      store<N, A>(p, scales ? state.value * divisor : state.value / divisor);
    }
  }

 private:
  // The product with the reciprocal, and what is left over times the reciprocal upon it: for counts to 128 that is the quotient, rounded once,
  // as every significand of float32 shows (csrc/tests/test_kernels.cc), from where nothing that is left over vanishes. It takes half as long as a division.
  static constexpr double most_corrected = 128;
  template <int N>
  POOLWISE_INLINE Pack<A, N> quotient(Pack<A, N> v) const {
#if defined(__FMA__)
    if constexpr (std::is_same_v<A, float> && sizeof v == POOLWISE_VECTOR_BYTES) {
      using Bits = Pack<std::uint32_t, N>;
      constexpr std::uint32_t least = 0x13800000, most = 0x7e800000;  // 2^-88, 2^126
      const Bits magnitude = same_bits<Bits>(v) & 0x7fffffffu;
      const auto is_zero = magnitude == 0u;
      if (way == Share::corrected && holds<Lane<A>, N>(same_bits<Pack<Lane<A>, N>>((magnitude - least <= most - least) | is_zero))) {
        const auto product = v * share, whole = every<A, N>(count);
        const auto corrected = multiplied_and_added<N>(multiplied_and_added<N>(-product, whole, v), every<A, N>(share), product);
        return is_zero ? v : corrected;
      }
    }
#endif
    return v / count;
  }
};

// The mean of at most `most_taps` bytes, signed or not, added in 16-bit lanes. Multiplied with the reciprocal of their number it is off
// by less than 2^-14; where it is no tie it is at least 2^-8 away from one, and where it is not whole, 2^-7 from a whole number.
template <class T>
struct ByteMean : Total<T, std::int16_t> {
  using Divisor = float;
  static constexpr Int most_taps = 128;
  template <int N>
  using State = Partial<std::int16_t, void, N>;

  explicit ByteMean(const Plan& plan) : Total<T, std::int16_t>(plan) {
    for (const Axis& axis : plan.block.axes) exact_ = exact_ && axis.taps <= 2;
  }

  static float written_by(float count) { return count == 0 ? 0 : 1 / count; }
  template <int N>
  POOLWISE_INLINE void write(T* p, State<N> state, Pack<float, N> share) const {
    constexpr int half = N > 1 ? N / 2 : 1;  // as many as there are lanes of float
    Pack<std::int16_t, half> sums[N / half];
    Pack<float, half> shares[N / half];
    std::memcpy(sums, &state.value, sizeof state.value);
    std::memcpy(shares, &share, sizeof share);
    for (int h = 0; h < N / half; ++h) store<half, float>(p + h * half, whole<half>(converted<float, std::int16_t, half>(sums[h]) * shares[h]));
  }

 private:
  // To the nearest, of two the even; or towards zero.
  template <int N>
  POOLWISE_INLINE Pack<float, N> whole(Pack<float, N> mean) const {
    using V = Pack<float, N>;
    constexpr float big = 0x1.8p23f, near = 0x1p-9f;
    const auto nearest = [](V v) POOLWISE_LAMBDA { return (v + big) - big; };
    if (this->truncates) return mean < 0 ? nearest(mean + (0.5f - near)) : nearest(mean - (0.5f - near));
    const V found = nearest(mean);
    if (exact_) return found;
    const V off = mean - found, even = nearest(mean * 0.5f) * 2;
    return (off > 0.5f - near) | (off < near - 0.5f) ? even : found;
  }

  bool exact_ = true;  // reciprocals of powers of two are
};

// Norms of which no square overflowed, nor vanished beside the largest. Others of float64 are computed again (norms_again), but for 0:
// a square that would be 0 of what is not is the least normal number.
constexpr double least_norm = 0x1p-480, most_norm = 0x1p+480;

// The root of the sum of squares. Those of floats neither overflow nor vanish in double, so that nothing needs to be scaled.
template <class T>
struct Norm : Total<T, double> {
  static constexpr bool divides = false, raises = true;
  using Few = double;
  template <int N>
  using State = Partial<double, void, N>;

  using Total<T, double>::Total;

  template <int N>
  POOLWISE_INLINE Pack<double, N> read(const T* p) const {
    const auto v = load<double, N>(p);
    if constexpr (!std::is_same_v<T, double>) return v * v;
    return v * v + (v != 0 ? every<double, N>(std::numeric_limits<double>::min()) : Pack<double, N>{});
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, State<N> state, Pack<double, N>) const {
    store<N, double>(p, root<N>(state.value));
  }
};

// The powers of a power mean, of what is raised to the least, or of a norm, of magnitudes; and the root.
class Powers {
 public:
  const bool averages;
  explicit Powers(const Plan& plan) : averages(plan.body == Body::gem), least_(plan.least), power_(plan.parameter), root_(1 / plan.parameter) {}

  template <int N>
  POOLWISE_INLINE Pack<double, N> of(Pack<double, N> v) const {
    if (averages) return power_.template of<N>(v < least_ ? every<double, N>(least_) : v);
    return power_.template of<N>(v < 0 ? -v : v);
  }
  template <int N>
  POOLWISE_INLINE Pack<double, N> root(Pack<double, N> v) const {
    return root_.template of<N>(v);
  }
  // Where an element moves the result y.
  template <int N>
  POOLWISE_INLINE auto passes(Pack<double, N> v, Pack<double, N> y) const {
    return averages ? ~(v < least_) : (v != 0) | (y != y);
  }

 private:
  double least_;
  Power power_, root_;
};

// A power mean or norm: the root of the mean, or the sum, of powers, which neither overflow nor vanish in double.
template <class T>
struct Rooted : Total<T, double> {
  using Few = double;
  static constexpr bool is_costly = true, raises = true;
  template <int N>
  using State = Partial<double, void, N>;

  explicit Rooted(const Plan& plan) : Total<T, double>(plan), powers_(plan) { this->is_mean = powers_.averages; }

  template <int N>
  POOLWISE_INLINE Pack<double, N> read(const T* p) const {
    return powers_.template of<N>(load<double, N>(p));
  }
  template <int N>
  POOLWISE_INLINE void write(T* p, State<N> state, Pack<double, N> share) const {
    store<N, double>(p, powers_.template root<N>(this->is_mean ? state.value * share : state.value));  // a mean of nothing is NaN
  }

 private:
  Powers powers_;
};

// The mean with weights, which are products of those of rows and of columns.
template <class T>
struct Blurred : Total<T, Number<T>> {
  using A = Number<T>;
  static constexpr bool weighs = true;

  explicit Blurred(const Plan& plan) : Total<T, A>(plan) {
    const Axis &planes = plan.block.axes[0], &rows = plan.block.axes[1], &last = plan.block.axes[2];
    const auto of = [](const Axis& axis, Int tap) { return axis.weights == nullptr ? 1.0 : axis.weights[tap]; };
    for (Int a = 0; a < planes.taps; ++a)
      for (Int b = 0; b < rows.taps; ++b) rows_[a * rows.taps + b] = static_cast<A>(of(planes, a) * of(rows, b));
    for (Int t = 0; t < last.taps; ++t) columns_[t] = static_cast<A>(of(last, t));
    this->is_mean = true;
  }
  template <int N>
  POOLWISE_INLINE Partial<A, void, N> taken(Pack<A, N> v, Int row) const {
    return {v * rows_[row]};
  }
  template <int N>
  POOLWISE_INLINE Partial<A, void, N> weighed(Partial<A, void, N> state, Int tap) const {
    return {state.value * columns_[tap]};
  }

 private:
  A rows_[most_window_taps], columns_[most_window_taps];
};

// Numbers of which a window has so many that no accumulator is wide enough: what each addition loses is summed beside (Knuth's
// two-sum, The Art of Computer Programming, volume 2, section 4.2.2). Where something is infinite, what is lost means nothing.
struct LongTotal {
  using Element = double;
  using Result = double;
  using Accumulator = double;
  using Second = double;
  using Few = double;
  static constexpr bool places = false, divides = true, idempotent = false;
  template <int N>
  using State = Partial<double, double, N>;

  bool is_mean;
  explicit LongTotal(const Plan& plan) : is_mean(plan.body == Body::mean) {}
  template <class V>
  static POOLWISE_INLINE V written_by(V divisor) {
    return divisor;
  }

  template <int N>
  POOLWISE_INLINE Pack<double, N> read(const double* p) const {
    return load<double, N>(p);
  }
  template <int N>
  POOLWISE_INLINE State<N> nothing() const {
    return {Pack<double, N>{}, Pack<double, N>{}};
  }
  template <int N>
  POOLWISE_INLINE State<N> taken(Pack<double, N> v, Int) const {
    return {v, Pack<double, N>{}};
  }
  template <int N>
  POOLWISE_INLINE State<N> followed(State<N> a, State<N> b) const {
    return merged<N>(a, b);
  }
  template <int N>
  POOLWISE_INLINE State<N> merged(State<N> a, State<N> b) const {
    const auto sum = a.value + b.value, added = sum - a.value;
    return {sum, a.second + b.second + ((a.value - (sum - added)) + (b.value - added))};
  }
  template <int N>
  POOLWISE_INLINE State<N> moved(State<N> state, Int) const {
    return state;
  }
  template <int N>
  POOLWISE_INLINE State<N> finished(State<N> state) const {
    return {state.second == state.second ? state.value + state.second : state.value, Pack<double, N>{}};
  }
  template <int N>
  POOLWISE_INLINE void write(Result* p, State<N> state, Pack<double, N> divisor) const {
    store<N, double>(p, is_mean ? state.value / divisor : state.value);
  }
};

}  // namespace poolwise::POOLWISE_ISA
