// What a pooling reads along one axis, forward and backward, and the arithmetic that keeps it inside the array.
//
// Everything here that kernels call is always inlined: the kernels are compiled once per instruction set, and a function shared
// between those builds could be linked from the one that this machine cannot run.
#pragma once

#include <cstdint>

#define POOLWISE_INLINE inline __attribute__((always_inline))

namespace poolwise {

using Int = std::int64_t;
__extension__ using Wide = __int128;  // no product of two sizes overflows it

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
POOLWISE_INLINE Int modulo(Wide a, Int b) {
  const Int rest = remainder(a, b);
  return rest < 0 ? rest + b : rest;
}

// Taps first, first + 1, …, of one window along one axis.
struct Taps {
  Int first, count;
};

// Consecutive elements that one output cell reads.
struct Span {
  Int first, count;
};

// Places at, at + at_step, … of the array that is read, met through taps tap, tap + tap_step, ….
struct Run {
  Int count, at, at_step, tap, tap_step;
};

// What the taps in the padding read.
enum class Mode { absent, circular, reflect, replicate };

// One pooled axis. Output cell i reads the taps t at index start + i * step + t * dilation, or, where the windows are uneven,
// the elements of span i: one list of spans for all planes, or one for each.
struct Axis {
  Int size = 1, output = 1, start = 0, step = 1, dilation = 1, taps = 1, low = 0, high = 0;
  Mode mode = Mode::absent;
  const double* weights = nullptr;  // of its taps in a mean with weights
  const Span* spans = nullptr;
  Int span_planes = 1;
  Int overlap = 1;                     // at most so many spans hold the same element
  Int cell_step = 1;                   // readers of one position are this far apart: dilation / gcd(step, dilation)
  Int tap_step = 1;                    // and step / gcd(step, dilation) taps
  Int inverse = 0;                     // of tap_step modulo cell_step
  Int whole_begin = 0, whole_end = 0;  // the cells that have every tap
  Int offset_stride = 1;               // of a tap in an offset inside the window
  Int flat_stride = 1;                 // of an element in a flat index over the pooled axes

  POOLWISE_INLINE Span span(Int i, Int plane) const { return spans[(span_planes > 1 ? plane : 0) * output + i]; }
  POOLWISE_INLINE Int padded_begin() const { return mode == Mode::absent ? 0 : -low; }
  POOLWISE_INLINE Int padded_end() const { return mode == Mode::absent ? size : size + high; }

  // The element that stands at an index, of the padding or not.
  POOLWISE_INLINE Int fold(Int index) const {
    if (mode == Mode::absent || (index >= 0 && index < size)) return index;
    return mode == Mode::replicate ? smaller(larger(index, 0), size - 1) : folded(index, 0, 1).at;
  }

  // The taps of cell i that fall on indices begin … end - 1.
  POOLWISE_INLINE Taps taps_between(Int i, Int begin, Int end) const {
    const Int base = start + i * step;
    const Int first = base >= begin ? 0 : ceil_div(Wide(begin) - base, dilation);
    const bool all_before_end = base + Wide(taps - 1) * dilation < end;
    const Int stop = all_before_end ? taps : base >= end ? 0 : floor_div(Wide(end) - 1 - base, dilation) + 1;
    return {first, larger(0, smaller(stop, taps) - first)};
  }

  // Where the first tap of cell i stands.
  POOLWISE_INLINE Int first(Int i) const { return spans != nullptr ? spans[i].first : start + i * step; }

  // The taps of cell i that read an element, and how many count for a mean that includes padding.
  POOLWISE_INLINE Taps present(Int i, Int plane = 0) const {
    if (i >= whole_begin && i < whole_end) return {0, taps};
    if (spans != nullptr) return {0, span(i, plane).count};
    return taps_between(i, padded_begin(), padded_end());
  }
  POOLWISE_INLINE Int counting(Int i, Int plane = 0) const {
    if (i >= whole_begin && i < whole_end) return taps;
    return spans != nullptr ? span(i, plane).count : taps_between(i, -low, size + high).count;
  }

  // The element that a tap which is present reads.
  POOLWISE_INLINE Int element(Int i, Int tap, Int plane) const { return run(i, tap, tap + 1, plane).at; }

