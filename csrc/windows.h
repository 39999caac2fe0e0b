// What the engines of whole windows share: the rows of a band of windows, laid so that each tap is a line of lanes.
//
// Along an axis with stride s the places of the taps are cut into phases: place p + i * s is number i of phase p, so tap t of cell j
// is number j + shift(t) of its phase. A line holds one phase of the columns of one phase of the rows, row behind row, `pitch` lanes
// each: lane by lane the taps of all windows of all rows of the band lie side by side, whatever the stride. The lanes behind a
// row's last window are computed from what stands there and thrown away. Columns that are absent hold a value that says so; absent
// rows are not laid, so all rows of a band must have the same taps.
#pragma once

#include "lines.h"
#include "whole_windows.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int lanes_of_windows = 1024;  // of a line, about

// The block; where no rows are pooled, those of all planes are rows of one.
struct WindowAxes {
  Int outer, inner;
  Axis planes, rows, last;

  explicit WindowAxes(const Block& block) : outer(block.outer), inner(block.inner), planes(block.axes[0]), rows(block.axes[1]), last(block.axes[2]) {
    if (!is_idle(planes) || !is_idle(rows)) return;
    rows = Axis();
    rows.size = rows.output = rows.whole_end = outer;
    outer = 1;
  }
  static bool is_idle(const Axis& axis) { return axis.size == 1 && axis.output == 1 && axis.taps == 1 && axis.start == 0; }
};

// Whether windows overlap so that what is computed once for each element is worth lines of its own.
inline bool overlap(const Plan& plan, const WindowAxes& axes) {
  return plan.additions >= Wide(axes.planes.step) * axes.rows.step * axes.last.step;
}

// The phases of the taps of one axis; only those that a tap reads are numbered. Taps further apart than the stride have one each.
struct TapPhases {
  int count = 0;
  Int begin[most_window_taps];  // of each phase
  int phase[most_window_taps];  // of each tap
  Int shift[most_window_taps];
  Int most_shift = 0;

  POOLWISE_OUTLINE TapPhases(const Axis& axis, bool apart) {
    for (Int t = 0; t < axis.taps; ++t) {
      const Int place = t * axis.dilation, at = apart ? place : place % axis.step;
      int p = 0;
      while (p < count && begin[p] != at) ++p;
      if (p == count) begin[count++] = at;
      phase[t] = p, shift[t] = (place - at) / axis.step;
      most_shift = larger(most_shift, shift[t]);
    }
  }
  explicit TapPhases(const Axis& axis) : TapPhases(axis, axis.dilation > axis.step) {}
};

// Reader: read<N>(pointer) → packs of A from elements T.
template <class Reader, class A>
class WindowLines {
  using T = typename Reader::Element;
  using L = Lane<A>;
  static constexpr int N = full<A>;

 public:
  // For rows of at most `columns` windows; 0: so many that the lines stay in the second cache.
  WindowLines(const Plan& plan, const WindowAxes& axes, const Reader& reader, A absent, const T* x, Int columns, bool raises = false)
      : axes_(axes), raises_(raises), reader_(reader), absent_(absent), x_(x), end_(x + plan.input_size), down_(axes.rows), across_(axes.last) {
    const Int per_column = axes.planes.taps * down_.count * across_.count * (1 + down_.most_shift) * axes.inner;
    const bool touch = axes.rows.step <= axes.rows.taps && axes.last.step <= axes.last.taps;
    if (columns == 0) columns = larger(1, smaller(axes.last.output, window_line_bytes / Int(sizeof(A)) / per_column - across_.most_shift));
    if (touch && columns == axes.last.output) fetched_ = axes.rows.step * axes.last.step;
    set_pitch(columns);
    most_rows_ = larger(1, smaller(axes.rows.output, lanes_of_windows / pitch_));
    line_ = (most_rows_ + down_.most_shift) * pitch_ + slack<A>;
  }

