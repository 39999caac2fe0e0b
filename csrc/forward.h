// From input to output.
//
// The general engine: for every output cell, N lanes of `inner` at a time, over the present taps. Right for any geometry.
#pragma once

#include "bodies.h"
#include "kernels.h"
#include "threads.h"

namespace poolwise::POOLWISE_ISA {

// Divisors of one plan: a factor per output column, and the rows' factor computed as they come. Only means look at them.
template <class B>
struct Divisors {
  const Plan& plan;
  typename B::Accumulator* columns = nullptr;
  double row = 1;

  // `memory` holds one element per output column.
  Divisors(const Plan& p, void* memory) : plan(p), columns(static_cast<typename B::Accumulator*>(memory)) {
    if constexpr (B::divides) {
      const Axis& axis = plan.axes[2];
      for (Int j = 0; j < axis.output; ++j) columns[j] = static_cast<typename B::Accumulator>(plan.divided_by(2, j));
    }
  }
  POOLWISE_INLINE void at_row(Int i0, Int i1) {
    if constexpr (B::divides) row = plan.divided_by(0, i0) * plan.divided_by(1, i1);
  }
  POOLWISE_INLINE typename B::Accumulator at(Int j) const {
    if constexpr (B::divides) return static_cast<typename B::Accumulator>(row) * columns[j];
    return 1;
  }
};

template <class B>
void* memory_for_divisors(const Plan& plan) {
  return B::divides ? scratch(static_cast<std::size_t>(plan.axes[2].output) * sizeof(typename B::Accumulator)) : nullptr;
}

struct OutputRow {
  Int outer, i0, i1;
};

POOLWISE_INLINE OutputRow output_row(const Plan& plan, Int row) {
  const Int rows = plan.axes[1].output, planes = plan.axes[0].output;
  return {row / rows / planes, row / rows % planes, row % rows};
}

// The present taps of one window: a regular lattice of elements, with the offset of each.
struct Window {
  const void* first;
  Int count[3];
  Int stride[3];  // in elements
  Int offset;     // of the first
  Int offset_stride[3];
};

template <class T>
POOLWISE_INLINE Window window_of(const Plan& plan, const T* x, const OutputRow& row, Int i2) {
  const Int cell[3] = {row.i0, row.i1, i2};
  Window w{nullptr, {}, {}, 0, {}};
  Int at = row.outer;
  for (int a = 0; a < 3; ++a) {
    const Axis& axis = plan.axes[a];
    const Taps taps = axis.present(cell[a]);
    w.count[a] = taps.count;
    at = at * axis.size + (taps.count > 0 ? axis.start + cell[a] * axis.step + taps.first * axis.dilation : 0);
    if (plan.kept != Kept::none) w.offset = w.offset * axis.taps + taps.first;
  }
  Int stride = plan.inner, offset_stride = 1;
  for (int a = 2; a >= 0; --a) {
    const bool moves = w.count[a] > 1;  // a dilation may be too large to multiply where no second tap is present
    w.stride[a] = moves ? plan.axes[a].dilation * stride : 0;
    w.offset_stride[a] = offset_stride;
    stride *= plan.axes[a].size;
    if (plan.kept != Kept::none) offset_stride *= plan.axes[a].taps;
  }
  if (w.count[0] * w.count[1] * w.count[2] == 0) w = {nullptr, {0, 0, 0}, {}, -1, {}};
  w.first = x + at * plan.inner;
  return w;
}

template <class B, int N, int U>
POOLWISE_INLINE void fold(const Window& w, Int lane, typename B::template State<N> (&state)[U]) {
  using T = typename B::Element;
  for (int u = 0; u < U; ++u) state[u].start(w.offset);
  for (Int a = 0; a < w.count[0]; ++a)
    for (Int b = 0; b < w.count[1]; ++b) {
      const T* p = static_cast<const T*>(w.first) + a * w.stride[0] + b * w.stride[1] + lane;
      Int offset = w.offset + a * w.offset_stride[0] + b * w.offset_stride[1];
      for (Int c = 0; c < w.count[2]; ++c, p += w.stride[2], ++offset)
        for (int u = 0; u < U; ++u) state[u].add(load<typename B::Accumulator, N>(p + u * N), offset);
    }
}

// Where a finished reduction goes.
template <class B>
struct Output {
  typename B::Element* y;
  void* kept;

  template <int N>
  POOLWISE_INLINE void put(Int at, const typename B::template State<N>& state, typename B::Accumulator divisor) const {
    store<N, typename B::Accumulator>(y + at, state.finish(divisor));
    if constexpr (B::keeps) store<N, Lane<typename B::Element>>(static_cast<typename B::Offset*>(kept) + at, state.offset);
  }
};

template <class B>
void forward_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  using A = typename B::Accumulator;
  const auto* x = static_cast<const typename B::Element*>(buffers.from);
  const Output<B> out{static_cast<typename B::Element*>(buffers.to), buffers.kept};
  Divisors<B> divisors(plan, memory_for_divisors<B>(plan));
  const Int columns = plan.axes[2].output, inner = plan.inner;
  for (Int r = begin; r < end; ++r) {
    const OutputRow row = output_row(plan, r);
    divisors.at_row(row.i0, row.i1);
    for (Int j = 0; j < columns; ++j) {
      const Window w = window_of(plan, x, row, j);
      const A divisor = divisors.at(j);
      const Int at = (r * columns + j) * inner;
      for_lanes<full<A>>(inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
        typename B::template State<N> state[U];
        fold<B, N, U>(w, lane, state);
        for (int u = 0; u < U; ++u) out.template put<N>(at + lane + u * N, state[u], divisor);
      });
    }
  }
}

// Flat indices over the pooled axes, from kept offsets that are not trusted: -1 for any that names no present tap.
template <class K>
void indices_rows(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  const K* kept = static_cast<const K*>(buffers.from);
  auto* out = static_cast<Int*>(buffers.to);
  const Axis* axes = plan.axes;
  const Int columns = axes[2].output, taps = plan.window_taps();
  for (Int r = begin; r < end; ++r) {
    const OutputRow row = output_row(plan, r);
    const Int cell[2] = {row.i0, row.i1};
    for (Int at = r * columns * plan.inner; at < (r + 1) * columns * plan.inner; ++at) {
      Int offset = kept[at];
      Int tap[3], index = 0;
      bool valid = offset >= 0 && offset < taps;
      for (int a = 2; a >= 0; --a) tap[a] = offset % axes[a].taps, offset /= axes[a].taps;
      for (int a = 0; a < 3 && valid; ++a) {
        const Int i = a < 2 ? cell[a] : at / plan.inner % columns;
        const Taps present = axes[a].present(i);
        valid = tap[a] >= present.first && tap[a] < present.first + present.count;
        if (valid) index = index * axes[a].size + axes[a].start + i * axes[a].step + tap[a] * axes[a].dilation;
      }
      out[at] = valid ? index : -1;
    }
  }
}

}  // namespace poolwise::POOLWISE_ISA
