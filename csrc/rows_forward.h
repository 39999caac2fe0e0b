// The fast forward engine for narrow `inner` (NCHW): whole rows at a time, in two steps whose order keeps the first of equal
// elements first. Each input row is reduced along the last axis once, and held while windows of further rows still need it;
// then the rows of a window are reduced into the output row.
#pragma once

#include "phases.h"

namespace poolwise::POOLWISE_ISA {

// The taps of an axis that are present in any of its cells.
POOLWISE_OUTLINE Taps read_taps(const Axis& axis) {
  Int first = axis.taps, stop = 0;
  for (Int j = 0; j < axis.output; ++j) {
    const Taps t = axis.present(j);
    if (t.count > 0) first = smaller(first, t.first), stop = larger(stop, t.first + t.count);
  }
  return {first, larger(0, stop - first)};
}

// The last axis of a block: which taps any column reads, and where each finds its lanes.
template <class A, class T>
class Columns {
 public:
  Int lanes, step, inner, first_tap, taps;
  const A* tap_lanes[most_taps];

  static Int room(const Block& block, Int taps) {
    const Axis& axis = block.axes[2];
    return axis.step * Arena::room<A>(phase_cells(axis, taps) * block.inner + slack);
  }

  Columns(const Block& block, Taps read, A absent, Arena& arena)
      : lanes(block.axes[2].output * block.inner),
        step(block.axes[2].step),
        inner(block.inner),
        first_tap(read.first),
        taps(read.count) {
    lay_out(block.axes[2], absent, arena);
  }

  void split(const T* row) {
    if (step == 1) return split_contiguous(row);
    if (inner == 1 && all_read_ && step == 2) return split_by<2>(row);
    if (inner == 1 && all_read_ && step == 3) return split_by<3>(row);
    for (Int r = 0; r < step; ++r) {
      const auto [begin, end, index] = phases_[r];
      if (phase_lanes_[r] != nullptr) copy_strided(phase_lanes_[r] + begin * inner, row + index * inner, end - begin, step, inner);
    }
  }

 private:
  static Int phase_cells(const Axis& axis, Int taps) { return axis.output + (taps - 1) * axis.dilation / axis.step + 1; }

  POOLWISE_OUTLINE void lay_out(const Axis& axis, A absent, Arena& arena) {
    const Int cells = phase_cells(axis, taps), origin = axis.start + first_tap * axis.dilation;
    for (Int r = 0; r < step; ++r) phases_[r] = phase_of(origin + r, step, cells, axis.size);
    for (Int t = 0; t < taps; ++t) {
      const Int r = t * axis.dilation % step;
      if (phase_lanes_[r] == nullptr) {
        phase_lanes_[r] = arena.take<A>(cells * inner + slack);
        fill<A>(phase_lanes_[r], cells * inner + slack, absent);
      }
      tap_lanes[t] = phase_lanes_[r] + t * axis.dilation / step * inner;
    }
    for (Int r = 0; r < step; ++r) all_read_ = all_read_ && phase_lanes_[r] != nullptr;
  }

  POOLWISE_INLINE void split_contiguous(const T* row) {
    const auto [begin, end, index] = phases_[0];
    copy_lanes(phase_lanes_[0] + begin * inner, row + index * inner, (end - begin) * inner);
  }

  // All S phases at once where all are present, each alone in the cells before and after.
  template <int S>
  POOLWISE_INLINE void split_by(const T* row) {
    Int begin = phases_[0].begin, end = phases_[0].end;
    for (int r = 1; r < S; ++r) begin = larger(begin, phases_[r].begin), end = smaller(end, phases_[r].end);
    end = larger(begin, end);
    A* to[S];
    for (int r = 0; r < S; ++r) {
      to[r] = phase_lanes_[r] + begin;
      split_ends<S>(row, phase_lanes_[r], phases_[r], begin, end);
    }
    const T* from = row + phases_[0].index + (begin - phases_[0].begin) * S;
    if (end > begin) split_packs<S>(to, from, end - begin, std::make_integer_sequence<int, S>{});
  }

