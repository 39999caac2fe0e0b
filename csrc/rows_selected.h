// Selections of rows that fit a few packs: each row is reduced along itself and held, and what is held is reduced down. Both ways
// windows of 2 w taps are two of w, upon each other where that is too many.
#pragma once

#include "rows.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int rows_worth_doubling = 8;  // taps; fewer are merged one after the other

template <class R>
inline constexpr bool calms = requires { requires R::calms; };

template <class R, class K>
class RowsSelected : public Rows<R, K> {
  using Base = Rows<R, K>;
  using typename Base::A, typename Base::Across, typename Base::Out, typename Base::T;
  using Base::N, Base::rows_, Base::last_, Base::layout_, Base::reduction_, Base::across_, Base::across_count_, Base::out_, Base::kept_out_, Base::arena_;
  template <int M>
  using State = typename R::template State<M>;

 public:
  RowsSelected(const Plan& plan, const Buffers& buffers) : Base(plan, buffers, 2 * Line<R>::room(held_lanes_of(plan))) {
    const Int held = held_lanes_of(plan);
    held_ = Line<R>(arena_, held);
    doubled_ = Line<R>(arena_, held);
    for (Int lane = 0; lane < held; lane += N) held_.template store<N>(lane, reduction_.template nothing<N>());
    if (last_.spans == nullptr) this->find_doublings(last_.taps);
  }

  void run(Int begin, Int end) {
    this->for_planes(begin, end, [this]<int P, int Q>(const T* from, Int apart) POOLWISE_LAMBDA {
      if constexpr (calms<R>)
        if (hold<P, Q, true>(from, apart)) return down<Q, true>();
      hold<P, Q, false>(from, apart);
      down<Q, false>();
    });
  }

 private:
  static Int held_lanes_of(const Plan& plan) {
    const RowsLayout layout = rows_layout<R>(plan);
    return layout.slots * layout.left * N;
  }

  template <bool Calm>
  static POOLWISE_INLINE State<N> joined(const R& reduction, const State<N>& a, const State<N>& b) {
    if constexpr (Calm)
      return reduction.template calmly<N>(a, b);
    else
      return reduction.template merged<N>(a, b);
  }

  // ---- along the rows ----

  // Whether all was calm; else what is held means nothing.
  template <int P, int Q, bool Calm>
  POOLWISE_INLINE bool hold(const T* from, Int apart) {
    constexpr int U = 4 / P;  // rows at once
    LaneSet<A, N> inside[P], calm = LaneSet<A, N>::all();
    for (int p = 0; p < P; ++p) inside[p] = this->inside(p);
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
    State<N> state[U][P];
    const State<N> nothing = reduction.template nothing<N>();
    for (int u = 0; u < U; ++u)
      for (int p = 0; p < P; ++p) {
        const auto v = reduction.template read<N>(from + u * apart + p * N);
        __builtin_prefetch(reinterpret_cast<const char*>(from + u * apart + p * N) + prefetch_distance);
        if constexpr (Calm) calm &= R::template calm<N>(v);
        state[u][p] = reduction.template taken<N>(inside[p].of(v, nothing.value), 0);
        if constexpr (Line<R>::two) state[u][p].second = inside[p].of(state[u][p].second, nothing.second);
      }
    if (P <= 2 && last_.spans != nullptr) {
      for (int u = 0; u < U; ++u) to.template store<N>(u * N, P == 1 ? in_bins<Calm>(reduction, state[u][0], nothing) : in_bins<Calm>(reduction, state[u][0], state[u][P - 1]));
      return;
    }
    for (Int k = 0; k < across_count_; ++k) merge_behind<P, Calm, U>(reduction, state, nothing, across_[k]);
    for (int u = 0; u < U; ++u) {
      this->template pick<Q>(state[u], nothing);
      for (int q = 0; q < Q; ++q) to.template store<N>((u * Q + q) * N, state[u][q]);
    }
  }

