// Forward where a row, with what surrounds it, fills at most a few packs. It goes from memory into registers once and is reduced
// there along itself, by lanes that move past each other; what is left is held, row by row, and reduced down. Both ways taps
// are doubled: a window of 2 w is two of w, one after the other, or upon each other where taking an element twice is no harm.
#pragma once

#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_row_packs = 4;
constexpr Int most_row_taps = 64;
constexpr Int most_doublings = 16;        // of so many taps
constexpr Int held_rows_bytes = 1 << 15;  // of one plane, which should stay in the first cache
constexpr Int rows_worth_doubling = 8;    // taps; fewer are merged one after the other
constexpr Int most_bin_taps = 8;          // of uneven windows along a row: each tap is picked by itself

// All windows so far, merged with those that begin so many taps behind; or with the single elements there.
struct Doubling {
  Int by;
  bool single;
};

// Lists what makes windows of `count` taps from single elements.
POOLWISE_OUTLINE Int doublings(Int count, bool idempotent, Doubling* list) {
  Int n = 0, width = 1, bit = 1;
  if (idempotent) {
    for (; 2 * width <= count; width *= 2) list[n++] = {width, false};
    if (count > width) list[n++] = {count - width, false};
    return n;
  }
  while (2 * bit <= count) bit *= 2;
  for (bit /= 2; bit > 0; bit /= 2) {
    list[n++] = {width, false}, width *= 2;
    if ((count & bit) != 0) list[n++] = {width++, true};
  }
  return n;
}

// How a plane's rows lie in packs.
struct RowsLayout {
  bool serves = false, picks = false;  // picks: a step along the row, or uneven windows
  Int packs = 0, left = 0;             // of a row, and of what it is reduced to
  Int slots = 0;                       // rows that are held, those in the padding too
  Int first = 0, rows = 0;             // which of them are there
};

template <class R>
POOLWISE_OUTLINE RowsLayout rows_layout(const Plan& plan) {
  constexpr Int N = full<typename R::Accumulator>;
  RowsLayout layout;
  const Block& block = plan.block;
  if (!block.unfolded() || block.inner != 1) return layout;
  const Axis &planes = block.axes[0], &rows = block.axes[1], &last = block.axes[2];
  if (planes.size != 1 || planes.output != 1 || planes.taps != 1 || planes.start != 0 || planes.spans != nullptr) return layout;
  constexpr Int most = held_rows_bytes;
  for (const Axis* axis : {&rows, &last})
    if (axis->span_planes > 1 || axis->taps > (axis->spans != nullptr ? most : most_row_taps) || axis->size > most || axis->output > most ||
        axis->step > most || axis->dilation > most || larger(axis->start, -axis->start) > most)
      return layout;
  if (last.spans != nullptr) {
    if (last.taps > most_bin_taps || last.size == 2 * N || last.output > N) return layout;  // there has to be a lane where nothing is
    layout.picks = true;
    layout.packs = ceil_div(last.size, N);
  } else {
    const Int begins = (last.output - 1) * last.step + 1, ends = begins + (last.taps - 1) * last.dilation;
    layout.picks = last.step > 1;
    layout.packs = ceil_div(larger(begins, smaller(ends, last.size - last.start)), N);
  }
  const bool pairs = last.spans == nullptr && last.step <= 2;  // what is left of two packs is one
  layout.left = layout.picks ? ceil_div(layout.packs, 2) : layout.packs > 2 ? layout.packs : ceil_div(last.output, N);
  if (layout.packs > (pairs && sizeof(typename R::Accumulator) >= 4 ? most_row_packs : 2)) return layout;
  layout.slots = rows.spans != nullptr ? rows.size : (rows.output - 1) * rows.step + (rows.taps - 1) * rows.dilation + 1;
  layout.first = smaller(layout.slots, larger(0, -rows.start));
  layout.rows = larger(0, smaller(rows.size - rows.start, layout.slots) - layout.first);
  layout.serves = layout.slots * layout.left * POOLWISE_VECTOR_BYTES * (Line<R>::two ? 2 : 1) <= held_rows_bytes;
  return layout;
}

template <class R>
inline constexpr bool calms = requires { requires R::calms; };

template <class R, class K>
class RowsForward {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  using L = Lane<A>;
  static constexpr int N = full<A>;
  template <int M>
  using State = typename R::template State<M>;
  using Pick = Pack<L, N>;

