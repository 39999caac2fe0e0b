// Backward of a selection where each element has many readers or hardly any: a window sends its gradient to the one element that won.
// A thread owns a band of rows of one plane, and some of the channels, in scratch memory; it adds up what the windows send
// there, in their order, and writes the band once. So nothing depends on the threads, and the order is that of the gathering engine.
//
// Kept offsets are not trusted: one that names no tap, or a tap beyond the array or the band, sends nothing.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int band_bytes = 1 << 19;   // of scratch: within the second cache
constexpr Int most_offsets = 1 << 16;
constexpr Int bands_worth_threads = 8;  // so many at least, where they are not cut by channels

template <class B>
class Scatter {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using K = typename B::Offset;

  struct Layout {
    bool serves, direct;  // direct: an element receives from one window at most, which writes it where it belongs
    Int channels, chunks, rows, bands, offsets;
  };

  static POOLWISE_OUTLINE Layout layout_of(const Plan& plan) {
    const Block& block = plan.block;
    Layout layout{false, false, 0, 0, 0, 0, plan.additions + 1};
    if (!block.unfolded() || block.inner == 0) return layout;
    for (const Axis& axis : block.axes)
      if (!is_near(axis)) return layout;
    const Wide all = Wide(block.axes[2].size) * block.inner * Int(sizeof(T)), bands = ceil_div(Wide(block.axes[1].size) * all, band_bytes);
    layout.direct = plan.readers == 1 && all <= band_bytes && bands * block.axes[0].size * block.outer >= bands_worth_threads;
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
  struct Tap {
    Int plane, row, column;  // their numbers along each axis
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
    const Int rest = columns_.of(offset), plane = rows_.of(rest);
    return {plane, rest - plane * rows_.value, offset - rest * columns_.value};
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
        if (base >= height || base + (rows.taps - 1) * rows.dilation < 0) continue;
        const Int line = (outer * planes.output + i0) * rows.output + i1;
        const Int stop = smaller(height, base + taps_in(rows, i1) * rows.dilation);
        if (layout_.direct)
          send_row(line, tap, base, stop, channel, channels, [&](Int at, A g) POOLWISE_LAMBDA { store<1, A>(band + at, Pack<A, 1>{A{} + g}); });
        else
          send_row(line, tap, base, stop, channel, channels, [&](Int at, A g) POOLWISE_LAMBDA { sums_[at] += g; });
      }
    }
    for (Int row = 0; !layout_.direct && row < height; ++row) write_row(begin + row * size, row, channel, channels);
  }

  static POOLWISE_INLINE Int taps_in(const Axis& axis, Int cell) { return axis.spans != nullptr ? axis.spans[cell].count : axis.taps; }

  // One row of windows, whose first taps stand on row `base` of the band; its elements that are there end before `height`. send(where, how much).
  template <class Send>
  POOLWISE_OUTLINE void send_row(Int line, Int tap, Int base, Int height, Int channel, Int channels, Send&& send) {
    const Axis& last = block_.axes[2];
    const Int offsets = layout_.offsets, size = last.size;
    for (Int j = 0; j < last.output; ++j) {
      const Int at = (line * last.output + j) * block_.inner + channel, first = last.first(j);
      const Int stop = last.spans != nullptr ? first + last.spans[j].count : size;
      for (Int c = 0; c < channels; ++c) {
        const Int offset = static_cast<Int>(kept_[at + c]);
        if (offset < 0 || offset >= offsets) continue;
        const Tap to = tap_of(offset);
        const Int row = base + to.row * block_.axes[1].dilation, column = first + to.column * last.dilation;
        if (to.plane != tap || row < 0 || row >= height || column < 0 || column >= stop) continue;
        send((row * size + column) * channels + c, load<A, 1>(g_ + at + c)[0]);
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
};

}  // namespace poolwise::POOLWISE_ISA
