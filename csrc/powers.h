// Powers of positive numbers in double, to 1e-11 of them: enough that a result in float is rounded as if they were exact, nearly always.
#pragma once

#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// log2 x of a normal x > 0: of 2^n · m with m from √½ to √2 it is n + log2(e) · 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, whose
// series is broken off at 7e-13. Terms are added in pairs, so that few wait for others.
template <int N>
POOLWISE_INLINE Pack<double, N> binary_logarithm(Pack<double, N> x) {
  using V = Pack<double, N>;
  using Bits = Pack<std::uint64_t, N>;
  constexpr std::uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
  constexpr double big = 0x1p52;  // beside which an integer is the last bits
  const Bits biased = (same_bits<Bits>(x) + (one - root_half)) >> 52;
  const V power = same_bits<V>(biased | same_bits<std::uint64_t>(big)) - (big + 1023);
  const V m = same_bits<V>(same_bits<Bits>(x) - (biased << 52) + one), s = (m - 1) / (m + 1), z = s * s, z2 = z * z;
  const V series = (z * (1.0 / 5) + 1.0 / 3) + z2 * ((z * (1.0 / 9) + 1.0 / 7) + z2 * (z * (1.0 / 13) + 1.0 / 11));
  return power + (s + s * z * series) * 0x1.71547652b82fep+1;
}

// 2^x for |x| ≤ 1021: 2^n · 2^f with |f| ≤ 1/2, whose series of powers of f log 2 is broken off at 7e-12.
template <int N>
POOLWISE_INLINE Pack<double, N> binary_power(Pack<double, N> x) {
  using V = Pack<double, N>;
  using Bits = Pack<std::uint64_t, N>;  // which wrap, where x is no such number
  constexpr double big = 0x1.8p52;      // a sum with it has the nearest integer in its last bits
  const V whole = x + big, f = (x - (whole - big)) * 0x1.62e42fefa39efp-1, f2 = f * f, f4 = f2 * f2;
  const V low = (f + 1) + f2 * (f * (1.0 / 6) + 1.0 / 2), high = (f * (1.0 / 120) + 1.0 / 24) + f2 * (f * (1.0 / 5040) + 1.0 / 720);
  const V sum = low + f4 * (high + f4 * (f * (1.0 / 362880) + 1.0 / 40320));
  return same_bits<V>(same_bits<Bits>(sum) + (same_bits<Bits>(whole) << 52));
}

// Raises to one power p, by multiplication where that is short.
class Power {
 public:
  explicit Power(double p) : p_(p), times_(p == static_cast<int>(p) && p <= most_times ? static_cast<int>(p) : 0) {}

  // Of 0 ≤ x, infinity and NaN included, where the result is 0 or a normal number of double.
  template <int N>
  POOLWISE_INLINE Pack<double, N> of(Pack<double, N> x) const {
    if (times_ > 0) {
      Pack<double, N> y = x;
      for (int i = 1; i < times_; ++i) y *= x;
      return y;
    }
    return by_logarithm<N>(x);
  }

 private:
  // Out of line: it takes longer than a call, and inlined wherever elements are read it would be most of the code.
  template <int N>
  POOLWISE_OUTLINE Pack<double, N> by_logarithm(Pack<double, N> x) const {
    return (x - x == 0) & (x != 0) ? binary_power<N>(binary_logarithm<N>(x) * p_) : x;
  }

  static constexpr int most_times = 7;

  double p_;
  int times_;
};

}  // namespace poolwise::POOLWISE_ISA
