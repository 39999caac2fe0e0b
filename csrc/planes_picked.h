// Forward from planes so small that a few packs hold one, or several: a table says which of their elements the windows read, so that rows
// however short fill packs. A tap of as many windows as a pack has lanes is picked at once.
#pragma once

#include "rows_selected.h"

namespace poolwise::POOLWISE_ISA {

constexpr int most_plane_packs = 4;
constexpr Int picked_windows = 1 << 8;  // of a plane
constexpr Int most_plane_taps = 16;     // of a window
constexpr Int most_sum_taps = 3;        // of an axis, as sums are in the order of the engine of lines
constexpr Int planes_at_once = 64;      // whose outputs are collected, at most
constexpr Int least_planes = 32;        // for which a table is written

template <class R, class K>
class PlanesPicked {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  using L = Lane<A>;
  using Beside = std::conditional_t<R::places, L, A>;  // the place of a tap, or what is added for one that is not there
  static constexpr int N = full<A>;
  static constexpr Int most_picks = N >= 16 ? 40 : N == 8 ? 24 : 18;  // of packs for all windows: with more the engine of rows is as fast; factor 96
  template <int M>
  using State = typename R::template State<M>;

  struct Layout {
    bool serves = false;
    Int cells = 1, outputs = 1, taps = 1;  // of a plane; of a window
    Int together = 1;                      // planes that are read and written as one
    int packs = 1;                         // that hold those, and their outputs
    Int written = 1;
  };

  static POOLWISE_OUTLINE Layout layout_of(const Block& block) {
    Layout layout;
    if (!block.unfolded() || block.inner != 1 || block.outer < least_planes) return layout;
    constexpr Int most = most_plane_packs * N;
    for (const Axis& axis : block.axes) {
      if (axis.spans != nullptr || axis.size > most || axis.output > picked_windows || axis.taps > most_plane_taps || axis.taps == 0 || !is_near(axis)) return layout;
      if (!R::idempotent && axis.taps > most_sum_taps) return layout;
      layout.cells *= axis.size, layout.outputs *= axis.output, layout.taps *= axis.taps;
      if (layout.cells > most || layout.outputs > picked_windows || layout.taps > most_plane_taps || layout.cells * layout.outputs == 0) return layout;
    }
    if (!R::idempotent && !is_one_cell(block.axes[0])) return layout;
    layout.together = larger(1, smaller(N / layout.outputs, most / layout.cells));
    layout.packs = static_cast<int>(ceil_div(layout.together * layout.cells, N)), layout.written = ceil_div(layout.together * layout.outputs, N);
    layout.serves = layout.written * layout.taps * (layout.packs > 2 ? 2 : 1) <= most_picks * layout.together;
    return layout;
  }
  static POOLWISE_INLINE bool is_one_cell(const Axis& axis) { return axis.size == 1 && axis.output == 1 && axis.taps == 1; }
  // Whether each window reads some element.
  static POOLWISE_OUTLINE bool reads_some(const Block& block) {
    for (const Axis& axis : block.axes)
      for (Int i = 0; i < axis.output; ++i)
        if (taps_of(axis, i, 0).count == 0) return false;
    return true;
  }
  // Whether planes lie one behind the other.
  static POOLWISE_OUTLINE bool are_dense(const Block& block, const RowStrides& strides) {
    const Axis &planes = block.axes[0], &rows = block.axes[1], &last = block.axes[2];
    return strides.even && (rows.size == 1 || strides.row == last.size) && (planes.size == 1 || strides.plane == rows.size * last.size) &&
           (block.outer <= 1 || strides.outer == planes.size * rows.size * last.size);
  }

 public:
  static constexpr bool wanted = Rows<R, K>::wanted && (R::idempotent || std::is_same_v<R, Total<T, Number<T>>>);

  static bool serves(const Plan& plan, const Buffers& buffers) {
    if (buffers.mask != nullptr || !layout_of(plan.block).serves) return false;
    return reads_some(plan.block) && are_dense(plan.block, row_strides(plan, sizeof(T), buffers.from, buffers.from_strides));
  }
  static Units units(const Plan& plan) { return {plan.block.outer, planes_at_least(plan)}; }

