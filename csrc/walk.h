// The walk of the general engine: over every cell of one array (the target), in the order of memory, and from each cell over
// what it meets in another array (the source). Forward the output walks over the taps that its cells read, backward the input
// over the cells that read its elements; any rank, order of axes, strides, padding mode and uneven windows.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// Out of line: they are met once per cell or per run, and inlined into every loop over lanes they would be most of the code.
POOLWISE_OUTLINE Taps taps_of(const Axis& axis, Int cell, Int plane) { return axis.present(cell, plane); }
POOLWISE_OUTLINE Int counting_of(const Axis& axis, Int cell, Int plane) { return axis.counting(cell, plane); }
POOLWISE_OUTLINE Run run_of(const Axis& axis, Int cell, Int tap, Int stop, Int plane) { return axis.run(cell, tap, stop, plane); }
POOLWISE_OUTLINE Run readers_of(const Axis& axis, Int position) { return axis.readers(position); }
POOLWISE_OUTLINE Int folded_of(const Axis& axis, Int index) { return axis.fold(index); }
POOLWISE_OUTLINE double divided_by(const Plan& plan, const Axis& axis, bool last, Int cell, Int plane) { return plan.divided_by(axis, last, cell, plane); }

// The element that stands at an index, of the padding or not.
POOLWISE_INLINE Int element_at(const Axis& axis, Int index) { return index >= 0 && index < axis.size ? index : folded_of(axis, index); }

POOLWISE_INLINE bool is_whole(const Axis& axis, Int cell) { return cell >= axis.whole_begin && cell < axis.whole_end; }

// The taps of one output cell along one axis, run by run.
struct TapsOfCell {
  const Axis* axis;
  Int cell, stop, plane;
  Run run;

  POOLWISE_INLINE void start(const Axis& along, Int at, Int of_plane) {
    axis = &along, cell = at, plane = of_plane;
    if (is_whole(along, at) && along.mode == Mode::absent) {
      stop = along.taps;
      run = {along.taps, along.start + at * along.step, along.dilation, 0, 1};
    } else {
      const Taps taps = taps_of(along, at, of_plane);
      stop = taps.first + taps.count;
      run = run_of(along, at, taps.first, stop, of_plane);
    }
  }
  POOLWISE_INLINE bool next() {
    const Int tap = run.tap + run.count;
    if (tap >= stop) return false;
    run = run_of(*axis, cell, tap, stop, plane);
    return true;
  }
};

// The output cells that read one element along one axis, run by run.
struct ReadersOfElement {
  const Axis* axis;
  Int element, next_place, stop, plane;
  Run run;

  POOLWISE_OUTLINE void start(const Axis& along, Int at, Int of_plane) {
    axis = &along, element = at, plane = of_plane;
    run = {};
    if (along.spans != nullptr) {
      next_place = first_cell([&](const Span& span) { return span.first + span.count > element; });
      stop = first_cell([&](const Span& span) { return span.first > element; });
      next();
    } else if (along.mode == Mode::absent) {
      next_place = stop = 0;
      run = along.readers(at);
    } else {
      const Int last = along.start + (along.output - 1) * along.step + (along.taps - 1) * along.dilation;
      next_place = along.image(at, larger(along.padded_begin(), along.start));
      stop = smaller(along.padded_end(), last + 1);
      next();
    }
  }
  POOLWISE_INLINE bool next() { return next_place < stop && find_next(); }

 private:
  POOLWISE_OUTLINE bool find_next() {
    while (next_place < stop) {
      if (axis->spans != nullptr) {
        run = {1, next_place, 1, element - axis->span(next_place, plane).first, 0};
        ++next_place;
      } else {
        run = readers_of(*axis, next_place);
        next_place = axis->image(element, next_place + 1);
      }
      if (run.count > 0) return true;
    }
    return false;
  }

