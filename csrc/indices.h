// Flat indices over the pooled axes from kept offsets, which are not trusted: -1 for any that names no present tap.
#pragma once

#include "cells.h"

namespace poolwise::POOLWISE_ISA {

template <class K>
void indices_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  const K* kept = static_cast<const K*>(buffers.from);
  Int* flat = static_cast<Int*>(buffers.to);
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, 1);
  walk.seek(begin);
  const auto index = [&](Int offset) -> Int {
    Int found = 0;
    for (int a = plan.rank - 1; a >= 0; --a) {
      const Axis& axis = plan.axes[a];
      const Int tap = offset % axis.taps, cell = walk.place(a);
      offset /= axis.taps;
      const Taps present = axis.present(cell, walk.plane());
      if (tap < present.first || tap >= present.first + present.count) return -1;
      found += axis.element(cell, tap, walk.plane()) * axis.flat_stride;
    }
    return offset == 0 ? found : -1;
  };
  for (Int unit = begin; unit < end; ++unit, walk.advance())
    for (Int at = walk.target(); at < walk.target() + walk.lane_count(); ++at) {
      const Int offset = static_cast<Int>(kept[at]);
      flat[at] = offset < 0 ? -1 : index(offset);
    }
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
    for (Int offset = 0; offset < 256; ++offset) {
      Int rest = offset;
      ahead_[offset] = 0;
      for (int a = 2; a >= 0; --a) {
        const Axis& axis = block_.axes[a];
        taps_[offset][a] = rest % axis.taps, rest /= axis.taps;
        ahead_[offset] += taps_[offset][a] * axis.dilation * axis.flat_stride;
      }
      if (rest > 0) ahead_[offset] = nowhere;
    }
  }

  void run(Int begin, Int end) const {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1], &last = block_.axes[2];
    const Int n = last.output * block_.inner, step = last.step * last.flat_stride;
    for (Int row = begin; row < end; ++row) {
      const Int i = row % rows.output, a = row / rows.output % planes.output;
      const bool whole = is_whole(planes, a) && is_whole(rows, i);
      const Int whole_begin = whole ? last.whole_begin : last.output, whole_end = whole ? last.whole_end : last.output;
      const Int first = (planes.start + a * planes.step) * planes.flat_stride + (rows.start + i * rows.step) * rows.flat_stride + last.start * last.flat_stride;
      for (Int j = 0; j < whole_begin; ++j) look_closely(row * n, a, i, j, first + j * step);
      for (Int j = whole_begin, at = row * n + whole_begin * block_.inner; j < whole_end; ++j)
        for (Int c = 0; c < block_.inner; ++c, ++at) flat_[at] = from(first + j * step, ahead_[kept_[at]]);
      for (Int j = whole_end; j < last.output; ++j) look_closely(row * n, a, i, j, first + j * step);
    }
  }

 private:
  static constexpr Int nowhere = INT64_MIN;

  static POOLWISE_INLINE Int from(Int first, Int ahead) { return ahead == nowhere ? -1 : first + ahead; }

  // One cell of a row, some of whose taps are not there.
  void look_closely(Int row, Int a, Int i, Int j, Int first) const {
    const Taps present[] = {taps_of(block_.axes[0], a, 0), taps_of(block_.axes[1], i, 0), taps_of(block_.axes[2], j, 0)};
    for (Int at = row + j * block_.inner; at < row + (j + 1) * block_.inner; ++at) {
      bool there = true;
      for (int d = 0; d < 3; ++d) {
        const Int tap = taps_[kept_[at]][d] - present[d].first;
        there = there && tap >= 0 && tap < present[d].count;
      }
      flat_[at] = there ? from(first, ahead_[kept_[at]]) : -1;
    }
  }

  const Block& block_;
  const std::uint8_t* kept_;
  Int* flat_;
  Int ahead_[256], taps_[256][3];
};

}  // namespace poolwise::POOLWISE_ISA
