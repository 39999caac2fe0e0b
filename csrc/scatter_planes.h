// Backward of a selection from dense planes that are small enough to be held together: as in scatter.h, a window sends its gradient
// to the one element that won, but the windows of several planes do so in turns, since those of one plane often go to the same
// element one after the other, and each waits for the sum of the one before. Around a held plane is what its padding needs, and
// behind it is room where the offsets that name no tap send to.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int planes_in_turns = 4;
constexpr Int most_table_taps = 1 << 12;
constexpr Int held_planes_bytes = 1 << 20;  // within the second cache

template <class B>
class ScatterPlanes {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using K = typename B::Offset;

  // Elements along one axis from the first tap of the first window to the last of the last one.
  static POOLWISE_INLINE Int reach(const Axis& axis) { return (axis.output - 1) * axis.step + (axis.taps - 1) * axis.dilation + 1; }

 public:
  // Where it is less work than gathering: a few cycles per window and one per element, against some per pack and reader.
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (buffers.mask != nullptr || !block.unfolded() || block.inner != 1 || plan.additions + 1 > most_table_taps) return false;
    Wide held = 1, cells = 1;
    for (const Axis& axis : block.axes) {
      if (axis.spans != nullptr || !is_near(axis)) return false;
      held *= (Wide(axis.output) - 1) * axis.step + (Wide(axis.taps) - 1) * axis.dilation + 1, cells *= axis.size;
      if (held > held_planes_bytes || cells > held_planes_bytes) return false;
    }
    if (2 * held * planes_in_turns * Int(sizeof(A)) > held_planes_bytes) return false;
    const double inputs = static_cast<double>(plan.input_size), outputs = static_cast<double>(plan.output_size);
    return 3 * outputs + inputs < static_cast<double>(plan.readers) * inputs * 4 / full<A>;
  }
  static Units units(const Plan& plan) { return {plan.block.outer, ceil_div(planes_at_least(plan), planes_in_turns) * planes_in_turns}; }

  ScatterPlanes(const Plan& plan, const Buffers& buffers)
      : planes_(plan.block.axes[0]),
        rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        g_(static_cast<const T*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        taps_(plan.additions + 1),
        row_(reach(last_)),
        plane_(reach(rows_) * row_),
        held_(reach(planes_) * plane_),
        outputs_(planes_.output * rows_.output * last_.output),
        inputs_(planes_.size * rows_.size * last_.size) {
    const Int sums = planes_in_turns * 2 * held_ + slack<A>, entries = larger(taps_, 255) + 1;
    Arena arena(scratch(static_cast<std::size_t>(Arena::room<A>(sums) + Arena::room<std::int32_t>(entries) + Stream<T>::room(last_.size + slack<A>))));
    sums_ = arena.take<A>(sums);
    table_ = arena.take<std::int32_t>(entries);
    stream_ = Stream<T>(arena, last_.size + slack<A>);
    streams_ = plan.input_size * Int(sizeof(T)) >= bytes_worth_streaming;
    fill<std::int32_t>(table_, entries, static_cast<std::int32_t>(held_));
    Int n = 0;
    for (Int a = 0; a < planes_.taps; ++a)
      for (Int b = 0; b < rows_.taps; ++b)
        for (Int t = 0; t < last_.taps; ++t)
          table_[n++] = static_cast<std::int32_t>(a * planes_.dilation * plane_ + b * rows_.dilation * row_ + t * last_.dilation);
  }

  void run(Int begin, Int end) {
    if (streams_) stream_.start(gx_ + begin * inputs_);
    Int plane = begin;
    for (; plane + planes_in_turns <= end; plane += planes_in_turns) in_turns<planes_in_turns>(plane);
    for (; plane < end; ++plane) in_turns<1>(plane);
    if (streams_) stream_.finish();
  }

 private:
  template <int P>
  POOLWISE_OUTLINE void in_turns(Int plane) {
    A* sums[P];
    const T* g[P];
    const K* kept[P];
    for (int p = 0; p < P; ++p) {
      sums[p] = sums_ + p * 2 * held_, g[p] = g_ + (plane + p) * outputs_, kept[p] = kept_ + (plane + p) * outputs_;
      fill<A>(sums[p], held_, A{});
    }
    const Int n = last_.output, step = last_.step;
    for (Int i = 0; i < planes_.output; ++i)
      for (Int k = 0; k < rows_.output; ++k) {
        const Int at = (i * rows_.output + k) * n, base = i * planes_.step * plane_ + k * rows_.step * row_;
        for (Int j = 0; j < n; ++j)
          for (int p = 0; p < P; ++p) sums[p][base + j * step + table_[entry(kept[p][at + j])]] += load<A, 1>(g[p] + at + j)[0];
      }
    for (int p = 0; p < P; ++p) write(plane + p, sums[p]);
  }

  // Offsets are not trusted: the last entry is for all that name no tap.
  POOLWISE_INLINE Int entry(K offset) const {
    if constexpr (sizeof(K) == 1) return static_cast<std::uint8_t>(offset);
    return offset < 0 || offset > taps_ ? taps_ : Int(offset);
  }

  POOLWISE_INLINE void write(Int plane, const A* sums) {
    const Int begin = smaller(last_.size, larger(0, last_.start)), end = larger(begin, smaller(last_.size, last_.start + row_));
    T* to = gx_ + plane * inputs_;
    for (Int i = 0; i < planes_.size; ++i)
      for (Int k = 0; k < rows_.size; ++k, to += last_.size) {
        const Int a = i - planes_.start, b = k - rows_.start;
        const bool met = a >= 0 && a * plane_ < held_ && b >= 0 && b * row_ < plane_;
        T* out = streams_ ? stream_.next() : to;
        const T zero{};
        if (!met || begin > 0) fill<T>(out, met ? begin : last_.size, zero);
        if (met) copy_lanes<A>(out + begin, sums + a * plane_ + b * row_ + begin - last_.start, end - begin);
        if (met && end < last_.size) fill<T>(out + end, last_.size - end, zero);
        if (streams_) stream_.wrote(last_.size);
      }
  }

  const Axis &planes_, &rows_, &last_;
  const T* g_;
  const K* kept_;
  T* gx_;
  Int taps_, row_, plane_, held_;  // of a window; elements of a held row, plane, and of all
  Int outputs_, inputs_;           // of one
  A* sums_;
  std::int32_t* table_;            // where a tap stands, counted from the first of its window
  Stream<T> stream_;
  bool streams_ = false;
};

}  // namespace poolwise::POOLWISE_ISA