  // The first cell whose span is `past` the element, which no cell before it is; spans do not go back.
  template <class Past>
  POOLWISE_INLINE Int first_cell(Past&& past) const {
    Int low = 0, high = axis->output;
    while (low < high) {
      const Int middle = (low + high) / 2;
      if (past(axis->span(middle, plane)))
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};

// One dim of the target: how far a step along it moves in the source and in the mask.
struct TargetDim {
  Int extent, source, mask, plane;
  int pooled;

  POOLWISE_INLINE bool continues(const TargetDim& outer) const {
    return pooled < 0 && outer.pooled < 0 && outer.source == source * extent && outer.mask == mask * extent &&
           outer.plane == plane * extent;
  }
};

// How far a step along a pooled axis moves in the source and in the mask.
struct SourceStride {
  Int source, mask;
};

template <class Along>
class Walk {
 public:
  // Adds a dim of the target, slowest first; neighbours that move evenly become one.
  POOLWISE_OUTLINE void add_dim(const TargetDim& dim) {
    if (dim.extent == 1 && dim.pooled < 0) return;
    if (ndim_ > 0 && dim.continues(dims_[ndim_ - 1])) {
      const Int outer = dims_[ndim_ - 1].extent;
      dims_[ndim_ - 1] = dim;
      dims_[ndim_ - 1].extent *= outer;
    } else {
      dims_[ndim_++] = dim;
    }
  }
  POOLWISE_OUTLINE void add_axis(const Axis& axis, SourceStride stride) {
    levels_[rank_].axis = &axis;
    levels_[rank_++].stride = stride;
    per_plane_ = per_plane_ || axis.span_planes > 1;
  }

  // To be called when all is added. The last dim becomes lanes where its elements lie side by side.
  POOLWISE_OUTLINE void finish(Int unit) {
    base_[0] = {0, 0, 0};
    if (ndim_ > 0 && dims_[ndim_ - 1].pooled < 0 && dims_[ndim_ - 1].source == unit && dims_[ndim_ - 1].mask <= 1 &&
        dims_[ndim_ - 1].mask >= 0 && !(per_plane_ && dims_[ndim_ - 1].plane > 0)) {
      lanes_ = dims_[ndim_ - 1].extent;
      lane_mask_ = dims_[--ndim_].mask;
    }
    blocks_ = (lanes_ + block_lanes - 1) / block_lanes;
  }

  POOLWISE_INLINE Int units() const {
    Int rows = blocks_;
    for (int d = 0; d < ndim_; ++d) rows *= dims_[d].extent;
    return rows;
  }

  POOLWISE_OUTLINE void seek(Int unit) {
    row_ = unit / blocks_, block_ = unit % blocks_;
    Int rest = row_;
    for (int d = ndim_ - 1; d >= 0; --d) {
      at_[d] = rest % dims_[d].extent;
      rest /= dims_[d].extent;
    }
    enter(0);
  }
  POOLWISE_INLINE void advance() {
    if (++block_ < blocks_) return;
    block_ = 0, ++row_;
    for (int d = ndim_ - 1; d >= 0; --d) {
      if (++at_[d] < dims_[d].extent) return enter(d);
      at_[d] = 0;
    }
  }

  // Lanes begin … end - 1 of the current unit, and the first of them in the target.
  POOLWISE_INLINE Int lane_begin() const { return block_ * block_lanes; }
  POOLWISE_INLINE Int lane_count() const { return smaller(block_lanes, lanes_ - block_ * block_lanes); }
  POOLWISE_INLINE Int target() const { return row_ * lanes_ + lane_begin(); }
  POOLWISE_INLINE Int unit_of(Int target) const { return target / lanes_ * blocks_ + target % lanes_ / block_lanes; }
  POOLWISE_INLINE Int mask() const { return base_[ndim_].mask + lane_begin() * lane_mask_; }
  POOLWISE_INLINE Int lane_mask() const { return lane_mask_; }
  POOLWISE_INLINE Int plane() const { return base_[ndim_].plane; }
  POOLWISE_INLINE Int place(int a) const { return levels_[a].place; }

  // Calls visit(source, mask, offset of the tap, cell met on the last axis) for all that the current cell meets, the last axis
  // fastest. The caller's lambda can ask met(a) for the cell met on each of the other axes.
  template <class Visit>
  POOLWISE_INLINE void meet(Visit&& visit) {
    const Level& last = levels_[rank_ - 1];
    if (!begin()) return;
    do {
      const Sums& outer = sums_[rank_ - 1];
      Along along = last.first;
      do {
        const Run& run = along.run;
        const bool moves = run.count > 1;  // a step may be too large to multiply where nothing is a step away
        const Int cell_step = moves ? run.at_step : 0, offset_step = moves ? run.tap_step * last.axis->offset_stride : 0;
        const Int source_step = cell_step * last.stride.source, mask_step = cell_step * last.stride.mask;
        Int source = outer.source + run.at * last.stride.source, mask = outer.mask + run.at * last.stride.mask;
        Int offset = outer.offset + run.tap * last.axis->offset_stride, cell = run.at;
        for (Int k = 0; k < run.count; ++k) {
          visit(source, mask, offset, cell);
          source += source_step, mask += mask_step, offset += offset_step, cell += cell_step;
        }
      } while (along.next());
    } while (step());
  }
  POOLWISE_INLINE Int met(int a) const { return levels_[a].now.run.at + levels_[a].k * levels_[a].now.run.at_step; }

 private:
  static constexpr Int block_lanes = 4096;

  struct Level {
    const Axis* axis;
    SourceStride stride;
    Int place;
    Along first, now;  // as the cell begins, and where the walk stands
    Int k;             // in the present run
  };
  struct Base {
    Int source, mask, plane;
  };
  struct Sums {
    Int source, mask, offset;
  };

  // Sets everything that follows from the places of dims d and faster.
  POOLWISE_OUTLINE void enter(int d) {
    const bool again = per_plane_ && dims_[d].plane > 0;
    for (int e = d; e < ndim_; ++e) {
      const TargetDim& dim = dims_[e];
      base_[e + 1] = {base_[e].source + at_[e] * dim.source, base_[e].mask + at_[e] * dim.mask,
                      base_[e].plane + at_[e] * dim.plane};
      if (dim.pooled >= 0) levels_[dim.pooled].place = at_[e];
    }
    for (int e = again ? 0 : d; e < ndim_; ++e)
      if (dims_[e].pooled >= 0) start(dims_[e].pooled);
  }
  POOLWISE_INLINE void start(int a) { levels_[a].first.start(*levels_[a].axis, levels_[a].place, per_plane_ ? plane() : 0); }

  POOLWISE_INLINE bool begin() {
    sums_[0] = {base_[ndim_].source, base_[ndim_].mask, 0};
    for (int a = 0; a + 1 < rank_; ++a) {
      if (levels_[a].first.run.count == 0) return false;
      restart(a);
    }
    return levels_[rank_ - 1].first.run.count > 0;
  }
  POOLWISE_INLINE void restart(int a) {
    levels_[a].now = levels_[a].first;
    levels_[a].k = 0;
    add_up(a);
  }
  POOLWISE_INLINE void add_up(int a) {
    const Level& level = levels_[a];
    const Int at = met(a), tap = level.now.run.tap + level.k * level.now.run.tap_step;
    sums_[a + 1] = {sums_[a].source + at * level.stride.source, sums_[a].mask + at * level.stride.mask,
                    sums_[a].offset + tap * level.axis->offset_stride};
  }
  // To the next element of the outer axes.
  POOLWISE_INLINE bool step() {
    if (rank_ == 1) return false;
    Level& level = levels_[rank_ - 2];
    if (++level.k == level.now.run.count) return step_over(rank_ - 2);
    add_up(rank_ - 2);
    return true;
  }
  POOLWISE_OUTLINE bool step_over(int from) {
    --levels_[from].k;
    for (int a = from; a >= 0; --a) {
      Level& level = levels_[a];
      if (++level.k == level.now.run.count) {
        if (!level.now.next()) continue;
        level.k = 0;
      }
      add_up(a);
      for (int b = a + 1; b + 1 < rank_; ++b) restart(b);
      return true;
    }
    return false;
  }

  int ndim_ = 0, rank_ = 0;
  bool per_plane_ = false;
  Int lanes_ = 1, lane_mask_ = 0, blocks_ = 1, row_ = 0, block_ = 0;
  TargetDim dims_[most_axes];
  Int at_[most_axes];
  Base base_[most_axes + 1];
  Level levels_[most_axes];
  Sums sums_[most_axes + 1];
};

}  // namespace poolwise::POOLWISE_ISA