  PlanesPicked(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        axes_(plan.block.axes),
        layout_(layout_of(plan.block)),
        reduction_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        kept_(static_cast<K*>(buffers.kept)),
        stop_(plan.block.outer * layout_.cells) {
    const Int lanes = layout_.written * N, written = (planes_at_once + layout_.together) * layout_.outputs + 2 * N, table = layout_.written * layout_.taps * N;
    Int found = 0;
    for (int a = 0; a < 3; ++a) found += Arena::room<Found>(axes_[a].output * axes_[a].taps);
    Arena arena(scratch(static_cast<std::size_t>(found + Arena::room<A>(lanes) + Arena::room<L>(table) + Arena::room<Beside>(table) + Arena::room<T>(most_plane_packs * N) +
                                                 Arena::room<Out>(written) + Arena::room<K>(written) + Stream<Out>::room(written))));
    divisors_ = arena.take<A>(lanes);
    lanes_ = arena.take<L>(table);
    beside_ = arena.take<Beside>(table);
    spare_ = arena.take<T>(most_plane_packs * N);
    bounced_ = arena.take<Out>(written);
    bounced_kept_ = arena.take<K>(written);
    stream_ = Stream<Out>(arena, written);
    streams_ = plan.output_size * Int(sizeof(Out)) >= bytes_worth_streaming;
    std::memset(static_cast<void*>(spare_), 0, static_cast<std::size_t>(most_plane_packs * N) * sizeof(T));
    find_divisors();
    for (int a = 0; a < 3; ++a) found_[a] = find_along(axes_[a], arena.take<Found>(axes_[a].output * axes_[a].taps));
    find_taps();
  }

  void run(Int begin, Int end) {
    const Int n = layout_.outputs, together = layout_.together, at_once = larger(1, planes_at_once / together) * together;
    if (streams_) stream_.start(y_ + begin * n);
    for (Int plane = begin; plane < end; plane += at_once) {
      const Int count = smaller(at_once, end - plane), groups = ceil_div(count, together);
      const bool fits = plane * n + groups * together * n + N <= end * n;
      Out* const to = streams_ ? stream_.next() : fits ? y_ + plane * n : bounced_;
      K* const kept = R::places && fits ? kept_ + plane * n : bounced_kept_;
      if (layout_.packs > 2)
        reduce_groups<4>(plane, count, to, kept);
      else
        reduce_groups<2>(plane, count, to, kept);
      if (streams_)
        stream_.wrote(count * n);
      else if (!fits)
        std::memcpy(static_cast<void*>(y_ + plane * n), bounced_, static_cast<std::size_t>(count * n) * sizeof(Out));
      if constexpr (R::places)
        if (!fits) std::memcpy(kept_ + plane * n, bounced_kept_, static_cast<std::size_t>(count * n) * sizeof(K));
    }
    if (streams_) stream_.finish();
  }

 private:
  // ---- the table ----

  void find_divisors() {
    fill<A>(divisors_, layout_.written * N, A(1));
    if constexpr (R::divides) {
      if (!reduction_.is_mean) return;
      for (Int o = 0; o < layout_.together * layout_.outputs; ++o) {
        const Int j = o % axes_[2].output, i = o / axes_[2].output % axes_[1].output;
        const auto row = static_cast<A>(divided_by(plan_, axes_[0], false, 0, 0) * divided_by(plan_, axes_[1], false, i, 0));
        divisors_[o] = R::written_by(static_cast<A>(divided_by(plan_, axes_[2], true, j, 0))) * R::written_by(row);
      }
    }
  }

  // A tap of a window along an axis, or the nearest that is there: taking an element twice is no harm where an order decides.
  struct Found {
    Int at, tap;
    bool there;
  };
  static const Found* find_along(const Axis& axis, Found* found) {
    for (Int cell = 0; cell < axis.output; ++cell) {
      const Taps taps = taps_of(axis, cell, 0);
      for (Int wanted = 0; wanted < axis.taps; ++wanted) {
        const Int tap = smaller(larger(wanted, taps.first), taps.first + taps.count - 1);
        found[cell * axis.taps + wanted] = {axis.first(cell) + tap * axis.dilation, tap, tap == wanted};
      }
    }
    return found;
  }

  // Of each pack of windows one tap after the other: row by row, or of a sum, which adds rows first, column by column.
  POOLWISE_OUTLINE void find_taps() {
    const Axis &planes = axes_[0], &rows = axes_[1], &last = axes_[2];
    fill<L>(lanes_, layout_.written * layout_.taps * N, L(0));
    fill<Beside>(beside_, layout_.written * layout_.taps * N, Beside(0));
    Int o = 0;
    for (Int plane = 0; plane < layout_.together; ++plane)
      for (Int p = 0; p < planes.output; ++p)
        for (Int i = 0; i < rows.output; ++i)
          for (Int j = 0; j < last.output; ++j, ++o) {
            Int to = o / N * layout_.taps * N + o % N;
            const auto find = [&](Int a, Int b, Int c) POOLWISE_LAMBDA {
              const Found &deep = found_[0][p * planes.taps + a], &across = found_[1][i * rows.taps + b], &along = found_[2][j * last.taps + c];
              lanes_[to] = static_cast<L>(((plane * planes.size + deep.at) * rows.size + across.at) * last.size + along.at);
              if constexpr (R::places) beside_[to] = static_cast<L>((deep.tap * rows.taps + across.tap) * last.taps + along.tap);
              if constexpr (R::divides)
                if (!across.there || !along.there) pad(to, !along.there && b == 0, c);
              to += N;
            };
            if constexpr (R::idempotent) {
              for (Int a = 0; a < planes.taps; ++a)
                for (Int b = 0; b < rows.taps; ++b)
                  for (Int c = 0; c < last.taps; ++c) find(a, b, c);
            } else {
              for (Int c = 0; c < last.taps; ++c)
                for (Int b = 0; b < rows.taps; ++b) find(0, b, c);
            }
          }
  }

  // A column that is not there is one zero, in its first row; what a row lacks, or no window has, adds nothing, not even to -0.
  void pad(Int to, bool begins_column, Int column) {
    const Taps read = plan_.block.read;
    beside_[to] = begins_column && column >= read.first && column < read.first + read.count ? A(0) : A(-0.0);
    lanes_[to] = L(-1), pads_ = true;
  }

  // ---- planes ----

  template <int P>
  void reduce_groups(Int plane, Int count, Out* to, K* kept) {
    const Int n = layout_.together * layout_.outputs, cells = layout_.together * layout_.cells;
    Int from = plane * layout_.cells;
    for (Int p = 0; p < count; p += layout_.together, from += cells, to += n) {
      const T* source = x_ + from;
      if (from + P * N > stop_) {
        std::memcpy(static_cast<void*>(spare_), source, static_cast<std::size_t>(smaller(cells, stop_ - from)) * sizeof(T));
        source = spare_;
      }
      reduce<P>(source, to, kept);
      if constexpr (R::places) kept += n;
    }
  }

  template <int P>
  POOLWISE_INLINE void reduce(const T* from, Out* to, K* kept) const {
    Pack<A, N> held[P];
    for (int p = 0; p < P; ++p) {
      held[p] = reduction_.template read<N>(from + p * N);
      __builtin_prefetch(reinterpret_cast<const char*>(from + p * N) + prefetch_distance);
    }
    if constexpr (R::idempotent) {
      if constexpr (calms<R>) {
        LaneSet<A, N> calm = LaneSet<A, N>::all();
        for (int p = 0; p < P; ++p) calm &= R::template calm<N>(held[p]);
        if (calm.is_all()) return select<true>(held, to, kept);
      }
      select<false>(held, to, kept);
    } else {
      switch (4 * axes_[1].taps + axes_[2].taps) {
        case 10: return pads_ ? add<2, 2, true>(held, to) : add<2, 2, false>(held, to);
        case 15: return pads_ ? add<3, 3, true>(held, to) : add<3, 3, false>(held, to);
        default: pads_ ? add<0, 0, true>(held, to) : add<0, 0, false>(held, to);
      }
    }
  }

  template <int P>
  static POOLWISE_INLINE Pack<A, N> picked(const Pack<A, N> (&held)[P], Pack<L, N> lanes) {
    const Pack<A, N> low = picked_at_run<A, N>(held[0], held[1], lanes);
    if constexpr (P == 2) return low;
    return (lanes & L(2 * N)) != 0 ? picked_at_run<A, N>(held[P - 2], held[P - 1], lanes) : low;
  }

  template <bool Calm, int P>
  POOLWISE_INLINE void select(const Pack<A, N> (&held)[P], Out* to, K* kept) const {
    switch (layout_.taps) {
      case 4: return select_by<Calm, 4>(held, to, kept);
      case 9: return select_by<Calm, 9>(held, to, kept);
      default: select_by<Calm, 0>(held, to, kept);
    }
  }
  // Count is the number of taps where the compiler knows it, else 0.
  template <bool Calm, int Count, int P>
  POOLWISE_INLINE void select_by(const Pack<A, N> (&held)[P], Out* to, K* kept) const {
    const R reduction = reduction_;
    const Int taps = Count > 0 ? Count : layout_.taps, written = layout_.written;
    const L* lanes = lanes_;
    const Beside* beside = beside_;
    for (Int pack = 0; pack < written; ++pack, lanes += taps * N, beside += taps * N) {
      const auto tap = [&](Int t) POOLWISE_LAMBDA {
        State<N> state = reduction.template taken<N>(picked(held, load<L, N>(lanes + t * N)), 0);
        if constexpr (R::places) state.second = load<L, N>(beside + t * N);
        return state;
      };
      State<N> state = tap(0);
      for (Int t = 1; t < taps; ++t) {
        if constexpr (Calm)
          state = reduction.template calmly<N>(state, tap(t));
        else
          state = reduction.template merged<N>(state, tap(t));
      }
      state = reduction.template finished<N>(state);
      reduction.template write<N>(to + pack * N, state, Pack<A, N>{});
      if constexpr (R::places) store<N, typename R::Second>(kept + pack * N, reduction.template place<N>(state));
    }
  }

  // Rows and columns of a window where the compiler knows them, else 0.
  template <int Rows, int Columns, bool Pads, int P>
  POOLWISE_INLINE void add(const Pack<A, N> (&held)[P], Out* to) const {
    const R reduction = reduction_;
    const Int rows = Rows > 0 ? Rows : axes_[1].taps, columns = Columns > 0 ? Columns : axes_[2].taps, written = layout_.written;
    const L* lanes = lanes_;
    const Beside* beside = beside_;
    for (Int pack = 0; pack < written; ++pack, lanes += rows * columns * N, beside += rows * columns * N) {
      const auto tap = [&](Int t) POOLWISE_LAMBDA {
        const auto at = load<L, N>(lanes + t * N);
        if constexpr (Pads) return State<N>{at >= 0 ? picked(held, at) : load<Beside, N>(beside + t * N)};
        return State<N>{picked(held, at)};
      };
      const auto column = [&](Int c) POOLWISE_LAMBDA {
        State<N> state = tap(c * rows);
        for (Int b = 1; b < rows; ++b) state = reduction.template followed<N>(state, tap(c * rows + b));
        return state;
      };
      reduction.template write<N>(to + pack * N, balanced<R, N, Columns>(reduction, columns, column), load<A, N>(divisors_ + pack * N));
    }
  }

  const Plan& plan_;
  const Axis* const axes_;
  const Layout layout_;
  const R reduction_;
  const T* x_;
  Out* y_;
  K* kept_;
  const Int stop_;   // where the array ends
  const Found* found_[3];  // the taps of each axis
  A* divisors_;
  L* lanes_;         // of each pack of windows, tap by tap: which of the elements that are held
  Beside* beside_;
  bool pads_ = false;
  T* spare_;
  Out* bounced_;
  K* bounced_kept_;
  Stream<Out> stream_;
  bool streams_ = false;
};

}  // namespace poolwise::POOLWISE_ISA
