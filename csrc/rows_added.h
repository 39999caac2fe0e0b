// Sums over rows that fit a few packs: the rows of a window are added, and what they come to along itself. Every sum is added up in
// the order of the engine of lines, so that it is the same whichever of the two serves: which rows fit is the instruction set's.
#pragma once

#include "rows.h"

namespace poolwise::POOLWISE_ISA {

template <class R, class K>
class RowsAdded : public Rows<R, K> {
  using Base = Rows<R, K>;
  using typename Base::A, typename Base::Across, typename Base::Out, typename Base::T;
  using Base::N, Base::rows_, Base::last_, Base::layout_, Base::reduction_, Base::plan_, Base::across_, Base::across_count_, Base::out_, Base::arena_;
  template <int M>
  using State = typename R::template State<M>;
  using Few = typename FewOf<R>::type;

  struct Window {
    Int first, count;  // of the rows that are there: which of the plane, and how many
    A divisor;
  };

 public:
  RowsAdded(const Plan& plan, const Buffers& buffers)
      : Base(plan, buffers, Arena::room<Window>(plan.block.axes[1].output) + Arena::room<A>(most_row_packs * N)) {
    windows_ = arena_.template take<Window>(rows_.output);
    divisors_ = arena_.template take<A>(most_row_packs * N);
    for (Int i = 0; i < rows_.output; ++i) {
      const Taps taps = taps_of(rows_, i, 0);
      const Int row = rows_.first(i) + taps.first * rows_.dilation - rows_.start - layout_.first;
      windows_[i] = {taps.count > 0 ? row : 0, taps.count, A(1)};
      if (reduction_.is_mean) windows_[i].divisor = R::written_by(static_cast<A>(divided_by(plan_, plan_.block.axes[0], false, 0, 0) * divided_by(plan_, rows_, false, i, 0)));
    }
    fill<A>(divisors_, most_row_packs * N, A(1));
    for (Int j = 0; reduction_.is_mean && j < last_.output; ++j) divisors_[j] = R::written_by(static_cast<A>(divided_by(plan_, last_, true, j, 0)));
    if (layout_.doubles) this->find_doublings(layout_.taps);
    for (Int t = 0; !layout_.doubles && last_.spans == nullptr && t < layout_.taps; ++t) this->add_across(t);
  }

  void run(Int begin, Int end) {
    this->for_planes(begin, end, [this]<int P, int Q>(const T* from, Int apart) POOLWISE_LAMBDA {
      switch (layout_.doubles || last_.spans != nullptr ? 0 : layout_.taps) {
        case 2: return plane_by<P, Q, 2>(from, apart);
        case 3: return plane_by<P, Q, 3>(from, apart);
        default: plane_by<P, Q, 0>(from, apart);
      }
    });
  }

 private:
  // Count is the number of taps of a row where the compiler knows it, else 0.
  template <int P, int Q, int Count>
  POOLWISE_INLINE void plane_by(const T* from, Int apart) {
    const R reduction = reduction_;
    const State<N> nothing = reduction.template nothing<N>();
    LaneSet<A, N> inside[P];
    for (int p = 0; p < P; ++p) inside[p] = this->inside(p);
    const Int n = last_.output;
    Out* out = out_;
    for (Int i = 0; i < rows_.output; ++i, out += n) {
      const Window window = windows_[i];
      State<N> state[P];
      for (int p = 0; p < P; ++p) state[p] = nothing;
      add_rows(reduction, state, from + window.first * apart, window.count, rows_.dilation * apart);
      for (int p = 0; p < P; ++p) state[p].value = inside[p].of(state[p].value, nothing.value);
      add_along<Count>(reduction, state, nothing);
      this->template pick<Q>(state, nothing);
      for (int q = 0; q < Q; ++q) {  // what is beyond the row is written over by the next one
        if (Q > 1 && q * N >= n) break;
        __builtin_prefetch(reinterpret_cast<const char*>(out + q * N) + prefetch_distance, 1);
        reduction.template write<N>(out + q * N, state[q], load<A, N>(divisors_ + q * N) * window.divisor);
      }
    }
  }

  template <int P>
  POOLWISE_INLINE void add_rows(const R& reduction, State<N> (&state)[P], const T* from, Int count, Int apart) const {
    for (Int b = 0; b < count; b += rows_at_once) {
      const Int some = smaller(rows_at_once, count - b);
      const T* rows = from + b * apart;
      switch (some) {
        case 1: add_some<1>(reduction, state, rows, apart, b > 0); break;
        case 2: add_some<2>(reduction, state, rows, apart, b > 0); break;
        case 3: add_some<3>(reduction, state, rows, apart, b > 0); break;
        default: add_some<4>(reduction, state, rows, apart, b > 0);
      }
    }
  }
  template <int Some, int P>
  POOLWISE_INLINE void add_some(const R& reduction, State<N> (&state)[P], const T* from, Int apart, bool onto) const {
    for (int p = 0; p < P; ++p) {
      const auto row = [&](int s) POOLWISE_LAMBDA { return load<Few, N>(from + s * apart + p * N); };
      for (int s = 0; s < Some; ++s) __builtin_prefetch(reinterpret_cast<const char*>(from + s * apart + p * N) + prefetch_distance);
      const State<N> sum{converted<A, Few, N>(few_added<Some, Few, N>(row))};
      state[p] = onto ? reduction.template followed<N>(state[p], sum) : sum;
    }
  }

  template <int Count, int P>
  POOLWISE_INLINE void add_along(const R& reduction, State<N> (&state)[P], const State<N>& nothing) const {
    if (P <= 2 && last_.spans != nullptr) {
      const State<N> a = state[0];
      State<N> b = nothing;
      if constexpr (P == 2) b = state[1];
      state[0] = balanced<R, N, 0>(reduction, across_count_, [&](Int t) POOLWISE_LAMBDA { return Base::lanes_of(a, b, across_[t].lanes); });
      return;
    }
    State<N> single[P];
    for (int p = 0; p < P; ++p) single[p] = state[p];
    if (!layout_.doubles) {
      for (int p = 0; p < P; ++p)
        state[p] = balanced<R, N, Count>(reduction, layout_.taps, [&](Int t) POOLWISE_LAMBDA { return t == 0 ? single[p] : behind(single, nothing, p, across_[t]); });
      return;
    }
    for (Int k = 0; k < across_count_; ++k)
      for (int p = 0; p < P; ++p)
        state[p] = reduction.template merged<N>(state[p], across_[k].single ? behind(single, nothing, p, across_[k]) : behind(state, nothing, p, across_[k]));
  }
  template <int P>
  static POOLWISE_INLINE State<N> behind(const State<N> (&packs)[P], const State<N>& nothing, int p, const Across& step) {
    if (step.behind == 0) return Base::template lanes_behind<0>(packs, nothing, p, step.lanes);
    if (p + step.behind >= P) return nothing;
    switch (step.behind) {
      case 1: return Base::template lanes_behind<1>(packs, nothing, p, step.lanes);
      case 2: return Base::template lanes_behind<2>(packs, nothing, p, step.lanes);
      default: return Base::template lanes_behind<3>(packs, nothing, p, step.lanes);
    }
  }

  Window* windows_;
  A* divisors_;
};

}  // namespace poolwise::POOLWISE_ISA
