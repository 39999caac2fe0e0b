// The engine of whole windows: for bodies that need all of a window's elements at once, and windows of at most `most_window_taps`.
// No mask, dense arrays: the call is refused where that is not so.
//
// Where the channels behind a column fill packs, each column is computed from where its elements lie. Else a band of rows at a time
// is laid in lines (`windows.h`), and packs go over the whole band; those with lanes that lack taps go another way.
#pragma once

#include "windows.h"

namespace poolwise::POOLWISE_ISA {

template <class B>
class WindowsForward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  static constexpr int N = full<A>;

 public:
  WindowsForward(const Plan& plan, const Buffers& buffers)
      : axes_(plan.block),
        body_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<T*>(buffers.to)),
        in_columns_(axes_.inner >= N),
        lines_(plan, axes_, body_.reader, body_.absent(), x_, 0),
        columns_(lines_.columns()) {
    for (Int tap = 0; plan.weights != nullptr && tap <= plan.additions; ++tap) weights_[tap] = static_cast<A>(plan.weights[tap]);
    streams_ = (in_columns_ || columns_ == axes_.last.output) && plan.output_size * Int(sizeof(T)) >= bytes_worth_streaming;
    const Int results = in_columns_ ? 0 : lines_.rows() * lines_.pitch() + slack<A>, streamed = streams_ ? (in_columns_ ? 1 : columns_) * axes_.inner : 0;
    Arena arena(scratch(static_cast<std::size_t>((in_columns_ ? 0 : lines_.room()) + Arena::room<T>(results) + Stream<T>::room(streamed))));
    if (!in_columns_) lines_.take(arena);
    results_ = arena.take<T>(results);
    stream_ = Stream<T>(arena, streamed);
  }

  // Chunk by chunk of columns, each over all rows.
  void run(Int begin, Int end) {
    if (streams_) stream_.start(y_ + begin * axes_.last.output * axes_.inner);
    if (in_columns_)
      for (Int unit = begin; unit < end; ++unit) pool_columns(unit);
    else
      run_bands(begin, end);
    if (streams_) stream_.finish();
  }

 private:
  void run_bands(Int begin, Int end) {
    for (Int first = 0; first < axes_.last.output; first += columns_) {
      lines_.enter(first, smaller(columns_, axes_.last.output - first));
      for (Int unit = begin; unit < end;) unit += pool_band(unit, end - unit, first);
    }
  }

  struct Place {
    Int outer, plane, row;
  };
  Place place_of(Int unit) const {
    const Int rows = axes_.rows.output, planes = axes_.planes.output;
    return {unit / rows / planes, unit / rows % planes, unit % rows};
  }

  // ---- a band of rows ----

  POOLWISE_OUTLINE Int pool_band(Int unit, Int most, Int first) {
    const auto [outer, plane, row] = place_of(unit);
    const Int n = alike(axes_.rows, row, smaller(most, smaller(lines_.rows(), axes_.rows.output - row)));
    const Taps high = axes_.planes.present(plane), wide = axes_.rows.present(row);
    lines_.lay(outer, plane, row, n, high, wide);
    count_ = 0;
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (Int w = wide.first; w < wide.first + wide.count; ++w)
        for (Int t = 0; t < axes_.last.taps; ++t) {
          now_[count_] = weights_[(h * axes_.rows.taps + w) * axes_.last.taps + t];
          taps_[count_++] = lines_.tap(h, w, t);
        }
    body_.weigh(now_, static_cast<int>(count_));
    const Int live = lines_.columns() * axes_.inner, pitch = lines_.pitch();
    const T* const rows = y_ + (unit * axes_.last.output + first) * axes_.inner;
    for (Int lane = 0; !streams_ && lane < n * live; lane += cache_line / Int(sizeof(T))) __builtin_prefetch(rows + lane, 1);
    compute_lines((n - 1) * pitch + live);
    for (Int r = 0; r < n; ++r) {
      T* const to = streams_ ? stream_.next() : y_ + ((unit + r) * axes_.last.output + first) * axes_.inner;
      std::memcpy(static_cast<void*>(to), results_ + r * pitch, static_cast<std::size_t>(live) * sizeof(T));
      if (streams_) stream_.wrote(live);
    }
    return n;
  }

  // The windows that are everywhere (2×2, 2×2×2, 3×3, those without a row, and 3) are computed in registers.
  POOLWISE_INLINE void compute_lines(Int lanes) {
    const Int taps = axes_.last.taps;
    if (count_ == 0) return for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) body_.template write<M>(results_ + lane + u * M, body_.template nothing<M>());
      });
    if (count_ == 4 && taps == 2) return compute_taps<4, 2>(lanes);
    if (count_ == 8 && taps == 2) return compute_taps<8, 2>(lanes);
    if (count_ == 3 && taps == 3) return compute_taps<3, 3>(lanes);
    if (count_ == 6 && taps == 3) return compute_taps<6, 3>(lanes);
    if (count_ == 9 && taps == 3) return compute_taps<9, 3>(lanes);
    compute_taps<0, 0>(lanes);
  }
  template <int K, int Across>
  POOLWISE_OUTLINE void compute_taps(Int lanes) {
    const int k = K > 0 ? K : static_cast<int>(count_), across = Across > 0 ? Across : static_cast<int>(axes_.last.taps);
    for (Int lane = 0; lane < lanes; lane += N) {
      Pack<A, N> values[K > 0 ? K : most_window_taps];
      for (int i = 0; i < k; ++i) values[i] = load<A, N>(taps_[i] + lane);
      if (lines_.whole(lane)) {
        body_.template write<N>(results_ + lane, body_.template of<N, K>(values, k, now_));
      } else {
        Pack<A, N> there[K > 0 ? Across : most_window_taps];
        for (int t = 0; t < across; ++t) there[t] = load<A, N>(lines_.there(t) + lane);
        const Some<A, N> some{there, across, load<Lane<A>, N>(lines_.held() + lane)};
        body_.template write<N>(results_ + lane, body_.template of_some<N, K, Across>(values, k, now_, some));
      }
    }
  }

  // ---- a column of channels ----

  POOLWISE_OUTLINE void pool_columns(Int unit) {
    const auto [outer, plane, row] = place_of(unit);
    const Axis &planes = axes_.planes, &rows = axes_.rows, &last = axes_.last;
    const Taps high = planes.present(plane), wide = rows.present(row);
    for (Int j = 0; j < last.output; ++j) {
      const Taps across = last.present(j);
      Int k = 0;
      for (Int h = high.first; h < high.first + high.count; ++h)
        for (Int w = wide.first; w < wide.first + wide.count; ++w) {
          const Int at = (outer * planes.size + planes.fold(planes.start + plane * planes.step + h * planes.dilation)) * rows.size +
                         rows.fold(rows.start + row * rows.step + w * rows.dilation);
          for (Int t = across.first; t < across.first + across.count; ++t) {
            now_[k] = weights_[(h * rows.taps + w) * last.taps + t];
            columns_at_[k++] = x_ + (at * last.size + last.fold(last.start + j * last.step + t * last.dilation)) * axes_.inner;
          }
        }
      body_.weigh(now_, static_cast<int>(k));
      compute_column(static_cast<int>(k), streams_ ? stream_.next() : y_ + (unit * last.output + j) * axes_.inner);
      if (streams_) stream_.wrote(axes_.inner);
    }
  }
  POOLWISE_INLINE void compute_column(int k, T* to) {
    switch (k) {
      case 4: return compute_channels<4>(k, to);
      case 6: return compute_channels<6>(k, to);
      case 8: return compute_channels<8>(k, to);
      case 9: return compute_channels<9>(k, to);
      default: return compute_channels<0>(k, to);
    }
  }
  template <int K>
  POOLWISE_OUTLINE void compute_channels(int count, T* to) {
    const int k = K > 0 ? K : count;
    for (Int next = 0; next < axes_.inner; next += N) {
      const Int lane = smaller(next, axes_.inner - N);  // the last pack overlaps the one before
      Pack<A, N> values[K > 0 ? K : most_window_taps];
      for (int i = 0; i < k; ++i) values[i] = body_.reader.template read<N>(columns_at_[i] + lane);
      body_.template write<N>(to + lane, k == 0 ? body_.template nothing<N>() : body_.template of<N, K>(values, k, now_));
    }
  }

  const WindowAxes axes_;
  B body_;
  const T* x_;
  T* y_;
  const bool in_columns_;
  WindowLines<typename B::Reader, A> lines_;
  const Int columns_;
  Int count_ = 0;
  const A* taps_[most_window_taps];
  const T* columns_at_[most_window_taps];
  A weights_[most_window_taps] = {}, now_[most_window_taps] = {};
  T* results_ = nullptr;
  Stream<T> stream_;
  bool streams_ = false;
};

}  // namespace poolwise::POOLWISE_ISA
