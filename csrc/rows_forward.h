// The fast forward engine for narrow `inner` (NCHW): whole rows at a time, in two steps whose order keeps the first of equal
// elements first. Each input row is reduced along the last axis once, and held while windows of further rows still need it;
// then the rows of a window are reduced into the output row.
#pragma once

#include "forward.h"
#include "phases.h"

namespace poolwise::POOLWISE_ISA {

// The last axis of a plan: which taps any column reads, and where each finds its lanes.
template <class B>
class Columns {
  using A = typename B::Accumulator;
  using T = typename B::Element;

 public:
  Int lanes, step, inner, first_tap, taps;
  const A* tap_lanes[most_taps];

  // The taps that are present in any column.
  static Taps read_taps(const Axis& axis) {
    Int first = axis.taps, stop = 0;
    for (Int j = 0; j < axis.output; ++j) {
      const Taps t = axis.present(j);
      if (t.count > 0) first = smaller(first, t.first), stop = larger(stop, t.first + t.count);
    }
    return {first, larger(0, stop - first)};
  }

  static Int room(const Plan& plan, Int taps) {
    return plan.axes[2].step * Arena::room<A>(phase_cells(plan.axes[2], taps) * plan.inner + slack);
  }

  Columns(const Plan& plan, Taps read, Arena& arena)
      : lanes(plan.axes[2].output * plan.inner),
        step(plan.axes[2].step),
        inner(plan.inner),
        first_tap(read.first),
        taps(read.count) {
    const Axis& axis = plan.axes[2];
    const Int cells = phase_cells(axis, taps);
    const Int origin = axis.start + first_tap * axis.dilation;
    for (Int r = 0; r < step; ++r) phases_[r] = phase_of(origin + r, step, cells, axis.size);
    for (Int t = 0; t < taps; ++t) {
      const Int r = t * axis.dilation % step;
      if (phase_lanes_[r] == nullptr) phase_lanes_[r] = absent_lanes(cells * inner + slack, arena);
      tap_lanes[t] = phase_lanes_[r] + t * axis.dilation / step * inner;
    }
    for (Int r = 0; r < step; ++r) all_read_ = all_read_ && phase_lanes_[r] != nullptr;
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

  static A* absent_lanes(Int n, Arena& arena) {
    A* piece = arena.take<A>(n);
    fill<A>(piece, n, B::absent);
    return piece;
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

// One input row reduced along the last axis.
template <class B>
struct ReducedRow {
  typename B::Accumulator* values;
  Lane<typename B::Accumulator>* offsets;
};

// Taps is their number where the compiler knows it, else 0.
template <class B, int Taps, int N, int U>
POOLWISE_INLINE void reduce_taps(const Columns<B>& columns, Int lane, const ReducedRow<B>& to) {
  using A = typename B::Accumulator;
  const Int taps = Taps > 0 ? Taps : columns.taps;
  typename B::template State<N> state[U];
  for (int u = 0; u < U; ++u) state[u].start(columns.first_tap);
  for (Int t = 0; t < taps; ++t)
    for (int u = 0; u < U; ++u)
      state[u].add(load<A, N>(columns.tap_lanes[t] + lane + u * N), columns.first_tap + t);
  for (int u = 0; u < U; ++u) {
    store<N, A>(to.values + lane + u * N, state[u].value);
    if constexpr (B::keeps) store<N, Lane<A>>(to.offsets + lane + u * N, state[u].offset);
  }
}

template <class B, int Taps>
void reduce_row(const Columns<B>& columns, const ReducedRow<B>& to) {
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
  if constexpr (B::keeps) state.offset = offsets_of<B, N>(from, lane);
}

template <class B>
class RowsForward {
  using A = typename B::Accumulator;
  using T = typename B::Element;

 public:
  static bool serves(const Plan& plan) {
    const Axis& last = plan.axes[2];
    if (plan.inner >= full<A> || last.output * plan.inner < 4 || last.step > most_phases) return false;
    if (last.start < -far || last.dilation > far || plan.axes[0].taps > most_rows || plan.axes[1].taps > most_rows) return false;
    const Taps read = Columns<B>::read_taps(last);
    if (read.count == 0 || read.count > most_taps || read.first > far) return false;
    return slots(plan) <= most_rows && memory(plan, read) < most_memory;
  }

  RowsForward(const Plan& plan, const Buffers& buffers)
      : RowsForward(plan, buffers, Columns<B>::read_taps(plan.axes[2])) {}

  void run(Int begin, Int end) {
    for (Int r = begin; r < end; ++r) {
      const OutputRow row = output_row(plan_, r);
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
      : plan_(plan),
        x_(static_cast<const T*>(buffers.from)),
        out_{static_cast<T*>(buffers.to), buffers.kept},
        arena_(scratch(static_cast<std::size_t>(memory(plan, read)))),
        divisors_(plan, arena_.take<A>(plan.axes[2].output)),
        columns_(plan, read, arena_) {
    spread_divisors();
    lay_out_slots();
    find_edges();
  }

  static Int slots(const Plan& plan) { return plan.axes[0].taps * plan.axes[1].taps; }

  static Int memory(const Plan& plan, Taps read) {
    const Int lanes = plan.axes[2].output * plan.inner + slack;
    return Arena::room<A>(plan.axes[2].output) + Arena::room<A>(lanes) + Columns<B>::room(plan, read.count) +
           slots(plan) * 2 * Arena::room<A>(lanes);
  }

  void spread_divisors() {
    if constexpr (!B::divides) return;
    lane_divisors_ = arena_.take<A>(columns_.lanes + slack);
    for (Int lane = 0; lane < columns_.lanes; ++lane) lane_divisors_[lane] = divisors_.columns[lane / plan_.inner];
  }

  void lay_out_slots() {
    const Int lanes = columns_.lanes + slack;
    for (Int s = 0; s < slots(plan_); ++s) {
      slots_[s] = {arena_.take<A>(lanes), arena_.take<Lane<A>>(B::keeps ? lanes : 0)};
      held_[s] = -1;
    }
  }

  void find_edges() {
    while (edge_low_ < plan_.axes[2].output && !plain(edge_low_)) ++edge_low_;
    edge_high_ = plan_.axes[2].output;
    while (edge_high_ > edge_low_ && !plain(edge_high_ - 1)) --edge_high_;
  }

  // A column whose first tap is the row's first, as it is away from the edges.
  bool plain(Int j) const {
    const Taps taps = plan_.axes[2].present(j);
    return taps.count > 0 && taps.first == columns_.first_tap;
  }

  // The reduced rows that one output row needs, each with its offset; reduces those that are not held yet.
  POOLWISE_INLINE Int gather_rows(const OutputRow& row) {
    const Axis &planes = plan_.axes[0], &rows = plan_.axes[1];
    const Taps t0 = planes.present(row.i0), t1 = rows.present(row.i1);
    if (t0.count * t1.count == 0) return 0;
    const Int plane = planes.index(row.i0, t0.first), line = rows.index(row.i1, t1.first);
    Ring ring0{plane / planes.dilation % planes.taps, planes.taps};
    const Ring first{line / rows.dilation % rows.taps, rows.taps};
    Int n = 0;
    for (Int a = 0; a < t0.count; ++a, ring0.advance()) {
      const Int above = (row.outer * planes.size + plane + a * planes.dilation) * rows.size + line;
      Ring ring1 = first;
      for (Int b = 0; b < t1.count; ++b, ring1.advance()) {
        const Int slot = ring0.at * rows.taps + ring1.at;
        hold(slot, above + b * rows.dilation);
        sources_[n++] = {slots_[slot], ((t0.first + a) * rows.taps + t1.first + b) * plan_.axes[2].taps};
      }
    }
    return n;
  }

  POOLWISE_INLINE void hold(Int slot, Int line) {
    if (held_[slot] == line) return;
    held_[slot] = line;
    columns_.split(x_ + line * plan_.axes[2].size * plan_.inner);
    switch (columns_.taps) {
      case 2: reduce_row<B, 2>(columns_, slots_[slot]); break;
      case 3: reduce_row<B, 3>(columns_, slots_[slot]); break;
      default: reduce_row<B, 0>(columns_, slots_[slot]);
    }
    if constexpr (B::keeps) {
      repair(slots_[slot], 0, edge_low_);
      repair(slots_[slot], edge_high_, plan_.axes[2].output);
    }
  }

  // Where nothing but the least value was present, the winner is the first present tap, not the first tap.
  void repair(const ReducedRow<B>& row, Int begin, Int end) {
    for (Int j = begin; j < end; ++j)
      for (Int lane = j * plan_.inner; lane < (j + 1) * plan_.inner; ++lane)
        if (row.values[lane] == B::absent) row.offsets[lane] = static_cast<Lane<A>>(plan_.axes[2].present(j).first);
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
    store<N, A>(out_.y + at, finished<N>(lane, state));
    if constexpr (B::keeps) store<N, Lane<T>>(static_cast<typename B::Offset*>(out_.kept) + at, state.offset);
  }

  template <int N>
  POOLWISE_INLINE Pack<A, N> finished(Int lane, const typename B::template State<N>& state) {
    if constexpr (B::divides) return state.value / (load<A, N>(lane_divisors_ + lane) * static_cast<A>(divisors_.row));
    return state.value;
  }

  void mark_empty_columns(Int r) {
    mark_empty_columns(r, 0, edge_low_);
    mark_empty_columns(r, edge_high_, plan_.axes[2].output);
  }

  void mark_empty_columns(Int r, Int begin, Int end) {
    using K = typename B::Offset;
    const Axis& axis = plan_.axes[2];
    for (Int j = begin; j < end; ++j)
      if (axis.present(j).count == 0)
        fill<K>(static_cast<K*>(out_.kept) + (r * axis.output + j) * plan_.inner, plan_.inner, static_cast<K>(-1));
  }

  const Plan& plan_;
  const T* x_;
  Output<B> out_;
  Arena arena_;
  Divisors<B> divisors_;
  Columns<B> columns_;
  A* lane_divisors_ = nullptr;
  Int edge_low_ = 0, edge_high_ = 0;  // columns before and from here on lack taps
  ReducedRow<B> slots_[most_rows];
  Int held_[most_rows];  // the input row in each slot
  SourceRow<B> sources_[most_rows];
};

template <class B>
void forward_rows(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (!RowsForward<B>::serves(plan)) return forward_cells<B>(plan, buffers, begin, end);
  RowsForward<B> engine(plan, buffers);
  engine.run(begin, end);
}

}  // namespace poolwise::POOLWISE_ISA