  Int room() const {
    const Int lines = axes_.planes.taps * down_.count * across_.count;
    return (raises_ ? 2 : 1) * lines * Arena::room<A>(line_) + across_.count * Arena::room<A>(line_) + 2 * Arena::room<L>(most_rows_ * pitch_ + slack<A>) +
           Arena::room<bool>(most_rows_ * pitch_ / N + 1) + Arena::room<A>(row_room());
  }
  void take(Arena& arena) {
    for (Int i = 0; i < axes_.planes.taps * down_.count * across_.count; ++i) lines_[i] = arena.take<A>(line_);
    for (Int i = 0; raises_ && i < axes_.planes.taps * down_.count * across_.count; ++i) raised_[i] = arena.take<A>(line_);
    for (int p = 0; p < across_.count; ++p) there_[p] = arena.take<A>(line_);
    held_ = arena.take<L>(most_rows_ * pitch_ + slack<A>);
    idle_ = arena.take<L>(most_rows_ * pitch_ + slack<A>);
    whole_ = arena.take<bool>(most_rows_ * pitch_ / N + 1);
    row_held_ = arena.take<A>(row_room());
  }

  Int pitch() const { return pitch_; }
  Int columns() const { return columns_; }
  Int rows() const { return most_rows_; }

  // The windows first … first + columns - 1 of each row: which of their columns are there.
  POOLWISE_OUTLINE void enter(Int first, Int columns) {
    const Axis& last = axes_.last;
    first_ = first;
    set_pitch(columns);
    const Int live = columns * axes_.inner, lanes = (most_rows_ - 1) * pitch_ + live;
    bool all = true;
    read_begin_ = last.size, read_end_ = 0;
    for (int p = 0; p < across_.count; ++p) {
      const Cut cut = cuts_[p] = cut_of(p);
      all = all && cut.begin == 0 && cut.end == cells();
      if (cut.real_begin < cut.real_end) {
        read_begin_ = smaller(read_begin_, cut.column + cut.real_begin * last.step);
        read_end_ = larger(read_end_, cut.column + (cut.real_end - 1) * last.step + 1);
      }
      fill<A>(there_[p], cut.begin * axes_.inner, 0);
      fill<A>(there_[p] + cut.begin * axes_.inner, (cut.end - cut.begin) * axes_.inner, 1);
      fill<A>(there_[p] + cut.end * axes_.inner, pitch_ - cut.end * axes_.inner, 0);
      repeat(there_[p], most_rows_ + down_.most_shift);
      fill<A>(there_[p] + (most_rows_ + down_.most_shift) * pitch_, slack<A>, 0);
    }
    halves_ = axes_.inner == 1 && last.step == 2 && across_.count == 2 && are_neighbours(cuts_[0], cuts_[1]);
    for (Int row = 0; row < most_rows_; ++row) {
      fill<L>(idle_ + row * pitch_, live, 0);
      fill<L>(idle_ + row * pitch_ + live, pitch_ - live, -1);
    }
    fill<L>(idle_ + most_rows_ * pitch_, slack<A>, -1);
    for (Int pack = 0; pack * N < lanes; ++pack) whole_[pack] = true;
    if (all) return;
    for (Int lane = 0; lane < lanes; lane += N) {
      Pack<A, N> sum{};
      for (Int t = 0; t < last.taps; ++t) sum += load<A, N>(there(t) + lane);
      store<N, L>(held_ + lane, converted<L, A, N>(sum));
    }
    for (Int row = 0; row < lanes; row += pitch_)
      for (Int lane = 0; lane < live; ++lane)
        if (held_[row + lane] != static_cast<L>(last.taps)) whole_[(row + lane) / N] = false;
  }