 public:
  // Types whose rows are short often enough, and whose lanes can be moved at run time.
  static constexpr bool wanted = picks_at_run<A> && std::is_floating_point_v<Number<T>> &&
                                 (R::idempotent || std::is_same_v<R, Total<T, Number<T>>> || std::is_same_v<R, Total<T, double>>);

  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    return buffers.mask == nullptr && rows_layout<R>(plan).serves && row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even;
  }
  static Units units(const Plan& plan) { return {plan.block.outer}; }

  RowsForward(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        reduction_(plan),
        layout_(rows_layout<R>(plan)),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        kept_(static_cast<K*>(buffers.kept)),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        stop_(last_row(plan.block, strides_) + last_.size) {
    const Int row = layout_.left * N, held = layout_.slots * row, outputs = rows_.output * last_.output + most_row_packs * N;
    const Int spare = layout_.rows * layout_.packs * N;
    Arena arena(scratch(static_cast<std::size_t>(2 * Line<R>::room(held) + Arena::room<T>(spare) + Arena::room<A>(rows_.output * row) +
                                                 Arena::room<K>(outputs) + Arena::room<Out>(outputs) + Stream<Out>::room(outputs))));
    held_ = Line<R>(arena, held);
    doubled_ = Line<R>(arena, held);
    spare_ = arena.take<T>(spare);
    divisors_ = arena.take<A>(rows_.output * row);
    bounced_kept_ = arena.take<K>(outputs);
    bounced_ = arena.take<Out>(outputs);
    stream_ = Stream<Out>(arena, outputs);
    streams_ = plan.output_size * Int(sizeof(Out)) >= bytes_worth_streaming;
    std::memset(static_cast<void*>(spare_), 0, static_cast<std::size_t>(spare) * sizeof(T));
    for (Int lane = 0; lane < held; lane += N) held_.template store<N>(lane, reduction_.template nothing<N>());
    last_.spans != nullptr ? find_bins() : find_doublings();
    if (rows_.spans == nullptr) down_count_ = doublings(rows_.taps, R::idempotent, down_);
    if constexpr (R::divides)
      if (reduction_.is_mean) find_divisors();
  }

  void run(Int begin, Int end) {
    end_ = end * rows_.output * last_.output;
    if (streams_) stream_.start(y_ + begin * rows_.output * last_.output);
    if (layout_.packs == 1)
      run_by<1, 1>(begin, end);
    else if (layout_.packs == 2)
      layout_.left == 1 ? run_by<2, 1>(begin, end) : run_by<2, 2>(begin, end);
    else if constexpr (sizeof(A) >= 4)
      run_wide(begin, end);
    if (streams_) stream_.finish();
  }

 private:
  // What one doubling along a row does: packs `behind` and the next, from these lanes of theirs on.
  struct Across {
    int behind;
    bool single;
    Int taps;
    Pick lanes;
  };

  void run_wide(Int begin, Int end) {
    if (layout_.packs == 3)
      layout_.left == 2 ? run_by<3, 2>(begin, end) : run_by<3, 3>(begin, end);
    else
      layout_.left == 2 ? run_by<4, 2>(begin, end) : run_by<4, 4>(begin, end);
  }

  // P: packs of a row; Q: of what it is reduced to.
  template <int P, int Q>
  POOLWISE_OUTLINE void run_by(Int begin, Int end) {
    const Int n = rows_.output * last_.output;
    const bool any = layout_.rows > 0;  // where a plane has no row to read, its stride means nothing
    const Int first = (any ? (rows_.start + layout_.first) * strides_.row : 0) + last_.start, reach = (any ? (layout_.rows - 1) * strides_.row : 0) + P * N;
    for (Int plane = begin; plane < end; ++plane) {
      const Int at = plane * strides_.outer + first;
      const bool safe = at >= 0 && at + reach <= stop_ && strides_.row >= 0;
      const T* from = safe ? x_ + at : spare_rows<P>(x_ + at);
      const Int apart = safe ? strides_.row : P * N;
      const bool fits = plane * n + n + Q * N <= end_;
      out_ = streams_ ? stream_.next() : fits ? y_ + plane * n : bounced_;
      if constexpr (R::places) kept_out_ = fits ? kept_ + plane * n : bounced_kept_;
      plane_by<P, Q>(from, apart);
      if (streams_)
        stream_.wrote(n);
      else if (!fits)
        std::memcpy(static_cast<void*>(y_ + plane * n), bounced_, static_cast<std::size_t>(n) * sizeof(Out));
      if constexpr (R::places)
        if (!fits) std::memcpy(kept_ + plane * n, bounced_kept_, static_cast<std::size_t>(n) * sizeof(K));
    }
  }

  // The rows of a plane around which there may be no memory to read.
  template <int P>
  POOLWISE_OUTLINE const T* spare_rows(const T* from) {
    const Int before = larger(0, -last_.start), cells = larger(0, smaller(last_.size - larger(0, last_.start), P * N - before));
    for (Int r = 0; r < layout_.rows; ++r)
      std::memcpy(static_cast<void*>(spare_ + r * P * N + before), from + r * strides_.row + before, static_cast<std::size_t>(cells) * sizeof(T));
    return spare_;
  }

  template <int P, int Q>
  POOLWISE_INLINE void plane_by(const T* from, Int apart) {
    if constexpr (calms<R>)
      if (hold<P, Q, true>(from, apart)) return down<Q, true>();
    hold<P, Q, false>(from, apart);
    down<Q, false>();
  }

  // ---- along the rows ----

  // Whether all was calm; else what is held means nothing.
  template <int P, int Q, bool Calm>
  POOLWISE_INLINE bool hold(const T* from, Int apart) {
    constexpr int U = 4 / P;  // rows at once
    LaneSet<A, N> inside[P], calm = LaneSet<A, N>::all();
    for (int p = 0; p < P; ++p) inside[p] = LaneSet<A, N>::between(-last_.start - p * N, last_.size - last_.start - p * N);
    const R reduction = reduction_;
    const Line<R> held = held_.from(layout_.first * Q * N);
    const Int rows = layout_.rows;
    Int row = 0;
    for (; row + U <= rows; row += U) hold_rows<P, Q, Calm, U>(reduction, from + row * apart, apart, held.from(row * Q * N), inside, calm);
    for (; row < rows; ++row) hold_rows<P, Q, Calm, 1>(reduction, from + row * apart, apart, held.from(row * Q * N), inside, calm);
    return !Calm || calm.is_all();
  }

  template <int P, int Q, bool Calm, int U>
  POOLWISE_INLINE void hold_rows(const R& reduction, const T* from, Int apart, const Line<R>& to, const LaneSet<A, N> (&inside)[P], LaneSet<A, N>& calm) {
    State<N> single[U][P], state[U][P];
    const State<N> nothing = reduction.template nothing<N>();
    for (int u = 0; u < U; ++u)
      for (int p = 0; p < P; ++p) {
        const auto v = reduction.template read<N>(from + u * apart + p * N);
        __builtin_prefetch(reinterpret_cast<const char*>(from + u * apart + p * N) + prefetch_distance);
        if constexpr (Calm) calm &= R::template calm<N>(v);
        single[u][p] = reduction.template taken<N>(inside[p].of(v, nothing.value), 0);
        if constexpr (Line<R>::two) single[u][p].second = inside[p].of(single[u][p].second, nothing.second);
        state[u][p] = single[u][p];
      }
    if (P <= 2 && last_.spans != nullptr) {
      for (int u = 0; u < U; ++u) {
        const auto tap = [&](Int t) POOLWISE_LAMBDA {
          if constexpr (P == 2)
            return lanes_of(single[u][0], single[u][1], across_[t].lanes);
          else
            return lanes_of(single[u][0], nothing, across_[t].lanes);
        };
        State<N> all = tap(0);
        for (Int t = 1; t < across_count_; ++t) all = joined<Calm>(reduction, all, reduction.template moved<N>(tap(t), t));
        to.template store<N>(u * N, all);
      }
      return;
    }
    for (Int k = 0; k < across_count_; ++k) {
      const Across& step = across_[k];
      if constexpr (R::idempotent)
        merge_behind<P, Calm, U>(reduction, state, state, step);
      else
        step.single ? merge_behind<P, Calm, U>(reduction, state, single, step) : merge_behind<P, Calm, U>(reduction, state, state, step);
    }
    for (int u = 0; u < U; ++u) {
      if (P == 1 || P == 2 * Q ? layout_.picks : Q < P)
        for (int q = 0; 2 * q < P; ++q)
          state[u][q] = 2 * q + 1 < P ? lanes_of(state[u][2 * q], state[u][(2 * q + 1) % P], picked_) : lanes_of(state[u][2 * q], nothing, picked_);
      for (int q = 0; q < Q; ++q) to.template store<N>((u * Q + q) * N, state[u][q]);
    }
  }

  template <int P, bool Calm, int U>
  POOLWISE_INLINE void merge_behind(const R& reduction, State<N> (&state)[U][P], const State<N> (&with)[U][P], const Across& step) {
    if (P == 1 || step.behind == 0) return merge_by<P, Calm, U, 0>(reduction, state, with, step);
    if constexpr (P > 3)
      if (step.behind == 3) return merge_by<P, Calm, U, 3>(reduction, state, with, step);
    if constexpr (P > 2)
      if (step.behind == 2) return merge_by<P, Calm, U, 2>(reduction, state, with, step);
    if constexpr (P > 1) merge_by<P, Calm, U, 1>(reduction, state, with, step);
  }
  template <int P, bool Calm, int U, int Behind>
  POOLWISE_INLINE void merge_by(const R& reduction, State<N> (&state)[U][P], const State<N> (&with)[U][P], const Across& step) {
    const State<N> nothing = reduction.template nothing<N>();
    const Pick lanes = step.lanes;
    const Int taps = step.taps;
    for (int u = 0; u < U; ++u)
      for (int p = 0; p + Behind < P; ++p) {
        const int next = p + Behind + 1;
        const State<N> behind = next < P ? lanes_of(with[u][p + Behind], with[u][next % P], lanes) : lanes_of(with[u][p + Behind], nothing, lanes);
        state[u][p] = joined<Calm>(reduction, state[u][p], reduction.template moved<N>(behind, taps));
      }
  }

  static POOLWISE_INLINE State<N> lanes_of(const State<N>& a, const State<N>& b, Pick lanes) {
    if constexpr (Line<R>::two)
      return {picked_at_run<A, N>(a.value, b.value, lanes), picked_at_run<typename R::Second, N>(a.second, b.second, lanes)};
    else
      return {picked_at_run<A, N>(a.value, b.value, lanes)};
  }

  template <bool Calm>
  static POOLWISE_INLINE State<N> joined(const R& reduction, const State<N>& a, const State<N>& b) {
    if constexpr (Calm)
      return reduction.template calmly<N>(a, b);
    else
      return reduction.template merged<N>(a, b);
  }

  // ---- down ----

  template <int Q, bool Calm>
  POOLWISE_INLINE void down() {
    if (rows_.spans != nullptr) return down_taps<Q, Calm, 0>(held_);
    if (rows_.taps >= rows_worth_doubling && rows_.taps > rows_.step) {
      double_rows<Q, Calm>();
      return down_taps<Q, Calm, 1>(doubled_);
    }
    switch (rows_.taps) {
      case 2: return down_taps<Q, Calm, 2>(held_);
      case 3: return down_taps<Q, Calm, 3>(held_);
      default: down_taps<Q, Calm, 0>(held_);
    }
  }
  // Count is the number of taps where the compiler knows it, else 0.
  template <int Q, bool Calm, int Count>
  POOLWISE_INLINE void down_taps(const Line<R> held) {
    const R reduction = reduction_;
    const Int step = rows_.step * Q * N, apart = rows_.dilation * Q * N, n = last_.output, places = R::places ? last_.taps : 0;
    const Span* const spans = Count > 0 ? nullptr : rows_.spans;
    const A* divisors = divisors_;
    Out* out = out_;
    K* kept = kept_out_;
    for (Int i = 0; i < rows_.output; ++i, out += n, divisors += Q * N) {
      const Int slot = spans != nullptr ? spans[i].first * Q * N : i * step, taps = Count > 0 ? Count : spans != nullptr ? spans[i].count : rows_.taps;
      const auto tap = [&](int q, Int t) POOLWISE_LAMBDA { return reduction.template moved<N>(held.template load<N>(slot + t * apart + q * N), t * places); };
      State<N> state[Q];
      for (int q = 0; q < Q; ++q) {
        if constexpr (!R::idempotent)
          state[q] = taps > 0 ? balanced<R, N, Count>(reduction, taps, [&](Int t) POOLWISE_LAMBDA { return tap(q, t); }) : reduction.template nothing<N>();
        else
          state[q] = taps > 0 ? tap(q, 0) : reduction.template nothing<N>();
      }
      for (Int t = 1; R::idempotent && t < taps; ++t)
        for (int q = 0; q < Q; ++q) state[q] = joined<Calm>(reduction, state[q], tap(q, t));
      for (int q = 0; q < Q; ++q) {  // what is beyond the row is written over by the next one
        if (Q > 1 && q * N >= n) break;
        Pack<A, N> divisor{};
        if constexpr (R::divides)
          if (reduction.is_mean) divisor = load<A, N>(divisors + q * N);
        const State<N> done = reduction.template finished<N>(state[q]);
        __builtin_prefetch(reinterpret_cast<const char*>(out + q * N) + prefetch_distance, 1);
        reduction.template write<N>(out + q * N, done, divisor);
        if constexpr (R::places) store<N, typename R::Second>(kept + q * N, reduction.template place<N>(done));
      }
      if constexpr (R::places) kept += n;
    }
  }

  template <int Q, bool Calm>
  POOLWISE_INLINE void double_rows() {
    const R reduction = reduction_;
    const Line<R> to = doubled_;
    for (Int k = 0, whole = layout_.slots; k < down_count_; ++k) {
      const Doubling step = down_[k];
      const Line<R> from = k == 0 ? held_ : doubled_, with = step.single ? held_ : from;
      const Int by = step.by * rows_.dilation, places = R::places ? step.by * last_.taps : 0;
      whole = smaller(whole, (step.single ? layout_.slots : whole) - by);
      for (Int lane = 0; lane < whole * Q * N; lane += N)
        to.template store<N>(lane, joined<Calm>(reduction, from.template load<N>(lane), reduction.template moved<N>(with.template load<N>(lane + by * Q * N), places)));
    }
  }

  void find_doublings() {
    Doubling list[most_doublings];
    for (Int n = doublings(last_.taps, R::idempotent, list), k = 0; k < n; ++k) {
      const Int lanes = list[k].by * last_.dilation;
      if (lanes >= layout_.packs * N) continue;  // nothing is there
      across_[across_count_++] = {static_cast<int>(lanes / N), list[k].single, list[k].by, counted<L, N>() + every<L, N>(static_cast<L>(lanes % N))};
    }
    picked_ = counted<L, N>() * every<L, N>(static_cast<L>(layout_.picks ? last_.step : 1));
  }
  // Where the taps of all windows stand; of those that a window lacks, where nothing does.
  void find_bins() {
    const Int nowhere = layout_.packs == 1 ? N : last_.size;
    across_count_ = last_.taps;
    for (Int t = 0; t < last_.taps; ++t) {
      across_[t].taps = t;
      for (Int j = 0; j < N; ++j) {
        const Span span = j < last_.output ? last_.spans[j] : Span{0, 0};
        across_[t].lanes[j] = static_cast<L>(t < span.count ? span.first + t : nowhere);
      }
    }
  }

  void find_divisors() {
    const Int row = layout_.left * N;
    double across[most_row_packs * N];
    for (Int j = 0; j < last_.output; ++j) across[j] = plan_.divided_by(last_, true, j, 0);
    fill<A>(divisors_, rows_.output * row, A(1));
    for (Int i = 0; i < rows_.output; ++i) {
      const double down = plan_.divided_by(rows_, false, i, 0);
      for (Int j = 0; j < last_.output; ++j) divisors_[i * row + j] = R::written_by(static_cast<A>(down * across[j]));
    }
  }

  const Plan& plan_;
  const Axis &rows_, &last_;
  const R reduction_;
  const RowsLayout layout_;
  const T* x_;
  Out* y_;
  K* kept_;
  RowStrides strides_;
  Int stop_;       // where the array ends
  Int end_ = 0;    // of what this thread writes
  Line<R> held_, doubled_;
  T* spare_;
  A* divisors_;
  K *bounced_kept_, *kept_out_ = nullptr;
  Out *bounced_, *out_ = nullptr;
  Stream<Out> stream_;
  bool streams_ = false;
  Int across_count_ = 0, down_count_ = 0;
  Across across_[most_doublings];
  Doubling down_[most_doublings];
  Pick picked_;
};

}  // namespace poolwise::POOLWISE_ISA
