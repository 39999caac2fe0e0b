// The fast forward engine, for windows that are the same for all planes, over a block of rows: whole lines at a time, whatever the
// layout. The rows of a window are reduced into one line (down), lanes beside each other never meeting; then the lines's own taps
// are reduced (across). Neither cost grows much with the window: rows slide, in blocks of as many as a window has, each row reduced
// once with those after it in its block and once with those before it (van Herk 1992; Gil & Werman 1993); and the taps of a
// line are doubled, a line of pairs reduced to one of fours, or slide as rows do. Nothing is ever subtracted.
//
// A line holds the cells that some window of its chunk reads; where the padding is, nothing, or copies of cells where it folds. Lanes are columns × inner.
#pragma once

#include "columns_slid.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

// Beyond so many rows or taps a window slides or doubles; measured, see benchmarks/factors.md.
constexpr Int rows_worth_sliding = 8, taps_worth_doubling = 8;
constexpr Int line_bytes = 1 << 17, sliding_bytes = 1 << 18;  // what should stay in the second cache
constexpr Int cut_line_bytes = 1 << 14;                       // and in the first
constexpr Int most_picked = 4;                                // the largest stride at which lanes are picked out of packs
constexpr Int most_strided = 8;                                // and at which they are where the run tells how
constexpr Int folded_lanes = 64;                              // of a line on which a window over all of an axis is laid
constexpr Int lanes_worth_reading_in_place = 512;             // of a row
constexpr Int taps_worth_folding = 8;                         // in a pack, of windows that are apart or uneven
constexpr Int rows_at_once = 4;                                // that are reduced in one loop
constexpr Int most_at_once = 3;                                // rows and columns of a window that is reduced in one step
constexpr Int band_bytes = 6 << 10, most_band_rows = 64;     // of short lines that are reduced across together; factor 71
constexpr Int stream_bytes = 2 << 10;                        // of their outputs, where those are written past the caches
constexpr Int most_picked_taps = 16;                         // of windows further apart, or uneven bins, whose elements are picked one by one

// How a plan's lines are cut. `serves` is false where this engine does not.
struct LineLayout {
  bool serves = false, slides = false, doubles = false, folds = false;
  bool in_place = false;  // a line is a row of the input, where enough of the array follows it
  bool at_once = false;   // windows are reduced from where they lie, where all of their rows are there
  bool slides_along = false;  // the taps of a line, as the rows of a window do where `slides`
  bool strides = false;  // taps of windows far apart are picked out of as many packs
  Int picks = 0;         // taps of uneven bins, or of windows far apart, that are picked side by side for all of them
  Int extent = 0;   // cells from a window's first tap to its last; of uneven bins all, where windows fold those of a piece
  Int columns = 0;  // outputs of a chunk
  Int chunks = 0;
  Int lanes = 0;    // of a line, from one to the next
  Int rows = 1;     // lines that are reduced across at once
  Int bytes = 0;    // of scratch
};

// Whether the taps of a line may slide: so many additions one after the other are few enough in double alone. Integers, which are rarer, double.
template <class R>
inline constexpr bool slides_columns = !R::idempotent && !weighs<R> && !Line<R>::two && std::is_same_v<typename R::Accumulator, double> && std::is_floating_point_v<Number<typename R::Element>>;

// Whether an element costs so much that loops over several rows of them are long, and gain nothing.
template <class R>
inline constexpr bool is_costly = requires { R::is_costly; };

// Whether only windows of many elements are added so: of doubles, and of halves in double.
template <class R>
inline constexpr bool is_for_many = std::is_same_v<R, LongTotal> || std::is_same_v<R, Total<Half, double>> || std::is_same_v<R, Total<Brain, double>>;

// Whether loops are compiled for each of the usual numbers of taps and rows: not of integers' sums, nor of powers, nor where windows have many.
template <class R>
inline constexpr bool is_common = R::idempotent || (std::is_floating_point_v<Number<typename R::Element>> && !is_costly<R> && !is_for_many<R>);

// Lanes from one line to the next, where many lie one after another.
template <class R>
POOLWISE_INLINE Int line_lanes(Int lanes) {
  return (lanes + slack<typename R::Accumulator> + 63) / 64 * 64;
}

// Whether all elements that stand in the padding of a line are also among its own cells, of which there are so many from `first` on.
POOLWISE_OUTLINE bool folds_inside(const Axis& axis, Int first, Int cells) {
  const Int begin = larger(0, first), end = smaller(axis.size, first + cells);
  const auto inside = [&](Int from, Int stop) {
    for (Int place = from; place < stop; ++place)
      if (folded_of(axis, place) < begin || folded_of(axis, place) >= end) return false;
    return true;
  };
  return axis.mode == Mode::absent || (inside(larger(first, -axis.low), smaller(0, first + cells)) &&
                                       inside(larger(first, axis.size), smaller(first + cells, axis.size + axis.high)));
}

// Columns that slide, or where channels lie beside each other, their outputs; whole packs.
template <class A>
POOLWISE_INLINE Int turned_columns(const LineLayout& layout, Int inner) {
  return (inner == 1 ? layout.lanes : layout.columns) + widest<A>;
}

template <class R>
bool is_streamed(const Plan& plan) {
  return plan.output_size * Int(sizeof(typename R::Result)) >= bytes_worth_streaming;
}

// How many lines of so many lanes. What is written past the caches is written a little at a time.
template <class R>
Int rows_of_band(const Plan& plan, Int lanes) {
  const Int row_bytes = plan.block.axes[2].output * plan.block.inner * Int(sizeof(typename R::Result));
  Int rows = smaller(plan.block.output_rows(), band_bytes / Int(sizeof(typename R::Accumulator)) / larger(1, lanes));
  if (is_streamed<R>(plan)) rows = smaller(rows, stream_bytes / larger(1, row_bytes));
  return larger(1, smaller(rows, most_band_rows));
}

// Whether an accumulator may be an element as it is in memory.
template <class R>
inline constexpr bool is_itself = std::is_floating_point_v<typename R::Element> && std::is_same_v<typename R::Element, typename R::Accumulator> && !Line<R>::two &&
                                  !weighs<R> && !raises<R>;

// Whether each window reads one row, from its beginning to its end at most, and rows hold what lines would. Short ones are collected.
template <class R>
POOLWISE_INLINE bool lies_as_lines(const Plan& plan) {
  const Block& block = plan.block;
  if (!is_itself<R> || plan.body == Body::min) return false;  // whose sign is turned
  for (const Axis& axis : {block.axes[0], block.axes[1], block.axes[2]})
    if (axis.mode != Mode::absent || axis.spans != nullptr || axis.start < 0) return false;
  for (const Axis& axis : {block.axes[0], block.axes[1]})
    if (axis.taps != 1 || axis.start + (axis.output - 1) * axis.step >= axis.size) return false;
  const Axis& last = block.axes[2];
  return last.size * block.inner >= lanes_worth_reading_in_place && last.start + (last.output - 1) * last.step + (last.taps - 1) * last.dilation < last.size;
}

// Whether channels lie beside each other, and windows have at most one row and column more than they are apart: then a line saves less
// than it costs. From how many channels on was measured; see benchmarks/factors.md, 95.
template <class R>
POOLWISE_INLINE bool lies_at_once(const Block& block) {
  const Axis &rows = block.axes[1], &last = block.axes[2];
  if (!is_common<R> || weighs<R> || block.axes[0].taps != 1 || rows.taps != block.read.count || rows.taps < 2 || rows.taps > most_at_once) return false;
  for (const Axis& axis : {block.axes[0], rows, last})
    if (axis.mode != Mode::absent || axis.spans != nullptr) return false;
  constexpr Int pack = widest<typename R::Accumulator>;
  const Int step = smaller(rows.step, last.step);
  constexpr bool is_turned = R::idempotent && std::is_floating_point_v<Number<typename R::Element>> && sizeof(typename R::Element) == 2;
  if (rows.taps > step && is_turned) return false;  // halves are turned to numbers that can be compared as often as they are read
  return rows.taps <= step + 1 && block.inner >= (step == 1 ? 3 * pack : rows.taps == 2 ? pack / 4 : pack);
}

