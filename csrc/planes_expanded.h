// Backward from planes of numbers that are small: a table says which windows read each of their elements, and through which taps, so
// that any geometry, uneven bins and three axes too, costs a few instructions for a pack of elements and each of its readers. Lanes
// are picked out of two packs of gradients where those hold all that a pack of elements reads, as is the rule, else gathered.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int expanded_cells = 1 << 12;   // of a plane, and windows
constexpr Int woven_cells = 1 << 9;       // where the elements of a row can be woven
constexpr Int expanded_reads = 1 << 15;   // of all its elements
constexpr Int expanded_lanes = 1 << 8;    // of as many planes as are done at once, at least
constexpr Int expanded_planes = 16;       // by one thread, at least, which has to write the table

template <class B>
class PlanesExpanded {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using G = typename B::Gradient;
  using L = Lane<A>;
  static constexpr int N = full<A>;
  using K = std::conditional_t<B::keeps, typename B::Offset, std::uint8_t>;

  struct Layout {
    Int cells = 0, outputs = 0, reads = 0;  // of a plane; windows that read one element, at most
    Int planes = 0, packs = 0;              // that are done at once
  };

  static Layout layout_of(const Block& block) {
    Layout layout{1, 1, 1};
    for (const Axis& axis : block.axes) layout.cells *= axis.size, layout.outputs *= axis.output, layout.reads *= axis.most_readers();
    layout.planes = larger(1, smaller(block.outer, ceil_div(expanded_lanes, larger(layout.cells, layout.outputs)))), layout.packs = ceil_div(layout.planes * layout.cells, N);
    return layout;
  }

 public:
  static constexpr bool wanted = picks_at_run<A> && N > 1;

