// From the gradient of the output to the gradient of the input, gathered: every input cell adds what the windows that read it
// send back, in the order of those windows, so each element is written once and the result does not depend on the threads.
//
// The kept offsets are only ever compared with the offset of a tap that exists, so a wrong one reaches nothing.
#pragma once

#include "forward.h"

namespace poolwise::POOLWISE_ISA {

template <class B>
struct NoOffsets {
  using type = std::uint8_t;
};
template <class B>
  requires(B::keeps)
struct NoOffsets<B> {
  using type = typename B::Offset;
};
template <class B>
using OffsetOf = typename NoOffsets<B>::type;

template <class B>
struct Gradients {
  const typename B::Element* g;
  const OffsetOf<B>* kept;
  Divisors<B> divisors;
};

// Adds U packs of what the readers of one input cell send back; `lane` counts within inner.
template <class B, int N, int U>
POOLWISE_INLINE void gather(const Plan& plan, Gradients<B>& from, Int outer, const Readers (&readers)[3], Int lane,
                            Pack<typename B::Accumulator, N> (&sum)[U]) {
  using A = typename B::Accumulator;
  const Axis* axes = plan.axes;
  for (int u = 0; u < U; ++u) sum[u] = Pack<A, N>{};
  for (Int a = 0; a < readers[0].count; ++a)
    for (Int b = 0; b < readers[1].count; ++b) {
      const Int i0 = readers[0].cell + a * readers[0].cell_step, i1 = readers[1].cell + b * readers[1].cell_step;
      from.divisors.at_row(i0, i1);
      const Int row = (outer * axes[0].output + i0) * axes[1].output + i1;
      for (Int c = 0; c < readers[2].count; ++c) {
        const Int j = readers[2].cell + c * readers[2].cell_step;
        const Int at = (row * axes[2].output + j) * plan.inner + lane;
        Int offset = 0;
        if constexpr (B::keeps) {
          const Int t0 = readers[0].tap - a * readers[0].tap_step, t1 = readers[1].tap - b * readers[1].tap_step;
          offset = (t0 * axes[1].taps + t1) * axes[2].taps + readers[2].tap - c * readers[2].tap_step;
        }
        const A divisor = from.divisors.at(j);
        for (int u = 0; u < U; ++u) {
          Pack<Lane<A>, N> kept{};
          if constexpr (B::keeps) kept = load<Lane<A>, N>(from.kept + at + u * N);
          sum[u] = B::template route<N>(sum[u], load<A, N>(from.g + at + u * N), kept, offset, divisor);
        }
      }
    }
}

template <class B>
void backward_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  Gradients<B> from{static_cast<const T*>(buffers.from), static_cast<const OffsetOf<B>*>(buffers.kept),
                    Divisors<B>(plan, memory_for_divisors<B>(plan))};
  T* gx = static_cast<T*>(buffers.to);
  const Axis* axes = plan.axes;
  for (Int r = begin; r < end; ++r) {
    const Int outer = r / axes[1].size / axes[0].size;
    Readers readers[3] = {axes[0].readers(r / axes[1].size % axes[0].size), axes[1].readers(r % axes[1].size), {}};
    for (Int position = 0; position < axes[2].size; ++position) {
      readers[2] = axes[2].readers(position);
      T* to = gx + (r * axes[2].size + position) * plan.inner;
      for_lanes<full<A>>(plan.inner, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
        Pack<A, N> sum[U];
        gather<B, N, U>(plan, from, outer, readers, lane, sum);
        for (int u = 0; u < U; ++u) store<N, A>(to + lane + u * N, sum[u]);
      });
    }
  }
}

}  // namespace poolwise::POOLWISE_ISA
