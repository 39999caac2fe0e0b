// The fast backward engine for narrow `inner` (NCHW): the same phases read the other way. Phase r of an input row gathers from
// the columns j = m - q of gradient rows, for every tap whose index is q steps and r cells away from its window's start; a
// gradient row is held with nothing on both sides.
#pragma once

#include "phases.h"

namespace poolwise::POOLWISE_ISA {

template <class B>
struct OffsetOf {
  using type = std::uint8_t;  // of no use
};
template <class B>
  requires(B::keeps)
struct OffsetOf<B> {
  using type = typename B::Offset;
};

template <class B>
struct GradientRow {
  typename B::Accumulator* values;
  Lane<typename B::Accumulator>* kept;
  Int offset = 0;  // of the tap through which this row reads the input row, and the last axis' first tap
};

// One phase of the input row: its cells, and where its taps find their gradients.
struct InputPhase {
  Int first;  // index of its first cell
  Int cells;
  Int lead;   // column of the gradient row that stands at lane 0 of the phase for a tap of 0 steps
  Int tap_begin, tap_count;  // in PhaseTaps
};

// The taps of every phase, phase by phase.
struct PhaseTaps {
  Int tap[most_taps];
  Int lane[most_taps];  // into a held gradient row
};

// Puts the phases of an input row back together.
template <class A, class T>
POOLWISE_INLINE void weave_strided(const InputPhase& phase, const A* lanes, Int step, Int inner, Int from_cell, T* row) {
  for (Int m = from_cell; m < phase.cells; ++m)
    for (Int c = 0; c < inner; ++c) store<1, A>(row + (phase.first + m * step) * inner + c, load<A, 1>(lanes + m * inner + c));
}

template <int S, class A, class T>
POOLWISE_INLINE void weave_by(Int size, const InputPhase* phases, A* const* lanes, T* row) {
  A* in_order[S];  // by the index of the first cell, 0 … S - 1
  for (Int r = 0; r < S; ++r) in_order[phases[r].first] = lanes[r];
  weave_packs<S>(row, in_order, size / S, std::make_integer_sequence<int, S>{});
  for (Int r = 0; r < S; ++r) weave_strided(phases[r], lanes[r], S, 1, size / S, row);
}

template <class A, class T>
POOLWISE_OUTLINE void weave_row(const Axis& axis, Int inner, const InputPhase* phases, A* const* lanes, T* row) {
  if (axis.step == 1) return copy_lanes(row, lanes[0], axis.size * inner);
  if (inner == 1 && axis.step == 2) return weave_by<2>(axis.size, phases, lanes, row);
  if (inner == 1 && axis.step == 3) return weave_by<3>(axis.size, phases, lanes, row);
  for (Int r = 0; r < axis.step; ++r) weave_strided(phases[r], lanes[r], axis.step, inner, 0, row);
}

template <class B>
class RowsBackward {
  using A = typename B::Accumulator;
  using T = typename B::Element;
  using I = Lane<A>;

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (!block.there || buffers.mask != nullptr) return false;
    const Axis& last = block.axes[2];
    if (block.inner >= full<A> || last.size * block.inner < 4 || last.step > most_phases || last.taps > most_taps) return false;
    if (last.start < -far || last.start > far || last.dilation > far / most_taps) return false;
    if (most_readers(block.axes[0]) > most_rows || most_readers(block.axes[1]) > most_rows) return false;
    return slots(block) <= most_rows && extent(last) < (Int(1) << 20) && memory(plan) < most_memory;
  }

