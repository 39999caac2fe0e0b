// The fast engine for narrow `inner` (NCHW): whole rows at a time, in two steps whose order keeps the first of equal elements
// first. Each input row is reduced along the last axis once, and remembered while windows of further rows still need it; then
// the rows of a window are reduced into the output row.
//
// A row is first split into phases: phase r holds the cells r, r + step, r + 2 step, …, with absent ones on both sides. Every
// tap then reads consecutive lanes of one phase, whatever the stride, the dilation and the padding.
#pragma once

#include "backward.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_phases = 64, most_taps = 128, most_rows = 128;
constexpr Int slack = 64;  // lanes beyond a row that a pack may touch

// Hands out pieces of one block of memory.
class Arena {
 public:
  Arena(void* memory) : next_(static_cast<char*>(memory)) {}
  template <class T>
  T* take(Int lanes) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += room<T>(lanes);
    return piece;
  }
  template <class T>
  static constexpr Int room(Int lanes) {
    return (lanes * Int(sizeof(T)) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

template <class T>
POOLWISE_INLINE void fill(T* p, Int n, T value) {
  for (Int i = 0; i < n; ++i) p[i] = value;
}

// ---- phases of a row ---------------------------------------------------------------------------------------------------

// Cells of one phase: `begin` … `end` - 1 of them are present, the first of those at index `index` of the row.
struct Phase {
  Int begin, end, index;
};

POOLWISE_INLINE Phase phase_of(Int first_index, Int step, Int cells, Int size) {
  const Int begin = smaller(cells, larger(0, ceil_div(-Wide(first_index), step)));
  const Int end = larger(begin, smaller(cells, floor_div(Wide(size) - 1 - first_index, step) + 1));
  return {begin, end, first_index + begin * step};
}

template <class A, class T>
POOLWISE_INLINE void copy_lanes(A* to, const T* from, Int n) {
  for_lanes<full<A>>(n, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, load<A, N>(from + lane + u * N));
  });
}

template <class A, class T>
void copy_strided(A* to, const T* from, Int cells, Int step, Int inner) {
  for (Int m = 0; m < cells; ++m)
    for (Int c = 0; c < inner; ++c) to[m * inner + c] = static_cast<A>(from[m * step * inner + c]);
}

// S phases at once: `from` is the element of phase 0, cell 0.
template <int S, class A, class T, int... P>
POOLWISE_INLINE void split_packs(A* const (&to)[S], const T* from, Int cells, std::integer_sequence<int, P...>) {
  for_lanes<full<A>>(cells, [&]<int N, int U>(Int cell) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) {
      const Int m = cell + u * N;
      Pack<A, N> packs[S];
      for (int s = 0; s < S; ++s) packs[s] = load<A, N>(from + m * S + s * N);
      (store<N, A>(to[P] + m, one_phase<A, N, S, P>(packs, packs[0])), ...);
    }
  });
}

template <int S, class A, class T, int... P>
POOLWISE_INLINE void weave_packs(T* to, A* const (&from)[S], Int cells, std::integer_sequence<int, P...>) {
  for_lanes<full<A>>(cells, [&]<int N, int U>(Int cell) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) {
      const Int m = cell + u * N;
      Pack<A, N> phases[S];
      for (int s = 0; s < S; ++s) phases[s] = load<A, N>(from[s] + m);
      (store<N, A>(to + m * S + P * N, woven<A, N, S, P>(phases, phases[0])), ...);
    }
  });
}

// ---- forward -----------------------------------------------------------------------------------------------------------

// The last axis of a plan: which taps any column reads, and where each finds its lanes.
template <class B>
struct Columns {
  using A = typename B::Accumulator;
  using T = typename B::Element;
  Int lanes, step, inner;
  Int first_tap = 0, taps = 0;
  Phase phases[most_phases];
  A* lanes_of[most_phases] = {};  // null: no tap reads this phase
  const A* tap_lanes[most_taps];
  bool all_phases = true;

