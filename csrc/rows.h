// Forward where a row, with what surrounds it, fills at most a few packs: what the two engines of such rows share. A row goes from
// memory into registers once, and its windows are reduced there by lanes that move past each other.
#pragma once

#include "lines_forward.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int most_row_packs = 4;
constexpr Int most_row_taps = 64;
constexpr Int most_doublings = 16;        // of so many taps
constexpr Int held_rows_bytes = 1 << 15;  // of one plane, which should stay in the first cache
constexpr Int most_bin_taps = 8;          // of uneven windows along a row: each tap is picked by itself

// Of a row whose sums are added: of more the engine of lines is sooner done, or as soon.
template <class R>
inline constexpr Int most_added_lanes = sizeof(typename R::Element) < 8 ? 32 : 16;

// How a plane's rows lie in packs.
struct RowsLayout {
  bool serves = false;
  bool picks = false;         // a step along the row, or uneven windows
  bool doubles = false;       // sums: taps of a row are doubled
  bool slides = false;        // sums: rows of a window slide
  Int start = 0, taps = 0;    // of the first window along a row, without the taps that no window of a sum has
  Int packs = 0, left = 0;    // of a row, and of what it is reduced to
  Int slots = 0;              // rows of a plane, those in the padding too
  Int first = 0, rows = 0;    // which of them are there
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
  layout.start = last.start, layout.taps = last.taps;
  if constexpr (!R::idempotent) {
    const LineLayout line = line_layout<R>(plan);
    if (!line.serves || line.folds || line.slides_along) return layout;
    layout.doubles = line.doubles, layout.slides = line.slides;
    if (last.spans == nullptr) layout.start += block.read.first * last.dilation, layout.taps = block.read.count;
    const bool folds = last.spans == nullptr && last.dilation == 1 && layout.taps > taps_worth_folding;  // as lines do, in another order
    if (!layout.doubles && (folds || layout.taps > most_doublings)) return layout;
  }
  if (last.spans != nullptr) {
    if (last.taps > most_bin_taps || last.size == 2 * N || last.output > N) return layout;  // there has to be a lane where nothing is
    layout.picks = true;
    layout.packs = ceil_div(last.size, N);
  } else {
    const Int begins = (last.output - 1) * last.step + 1, ends = begins + (layout.taps - 1) * last.dilation;
    layout.picks = last.step > 1;
    layout.packs = ceil_div(larger(begins, smaller(ends, last.size - layout.start)), N);
  }
  const bool pairs = last.spans == nullptr && last.step <= 2;  // what is left of two packs is one
  layout.left = layout.picks ? ceil_div(layout.packs, 2) : layout.packs > 2 ? layout.packs : ceil_div(last.output, N);
  if (layout.packs > (pairs && sizeof(typename R::Accumulator) >= 4 ? most_row_packs : 2)) return layout;
  layout.slots = rows.spans != nullptr ? rows.size : (rows.output - 1) * rows.step + (rows.taps - 1) * rows.dilation + 1;
  layout.first = smaller(layout.slots, larger(0, -rows.start));
  layout.rows = larger(0, smaller(rows.size - rows.start, layout.slots) - layout.first);
  if (!R::idempotent && layout.packs * N > most_added_lanes<R>) return layout;
  layout.serves = layout.slots * layout.left * POOLWISE_VECTOR_BYTES * (Line<R>::two ? 2 : 1) <= held_rows_bytes;
  return layout;
}

template <class R, class K>
class Rows {
 protected:
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  using L = Lane<A>;
  static constexpr int N = full<A>;
  template <int M>
  using State = typename R::template State<M>;