  template <int S>
  POOLWISE_INLINE void split_ends(const T* row, A* to, const Phase& phase, Int begin, Int end) {
    const T* from = row + phase.index;
    const Int before = smaller(begin, phase.end), after = larger(end, phase.begin);
    copy_strided(to + phase.begin, from, before - phase.begin, S, 1);
    copy_strided(to + after, from + (after - phase.begin) * S, phase.end - after, S, 1);
  }

  Phase phases_[most_phases];
  A* phase_lanes_[most_phases] = {};  // null: no tap reads this phase
  bool all_read_ = true;
};

template <class B>
using ColumnsOf = Columns<typename B::Accumulator, typename B::Element>;

// One input row reduced along the last axis.
template <class B>
struct ReducedRow {
  typename B::Accumulator* values;
  Lane<typename B::Accumulator>* offsets;
};

// Taps is their number where the compiler knows it, else 0.
template <class B, int Taps, int N, int U>
POOLWISE_INLINE void reduce_taps(const ColumnsOf<B>& columns, Int lane, const ReducedRow<B>& to) {
  using A = typename B::Accumulator;
  const Int taps = Taps > 0 ? Taps : columns.taps;
  typename B::template State<N> state[U];
  for (int u = 0; u < U; ++u) state[u].start(columns.first_tap);
  for (Int t = 0; t < taps; ++t)
    for (int u = 0; u < U; ++u)
      state[u].add(load<A, N>(columns.tap_lanes[t] + lane + u * N), columns.first_tap + t);
  for (int u = 0; u < U; ++u) {
    store<N, A>(to.values + lane + u * N, state[u].value);
    if constexpr (B::keeps) store<N, Lane<A>>(to.offsets + lane + u * N, state[u].at);
  }
}

template <class B, int Taps>
void reduce_row(const ColumnsOf<B>& columns, const ReducedRow<B>& to) {
  constexpr int N = full<typename B::Accumulator>;
  Int lane = 0;  // packs may run into the slack
  for (; lane + N < columns.lanes; lane += 2 * N) reduce_taps<B, Taps, N, 2>(columns, lane, to);
  if (lane < columns.lanes) reduce_taps<B, Taps, N, 1>(columns, lane, to);
}

template <class B>
struct SourceRow {
  ReducedRow<B> row;
  Int offset;  // of the row's first tap inside the window
};

template <class B, int N>
POOLWISE_INLINE auto offsets_of(const SourceRow<B>& from, Int lane) {
  using I = Lane<typename B::Accumulator>;
  return load<I, N>(from.row.offsets + lane) + static_cast<I>(from.offset);
}

template <class B, int N>
POOLWISE_INLINE void add_row(typename B::template State<N>& state, const SourceRow<B>& from, Int lane) {
  const auto values = load<typename B::Accumulator, N>(from.row.values + lane);
  if constexpr (B::keeps)
    state.add(values, offsets_of<B, N>(from, lane));
  else
    state.add(values, 0);
}

template <class B, int N>
POOLWISE_INLINE void start_row(typename B::template State<N>& state, const SourceRow<B>& from, Int lane) {
  state.value = load<typename B::Accumulator, N>(from.row.values + lane);
  if constexpr (B::keeps) state.at = offsets_of<B, N>(from, lane);
}

struct OutputRow {
  Int outer, i0, i1;
};

POOLWISE_INLINE OutputRow output_row(const Block& block, Int row) {
  const Int rows = block.axes[1].output, planes = block.axes[0].output;
  return {row / rows / planes, row / rows % planes, row % rows};
}

template <class B>
class RowsForward {
  using A = typename B::Accumulator;
  using T = typename B::Element;

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (!block.there || buffers.mask != nullptr || !row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even) return false;
    const Axis& last = block.axes[2];
    if (block.inner >= full<A> || last.output * block.inner < 4 || last.step > most_phases) return false;
    if (last.start < -far || last.dilation > far || block.axes[0].taps > most_rows || block.axes[1].taps > most_rows) return false;
    const Taps read = read_taps(last);
    if (read.count == 0 || read.count > most_taps || read.first > far) return false;
    return slots(block) <= most_rows && memory(plan, read) < most_memory;
  }

