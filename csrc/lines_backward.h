// The fast backward engine, for windows in absent padding that are the same for all planes (uneven ones for sums only), over a block of rows: every row of the input gathers what the
// windows that read it send, each element is written once.
//
// Along the last axis, element m * step + s (phase s) is read through tap t by column m + (s - start - t * dilation) / step, where
// that is a whole number: so each tap of a phase reads consecutive columns, and the phases are woven together as they are written.
// Where lanes cannot be woven (channels last with a stride, large strides) each column of the input gathers by itself.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_sources = 64;  // rows of gradients that one row of the input meets
constexpr Int most_reads = 128;   // of one phase
constexpr Int reads_worth_weaving = 48;
constexpr Int filled_at_least = 8;  // elements between the ends of windows, on average

// How a row of the input is cut.
struct GatherLayout {
  bool serves = false, woven = false;
  bool fills = false;          // what stands between two ends of windows is one number
  Int before = 0, after = 0;  // columns that an element's readers may stand from its group: before ≤ … < after
  Int groups = 0, chunks = 1;  // of `step` elements: those of a chunk
  Int deep = 1, across = 1;   // gradient rows held at a time, along each axis
  Int lanes = 0;              // of a gradient row that is held
  Int bytes = 0;
};

// Whether few windows begin or end along a row, or none overlaps another.
POOLWISE_INLINE bool ends_are_sparse(const Axis& axis) {
  if (axis.spans == nullptr && axis.dilation > 1) return false;
  return filled_at_least * (2 * axis.output + 1) <= axis.size || (axis.spans == nullptr && axis.step >= axis.taps);
}

template <class B>
POOLWISE_OUTLINE GatherLayout gather_layout(const Plan& plan) {
  using A = typename B::Accumulator;
  GatherLayout layout;
  const Block& block = plan.block;
  const Axis& last = block.axes[2];
  if (!block.unfolded() || block.inner == 0 || !is_near(last)) return layout;
  layout.deep = block.axes[0].most_readers(), layout.across = block.axes[1].most_readers();
  if (layout.deep > most_sources || layout.across > most_sources || layout.deep * layout.across > most_sources) return layout;
  const bool uneven = block.axes[0].spans != nullptr || block.axes[1].spans != nullptr || last.spans != nullptr;
  if (B::keeps && uneven) return layout;
  const Int reads = (B::keeps ? layout.deep * layout.across : 1) * last.reach();
  layout.woven = last.spans == nullptr && reads <= reads_worth_weaving && (last.step == 1 || (block.inner == 1 && last.step <= most_woven));
  if (layout.woven) {
    layout.before = floor_div(-last.start - (last.taps - 1) * last.dilation, last.step);
    layout.after = floor_div(last.step - 1 - last.start, last.step) + 1;
    const Int all = (last.size + last.step - 1) / last.step, reach = layout.after - layout.before;
    layout.groups = smaller(all, larger(larger(1, 4096 / block.inner), 4 * reach));
    layout.chunks = (all + layout.groups - 1) / layout.groups;
    if (Wide(layout.groups + reach) * block.inner > most_memory) return layout;
    layout.lanes = (layout.groups + reach) * block.inner;
  } else {
    layout.fills = !B::keeps && block.inner == 1 && ends_are_sparse(last);
    if (block.readers == nullptr && !one_window(last) && !layout.fills) return layout;
    if (Wide(last.output) * block.inner > most_memory) return layout;
    layout.lanes = last.output * block.inner;
  }
  if (Wide(larger(last.size, last.output)) * block.inner > most_memory) return layout;
  const Int held = Arena::room<A>(layout.lanes + slack<A>) + Arena::room<Lane<A>>(layout.lanes + slack<A>);
  layout.bytes = (layout.deep * layout.across + 1) * held + 3 * Arena::room<A>(larger(last.size, last.output) * block.inner + slack<A>) + Stream<typename B::Element>::room(last.size * block.inner + slack<A>);
  if (Wide(layout.lanes) * (layout.deep * layout.across + 1) > most_memory) return layout;
  layout.serves = layout.bytes < most_memory;
  return layout;
}

// A row of gradients and of what was kept, in memory or held with nothing on both sides.
template <class B>
struct GradientRow {
  using A = typename B::Accumulator;
  using K = std::conditional_t<B::keeps, typename B::Offset, std::uint8_t>;
  using G = std::conditional_t<B::keeps, typename B::Gradient, A>;  // shares are divided when they are held
  const G* g;
  const K* kept;
  Int offset;  // of the tap through which this row reads the input's, and the last axis' first tap
};