template <class R>
POOLWISE_OUTLINE LineLayout line_layout(const Plan& plan) {
  using A = typename R::Accumulator;
  constexpr Int lane_bytes = sizeof(A) + (Line<R>::two ? sizeof(A) : 0);
  LineLayout layout;
  const Block& block = plan.block;
  const Axis &last = block.axes[2], &rows = block.axes[1];
  const Taps read = block.read;
  if (read.count == 0 || last.start < -far || last.start > far || last.step > far || last.dilation > far) return layout;
  if (read.first > far || read.count > far || last.output > far) return layout;
  layout.folds = !weighs<R> && one_window(last) && read.count >= taps_worth_doubling && last.size * block.inner * Int(sizeof(typename R::Element)) < most_memory / 4;
  if (layout.folds) {
    const Int cells = smaller(last.size, larger(1, folded_lanes / larger(1, block.inner)));
    layout.columns = layout.chunks = 1;
    layout.extent = cells;
    for (layout.lanes = block.inner; layout.lanes < cells * block.inner;) layout.lanes *= 2;
    layout.lanes = larger(layout.lanes, 2 * full<A>);
    layout.rows = rows_of_band<R>(plan, layout.lanes);
    layout.bytes = layout.rows * (Line<R>::room(layout.lanes) + 4 * Arena::room<std::int64_t>(layout.lanes + slack<A>) + Stream<typename R::Result>::room(layout.lanes)) +
                   Stream<typename R::Result>::room(slack<A>) + Arena::room<typename R::Element>(rows_at_once * (last.size * block.inner + slack<A>));
    layout.serves = block.inner > 0 && layout.bytes < most_memory;
    return layout;
  }
  layout.extent = last.spans != nullptr ? last.size : (read.count - 1) * last.dilation + 1;
  layout.slides = !weighs<R> && rows.spans == nullptr && rows.taps >= rows_worth_sliding && rows.taps < far && rows.step < far && rows.output > 1 &&
                  rows.dilation == 1 && rows.taps > 3 * rows.step;
  layout.slides_along = slides_columns<R> && last.spans == nullptr && last.dilation == 1 && last.size >= row_worth_sliding &&
                        read.count >= columns_worth_sliding && read.count <= most_slid_columns && read.count > 3 * last.step && (block.inner == 1 || block.inner >= turned_rows);
  layout.doubles = !weighs<R> && !layout.slides_along && last.spans == nullptr && read.count >= taps_worth_doubling && read.count > last.step;
  const Wide least = (Wide(layout.extent) * block.inner + slack<A>) * lane_bytes * (layout.slides ? rows.taps : 1);
  if (block.inner == 0 || least > most_memory / 4) return layout;
  // A long row that is divided is cut where it overfills the first cache, with its divisors and what is written; not channels or folded padding,
  // which would have to be read again, nor columns that slide, which are turned several rows at a time.
  // What is neither divided nor copied is read in the order of memory.
  const bool divided = [&] {
    if constexpr (R::divides) return R(plan).is_mean;
    return false;
  }();
  const bool is_cut = R::divides && (divided || !lies_as_lines<R>(plan)) && block.inner == 1 && last.mode == Mode::absent && !layout.slides_along && last.size * lane_bytes >= 3 * cut_line_bytes;
  const Int extent_bytes = layout.extent * block.inner * lane_bytes, line = is_cut ? larger(cut_line_bytes, smaller(line_bytes, 16 * extent_bytes)) : line_bytes;
  const Int room = larger(layout.slides ? sliding_bytes / rows.taps : line, 4 * extent_bytes);
  const Int cells = larger(layout.extent, room / lane_bytes / block.inner);
  layout.columns = last.spans != nullptr ? last.output : smaller(last.output, (cells - layout.extent) / last.step + 1);
  layout.chunks = (last.output + layout.columns - 1) / layout.columns;
  Int cells_read = larger((layout.columns - 1) * last.step + layout.extent, layout.columns * last.step);
  if (last.spans != nullptr) cells_read = larger(last.size, last.output);
  layout.lanes = block.inner > 1 ? cells_read * block.inner : ceil_div(cells_read, last.step) * last.step;
  // Packs of a line do not cross the lines of the cache, where that adds little to it.
  const Int unit = ceil_div(layout.lanes, last.step * widest<A>) * last.step * widest<A>;
  if (layout.lanes > layout.columns * last.step * block.inner && unit * 8 <= layout.lanes * 9) layout.lanes = unit;
  if (layout.chunks == 1) layout.rows = rows_of_band<R>(plan, layout.lanes);
  layout.in_place = !layout.slides_along && lies_as_lines<R>(plan);
  layout.at_once = lies_at_once<R>(block);
  if (layout.in_place || layout.at_once) layout.rows = 1;
  if (layout.slides_along && block.inner == 1) layout.rows = larger(1, layout.rows / turned_rows) * turned_rows;
  const Int band = layout.rows * layout.lanes, lines = layout.doubles ? 2 : 1;
  layout.bytes = lines * Line<R>::room(band + widest<A>) + Arena::room<typename R::Element>(rows_at_once * (layout.lanes + slack<A>)) +
                 2 * Arena::room<typename DivisorOf<R>::type>(band + slack<A>) + Arena::room<A>(band + slack<A>) + Arena::room<typename R::Result>(band + slack<A>) + Stream<typename R::Result>::room(band + slack<A>);
  if (block.inner == 1 && !Line<R>::two && !weighs<R> && (last.spans != nullptr || last.step > most_picked))
    layout.picks = last.spans != nullptr ? last.taps : layout.doubles ? 3 : read.count;  // the last two, and a single one
  layout.strides = picks_at_run<A> && full<A> > 1 && layout.picks > 0 && last.spans == nullptr && last.step <= most_strided && layout.picks <= most_picked_taps;
  if (layout.strides) layout.picks = 0;
  if (layout.picks > (last.dilation == 1 && !layout.doubles ? taps_worth_folding : most_picked_taps)) layout.picks = 0;
  if (layout.picks) layout.bytes += layout.picks * Arena::room<std::int32_t>(layout.rows * layout.columns + slack<A>);
  if (layout.slides_along) layout.bytes += Arena::room<A>(turned_rows * turned_columns<A>(layout, block.inner)) + Arena::room<A>(turned_rows * read.count);
  if (layout.slides) layout.bytes += 2 * Line<R>::room(layout.lanes) + Line<R>::room(rows.taps * line_lanes<R>(layout.lanes));
  layout.serves = layout.bytes < most_memory;
  if (last.mode != Mode::absent) {
    const Int first = last.start + read.first * last.dilation, reached = (last.output - 1) * last.step + layout.extent;
    layout.serves = layout.serves && layout.chunks == 1 && folds_inside(last, first, reached);
  }
  return layout;
}

