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
      : Base(plan, buffers, Arena::room<Window>(plan.block.axes[1].output) + Arena::room<A>(most_row_packs * N) + Arena::room<A>(most_row_taps * most_row_packs * N)) {
    windows_ = arena_.template take<Window>(rows_.output);
    divisors_ = arena_.template take<A>(most_row_packs * N);
    after_ = arena_.template take<A>(most_row_taps * most_row_packs * N);
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
      switch (layout_.doubles || layout_.slides || last_.spans != nullptr ? 0 : layout_.taps) {
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
    const auto finish = [&](Int i, State<N>(&state)[P]) POOLWISE_LAMBDA {
      const Int n = last_.output;
      Out* const out = out_ + i * n;
      for (int p = 0; p < P; ++p) state[p].value = inside[p].of(state[p].value, nothing.value);
      add_along<Count>(reduction, state, nothing);
      this->template pick<Q>(state, nothing);
      for (int q = 0; q < Q; ++q) {  // what is beyond the row is written over by the next one
        if (Q > 1 && q * N >= n) break;
        __builtin_prefetch(reinterpret_cast<const char*>(out + q * N) + prefetch_distance, 1);
        reduction.template write<N>(out + q * N, state[q], load<A, N>(divisors_ + q * N) * windows_[i].divisor);
      }
    };
    if (Count == 0 && layout_.slides) return slide<P>(from, apart, reduction, nothing, finish);
    for (Int i = 0; i < rows_.output; ++i) {
      State<N> state[P];
      for (int p = 0; p < P; ++p) state[p] = nothing;
      add_rows(reduction, state, from + windows_[i].first * apart, windows_[i].count, rows_.dilation * apart);
      finish(i, state);
    }
  }

  // A window is the end of one block of as many rows as it has, and the beginning of the next.
  template <int P, class Finish>
  POOLWISE_INLINE void slide(const T* from, Int apart, const R& reduction, const State<N>& nothing, Finish&& finish) {
    const Int taps = rows_.taps, step = rows_.step;
    const auto add = [&](State<N>(&state)[P], Int slot, bool first) POOLWISE_LAMBDA {
      const Int row = slot - layout_.first;
      const bool there = row >= 0 && row < layout_.rows;
      for (int p = 0; p < P; ++p) {
        if (!there) {
          if (first) state[p] = nothing;
          continue;
        }
        const State<N> fresh{load<A, N>(from + row * apart + p * N)};
        state[p] = first ? fresh : reduction.template merged<N>(state[p], fresh);
      }
    };
    Int i = 0;
    for (Int block = 0; i < rows_.output; block += taps) {
      // Rows of the block that are not there are passed over.
      const Int top = smaller(taps, larger(0, layout_.first - block)), bottom = smaller(taps, larger(0, layout_.first + layout_.rows - block));
      State<N> state[P];
      for (Int at = bottom - 1; at >= larger(i * step - block, top); --at) {
        add(state, block + at, at == bottom - 1);
        for (int p = 0; p < P; ++p) store<N, A>(after_ + (at * P + p) * N, state[p].value);
      }
      State<N> before[P];
      for (Int next = 0; i < rows_.output && i * step < block + taps; ++i) {
        const Int at = i * step - block, held = larger(at, top);
        for (; next < at; ++next) add(before, block + taps + next, next == 0);
        for (int p = 0; p < P; ++p) {
          const State<N> end = held < bottom ? State<N>{load<A, N>(after_ + (held * P + p) * N)} : nothing;
          state[p] = at == 0 ? end : held < bottom ? reduction.template merged<N>(end, before[p]) : before[p];
        }
        finish(i, state);
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
    for (Int k = 0; k < across_count_; ++k) across_[k].single ? add_behind(reduction, state, single, nothing, across_[k]) : add_behind(reduction, state, state, nothing, across_[k]);
  }
  // To each pack what stands behind it, of packs that may be the same.
  template <int P>
  POOLWISE_INLINE void add_behind(const R& reduction, State<N> (&state)[P], const State<N> (&from)[P], const State<N>& nothing, const Across& step) const {
    const auto add = [&]<int Behind>() POOLWISE_LAMBDA {
      for (int p = 0; p < P; ++p)
        state[p] = reduction.template merged<N>(state[p], p + Behind < P ? Base::template lanes_behind<Behind>(from, nothing, p, step.lanes) : nothing);
    };
    switch (step.behind) {
      case 0: return add.template operator()<0>();
      case 1: return add.template operator()<1>();
      case 2: return add.template operator()<2>();
      case 3: return add.template operator()<3>();
      default: add.template operator()<most_row_packs>();
    }
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
  A* after_;  // of a block, what each row and those behind it come to
};

}  // namespace poolwise::POOLWISE_ISA
