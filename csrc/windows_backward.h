// Backward for bodies that need all of a window's elements at once: what a window sends to each of its elements depends on them.
// send<N, K, Across>(values, k, weights, gradients, some) puts that in place of the values; `some` is null where lanes lack no tap.
//
// A thread owns a band of rows of the input. All windows that read one of them are computed, laid as in the forward pass; what their
// taps send stands in lines of its own, from which the rows of the band gather it, window by window in the windows' order. So nothing
// depends on where bands begin.
#pragma once

#include "windows.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int sums_bytes = 1 << 18;  // of the rows of a band

template <class B>
class WindowsBackward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  static constexpr int N = full<A>;

 public:
  static Units units(const Plan& plan) {
    const WindowAxes axes(plan.block);
    return {plan.block.input_rows(), band_of(axes)};
  }

  WindowsBackward(const Plan& plan, const Buffers& buffers)
      : axes_(plan.block),
        body_(plan),
        g_(static_cast<const T*>(buffers.from)),
        gx_(static_cast<T*>(buffers.to)),
        across_(axes_.last, false),
        band_(band_of(axes_)),
        lines_(plan, axes_, body_.reader, body_.absent(), static_cast<const T*>(buffers.kept), axes_.last.output),
        cells_(axes_.last.output + across_.most_shift),
        phase_(cells_ * axes_.inner),
        sums_lanes_(across_.count * phase_) {
    for (Int tap = 0; plan.weights != nullptr && tap <= plan.additions; ++tap) weights_[tap] = static_cast<A>(plan.weights[tap]);
    const Int lanes = lines_.rows() * lines_.pitch() + slack<A>, shares = axes_.rows.taps * axes_.last.taps;
    const Int woven = weaves() ? axes_.last.step * phase_ + slack<A> : 0;
    const Int bytes = lines_.room() + (1 + shares) * Arena::room<A>(lanes) + Arena::room<A>(band_ * sums_lanes_ + slack<A>) +
                      Arena::room<T>(woven) + Arena::room<A>(phase_ + slack<A>);
    Arena arena(scratch(static_cast<std::size_t>(bytes)));
    lines_.take(arena);
    gradients_ = arena.take<A>(lanes);
    for (Int i = 0; i < shares; ++i) shares_[i] = arena.take<A>(lanes);
    sums_ = arena.take<A>(band_ * sums_lanes_ + slack<A>);
    woven_ = arena.take<T>(woven);
    none_ = arena.take<A>(phase_ + slack<A>);
    fill<A>(none_, phase_ + slack<A>, 0);
    fill<A>(gradients_, lanes, 0);
    lines_.enter(0, axes_.last.output);
  }

  void run(Int begin, Int end) {
    for (Int unit = begin; unit < end;) {
      const Int row = unit % axes_.rows.size, n = smaller(smaller(end - unit, band_), axes_.rows.size - row);
      gather_rows(unit, row, n);
      unit += n;
    }
  }

 private:
  static constexpr Int most_woven_windows = 3;  // steps

  // Rows of the input that a band has: so many that few windows are computed twice.
  static Int band_of(const WindowAxes& axes) {
    const Int row = (axes.last.output + axes.last.taps) * axes.inner * smaller(axes.last.taps, axes.last.step) * Int(sizeof(A));
    return smaller(axes.rows.size, larger(axes.rows.taps, sums_bytes / row));
  }
  bool weaves() const { return axes_.inner == 1 && axes_.last.step <= most_woven_windows; }

  // The n rows of the input from `row` on.
  POOLWISE_OUTLINE void gather_rows(Int unit, Int row, Int n) {
    const Axis &planes = axes_.planes, &rows = axes_.rows;
    fill<A>(sums_, n * sums_lanes_, 0);
    const Int plane = unit / rows.size % planes.size, outer = unit / rows.size / planes.size;
    const Int begin = larger(0, ceil_div(Wide(row) - rows.start - (rows.taps - 1) * rows.dilation, rows.step));
    const Int end = smaller(rows.output, floor_div(Wide(row) + n - 1 - rows.start, rows.step) + 1);
    const Run above = readers_of(planes, plane);
    for (Int a = 0; a < above.count; ++a)
      for (Int i = begin; i < end;) {
        const Int count = alike(rows, i, smaller(lines_.rows(), end - i));
        send(outer, above.at + a * above.at_step, above.tap + a * above.tap_step, i, count);
        for (Int r = 0; r < count; ++r) add_row(rows.start + (i + r) * rows.step - row, n, r, rows.present(i));
        i += count;
      }
    for (Int r = 0; r < n; ++r) write_row(gx_ + (unit + r) * axes_.last.size * axes_.inner, sums_ + r * sums_lanes_);
  }

  // ---- what the windows of n rows from `row` on send through their taps of one plane ----

  POOLWISE_INLINE void send(Int outer, Int plane, Int tap, Int row, Int n) {
    const Axis &planes = axes_.planes, &rows = axes_.rows, &last = axes_.last;
    const Taps high = planes.present(plane), wide = rows.present(row);
    const Int line = last.output * axes_.inner, pitch = lines_.pitch();
    if constexpr (B::reads) lines_.lay(outer, plane, row, n, high, wide);
    for (Int r = 0; r < n; ++r) read_row(gradients_ + r * pitch, g_ + (((outer * planes.output + plane) * rows.output) + row + r) * line, line);
    count_ = 0;
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (Int w = wide.first; w < wide.first + wide.count; ++w)
        for (Int t = 0; t < last.taps; ++t) {
          now_[count_] = weights_[(h * rows.taps + w) * last.taps + t];
          to_[count_] = h == tap ? shares_[w * last.taps + t] : nullptr;
          if constexpr (B::reads) taps_[count_] = lines_.tap(h, w, t);
          ++count_;
        }
    body_.weigh(now_, static_cast<int>(count_));
    const Int lanes = (n - 1) * pitch + line;
    if (count_ == 4 && last.taps == 2) return send_through<4, 2>(lanes);
    if (count_ == 9 && last.taps == 3) return send_through<9, 3>(lanes);
    send_through<0, 0>(lanes);
  }
  template <int K, int Across>
  POOLWISE_OUTLINE void send_through(Int lanes) {
    const int k = K > 0 ? K : static_cast<int>(count_), across = Across > 0 ? Across : static_cast<int>(axes_.last.taps);
    for (Int lane = 0; lane < lanes; lane += N) {
      Pack<A, N> values[K > 0 ? K : most_window_taps];
      const auto g = load<A, N>(gradients_ + lane);
      for (int i = 0; B::reads && i < k; ++i) values[i] = load<A, N>(taps_[i] + lane);
      if (lines_.whole(lane)) {
        body_.template send<N, K, Across>(values, k, now_, g, nullptr);
      } else {
        Pack<A, N> there[K > 0 ? Across : most_window_taps];
        for (int t = 0; t < across; ++t) there[t] = load<A, N>(lines_.there(t) + lane);
        const Some<A, N> some{there, across, load<Lane<A>, N>(lines_.held() + lane)};
        body_.template send<N, K, Across>(values, k, now_, g, &some);
      }
      for (int i = 0; i < k; ++i)
        if (to_[i] != nullptr) store<N, A>(to_[i] + lane, values[i]);
    }
  }

  POOLWISE_OUTLINE void read_row(A* to, const T* from, Int n) const {
    for_lanes<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) store<M, A>(to + lane + u * M, load<A, M>(from + lane + u * M));
    });
  }

  // ---- what the rows of the band gather ----

  // What row r of the windows sends, whose first tap stands on row `first` of the band's n.
  POOLWISE_INLINE void add_row(Int first, Int n, Int r, Taps wide) {
    const Axis &rows = axes_.rows, &last = axes_.last;
    const Int lanes = last.output * axes_.inner;
    for (Int w = wide.first; w < wide.first + wide.count; ++w) {
      const Int row = first + w * rows.dilation;
      if (row < 0 || row >= n) continue;
      for (Int t = 0; t < last.taps; ++t)
        add<N>(sums_ + row * sums_lanes_ + across_.phase[t] * phase_ + across_.shift[t] * axes_.inner, shares_[w * last.taps + t] + r * lines_.pitch(), lanes);
    }
  }
  template <int M>
  POOLWISE_INLINE static void add(A* to, const A* from, Int n) {
    Int lane = 0;
    for (; lane + M <= n; lane += M) store<M, A>(to + lane, load<A, M>(to + lane) + load<A, M>(from + lane));
    if constexpr (M > 1) add<M / 2>(to + lane, from + lane, n - lane);
  }

  // A row of the input from the sums of its phases; cell 0 of phase p stands in column start + begin(p).
  POOLWISE_OUTLINE void write_row(T* to, const A* sums) {
    const Axis& last = axes_.last;
    const Int inner = axes_.inner, step = last.step;
    const Int begin = smaller(last.size, larger(0, last.start)), end = larger(begin, smaller(last.size, last.start + cells_ * step));
    if (step == 1) {
      fill_nothing(to, begin * inner), fill_nothing(to + end * inner, (last.size - end) * inner);
      return write_lanes(to + begin * inner, sums + (begin - last.start) * inner, (end - begin) * inner);
    }
    if (weaves()) {
      const A* phases[most_woven_windows] = {none_, none_, none_};
      for (int p = 0; p < across_.count; ++p) phases[across_.begin[p]] = sums + p * phase_;
      step == 2 ? weave_row<2>(phases) : weave_row<3>(phases);
      fill_nothing(to, begin), fill_nothing(to + end, last.size - end);
      if (begin < end) std::memcpy(static_cast<void*>(to + begin), woven_ + begin - last.start, static_cast<std::size_t>(end - begin) * sizeof(T));
      return;
    }
    fill_nothing(to, last.size * inner);
    for (int p = 0; p < across_.count; ++p) {
      const Int column = last.start + across_.begin[p];
      const Int from = larger(0, ceil_div(-Wide(column), step)), stop = smaller(cells_, ceil_div(Wide(last.size) - column, step));
      for (Int cell = from; cell < stop; ++cell) write_lanes(to + (column + cell * step) * inner, sums + p * phase_ + cell * inner, inner);
    }
  }
  template <int S>
  POOLWISE_INLINE void weave_row(const A* const* phases) {
    for (Int lane = 0; lane < cells_; lane += N) {
      Pack<A, N> packs[S];
      for (int s = 0; s < S; ++s) packs[s] = load<A, N>(phases[s] + lane);
      weave<S, A, N>(woven_ + S * lane, packs, std::make_integer_sequence<int, S>{});
    }
  }
  static POOLWISE_INLINE void write_lanes(T* to, const A* from, Int n) {
    for_lanes<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) store<M, A>(to + lane + u * M, load<A, M>(from + lane + u * M));
    });
  }
  static POOLWISE_INLINE void fill_nothing(T* to, Int n) {
    if (n > 0) std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(n) * sizeof(T));
  }

  const WindowAxes axes_;
  B body_;
  const T* g_;
  T* gx_;
  const TapPhases across_;  // of the sums
  const Int band_;
  WindowLines<typename B::Reader, A> lines_;
  const Int cells_, phase_, sums_lanes_;  // of a phase, its lanes, those of all phases of a row
  Int count_ = 0;
  const A* taps_[most_window_taps] = {};
  A* to_[most_window_taps] = {};
  A* shares_[most_window_taps] = {};
  A weights_[most_window_taps] = {}, now_[most_window_taps] = {};
  A *gradients_ = nullptr, *sums_ = nullptr, *none_ = nullptr;
  T* woven_ = nullptr;
};

}  // namespace poolwise::POOLWISE_ISA