// What the phases of a row read: lanes of gradients beside those of what was kept, and the place that must be kept there.
template <class B>
struct Reads {
  using Row = GradientRow<B>;
  struct Read {
    const typename Row::G* g;
    const typename Row::K* kept;
    Int place;
  };
  Int count[most_woven] = {};
  Read list[most_woven][most_reads];

  // The layouts see to it that a phase has at most `most_reads`.
  POOLWISE_INLINE void add(int phase, const Read& read) { list[phase][count[phase]++] = read; }
};

template <class B, int N>
POOLWISE_INLINE auto added(Pack<typename B::Accumulator, N> sum, const typename GradientRow<B>::G* g,
                           const typename GradientRow<B>::K* kept, Int place) {
  using A = typename B::Accumulator;
  if constexpr (B::keeps)
    return B::template route<N>(sum, load<A, N>(g), load<Lane<A>, N>(kept), place);
  else
    return sum + load<A, N>(g);
}

// Sums up what S phases read and weaves them. Count is the number of reads of every phase where the compiler knows it, else 0.
template <class B, int S, int Count>
POOLWISE_OUTLINE void weave_reads(const Reads<B>& reads, typename B::Element* out, Int lanes) {
  using A = typename B::Accumulator;
  for_packs<full<A>>(lanes, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
    Pack<A, N> sums[U][S];
    for (int s = 0; s < S; ++s) {
      for (int u = 0; u < U; ++u) sums[u][s] = Pack<A, N>{};
      const Int count = Count > 0 ? Count : reads.count[s];
      for (Int r = 0; r < count; ++r) {
        const auto& read = reads.list[s][r];
        for (int u = 0; u < U; ++u) sums[u][s] = added<B, N>(sums[u][s], read.g + lane + u * N, read.kept + lane + u * N, read.place);
      }
    }
    for (int u = 0; u < U; ++u) {
      auto* to = out + S * (lane + u * N);
      if constexpr (S == 1)
        store<N, A>(to, sums[u][0]);
      else
        weave<S, A, N>(to, sums[u], std::make_integer_sequence<int, S>{});
    }
  });
}

template <class B, int S>
POOLWISE_INLINE void weave_all(const Reads<B>& reads, typename B::Element* out, Int lanes) {
  bool one = true;
  for (int s = 0; s < S; ++s) one = one && reads.count[s] == 1;
  one ? weave_reads<B, S, 1>(reads, out, lanes) : weave_reads<B, S, 0>(reads, out, lanes);
}