  RowsForward(const Plan& plan, const Buffers& buffers)
      : RowsForward(plan, buffers, read_taps(plan.block.axes[2])) {}

  void run(Int begin, Int end) {
    for (Int r = begin; r < end; ++r) {
      const OutputRow row = output_row(block_, r);
      const Int sources = gather_rows(row);
      divisors_.at_row(row.i0, row.i1);
      switch (sources) {
        case 0: reduce_rows<0>(r, 0); break;
        case 1: reduce_rows<1>(r, 1); break;
        case 2: reduce_rows<2>(r, 2); break;
        case 3: reduce_rows<3>(r, 3); break;
        default: reduce_rows<-1>(r, sources);
      }
      if constexpr (B::keeps) mark_empty_columns(r);
    }
  }

 private:
  RowsForward(const Plan& plan, const Buffers& buffers, Taps read)
      : block_(plan.block),
        x_(static_cast<const T*>(buffers.from)),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        out_(output_of<B>(plan, buffers)),
        arena_(scratch(static_cast<std::size_t>(memory(plan, read)))),
        divisors_(plan, arena_.take<A>(plan.block.axes[2].output)),
        columns_(plan.block, read, B::absent, arena_) {
    spread_divisors();
    lay_out_slots();
    find_edges();
  }

  static Int slots(const Block& block) { return block.axes[0].taps * block.axes[1].taps; }

  static Int memory(const Plan& plan, Taps read) {
    const Int columns = plan.block.axes[2].output, lanes = columns * plan.block.inner + slack;
    return Arena::room<A>(columns) + Arena::room<A>(lanes) + ColumnsOf<B>::room(plan.block, read.count) +
           slots(plan.block) * 2 * Arena::room<A>(lanes);
  }

  void spread_divisors() {
    if constexpr (!B::divides) return;
    lane_divisors_ = arena_.take<A>(columns_.lanes + slack);
    for (Int lane = 0; lane < columns_.lanes; ++lane) lane_divisors_[lane] = divisors_.columns[lane / block_.inner];
  }

  void lay_out_slots() {
    const Int lanes = columns_.lanes + slack;
    for (Int s = 0; s < slots(block_); ++s) {
      slots_[s] = {arena_.take<A>(lanes), arena_.take<Lane<A>>(B::keeps ? lanes : 0)};
      held_[s] = INT64_MIN;
    }
  }

  void find_edges() {
    while (edge_low_ < block_.axes[2].output && !plain(edge_low_)) ++edge_low_;
    edge_high_ = block_.axes[2].output;
    while (edge_high_ > edge_low_ && !plain(edge_high_ - 1)) --edge_high_;
  }

  // A column whose first tap is the row's first, as it is away from the edges.
  bool plain(Int j) const {
    const Taps taps = taps_of(block_.axes[2], j, 0);
    return taps.count > 0 && taps.first == columns_.first_tap;
  }

