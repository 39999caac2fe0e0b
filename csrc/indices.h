// Flat indices over the pooled axes from kept offsets, which are not trusted: -1 for any that names no present tap.
#pragma once

#include "cells.h"

namespace poolwise::POOLWISE_ISA {

POOLWISE_OUTLINE Int flat_index(const Plan& plan, const Walk<TapsOfCell>& walk, Int offset) {
  Int flat = 0;
  for (int a = plan.rank - 1; a >= 0; --a) {
    const Axis& axis = plan.axes[a];
    const Int tap = offset % axis.taps;
    offset /= axis.taps;
    const Taps present = axis.present(walk.place(a), walk.plane());
    if (tap < present.first || tap >= present.first + present.count) return -1;
    flat += axis.element(walk.place(a), tap, walk.plane()) * axis.flat_stride;
  }
  return offset == 0 ? flat : -1;
}

template <class K>
void indices_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  const K* kept = static_cast<const K*>(buffers.from);
  Int* flat = static_cast<Int*>(buffers.to);
  for_outputs(plan, buffers, begin, end, [&](const Walk<TapsOfCell>& walk) POOLWISE_LAMBDA {
    for (Int at = walk.target(); at < walk.target() + walk.lane_count(); ++at) {
      const Int offset = static_cast<Int>(kept[at]);
      flat[at] = offset < 0 ? -1 : flat_index(plan, walk, offset);
    }
  });
}

// Rows of a block at a time, where every window's first tap and what an offset adds to it tell the index. Bytes are looked up.
class IndexRows {
 public:
  static bool serves(const Plan& plan) {
    const Block& block = plan.block;
    return plan.kept == Kept::bytes && block.unfolded() && block.axes[0].spans == nullptr && block.axes[1].spans == nullptr && block.axes[2].spans == nullptr;
  }
  static Units units(const Plan& plan) { return {plan.block.output_rows()}; }

  IndexRows(const Plan& plan, const Buffers& buffers)
      : block_(plan.block), kept_(static_cast<const std::uint8_t*>(buffers.from)), flat_(static_cast<Int*>(buffers.to)) {
    offsets_ = block_.axes[0].taps * block_.axes[1].taps * block_.axes[2].taps;
    for (Int offset = 0; offset < offsets_; ++offset) {
      Int rest = offset;
      ahead_[offset] = 0;
      for (int a = 2; a >= 0; --a) {
        const Axis& axis = block_.axes[a];
        taps_[offset][a] = rest % axis.taps, rest /= axis.taps;
        ahead_[offset] += apart(taps_[offset][a], axis.dilation, axis);
      }
    }
  }

  void run(Int begin, Int end) const {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1], &last = block_.axes[2];
    const Int n = last.output * block_.inner;
    for (Int row = begin; row < end; ++row) {
      const Int i = row % rows.output, a = row / rows.output % planes.output;
      const bool whole = is_whole(planes, a) && is_whole(rows, i);
      const Int whole_begin = whole ? last.whole_begin : last.output, whole_end = whole ? last.whole_end : last.output;
      const Place first = first_of(planes, a) + first_of(rows, i);
      for (Int j = 0; j < whole_begin; ++j) look_closely(row * n, a, i, j, first);
      for (Int j = whole_begin, at = row * n + whole_begin * block_.inner; j < whole_end; ++j) {
        const Place here = first + first_of(last, j);
        for (Int c = 0; c < block_.inner; ++c, ++at) flat_[at] = kept_[at] < offsets_ ? static_cast<Int>(here + ahead_[kept_[at]]) : -1;
      }
      for (Int j = whole_end; j < last.output; ++j) look_closely(row * n, a, i, j, first);
    }
  }

 private:
  using Place = std::uint64_t;  // of taps that are not there it may wrap

  static POOLWISE_INLINE Place apart(Int count, Int distance, const Axis& axis) {
    return static_cast<Place>(count) * static_cast<Place>(distance) * static_cast<Place>(axis.flat_stride);
  }
  static POOLWISE_INLINE Place first_of(const Axis& axis, Int cell) { return apart(1, axis.start, axis) + apart(cell, axis.step, axis); }

  // One cell of a row, some of whose taps are not there.
  void look_closely(Int row, Int a, Int i, Int j, Place first) const {
    const Taps present[] = {taps_of(block_.axes[0], a, 0), taps_of(block_.axes[1], i, 0), taps_of(block_.axes[2], j, 0)};
    const Place here = first + first_of(block_.axes[2], j);
    for (Int at = row + j * block_.inner; at < row + (j + 1) * block_.inner; ++at) {
      bool there = kept_[at] < offsets_;
      for (int d = 0; there && d < 3; ++d) {
        const Int tap = taps_[kept_[at]][d] - present[d].first;
        there = tap >= 0 && tap < present[d].count;
      }
      flat_[at] = there ? static_cast<Int>(here + ahead_[kept_[at]]) : -1;
    }
  }

  const Block& block_;
  const std::uint8_t* kept_;
  Int* flat_;
  Int offsets_, taps_[255][3];  // where 255 names none
  Place ahead_[255];            // of the first tap
};

}  // namespace poolwise::POOLWISE_ISA
