// Powers of positive numbers in double, to a few units of 1e-13: enough that a result in float is rounded as if they were exact.
#pragma once

#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// log2 x of a normal x > 0: of 2^n · m with m from √½ to √2 it is n + log2(e) · 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, whose
// series is broken off at 2e-15 of it.
template <int N>
POOLWISE_INLINE Pack<double, N> binary_logarithm(Pack<double, N> x) {
  using V = Pack<double, N>;
  using Bits = Pack<std::uint64_t, N>;
  constexpr std::uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
  constexpr double big = 0x1p52;  // beside which an integer is the last bits
  const Bits biased = (same_bits<Bits>(x) + (one - root_half)) >> 52;
  const V power = same_bits<V>(biased | same_bits<std::uint64_t>(big)) - (big + 1023);
  const V m = same_bits<V>(same_bits<Bits>(x) - (biased << 52) + one), s = (m - 1) / (m + 1), z = s * s;
  V series = z * (1.0 / 17) + 1.0 / 15;
  for (int k = 13; k >= 3; k -= 2) series = series * z + 1.0 / k;
  return power + (s + s * z * series) * 0x1.71547652b82fep+1;
}

// 2^x for |x| ≤ 1021: 2^n · 2^f with |f| ≤ 1/2, whose series is broken off at 7e-15 of it.
template <int N>
POOLWISE_INLINE Pack<double, N> binary_power(Pack<double, N> x) {
  using V = Pack<double, N>;
  using Bits = Pack<std::uint64_t, N>;  // which wrap, where x is no such number
  constexpr double big = 0x1.8p52;      // a sum with it has the nearest integer in its last bits
  const V whole = x + big, f = (x - (whole - big)) * 0x1.62e42fefa39efp-1;
  V sum = f * (1.0 / 11) + 1;
  for (int k = 10; k >= 1; --k) sum = sum * f * (1.0 / k) + 1;
  return same_bits<V>(same_bits<Bits>(sum) + (same_bits<Bits>(whole) << 52));
}

// Raises to one power p, by multiplication where that is short.
class Power {
 public:
  explicit Power(double p) : p_(p), times_(p == static_cast<int>(p) && p <= most_times ? static_cast<int>(p) : 0) {}

  // Of 0 < x, infinity and NaN included, where the result is a normal number of double.
  template <int N>
  POOLWISE_INLINE Pack<double, N> of(Pack<double, N> x) const {
    if (times_ > 0) {
      Pack<double, N> y = x;
      for (int i = 1; i < times_; ++i) y *= x;
      return y;
    }
    return x - x == 0 ? binary_power<N>(binary_logarithm<N>(x) * p_) : x;
  }

 private:
  static constexpr int most_times = 8;

  double p_;
  int times_;
};

}  // namespace poolwise::POOLWISE_ISA