  // Taps tap … stop - 1 of cell i, all present, as far as their elements lie evenly.
  POOLWISE_INLINE Run run(Int i, Int tap, Int stop, Int plane) const {
    if (tap >= stop) return {};
    if (spans != nullptr) return {stop - tap, span(i, plane).first + tap, 1, tap, 1};
    const Int index = start + i * step + tap * dilation;
    if (mode == Mode::absent) return {stop - tap, index, dilation, tap, 1};
    return folded(index, tap, stop - tap);
  }

  // The cells that read a position, as far as they lie evenly; of spans, only the first tap is told.
  POOLWISE_INLINE Run readers(Int position) const {
    if (spans != nullptr) return readers_by_spans(position);
    const Wide ahead = Wide(position) - start;  // = cell * step + tap * dilation
    const Int gcd = dilation / cell_step;
    if (ahead < 0 || remainder(ahead, gcd) != 0) return {};
    const Int low_cell = larger(0, ceil_div(ahead - Wide(taps - 1) * dilation, step));
    const Int high_cell = smaller(output - 1, floor_div(ahead, step));
    const Int beyond = cells_beyond(low_cell, quotient(ahead, gcd));
    if (Wide(low_cell) + beyond > high_cell) return {};
    const Int cell = low_cell + beyond;
    const Int tap = static_cast<Int>(quotient(ahead - Wide(cell) * step, dilation));
    return {(high_cell - cell) / cell_step + 1, cell, cell_step, tap, -tap_step};
  }

  // So many cells would read one position if there were no end of them; and at most so many do.
  POOLWISE_INLINE Int reach() const { return spans != nullptr ? overlap : static_cast<Int>(Wide(taps - 1) * dilation / step / cell_step + 1); }
  POOLWISE_INLINE Int most_readers() const { return smaller(reach(), output); }

  // The first position from `from` on that folds to this element; the end of the padding where there is none.
  POOLWISE_INLINE Int image(Int element, Int from) const {
    const Int period = larger(1, 2 * (size - 1));
    switch (mode) {
      case Mode::circular: return from + modulo(Wide(element) - from, size);
      case Mode::reflect: return from + smaller(modulo(Wide(element) - from, period), modulo(-Wide(element) - from, period));
      case Mode::replicate:
        if ((element == 0 && from < 0) || (element == size - 1 && from >= size)) return from;
        [[fallthrough]];
      default: return from <= element ? element : padded_end();
    }
  }

 private:
  // The first cell whose span is `past` something, which no cell before it is; spans do not go back.
  template <class Past>
  POOLWISE_INLINE Int first_cell(Past&& past) const {
    Int low = 0, high = output;
    while (low < high) {
      const Int middle = (low + high) / 2;
      if (past(spans[middle]))
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  POOLWISE_INLINE Run readers_by_spans(Int position) const {
    const Int first = first_cell([&](const Span& s) { return s.first + s.count > position; });
    const Int end = first_cell([&](const Span& s) { return s.first > position; });
    if (end <= first) return {};
    return {end - first, first, 1, position - spans[first].first, 0};
  }

  // `count` taps from position `index` on, as far as a fold of the padding lets them lie evenly.
  POOLWISE_INLINE Run folded(Int index, Int tap, Int count) const {
    const Int period = larger(1, 2 * (size - 1));
    Int at = mode == Mode::circular ? modulo(index, size) : mode == Mode::reflect ? modulo(index, period) : index;
    if (mode == Mode::replicate && at < 0) return {smaller(count, ceil_div(-Wide(at), dilation)), 0, 0, tap, 1};
    if (mode == Mode::replicate && at >= size) return {count, size - 1, 0, tap, 1};
    if (at >= size) return {smaller(count, (period - 1 - at) / dilation + 1), period - at, -dilation, tap, 1};
    return {smaller(count, (size - 1 - at) / dilation + 1), at, dilation, tap, 1};
  }

  // How far after low_cell the first cell c stands with c * tap_step = ahead modulo cell_step.
  POOLWISE_INLINE Int cells_beyond(Int low_cell, Wide ahead) const {
    if (cell_step == 1) return 0;
    const Int residue = remainder(Wide(remainder(ahead, cell_step)) * inverse, cell_step);
    return modulo(Wide(residue) - low_cell, cell_step);
  }
};

}  // namespace poolwise
