// Backward for bodies that need all of a window's elements at once: what a window sends to each of its elements depends on them.
//
// A thread owns a band of rows of the input. All windows that read one of them are computed, laid as in the forward pass; what their
// taps send stands in lines of its own, from which the rows of the band gather it, window by window in the windows' order. So nothing
// depends on where bands begin. Where no element is needed (a body that does not read), the rows gather the gradients, over
// what their windows divide by, times the weights of the taps.
#pragma once

#include <optional>

#include "windows.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int sums_bytes = 1 << 18;  // of the rows of a band

template <class B>
class WindowsBackward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  static constexpr int N = full<A>;
  static constexpr bool paired = is_paired<B>;
  static constexpr int each = paired ? 2 : 1;  // numbers of a tap, and gradients

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
        gradient_beside_(buffers.to_beside),
        down_(axes_.rows, false),
        across_(axes_.last, false),
        band_(band_of(axes_)),
        raises_(paired && overlap(plan, axes_)),
        lines_(plan, axes_, body_.reader, body_.absent(), static_cast<const T*>(buffers.kept), axes_.last.output),
        cells_(axes_.last.output + across_.most_shift),
        phase_(cells_ * axes_.inner),
        stride_(phase_ + 2 * N),
        sums_lanes_(across_.count * stride_) {
    for (Int tap = 0; plan.weights != nullptr && tap <= plan.additions; ++tap) weights_[tap] = static_cast<A>(plan.weights[tap]);
    if constexpr (paired) beside_.emplace(plan, axes_, typename B::Beside(), body_.absent_beside(), buffers.beside, axes_.last.output, raises_);
    const Int lanes = lines_.rows() * lines_.pitch() + slack<A>, shares = axes_.rows.taps * axes_.last.taps;
    const Int woven = weaves() ? axes_.last.step * phase_ + slack<A> : 0;
    const Int gradients = B::reads ? lanes : (met_rows() + 1) * met_pitch() + slack<A>, divisors = axes_.last.output * axes_.inner + slack<A>;
    const Int sums = (B::reads ? band_ * sums_lanes_ : down_.count * across_.count * line_lanes()) + slack<A>;
    const Int bytes = (B::reads ? rooms() + each * shares * Arena::room<A>(lanes) : 0) + Arena::room<A>(gradients) + Arena::room<A>(divisors) +
                      each * Arena::room<A>(sums) + Arena::room<A>(woven) + Arena::room<A>(phase_ + slack<A>);
    Arena arena(scratch(static_cast<std::size_t>(bytes)));
    if (B::reads) lines_.take(arena);
    if constexpr (paired) beside_->take(arena);
    for (int e = 0; e < each; ++e) {
      for (Int i = 0; B::reads && i < shares; ++i) shares_[e][i] = arena.take<A>(lanes);
      sums_[e] = arena.take<A>(sums);
    }
    gradients_ = arena.take<A>(gradients);
    divisors_ = arena.take<A>(divisors);
    woven_ = arena.take<A>(woven);
    none_ = arena.take<A>(phase_ + slack<A>);
    fill<A>(none_, phase_ + slack<A>, 0);
    fill<A>(gradients_, gradients, 0);
    if (B::reads) lines_.enter(0, axes_.last.output);
    if constexpr (paired) beside_->enter(0, axes_.last.output);
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
    const TapPhases across(axes.last, false);
    const Int row = across.count * (axes.last.output + across.most_shift) * axes.inner * Int(sizeof(A));
    return smaller(axes.rows.size, larger(axes.rows.taps, sums_bytes / row));
  }
  Int rooms() const {
    if constexpr (paired) return lines_.room() + beside_->room();
    return lines_.room();
  }
  bool weaves() const { return axes_.inner == 1 && axes_.last.step <= most_woven_windows; }

  // The n rows of the input from `row` on.
  POOLWISE_OUTLINE void gather_rows(Int unit, Int row, Int n) {
    const Axis &planes = axes_.planes, &rows = axes_.rows;
    for (int e = 0; e < each; ++e) fill<A>(sums_[e], B::reads ? n * sums_lanes_ : down_.count * across_.count * line_lanes(), 0);
    const Int plane = unit / rows.size % planes.size, outer = unit / rows.size / planes.size;
    const Run above = readers_of(planes, plane);
    for (Int a = 0; a < above.count; ++a) {
      const Int cell = above.at + a * above.at_step, tap = above.tap + a * above.tap_step;
      if constexpr (B::reads)
        gather_sent(outer, cell, tap, row, n);
      else
        gather_weighted(outer, cell, tap, row, n);
    }
    if (!B::reads) return write_weighted(unit, row, n);
    for (Int r = 0; r < n; ++r) {
      const Int at = (unit + r) * axes_.last.size * axes_.inner;
      write_row(gx_ + at, sums_[0] + r * sums_lanes_, stride_);
      if constexpr (paired) write_row(gradient_beside_ + at, sums_[1] + r * sums_lanes_, stride_);
    }
  }

  // ---- what windows send that are computed ----

  // From the windows of one plane, through their taps h.
  POOLWISE_INLINE void gather_sent(Int outer, Int plane, Int h, Int row, Int n) {
    const Axis& rows = axes_.rows;
    const Int end = smaller(rows.output, floor_div(Wide(row) + n - 1 - rows.start, rows.step) + 1);
    Int i = larger(0, ceil_div(Wide(row) - rows.start - (rows.taps - 1) * rows.dilation, rows.step));
    while (i < end) {
      const Int count = alike(rows, i, smaller(lines_.rows(), end - i));
      send(outer, plane, h, i, count);
      for (Int r = 0; r < count; ++r) add_row(rows.start + (i + r) * rows.step - row, n, r, taps_of(rows, i, 0));
      i += count;
    }
  }

  // What the windows of n rows from `row` on send through their taps of one plane.
  POOLWISE_INLINE void send(Int outer, Int plane, Int tap, Int row, Int n) {
    const Axis &planes = axes_.planes, &rows = axes_.rows, &last = axes_.last;
    const Taps high = taps_of(planes, plane, 0), wide = taps_of(rows, row, 0);
    const Int line = last.output * axes_.inner, pitch = lines_.pitch();
    lines_.lay(outer, plane, row, n, high, wide);
    if constexpr (paired) {
      beside_->lay(outer, plane, row, n, high, wide);
      if (raises_) beside_->raise(high, wide, [&]<int M>(Pack<A, M> v) POOLWISE_LAMBDA { return body_.template raised<M>(v); });
    }
    for (Int r = 0; r < n; ++r) copy_lanes<A>(gradients_ + r * pitch, g_ + (((outer * planes.output + plane) * rows.output) + row + r) * line, line);
    count_ = 0;
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (Int w = wide.first; w < wide.first + wide.count; ++w)
        for (Int t = 0; t < last.taps; ++t) {
          for (int e = 0; e < each; ++e) to_[e][count_] = h == tap ? shares_[e][w * last.taps + t] : nullptr;
          if constexpr (paired) taps_[1][count_] = beside_->tap(h, w, t);
          if (paired && raises_) raised_[count_] = beside_->raised_tap(h, w, t);
          taps_[0][count_++] = lines_.tap(h, w, t);
        }
    const Int lanes = (n - 1) * pitch + line;
    if (count_ == 4 && last.taps == 2) return send_through<4, 2>(lanes);
    if (count_ == 9 && last.taps == 3) return send_through<9, 3>(lanes);
    send_through<0, 0>(lanes);
  }
  template <int K, int Across>
  POOLWISE_OUTLINE void send_through(Int lanes) {
    const int k = K > 0 ? K : static_cast<int>(count_), across = Across > 0 ? Across : static_cast<int>(axes_.last.taps);
    for (Int lane = 0; lane < lanes; lane += N) {
      Pack<A, N> values[each * (K > 0 ? K : most_window_taps)];
      const auto g = load<A, N>(gradients_ + lane);
      Pack<Lane<A>, N> settled{};
      if constexpr (paired)
        if (raises_) settled = send_raised<K>(values, lane, g);
      if (!(paired && raises_) || !holds<Lane<A>, N>(settled | lines_.idle(lane))) send_loaded<K, Across>(values, k, across, lane, g, settled);
      for (int e = 0; e < each; ++e)
        for (int i = 0; i < k; ++i)
          if (to_[e][i] != nullptr) store<N, A>(to_[e][i] + lane, values[e * k + i]);
    }
  }
  // Into the lanes that are not settled.
  template <int K, int Across>
  POOLWISE_INLINE void send_loaded(Pack<A, N>* values, int k, int across, Int lane, Pack<A, N> g, Pack<Lane<A>, N> settled) const {
    Pack<A, N> sent[each * (K > 0 ? K : most_window_taps)];
    for (int e = 0; e < each; ++e)
      for (int i = 0; i < k; ++i) sent[e * k + i] = load<A, N>(taps_[e][i] + lane);
    if (lines_.whole(lane)) {
      body_.template send<N, K, Across>(sent, k, g, nullptr);
    } else {
      Pack<A, N> there[K > 0 ? Across : most_window_taps];
      for (int t = 0; t < across; ++t) there[t] = load<A, N>(lines_.there(t) + lane);
      const Some<A, N> some{there, across, load<Lane<A>, N>(lines_.held() + lane)};
      body_.template send<N, K, Across>(sent, k, g, &some);
    }
    for (int i = 0; i < each * k; ++i) values[i] = paired ? (settled ? values[i] : sent[i]) : sent[i];
  }
  template <int K>
  POOLWISE_INLINE auto send_raised(Pack<A, N>* values, Int lane, Pack<A, N> g) const {
    const int k = K > 0 ? K : static_cast<int>(count_);
    for (int i = 0; i < k; ++i) values[i] = load<A, N>(taps_[0][i] + lane), values[k + i] = load<A, N>(raised_[i] + lane);
    return body_.template send_raised<N>(values, k, g);
  }

  // ---- where no element is needed ----

  // Lanes of a row of gradients with nothing before it; what follows it is the nothing before the next.
  Int met_pitch() const { return phase_; }
  // Rows of windows that a band may meet, and of each phase of the rows of a band.
  Int met_rows() const { return band_ / axes_.rows.step + down_.most_shift + 3; }
  Int phase_rows() const { return band_ / axes_.rows.step + 2; }
  Int line_lanes() const { return phase_rows() * met_pitch() + 2 * N; }

  // Number q of phase b of the rows is row start + b + q · step, which tap w of window q - shift(w) reads: so all rows of a phase
  // read alike, where windows that are not there have gradients of nothing.
  POOLWISE_OUTLINE void gather_weighted(Int outer, Int plane, Int h, Int row, Int n) {
    const Axis &planes = axes_.planes, &rows = axes_.rows, &last = axes_.last;
    const Int first = floor_div(Wide(row) - rows.start, rows.step) - down_.most_shift - 1, pitch = met_pitch();
    for (Int i = 0; i < met_rows(); ++i) {
      A* const to = gradients_ + i * pitch + across_.most_shift * axes_.inner;
      if (first + i < 0 || first + i >= rows.output) {
        fill<A>(to, last.output * axes_.inner, 0);
        continue;
      }
      divide_by(taps_of(planes, plane, 0), taps_of(rows, first + i, 0));
      read_divided(to, g_ + ((outer * planes.output + plane) * rows.output + first + i) * last.output * axes_.inner);
    }
    for (int b = 0; b < down_.count; ++b) {
      const Run met = rows_of(b, row, n);
      for (int p = 0; met.count > 0 && p < across_.count; ++p) {
        int reads = 0;
        for (Int w = rows.taps - 1; w >= 0; --w)
          for (Int t = 0; t < last.taps; ++t) {
            if (down_.phase[w] != b || across_.phase[t] != p) continue;
            now_[reads] = weights_[(h * rows.taps + w) * last.taps + t];
            taps_[0][reads++] = gradients_ + (met.at - down_.shift[w] - first) * pitch + (across_.most_shift - across_.shift[t]) * axes_.inner;
          }
        add_weighted(sums_[0] + (b * across_.count + p) * line_lanes(), reads, met.count * pitch);
      }
    }
  }
  // The numbers of a phase's rows among n rows from `row` on.
  Run rows_of(int b, Int row, Int n) const {
    const Wide ahead = Wide(row) - axes_.rows.start - down_.begin[b];
    const Int from = ceil_div(ahead, axes_.rows.step);
    return {floor_div(ahead + n - 1, axes_.rows.step) - from + 1, from, 0, 0, 0};
  }
  POOLWISE_OUTLINE void add_weighted(A* to, int reads, Int lanes) const {
    for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, M> sums[U];
      for (int u = 0; u < U; ++u) sums[u] = load<A, M>(to + lane + u * M);
      for (int i = 0; i < reads; ++i)
        for (int u = 0; u < U; ++u) sums[u] += load<A, M>(taps_[0][i] + lane + u * M) * now_[i];
      for (int u = 0; u < U; ++u) store<M, A>(to + lane + u * M, sums[u]);
    });
  }
  POOLWISE_OUTLINE void write_weighted(Int unit, Int row, Int n) {
    for (Int r = 0; r < n; ++r) {
      T* const to = gx_ + (unit + r) * axes_.last.size * axes_.inner;
      int b = 0;
      while (b < down_.count && modulo(Wide(row) + r - axes_.rows.start - down_.begin[b], axes_.rows.step) != 0) ++b;
      if (b == down_.count)
        fill_nothing(to, axes_.last.size * axes_.inner);
      else
        write_row(to, sums_[0] + b * across_.count * line_lanes() + rows_of(b, row, r + 1).count * met_pitch() - met_pitch(), line_lanes());
    }
  }

  // What each window of a row divides by: the weights of the taps that it has.
  POOLWISE_INLINE void divide_by(Taps high, Taps wide) {
    if (high.first == high_.first && high.count == high_.count && wide.first == wide_.first && wide.count == wide_.count) return;
    high_ = high, wide_ = wide;
    find_divisors();
  }
  POOLWISE_OUTLINE void find_divisors() {
    const Axis &rows = axes_.rows, &last = axes_.last;
    A of_tap[most_window_taps] = {};
    for (Int h = high_.first; h < high_.first + high_.count; ++h)
      for (Int w = wide_.first; w < wide_.first + wide_.count; ++w)
        for (Int t = 0; t < last.taps; ++t) of_tap[t] += weights_[(h * rows.taps + w) * last.taps + t];
    even_ = true;
    for (Int j = 0; j < last.output; ++j) {
      const Taps across = taps_of(last, j, 0);
      A sum = 0;
      for (Int t = across.first; t < across.first + across.count; ++t) sum += of_tap[t];
      even_ = even_ && sum == 1;
      fill<A>(divisors_ + j * axes_.inner, axes_.inner, sum);
    }
  }
  POOLWISE_OUTLINE void read_divided(A* to, const T* from) const {
    for_lanes<N>(axes_.last.output * axes_.inner, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const auto g = load<A, M>(from + lane + u * M);
        store<M, A>(to + lane + u * M, even_ ? g : g / load<A, M>(divisors_ + lane + u * M));
      }
    });
  }

  // ---- the rows of the band ----

  // What row r of the windows sends, whose first tap stands on row `first` of the band's n.
  POOLWISE_INLINE void add_row(Int first, Int n, Int r, Taps wide) {
    const Axis &rows = axes_.rows, &last = axes_.last;
    const Int lanes = last.output * axes_.inner;
    for (Int w = wide.first; w < wide.first + wide.count; ++w) {
      const Int row = first + w * rows.dilation;
      if (row < 0 || row >= n) continue;
      for (int e = 0; e < each; ++e)
        for (Int t = 0; t < last.taps; ++t)
          add<N>(sums_[e] + row * sums_lanes_ + across_.phase[t] * stride_ + across_.shift[t] * axes_.inner, shares_[e][w * last.taps + t] + r * lines_.pitch(), lanes);
    }
  }
  template <int M>
  POOLWISE_INLINE static void add(A* to, const A* from, Int n) {
    Int lane = 0;
    for (; lane + M <= n; lane += M) store<M, A>(to + lane, load<A, M>(to + lane) + load<A, M>(from + lane));
    if constexpr (M > 1) add<M / 2>(to + lane, from + lane, n - lane);
  }

  // A row of the input from the sums of its phases; cell 0 of phase p stands in column start + begin(p).
  template <class E>
  POOLWISE_OUTLINE void write_row(E* to, const A* sums, Int stride) {
    const Axis& last = axes_.last;
    const Int inner = axes_.inner, step = last.step;
    const Wide past = Wide(cells_) * step + last.start;
    const Int begin = smaller(last.size, larger(0, last.start)), end = larger(begin, past < last.size ? static_cast<Int>(past) : last.size);
    if (step == 1) {
      fill_nothing(to, begin * inner), fill_nothing(to + end * inner, (last.size - end) * inner);
      return copy_lanes<A>(to + begin * inner, sums + (begin - last.start) * inner, (end - begin) * inner);
    }
    if (weaves()) {
      const A* phases[most_woven_windows] = {none_, none_, none_};
      for (int p = 0; p < across_.count; ++p) phases[across_.begin[p]] = sums + p * stride;
      E* const woven = reinterpret_cast<E*>(woven_);
      step == 2 ? weave_row<2>(woven, phases) : weave_row<3>(woven, phases);
      fill_nothing(to, begin), fill_nothing(to + end, last.size - end);
      if (begin < end) std::memcpy(static_cast<void*>(to + begin), woven + begin - last.start, static_cast<std::size_t>(end - begin) * sizeof(E));
      return;
    }
    fill_nothing(to, last.size * inner);
    for (int p = 0; p < across_.count; ++p) {
      const Int column = last.start + across_.begin[p];
      const Int from = larger(0, ceil_div(-Wide(column), step)), stop = smaller(cells_, ceil_div(Wide(last.size) - column, step));
      for (Int cell = from; cell < stop; ++cell) copy_lanes<A>(to + (column + cell * step) * inner, sums + p * stride + cell * inner, inner);
    }
  }
  template <int S, class E>
  POOLWISE_INLINE void weave_row(E* woven, const A* const* phases) {
    for (Int lane = 0; lane < cells_; lane += N) {
      Pack<A, N> packs[S];
      for (int s = 0; s < S; ++s) packs[s] = load<A, N>(phases[s] + lane);
      weave<S, A, N>(woven + S * lane, packs, std::make_integer_sequence<int, S>{});
    }
  }
  template <class E>
  static POOLWISE_INLINE void fill_nothing(E* to, Int n) {
    if (n > 0) std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(n) * sizeof(E));
  }

  const WindowAxes axes_;
  B body_;
  const T* g_;
  T* gx_;
  float* gradient_beside_;
  const TapPhases down_, across_;  // of the sums
  const Int band_;
  const bool raises_;
  WindowLines<typename B::Reader, A> lines_;
  std::optional<WindowLines<Plain<float, A>, A>> beside_;  // of a body that is paired
  const Int cells_, phase_, stride_, sums_lanes_;  // of a phase, its lanes, those with what packs run over, those of all phases of a row
  Int count_ = 0;
  const A* taps_[each][most_window_taps] = {};  // or what a phase reads
  const A* raised_[most_window_taps] = {};
  A* to_[each][most_window_taps] = {};
  A* shares_[each][most_window_taps] = {};
  A weights_[most_window_taps] = {}, now_[most_window_taps] = {};
  A *gradients_ = nullptr, *divisors_ = nullptr, *sums_[each] = {}, *none_ = nullptr;
  Taps high_{0, -1}, wide_{0, -1};  // of the divisors
  bool even_ = false;               // all of which are 1
  A* woven_ = nullptr;
};

}  // namespace poolwise::POOLWISE_ISA