 public:
  // Types whose rows are short often enough, and whose lanes are picked forward as the run tells; halves are added in double only where windows
  // have thousands of them.
  static constexpr bool wanted = picks_forward<A> && std::is_floating_point_v<Number<T>> &&
                                 (R::idempotent || std::is_same_v<R, Total<T, Number<T>>> || (std::is_same_v<R, Total<T, double>> && sizeof(T) > 2));

  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    return buffers.mask == nullptr && rows_layout<R>(plan).serves && row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even;
  }
  static Units units(const Plan& plan) { return {plan.block.outer, planes_at_least(plan)}; }

 protected:
  // Some taps further on along a row: from these lanes on, of the pack so many packs `behind` and the next.
  struct Across {
    int behind;
    bool single;  // with single elements, not with windows so far
    Int taps;
    Pack<L, N> lanes;
  };

  Rows(const Plan& plan, const Buffers& buffers, Int bytes)
      : plan_(plan),
        rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        reduction_(plan),
        layout_(rows_layout<R>(plan)),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        kept_(static_cast<K*>(buffers.kept)),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        stop_(last_row(plan.block, strides_) + last_.size),
        outputs_(rows_.output * last_.output),
        arena_(nullptr) {
    const Int written = outputs_ + most_row_packs * N, spare = layout_.rows * layout_.packs * N;
    arena_ = Arena(scratch(static_cast<std::size_t>(bytes + Arena::room<T>(spare) + Arena::room<K>(written) + Arena::room<Out>(written) + Stream<Out>::room(written))));
    spare_ = arena_.take<T>(spare);
    bounced_kept_ = arena_.take<K>(written);
    bounced_ = arena_.take<Out>(written);
    stream_ = Stream<Out>(arena_, written);
    streams_ = plan.output_size * Int(sizeof(Out)) >= bytes_worth_streaming;
    std::memset(static_cast<void*>(spare_), 0, static_cast<std::size_t>(spare) * sizeof(T));
    if (last_.spans != nullptr) find_bins();
    picked_ = counted<L, N>() * every<L, N>(static_cast<L>(layout_.picks && last_.spans == nullptr ? last_.step : 1));
  }

  // Calls at.operator()<P, Q>(rows, from one to the next) for each plane: P packs of a row, Q of what it is reduced to.
  template <class At>
  POOLWISE_INLINE void for_planes(Int begin, Int end, At&& at) {
    end_ = end * outputs_;
    if (streams_) stream_.start(y_ + begin * outputs_);
    switch (10 * layout_.packs + layout_.left) {
      case 11: planes_by<1, 1>(begin, end, at); break;
      case 21: planes_by<2, 1>(begin, end, at); break;
      case 22: planes_by<2, 2>(begin, end, at); break;
      default:
        if constexpr (sizeof(A) >= 4 && (R::idempotent || 2 * N < most_added_lanes<R>)) wide_planes(begin, end, at);
    }
    if (streams_) stream_.finish();
  }

  // ---- lanes that move ----

  void find_doublings(Int count) {
    Int width = 1, bit = 1;
    if constexpr (R::idempotent) {
      for (; 2 * width <= count; width *= 2) add_across(width);
      if (count > width) add_across(count - width);
    } else {
      while (2 * bit <= count) bit *= 2;
      for (bit /= 2; bit > 0; bit /= 2) {
        add_across(width), width *= 2;
        if ((count & bit) != 0) add_across(width++, true);
      }
    }
  }
  void add_across(Int taps, bool single = false) {
    const Int lanes = taps * last_.dilation;
    if (R::idempotent && lanes >= layout_.packs * N) return;  // nothing is there
    across_[across_count_++] = {static_cast<int>(smaller(lanes / N, most_row_packs)), single, taps, counted<L, N>() + every<L, N>(static_cast<L>(lanes % N))};
  }

  static POOLWISE_INLINE State<N> lanes_of(const State<N>& a, const State<N>& b, Pack<L, N> lanes) {
    if constexpr (Line<R>::two)
      return {picked_at_run<A, N>(a.value, b.value, lanes), picked_at_run<typename R::Second, N>(a.second, b.second, lanes)};
    else
      return {picked_at_run<A, N>(a.value, b.value, lanes)};
  }
  // The pack that stands so many behind p, which is one of them, and the next, from those lanes on.
  template <int Behind, int P>
  static POOLWISE_INLINE State<N> lanes_behind(const State<N> (&packs)[P], const State<N>& nothing, int p, Pack<L, N> lanes) {
    const int next = p + Behind + 1;
    return next < P ? lanes_of(packs[(p + Behind) % P], packs[next % P], lanes) : lanes_of(packs[(p + Behind) % P], nothing, lanes);
  }
  // Every step-th lane of packs that are in order, where the layout has it so.
  template <int Q, int P>
  POOLWISE_INLINE void pick(State<N> (&packs)[P], const State<N>& nothing) const {
    if (P == 1 || P == 2 * Q ? !layout_.picks : Q == P) return;
    for (int q = 0; 2 * q < P; ++q)
      packs[q] = 2 * q + 1 < P ? lanes_of(packs[2 * q], packs[(2 * q + 1) % P], picked_) : lanes_of(packs[2 * q], nothing, picked_);
  }
  // Which lanes of pack p are in the row.
  POOLWISE_INLINE LaneSet<A, N> inside(int p) const {
    return LaneSet<A, N>::between(-layout_.start - p * N, last_.size - layout_.start - p * N);
  }

 private:
  template <class At>
  POOLWISE_OUTLINE void wide_planes(Int begin, Int end, At& at) {
    switch (10 * layout_.packs + layout_.left) {
      case 32: return planes_by<3, 2>(begin, end, at);
      case 33: return planes_by<3, 3>(begin, end, at);
      case 42: return planes_by<4, 2>(begin, end, at);
      default: planes_by<4, 4>(begin, end, at);
    }
  }

  template <int P, int Q, class At>
  POOLWISE_OUTLINE void planes_by(Int begin, Int end, At& at) {
    const Int n = outputs_;
    const bool any = layout_.rows > 0;  // where a plane has no row to read, its stride means nothing
    const Int first = (any ? (rows_.start + layout_.first) * strides_.row : 0) + layout_.start, reach = (any ? (layout_.rows - 1) * strides_.row : 0) + P * N;
    for (Int plane = begin; plane < end; ++plane) {
      const Int from = plane * strides_.outer + first;
      const bool safe = from >= 0 && from + reach <= stop_ && strides_.row >= 0, fits = plane * n + n + Q * N <= end_;
      out_ = streams_ ? stream_.next() : fits ? y_ + plane * n : bounced_;
      if constexpr (R::places) kept_out_ = fits ? kept_ + plane * n : bounced_kept_;
      at.template operator()<P, Q>(safe ? x_ + from : spare_rows(x_ + from, P * N), safe ? strides_.row : P * N);
      if (streams_)
        stream_.wrote(n);
      else if (!fits)
        std::memcpy(static_cast<void*>(y_ + plane * n), bounced_, static_cast<std::size_t>(n) * sizeof(Out));
      if constexpr (R::places)
        if (!fits) std::memcpy(kept_ + plane * n, bounced_kept_, static_cast<std::size_t>(n) * sizeof(K));
    }
  }

  // The rows of a plane around which there may be no memory to read.
  POOLWISE_OUTLINE const T* spare_rows(const T* from, Int lanes) {
    const Int before = larger(0, -layout_.start), cells = larger(0, smaller(last_.size - larger(0, layout_.start), lanes - before));
    for (Int r = 0; r < layout_.rows; ++r)
      std::memcpy(static_cast<void*>(spare_ + r * lanes + before), from + r * strides_.row + before, static_cast<std::size_t>(cells) * sizeof(T));
    return spare_;
  }

  // Where the taps of all bins stand; of those that a bin lacks, where nothing does.
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

 protected:
  const Plan& plan_;
  const Axis &rows_, &last_;
  const R reduction_;
  const RowsLayout layout_;
  const T* x_;
  Out* y_;
  K* kept_;
  RowStrides strides_;
  Int stop_;     // where the array ends
  Int outputs_;  // of a plane
  Int end_ = 0;  // of what this thread writes
  Arena arena_;
  T* spare_;
  K *bounced_kept_, *kept_out_ = nullptr;
  Out *bounced_, *out_ = nullptr;
  Stream<Out> stream_;
  bool streams_ = false;
  Int across_count_ = 0;
  Across across_[most_doublings];
  Pack<L, N> picked_;
};

}  // namespace poolwise::POOLWISE_ISA
