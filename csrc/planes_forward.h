// Forward where many rows fit one pack, as bytes do, or lanes that the run tells are not picked forward: the engine of lines, but over several planes at once. Their rows are held with
// nothing around them, those that stand alike to the stride one behind the other, so that the windows of all of them are one long
// line: reduced down, then across. Only values are: no places, nothing to divide by.
#pragma once

#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int held_row_sixteenths = 13;  // of a pack: so long may a row with what surrounds it be for each tap but one; measured: factor 59
constexpr Int held_lanes = 1 << 11;      // of all planes that are held at once, more where one plane has more
constexpr Int held_plane_lanes = 1 << 12;

// One axis of a held plane.
struct Spaced {
  Int before = 0, apart = 0;  // where its elements begin, and where those of the next plane or row do

  explicit Spaced(const Axis& axis) : before(larger(0, -axis.start)) {
    const Int stop = axis.start + (axis.output - 1) * axis.step + (axis.taps - 1) * axis.dilation + 1;
    const Int held = axis.size + larger(before, stop - axis.size);
    apart = larger(ceil_div(held, axis.step), axis.output) * axis.step;
  }
};

template <class R>
class PlanesForward {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  static constexpr int N = full<A>;
  template <int M>
  using State = typename R::template State<M>;

 public:
  // Types whose rows are short often enough, where the engine of rows does not serve them.
  static constexpr bool wanted = R::idempotent && !R::places && (sizeof(T) == 1 || (std::is_floating_point_v<Number<T>> && !picks_forward<A>));

  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (!block.unfolded() || buffers.mask != nullptr || block.inner != 1) return false;
    const Axis &planes = block.axes[0], &rows = block.axes[1], &last = block.axes[2];
    if (planes.size != 1 || planes.output != 1 || planes.taps != 1 || planes.start != 0 || planes.spans != nullptr) return false;
    for (const Axis* axis : {&rows, &last})
      if (axis->spans != nullptr || axis->taps > balanced_taps || axis->size > held_plane_lanes || axis->output > held_plane_lanes ||
          axis->step > held_plane_lanes || axis->dilation > held_plane_lanes || larger(axis->start, -axis->start) > held_plane_lanes)
        return false;
    if (last.step > 2 || rows.step > 4 || last.size == 1) return false;
    const Int row = Spaced(last).apart;
    return last.taps > last.step && 16 * row <= held_row_sixteenths * N * (last.taps - 1) && row * Spaced(rows).apart <= held_plane_lanes && row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even;
  }
  static Units units(const Plan& plan) { return {plan.block.outer}; }

  PlanesForward(const Plan& plan, const Buffers& buffers)
      : rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        reduction_(plan),
        down_(rows_),
        across_(last_),
        slots_(down_.apart / rows_.step),
        count_(larger(1, held_lanes / (down_.apart * across_.apart))),
        row_out_(across_.apart / last_.step),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        stop_(last_row(plan.block, strides_) + last_.size) {
    const Int reach = (last_.start + across_.before) + (last_.taps - 1) * last_.dilation;
    const Int taken = rows_.start + down_.before + (rows_.taps - 1) * rows_.dilation;
    const Int line = count_ * slots_ * across_.apart + reach, phase = line + (taken / rows_.step) * across_.apart + 2 * N;
    const Int outputs = count_ * slots_ * row_out_ + slack<A>;
    Arena arena(scratch(static_cast<std::size_t>(Line<R>::room(rows_.step * phase) + Line<R>::room(line) + Arena::room<T>(last_.size + slack<A>) +
                                                 Arena::room<Out>(outputs) + Stream<Out>::room(outputs))));
    held_ = Line<R>(arena, rows_.step * phase);
    line_ = Line<R>(arena, line);
    spare_row_ = arena.take<T>(last_.size + slack<A>);
    out_ = arena.take<Out>(outputs);
    stream_ = Stream<Out>(arena, outputs);
    streams_ = plan.output_size * Int(sizeof(Out)) >= bytes_worth_streaming;
    phase_ = phase;
    for (Int b = 0; b < rows_.taps; ++b) {
      const Int row = rows_.start + down_.before + b * rows_.dilation;
      taps_[b] = row % rows_.step * phase + row / rows_.step * across_.apart + last_.start + across_.before;
    }
    for (Int lane = 0; lane < rows_.step * phase; lane += N) held_.template store<N>(lane, reduction_.template nothing<N>());
  }

  void run(Int begin, Int end) {
    const Int n = rows_.output * last_.output;
    end_ = end * n;
    if (streams_) stream_.start(y_ + begin * n);
    for (Int plane = begin; plane < end; plane += count_) {
      const Int count = smaller(count_, end - plane);
      for (Int q = 0; q < count; ++q) hold(plane + q, q);
      reduce_down(count * slots_ * across_.apart + (last_.taps - 1) * last_.dilation);
      const Int lanes = ((count - 1) * slots_ + rows_.output) * row_out_;
      switch (last_.step) {
        case 1: reduce_across<1>(lanes); break;
        default: reduce_across<2>(lanes);
      }
      if (streams_) {
        copy_out(stream_.next(), out_, count, count * rows_.output);
        stream_.wrote(count * n);
      } else {
        copy_out(y_ + plane * n, out_, count, safe_rows(plane, count));
      }
    }
    if (streams_) stream_.finish();
  }

 private:
  // ---- what is held ----

  // Calls at(r, lane) for each row of plane q.
  template <class At>
  POOLWISE_INLINE void for_rows(Int q, At&& at) const {
    Int phase = down_.before % rows_.step, slot = q * slots_ + down_.before / rows_.step;
    for (Int r = 0; r < rows_.size; ++r) {
      at(r, phase * phase_ + slot * across_.apart + across_.before);
      if (++phase == rows_.step) phase = 0, ++slot;
    }
  }

  POOLWISE_OUTLINE void hold(Int plane, Int q) {
    const Int n = last_.size, at = plane * strides_.outer;
    const auto inside = counted<Lane<A>, N>() < static_cast<Lane<A>>(n % N);
    const auto nothing = reduction_.template nothing<N>().value;
    for_rows(q, [&](Int r, Int to) POOLWISE_LAMBDA {
      const Int row = at + r * strides_.row;
      const T* from = x_ + row;
      if (row + n + N > stop_) {
        std::memcpy(static_cast<void*>(spare_row_), from, static_cast<std::size_t>(n) * sizeof(T));
        from = spare_row_;
      }
      __builtin_prefetch(reinterpret_cast<const char*>(from) + prefetch_distance);
      Int lane = 0;
      for (; lane + N <= n; lane += N) store<N, A>(held_.values + to + lane, element(from + lane));
      if (lane < n) store<N, A>(held_.values + to + lane, inside ? element(from + lane) : nothing);
    });
  }
  POOLWISE_INLINE Pack<A, N> element(const T* p) const {
    return reduction_.template taken<N>(reduction_.template read<N>(p), 0).value;
  }

  // ---- windows ----

  void reduce_down(Int lanes) {
    switch (rows_.taps) {
      case 2: return down<2>(lanes);
      case 3: return down<3>(lanes);
      default: return down<0>(lanes);
    }
  }
  template <int Count>
  POOLWISE_OUTLINE void down(Int lanes) {
    for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u)
        line_.template store<M>(lane + u * M, balanced<R, M, Count>(reduction_, rows_.taps, [&](Int b) POOLWISE_LAMBDA {
                                  return held_.template load<M>(lane + u * M + taps_[b]);
                                }));
    });
  }

  template <int S>
  void reduce_across(Int lanes) {
    switch (last_.taps) {
      case 2: return across<S, 2>(lanes);
      case 3: return across<S, 3>(lanes);
      default: return across<S, 0>(lanes);
    }
  }
  template <int S, int Count>
  POOLWISE_OUTLINE void across(Int lanes) {
    const Int apart = last_.dilation;
    for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u)
        put<M>(lane + u * M, balanced<R, M, Count>(reduction_, last_.taps, [&](Int t) POOLWISE_LAMBDA {
                 return picked_state<R, S, M>(line_, S * (lane + u * M) + t * apart);
               }));
    });
  }

  template <int M>
  POOLWISE_INLINE void put(Int lane, const State<M>& state) const {
    reduction_.template write<M>(out_ + lane, reduction_.template finished<M>(state), Pack<A, M>{});
  }

  // ---- what is written ----

  // So many rows of outputs may be written in whole packs, which run over their ends: what lies there is written later.
  POOLWISE_INLINE Int safe_rows(Int plane, Int count) const {
    const Int rows = count * rows_.output, left = end_ - plane * rows_.output * last_.output - 64 - last_.output;
    return smaller(rows, larger(0, left / last_.output));
  }
  POOLWISE_INLINE void copy_out(Out* to, const Out* from, Int count, Int safe) const {
    constexpr Int pack = POOLWISE_VECTOR_BYTES / sizeof(Out);
    const Int n = last_.output;
    Int row = 0;
    for (Int q = 0; q < count; ++q) {
      const Out* here = from + q * slots_ * row_out_;
      for (Int i = 0; i < rows_.output; ++i, ++row, to += n, here += row_out_) {
        if (row < safe)
          for (Int lane = 0; lane < n; lane += pack) std::memcpy(static_cast<void*>(to + lane), here + lane, POOLWISE_VECTOR_BYTES);
        else
          std::memcpy(static_cast<void*>(to), here, static_cast<std::size_t>(n) * sizeof(Out));
      }
    }
  }

  const Axis &rows_, &last_;
  const R reduction_;
  Spaced down_, across_;
  Int slots_, count_, row_out_;  // rows of one phase in a plane, planes that are held, lanes from one row of outputs to the next
  const T* x_;
  Out* y_;
  RowStrides strides_;
  Int stop_;       // where the array ends
  Int phase_ = 0;  // lanes from the rows of one phase to those of the next
  Int end_ = 0;    // of what this thread writes
  Line<R> held_, line_;
  T* spare_row_;
  Out* out_;
  Stream<Out> stream_;
  bool streams_ = false;
  Int taps_[balanced_taps];  // where the rows of a window lie, counted from where the engine stands
};

}  // namespace poolwise::POOLWISE_ISA
