// What a pooling reads: axes, windows, and the arithmetic that keeps them inside the array.
//
// Everything here that kernels call is always inlined: the kernels are compiled once per instruction set, and a function shared
// between those builds could be linked from the one that this machine cannot run.
#pragma once

#include <cstdint>

#define POOLWISE_INLINE inline __attribute__((always_inline))

namespace poolwise {

using Int = std::int64_t;
__extension__ using Wide = __int128;  // no product of two sizes overflows it

enum class Body { max, min, sum, mean };
enum class Dtype { float32, float64 };
enum class Kept { none, bytes, words };

POOLWISE_INLINE Int smaller(Int a, Int b) { return a < b ? a : b; }
POOLWISE_INLINE Int larger(Int a, Int b) { return a > b ? a : b; }

// A 128-bit division is a call that costs as much as pooling a short row, and almost no value needs it. `b` is positive.
POOLWISE_INLINE Wide quotient(Wide a, Int b) {
  const Int narrow = static_cast<Int>(a);
  return narrow == a ? narrow / b : a / b;
}
POOLWISE_INLINE Int remainder(Wide a, Int b) { return static_cast<Int>(a - quotient(a, b) * b); }
POOLWISE_INLINE Int floor_div(Wide a, Int b) { return static_cast<Int>(a >= 0 ? quotient(a, b) : -quotient(-a + b - 1, b)); }
POOLWISE_INLINE Int ceil_div(Wide a, Int b) { return -floor_div(-a, b); }

// Taps first, first + 1, …, of one window along one axis.
struct Taps {
  Int first, count;
};

// The windows that read one input position: output cells cell, cell + cell_step, … through taps tap, tap - tap_step, …
struct Readers {
  Int count, cell, cell_step, tap, tap_step;
};

// One pooled axis: output cell i reads the taps t at index start + i * step + t * dilation.
struct Axis {
  Int size = 1, output = 1, start = 0, step = 1, dilation = 1, taps = 1, low = 0, high = 0;
  Int cell_step = 1;  // readers of one position are this far apart: dilation / gcd(step, dilation)
  Int tap_step = 1;   // and step / gcd(step, dilation) taps
  Int inverse = 0;    // of tap_step modulo cell_step

  POOLWISE_INLINE Int index(Int i, Int tap) const { return start + i * step + tap * dilation; }

  // The taps of cell i that fall on indices begin … end - 1.
  POOLWISE_INLINE Taps taps_between(Int i, Int begin, Int end) const {
    const Int base = start + i * step;
    const Int first = base >= begin ? 0 : ceil_div(Wide(begin) - base, dilation);
    const bool all_before_end = base + Wide(taps - 1) * dilation < end;
    const Int stop = all_before_end ? taps : base >= end ? 0 : floor_div(Wide(end) - 1 - base, dilation) + 1;
    return {first, larger(0, smaller(stop, taps) - first)};
  }
  POOLWISE_INLINE Taps present(Int i) const { return taps_between(i, 0, size); }
  POOLWISE_INLINE Int counting(Int i) const { return taps_between(i, -low, size + high).count; }

  POOLWISE_INLINE Readers readers(Int position) const {
    const Wide ahead = Wide(position) - start;  // = cell * step + tap * dilation
    const Int gcd = dilation / cell_step;
    if (ahead < 0 || remainder(ahead, gcd) != 0) return {0, 0, 1, 0, 1};
    const Int low_cell = larger(0, ceil_div(ahead - Wide(taps - 1) * dilation, step));
    const Int high_cell = smaller(output - 1, floor_div(ahead, step));
    const Int beyond = cells_beyond(low_cell, quotient(ahead, gcd));
    if (Wide(low_cell) + beyond > high_cell) return {0, 0, 1, 0, 1};
    const Int cell = low_cell + beyond;
    const Int tap = static_cast<Int>(quotient(ahead - Wide(cell) * step, dilation));
    return {(high_cell - cell) / cell_step + 1, cell, cell_step, tap, tap_step};
  }

 private:
  // How far after low_cell the first cell c stands with c * tap_step = ahead modulo cell_step.
  POOLWISE_INLINE Int cells_beyond(Int low_cell, Wide ahead) const {
    if (cell_step == 1) return 0;
    const Int residue = remainder(Wide(remainder(ahead, cell_step)) * inverse, cell_step);
    return remainder(remainder(Wide(residue) - low_cell, cell_step) + Wide(cell_step), cell_step);
  }
};

// Sizes and words of one pooling; the array is (outer, axes[0].size, axes[1].size, axes[2].size, inner), dense.
// Fewer than three pooled axes are preceded by axes of one cell.
struct Plan {
  Body body;
  Dtype dtype;
  Int outer, inner;
  Axis axes[3];
  bool count_include_pad;
  double divisor;
  Kept kept;
  Int input_size, output_size;

  POOLWISE_INLINE Int itemsize() const { return dtype == Dtype::float32 ? 4 : 8; }
  POOLWISE_INLINE Int input_rows() const { return outer * axes[0].size * axes[1].size; }
  POOLWISE_INLINE Int output_rows() const { return outer * axes[0].output * axes[1].output; }
  POOLWISE_INLINE Int window_taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }

  // A mean divides by the product of these over the axes; a given divisor stands on the last axis alone.
  POOLWISE_INLINE double divided_by(int axis, Int cell) const {
    if (divisor > 0) return axis == 2 ? divisor : 1;
    const Int n = count_include_pad ? axes[axis].counting(cell) : axes[axis].present(cell).count;
    return static_cast<double>(n);
  }
};

}  // namespace poolwise