// K: what one offset is kept as.
template <class R, class K>
class LinesForward {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  using Out = typename R::Result;
  static constexpr int N = full<A>;
  template <int M>
  using State = typename R::template State<M>;
  using Few = typename FewOf<R>::type;
  using D = typename DivisorOf<R>::type;
  static constexpr Int most_pack = N > full<Few> ? N : full<Few>;  // what is read or written at once
  static constexpr Int most_rows = is_common<R> || is_for_many<R> ? rows_at_once : is_costly<R> ? 1 : 2;

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    if (!plan.block.there || buffers.mask != nullptr) return false;
    return line_layout<R>(plan).serves && row_strides(plan, sizeof(T), buffers.from, buffers.from_strides).even;
  }

  // The rows of one chunk after the other; sliding rows begin anew with each piece.
  static Units units(const Plan& plan) {
    const LineLayout layout = line_layout<R>(plan);
    return {plan.block.output_rows() * layout.chunks, layout.slides ? 4 * plan.block.axes[1].taps / plan.block.axes[1].step : layout.slides_along ? 8 * turned_rows : 1};
  }

  LinesForward(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        block_(plan.block),
        layout_(line_layout<R>(plan)),
        reduction_(plan),
        x_(static_cast<const T*>(buffers.from)),
        y_(static_cast<Out*>(buffers.to)),
        kept_(static_cast<K*>(buffers.kept)),
        in_order_(buffers.rows_in_order),
        strides_(row_strides(plan, sizeof(T), buffers.from, buffers.from_strides)),
        last_row_(last_row(block_, strides_)) {
    Arena arena(scratch(static_cast<std::size_t>(layout_.bytes)));
    const Int band = layout_.rows * layout_.lanes;
    line_ = lines_ = Line<R>(arena, band + widest<A>);
    if (layout_.doubles) doubled_ = Line<R>(arena, band);
    spare_rows_ = arena.take<T>(rows_at_once * ((layout_.folds ? block_.axes[2].size * block_.inner : layout_.lanes) + slack<A>));
    column_divisors_ = arena.take<D>(band + slack<A>);
    divisors_ = arena.take<D>(band + slack<A>);
    bounced_kept_ = reinterpret_cast<K*>(arena.take<A>(band + slack<A>));
    bounced_ = arena.take<Out>(band + slack<A>);
    stream_ = Stream<Out>(arena, band + slack<A>);
    streams_ = is_streamed<R>(plan);
    for (Int t = 0; t < layout_.picks; ++t) picked_[t] = arena.take<std::int32_t>(layout_.rows * layout_.columns + slack<A>);
    if constexpr (slides_columns<R>)
      if (layout_.slides_along) {
        turned_ = arena.take<A>(turned_rows * turned_columns<A>(layout_, block_.inner));
        after_columns_ = arena.take<A>(turned_rows * block_.read.count);
      }
    if (layout_.slides) {
      fresh_ = Line<R>(arena, layout_.lanes);
      before_ = Line<R>(arena, layout_.lanes);
      after_ = Line<R>(arena, block_.axes[1].taps * line_lanes<R>(layout_.lanes));
    }
    lay_out_taps();
    alike_ = !layout_.folds && !layout_.slides && block_.axes[2].mode == Mode::absent && strides_.plane >= 0 && strides_.row >= 0;
    for (int a : {0, 1}) alike_ = alike_ && block_.axes[a].mode == Mode::absent && block_.axes[a].spans == nullptr && block_.axes[a].taps > 0;
  }

  void run(Int begin, Int end) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    end_ = layout_.chunks == 1 ? end * block_.axes[2].output * block_.inner : 0;
    Int rest = begin;
    row_ = rest % rows.output, rest /= rows.output;
    plane_ = rest % planes.output, rest /= planes.output;
    outer_ = rest % block_.outer, chunk_ = rest / block_.outer;
    enter_chunk();
    const bool whole = layout_.chunks == 1;  // rows, which follow one another
    if (streams_ && whole) stream_.start(y_ + begin * block_.axes[2].output * block_.inner);
    for (Int unit = begin; unit < end;) {
      const Int in_chunk = unit - chunk_ * block_.output_rows(), count = smaller(layout_.rows, smaller(end - unit, block_.output_rows() - in_chunk));
      target_ = (in_chunk * block_.axes[2].output + first_column_) * block_.inner;
      at_once_ = layout_.at_once && lies_whole(1);
      const bool placed = at_once_ || (layout_.in_place && place_line());
      if (at_once_) find_rows();
      if constexpr (R::divides)
        if (placed) row_divisors_[0] = own_divisor_;
      for (Int b = placed ? 1 : 0, n; b < count; b += n) {
        n = larger(1, rows_alike(count - b));
        n > 1 ? reduce_alike(b, n) : reduce_row(b);
        row_ += n - 1;
        if (b + n < count) step(true);
      }
      across(count);
      unit += count;
      step(unit < end);
    }
    if (streams_ && whole) stream_.finish();
  }

 private:
  // To the next row; `goes_on` where there is one to do.
  POOLWISE_INLINE void step(bool goes_on) {
    if (++row_ < block_.axes[1].output) return;
    row_ = 0, held_block_ = -1;
    if (++plane_ < block_.axes[0].output) return;
    plane_ = 0;
    if (++outer_ < block_.outer) return;
    outer_ = 0, ++chunk_;
    if (goes_on) enter_chunk();
  }

  // ---- what a chunk reads ----

  void lay_out_taps() {
    const Axis& last = block_.axes[2];
    const Int step = last.dilation * block_.inner, count = block_.read.count;
    if (layout_.folds || layout_.slides_along) {
      taps_ = 1;
    } else if (!layout_.doubles) {
      taps_ = count, tap_lanes_ = step, tap_places_ = 1;
    }
    if (!layout_.doubles) return;
    width_ = 1;
    while (2 * width_ <= count) width_ *= 2;
    const Int rest = R::idempotent ? count - width_ : count / 2;  // where taking an element twice is no harm, two halves may overlap
    taps_ = rest == 0 ? 1 : 2, tap_lanes_ = rest * step, tap_places_ = rest;
    single_ = !R::idempotent && count % 2 == 1;
  }

  void enter_chunk() {
    const Axis& last = block_.axes[2];
    first_column_ = chunk_ * layout_.columns;
    columns_ = smaller(layout_.columns, last.output - first_column_);
    const bool uneven = last.spans != nullptr;
    const Int cell = uneven ? 0 : last.start + first_column_ * last.step + block_.read.first * last.dilation;
    const Int cells = uneven ? last.size : (columns_ - 1) * last.step + layout_.extent;
    lanes_ = cells * block_.inner;
    const Int begin = smaller(cells, larger(0, -cell)), end = larger(begin, smaller(cells, last.size - cell));
    there_begin_ = begin * block_.inner, there_ = (end - begin) * block_.inner;
    from_lane_ = (cell + begin) * block_.inner;
    lead_ = ceil_div(there_begin_, N) * N - there_begin_;
    there_begin_ += lead_;
    from_ = band_ = lines_.from(lead_);
    read_ = layout_.folds ? last.size * block_.inner : there_;
    held_block_ = -1;
    by_cells_ = uneven || layout_.folds || (last.step > 1 && (block_.inner > 1 || last.step > most_picked));
    apart_ = by_cells_ ? columns_ * block_.inner : layout_.lanes / last.step;
    if (layout_.chunks == 1) {
      clear(lines_, 0, layout_.rows * layout_.lanes + slack<A>);  // arithmetic with what may lie behind it can be slow
    } else {
      for (Int b = 0; b < layout_.rows; ++b) {
        const Line<R> line = lines_.from(b * layout_.lanes);
        clear(line, 0, there_begin_);
        clear(line, there_begin_ + there_, b + 1 == layout_.rows ? layout_.lanes + slack<A> : layout_.lanes);
      }
    }
    spread_divisors();
    if (layout_.picks) find_picked();
    if (layout_.strides) find_strided();
    alone_ = block_.axes[0].output == 1 && block_.axes[1].output == 1;
    if (alone_) find_rows();
  }

  // Reads the row as it lies, where that goes on for as long as packs run over its end.
  POOLWISE_INLINE bool place_line() {
    if constexpr (is_itself<R>) {
      const Int at = row_at(0, 0);
      const bool there = at + lanes_ + slack<A> <= last_row_ + block_.axes[2].size * block_.inner;
      from_ = band_ = lines_.from(lead_);
      if (there) from_.values = band_.values = const_cast<A*>(x_ + at);  // nobody writes there
      if (!there) return false;
      find_rows();
      return true;
    }
    return false;
  }

  // Where the taps of all windows of a band stand; of those that a bin lacks, where nothing does.
  POOLWISE_OUTLINE void find_picked() {
    const Axis& last = block_.axes[2];
    const Int outputs = layout_.rows * columns_, nowhere = layout_.rows * layout_.lanes;
    for (Int t = 0; t < layout_.picks; ++t) {
      for (Int row = 0; row < layout_.rows; ++row)
        for (Int j = 0; j < columns_; ++j) {
          const Span span = last.spans != nullptr ? last.spans[j] : Span{j * last.step, layout_.picks};
          const Int apart = last.spans != nullptr ? 1 : tap_lanes_;
          picked_[t][row * columns_ + j] = static_cast<std::int32_t>(t < span.count ? row * layout_.lanes + span.first + t * apart : nowhere);
        }
      fill<std::int32_t>(picked_[t] + outputs, slack<A>, picked_[t][0]);  // of outputs that are not there, which read what some other reads
    }
  }

  // Which lanes of those found so far and of the next pack stay.
  void find_strided() {
    const Int step = block_.axes[2].step;
    for (Int pack = 1; pack < step; ++pack)
      for (int i = 0; i < N; ++i) strided_[(pack - 1) * N + i] = static_cast<Lane<A>>(every_lane(N, static_cast<int>(step), 0, static_cast<int>(pack), i));
  }

  // By whole packs, which may run over the end.
  void clear(const Line<R>& line, Int begin, Int end) {
    for (Int lane = begin; lane < end; lane += N) line.template store<N>(lane, reduction_.template nothing<N>());
  }

  void spread_divisors() {
    if constexpr (R::divides) {
      if (!reduction_.is_mean) return;
      const Axis& last = block_.axes[2];
      const Int inner = block_.inner, whole_begin = last.whole_begin - first_column_, whole_end = last.whole_end - first_column_;
      const D whole = R::written_by(static_cast<D>(divided_by(plan_, last, true, last.whole_begin, 0)));
      for (Int j = 0; j < columns_; ++j) {
        const bool is_whole = j >= whole_begin && j < whole_end;
        fill<D>(column_divisors_ + j * inner, inner, is_whole ? whole : R::written_by(static_cast<D>(divided_by(plan_, last, true, first_column_ + j, 0))));
      }
      fill<D>(column_divisors_ + columns_ * inner, apart_ - columns_ * inner, D(1));
      const Int rows = smaller(layout_.rows, block_.output_rows());
      for (Int b = 1; b < rows; ++b) std::memcpy(column_divisors_ + b * apart_, column_divisors_, static_cast<std::size_t>(apart_) * sizeof(D));
      fill<D>(column_divisors_ + rows * apart_, slack<A>, D(1));
    }
  }

  // ---- down: the rows of a window into one line ----

  void reduce_row(Int number) {
    if (!alone_) find_rows();
    const Taps t0 = t0_, t1 = t1_;
    line_ = lines_.from(number * layout_.lanes);
    if (t0.count * t1.count == 0)
      clear(line_, lead_, layout_.folds ? layout_.lanes : there_begin_ + there_);
    else if (layout_.folds)
      lay_rows(t0, t1);
    else if (layout_.slides)
      slide(t0);
    else
      reduce_rows(t0, t1);
    // What was written beyond the row: where it ends, and where the next one begins.
    if (!layout_.folds) clear(line_, there_begin_ + there_, there_begin_ + there_ + N);
    if (block_.axes[2].mode != Mode::absent && !layout_.folds) fold_columns();
    if constexpr (R::divides) row_divisors_[number] = own_divisor_;
  }

  // What stands in the padding of the line, which its own cells hold.
  POOLWISE_OUTLINE void fold_columns() {
    const Axis& last = block_.axes[2];
    const Int inner = block_.inner, first = last.start + block_.read.first * last.dilation;
    const Line<R> line = line_.from(lead_);
    const auto take = [&](Int begin, Int end) {
      for (Int place = begin; place < end; ++place)
        for (Int c = 0; c < inner; ++c) {
          const Int to = (place - first) * inner + c, from = (element_at(last, place) - first) * inner + c;
          line.values[to] = line.values[from];
          if constexpr (Line<R>::two) line.seconds[to] = line.seconds[from];
        }
    };
    take(larger(first, -last.low), smaller(0, first + lanes_ / inner));
    take(larger(first, last.size), smaller(first + lanes_ / inner, last.size + last.high));
  }

  // The rows of the window where the engine stands, and what they divide by.
  void find_rows() {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    t0_ = taps_of(planes, plane_, 0), t1_ = taps_of(rows, row_, 0);
    if constexpr (R::divides)
      if (reduction_.is_mean) own_divisor_ = R::written_by(static_cast<D>(divided_by(plan_, planes, false, plane_, 0) * divided_by(plan_, rows, false, row_, 0)));
  }

  // A row's first lane of the chunk. Packs may read beyond its last one, where the array goes on.
  POOLWISE_INLINE const T* source(Int plane, Int row, Int spare = 0) const {
    const Int at = outer_ * strides_.outer + element_at(block_.axes[0], plane) * strides_.plane + element_at(block_.axes[1], row) * strides_.row;
    const T* p = x_ + at + from_lane_;
    if (at + from_lane_ + read_ + most_pack <= last_row_ + block_.axes[2].size * block_.inner) return p;
    T* copy = spare_rows_ + spare * (read_ + slack<A>);
    std::memcpy(static_cast<void*>(copy), p, static_cast<std::size_t>(read_) * sizeof(T));
    return copy;
  }

  // Rows that one window reads whole, cut in pieces and laid upon one another. The line is filled up with nothing, so that it can be
  // halved until one cell is left.
  void lay_rows(Taps t0, Taps t1) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1], &last = block_.axes[2];
    const Int cells = layout_.extent, lanes = cells * block_.inner, whole = last.size / cells, rest = last.size % cells * block_.inner;
    bool onto = false;
    for (Int a = t0.first; a < t0.first + t0.count; ++a)
      for (Int b = t1.first; b < t1.first + t1.count; ++b) {
        const T* from = source(planes.first(plane_) + a * planes.dilation, rows.first(row_) + b * rows.dilation);
        const Int place = place_of(a, b);
        for (Int k = 0; k < whole; onto = true) {
          const T* pieces[4] = {from + k * lanes, from + (k + 1) * lanes, from + (k + 2) * lanes, from + (k + 3) * lanes};
          const Int n = smaller(most_rows, whole - k);
          down_by(n, onto, line_, pieces, place + k * cells, cells, lanes);
          k += n;
        }
        if (rest == 0) continue;
        lay_rest(from + whole * lanes, place + whole * cells, rest);
      }
    clear(line_, lanes, layout_.lanes);
  }

  // Fewer lanes than the pieces have; those behind them stay as they are.
  void lay_rest(const T* from, Int place, Int lanes) {
    const auto laid = [&](Int lane) {
      const auto more = reduction_.template taken<N>(reduction_.template read<N>(from + lane), place);
      return reduction_.template followed<N>(line_.template load<N>(lane), more);
    };
    Int lane = 0;
    for (; lane + N <= lanes; lane += N) line_.template store<N>(lane, laid(lane));
    if (lane == lanes) return;
    const auto last = laid(lane);
    for (int i = 0; lane + i < lanes; ++i) {
      line_.values[lane + i] = last.value[i];
      if constexpr (Line<R>::two) line_.seconds[lane + i] = last.second[i];
    }
  }

  // The two halves of a line upon one another, until one cell is left.
  void fold(const Line<R>& line) {
    Int half = 1;
    while (2 * half < layout_.extent) half *= 2;
    for (; half > 0 && layout_.extent > 1; half /= 2)
      for_packs<N>(half * block_.inner, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          const Int here = lane + u * M, there = here + half * block_.inner;
          line.template store<M>(here, reduction_.template merged<M>(line.template load<M>(here), reduction_.template moved<M>(line.template load<M>(there), half)));
        }
      });
  }

  // Where the taps of a row begin inside the window; nobody asks where more taps than 64 bits can number are allowed.
  POOLWISE_INLINE Int place_of(Int plane, Int row) const {
    if constexpr (R::places) return (plane * block_.axes[1].taps + row) * block_.axes[2].taps;
    if constexpr (weighs<R>) return plane * block_.axes[1].taps + row;
    return 0;
  }
  POOLWISE_INLINE Int places_apart() const {
    if constexpr (R::places) return block_.axes[2].taps;
    return weighs<R> ? 1 : 0;
  }
  // A tap of a line, as it counts in its window.
  template <int M>
  POOLWISE_INLINE State<M> counted_tap(State<M> state, Int tap) const {
    if constexpr (weighs<R>) return reduction_.template weighed<M>(state, block_.read.first + tap);
    return reduction_.template moved<M>(state, tap * tap_places_);
  }

  // The rows t1 of a window in all of its planes t0.
  void reduce_rows(Taps t0, Taps t1) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    const Int row = rows.first(row_) + t1.first * rows.dilation;
    bool onto = false;
    for (Int a = t0.first; a < t0.first + t0.count; ++a) {
      const Int plane = planes.first(plane_) + a * planes.dilation;
      for (Int b = 0; b < t1.count; onto = true)
        b += reduce_some(line_, onto, plane, row + b * rows.dilation, rows.dilation, t1.count - b, place_of(a, t1.first + b));
    }
  }

  // As many rows at once as the compiler knows loops for.
  POOLWISE_INLINE Int reduce_some(const Line<R>& to, bool onto, Int plane, Int row, Int apart, Int left, Int place) {
    const T* from[rows_at_once];
    const Int n = smaller(left, most_rows);
    for (Int s = 0; s < n; ++s) from[s] = source(plane, row + s * apart, s);
    down_by(n, onto, to, from, place, places_apart(), there_);
    return n;
  }

  POOLWISE_INLINE void down_by(Int n, bool onto, const Line<R>& to, const T* const* from, Int place, Int places, Int lanes) {
    const auto by = [&]<int Count>() POOLWISE_LAMBDA {
      onto ? down<Count, true>(to, from, place, places, lanes) : down<Count, false>(to, from, place, places, lanes);
    };
    if constexpr (most_rows == 4) {
      if (n == 4) return by.template operator()<4>();
      if (n == 3) return by.template operator()<3>();
    }
    if constexpr (most_rows > 1)
      if (n == 2) return by.template operator()<2>();
    by.template operator()<1>();
  }

  template <int Count, bool Onto>
  POOLWISE_OUTLINE void down(const Line<R>& to, const T* const* rows, Int place, Int places, Int lanes) {
    const T* from[Count];
    for (int s = 0; s < Count; ++s) from[s] = rows[s];
    down_lanes<Count, Onto>(to, from, place, places, lanes);
  }

  template <int Count, int M>
  static POOLWISE_INLINE State<M> lane_of_rows(const R& reduction, const T* const (&from)[Count], Int lane, Int place, Int places) {
    if constexpr (adds_few<R>) {
      const auto few = few_added<Count, Few, M>([&](int s) POOLWISE_LAMBDA { return load<Few, M>(from[s] + lane); });
      return reduction.template taken<M>(converted<A, Few, M>(few), 0);
    } else {
      const auto row = [&](int s) POOLWISE_LAMBDA { return reduction.template taken<M>(reduction.template read<M>(from[s] + lane), place + s * places); };
      State<M> state = row(0);
      if constexpr (Count > 1) state = reduction.template followed<M>(state, row(1));
      if constexpr (Count == 3) state = reduction.template followed<M>(state, row(2));
      if constexpr (Count == 4) state = reduction.template followed<M>(state, reduction.template followed<M>(row(2), row(3)));
      return state;
    }
  }

  template <int Count, bool Onto>
  POOLWISE_INLINE void down_lanes(const Line<R>& to, const T* const (&from)[Count], Int place, Int places, Int lanes) {
    std::conditional_t<weighs<R>, const R&, const R> reduction = reduction_;  // where it is small, not to be read after every store
    const Int begin = there_begin_;
    const bool fetches = fetches_;
    for_packs<N>(lanes, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      State<M> state[U];
      for (int u = 0; u < U; ++u) {
        const Int here = lane + u * M;
        state[u] = lane_of_rows<Count, M>(reduction, from, here, place, places);
        if constexpr (Onto) state[u] = reduction.template followed<M>(to.template load<M>(begin + here), state[u]);
      }
      if (fetches)
        for (int s = 0; s < Count; ++s) ahead(from[s] + lane, U * M * sizeof(T));
      for (int u = 0; u < U; ++u) to.template store<M>(begin + lane + u * M, state[u]);
    });
  }

  // How many rows, at most so many, are one like the other from where the engine stands: all of their windows' taps are there, in
  // the same planes, and more of the array behind them.
  POOLWISE_INLINE Int rows_alike(Int most) const {
    Int n = smaller(most, block_.axes[1].whole_end - row_);
    if (n < 2 || !lies_whole(1)) return 0;
    while (!lies_whole(n)) --n;
    return n;
  }
  // Whether so many are, or one.
  POOLWISE_INLINE bool lies_whole(Int n) const {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    if (!alike_ || row_ < rows.whole_begin || row_ + n > rows.whole_end || !is_whole(planes, plane_)) return false;
    const Int end = last_row_ + block_.axes[2].size * block_.inner - read_ - most_pack;
    return row_at(planes.taps - 1, rows.taps - 1) + (n - 1) * rows.step * strides_.row <= end;
  }
  // Where a row of the window begins, in elements.
  POOLWISE_INLINE Int row_at(Int a, Int b) const {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    return outer_ * strides_.outer + (planes.first(plane_) + a * planes.dilation) * strides_.plane + (rows.first(row_) + b * rows.dilation) * strides_.row + from_lane_;
  }

  void reduce_alike(Int number, Int n) {
    find_rows();
    if constexpr (is_common<R>) {
      switch (block_.axes[0].taps == 1 ? block_.axes[1].taps : 0) {
        case 1: return down_alike<1>(number, n);
        case 2: return down_alike<2>(number, n);
        case 3: return down_alike<3>(number, n);
        default: break;
      }
    }
    down_alike<0>(number, n);
  }
  // Count is the number of rows of a window where the compiler knows it, else 0.
  template <int Count>
  POOLWISE_OUTLINE void down_alike(Int number, Int n) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    const Int apart = rows.dilation * strides_.row, places = places_apart();
    const T* first = x_ + row_at(0, 0);
    // Of rows that are read in order, only one at a time is new to this window; sums keep the order of their additions.
    constexpr bool may_split = Count != 1 && (R::idempotent || (!adds_few<R> && Count > 0));
    const Int first_rows = may_split && in_order_ ? larger(1, rows.taps - rows.step + 1) : rows.taps;
    fetches_ = first_rows >= rows.taps;
    for (Int b = number; b < number + n; ++b, first += rows.step * strides_.row) {
      const Line<R> line = lines_.from(b * layout_.lanes);
      const T* from[Count > 0 ? Count : rows_at_once];
      if constexpr (Count > 0) {
        for (int s = 0; s < Count; ++s) from[s] = first + s * apart;
        bool split = false;
        if constexpr (may_split)
          if ((split = !fetches_)) down_in_order<Count>(first_rows, line, from, places);
        if (!split) down_lanes<Count, false>(line, from, 0, places, there_);
      } else {
        for (Int a = 0; a < planes.taps; ++a)
          for (Int t = 0, some; t < rows.taps; t += some) {
            some = t >= first_rows ? 1 : smaller(most_rows, first_rows - t);
            for (Int s = 0; s < some; ++s) from[s] = first + a * planes.dilation * strides_.plane + (t + s) * apart;
            down_by(some, a + t > 0, line, from, place_of(a, t), places, there_);
          }
      }
      clear(line, there_begin_ + there_, there_begin_ + there_ + N);
      if constexpr (R::divides) row_divisors_[b] = own_divisor_;
    }
    fetches_ = true;
  }
  // So many rows, then each of the others by itself.
  template <int Count>
  POOLWISE_INLINE void down_in_order(Int first_rows, const Line<R>& line, const T* const* from, Int places) {
    if constexpr (Count == 3)
      first_rows == 2 ? down<2, false>(line, from, 0, places, there_) : down<1, false>(line, from, 0, places, there_);
    else
      down<1, false>(line, from, 0, places, there_);
    for (Int s = first_rows; s < Count; ++s) down<1, true>(line, from + s, s * places, places, there_);
  }

  // ---- rows that slide ----

  // The window of row_ is the end of one block of rows and the beginning of the next. Rows that are not there are passed over, unless
  // places are counted, which move with them.
  void slide(Taps t0) {
    const Axis& rows = block_.axes[1];
    const Int taps = rows.taps, first = row_ * rows.step, block = first / taps, at = first % taps, places = places_apart();
    Int top = 0, bottom = taps;  // of the block's rows, those that are taken
    if constexpr (!R::places) {
      const Int start = rows.start + block * taps;
      top = smaller(taps, larger(0, rows.padded_begin() - start)), bottom = smaller(taps, larger(0, rows.padded_end() - start));
    }
    if (block != held_block_) held_block_ = block, after_from_ = bottom, before_to_ = 0;
    const Int held = larger(at, top);
    for (bool begun = after_from_ < bottom; after_from_ > held; begun = true) {
      const Int row = --after_from_;
      const Line<R> rest = after(smaller(row + 1, taps - 1));
      take_row(t0, block * taps + row, after(row), begun ? &rest : nullptr, 0, places);
    }
    const bool ends = held < bottom;  // some row of the block is in the window
    for (; before_to_ < at; ++before_to_) {
      const Int number = (block + 1) * taps + before_to_, place = before_to_ * places;
      const bool is_last = ends && before_to_ > 0 && before_to_ + 1 == at;
      if (is_last && take_and_join(t0, number, after(held), place, (taps - at) * places)) return void(++before_to_);
      take_row(t0, number, before_, before_to_ == 0 ? nullptr : &before_, place, 0);
    }
    if (ends && at > 0)
      join(line_, after(held), before_, (taps - at) * places);
    else
      ends ? move_lanes(line_, after(held), 0) : move_lanes(line_, before_, (taps - at) * places);
  }

  Line<R> after(Int row) const {
    return after_.from(row * line_lanes<R>(layout_.lanes));
  }
  bool is_there(Int row) const {
    const Axis& rows = block_.axes[1];
    return row >= rows.padded_begin() && row < rows.padded_end();
  }

  // Reduces one row, counted from where the first window begins, with what is held of others; `place` is its own.
  void take_row(Taps t0, Int number, const Line<R>& to, const Line<R>* rest, Int place, Int by) {
    const Int row = block_.axes[1].start + number;
    if (!is_there(row)) {
      if (rest == nullptr) return clear(to, there_begin_, there_begin_ + there_);
      if (rest != &to) move_lanes(to, *rest, by);
      return;
    }
    if (rest == nullptr) return take_planes(to, t0, row, place);
    if (t0.count > 1) {
      take_planes(fresh_, t0, row, place);
      return join(to, fresh_, *rest, by);
    }
    const Int own = place + place_of(t0.first, 0), begin = there_begin_;
    const T* from = source(block_.axes[0].first(plane_) + t0.first * block_.axes[0].dilation, row);
    const Line<R> onto = to, held = *rest;
    for_packs<N>(there_, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      ahead<-prefetch_distance>(from + lane, U * M * Int(sizeof(T)));  // most are read from the last to the first
      for (int u = 0; u < U; ++u) {
        const Int here = begin + lane + u * M;
        onto.template store<M>(here, with_element<M>(reduction_.template moved<M>(held.template load<M>(here), by), from + lane + u * M, own));
      }
    });
  }
  template <int M>
  POOLWISE_INLINE State<M> with_element(State<M> state, const T* p, Int place) const {
    return reduction_.template merged<M>(state, reduction_.template taken<M>(reduction_.template read<M>(p), place));
  }

  // One row more to those before, and the window, in one pass, where that is all there is to do.
  bool take_and_join(Taps t0, Int number, Line<R> end, Int place, Int by) {
    const Int row = block_.axes[1].start + number, own = place + place_of(t0.first, 0), begin = there_begin_;
    if (!is_there(row) || t0.count != 1) return false;
    const T* from = source(block_.axes[0].first(plane_) + t0.first * block_.axes[0].dilation, row);
    const Line<R> before = before_, line = line_;
    for_packs<N>(there_, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      ahead(from + lane, U * M * Int(sizeof(T)));
      for (int u = 0; u < U; ++u) {
        const Int here = begin + lane + u * M;
        const auto state = with_element<M>(before.template load<M>(here), from + lane + u * M, own);
        before.template store<M>(here, state);
        line.template store<M>(here, reduction_.template merged<M>(end.template load<M>(here), reduction_.template moved<M>(state, by)));
      }
    });
    return true;
  }

  void take_planes(const Line<R>& to, Taps t0, Int row, Int place) {
    const Axis& planes = block_.axes[0];
    for (Int a = t0.first; a < t0.first + t0.count; ++a) {
      const T* from = source(planes.first(plane_) + a * planes.dilation, row);
      const Int own = place + place_of(a, 0);
      a == t0.first ? down<1, false>(to, &from, own, 0, there_) : down<1, true>(to, &from, own, 0, there_);
    }
  }

  void join(Line<R> to, Line<R> a, Line<R> b, Int by) {
    const Int begin = there_begin_;
    for_packs<N>(there_, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = begin + lane + u * M;
        to.template store<M>(here, reduction_.template merged<M>(a.template load<M>(here),
                                                                 reduction_.template moved<M>(b.template load<M>(here), by)));
      }
    });
  }
  void move_lanes(Line<R> to, Line<R> from, Int by) {
    const Int begin = there_begin_;
    for_packs<N>(there_, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = begin + lane + u * M;
        to.template store<M>(here, reduction_.template moved<M>(from.template load<M>(here), by));
      }
    });
  }

  // ---- across: the taps of the line ----

  // A window of 2 w taps is two of w beside each other, one of 2 w + 1 has one tap more behind them. Where taking an element twice is
  // no harm, widths are powers of two and the last two windows overlap. The last two are left to what writes the outputs.
  void double_taps(Int lanes) {
    const Int step = block_.axes[2].dilation * block_.inner, count = R::idempotent ? width_ : block_.read.count;
    Int width = 1;
    from_ = band_;
    for (Int bit = width_ / 2; bit > (R::idempotent ? 0 : 1); bit /= 2) {
      const bool single = (count & bit) != 0 && !R::idempotent;
      single ? pair<true>(lanes, width * step, width) : pair<false>(lanes, width * step, width);
      width = 2 * width + single;
      from_ = doubled_;
    }
  }

  // Each lane with the one so many lanes behind it, and with the single one behind both; a line may be its own target.
  template <bool Single>
  POOLWISE_OUTLINE void pair(Int lanes, Int apart, Int places) {
    const Line<R> from = from_, to = doubled_;
    for_packs<N>(lanes - (Single ? 2 : 1) * apart, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) {
        const Int here = lane + u * M;
        auto state = reduction_.template merged<M>(from.template load<M>(here), reduction_.template moved<M>(from.template load<M>(here + apart), places));
        if constexpr (Single) state = reduction_.template merged<M>(state, band_.template load<M>(here + 2 * apart));
        to.template store<M>(here, state);
      }
    });
  }

  // `count` lines at once. Their outputs go where they belong, where they lie there as they do here or fill packs well, else by way of
  // scratch memory.
  void across(Int count) {
    const Int n = columns_ * block_.inner, lanes = (count - 1) * layout_.lanes + lanes_;
    const bool by_rows = apart_ != n && !by_cells_ && !layout_.folds && ceil_div(n, N) * N * 8 <= apart_ * 9 && target_ + count * n + N <= end_;
    const bool cut = layout_.chunks > 1, as_here = (cut ? count == 1 : apart_ == n) || by_rows, fits = as_here && target_ + count * n + N <= end_;
    if (cut && streams_ && as_here) stream_.start(y_ + target_);
    out_ = !as_here ? bounced_ : streams_ ? stream_.next() : fits ? y_ + target_ : bounced_;
    if constexpr (R::places) kept_out_ = fits ? kept_ + target_ : bounced_kept_;
    if (layout_.doubles) double_taps(lanes);
    if (layout_.folds)
      for (Int b = 0; b < count; ++b) fold(band_.from(b * layout_.lanes));
    find_divisors(count);
    if (layout_.slides_along)
      across_slid(count, by_rows ? n : apart_);
    else if (layout_.picks)
      across_picked(count * columns_);
    else if (layout_.strides)
      for (Int b = 0; b < count; ++b) across_strided(b);
    else if (at_once_)
      reduce_at_once();
    else if (by_cells_)
      for (Int b = 0; b < count; ++b) folds_windows() ? across_folded(b) : across_cells(b);
    else
      across_runs(by_rows ? count : 1, by_rows ? n : (count - 1) * apart_ + n);
    if (cut && streams_) {
      for (Int b = 0; b < count; ++b) {
        if (!as_here) stream_.start(y_ + target_ + b * block_.axes[2].output * block_.inner), copy_rows<Out>(stream_.next(), bounced_ + b * apart_, 1, n);
        stream_.wrote(n);
        stream_.finish();
      }
    } else if (streams_) {
      if (!as_here) copy_rows<Out>(stream_.next(), bounced_, count, n);
      stream_.wrote(count * n);
    } else if (!fits) {
      copy_out<Out>(y_ + target_, bounced_, count, n);
    }
    if constexpr (R::places)
      if (!fits) copy_out<K>(kept_ + target_, bounced_kept_, count, n);
  }

  // Rows of n, `apart_` from one another, one behind the other; up to a pack beyond the last is overwritten.
  template <class V>
  POOLWISE_INLINE void copy_rows(V* to, const V* from, Int count, Int n) {
    constexpr Int pack = POOLWISE_VECTOR_BYTES / sizeof(V);
    for (Int b = 0; b < count; ++b)
      for (Int lane = 0; lane < n; lane += pack) std::memcpy(static_cast<void*>(to + b * n + lane), from + b * apart_ + lane, POOLWISE_VECTOR_BYTES);
  }
  template <class V>
  POOLWISE_INLINE void copy_out(V* to, const V* from, Int count, Int n) {
    constexpr Int pack = POOLWISE_VECTOR_BYTES / sizeof(V);
    Int b = count;
    while (b > 0 && target_ + b * n + pack > end_) --b;
    copy_rows(to, from, b, n);
    const Int row = block_.axes[2].output * block_.inner;
    for (; b < count; ++b) std::memcpy(static_cast<void*>(to + b * row), from + b * apart_, static_cast<std::size_t>(n) * sizeof(V));
  }

  // Most rows of a band are divided by the same.
  void find_divisors(Int count) {
    if constexpr (R::divides) {
      if (!reduction_.is_mean) return;
      divided_by_ = column_divisors_, row_divisor_ = row_divisors_[0];
      bool same = true;
      for (Int b = 1; b < count; ++b) same = same && row_divisors_[b] == row_divisors_[0];
      if (same) return;
      for (Int b = 0; b < count; ++b)
        for (Int lane = 0; lane < apart_; ++lane) divisors_[b * apart_ + lane] = column_divisors_[lane] * row_divisors_[b];
      divided_by_ = divisors_, row_divisor_ = 1;
    }
  }

  // So many outputs of each of the rows, one behind the other.
  void across_runs(Int runs, Int n) {
    switch (block_.axes[2].step) {
      case 1: return across_by<1>(runs, n);
      case 2: return across_by<2>(runs, n);
      case 3: return across_by<3>(runs, n);
      default: across_by<4>(runs, n);
    }
  }
  template <int S>
  POOLWISE_INLINE void across_by(Int runs, Int n) {
    if (taps_ == 2) {
      if constexpr (!R::idempotent)
        if (single_) return across_lanes<S, 2, true>(runs, n);
      return across_lanes<S, 2>(runs, n);
    }
    if constexpr (is_common<R>) {
      if (taps_ == 1) return across_lanes<S, 1>(runs, n);
      if (taps_ == 3) return across_lanes<S, 3>(runs, n);
      if constexpr (S == 4)
        if (taps_ == 4) return across_lanes<S, 4>(runs, n);
    }
    across_lanes<S, 0>(runs, n);
  }

  // Count is the number of taps where the compiler knows it, else 0; Single: one element more stands behind the two.
  template <int S, int Count, bool Single = false>
  POOLWISE_OUTLINE void across_lanes(Int runs, Int n) {
    if constexpr (S > 1 && S == Count && !Single && !weighs<R> && !(S == 3 && Line<R>::two))
      if (tap_lanes_ == 1) {
        for (Int b = 0; b < runs; ++b) across_covered<S>(b * apart_, n, b * n);
        return;
      }
    for (Int b = 0; b < runs; ++b) across_run<S, Count, Single>(b * apart_, n, b * n);
  }
  template <int S>
  POOLWISE_INLINE void across_covered(Int first, Int n, Int to) {
    const R reduction = reduction_;
    const Line<R> from = from_;
    for_packs<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      State<M> state[U];
      for (int u = 0; u < U; ++u) state[u] = covered<R, S, M>(reduction, from, S * (first + lane + u * M));
      for (int u = 0; u < U; ++u) put<M>(to + lane + u * M, state[u], first - to);
    });
  }
  template <int S, int Count, bool Single>
  POOLWISE_INLINE void across_run(Int first, Int n, Int to) {
    const Int taps = Count > 0 ? Count : taps_, apart = tap_lanes_;
    for_packs<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      const auto tap = [&](int u, Int t) POOLWISE_LAMBDA {
        return counted_tap<M>(picked_state<R, S, M>(from_, S * (first + lane + u * M) + t * apart), t);
      };
      State<M> state[U];
      if constexpr (R::idempotent) {
        for (int u = 0; u < U; ++u) state[u] = tap(u, 0);
        for (Int t = 1; t < taps; ++t)
          for (int u = 0; u < U; ++u) state[u] = reduction_.template merged<M>(state[u], tap(u, t));
      } else {
        for (int u = 0; u < U; ++u) state[u] = balanced<R, M, Count>(reduction_, taps, [&](Int t) POOLWISE_LAMBDA { return tap(u, t); });
      }
      if constexpr (Single)
        for (int u = 0; u < U; ++u) state[u] = reduction_.template merged<M>(state[u], picked_state<R, S, M>(band_, S * (first + lane + u * M) + 2 * apart));
      for (int u = 0; u < U; ++u) put<M>(to + lane + u * M, state[u], first - to);
    });
  }

  // Column by column, where their lanes neither follow one another nor can be picked.
  POOLWISE_OUTLINE void across_cells(Int number) {
    const Int from = number * layout_.lanes, to = number * apart_;
    const Axis& last = block_.axes[2];
    const Int inner = block_.inner, apart = tap_lanes_;
    for (Int j = 0; j < columns_; ++j) {
      const Int begin = from + (last.spans != nullptr ? last.spans[j].first : j * last.step) * inner;
      const Int taps = last.spans != nullptr ? last.spans[j].count : taps_;
      for_packs<N>(inner, [&]<int M, int U>(Int c) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          auto state = taps == 0 ? reduction_.template nothing<M>() : balanced<R, M, 0>(reduction_, taps, [&](Int t) POOLWISE_LAMBDA {
            return counted_tap<M>(from_.template load<M>(begin + c + u * M + t * apart), t);
          });
          if constexpr (!R::idempotent && !weighs<R>)
            if (single_) state = reduction_.template merged<M>(state, band_.template load<M>(begin + c + u * M + 2 * apart));
          put<M>(to + j * inner + c + u * M, state);
        }
      });
    }
  }

  void reduce_at_once() {
    static_assert(most_at_once == 3);
    if constexpr (is_common<R> && !weighs<R>) block_.axes[1].taps == 2 ? across_windows<2>() : across_windows<3>();
  }

  // Window by window from where it lies, as many rows as columns; of the columns that are not there, nothing.
  template <int Count>
  POOLWISE_OUTLINE void across_windows() {
    static_assert(Count <= most_at_once);
    const Axis &rows = block_.axes[1], &last = block_.axes[2];
    const R reduction = reduction_;
    const Int inner = block_.inner, begin = (there_begin_ - lead_) / inner, end = begin + there_ / inner, places = places_apart(), apart = rows.dilation * strides_.row;
    const T* from[Count];
    for (int s = 0; s < Count; ++s) from[s] = x_ + row_at(0, 0) + s * apart;  // the first that is there
    for (Int j = 0; j < columns_; ++j) {
      const Int first = j * last.step - begin;
      const bool whole = first >= 0 && first + (Count - 1) * last.dilation < end - begin;
      for_packs<N>(inner, [&]<int M, int U>(Int c) POOLWISE_LAMBDA {
        for (int u = 0; u < U; ++u) {
          const auto column = [&](Int t) POOLWISE_LAMBDA {
            return lane_of_rows<Count, M>(reduction, from, (first + t * last.dilation) * inner + c + u * M, 0, places);
          };
          const auto tap = [&](Int t) POOLWISE_LAMBDA {
            const Int cell = first + t * last.dilation;
            return counted_tap<M>(whole || (cell >= 0 && cell < end - begin) ? column(t) : reduction.template nothing<M>(), t);
          };
          put<M>(j * inner + c + u * M, balanced<R, M, Count>(reduction, Count, tap));
        }
      });
    }
  }

  POOLWISE_INLINE bool folds_windows() const {
    const Axis& last = block_.axes[2];
    return !weighs<R> && block_.inner == 1 && !layout_.folds && !layout_.doubles && last.dilation == 1 && last.taps >= taps_worth_folding;
  }

  // Windows of many taps, each gathered in a pack, and as many packs as they have lanes folded together.
  POOLWISE_OUTLINE void across_folded(Int number) {
    const Axis& last = block_.axes[2];
    const Line<R> line = from_.from(number * layout_.lanes);
    const R reduction = reduction_;
    const State<N> nothing = reduction.template nothing<N>();
    for (Int j = 0; j < columns_; j += N) {
      State<N> windows[N];
      for (int i = 0; i < N; ++i) {
        constexpr int V = packs_of_window<R>;
        State<N> packs[V];
        for (int v = 0; v < V; ++v) packs[v] = nothing;
        const bool there = j + i < columns_;
        const Int begin = !there ? 0 : last.spans != nullptr ? last.spans[j + i].first : (j + i) * last.step;
        const Int taps = !there ? 0 : last.spans != nullptr ? last.spans[j + i].count : taps_;
        for (Int lane = 0; lane < taps; lane += N) {
          State<N> more = line.template load<N>(begin + lane);
          if constexpr (R::places) more.second += counted<typename R::Second, N>() + static_cast<typename R::Second>(lane);
          State<N>& pack = packs[lane / N % V];
          pack = reduction.template merged<N>(pack, taps - lane >= N ? more : first_lanes(more, taps - lane, nothing));
        }
        windows[i] = in_one_pack<R, V>(reduction, packs);
      }
      put<N>(number * apart_ + j, folded<R, N>(reduction, windows));
    }
  }
  static POOLWISE_INLINE State<N> first_lanes(State<N> state, Int count, const State<N>& nothing) {
    state.value = counted<Lane<A>, N>() < static_cast<Lane<A>>(count) ? state.value : nothing.value;
    if constexpr (Line<R>::two) state.second = counted<Lane<typename R::Second>, N>() < static_cast<Lane<typename R::Second>>(count) ? state.second : nothing.second;
    return state;
  }

  POOLWISE_OUTLINE void across_picked(Int n) {
    const Int taps = block_.axes[2].spans != nullptr ? block_.axes[2].taps : taps_;
    const auto tap = [&](const Line<R>& line, Int lane, Int t) POOLWISE_LAMBDA {
      State<N> state = reduction_.template nothing<N>();
      state.value = gathered<A, N>(line.values, picked_[t] + lane);
      return state;
    };
    for (Int lane = 0; lane < n; lane += N) {
      State<N> state = balanced<R, N, 0>(reduction_, taps, [&](Int t) POOLWISE_LAMBDA { return tap(from_, lane, t); });
      if constexpr (!R::idempotent && !weighs<R>)
        if (single_) state = reduction_.template merged<N>(state, tap(band_, lane, 2));
      put<N>(lane, state);
    }
  }

  POOLWISE_OUTLINE void across_strided(Int number) {
    if constexpr (picks_at_run<A> && !Line<R>::two && !weighs<R>) {
      const R reduction = reduction_;
      const Int step = block_.axes[2].step, taps = taps_, apart = tap_lanes_;
      const auto picked = [&](const A* from) POOLWISE_LAMBDA {
        Pack<A, N> found = load<A, N>(from);
        for (Int pack = 1; pack < step; ++pack)
          found = picked_at_run<A, N>(found, load<A, N>(from + pack * N), load<Lane<A>, N>(strided_ + (pack - 1) * N));
        return State<N>{found};
      };
      if (step == 8 && taps == 8 && apart == 1) {
        for (Int j = 0; j < columns_; j += N) put<N>(number * apart_ + j, covered<R, 8, N>(reduction, from_, number * layout_.lanes + j * step));
        return;
      }
      for (Int j = 0; j < columns_; j += N) {
        const Int lane = number * layout_.lanes + j * step;
        State<N> state = balanced<R, N, 0>(reduction, taps, [&](Int t) POOLWISE_LAMBDA { return picked(from_.values + lane + t * apart); });
        if constexpr (!R::idempotent)
          if (single_) state = reduction.template merged<N>(state, picked(band_.values + lane + 2 * apart));
        put<N>(number * apart_ + j, state);
      }
    }
  }

  // Columns that slide. The outputs of a row begin so many lanes behind those of the one before it.
  POOLWISE_OUTLINE void across_slid(Int count, Int apart) {
    if constexpr (slides_columns<R>) {
      const bool is_filled = block_.axes[2].mode != Mode::absent;  // with what the padding reads
      const Int inner = block_.inner, begin = is_filled ? 0 : (there_begin_ - lead_) / inner, end = is_filled ? lanes_ / inner : begin + there_ / inner;
      const SlidColumns columns{begin, end, inner == 1 ? turned_rows : inner, block_.read.count, block_.axes[2].step, columns_};
      constexpr int U = turned_rows / N;
      if (inner > 1) {  // what runs over a column's end is written before what stands there
        for (Int b = 0; b < count; ++b)
          for (Int c = (inner - 1) / turned_rows * turned_rows; c >= 0; c -= turned_rows) {
            slide_columns<A, U>(band_.values + b * layout_.lanes + c, columns, after_columns_, turned_);
            for (Int j = 0; j < columns_; ++j)
              for (int u = 0; u < U; ++u)
                if (c + u * N < inner) put<N>(b * apart + j * inner + c + u * N, {load<A, N>(turned_ + j * turned_rows + u * N)}, b * (apart_ - apart));
          }
        return;
      }
      const Int taps = columns.taps, step = columns.step;
      if (count == turned_rows || columns_ < turned_rows * taps) {
        for (Int b = 0; b < count; b += turned_rows)
          slide_turned(band_.values + b * layout_.lanes, layout_.lanes, columns, {b * apart, apart, b * apart_, apart_},
                       [&](Int row, Int) POOLWISE_LAMBDA { return b + row < count; });
        return;
      }
      // Of few rows each is cut in so many pieces, which are turned as rows are. They hold whole blocks, so that no addition changes its place.
      const Int piece = ceil_div(columns_, turned_rows * taps) * taps;
      for (Int b = 0; b < count; ++b)
        slide_turned(band_.values + b * layout_.lanes, piece * step, {0, (piece - 1) * step + taps, turned_rows, taps, step, piece}, {b * apart, piece, b * apart_, piece},
                     [&](Int row, Int j) POOLWISE_LAMBDA { return row * piece + j < columns_; });
    }
  }
  // Where the outputs of the first row that was turned begin, and what they are divided by; and how far on those of the next.
  struct Turned {
    Int out, out_apart, divisors, divisors_apart;
  };
  // `there(row, j)`: whether a row has an output j.
  template <class There>
  POOLWISE_INLINE void slide_turned(const A* from, Int from_apart, const SlidColumns& columns, const Turned& to, There&& there) {
    constexpr int U = turned_rows / N;
    for (Int column = columns.begin; column < columns.end; column += N)
      for (int u = 0; u < U; ++u) turn_packs(turned_ + column * turned_rows + u * N, turned_rows, from + u * N * from_apart + column, from_apart);
    slide_columns<A, U>(turned_, columns, after_columns_, turned_);
    // What runs over a row's end is written before what stands there.
    for (Int j = (columns.outputs - 1) / N * N; j >= 0; j -= N)
      for (int u = 0; u < U; ++u) put_turned(turned_ + j * turned_rows + u * N, to, u * N, j, there);
  }
  template <class There>
  POOLWISE_INLINE void put_turned(const A* from, const Turned& to, Int first, Int j, There&& there) {
    Pack<A, N> packs[N];
    for (int i = 0; i < N; ++i) packs[i] = load<A, N>(from + i * turned_rows);
    turn<A, N>(packs);
    const Int out = to.out + first * to.out_apart + j, divisors = to.divisors + first * to.divisors_apart + j;
    const R reduction = reduction_;
    Out* const written = out_;
    const D* const divided_by = divided_by_;
    const D row_divisor = row_divisor_;
    const auto put = [&](int i) POOLWISE_LAMBDA {
      Pack<D, N> divisor{};
      if constexpr (R::divides)
        if (reduction.is_mean) divisor = load<D, N>(divided_by + divisors + i * to.divisors_apart) * row_divisor;
      reduction.template write<N>(written + out + i * to.out_apart, {packs[i]}, divisor);
    };
    if (there(first + N - 1, j)) {
      for (int i = 0; i < N; ++i) put(i);
    } else {
      for (int i = 0; i < N && there(first + i, j); ++i) put(i);
    }
  }
  static POOLWISE_INLINE void turn_packs(A* to, Int to_apart, const A* from, Int from_apart) {
    Pack<A, N> packs[N];
    for (int i = 0; i < N; ++i) packs[i] = load<A, N>(from + i * from_apart);
    turn<A, N>(packs);
    for (int i = 0; i < N; ++i) store<N, A>(to + i * to_apart, packs[i]);
  }

  // The divisors stand so many lanes further on.
  template <int M>
  POOLWISE_INLINE void put(Int lane, State<M> state, Int divisors = 0) const {
    Pack<D, M> divisor{};
    if constexpr (R::divides)
      if (reduction_.is_mean) divisor = load<D, M>(divided_by_ + lane + divisors) * row_divisor_;
    state = reduction_.template finished<M>(reduction_.template moved<M>(state, block_.read.first));
    reduction_.template write<M>(out_ + lane, state, divisor);
    if constexpr (R::places) store<M, typename R::Second>(kept_out_ + lane, reduction_.template place<M>(state));
  }

  const Plan& plan_;
  const Block& block_;
  const LineLayout layout_;
  const R reduction_;
  const T* x_;
  Out* y_;
  K* kept_;
  const bool in_order_;  // rows alike are read one after the other
  RowStrides strides_;
  Int last_row_;
  A *turned_ = nullptr, *after_columns_ = nullptr;  // of columns that slide
  Line<R> lines_, line_;  // of the band in memory, and that of a row
  Line<R> band_;          // the same from each line's first lane that counts on
  Line<R> from_, doubled_, fresh_, before_, after_;
  T* spare_rows_;  // as many as are reduced at once
  std::int32_t* picked_[most_picked_taps];
  Lane<A> strided_[most_strided * N];
  D *column_divisors_, *divisors_, *divided_by_ = nullptr;
  Out *bounced_, *out_ = nullptr;
  Stream<Out> stream_;
  bool streams_ = false;
  K *bounced_kept_, *kept_out_ = nullptr;
  D row_divisor_{1}, own_divisor_{1}, row_divisors_[most_band_rows];
  Taps t0_{0, 0}, t1_{0, 0};                                             // the rows of a window in its planes
  bool alike_ = false;                                                   // rows may be reduced in one loop
  bool at_once_ = false;                                                 // the windows of this row are reduced from where they lie
  bool fetches_ = true;                                                  // what is read is asked for ahead
  bool alone_ = false;                                                   // they are the same for all windows
  Int taps_ = 0, tap_lanes_ = 0, tap_places_ = 0, width_ = 1;              // of a line, doubled where that is worth it
  bool single_ = false;                                                  // and there is one element more behind the two taps
  Int outer_ = 0, plane_ = 0, chunk_ = 0, row_ = 0;                      // where the engine stands
  Int first_column_ = 0, columns_ = 0, lanes_ = 0;                       // of the chunk
  Int there_begin_ = 0, there_ = 0, from_lane_ = 0, read_ = 0;           // its lanes that are no padding; those of a row that are read
  Int lead_ = 0;                                                         // lanes before its first, so that those begin a pack
  bool by_cells_ = false;                                                // their outputs, as they cannot be picked
  Int held_block_ = -1, after_from_ = 0, before_to_ = 0;                 // of rows that slide
  Int target_ = 0, apart_ = 0, end_ = 0;                                 // of what is written: where, how far apart rows are, how far
};

}  // namespace poolwise::POOLWISE_ISA
