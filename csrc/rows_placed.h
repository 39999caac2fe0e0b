// Selections that tell places, where windows are so wide that it pays to look for them: first what is largest, as where no places are
// asked for, then, while the rows are in a cache, where that stands. Of equal ones that is the first, of NaN the last.
#pragma once

#include "lines_forward.h"
#include "rows_folded.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int placed_bytes = 1 << 14;  // that are looked through after they were reduced
// Windows of one row at least five elements apart are looked through; beyond eight apart only those of elements of eight bytes, or of 64 taps. As
// measured: benchmarks/factors.md, 100.
constexpr Int least_looked_step = 5, most_looked_step = 8, width_worth_looking = 64;
constexpr Int most_looks = 2;  // at one element, by windows that overlap

// Where the first of n elements stands that is `sought` in the bits of a mask; -1: nowhere. Nothing depends on where before 64 are compared.
template <int N, class L>
POOLWISE_INLINE Int first_like(const L* p, Int n, L sought, L mask) {
  if constexpr (N > 1)
    if (n < N) return first_like<N / 2>(p, n, sought, mask);
  const auto alike = [&](Int at) POOLWISE_LAMBDA { return lane_bits<L, N>(((load<L, N>(p + at) ^ sought) & mask) == 0); };
  for (Int i = 0; i < n; i += 64) {
    std::uint64_t found = 0;
    const Int end = smaller(i + 64, n);
    Int at = i;
    for (; at + N <= end; at += N) found |= alike(at) << (at - i);
    if (at < end) found |= end - N >= i ? alike(end - N) << (end - N - i) : alike(end - N) >> (i - end + N);
    if (found != 0) return i + __builtin_ctzll(found);
  }
  return -1;
}

POOLWISE_INLINE Int mean_step(const Axis& axis) { return axis.spans == nullptr ? axis.step : axis.size / axis.output; }

// Whether whole rows find what is largest, and it pays to look for it.
template <class R>
POOLWISE_OUTLINE bool places_rows(const Plan& plan, const Buffers& buffers) {
  if (plan.kept == Kept::longs) return false;
  for (int a : {0, 1}) {
    const Axis& axis = plan.block.axes[a];
    if (axis.output > 1 && axis.taps > most_looks * mean_step(axis)) return false;
  }
  return RowsFolded<R>::serves(plan, buffers);
}

// Whether lines do. R: the reduction without places.
template <class R>
POOLWISE_OUTLINE bool places_lines(const Plan& plan, const Buffers& buffers) {
  const Block& block = plan.block;
  const Axis& last = block.axes[2];
  if (plan.kept == Kept::longs || !block.there || block.inner != 1 || last.mode != Mode::absent || last.dilation != 1) return false;
  if (block.axes[0].taps != 1 || block.axes[1].taps != 1) return false;
  const Int step = mean_step(last);
  if (step < least_looked_step || last.taps > most_looks * step || (step > most_looked_step && sizeof(typename R::Element) < 8 && last.taps < width_worth_looking)) return false;
  return LinesForward<R, std::uint8_t>::serves(plan, buffers);
}

// Largest: the reduction without places, and the engine that does it.
template <class Largest, class Forward>
class RowsPlaced {
  using T = typename Largest::Element;
  using L = Lane<T>;
  using Y = Number<T>;
  static constexpr int N = POOLWISE_VECTOR_BYTES / int(sizeof(T));
  static constexpr bool by_lines = std::is_same_v<Forward, LinesForward<Largest, std::uint8_t>>;

  static Buffers without_places(Buffers buffers) {
    buffers.kept = nullptr;
    return buffers;
  }
  static Int columns_of(const Plan& plan) {
    if constexpr (by_lines) return line_layout<Largest>(plan).columns;
    return 1;
  }

 public:
  static Units units(const Plan& plan) { return Forward::units(plan); }

  RowsPlaced(const Plan& plan, const Buffers& buffers)
      : planes_(plan.block.axes[0]),
        rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        columns_(columns_of(plan)),
        rows_of_chunk_(plan.block.output_rows()),
        at_once_(larger(1, placed_bytes / Int(sizeof(T)) / (columns_ == 1 ? plan.additions + 1 : planes_.taps * rows_.taps * last_.size))),
        zero_wins_(plan.body == Body::relumax),
        width_(plan.kept),
        x_(static_cast<const T*>(buffers.from)),
        end_(x_ + last_row(plan.block, strides_) + last_.size),
        y_(static_cast<const T*>(buffers.to)),
        kept_(buffers.kept),
        largest_(plan, without_places(buffers)) {}

  void run(Int begin, Int end) {
    width_ == Kept::bytes ? run_into(static_cast<std::uint8_t*>(kept_), begin, end) : run_into(static_cast<std::int32_t*>(kept_), begin, end);
  }

