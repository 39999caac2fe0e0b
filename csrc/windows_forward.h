// The engine of whole windows: for bodies that need all of a window's elements at once, and windows of at most `most_window_taps`.
// No mask, dense arrays: the call is refused where that is not so.
//
// Where the channels behind a column fill the widest packs, each column is computed from where its elements lie, but for paired bodies whose
// windows overlap. Else a band of rows at a time is laid in lines (`windows.h`), and packs go over the whole band; those with lanes that lack
// taps go another way.
#pragma once

#include <optional>

#include "windows.h"

namespace poolwise::POOLWISE_ISA {

template <class B>
class WindowsForward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  static constexpr int N = full<A>;
  static constexpr Int widest = 64 / sizeof(A);  // pack of any instruction set: each goes the same way
  static constexpr bool has_raised = requires(B body, Pack<A, N> v) { body.template raised<N>(v); };
  static constexpr bool paired = is_paired<B>;
  static constexpr int each = paired ? 2 : 1;  // numbers of a tap

 public:
  WindowsForward(const Plan& plan, const Buffers& buffers)
      : axes_(plan.block),
        body_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<T*>(buffers.to)),
        in_columns_(axes_.inner >= widest && !(paired && overlap(plan, axes_))),
        raises_(has_raised && !in_columns_ && overlap(plan, axes_)),
        lines_(plan, axes_, body_.reader, body_.absent(), x_, 0, raises_ && !paired),
        columns_(lines_.columns()),
        beside_at_(buffers.beside) {
    if constexpr (paired) beside_.emplace(plan, axes_, typename B::Beside(), body_.absent_beside(), beside_at_, columns_, raises_);
    for (Int tap = 0; plan.weights != nullptr && tap <= plan.additions; ++tap) weights_[tap] = static_cast<A>(plan.weights[tap]);
    streams_ = (in_columns_ || columns_ == axes_.last.output) && plan.output_size * Int(sizeof(T)) >= bytes_worth_streaming;
    const Int results = in_columns_ ? 0 : lines_.rows() * lines_.pitch() + slack<A>, streamed = streams_ ? (in_columns_ ? 1 : columns_) * axes_.inner : 0;
    Arena arena(scratch(static_cast<std::size_t>((in_columns_ ? 0 : rooms()) + Arena::room<T>(results) + Stream<T>::room(streamed))));
    if (!in_columns_) lines_.take(arena);
    if constexpr (paired)
      if (!in_columns_) beside_->take(arena);
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
      if constexpr (paired) beside_->enter(first, lines_.columns());
      for (Int unit = begin; unit < end;) unit += pool_band(unit, end - unit, first);
    }
  }

  Int rooms() const {
    if constexpr (paired) return lines_.room() + beside_->room();
    return lines_.room();
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
    const Taps high = taps_of(axes_.planes, plane, 0), wide = taps_of(axes_.rows, row, 0);
    lines_.lay(outer, plane, row, n, high, wide);
    if constexpr (paired) beside_->lay(outer, plane, row, n, high, wide);
    if constexpr (has_raised)
      if (raises_) raising().raise(high, wide, [&]<int M>(Pack<A, M> v) POOLWISE_LAMBDA { return body_.template raised<M>(v); });
    count_ = 0;
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (Int w = wide.first; w < wide.first + wide.count; ++w)
        for (Int t = 0; t < axes_.last.taps; ++t) {
          if (raises_) raised_[count_] = raising().raised_tap(h, w, t);
          if constexpr (paired) taps_[1][count_] = beside_->tap(h, w, t);
          now_[count_] = weights_[(h * axes_.rows.taps + w) * axes_.last.taps + t];
          taps_[0][count_++] = lines_.tap(h, w, t);
        }
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

  // The windows that are everywhere (2×2, 2×2×2, 3×3, and 3) are computed in registers.
  POOLWISE_INLINE void compute_lines(Int lanes) {
    if constexpr (!B::reads) {
      add_lines(lanes);
    } else {
      const Int taps = axes_.last.taps;
      if (count_ == 0) return for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
          for (int u = 0; u < U; ++u) body_.template write<M>(results_ + lane + u * M, body_.template nothing<M>());
        });
      if (count_ == 4 && taps == 2) return compute_taps<4, 2>(lanes);
      if (count_ == 8 && taps == 2) return compute_taps<8, 2>(lanes);
      if (count_ == 3 && taps == 3) return compute_taps<3, 3>(lanes);
      if (count_ == 9 && taps == 3) return compute_taps<9, 3>(lanes);
      compute_taps<0, 0>(lanes);
    }
  }
  template <int K, int Across>
  POOLWISE_OUTLINE void compute_taps(Int lanes) {
    const int k = K > 0 ? K : static_cast<int>(count_), across = Across > 0 ? Across : static_cast<int>(axes_.last.taps);
    for (Int lane = 0; lane < lanes; lane += N) {
      lines_.prefetch(lane);
      if constexpr (paired) beside_->prefetch(lane);
      Known known;
      if (raises_) known = known_of(k, lane);
      if (raises_ && holds<Lane<A>, N>(known.settled | lines_.idle(lane))) {
        body_.template write<N>(results_ + lane, known.y);
        continue;
      }
      Pack<A, N> values[each * (K > 0 ? K : most_window_taps)];
      for (int e = 0; e < each; ++e)
        for (int i = 0; i < k; ++i) values[e * k + i] = load<A, N>(taps_[e][i] + lane);
      Pack<A, N> y;
      if (lines_.whole(lane)) {
        y = body_.template of<N, K>(values, k);
      } else {
        Pack<A, N> there[K > 0 ? Across : most_window_taps];
        for (int t = 0; t < across; ++t) there[t] = load<A, N>(lines_.there(t) + lane);
        const Some<A, N> some{there, across, load<Lane<A>, N>(lines_.held() + lane)};
        y = body_.template of_some<N, K, Across>(values, k, some);
      }
      body_.template write<N>(results_ + lane, raises_ && has_raised ? (known.settled ? known.y : y) : y);
    }
  }

  // The lines whose elements are raised.
  POOLWISE_INLINE auto& raising() {
    if constexpr (paired)
      return *beside_;
    else
      return lines_;
  }

  // What the raised elements say of the result, and in which lanes that is true.
  struct Known {
    Pack<Lane<A>, N> settled;
    Pack<A, N> y;
  };
  POOLWISE_INLINE Known known_of(int k, Int lane) const {
    if constexpr (has_raised) {
      const bool whole = lines_.whole(lane);
      const auto absent = every<A, N>(body_.absent()), none = every<A, N>(-body_.absent());
      Pack<A, N> total{}, sum{}, least = none, most = absent;
      for (int i = 0; i < k; ++i) {
        const auto value = load<A, N>(taps_[0][i] + lane), raised = load<A, N>(raised_[i] + lane);
        total += raised;
        sum += raised * value;
        const auto low = paired ? (raised == 0 ? none : value) : whole ? value : value == absent ? none : value;
        const auto high = paired ? (raised == 0 ? absent : value) : value;
        least = low < least ? low : least;
        most = high > most ? high : most;
      }
      const Pack<A, N> y = sum / total;  // bounded, so that of equal elements it is that
      return {body_.template settled<N>(total, sum), y < least ? least : y > most ? most : y};
    }
    return Known();
  }

  POOLWISE_OUTLINE void add_lines(Int lanes) {
    const A all = sum_of_weights();
    for_packs<N, 4>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, M> sums[U] = {};
      for (Int i = 0; i < count_; ++i)
        for (int u = 0; u < U; ++u) sums[u] += load<A, M>(taps_[0][i] + lane + u * M) * now_[i];
      for (int u = 0; u < U; ++u) {
        lines_.prefetch(lane + u * M);
        body_.template write<M>(results_ + lane + u * M, lines_.whole(lane + u * M) ? over<M>(sums[u], all) : sums[u] / weights_there(lane + u * M));
      }
    });
  }
  A sum_of_weights() const {
    A all = 0;
    for (Int i = 0; i < count_; ++i) all += now_[i];
    return all;
  }
  template <int M>
  static POOLWISE_INLINE Pack<A, M> over(Pack<A, M> sum, A all) {
    return all == 1 ? sum : sum / all;  // NaN of nothing
  }
  POOLWISE_OUTLINE Pack<A, N> weights_there(Int lane) const {
    Pack<A, N> sum{};
    for (Int i = 0; i < count_; ++i) sum += load<A, N>(lines_.there(i % axes_.last.taps) + lane) * now_[i];
    return sum;
  }

  // ---- a column of channels ----

  POOLWISE_OUTLINE void pool_columns(Int unit) {
    const auto [outer, plane, row] = place_of(unit);
    const Axis &planes = axes_.planes, &rows = axes_.rows, &last = axes_.last;
    const Taps high = taps_of(planes, plane, 0), wide = taps_of(rows, row, 0);
    for (Int j = 0; j < last.output; ++j) {
      const Taps across = taps_of(last, j, 0);
      count_ = 0;
      for (Int h = high.first; h < high.first + high.count; ++h)
        for (Int w = wide.first; w < wide.first + wide.count; ++w) {
          const Int at = (outer * planes.size + element_at(planes, planes.start + plane * planes.step + h * planes.dilation)) * rows.size +
                         element_at(rows, rows.start + row * rows.step + w * rows.dilation);
          for (Int t = across.first; t < across.first + across.count; ++t) {
            now_[count_] = weights_[(h * rows.taps + w) * last.taps + t];
            columns_at_[count_++] = (at * last.size + element_at(last, last.start + j * last.step + t * last.dilation)) * axes_.inner;
          }
        }
      compute_column(streams_ ? stream_.next() : y_ + (unit * last.output + j) * axes_.inner);
      if (streams_) stream_.wrote(axes_.inner);
    }
  }
  POOLWISE_INLINE void compute_column(T* to) {
    if constexpr (!B::reads) {
      add_channels(to);
    } else {
      switch (count_) {
        case 4: return compute_channels<4>(to);
        case 8: return compute_channels<8>(to);
        case 9: return compute_channels<9>(to);
        default: return compute_channels<0>(to);
      }
    }
  }
  template <int K>
  POOLWISE_OUTLINE void compute_channels(T* to) {
    const int k = K > 0 ? K : static_cast<int>(count_);
    for (Int next = 0; next < axes_.inner; next += N) {
      const Int lane = smaller(next, axes_.inner - N);  // the last pack overlaps the one before
      Pack<A, N> values[each * (K > 0 ? K : most_window_taps)];
      for (int i = 0; i < k; ++i) values[i] = body_.reader.template read<N>(x_ + columns_at_[i] + lane);
      if constexpr (paired)
        for (int i = 0; i < k; ++i) values[k + i] = load<A, N>(beside_at_ + columns_at_[i] + lane);
      body_.template write<N>(to + lane, k == 0 ? body_.template nothing<N>() : body_.template of<N, K>(values, k));
    }
  }
  POOLWISE_OUTLINE void add_channels(T* to) {
    const A all = sum_of_weights();
    const auto at = [&]<int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, N> sums[U] = {};
      for (Int i = 0; i < count_; ++i)
        for (int u = 0; u < U; ++u) sums[u] += body_.reader.template read<N>(x_ + columns_at_[i] + lane + u * N) * now_[i];
      for (int u = 0; u < U; ++u) body_.template write<N>(to + lane + u * N, over<N>(sums[u], all));
    };
    Int next = 0;
    for (; next + 4 * N <= axes_.inner; next += 4 * N) at.template operator()<4>(next);
    for (; next < axes_.inner; next += N) at.template operator()<1>(smaller(next, axes_.inner - N));
  }

  const WindowAxes axes_;
  B body_;
  const T* x_;
  T* y_;
  const bool in_columns_;
  const bool raises_;
  WindowLines<typename B::Reader, A> lines_;
  const Int columns_;
  const float* const beside_at_;
  std::optional<WindowLines<Plain<float, A>, A>> beside_;  // of a body that is paired
  Int count_ = 0;
  const A* taps_[each][most_window_taps];
  const A* raised_[most_window_taps];
  Int columns_at_[most_window_taps];
  A weights_[most_window_taps] = {}, now_[most_window_taps] = {};
  T* results_ = nullptr;
  Stream<T> stream_;
  bool streams_ = false;
};

}  // namespace poolwise::POOLWISE_ISA
