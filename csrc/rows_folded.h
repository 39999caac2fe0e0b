// Forward where every window takes rows of numbers whole, as global pooling does: each window is gathered in one pack, and as many
// packs as they have lanes are folded into one of their results. A window costs what it reads and a few additions: there is nothing
// to look up where all of them are one row long.
#pragma once

#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr int few_lanes = 16;    // that are added to as many in what is not an accumulator
constexpr Int least_folded = 4;  // elements of a row

template <class R>
class RowsFolded {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  using Few = typename FewOf<R>::type;
  using D = typename DivisorOf<R>::type;
  static constexpr int N = full<A>;
  template <int M>
  using State = typename R::template State<M>;
  static constexpr bool by_few = adds_few<R>;
  static constexpr int W = by_few ? full<Few> : N;          // what is read at once
  static constexpr int V = packs_of_window<R>;
  static constexpr int group = by_few ? few_lanes : V * N, groups_of_block = 4, lanes_of_block = groups_of_block * group;
  static constexpr bool knows_groups = by_few || (sizeof(T) == sizeof(A) && std::is_integral_v<T> == std::is_integral_v<A>);  // common ones are compiled for each number of groups
  struct States {
    State<N> of[V];
  };

 public:
  static constexpr bool wanted = !R::places && !weighs<R>;
  static_assert(!wanted || by_few || !Line<R>::two);

  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    const Axis& last = block.axes[2];
    if (!block.there || buffers.mask != nullptr || block.inner != 1 || !one_window(last)) return false;
    if (last.size < least_folded) return false;
    return row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even;
  }
  static Units units(const Plan& plan) { return {plan.block.output_rows(), N}; }

  RowsFolded(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        planes_(plan.block.axes[0]),
        rows_(plan.block.axes[1]),
        size_(plan.block.axes[2].size),
        reduction_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        end_(x_ + last_row(plan.block, strides_) + size_),
        in_order_(buffers.rows_in_order),
        alone_(planes_.output == 1 && rows_.output == 1) {}

  void run(Int begin, Int end) {
    Int rest = begin;
    row_ = rest % rows_.output, rest /= rows_.output;
    plane_ = rest % planes_.output, outer_ = rest / planes_.output;
    find_rows();
    if (!alone_ || above_.count != 1 || across_.count != 1)
      return run_by(begin, end, [this](Int) POOLWISE_LAMBDA { return window(); });
    const T* const first = x_ + element_at(planes_, planes_.first(0) + above_.first * planes_.dilation) * strides_.plane +
                           element_at(rows_, rows_.first(0) + across_.first * rows_.dilation) * strides_.row;
    const bool fetches = !in_order_ && strides_.outer == size_ && size_ < 2 * lanes_of_block;  // longer rows are asked for block by block
    with_groups([&]<int Groups>() POOLWISE_LAMBDA {
      run_by(begin, end, [&](Int unit) POOLWISE_LAMBDA {
        States states = nothing();
        if (fetches) ahead<gather_distance>(first + unit * strides_.outer, size_ * Int(sizeof(T)));
        gather<Groups>(states, first + unit * strides_.outer);
        return states;
      });
    });
  }

 private:
  // Calls run.operator()<Groups>() with the groups of lanes behind the last whole block of a row; -1: however many.
  template <class Run>
  POOLWISE_INLINE void with_groups(Run&& run) {
    if constexpr (!knows_groups)
      return run.template operator()<-1>();
    else
      switch (ceil_div(size_ % lanes_of_block, group)) {
        case 0: return run.template operator()<0>();
        case 1: return run.template operator()<1>();
        case 2: return run.template operator()<2>();
        case 3: return run.template operator()<3>();
        default: return run.template operator()<4>();
      }
  }

  // `gathered(unit)` is what a window comes to.
  template <class Gathered>
  POOLWISE_INLINE void run_by(Int begin, Int end, Gathered&& gathered) {
    for (Int unit = begin; unit < end; unit += N) {
      const int count = static_cast<int>(smaller(N, end - unit));
      State<N> windows[N];
      Pack<D, N> divisors = every<D, N>(divisor_);
      for (int b = 0; b < N; ++b) {
        if (b >= count) {
          windows[b] = reduction_.template nothing<N>();
          continue;
        }
        States states = gathered(unit + b);
        windows[b] = in_one_pack<R, V>(reduction_, states.of);
        divisors[b] = divisor_;
        step();
      }
      const auto results = reduction_.template finished<N>(folded<R, N>(reduction_, windows));
      if (count == N) {
        reduction_.template write<N>(y_ + unit, results, divisors);
      } else {
        Out last[N];
        reduction_.template write<N>(last, results, divisors);
        std::memcpy(static_cast<void*>(y_ + unit), last, static_cast<std::size_t>(count) * sizeof(Out));
      }
    }
  }

  // The rows of the window where the engine stands, and what it divides by.
  void find_rows() {
    above_ = taps_of(planes_, plane_, 0), across_ = taps_of(rows_, row_, 0);
    if constexpr (R::divides)
      if (reduction_.is_mean)
        divisor_ = R::written_by(static_cast<D>(divided_by(plan_, planes_, false, plane_, 0) * divided_by(plan_, rows_, false, row_, 0) *
                                                divided_by(plan_, plan_.block.axes[2], true, 0, 0)));
  }
  POOLWISE_INLINE void step() {
    if (alone_) {
      ++outer_;
      return;
    }
    if (++row_ == rows_.output) {
      row_ = 0;
      if (++plane_ == planes_.output) plane_ = 0, ++outer_;
    }
    find_rows();
  }

  POOLWISE_INLINE States nothing() const {
    States states;
    for (int v = 0; v < V; ++v) states.of[v] = reduction_.template nothing<N>();
    return states;
  }
  States window() {
    States states = nothing();
    for (Int a = above_.first; a < above_.first + above_.count; ++a)
      for (Int b = across_.first; b < across_.first + across_.count; ++b) {
        const Int plane = element_at(planes_, planes_.first(plane_) + a * planes_.dilation), row = element_at(rows_, rows_.first(row_) + b * rows_.dilation);
        const T* from = x_ + outer_ * strides_.outer + plane * strides_.plane + row * strides_.row;
        with_groups([&]<int Groups>() POOLWISE_LAMBDA { gather<Groups>(states, from); });
      }
    return states;
  }

  // A row: blocks of four groups of lanes, and as many groups as are left.
  template <int Groups>
  POOLWISE_INLINE void gather(States& states, const T* from) {
    Int lane = 0;
    if constexpr (by_few)
      lane = gather_few(states, from);
    else
      lane = gather_elements(states, from);
    const Int left = size_ - lane, groups = Groups >= 0 ? Groups : ceil_div(left, group);
    if (groups > 0) gather_rest<Groups>(states, readable(from + lane, left, groups * group), groups, left - (groups - 1) * group);
  }
  // So many elements as they are read in packs, past their end where the array goes on.
  POOLWISE_INLINE const T* readable(const T* from, Int count, Int read) {
    if (from + read <= end_) return from;
    std::memcpy(static_cast<void*>(spare_), from, static_cast<std::size_t>(count) * sizeof(T));
    return spare_;
  }

  template <int M>
  POOLWISE_INLINE State<M> element(const T* p) const {
    return reduction_.template taken<M>(reduction_.template read<M>(p), 0);
  }

  // So many groups, of which the last has so many elements.
  template <int Groups>
  POOLWISE_INLINE void gather_rest(States& states, const T* from, Int groups, Int last) const {
    const R reduction = reduction_;
    if constexpr (by_few) {
      for (int h = 0; h < group; h += W)
        add(states, h, few_added<(Groups > 0 ? Groups : 1), Few, W>([&](int g) POOLWISE_LAMBDA {
              const auto v = load<Few, W>(from + g * group + h);
              if (g < Groups - 1) return v;
              return counted<Lane<Few>, W>() < static_cast<Lane<Few>>(last - h) ? v : Pack<Few, W>{};
            }));
    } else {
      for (Int g = 0; g < groups; ++g)
        for (int v = 0; v < V; ++v) {
          auto more = element<N>(from + g * group + v * N);
          if (g == groups - 1) more.value = counted<Lane<A>, N>() < static_cast<Lane<A>>(last - v * N) ? more.value : reduction.template nothing<N>().value;
          states.of[v] = reduction.template merged<N>(states.of[v], more);
        }
    }
  }

  // Whole blocks; and where they end.
  POOLWISE_INLINE Int gather_elements(States& states, const T* from) const {
    const R reduction = reduction_;
    const Int n = size_;
    if (n < lanes_of_block) return 0;
    State<N> sums[4 * V];
    for (int u = 0; u < 4 * V; ++u) sums[u] = element<N>(from + u * N);
    Int lane = lanes_of_block;
    for (; lane + lanes_of_block <= n; lane += lanes_of_block) {
      if (!in_order_) ahead<gather_distance>(from + lane, lanes_of_block * Int(sizeof(T)));
      for (int u = 0; u < 4 * V; ++u) sums[u] = reduction.template merged<N>(sums[u], element<N>(from + lane + u * N));
    }
    for (int v = 0; v < V; ++v) {
      const State<N> a = reduction.template merged<N>(sums[v], sums[V + v]), b = reduction.template merged<N>(sums[2 * V + v], sums[3 * V + v]);
      states.of[v] = reduction.template merged<N>(states.of[v], reduction.template merged<N>(a, b));
    }
    return lane;
  }

  // The same in Few, two blocks at a time, after which what there is is added in A: each element passes through three additions, or two.
  // Those of one level err together by at most 2^-24 of the sum of magnitudes, less than a unit in its last place: by three
  // units in all, and the mean's own rounding by half a unit.
  POOLWISE_INLINE Int gather_few(States& states, const T* from) const {
    const Int n = size_;
    Int lane = 0;
    for (; lane + 2 * lanes_of_block <= n; lane += 2 * lanes_of_block) {
      if (!in_order_) ahead<gather_distance>(from + lane, 2 * lanes_of_block * Int(sizeof(T)));
      for (int h = 0; h < group; h += W)
        add(states, h, few_added<4, Few, W>([&](int g) POOLWISE_LAMBDA {
              const T* p = from + lane + g * group + h;
              return load<Few, W>(p) + load<Few, W>(p + lanes_of_block);
            }));
    }
    if (lane + lanes_of_block > n) return lane;
    for (int h = 0; h < group; h += W) add(states, h, few_added<4, Few, W>([&](int g) POOLWISE_LAMBDA { return load<Few, W>(from + lane + g * group + h); }));
    return lane + lanes_of_block;
  }
  // What few were added to in these lanes of a group, in A.
  POOLWISE_INLINE void add(States& states, int lane, Pack<Few, W> few) const {
    Pack<Few, N> parts[W / N];
    std::memcpy(parts, &few, sizeof few);
    for (int h = 0; h < W / N; ++h) {
      State<N>& state = states.of[(lane / N + h) % V];
      state = reduction_.template merged<N>(state, reduction_.template taken<N>(converted<A, Few, N>(parts[h]), 0));
    }
  }

  const Plan& plan_;
  const Axis &planes_, &rows_;
  const Int size_;  // of a row
  const R reduction_;
  const T* x_;
  Out* y_;
  const RowStrides strides_;
  const T* const end_;   // of the array
  const bool in_order_;
  const bool alone_;     // the rows of a window are the same for all
  T spare_[lanes_of_block]{};
  D divisor_{1};
  Taps above_{0, 0}, across_{0, 0};  // the planes and rows of the window where the engine stands
  Int outer_ = 0, plane_ = 0, row_ = 0;
};

}  // namespace poolwise::POOLWISE_ISA