 private:
  template <class K>
  POOLWISE_INLINE void run_into(K* kept, Int begin, Int end) {
    const bool alone = planes_.output == 1 && rows_.output == 1 && columns_ >= last_.output;
    const Rows first = rows_of(0, 0);
    const T* const from = first.one ? row_at(0, 0, 0, first) : nullptr;
    for (Int unit = begin; unit < end; unit += at_once_) {
      const Int stop = smaller(end, unit + at_once_);
      largest_.run(unit, stop);
      for (Int i = unit; i < stop; ++i) {
        if (alone && first.one) {
          find_in_row(kept + i * last_.output, y_ + i * last_.output, from + i * strides_.outer, first, 0, last_.output);
          continue;
        }
        const Int line = i % rows_of_chunk_, column = i / rows_of_chunk_ * columns_, rest = line / rows_.output, n = smaller(columns_, last_.output - column);
        const Int outer = rest / planes_.output, plane = rest % planes_.output, row = line % rows_.output, at = line * last_.output + column;
        const Rows rows = rows_of(plane, row);
        if (rows.one)
          find_in_row(kept + at, y_ + at, row_at(outer, plane, row, rows), rows, column, n);
        else
          for (Int j = 0; j < n; ++j) kept[at + j] = static_cast<K>(in_rows(outer, plane, row, rows, column + j, y_[at + j]));
      }
    }
  }

  // The rows that a window reads.
  struct Rows {
    Taps above, across;
    bool one;
  };
  POOLWISE_INLINE Rows rows_of(Int plane, Int row) const {
    const Taps above = taps_of(planes_, plane, 0), across = taps_of(rows_, row, 0);
    return {above, across, above.count == 1 && across.count == 1};
  }
  POOLWISE_INLINE const T* row_at(Int outer, Int plane, Int row, const Rows& rows) const { return row_at(outer, plane, row, rows.above.first, rows.across.first); }

  // The places of n windows of one row each, from number `column` on.
  template <class K>
  POOLWISE_INLINE void find_in_row(K* kept, const T* y, const T* row, const Rows& rows, Int column, Int n) const {
    const Int tap = (rows.above.first * rows_.taps + rows.across.first) * last_.taps;
    for (Int j = 0; j < n; ++j) {
      const Taps wide = taps_of(last_, column + j, 0);
      const Int found = in_row(row + last_.first(column + j) + wide.first, wide.count, y[j]);
      kept[j] = static_cast<K>(found < 0 ? -1 : tap + wide.first + found);
    }
  }

  POOLWISE_INLINE const T* row_at(Int outer, Int plane, Int row, Int a, Int b) const {
    return x_ + outer * strides_.outer + element_at(planes_, planes_.first(plane) + a * planes_.dilation) * strides_.plane +
           element_at(rows_, rows_.first(row) + b * rows_.dilation) * strides_.row;
  }

  // Where among n elements what was found stands; -1: nowhere.
  POOLWISE_INLINE Int in_row(const T* p, Int n, T found) const {
    L sought, mask = static_cast<L>(-1);
    std::memcpy(&sought, &found, sizeof(T));
    if constexpr (floats<T>) {
      const Y y = load<Y, 1>(&found)[0];
      if (y == 0 || y != y) {
        if (y != y) return last_nan(p, n);
        if (zero_wins_) return -1;
        mask = std::numeric_limits<L>::max();  // of either sign
      }
    } else if (sought == 0 && zero_wins_) {
      return -1;
    }
    const L* const lanes = reinterpret_cast<const L*>(p);
    if (n > N || p + N > end_) return first_like<N, L>(lanes, n, sought, mask);
    const std::uint64_t alike = lane_bits<L, N>(((load<L, N>(lanes) ^ sought) & mask) == 0) & (n < 64 ? (std::uint64_t(1) << n) - 1 : ~std::uint64_t(0));
    return alike == 0 ? -1 : __builtin_ctzll(alike);
  }
  static POOLWISE_OUTLINE Int last_nan(const T* p, Int n) {
    for (Int i = n - 1; i >= 0; --i) {
      const Y v = load<Y, 1>(p + i)[0];
      if (v != v) return i;
    }
    return -1;
  }

  // The offset of what was found in the rows of a window.
  POOLWISE_OUTLINE Int in_rows(Int outer, Int plane, Int row, const Rows& rows, Int column, T found) const {
    const Taps &above = rows.above, &across = rows.across, wide = taps_of(last_, column, 0);
    const Int begin = last_.first(column);
    const bool backwards = is_nan(found);
    Int a = 0, b = 0;
    for (Int r = 0; r < above.count * across.count; ++r) {
      const Int up = above.first + (backwards ? above.count - 1 - a : a), down = across.first + (backwards ? across.count - 1 - b : b);
      const Int place = in_row(row_at(outer, plane, row, up, down) + begin + wide.first, wide.count, found);
      if (place >= 0) return (up * rows_.taps + down) * last_.taps + wide.first + place;
      if (++b == across.count) b = 0, ++a;
    }
    return -1;
  }
  static POOLWISE_INLINE bool is_nan(T y) {
    if constexpr (floats<T>) {
      const Y v = load<Y, 1>(&y)[0];
      return v != v;
    }
    return false;
  }

  const Axis &planes_, &rows_, &last_;
  const RowStrides strides_;
  const Int columns_, rows_of_chunk_;  // of a unit, and units of a chunk of columns
  const Int at_once_;                  // units
  const bool zero_wins_;
  const Kept width_;
  const T* x_;
  const T* end_;  // of the array
  const T* y_;
  void* kept_;
  Forward largest_;
};

}  // namespace poolwise::POOLWISE_ISA