template <class B>
class LinesBackward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using Row = GradientRow<B>;
  using K = typename Row::K;
  using G = typename Row::G;
  static constexpr int N = full<A>;

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    return buffers.mask == nullptr && gather_layout<B>(plan).serves;
  }
  static Units units(const Plan& plan) { return {plan.block.input_rows() * gather_layout<B>(plan).chunks}; }

  LinesBackward(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        block_(plan.block),
        layout_(gather_layout<B>(plan)),
        g_(static_cast<const typename B::Gradient*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        g_end_(block_.output_rows() * block_.axes[2].output * block_.inner) {
    Arena arena(scratch(static_cast<std::size_t>(layout_.bytes)));
    for (Int s = 0; s <= layout_.deep * layout_.across; ++s) {
      slots_[s].g = arena.take<G>(layout_.lanes + slack<A>);
      slots_[s].kept = arena.take<K>(layout_.lanes + slack<A>);
      slots_[s].line = -1;
    }
    divisors_ = arena.take<A>(block_.axes[2].output * block_.inner);
    bounced_ = arena.take<T>(block_.axes[2].size * block_.inner + slack<A>);
    same_ = arena.take<T>(block_.axes[2].size * block_.inner + slack<A>);
    stream_ = Stream<T>(arena, block_.axes[2].size * block_.inner + slack<A>);
    streams_ = layout_.chunks == 1 && plan.input_size * Int(sizeof(T)) >= bytes_worth_streaming;
    spread_divisors();
  }

  void run(Int begin, Int end) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    end_ = layout_.chunks == 1 ? end * block_.axes[2].size * block_.inner : 0;
    Int rest = begin;
    Int row = rest % rows.size;
    rest /= rows.size;
    chunk_ = rest % layout_.chunks, rest /= layout_.chunks;
    Int plane = rest % planes.size;
    outer_ = rest / planes.size;
    Run above = readers_of(planes, plane);
    enter_chunk();
    if (streams_) stream_.start(gx_ + begin * block_.axes[2].size * block_.inner);
    for (Int unit = begin; unit < end; ++unit) {
      row_at_ = (outer_ * planes.size + plane) * rows.size + row;
      gather_row(above, readers_of(rows, row));
      if (++row < rows.size) continue;
      row = 0;
      if (++chunk_ == layout_.chunks) {
        chunk_ = 0;
        if (++plane == planes.size) plane = 0, ++outer_;
        above = readers_of(planes, plane);
      }
      if (layout_.chunks > 1 && unit + 1 < end) enter_chunk();
    }
    if (streams_) stream_.finish();
  }

 private:
  struct Slot {
    G* g;
    K* kept;
    Int line;
  };
  // ---- what a chunk reads ----

  // Lanes of a held row that stand for columns, and the first of those columns.
  void enter_chunk() {
    const Axis& last = block_.axes[2];
    if (layout_.woven) {
      const Int all = (last.size + last.step - 1) / last.step;
      first_group_ = chunk_ * layout_.groups;
      groups_ = smaller(layout_.groups, all - first_group_);
      const Int begin = first_group_ + layout_.before, end = first_group_ + groups_ + layout_.after - 1;
      first_column_ = smaller(larger(begin, 0), last.output);
      columns_ = larger(0, smaller(end, last.output) - first_column_);
      origin_ = begin;
      in_place_ = B::keeps && begin >= 0 && end <= last.output && last.size % last.step == 0;
    } else {
      first_column_ = origin_ = 0, columns_ = last.output;
      in_place_ = B::keeps;
    }
    for (Int s = 0; s <= layout_.deep * layout_.across; ++s) {
      slots_[s].line = -1;
      if (in_place_) continue;
      fill<G>(slots_[s].g, layout_.lanes + slack<A>, G{});
      if constexpr (B::keeps) fill<K>(slots_[s].kept, layout_.lanes + slack<A>, static_cast<K>(-1));
    }
    met_first_ = -1;
  }

  void spread_divisors() {
    if (B::keeps || plan_.exact_share > 0) return;
    const Axis& last = block_.axes[2];
    const A whole = static_cast<A>(divided_by(plan_, last, true, last.whole_begin, 0));
    for (Int j = 0; j < last.output; ++j)
      fill<A>(divisors_ + j * block_.inner, block_.inner,
              is_whole(last, j) ? whole : static_cast<A>(divided_by(plan_, last, true, j, 0)));
  }

  // ---- the rows of gradients that a row of the input meets ----

  void gather_row(const Run& above, const Run& rows) {
    const Axis& last = block_.axes[2];
    find_sources(above, rows);
    const Int begin = layout_.woven ? first_group_ * last.step * block_.inner : 0;
    const Int cells = layout_.woven ? smaller(groups_ * last.step, last.size - first_group_ * last.step) : last.size;
    const Int at = row_at_ * last.size * block_.inner + begin, n = cells * block_.inner;
    const bool fits = at + n + most_woven * N <= end_;
    out_ = streams_ ? stream_.next() : fits ? gx_ + at : bounced_;
    if (!layout_.woven) {
      gather_all_cells(n);
    } else if (last.step == 1) {
      gather_woven<1>();
    } else if (last.step == 2) {
      gather_woven<2>();
    } else if (last.step == 3) {
      gather_woven<3>();
    } else {
      gather_woven<4>();
    }
    if (streams_)
      stream_.wrote(n);
    else if (!fits)
      std::memcpy(static_cast<void*>(gx_ + at), bounced_, static_cast<std::size_t>(n) * sizeof(T));
  }

  void find_sources(const Run& above, const Run& rows) {
    const Axis* axes = block_.axes;
    if constexpr (!B::keeps) {
      const Int first = (outer_ * axes[0].output + above.at) * axes[1].output + rows.at;
      met_new_ = first != met_first_ || above.count != met_deep_ || rows.count != met_across_;
      met_first_ = first, met_deep_ = above.count, met_across_ = rows.count;
      if (!met_new_) return;
    }
    sources_count_ = 0;
    for (Int a = 0; a < above.count; ++a) {
      const Int i0 = above.at + a * above.at_step;
      for (Int b = 0; b < rows.count; ++b) {
        const Int i1 = rows.at + b * rows.at_step;
        const Int offset = B::keeps ? ((above.tap + a * above.tap_step) * axes[1].taps + rows.tap + b * rows.tap_step) * axes[2].taps : 0;
        sources_[sources_count_++] = source(i0, i1, offset);
      }
    }
    if (!B::keeps && sources_count_ > 1) sum_sources();
  }

  // One row of gradients: in place where it has all that is read, else held.
  POOLWISE_INLINE Row source(Int i0, Int i1, Int offset) {
    const Axis* axes = block_.axes;
    const Int line = (outer_ * axes[0].output + i0) * axes[1].output + i1, at = (line * axes[2].output + first_column_) * block_.inner;
    if constexpr (B::keeps)
      if (in_place_ && at + columns_ * block_.inner + most_woven * N <= g_end_) return {g_ + at, kept_ + at, offset};
    Slot& slot = slots_[i0 / axes[0].cell_step % layout_.deep * layout_.across + i1 / axes[1].cell_step % layout_.across];
    if (slot.line != line) hold(slot, line, at, i0, i1);
    return {slot.g, slot.kept, offset};
  }

  POOLWISE_OUTLINE void hold(Slot& slot, Int line, Int at, Int i0, Int i1) {
    slot.line = line;
    const Int lane = (first_column_ - origin_) * block_.inner, n = columns_ * block_.inner;
    if constexpr (B::keeps) {
      std::memcpy(static_cast<void*>(slot.g + lane), g_ + at, static_cast<std::size_t>(n) * sizeof(G));
      std::memcpy(slot.kept + lane, kept_ + at, static_cast<std::size_t>(n) * sizeof(K));
    } else {
      const A share = static_cast<A>(plan_.exact_share);
      const bool divided = share == 0;
      const A row = divided ? static_cast<A>(divided_by(plan_, block_.axes[0], false, i0, 0) * divided_by(plan_, block_.axes[1], false, i1, 0)) : A(1);
      const A* divisors = divisors_ + first_column_ * block_.inner;
      for_lanes<N>(n, [&]<int M, int U>(Int from) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          const Int here = from + u * M;
          const auto g = load<A, M>(g_ + at + here);
          store<M, A>(slot.g + lane + here, divided ? g / (load<A, M>(divisors + here) * row) : g * share);
        }
      });
    }
  }

  // A window's share is the same through each of its taps, so for sums the rows are folded into one first.
  POOLWISE_OUTLINE void sum_sources() {
    if constexpr (!B::keeps) {
      Slot& sum = slots_[layout_.deep * layout_.across];
      for_packs<N>(layout_.lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          auto total = load<A, M>(sources_[0].g + lane + u * M);
          for (Int s = 1; s < sources_count_; ++s) total += load<A, M>(sources_[s].g + lane + u * M);
          store<M, A>(sum.g + lane + u * M, total);
        }
      });
      sources_[0] = {sum.g, sum.kept, 0};
      sources_count_ = 1;
    }
  }

  // ---- along the last axis ----

  template <int S>
  POOLWISE_INLINE void gather_woven() {
    for (int s = 0; s < S; ++s) find_reads<S>(s);
    weave_all<B, S>(reads_, out_, groups_ * block_.inner);
  }

  // What phase s reads, the last tap first: that is the order of the windows.
  template <int S>
  POOLWISE_INLINE void find_reads(int s) {
    const Axis& last = block_.axes[2];
    reads_.count[s] = 0;
    for (Int r = 0; r < sources_count_; ++r)
      for (Int t = last.taps - 1; t >= 0; --t) {
        const Int ahead = s - last.start - t * last.dilation;
        if (S > 1 && ahead % S != 0) continue;
        const Int lane = (first_group_ + floor_div(ahead, S) - (in_place_ ? first_column_ : origin_)) * block_.inner;
        reads_.add(s, {sources_[r].g + lane, sources_[r].kept + lane, sources_[r].offset + t});
      }
  }

  // Column by column. Rows that meet the same rows of shares are the same.
  POOLWISE_INLINE void gather_all_cells(Int n) {
    if constexpr (B::keeps) {
      gather_cells(out_);
    } else if (block_.inner == 1 && one_window(block_.axes[2])) {
      T share;
      store<1, A>(&share, Pack<A, 1>{sources_count_ > 0 ? static_cast<A>(sources_[0].g[0]) : A{}});
      fill<T>(out_, n, share);
    } else {
      if (met_new_) layout_.fills ? fill_windows(same_) : gather_cells(same_);
      std::memcpy(static_cast<void*>(out_), same_, static_cast<std::size_t>(n) * sizeof(T));
    }
  }

  // From each end of a window to the next, all elements receive what the same windows send.
  POOLWISE_OUTLINE void fill_windows(T* to) {
    const Axis& last = block_.axes[2];
    const Int outputs = sources_count_ > 0 ? last.output : 0;
    const auto end_of = [&](Int j) POOLWISE_LAMBDA { return last.first(j) + (last.spans != nullptr ? last.spans[j].count : last.taps); };
    Int past = 0, begun = 0;  // windows that ended before the element, or have begun
    for (Int x = 0, next; x < last.size; x = next) {
      while (past < outputs && end_of(past) <= x) ++past;
      while (begun < outputs && last.first(begun) <= x) ++begun;
      next = last.size;
      if (begun < outputs) next = smaller(next, last.first(begun));
      if (past < begun) next = smaller(next, end_of(past));
      A sum{};
      for (Int j = past; j < begun; ++j) sum += static_cast<A>(sources_[0].g[j]);
      T share;
      store<1, A>(&share, Pack<A, 1>{sum});
      fill<T>(to + x, next - x, share);
    }
  }
  POOLWISE_INLINE void gather_cells(T* to) { block_.inner == 1 ? gather_cells_to<1>(to) : gather_cells_to<N>(to); }
  // By packs of so many lanes.
  template <int Lanes>
  POOLWISE_OUTLINE void gather_cells_to(T* to) {
    const Axis& last = block_.axes[2];
    const Int inner = block_.inner;
    for (Int x = 0; x < last.size; ++x) {
      const Run run = one_window(last) ? Run{1, 0, 1, x, 0} : block_.readers[x];
      for_packs<Lanes>(inner, [&]<int M, int U>(Int c) POOLWISE_LAMBDA {
        Pack<A, M> sums[U];
        for (int u = 0; u < U; ++u) sums[u] = Pack<A, M>{};
        for (Int s = 0; s < sources_count_; ++s)
          for (Int k = 0; k < run.count; ++k) {
            const Int at = (run.at + k * run.at_step) * inner + c, place = sources_[s].offset + run.tap + k * run.tap_step;
            for (int u = 0; u < U; ++u)
              sums[u] = added<B, M>(sums[u], sources_[s].g + at + u * M, sources_[s].kept + at + u * M, place);
          }
        for (int u = 0; u < U; ++u) store<M, A>(to + x * inner + c + u * M, sums[u]);
      });
    }
  }

  const Plan& plan_;
  const Block& block_;
  const GatherLayout layout_;
  const typename B::Gradient* g_;
  const K* kept_;
  T* gx_;
  Int g_end_;
  A* divisors_;
  T *bounced_, *same_, *out_ = nullptr;
  Stream<T> stream_;
  bool streams_ = false;
  Int outer_ = 0, chunk_ = 0, row_at_ = 0, end_ = 0;
  Int first_group_ = 0, groups_ = 0, first_column_ = 0, columns_ = 0, origin_ = 0;  // of the chunk
  bool in_place_ = false;
  Int sources_count_ = 0, met_first_ = -1, met_deep_ = 0, met_across_ = 0;  // the rows of shares that were met last
  bool met_new_ = true;
  Row sources_[most_sources];
  Slot slots_[most_sources + 1];
  Reads<B> reads_;
};

