// Backward of a selection where each element has many readers or hardly any: a window sends its gradient to the one element that won.
// A thread owns a band of rows of one plane, and some of the channels, in scratch memory, or in the output itself where that is as wide as
// sums are; it adds up what the windows send there, in their order. So nothing depends on the threads, and the order is that of the
// gathering engine.
//
// Kept offsets are not trusted: one that names no tap, or a tap beyond the array or the band, sends nothing.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int band_bytes = 1 << 19;   // of scratch: within the second cache
constexpr Int most_offsets = 1 << 16;
constexpr Int most_listed = 256;  // taps of a window, so that a list of them is soon made
constexpr Int bands_worth_threads = 8;  // so many at least, where they are not cut by channels

template <class B>
class Scatter {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using K = typename B::Offset;

  struct Layout {
    bool serves, direct;  // direct: sums are what memory holds, or of one window at most, which writes them where they belong
    Int channels, chunks, rows, bands, offsets;
  };

  static POOLWISE_OUTLINE Layout layout_of(const Plan& plan) {
    const Block& block = plan.block;
    Layout layout{false, false, 0, 0, 0, 0, plan.additions + 1};
    if (!block.unfolded() || block.inner == 0) return layout;
    for (const Axis& axis : block.axes)
      if (!is_near(axis)) return layout;
    const Wide all = Wide(block.axes[2].size) * block.inner * Int(sizeof(T)), bands = ceil_div(Wide(block.axes[1].size) * all, band_bytes);
    layout.direct = (plan.readers == 1 || std::is_same_v<T, A>) && all <= band_bytes && bands * block.axes[0].size * block.outer >= bands_worth_threads;
    layout.channels = layout.direct ? block.inner : smaller(block.inner, 16);
    layout.chunks = (block.inner + layout.channels - 1) / layout.channels;
    const Wide row = Wide(block.axes[2].size) * layout.channels * Int(sizeof(A));
    if (row > most_memory / 2) return layout;
    layout.rows = larger(1, smaller(block.axes[1].size, band_bytes / static_cast<Int>(row)));
    layout.bands = (block.axes[1].size + layout.rows - 1) / layout.rows;
    layout.serves = true;
    return layout;
  }

