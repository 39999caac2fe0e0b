// The engine of whole windows: for bodies that need all of a window's elements at once, and windows of at most `most_window_taps`.
// Absent padding, no mask, dense arrays: the plan and the call are refused where that is not so.
//
// The rows of a window become lines of numbers, lanes being columns × inner, with absent() where the padding is; each tap is a line of
// lanes that begins a little further on. Packs all of whose lanes have every tap go one way, those at the ends of a row another.
#pragma once

#include "lines.h"
#include "whole_windows.h"

namespace poolwise::POOLWISE_ISA {

template <class B>
class WindowsForward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  static constexpr int N = full<A>;

 public:
  static Units units(const Plan& plan) { return {plan.block.output_rows()}; }

  WindowsForward(const Plan& plan, const Buffers& buffers)
      : block_(plan.block),
        body_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<T*>(buffers.to)),
        row_(block_.axes[2].size * block_.inner),
        end_(plan.input_size) {
    for (Int tap = 0; plan.weights != nullptr && tap <= plan.additions; ++tap) weights_[tap] = static_cast<A>(plan.weights[tap]);
    const Axis& last = block_.axes[2];
    const Int most_rows = block_.axes[0].taps * block_.axes[1].taps;
    reach_ = (last.taps - 1) * last.dilation;
    columns_ = window_line_bytes / most_rows / Int(sizeof(A)) / last.step / block_.inner - reach_ / last.step;
    columns_ = larger(1, smaller(columns_, last.output));
    const Int lanes = ((columns_ - 1) * last.step + reach_ + 1) * block_.inner;
    Arena arena(scratch(static_cast<std::size_t>((most_rows + 1) * Arena::room<A>(lanes + slack<A>) + Arena::room<T>(columns_ * block_.inner + slack<A>))));
    for (Int r = 0; r < most_rows; ++r) own_lines_[r] = arena.take<A>(lanes + slack<A>);
    there_ = arena.take<A>(lanes + slack<A>);
    bounced_ = arena.take<T>(columns_ * block_.inner + slack<A>);
  }

  // Chunk by chunk of columns, each over all rows.
  void run(Int begin, Int end) {
    for (Int first = 0; first < block_.axes[2].output; first += columns_) {
      enter_chunk(first);
      for (Int unit = begin; unit < end; ++unit) pool_row(unit);
    }
  }

 private:
  // Which cells of a chunk's lines are there, and which of its lanes have all taps.
  void enter_chunk(Int first) {
    const Axis& last = block_.axes[2];
    first_ = first, chunk_ = smaller(columns_, last.output - first);
    const Int cell = last.start + first * last.step, cells = (chunk_ - 1) * last.step + reach_ + 1;
    const Int begin = smaller(cells, larger(0, -cell)), end = larger(begin, smaller(cells, last.size - cell));
    begin_ = begin * block_.inner, end_lane_ = end * block_.inner, cells_ = cells * block_.inner;
    from_ = (cell + begin) * block_.inner;
    fill<A>(there_, begin_, 0), fill<A>(there_ + begin_, end_lane_ - begin_, 1), fill<A>(there_ + end_lane_, cells_ - end_lane_ + slack<A>, 0);
    whole_begin_ = (smaller(last.whole_begin, last.output) - first) * block_.inner;
    whole_end_ = (smaller(last.whole_end, last.output) - first) * block_.inner;
  }

  void pool_row(Int unit) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1], &last = block_.axes[2];
    const Int row = unit % rows.output, plane = unit / rows.output % planes.output, outer = unit / rows.output / planes.output;
    const Taps high = planes.present(plane), wide = rows.present(row);
    count_ = 0;
    Int k = 0;
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (Int w = wide.first; w < wide.first + wide.count; ++w) {
        const Int at = (outer * planes.size + planes.start + plane * planes.step + h * planes.dilation) * rows.size + rows.start + row * rows.step + w * rows.dilation;
        lay_line(count_++, x_ + at * row_);
        for (Int t = 0; t < last.taps; ++t) now_[k++] = weights_[(h * rows.taps + w) * last.taps + t];
      }
    T* const to = y_ + (unit * last.output + first_) * block_.inner;
    const Int lanes = chunk_ * block_.inner;
    if (count_ == 0) {
      for_rare_lanes<N>(lanes, [&]<int M, int>(Int lane) POOLWISE_LAMBDA { body_.template write<M>(to + lane, body_.template nothing<M>()); });
      return;
    }
    if (last.step == 1 || block_.inner == 1)
      by_step(last.step, 0, lanes, 0);
    else
      for (Int column = 0; column < chunk_; ++column) by_step(1, column * last.step * block_.inner, block_.inner, column * block_.inner);
    std::memcpy(static_cast<void*>(to), bounced_, static_cast<std::size_t>(lanes) * sizeof(T));
  }

  // A row as numbers: where it lies, if they are read as they are, none is absent, and enough of the array follows.
  void lay_line(Int r, const T* source) {
    const T* const from = source + from_;
    if constexpr (std::is_same_v<T, A> && std::is_floating_point_v<A>) {
      if (begin_ == 0 && end_lane_ == cells_ && from + cells_ + slack<A> <= x_ + end_) {
        lines_[r] = from;
        return;
      }
    }
    A* const line = own_lines_[r];
    lines_[r] = line;
    Int lane = begin_;
    for (; lane + N <= end_lane_; lane += N) store<N, A>(line + lane, body_.template read<N>(from + lane - begin_));
    if (lane < end_lane_) {
      T rest[N] = {};
      std::memcpy(static_cast<void*>(rest), from + lane - begin_, static_cast<std::size_t>(end_lane_ - lane) * sizeof(T));
      store<N, A>(line + lane, body_.template read<N>(rest));
    }
    fill<A>(line, begin_, body_.absent());
    fill<A>(line + end_lane_, cells_ - end_lane_, body_.absent());
  }

  void by_step(Int step, Int from, Int lanes, Int to) {
    switch (step) {
      case 1: return compute([](const A* p, Int) POOLWISE_LAMBDA { return load<A, N>(p); }, 1, from, lanes, to);
      case 2: return compute([](const A* p, Int) POOLWISE_LAMBDA { return picked<2, A, N>(p); }, 2, from, lanes, to);
      case 3: return compute([](const A* p, Int) POOLWISE_LAMBDA { return picked<3, A, N>(p); }, 3, from, lanes, to);
      default:
        return compute(
            [step](const A* p, Int left) POOLWISE_LAMBDA {
              Pack<A, N> v{};
              for (Int i = 0; i < smaller(left, N); ++i) v[i] = load<A, 1>(p + i * step)[0];
              return v;
            },
            step, from, lanes, to);
    }
  }

  // Whole packs; the lanes of the last that are beyond the row are computed from what stands there and thrown away.
  template <class Read>
  POOLWISE_INLINE void compute(Read&& read, Int step, Int from, Int lanes, Int to) {
    const Axis& last = block_.axes[2];
    const Int apart = last.dilation * block_.inner;
    const int taps = static_cast<int>(last.taps);
    for (Int lane = 0; lane < lanes; lane += N) {
      Pack<A, N> values[most_window_taps], there[most_window_taps];
      Pack<A, N>* next = values;
      const Int at = from + lane * step, left = smaller(N, lanes - lane);
      for (Int r = 0; r < count_; ++r)
        for (int t = 0; t < taps; ++t) *next++ = read(lines_[r] + at + t * apart, left);
      if (to + lane >= whole_begin_ && to + lane + left <= whole_end_) {
        result(bounced_ + to + lane, values);
      } else {
        for (int t = 0; t < taps; ++t) there[t] = read(there_ + at + t * apart, left);
        result_of_some(bounced_ + to + lane, values, there);
      }
    }
  }

  // Out of line: once for all the ways in which values are read.
  POOLWISE_OUTLINE void result(T* to, Pack<A, N>* values) const {
    body_.template write<N>(to, body_.template of<N>(values, static_cast<int>(count_ * block_.axes[2].taps), now_));
  }
  POOLWISE_OUTLINE void result_of_some(T* to, Pack<A, N>* values, const Pack<A, N>* there) const {
    const int taps = static_cast<int>(block_.axes[2].taps);
    body_.template write<N>(to, body_.template of_some<N>(values, static_cast<int>(count_) * taps, now_, there, taps));
  }

  const Block& block_;
  B body_;
  const T* x_;
  T* y_;
  Int row_, end_, reach_ = 0, columns_ = 0, count_ = 0;
  Int first_ = 0, chunk_ = 0, from_ = 0, begin_ = 0, end_lane_ = 0, cells_ = 0, whole_begin_ = 0, whole_end_ = 0;
  A weights_[most_window_taps] = {}, now_[most_window_taps] = {};
  A* own_lines_[most_window_taps];
  const A* lines_[most_window_taps];
  A* there_ = nullptr;
  T* bounced_ = nullptr;
};

}  // namespace poolwise::POOLWISE_ISA