// A mean's gradients over what their windows divide by: what each window sends to each of its elements.
template <class T>
class Shares {
 public:
  static Units units(const Plan& plan) { return {plan.block.output_rows()}; }
  Shares(const Plan& plan, const Buffers& buffers)
      : plan_(plan), lanes_(plan.block.axes[2].output * plan.block.inner), g_(static_cast<const T*>(buffers.from)), shares_(static_cast<T*>(buffers.to)) {
    divisors_ = static_cast<T*>(scratch(static_cast<std::size_t>(lanes_) * sizeof(T)));
    for (Int j = 0; j < plan.block.axes[2].output; ++j)
      fill<T>(divisors_ + j * plan.block.inner, plan.block.inner, static_cast<T>(divided_by(plan, plan.block.axes[2], true, j, 0)));
  }
  void run(Int begin, Int end) {
    const Axis* axes = plan_.block.axes;
    for (Int row = begin; row < end; ++row) {
      const Int i1 = row % axes[1].output, i0 = row / axes[1].output % axes[0].output;
      const T divisor = static_cast<T>(divided_by(plan_, axes[0], false, i0, 0) * divided_by(plan_, axes[1], false, i1, 0));
      for_lanes<full<T>>(lanes_, [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          const Int here = lane + u * N;
          store<N, T>(shares_ + row * lanes_ + here, load<T, N>(g_ + row * lanes_ + here) / (load<T, N>(divisors_ + here) * divisor));
        }
      });
    }
  }

 private:
  const Plan& plan_;
  Int lanes_;
  const T* g_;
  T *shares_, *divisors_;
};

}  // namespace poolwise::POOLWISE_ISA