  // The reduced rows that one output row needs, each with its offset; reduces those that are not held yet.
  POOLWISE_INLINE Int gather_rows(const OutputRow& row) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    const Taps t0 = taps_of(planes, row.i0, 0), t1 = taps_of(rows, row.i1, 0);
    if (t0.count * t1.count == 0) return 0;
    const Int plane = planes.start + row.i0 * planes.step + t0.first * planes.dilation;
    const Int line = rows.start + row.i1 * rows.step + t1.first * rows.dilation;
    Ring ring0{plane / planes.dilation % planes.taps, planes.taps};
    const Ring first{line / rows.dilation % rows.taps, rows.taps};
    Int n = 0;
    for (Int a = 0; a < t0.count; ++a, ring0.advance()) {
      const Int above = row.outer * strides_.outer + (plane + a * planes.dilation) * strides_.plane + line * strides_.row;
      Ring ring1 = first;
      for (Int b = 0; b < t1.count; ++b, ring1.advance()) {
        const Int slot = ring0.at * rows.taps + ring1.at;
        hold(slot, above + b * rows.dilation * strides_.row);
        sources_[n++] = {slots_[slot], ((t0.first + a) * rows.taps + t1.first + b) * block_.axes[2].taps};
      }
    }
    return n;
  }

  POOLWISE_INLINE void hold(Int slot, Int place) {
    if (held_[slot] == place) return;
    held_[slot] = place;
    columns_.split(x_ + place);
    switch (columns_.taps) {
      case 2: reduce_row<B, 2>(columns_, slots_[slot]); break;
      case 3: reduce_row<B, 3>(columns_, slots_[slot]); break;
      default: reduce_row<B, 0>(columns_, slots_[slot]);
    }
    if constexpr (B::keeps) {
      repair(slots_[slot], 0, edge_low_);
      repair(slots_[slot], edge_high_, block_.axes[2].output);
    }
  }

  // Where nothing but the least value was present, the winner is the first present tap, not the first tap.
  void repair(const ReducedRow<B>& row, Int begin, Int end) {
    if constexpr (!B::least_wins) return;
    for (Int j = begin; j < end; ++j)
      for (Int lane = j * block_.inner; lane < (j + 1) * block_.inner; ++lane)
        if (row.values[lane] == B::absent) row.offsets[lane] = static_cast<Lane<A>>(taps_of(block_.axes[2], j, 0).first);
  }

  // Count is the number of sources where the compiler knows it, else -1.
  template <int Count>
  void reduce_rows(Int r, Int sources) {
    const Int at = r * columns_.lanes, n = Count >= 0 ? Count : sources;
    for_lanes<full<A>>(columns_.lanes, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = lane + u * N;
        typename B::template State<N> state;
        if constexpr (Count == 0)
          state.start(-1);
        else
          start_row<B, N>(state, sources_[0], here);
        for (Int s = 1; s < n; ++s) add_row<B, N>(state, sources_[s], here);
        put<N>(at + here, here, state);
      }
    });
  }

  template <int N>
  POOLWISE_INLINE void put(Int at, Int lane, const typename B::template State<N>& state) {
    Pack<A, N> divisor{};
    if constexpr (B::divides) divisor = load<A, N>(lane_divisors_ + lane) * static_cast<A>(divisors_.row);
    out_.template put<N>(at, state, {divisor, false});
  }

  void mark_empty_columns(Int r) {
    mark_empty_columns(r, 0, edge_low_);
    mark_empty_columns(r, edge_high_, block_.axes[2].output);
  }

  void mark_empty_columns(Int r, Int begin, Int end) {
    using K = typename B::Offset;
    const Axis& axis = block_.axes[2];
    for (Int j = begin; j < end; ++j)
      if (taps_of(axis, j, 0).count == 0)
        fill<K>(static_cast<K*>(out_.kept) + (r * axis.output + j) * block_.inner, block_.inner, static_cast<K>(-1));
  }

  const Block& block_;
  const T* x_;
  RowStrides strides_;
  Output<B> out_;
  Arena arena_;
  Divisors<B> divisors_;
  ColumnsOf<B> columns_;
  A* lane_divisors_ = nullptr;
  Int edge_low_ = 0, edge_high_ = 0;  // columns before and from here on lack taps
  ReducedRow<B> slots_[most_rows];
  Int held_[most_rows];  // where the input row in each slot begins
  SourceRow<B> sources_[most_rows];
};

}  // namespace poolwise::POOLWISE_ISA