  static Int phase_cells(const Axis& axis, Int taps) { return axis.output + (taps - 1) * axis.dilation / axis.step + 1; }

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
    for (Int r = 0; r < step; ++r) phases[r] = phase_of(origin + r, step, cells, axis.size);
    for (Int t = 0; t < taps; ++t) {
      const Int r = t * axis.dilation % step;
      if (lanes_of[r] == nullptr) {
        lanes_of[r] = arena.take<A>(cells * inner + slack);
        fill<A>(lanes_of[r], cells * inner + slack, B::absent);
      }
      tap_lanes[t] = lanes_of[r] + t * axis.dilation / step * inner;
    }
    for (Int r = 0; r < step; ++r) all_phases = all_phases && lanes_of[r] != nullptr;
  }

  template <int S>
  POOLWISE_INLINE void split_by(const T* row) {
    Int begin = phases[0].begin, end = phases[0].end;
    for (int r = 1; r < S; ++r) begin = larger(begin, phases[r].begin), end = smaller(end, phases[r].end);
    end = larger(begin, end);
    A* to[S];
    for (int r = 0; r < S; ++r) {
      const Phase& phase = phases[r];
      to[r] = lanes_of[r] + begin;
      const T* from = row + phase.index;
      const Int before = smaller(begin, phase.end);
      copy_strided(lanes_of[r] + phase.begin, from, before - phase.begin, S, 1);
      const Int after = larger(end, phase.begin);
      copy_strided(lanes_of[r] + after, from + (after - phase.begin) * S, phase.end - after, S, 1);
    }
    const T* from = row + phases[0].index + (begin - phases[0].begin) * S;
    if (end > begin) split_packs<S>(to, from, end - begin, std::make_integer_sequence<int, S>{});
  }

  POOLWISE_INLINE void split_contiguous(const T* row) {
    const auto [begin, end, index] = phases[0];
    copy_lanes(lanes_of[0] + begin * inner, row + index * inner, (end - begin) * inner);
  }

  void split(const T* row) {
    if (step == 1) return split_contiguous(row);
    if (inner == 1 && all_phases && step == 2) return split_by<2>(row);
    if (inner == 1 && all_phases && step == 3) return split_by<3>(row);
    for (Int r = 0; r < step; ++r) {
      const auto [begin, end, index] = phases[r];
      if (lanes_of[r] != nullptr) copy_strided(lanes_of[r] + begin * inner, row + index * inner, end - begin, step, inner);
    }
  }
};

// One input row reduced along the last axis.
template <class B>
struct ReducedRow {
  typename B::Accumulator* values;
  Lane<typename B::Accumulator>* offsets;
};