  // n rows of windows from `row` on, all with these taps along the planes and rows.
  POOLWISE_OUTLINE void lay(Int outer, Int plane, Int row, Int n, Taps high, Taps wide) {
    const Axis &planes = axes_.planes, &rows = axes_.rows;
    after_ = x_;
    for (Int h = high.first; h < high.first + high.count; ++h) {
      for (int p = 0; p < down_.count; ++p) laid_[p] = 0;
      const Int at = (outer * planes.size + element_at(planes, planes.start + plane * planes.step + h * planes.dilation)) * rows.size;
      for (Int w = wide.first; w < wide.first + wide.count; ++w) {
        const int p = down_.phase[w];
        Int& next = laid_[p];
        for (next = larger(next, down_.shift[w]); next < down_.shift[w] + n; ++next) {
          const T* const source = x_ + (at + element_at(rows, rows.start + (row + next) * rows.step + down_.begin[p])) * axes_.last.size * axes_.inner;
          lay_row((h * down_.count + p) * across_.count, next, source);
          const T* const after = source + axes_.last.size * axes_.inner;
          after_ = after > after_ ? after : after_;
        }
      }
      // What the last packs read beyond the band is nothing, and not numbers so small that arithmetic is slow.
      for (int p = 0; p < down_.count; ++p)
        for (int c = 0; c < across_.count; ++c) fill<A>(lines_[(h * down_.count + p) * across_.count + c] + laid_[p] * pitch_, 2 * N, absent_);
    }
  }