  // Where it is less work than the other engines are, in hundredths of a millisecond for 131,072 elements, as measured: factor 84.
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (!block.unfolded() || buffers.mask != nullptr || block.inner != 1) return false;
    Wide cells = 1, outputs = 1, reads = 1;
    double through = 1;  // taps of one element, on average
    bool uneven = false;
    for (const Axis& axis : block.axes) {
      if (!is_near(axis) || axis.span_planes > 1) return false;
      cells *= axis.size, outputs *= axis.output, reads *= axis.most_readers();
      if (cells > expanded_cells || outputs > expanded_cells || cells * reads > expanded_reads || cells * outputs == 0) return false;
      uneven = uneven || axis.spans != nullptr;
      through *= static_cast<double>(axis.taps) / static_cast<double>(axis.step);
    }
    const double n = static_cast<double>(cells), m = static_cast<double>(outputs), own = 5 + static_cast<double>(reads) * (B::keeps ? 3 : 1.3);
    if (uneven || block.axes[2].step > most_woven) return true;
    if (block.axes[0].size > 1) return !B::keeps || reads <= 4 || own < 7 + (12 * m + 500) / n;  // of few readers nobody scatters
    return cells <= woven_cells && own < 6.5 + 550 / n + through * (B::keeps ? 0.7 : 1);
  }
  static Units units(const Plan& plan) { return {plan.block.outer, larger(expanded_planes, planes_at_least(plan))}; }

  PlanesExpanded(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        axes_(plan.block.axes),
        layout_(layout_of(plan.block)),
        g_(static_cast<const G*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)) {
    const Int held = layout_.planes * layout_.outputs + 2 * N, lanes = layout_.packs * N, reads = layout_.packs * layout_.reads;
    const Int along = axes_[2].most_readers() * axes_[2].size;
    apart_ = lanes;
    Arena arena(scratch(static_cast<std::size_t>(2 * Arena::room<A>(held) + Arena::room<L>(held) + 2 * Arena::room<L>(reads * N) + 2 * Arena::room<L>(along) +
                                                 Arena::room<std::int32_t>(reads) + Arena::room<T>(lanes + slack<A>) + Stream<T>::room(lanes + slack<A>))));
    held_g_ = arena.take<A>(held);
    divisors_ = arena.take<A>(held);
    held_kept_ = arena.take<L>(held);
    lanes_ = arena.take<L>(reads * N);
    places_ = arena.take<L>(reads * N);
    along_lanes_ = arena.take<L>(along);
    along_places_ = arena.take<L>(along);
    bases_ = arena.take<std::int32_t>(reads);
    bounced_ = arena.take<T>(lanes + slack<A>);
    stream_ = Stream<T>(arena, lanes + slack<A>);
    streams_ = plan.input_size * Int(sizeof(T)) >= bytes_worth_streaming;
    fill<A>(held_g_, held, A{});
    fill<L>(held_kept_, held, L(-1));
    find_divisors();
    find_reads();
  }

  void run(Int begin, Int end) {
    const Int n = layout_.cells;
    if (streams_) stream_.start(gx_ + begin * n);
    for (Int plane = begin; plane < end; plane += layout_.planes) {
      const Int count = smaller(layout_.planes, end - plane), packs = ceil_div(count * n, N);
      hold(plane, count * layout_.outputs);
      const bool fits = !streams_ && (plane * n + packs * N <= end * n);
      T* const to = streams_ ? stream_.next() : fits ? gx_ + plane * n : bounced_;
      switch (layout_.reads) {
        case 1: expand<1>(to, packs); break;
        case 2: expand<2>(to, packs); break;
        default: expand<0>(to, packs);
      }
      if (streams_)
        stream_.wrote(count * n);
      else if (!fits)
        std::memcpy(static_cast<void*>(gx_ + plane * n), bounced_, static_cast<std::size_t>(count * n) * sizeof(T));
    }
    if (streams_) stream_.finish();
  }

 private:
  void find_divisors() {
    if (B::keeps || plan_.exact_share > 0) return;
    Int to = 0;
    for (Int i = 0; i < axes_[0].output; ++i)
      for (Int j = 0; j < axes_[1].output; ++j) {
        const double above = divided_by(plan_, axes_[0], false, i, 0) * divided_by(plan_, axes_[1], false, j, 0);
        for (Int k = 0; k < axes_[2].output; ++k) divisors_[to++] = static_cast<A>(above * divided_by(plan_, axes_[2], true, k, 0));
      }
    for (Int p = 1; p < layout_.planes; ++p) std::memcpy(divisors_ + p * layout_.outputs, divisors_, static_cast<std::size_t>(layout_.outputs) * sizeof(A));
  }

  // Through which of its taps the reader of this number reads a position, and which cell it is; -1 where there are fewer.
  struct Reader {
    Int cell, tap;
    Reader(const Axis& axis, const Run& run, Int position, Int number) : cell(-1), tap(0) {
      if (number >= run.count) return;
      cell = run.at + number * run.at_step;
      tap = axis.spans != nullptr ? position - axis.spans[cell].first : run.tap + number * run.tap_step;
    }
  };

  // The windows of each element, in their order: which of those that are held, and through which of their taps they read it.
  POOLWISE_OUTLINE void find_reads() {
    const Axis &planes = axes_[0], &rows = axes_[1], &last = axes_[2];
    const Int deep = planes.most_readers(), across = rows.most_readers(), along = last.most_readers();
    for (Int c = 0; c < along; ++c)
      for (Int k = 0; k < last.size; ++k) {
        const Reader reader(last, plan_.block.readers != nullptr ? plan_.block.readers[k] : last.readers(k), k, c);
        along_lanes_[c * last.size + k] = static_cast<L>(reader.cell), along_places_[c * last.size + k] = static_cast<L>(reader.tap);
      }
    fill<L>(lanes_, layout_.reads * apart_, L(-1));
    fill<L>(places_, layout_.reads * apart_, L(-2));
    Int to = 0;
    for (Int plane = 0; plane < layout_.planes; ++plane)
      for (Int i = 0; i < planes.size; ++i)
        for (Int j = 0; j < rows.size; ++j, to += last.size)
          for (Int a = 0; a < deep; ++a)
            for (Int b = 0; b < across; ++b) {
              const Reader above(planes, planes.readers(i), i, a), beside(rows, rows.readers(j), j, b);
              if (above.cell < 0 || beside.cell < 0) continue;
              const L lane = static_cast<L>(((plane * planes.output + above.cell) * rows.output + beside.cell) * last.output);
              const L place = static_cast<L>((above.tap * rows.taps + beside.tap) * last.taps);
              for (Int c = 0; c < along; ++c) find_row(to + ((a * across + b) * along + c) * apart_, c * last.size, lane, place);
            }
    for (Int r = 0; r < layout_.reads; ++r)
      for (Int pack = 0; pack < layout_.packs; ++pack) bases_[r * layout_.packs + pack] = find_base(lanes_ + r * apart_ + pack * N);
  }
  POOLWISE_INLINE void find_row(Int to, Int from, L lane, L place) {
    for (Int k = 0; k < axes_[2].size; ++k) {
      const bool there = along_lanes_[from + k] >= 0;
      lanes_[to + k] = there ? lane + along_lanes_[from + k] : L(-1);
      places_[to + k] = there ? place + along_places_[from + k] : L(-2);
    }
  }
  // Counts lanes from the first that is read, where two packs from there on hold all of them.
  POOLWISE_INLINE std::int32_t find_base(L* lanes) {
    const L nothing = static_cast<L>(layout_.planes * layout_.outputs);
    L first = nothing, last = 0;
    for (int i = 0; i < N; ++i) {
      first = lanes[i] >= 0 && lanes[i] < first ? lanes[i] : first;
      last = lanes[i] > last ? lanes[i] : last;
    }
    const bool near = last - first < 2 * N;
    for (int i = 0; i < N; ++i) lanes[i] = lanes[i] < 0 ? (near ? L(-1) : nothing) : lanes[i] - (near ? first : L(0));
    return near ? static_cast<std::int32_t>(first) : -1;
  }

  void hold(Int plane, Int n) {
    const Int from = plane * layout_.outputs;
    const A share = B::keeps ? A(1) : static_cast<A>(plan_.exact_share);
    for_lanes<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = lane + u * M;
        const auto g = load<A, M>(g_ + from + here);
        store<M, A>(held_g_ + here, share == 0 ? g / load<A, M>(divisors_ + here) : g * share);
        if constexpr (B::keeps) {  // what names no tap may be any negative number
          const auto kept = load<L, M>(kept_ + from + here);
          store<M, L>(held_kept_ + here, kept < 0 ? every<L, M>(-1) : kept);
        }
      }
    });
  }

  template <int Reads>
  POOLWISE_OUTLINE void expand(T* to, Int packs) const {
    const Int reads = Reads > 0 ? Reads : layout_.reads;
    for (Int pack = 0; pack < packs; ++pack) {
      Pack<A, N> sum = Pack<A, N>{} + read(bases_[pack], lanes_ + pack * N, places_ + pack * N);  // no -0
      for (Int r = 1; r < reads; ++r) sum += read(bases_[r * layout_.packs + pack], lanes_ + r * apart_ + pack * N, places_ + r * apart_ + pack * N);
      store<N, A>(to + pack * N, sum);
    }
  }
  POOLWISE_INLINE Pack<A, N> read(Int base, const L* lanes, const L* places) const {
    if (base < 0) return read_apart(lanes, places);
    const auto at = load<L, N>(lanes);
    const auto g = picked_at_run<A, N>(load<A, N>(held_g_ + base), load<A, N>(held_g_ + base + N), at);
    if constexpr (B::keeps) {
      const auto kept = picked_at_run<L, N>(load<L, N>(held_kept_ + base), load<L, N>(held_kept_ + base + N), at);
      return kept == load<L, N>(places) ? g : Pack<A, N>{};
    } else {
      return at >= 0 ? g : Pack<A, N>{};
    }
  }
  POOLWISE_OUTLINE Pack<A, N> read_apart(const L* lanes, const L* places) const {
    Pack<A, N> g{};
    for (int i = 0; i < N; ++i)
      if (!B::keeps || held_kept_[lanes[i]] == places[i]) g[i] = held_g_[lanes[i]];
    return g;
  }

  const Plan& plan_;
  const Axis* const axes_;
  const Layout layout_;
  const G* g_;
  const K* kept_;
  T* gx_;
  A *held_g_, *divisors_;
  L *held_kept_, *lanes_, *places_;       // the lanes that each element reads, as often as any is read, and the places it stands at
  L *along_lanes_, *along_places_;       // the same along the last axis
  Int apart_ = 0;                        // from what all read first to what they read next
  std::int32_t* bases_;                  // what they are counted from, -1 for all that are held
  T* bounced_;
  Stream<T> stream_;
  bool streams_ = false;
};

}  // namespace poolwise::POOLWISE_ISA
