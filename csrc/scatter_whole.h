// Backward of a selection whose windows are whole planes: nothing but one element of each plane, and channel, receives anything. What a
// thread writes lies in one piece, which is filled with nothing and then written to, a part at a time that stays in the second cache.
#pragma once

#include "gradients.h"
#include "lines.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int filled_bytes = 1 << 16;
constexpr Int most_sent = 256;  // channels, each of which is looked at for every part

template <class B>
class ScatterWhole {
  using T = typename B::Element;
  using K = typename B::Offset;

  // So many elements of a plane at a time.
  static POOLWISE_INLINE Int part_of(const Plan& plan) {
    return smaller(size_of(plan), larger(1, filled_bytes / Int(sizeof(T)) / larger(1, plan.block.inner)));
  }
  static POOLWISE_INLINE Int parts_of(const Plan& plan) { return ceil_div(size_of(plan), part_of(plan)); }
  static POOLWISE_INLINE Int size_of(const Plan& plan) { return plan.block.axes[0].size * plan.block.axes[1].size * plan.block.axes[2].size; }

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    return block.there && buffers.mask == nullptr && block.inner <= most_sent && one_window(block.axes[0]) && one_window(block.axes[1]) && one_window(block.axes[2]);
  }
  static Units units(const Plan& plan) { return {plan.block.outer * parts_of(plan)}; }

  ScatterWhole(const Plan& plan, const Buffers& buffers)
      : size_(size_of(plan)),
        inner_(plan.block.inner),
        part_(part_of(plan)),
        parts_(parts_of(plan)),
        at_once_(parts_ > 1 ? 1 : larger(1, filled_bytes / Int(sizeof(T)) / larger(1, size_ * inner_))),
        g_(static_cast<const T*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)),
        streams_(plan.input_size * Int(sizeof(T)) >= bytes_worth_streaming) {
    const Int most = larger(part_ * inner_, at_once_ * size_ * inner_) + slack<T>;
    Arena arena(scratch(static_cast<std::size_t>(streams_ ? Stream<T>::room(most) : 0)));
    if (streams_) stream_ = Stream<T>(arena, most);
  }

  void run(Int begin, Int end) {
    if (streams_) stream_.start(start_of(begin));
    for (Int unit = begin; unit < end;) {
      const Int n = smaller(at_once_, end - unit), plane = unit / parts_, first = unit % parts_ * part_, count = smaller(part_, size_ - first);
      T* const to = streams_ ? stream_.next() : start_of(unit);
      fill<T>(to, n * count * inner_, T{});
      for (Int p = 0; p < n; ++p) send(to + p * size_ * inner_, plane + p, first, count);
      if (streams_) stream_.wrote(n * count * inner_);
      unit += n;
    }
    if (streams_) stream_.finish();
  }

 private:
  T* start_of(Int unit) const { return gx_ + (unit / parts_ * size_ + unit % parts_ * part_) * inner_; }

  // Offsets are not trusted.
  POOLWISE_INLINE void send(T* to, Int plane, Int first, Int count) const {
    const T* const g = g_ + plane * inner_;
    const K* const kept = kept_ + plane * inner_;
    for (Int c = 0; c < inner_; ++c) {
      const Int at = static_cast<Int>(kept[c]) - first;
      if (at >= 0 && at < count) to[at * inner_ + c] = g[c];
    }
  }

  const Int size_, inner_;   // of a plane; channels
  const Int part_, parts_;   // elements of a plane that are written at a time, and how often
  const Int at_once_;        // planes, where they are small
  const T* g_;
  const K* kept_;
  T* gx_;
  const bool streams_;
  Stream<T> stream_;
};

}  // namespace poolwise::POOLWISE_ISA