  template <bool Calm>
  POOLWISE_INLINE State<N> in_bins(const R& reduction, State<N> a, State<N> b) const {
    State<N> all = Base::lanes_of(a, b, across_[0].lanes);
    for (Int t = 1; t < across_count_; ++t) all = joined<Calm>(reduction, all, reduction.template moved<N>(Base::lanes_of(a, b, across_[t].lanes), t));
    return all;
  }

  template <int P, bool Calm, int U>
  POOLWISE_INLINE void merge_behind(const R& reduction, State<N> (&state)[U][P], const State<N>& nothing, const Across& step) {
    if (P == 1 || step.behind == 0) return merge_by<P, Calm, U, 0>(reduction, state, nothing, step);
    if constexpr (P > 3)
      if (step.behind == 3) return merge_by<P, Calm, U, 3>(reduction, state, nothing, step);
    if constexpr (P > 2)
      if (step.behind == 2) return merge_by<P, Calm, U, 2>(reduction, state, nothing, step);
    if constexpr (P > 1) merge_by<P, Calm, U, 1>(reduction, state, nothing, step);
  }
  template <int P, bool Calm, int U, int Behind>
  POOLWISE_INLINE void merge_by(const R& reduction, State<N> (&state)[U][P], const State<N>& nothing, const Across& step) {
    const auto lanes = step.lanes;
    const Int taps = step.taps;
    for (int u = 0; u < U; ++u)
      for (int p = 0; p + Behind < P; ++p) {
        const int next = p + Behind + 1;  // no state is chosen as a whole: that would go through memory
        const State<N> behind = next < P ? Base::lanes_of(state[u][p + Behind], state[u][next % P], lanes) : Base::lanes_of(state[u][p + Behind], nothing, lanes);
        state[u][p] = joined<Calm>(reduction, state[u][p], reduction.template moved<N>(behind, taps));
      }
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
    Out* out = out_;
    K* kept = kept_out_;
    for (Int i = 0; i < rows_.output; ++i, out += n) {
      const Int slot = spans != nullptr ? spans[i].first * Q * N : i * step, taps = Count > 0 ? Count : spans != nullptr ? spans[i].count : rows_.taps;
      const auto tap = [&](int q, Int t) POOLWISE_LAMBDA { return reduction.template moved<N>(held.template load<N>(slot + t * apart + q * N), t * places); };
      State<N> state[Q];
      for (int q = 0; q < Q; ++q) state[q] = taps > 0 ? tap(q, 0) : reduction.template nothing<N>();
      for (Int t = 1; t < taps; ++t)
        for (int q = 0; q < Q; ++q) state[q] = joined<Calm>(reduction, state[q], tap(q, t));
      for (int q = 0; q < Q; ++q) {  // what is beyond the row is written over by the next one
        if (Q > 1 && q * N >= n) break;
        const State<N> done = reduction.template finished<N>(state[q]);
        __builtin_prefetch(reinterpret_cast<const char*>(out + q * N) + prefetch_distance, 1);
        reduction.template write<N>(out + q * N, done, Pack<A, N>{});
        if constexpr (R::places) store<N, typename R::Second>(kept + q * N, reduction.template place<N>(done));
      }
      if constexpr (R::places) kept += n;
    }
  }

  template <int Q, bool Calm>
  POOLWISE_INLINE void double_rows() {
    const R reduction = reduction_;
    const Line<R> to = doubled_;
    const Int taps = rows_.taps;
    Int whole = layout_.slots;  // rows from which on all of a window's taps are held
    for (Int width = 1; width < taps;) {
      const Line<R> from = width == 1 ? held_ : doubled_;
      const Int more = smaller(width, taps - width), by = more * rows_.dilation, places = R::places ? more * last_.taps : 0;
      whole -= by;
      for (Int lane = 0; lane < whole * Q * N; lane += N)
        to.template store<N>(lane, joined<Calm>(reduction, from.template load<N>(lane), reduction.template moved<N>(from.template load<N>(lane + by * Q * N), places)));
      width += more;
    }
  }

  Line<R> held_, doubled_;
};

}  // namespace poolwise::POOLWISE_ISA