  RowsBackward(const Plan& plan, const Buffers& buffers)
      : block_(plan.block),
        g_(static_cast<const T*>(buffers.from)),
        kept_(static_cast<const typename OffsetOf<B>::type*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        deep_(most_readers(plan.block.axes[0])),
        across_(most_readers(plan.block.axes[1])),
        arena_(scratch(static_cast<std::size_t>(memory(plan)))),
        divisors_(plan, arena_.take<A>(plan.block.axes[2].output)) {
    lay_out_taps();
    spread_divisors();
    lay_out_slots();
    lay_out_phases();
  }

  void run(Int begin, Int end) {
    const Axis* axes = block_.axes;
    Run planes{};
    for (Int r = begin, plane = -1; r < end; ++r) {
      const Int above = r / axes[1].size;
      if (above != plane) planes = readers_of(axes[0], above % axes[0].size);
      plane = above;
      const Int sources = gather_rows(above / axes[0].size, planes, readers_of(axes[1], r - above * axes[1].size));
      for (Int p = 0; p < axes[2].step; ++p)
        if (phases_[p].tap_count > 0 && phases_[p].cells > 0) gather_phase(phases_[p], phase_lanes_[p], sources);
      weave_row(block_.axes[2], block_.inner, phases_, phase_lanes_, gx_ + r * axes[2].size * block_.inner);
    }
  }

 private:
  // A bound on how many windows along an axis read one position.
  static Int most_readers(const Axis& axis) {
    const Wide reach = Wide(axis.taps - 1) * axis.dilation / axis.step / axis.cell_step + 1;
    return static_cast<Int>(reach < axis.output ? reach : axis.output);
  }
  static Int slots(const Block& block) { return most_readers(block.axes[0]) * most_readers(block.axes[1]); }

  // Columns that a held gradient row may span.
  static Int extent(const Axis& axis) {
    const Int reach = (axis.taps - 1) * axis.dilation / axis.step;
    const Int away = larger(axis.start, -axis.start) / axis.step;
    return axis.output + axis.size / axis.step + reach + away + 8;
  }

  static Int memory(const Plan& plan) {
    const Axis& axis = plan.block.axes[2];
    const Int inner = plan.block.inner, held = 2 * Arena::room<A>(extent(axis) * inner + slack);
    return Arena::room<A>(axis.output) + Arena::room<A>(axis.output * inner) + (slots(plan.block) + 1) * held +
           axis.step * Arena::room<A>((axis.size / axis.step + 2) * inner + slack);
  }

  void lay_out_taps() {
    const Axis& axis = block_.axes[2];
    Int n = 0;
    after_ = axis.output;
    for (Int r = 0; r < axis.step; ++r) {
      const Int first = ((r + axis.start) % axis.step + axis.step) % axis.step;
      const Int cells = first < axis.size ? (axis.size - 1 - first) / axis.step + 1 : 0;
      phases_[r] = {first, cells, (first - axis.start - r) / axis.step, n, 0};
      n = add_taps(phases_[r], r, n);
    }
    for (Int t = 0; t < n; ++t) taps_.lane[t] = (taps_.lane[t] - before_) * block_.inner;
  }

  // The taps of phase r, last to first, which is the order of the windows that read through them.
  Int add_taps(InputPhase& phase, Int r, Int n) {
    const Axis& axis = block_.axes[2];
    for (Int t = axis.taps - 1; t >= 0; --t) {
      if (t * axis.dilation % axis.step != r) continue;
      const Int column = phase.lead - t * axis.dilation / axis.step;
      taps_.tap[n] = t;
      taps_.lane[n] = column;
      before_ = smaller(before_, column);
      after_ = larger(after_, column + phase.cells);
      ++n, ++phase.tap_count;
    }
    return n;
  }

  void spread_divisors() {
    if constexpr (!B::divides) return;
    const Int lanes = block_.axes[2].output * block_.inner;
    lane_divisors_ = arena_.take<A>(lanes);
    for (Int lane = 0; lane < lanes; ++lane) lane_divisors_[lane] = divisors_.columns[lane / block_.inner];
  }

  void lay_out_slots() {
    const Int room = (after_ - before_) * block_.inner + slack;
    for (Int s = 0; s <= deep_ * across_; ++s) {  // one more, for a sum of rows
      slots_[s] = {arena_.take<A>(room), arena_.take<I>(B::keeps ? room : 0)};
      fill<A>(slots_[s].values, room, 0);
      if constexpr (B::keeps) fill<I>(slots_[s].kept, room, -1);
      held_[s] = -1;
    }
  }

  void lay_out_phases() {
    for (Int r = 0; r < block_.axes[2].step; ++r) {
      const Int lanes = phases_[r].cells * block_.inner + slack;
      phase_lanes_[r] = arena_.take<A>(lanes);
      fill<A>(phase_lanes_[r], lanes, 0);
    }
  }

  // The gradient rows of the windows that read one input row; copies those that are not held yet.
  POOLWISE_INLINE Int gather_rows(Int outer, const Run& planes, const Run& rows) {
    if (planes.count * rows.count == 0) return 0;
    const Axis* axes = block_.axes;
    Ring ring0{planes.at / planes.at_step % deep_, deep_};
    const Ring first{rows.at / rows.at_step % across_, across_};
    Int n = 0;
    for (Int a = 0; a < planes.count; ++a, ring0.advance()) {
      const Int i0 = planes.at + a * planes.at_step;
      Ring ring1 = first;
      for (Int b = 0; b < rows.count; ++b, ring1.advance()) {
        const Int i1 = rows.at + b * rows.at_step, slot = ring0.at * across_ + ring1.at;
        hold(slot, i0, i1, (outer * axes[0].output + i0) * axes[1].output + i1);
        sources_[n] = slots_[slot];
        sources_[n++].offset = row_offset(planes.tap + a * planes.tap_step, rows.tap + b * rows.tap_step);
      }
    }
    return B::keeps || n <= 1 ? n : summed(n);
  }

  POOLWISE_INLINE Int row_offset(Int t0, Int t1) const {
    if constexpr (B::keeps) return (t0 * block_.axes[1].taps + t1) * block_.axes[2].taps;
    return 0;  // nobody asks, and more taps than 64 bits can number are allowed
  }

  // A window's share is the same through each of its taps, so for sums the rows are folded into one first.
  Int summed(Int n) {
    const GradientRow<B> sum = slots_[deep_ * across_];
    for_lanes<full<A>>((after_ - before_) * block_.inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
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

  POOLWISE_INLINE void hold(Int slot, Int i0, Int i1, Int line) {
    if (held_[slot] == line) return;
    held_[slot] = line;
    const Int lanes = block_.axes[2].output * block_.inner, at = -before_ * block_.inner;
    copy_lanes(slots_[slot].values + at, g_ + line * lanes, lanes);
    if constexpr (B::keeps) copy_lanes(slots_[slot].kept + at, kept_ + line * lanes, lanes);
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
    switch (phase.tap_count) {
      case 1: gather_taps<1>(phase, to, sources); break;
      case 2: gather_taps<2>(phase, to, sources); break;
      case 3: gather_taps<3>(phase, to, sources); break;
      default: gather_taps<0>(phase, to, sources);
    }
  }

  // Count is the phase's number of taps where the compiler knows it, else 0.
  template <int Count>
  POOLWISE_INLINE void gather_taps(const InputPhase& phase, A* to, Int sources) {
    const Int begin = phase.tap_begin, count = Count > 0 ? Count : phase.tap_count;
    for_lanes<full<A>>(phase.cells * block_.inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, N> sum[U];
      for (int u = 0; u < U; ++u) sum[u] = Pack<A, N>{};
      for (Int s = 0; s < sources; ++s)
        for (Int t = begin; t < begin + count; ++t)
          for (int u = 0; u < U; ++u) sum[u] = routed<N>(sum[u], sources_[s], taps_.tap[t], taps_.lane[t] + lane + u * N);
      for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, sum[u]);
    });
  }

  template <int N>
  POOLWISE_INLINE Pack<A, N> routed(Pack<A, N> sum, const GradientRow<B>& from, Int tap, Int lane) {
    const auto g = load<A, N>(from.values + lane);
    if constexpr (B::keeps)
      return B::template route<N>(sum, g, load<I, N>(from.kept + lane), from.offset + tap);
    else
      return sum + g;  // divided when it was held
  }

  const Block& block_;
  const T* g_;
  const typename OffsetOf<B>::type* kept_;
  T* gx_;
  Int deep_, across_;  // gradient rows held at a time, along each axis
  Arena arena_;
  Divisors<B> divisors_;
  Int before_ = 0, after_ = 0;  // columns that a held gradient row spans: from before the first to after the last
  A* lane_divisors_ = nullptr;
  InputPhase phases_[most_phases];
  PhaseTaps taps_;
  A* phase_lanes_[most_phases];
  GradientRow<B> slots_[most_rows + 1];
  Int held_[most_rows + 1];  // the gradient row in each slot
  GradientRow<B> sources_[most_rows];
};

}  // namespace poolwise::POOLWISE_ISA