  // Beside what was laid, what of(pack) is to it.
  template <class Of>
  POOLWISE_INLINE void raise(Taps high, Taps wide, Of&& of) {
    Int first[most_window_taps];
    for (int p = 0; p < down_.count; ++p) first[p] = laid_[p];
    for (Int w = wide.first; w < wide.first + wide.count; ++w) first[down_.phase[w]] = smaller(first[down_.phase[w]], down_.shift[w]);
    for (Int h = high.first; h < high.first + high.count; ++h)
      for (int p = 0; p < down_.count; ++p)
        for (int c = 0; c < across_.count; ++c) {
          const Int line = (h * down_.count + p) * across_.count + c;
          for_packs<N>(laid_[p] * pitch_ - first[p] * pitch_ + N, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
            const Int at = first[p] * pitch_ + lane;
            for (int u = 0; u < U; ++u) store<M, A>(raised_[line] + at + u * M, of.template operator()<M>(load<A, M>(lines_[line] + at + u * M)));
          });
        }
  }

  // Where lane 0 of a tap stands.
  const A* tap(Int h, Int w, Int t) const {
    return lines_[(h * down_.count + down_.phase[w]) * across_.count + across_.phase[t]] + down_.shift[w] * pitch_ + across_.shift[t] * axes_.inner;
  }
  const A* raised_tap(Int h, Int w, Int t) const {
    const Int line = (h * down_.count + down_.phase[w]) * across_.count + across_.phase[t];
    return raised_[line] + (tap(h, w, t) - lines_[line]);
  }
  // 1 where a column's tap is there, else 0; how many are; whether the lanes of a pack have all.
  const A* there(Int t) const { return there_[across_.phase[t]] + across_.shift[t] * axes_.inner; }
  const L* held() const { return held_; }
  bool whole(Int lane) const { return whole_[lane / N]; }
  // True, -1, of lanes behind a row's last window.
  POOLWISE_INLINE Pack<L, N> idle(Int lane) const { return load<L, N>(idle_ + lane); }
  // While a pack is computed, its share of what the next band will read comes nearer, where windows leave little out.
  POOLWISE_INLINE void prefetch(Int lane) const {
    const Int elements = fetched_ * N;
    const T* const next = after_ + lane * fetched_;
    if (end_ - next < elements) return;
    for (Int e = 0; e < elements; e += cache_line / Int(sizeof(T))) __builtin_prefetch(next + e);
  }

 private:
  // The cells of a phase's row that are there, those of them that are not of the padding, and the column of cell 0.
  struct Cut {
    Int begin, end, real_begin, real_end, column;
  };
  Cut cut_of(int p) const {
    const Axis& last = axes_.last;
    const Int column = last.start + first_ * last.step + across_.begin[p];
    const auto cell_of = [&](Int place) { return smaller(cells(), larger(0, ceil_div(Wide(place) - column, last.step))); };
    return {cell_of(last.padded_begin()), cell_of(last.padded_end()), cell_of(0), cell_of(last.size), column};
  }

  // Of two phases of step 2: whether their elements are those of one row, in turns.
  static bool are_neighbours(const Cut& a, const Cut& b) {
    const Int ahead = a.column + a.real_begin * 2 - b.column - b.real_begin * 2;
    return a.real_begin < a.real_end && b.real_begin < b.real_end && (ahead == 1 || ahead == -1);
  }

  Int cells() const { return pitch_ / axes_.inner; }
  Int row_room() const {
    const Axis& last = axes_.last;
    const Wide read = Wide(cells()) * last.step + Wide(last.taps - 1) * last.dilation + 1;
    return (read < last.size ? static_cast<Int>(read) : last.size) * axes_.inner + slack<A>;
  }
  void set_pitch(Int columns) {
    columns_ = columns;
    pitch_ = (columns + across_.most_shift) * axes_.inner;
  }
  void repeat(A* line, Int rows) const {
    for (Int r = 1; r < rows; ++r) std::memcpy(line + r * pitch_, line, static_cast<std::size_t>(pitch_) * sizeof(A));
  }

  // Row number `number` of the lines from `first` on. Packs run over its end, where the next row will be laid.
  POOLWISE_OUTLINE void lay_row(Int first, Int number, const T* source) {
    const Int inner = axes_.inner, step = axes_.last.step;
    const A* row = nullptr;
    if (step > 1 && read_begin_ < read_end_) row = held_row(source + read_begin_ * inner, (read_end_ - read_begin_) * inner);
    if (halves_) take_halves(lines_[first] + number * pitch_, lines_[first + 1] + number * pitch_, row);
    for (int p = 0; p < across_.count; ++p) {
      const Cut& cut = cuts_[p];
      const Int n = cut.real_end - cut.real_begin, from = cut.column + cut.real_begin * step;
      A* const line = lines_[first + p] + number * pitch_;
      A* const to = line + cut.real_begin * inner;
      if (n > 0 && step == 1)
        read_lanes(to, source + from * inner, n * inner);
      else if (n > 0 && !halves_)
        take_cells(to, row + (from - read_begin_) * inner, n);
      if (cut.begin > 0) fill<A>(line, cut.begin * inner, absent_);
      for (Int cell = cut.begin; cell < cut.real_begin; ++cell) read_folded(line, cell, cut, source);
      for (Int cell = cut.real_end; cell < cut.end; ++cell) read_folded(line, cell, cut, source);
      if (cut.end < cells()) fill<A>(line + cut.end * inner, pitch_ - cut.end * inner, absent_);
    }
  }

  // A cell of the padding.
  POOLWISE_OUTLINE void read_folded(A* line, Int cell, const Cut& cut, const T* source) const {
    const T* const from = source + element_at(axes_.last, cut.column + cell * axes_.last.step) * axes_.inner;
    for (Int c = 0; c < axes_.inner; ++c) store<1, A>(line + cell * axes_.inner + c, reader_.template read<1>(from + c));
  }

  // Lanes as numbers; up to a pack more is written.
  POOLWISE_INLINE void read_lanes(A* to, const T* from, Int n) const {
    Int lane = 0;
    for (; lane + N <= n; lane += N) {
      __builtin_prefetch(from + lane + gather_distance / Int(sizeof(T)));
      store<N, A>(to + lane, reader_.template read<N>(from + lane));
    }
    if (lane == n) return;
    if (end_ - (from + lane) >= N) return store<N, A>(to + lane, reader_.template read<N>(from + lane));
    T rest[N] = {};
    std::memcpy(static_cast<void*>(rest), from + lane, static_cast<std::size_t>(n - lane) * sizeof(T));
    store<N, A>(to + lane, reader_.template read<N>(rest));
  }

  // Both phases of a row, to one of which each lane belongs.
  POOLWISE_INLINE void take_halves(A* zero, A* one, const A* row) const {
    const bool turned = cuts_[1].column + cuts_[1].real_begin * 2 == read_begin_;
    A* const even = turned ? one + cuts_[1].real_begin : zero + cuts_[0].real_begin;
    A* const odd = turned ? zero + cuts_[0].real_begin : one + cuts_[1].real_begin;
    for (Int lane = 0; 2 * lane < read_end_ - read_begin_; lane += N) {
      const A* const from = row + 2 * lane;
      __builtin_prefetch(from + gather_distance / Int(sizeof(A)));
      if constexpr (2 * N * sizeof(A) > cache_line) __builtin_prefetch(from + N + gather_distance / Int(sizeof(A)));
      const auto a = load<A, N>(from), b = load<A, N>(from + N);
      store<N, A>(even + lane, as_numbers(halved<0, A, N>(a, b)));
      store<N, A>(odd + lane, as_numbers(halved<1, A, N>(a, b)));
    }
  }

  // n cells that stand `step` apart.
  POOLWISE_INLINE void take_cells(A* to, const A* row, Int n) const {
    const Int inner = axes_.inner, step = axes_.last.step;
    if (inner == 1 && step == 2) return pick<2>(to, row, n);
    if (inner == 1 && step == 3) return pick<3>(to, row, n);
    for (Int cell = 0; cell < n; ++cell)
      for (Int c = 0; c < inner; ++c) to[cell * inner + c] = row[cell * step * inner + c];
    for (Int lane = 0; as_they_lie && lane < n * inner; lane += N) store<N, A>(to + lane, as_numbers(load<A, N>(to + lane)));
  }
  template <int S>
  POOLWISE_INLINE void pick(A* to, const A* row, Int n) const {
    for (Int lane = 0; lane < n; lane += N) {
      __builtin_prefetch(row + S * lane + gather_distance / Int(sizeof(A)));
      store<N, A>(to + lane, as_numbers(picked<S, A, N>(row + S * lane)));
    }
  }

  // Elements of the width of a number are picked before they are read.
  static constexpr bool as_they_lie = sizeof(T) == sizeof(A);
  POOLWISE_INLINE Pack<A, N> as_numbers(Pack<A, N> v) const {
    if constexpr (as_they_lie) {
      T elements[N];
      std::memcpy(static_cast<void*>(elements), &v, sizeof v);
      v = reader_.template read<N>(elements);
    }
    return v;
  }

  // Lanes with room to read packs beyond them: where they lie, if that is so there.
  POOLWISE_INLINE const A* held_row(const T* from, Int lanes) {
    if constexpr (as_they_lie) {
      if (end_ - from >= lanes + slack<A>) return reinterpret_cast<const A*>(from);
      std::memcpy(static_cast<void*>(row_held_), from, static_cast<std::size_t>(lanes) * sizeof(T));
    } else {
      read_lanes(row_held_, from, lanes);
    }
    return row_held_;
  }

  const WindowAxes& axes_;
  const bool raises_;
  const Reader reader_;
  const A absent_;
  const T *x_, *end_, *after_ = nullptr;  // behind the last row that was laid
  Int fetched_ = 0;     // elements of the input for each lane
  const TapPhases down_, across_;
  Int most_rows_, columns_ = 0, pitch_ = 0, line_ = 0, first_ = 0, read_begin_ = 0, read_end_ = 0;
  Cut cuts_[most_window_taps];
  bool halves_ = false;
  Int laid_[most_window_taps] = {};  // of each phase of the rows, up to which number
  A* lines_[most_window_taps];
  A* raised_[most_window_taps];
  A* there_[most_window_taps];
  L *held_ = nullptr, *idle_ = nullptr;
  bool* whole_ = nullptr;
  A* row_held_ = nullptr;
};

// How many rows from `row` on, at most n, have the same taps as it.
POOLWISE_INLINE Int alike(const Axis& rows, Int row, Int n) {
  return is_whole(rows, row) ? smaller(n, rows.whole_end - row) : 1;
}

}  // namespace poolwise::POOLWISE_ISA