 public:
  // Where it is less work than gathering: a few instructions per window and one per element, against some per lane and reader.
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    if (buffers.mask != nullptr || !layout_of(plan).serves) return false;
    const double inputs = static_cast<double>(plan.input_size), outputs = static_cast<double>(plan.output_size);
    const bool by_packs = plan.block.inner > 1 || plan.block.axes[2].step <= most_woven;
    const double gathering = static_cast<double>(plan.readers) * inputs * 4 / (by_packs ? full<A> : 1);
    const bool uneven = plan.block.axes[0].spans != nullptr || plan.block.axes[1].spans != nullptr || plan.block.axes[2].spans != nullptr;
    return uneven || 10 * outputs + inputs < gathering || 64 * outputs < inputs;
  }
  // Where windows are so few that what they send costs less than to look at each element of small planes (planes_expanded.h), in
  // nanoseconds as measured: factor 99.
  POOLWISE_OUTLINE static bool is_sooner(const Plan& plan, const Buffers& buffers) {
    if (plan.block.inner != 1 || buffers.mask != nullptr || !layout_of(plan).direct) return false;
    const double inputs = static_cast<double>(plan.input_size), outputs = static_cast<double>(plan.output_size);
    return 5.6 * outputs + 0.02 * Int(sizeof(T)) * inputs < 4.0 / full<A> * static_cast<double>(plan.readers) * inputs;
  }
  static Units units(const Plan& plan) {
    const Layout layout = layout_of(plan);
    return {plan.block.outer * plan.block.axes[0].size * layout.bands * layout.chunks};
  }

  Scatter(const Plan& plan, const Buffers& buffers)
      : block_(plan.block),
        layout_(layout_of(plan)),
        g_(static_cast<const T*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        rows_(plan.block.axes[1].taps),
        columns_(plan.block.axes[2].taps) {
    for (Int offset = 0; offset < layout_.offsets && layout_.offsets <= most_listed; ++offset) list_[offset] = tap_of(offset);
    if (layout_.direct) return;
    const Int band = layout_.rows * block_.axes[2].size * layout_.channels;
    sums_ = static_cast<A*>(scratch(static_cast<std::size_t>(Arena::room<A>(band))));
  }

  void run(Int begin, Int end) {
    for (Int unit = begin; unit < end; ++unit) {
      Int rest = unit;
      const Int chunk = rest % layout_.chunks;
      rest /= layout_.chunks;
      const Int band = rest % layout_.bands;
      rest /= layout_.bands;
      fill_band(rest / block_.axes[0].size, rest % block_.axes[0].size, band * layout_.rows, chunk * layout_.channels);
    }
  }

 private:
  // Its number along each axis, and how far it stands from the first tap of a window, of one channel; that may stand far before the band.
  struct Tap {
    Int plane, row, column, ahead;
  };

  // A quotient by multiplication, exact for numbers below 2¹⁶.
  struct Divisor {
    Int value;
    std::uint64_t inverse;
    explicit Divisor(Int d) : value(d), inverse((std::uint64_t(1) << 32) / static_cast<std::uint64_t>(d) + 1) {}
    POOLWISE_INLINE Int of(Int n) const {
      return n < most_offsets ? static_cast<Int>(static_cast<std::uint64_t>(n) * inverse >> 32) : n / value;
    }
  };
  POOLWISE_INLINE Tap tap_of(Int offset) const {
    const Int rest = columns_.of(offset), plane = rows_.of(rest), row = rest - plane * rows_.value, column = offset - rest * columns_.value;
    const auto ahead = std::uint64_t(row) * std::uint64_t(block_.axes[1].dilation) * std::uint64_t(block_.axes[2].size) + std::uint64_t(column) * std::uint64_t(block_.axes[2].dilation);
    return {plane, row, column, static_cast<Int>(ahead)};
  }

  void fill_band(Int outer, Int plane, Int first_row, Int channel) {
    const Axis &planes = block_.axes[0], &rows = block_.axes[1];
    const Int size = block_.axes[2].size, height = smaller(layout_.rows, rows.size - first_row);
    const Int channels = smaller(layout_.channels, block_.inner - channel);
    const Int begin = ((outer * planes.size + plane) * rows.size + first_row) * size;
    T* const band = gx_ + begin * block_.inner;
    layout_.direct ? fill<T>(band, height * size * channels, T{}) : fill<A>(sums_, height * size * channels, A{});
    const Run above = readers_of(planes, plane);
    for (Int a = 0; a < above.count; ++a) {
      const Int i0 = above.at + a * above.at_step, tap = planes.spans != nullptr ? plane - planes.first(i0) : above.tap + a * above.tap_step;
      for (Int i1 = 0; i1 < rows.output; ++i1) {
        const Int base = rows.first(i1) - first_row;
        const Taps met = taps_inside(rows, i1, base, height);
        if (met.count == 0) continue;
        const Int line = (outer * planes.output + i0) * rows.output + i1, from = base * size * channels;
        layout_.direct ? send_row(band + from, line, tap, met, channel, channels) : send_row(sums_ + from, line, tap, met, channel, channels);
      }
    }
    for (Int row = 0; !layout_.direct && row < height; ++row) write_row(begin + row * size, row, channel, channels);
  }

  // The taps of a window that stand on elements 0 … size - 1, where its first tap stands at `base`.
  static POOLWISE_INLINE Taps taps_inside(const Axis& axis, Int cell, Int base, Int size) {
    if (axis.spans != nullptr) {
      const Int first = larger(0, -base), stop = smaller(axis.spans[cell].count, size - base);
      return {first, larger(0, stop - first)};
    }
    const Int first = base >= 0 ? 0 : (axis.dilation - 1 - base) / axis.dilation;
    const Int stop = base >= size ? 0 : smaller(axis.taps, (size - 1 - base) / axis.dilation + 1);
    return {first, larger(0, stop - first)};
  }

  // One row of windows, of whose rows these are in the band, to where the first row of the first one would begin.
  template <class To>
  POOLWISE_OUTLINE void send_row(To* to, Int line, Int tap, Taps met, Int channel, Int channels) const {
    if (layout_.offsets <= most_listed)
      send_taps(to, line, tap, met, channel, channels, [list = list_](Int offset) POOLWISE_LAMBDA { return list[offset]; });
    else
      send_taps(to, line, tap, met, channel, channels, [this](Int offset) POOLWISE_LAMBDA { return tap_of(offset); });
  }
  template <class To, class TapOf>
  POOLWISE_INLINE void send_taps(To* to, Int line, Int tap, Taps met, Int channel, Int channels, TapOf&& tap_of) const {
    const Axis& last = block_.axes[2];
    const Int offsets = layout_.offsets, inner = block_.inner, cells = last.output;
    const auto is_one = [](Int n, Taps taps) POOLWISE_LAMBDA { return static_cast<std::uint64_t>(n - taps.first) < static_cast<std::uint64_t>(taps.count); };
    const K* kept = kept_ + line * cells * inner + channel;
    const T* g = g_ + line * cells * inner + channel;
    for (Int j = 0; j < cells; ++j, kept += inner, g += inner) {
      const Int first = last.first(j);
      const Taps across = taps_inside(last, j, first, last.size);
      To* const cell = to + first * channels;
      for (Int c = 0; c < channels; ++c) {
        const Int offset = static_cast<Int>(kept[c]);
        if (offset < 0 || offset >= offsets) continue;
        const Tap winner = tap_of(offset);
        if (!((winner.plane == tap) & is_one(winner.row, met) & is_one(winner.column, across))) continue;
        To* const p = cell + winner.ahead * channels + c;
        if constexpr (std::is_same_v<To, A>)
          *p += load<A, 1>(g + c)[0];
        else
          *p = g[c];
      }
    }
  }

  POOLWISE_OUTLINE void write_row(Int cell, Int row, Int channel, Int channels) {
    const Int size = block_.axes[2].size;
    const A* from = sums_ + row * size * channels;
    if (channels == block_.inner) return copy_lanes<A>(gx_ + cell * channels, from, size * channels);
    for (Int x = 0; x < size; ++x) copy_lanes<A>(gx_ + (cell + x) * block_.inner + channel, from + x * channels, channels);
  }

  const Block& block_;
  const Layout layout_;
  const T* g_;
  const K* kept_;
  T* gx_;
  Divisor rows_, columns_;
  A* sums_ = nullptr;
  Tap list_[most_listed];
};

}  // namespace poolwise::POOLWISE_ISA