template <class B, int Count, int N, int U>
POOLWISE_INLINE void reduce_taps(const Columns<B>& columns, Int lane, const ReducedRow<B>& to) {
  using A = typename B::Accumulator;
  const Int taps = Count > 0 ? Count : columns.taps;
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

template <class B, int Count>
void reduce_row(const Columns<B>& columns, const ReducedRow<B>& to) {
  constexpr int N = full<typename B::Accumulator>;
  Int lane = 0;  // packs may run into the slack
  for (; lane + N < columns.lanes; lane += 2 * N) reduce_taps<B, Count, N, 2>(columns, lane, to);
  if (lane < columns.lanes) reduce_taps<B, Count, N, 1>(columns, lane, to);
}

template <class B>
struct SourceRow {
  ReducedRow<B> row;
  Int offset;  // of the row's first tap inside the window
};

template <class B, int N>
POOLWISE_INLINE void add_row(typename B::template State<N>& state, const SourceRow<B>& from, Int lane) {
  using A = typename B::Accumulator;
  const auto values = load<A, N>(from.row.values + lane);
  if constexpr (B::keeps)
    state.add(values, load<Lane<A>, N>(from.row.offsets + lane) + static_cast<Lane<A>>(from.offset));
  else
    state.add(values, 0);
}

template <class B, int N>
POOLWISE_INLINE void start_row(typename B::template State<N>& state, const SourceRow<B>& from, Int lane) {
  using A = typename B::Accumulator;
  state.value = load<A, N>(from.row.values + lane);
  if constexpr (B::keeps) state.offset = load<Lane<A>, N>(from.row.offsets + lane) + static_cast<Lane<A>>(from.offset);
}

template <class B>
class RowsForward {
  using A = typename B::Accumulator;
  using T = typename B::Element;

 public:
  static bool serves(const Plan& plan) {
    const Axis& last = plan.axes[2];
    const Int far = Int(1) << 40;
    if (plan.inner >= full<A> || last.output * plan.inner < 4 || last.step > most_phases) return false;
    if (last.start < -far || last.dilation > far || plan.axes[0].taps > most_rows || plan.axes[1].taps > most_rows) return false;
    const Taps read = Columns<B>::read_taps(last);
    if (read.count == 0 || read.count > most_taps || read.first > far) return false;
    const Int rows = plan.axes[0].taps * plan.axes[1].taps;
    return rows <= most_rows && memory(plan, read) < (Int(1) << 24);
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
    for (Int s = 0; s < plan.axes[0].taps * plan.axes[1].taps; ++s) {
      slots_[s] = {arena_.take<A>(columns_.lanes + slack), arena_.take<Lane<A>>(B::keeps ? columns_.lanes + slack : 0)};
      held_[s] = -1;
    }
    while (edge_low_ < plan.axes[2].output && !plain(edge_low_)) ++edge_low_;
    edge_high_ = plan.axes[2].output;
    while (edge_high_ > edge_low_ && !plain(edge_high_ - 1)) --edge_high_;
  }

  static Int memory(const Plan& plan, Taps read) {
    const Int lanes = plan.axes[2].output * plan.inner + slack;
    return Arena::room<A>(plan.axes[2].output) + Arena::room<A>(lanes) + Columns<B>::room(plan, read.count) +
           plan.axes[0].taps * plan.axes[1].taps * 2 * Arena::room<A>(lanes);
  }

  // A column whose first tap is the row's first, as it is away from the edges.
  bool plain(Int j) const {
    const Taps taps = plan_.axes[2].present(j);
    return taps.count > 0 && taps.first == columns_.first_tap;
  }

  void spread_divisors() {
    if constexpr (!B::divides) return;
    lane_divisors_ = arena_.take<A>(columns_.lanes + slack);
    for (Int lane = 0; lane < columns_.lanes; ++lane) lane_divisors_[lane] = divisors_.columns[lane / plan_.inner];
  }

  // The reduced rows that one output row needs, each with its offset; reduces those that are not held yet.
  POOLWISE_INLINE Int gather_rows(const OutputRow& row) {
    const Axis& planes = plan_.axes[0];
    const Axis& rows = plan_.axes[1];
    const Taps t0 = planes.present(row.i0), t1 = rows.present(row.i1);
    Int n = 0;
    for (Int a = t0.first; a < t0.first + t0.count; ++a)
      for (Int b = t1.first; b < t1.first + t1.count; ++b) {
        const Int plane = planes.start + row.i0 * planes.step + a * planes.dilation;
        const Int line = rows.start + row.i1 * rows.step + b * rows.dilation;
        const Int slot = plane / planes.dilation % planes.taps * rows.taps + line / rows.dilation % rows.taps;
        hold(slot, (row.outer * planes.size + plane) * rows.size + line);
        sources_[n++] = {slots_[slot], (a * rows.taps + b) * plan_.axes[2].taps};
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
    const Axis& axis = plan_.axes[2];
    auto* kept = static_cast<typename B::Offset*>(out_.kept);
    const auto mark = [&](Int begin, Int end) {
      for (Int j = begin; j < end; ++j)
        if (axis.present(j).count == 0)
          for (Int c = 0; c < plan_.inner; ++c)
            kept[(r * axis.output + j) * plan_.inner + c] = static_cast<typename B::Offset>(-1);
    };
    mark(0, edge_low_);
    mark(edge_high_, axis.output);
  }

  const Plan& plan_;
  const T* x_;
  Output<B> out_;
  Arena arena_;
  Divisors<B> divisors_;
  Columns<B> columns_;
  A* lane_divisors_ = nullptr;
  Int edge_low_ = 0, edge_high_ = 0;
  ReducedRow<B> slots_[most_rows];
  Int held_[most_rows];
  SourceRow<B> sources_[most_rows];
};

template <class B>
void forward_rows(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (!RowsForward<B>::serves(plan)) return forward_cells<B>(plan, buffers, begin, end);
  RowsForward<B> engine(plan, buffers);
  engine.run(begin, end);
}

// ---- backward ----------------------------------------------------------------------------------------------------------
//
// The same table read the other way. Phase r of an input row gathers from the columns j = m - q of gradient rows, for every tap
// whose index is q steps and r cells away from its window's start; a gradient row is held with nothing on both sides.

template <class B>
struct GradientRow {
  typename B::Accumulator* values;
  Lane<typename B::Accumulator>* kept;
  Int offset = 0;  // of the tap through which this row reads the input row, and the last axis' first tap
};

// One phase of the input row: its cells, and where its taps find their gradients.
struct InputPhase {
  Int first;   // index of its first cell
  Int cells;
  Int lead;    // column of the gradient row that stands at lane 0 of the phase for a tap of 0 steps
  Int tap_begin, tap_count;  // in PhaseTaps
};

// The taps of every phase, phase by phase.
struct PhaseTaps {
  Int tap[most_taps];
  Int lane[most_taps];  // into a held gradient row
};

template <class B>
class RowsBackward {
  using A = typename B::Accumulator;
  using T = typename B::Element;
  using I = Lane<A>;

 public:
  static bool serves(const Plan& plan) {
    const Axis& last = plan.axes[2];
    const Int far = Int(1) << 40;
    if (plan.inner >= full<A> || last.size * plan.inner < 4 || last.step > most_phases || last.taps > most_taps) return false;
    if (last.start < -far || last.start > far || last.dilation > far / most_taps) return false;
    if (most_readers(plan.axes[0]) > most_rows || most_readers(plan.axes[1]) > most_rows) return false;
    return slots(plan) <= most_rows && extent(last) < (Int(1) << 20) && memory(plan) < (Int(1) << 24);
  }

  RowsBackward(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        g_(static_cast<const T*>(buffers.from)),
        kept_(static_cast<const OffsetOf<B>*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        arena_(scratch(static_cast<std::size_t>(memory(plan)))),
        divisors_(plan, arena_.take<A>(plan.axes[2].output)) {
    lay_out_phases();
    if constexpr (B::divides) {
      lane_divisors_ = arena_.take<A>(plan.axes[2].output * plan.inner);
      for (Int lane = 0; lane < plan.axes[2].output * plan.inner; ++lane)
        lane_divisors_[lane] = divisors_.columns[lane / plan.inner];
    }
    const Int room = (after_ - before_) * plan.inner + slack;
    for (Int s = 0; s <= slots(plan); ++s) {  // one more, for a sum of rows
      slots_[s] = {arena_.take<A>(room), arena_.take<I>(B::keeps ? room : 0)};
      fill<A>(slots_[s].values, room, 0);
      if constexpr (B::keeps) fill<I>(slots_[s].kept, room, -1);
      held_[s] = -1;
    }
    for (Int r = 0; r < plan.axes[2].step; ++r) {
      const Int lanes = phases_[r].cells * plan.inner + slack;
      phase_lanes_[r] = arena_.take<A>(lanes);
      fill<A>(phase_lanes_[r], lanes, 0);
    }
  }

  void run(Int begin, Int end) {
    const Axis* axes = plan_.axes;
    for (Int r = begin; r < end; ++r) {
      const Int outer = r / axes[1].size / axes[0].size;
      const Int sources = gather_rows(outer, axes[0].readers(r / axes[1].size % axes[0].size), axes[1].readers(r % axes[1].size));
      for (Int phase = 0; phase < axes[2].step; ++phase)
        if (phases_[phase].tap_count > 0 && phases_[phase].cells > 0) gather_phase(phases_[phase], phase_lanes_[phase], sources);
      weave(gx_ + r * axes[2].size * plan_.inner);
    }
  }

 private:
  // A bound on how many windows along an axis read one position.
  static Int most_readers(const Axis& axis) {
    const Wide reach = Wide(axis.taps - 1) * axis.dilation / axis.step / axis.cell_step + 1;
    return static_cast<Int>(reach < axis.output ? reach : axis.output);
  }
  static Int slots(const Plan& plan) { return most_readers(plan.axes[0]) * most_readers(plan.axes[1]); }

  // Columns that a held gradient row may span.
  static Int extent(const Axis& axis) {
    const Int reach = (axis.taps - 1) * axis.dilation / axis.step;
    const Int away = larger(axis.start, -axis.start) / axis.step;
    return axis.output + axis.size / axis.step + reach + away + 8;
  }

  static Int memory(const Plan& plan) {
    const Axis& axis = plan.axes[2];
    const Int held = 2 * Arena::room<A>(extent(axis) * plan.inner + slack);
    return Arena::room<A>(axis.output) + Arena::room<A>(axis.output * plan.inner) + (slots(plan) + 1) * held +
           axis.step * Arena::room<A>((axis.size / axis.step + 2) * plan.inner + slack);
  }

  void lay_out_phases() {
    const Axis& axis = plan_.axes[2];
    Int n = 0;
    after_ = axis.output;
    for (Int r = 0; r < axis.step; ++r) {
      const Int first = ((r + axis.start) % axis.step + axis.step) % axis.step;
      InputPhase& phase = phases_[r];
      phase = {first, first < axis.size ? (axis.size - 1 - first) / axis.step + 1 : 0, (first - axis.start - r) / axis.step, n, 0};
      for (Int t = axis.taps - 1; t >= 0; --t) {  // windows in their order
        if (t * axis.dilation % axis.step != r) continue;
        const Int column = phase.lead - t * axis.dilation / axis.step;
        taps_.tap[n] = t;
        taps_.lane[n] = column;
        before_ = smaller(before_, column);
        after_ = larger(after_, column + phase.cells);
        ++n, ++phase.tap_count;
      }
    }
    for (Int t = 0; t < n; ++t) taps_.lane[t] = (taps_.lane[t] - before_) * plan_.inner;
  }

  Int gather_rows(Int outer, const Readers& planes, const Readers& rows) {
    const Axis* axes = plan_.axes;
    Int n = 0;
    for (Int a = 0; a < planes.count; ++a)
      for (Int b = 0; b < rows.count; ++b) {
        const Int i0 = planes.cell + a * planes.cell_step, i1 = rows.cell + b * rows.cell_step;
        const Int across = most_readers(axes[1]);
        const Int slot = i0 / planes.cell_step % most_readers(axes[0]) * across + i1 / rows.cell_step % across;
        hold(slot, i0, i1, (outer * axes[0].output + i0) * axes[1].output + i1);
        sources_[n] = slots_[slot];
        if constexpr (B::keeps)
          sources_[n].offset = ((planes.tap - a * planes.tap_step) * axes[1].taps + rows.tap - b * rows.tap_step) * axes[2].taps;
        ++n;
      }
    return B::keeps || n <= 1 ? n : summed(n);
  }

  // A window's share is the same through each of its taps, so for sums the rows are folded into one first.
  Int summed(Int n) {
    const GradientRow<B> sum = slots_[slots(plan_)];
    for_lanes<full<A>>((after_ - before_) * plan_.inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = lane + u * N;
        auto total = load<A, N>(sources_[0].values + here);
        for (Int s = 1; s < n; ++s) total += load<A, N>(sources_[s].values + here);
        store<N, A>(sum.values + here, total);
      }
    });
    sources_[0] = sum;
    return 1;
  }

  void hold(Int slot, Int i0, Int i1, Int line) {
    if (held_[slot] == line) return;
    held_[slot] = line;
    const Int lanes = plan_.axes[2].output * plan_.inner, at = -before_ * plan_.inner;
    copy_lanes(slots_[slot].values + at, g_ + line * lanes, lanes);
    if constexpr (B::keeps) copy_lanes<I>(slots_[slot].kept + at, kept_ + line * lanes, lanes);
    if constexpr (B::divides) {
      divisors_.at_row(i0, i1);
      divide(slots_[slot].values + at, lanes);
    }
  }

  POOLWISE_INLINE void divide(A* values, Int lanes) {
    const A row = static_cast<A>(divisors_.row);
    for (Int lane = 0; lane < lanes; ++lane) values[lane] /= lane_divisors_[lane] * row;
  }

  void gather_phase(const InputPhase& phase, A* to, Int sources) {
    for_lanes<full<A>>(phase.cells * plan_.inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, N> sum[U];
      for (int u = 0; u < U; ++u) sum[u] = Pack<A, N>{};
      for (Int s = 0; s < sources; ++s)
        for (Int t = phase.tap_begin; t < phase.tap_begin + phase.tap_count; ++t)
          for (int u = 0; u < U; ++u) sum[u] = routed<N>(sum[u], sources_[s], taps_.tap[t], taps_.lane[t] + lane + u * N);
      for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, sum[u]);
    });
  }

  template <int N>
  POOLWISE_INLINE Pack<A, N> routed(Pack<A, N> sum, const GradientRow<B>& from, Int tap, Int lane) {
    const auto g = load<A, N>(from.values + lane);
    if constexpr (B::keeps)
      return B::template route<N>(sum, g, load<I, N>(from.kept + lane), from.offset + tap, 1);
    else
      return sum + g;  // divided when it was held
  }

  void weave(T* row) {
    const Int step = plan_.axes[2].step;
    if (step == 1) return store_lanes(row, phase_lanes_[0], plan_.axes[2].size * plan_.inner);
    if constexpr (std::is_same_v<A, T>) {
      if (plan_.inner == 1 && step == 2) return weave_by<2>(row);
      if (plan_.inner == 1 && step == 3) return weave_by<3>(row);
    }
    for (Int r = 0; r < step; ++r) weave_strided(row, r, 0);
  }

  POOLWISE_INLINE void store_lanes(T* to, const A* from, Int n) {
    for_lanes<full<A>>(n, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, load<A, N>(from + lane + u * N));
    });
  }

  POOLWISE_INLINE void weave_strided(T* row, Int r, Int from_cell) {
    const Int inner = plan_.inner;
    for (Int m = from_cell; m < phases_[r].cells; ++m)
      for (Int c = 0; c < inner; ++c)
        row[(phases_[r].first + m * plan_.axes[2].step) * inner + c] = static_cast<T>(phase_lanes_[r][m * inner + c]);
  }

  template <int S>
  POOLWISE_INLINE void weave_by(T* row) {
    A* in_order[S];  // by the index of the first cell, 0 … S - 1
    for (Int r = 0; r < S; ++r) in_order[phases_[r].first] = phase_lanes_[r];
    const Int cells = plan_.axes[2].size / S;
    weave_packs<S>(row, in_order, cells, std::make_integer_sequence<int, S>{});
    for (Int r = 0; r < S; ++r) weave_strided(row, r, cells);
  }

  const Plan& plan_;
  const T* g_;
  const OffsetOf<B>* kept_;
  T* gx_;
  Arena arena_;
  Divisors<B> divisors_;
  Int before_ = 0, after_ = 0;  // columns that a held gradient row spans: from before the first to after the last
  A* lane_divisors_ = nullptr;
  InputPhase phases_[most_phases];
  PhaseTaps taps_;
  A* phase_lanes_[most_phases];
  GradientRow<B> slots_[most_rows + 1];
  Int held_[most_rows + 1];
  GradientRow<B> sources_[most_rows];
};

template <class B>
void backward_rows(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (!RowsBackward<B>::serves(plan)) return backward_cells<B>(plan, buffers, begin, end);
  RowsBackward<B> engine(plan, buffers);
  engine.run(begin, end);
}

}  // namespace poolwise::POOLWISE_ISA
