// Backward where rows are shorter than a few packs: the engine of lines, but over a whole plane at once. Its gradients are held with
// nothing around them, so that the rows of the input that stand alike to the stride read them as one long line.
#pragma once

#include "lines_backward.h"

namespace poolwise::POOLWISE_ISA {

constexpr Int narrow_lanes = 96;        // a row of gradients with what surrounds it
constexpr Int plane_lanes = 1 << 13;    // of all of them

// One axis of a held plane: where groups of `step` elements find their windows.
struct Surrounded {
  Int before, after, groups;  // windows stand at group + before … group + after - 1

  explicit Surrounded(const Axis& axis)
      : before(floor_div(-Wide(axis.start) - Wide(axis.taps - 1) * axis.dilation, axis.step)),
        after(floor_div(Wide(axis.step) - 1 - axis.start, axis.step) + 1),
        groups((axis.size + axis.step - 1) / axis.step) {}
  // Windows that are held: those from `first` on are there or nothing.
  Int first() const { return smaller(before, 0); }
  Int held(const Axis& axis) const { return larger(groups + after - 1, axis.output) - first(); }
};

template <class B>
class PlanesBackward {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using Row = GradientRow<B>;
  using K = typename Row::K;
  using G = typename Row::G;
  static constexpr int N = full<A>;

 public:
  POOLWISE_OUTLINE static bool serves(const Plan& plan, const Buffers& buffers) {
    const Block& block = plan.block;
    if (!block.unfolded() || buffers.mask != nullptr || block.inner == 0) return false;
    const Axis &planes = block.axes[0], &rows = block.axes[1], &last = block.axes[2];
    if (planes.size != 1 || planes.output != 1 || planes.taps != 1 || planes.start != 0 || planes.spans != nullptr) return false;
    for (const Axis* axis : {&rows, &last})
      if (axis->spans != nullptr || !is_near(*axis) || axis->taps > most_reads) return false;
    if (last.step > 1 && (block.inner > 1 || last.step > most_woven)) return false;
    if (rows.step > 4 || rows.reach() * last.reach() > most_reads) return false;
    if (Wide(rows.size) * last.size * block.inner > plane_lanes || Wide(rows.output) * last.output * block.inner > plane_lanes) return false;
    const Surrounded down(rows), across(last);
    const Int lanes = across.held(last) * block.inner;
    return lanes <= narrow_lanes && lanes * down.held(rows) <= plane_lanes;
  }
  static Units units(const Plan& plan) { return {plan.block.outer}; }

  PlanesBackward(const Plan& plan, const Buffers& buffers)
      : plan_(plan),
        rows_(plan.block.axes[1]),
        last_(plan.block.axes[2]),
        inner_(plan.block.inner),
        down_(rows_),
        across_(last_),
        apart_(across_.held(last_) * inner_),
        g_(static_cast<const typename B::Gradient*>(buffers.from)),
        kept_(static_cast<const K*>(buffers.kept)),
        gx_(static_cast<T*>(buffers.to)) {
    const Int held = apart_ * down_.held(rows_), woven = down_.groups * apart_ * last_.step, plane = rows_.size * last_.size * inner_;
    Arena arena(scratch(static_cast<std::size_t>(Arena::room<G>(held + slack<A>) + Arena::room<K>(held + slack<A>) + Arena::room<T>(woven + slack<A>) +
                                                 Arena::room<A>(rows_.output * last_.output * inner_) + Stream<T>::room(plane + slack<A>))));
    held_g_ = arena.take<G>(held + slack<A>);
    held_kept_ = arena.take<K>(held + slack<A>);
    woven_ = arena.take<T>(woven + slack<A>);
    divisors_ = arena.take<A>(rows_.output * last_.output * inner_);
    stream_ = Stream<T>(arena, plane + slack<A>);
    streams_ = plan.input_size * Int(sizeof(T)) >= bytes_worth_streaming;
    fill<G>(held_g_, held + slack<A>, G{});
    if constexpr (B::keeps) fill<K>(held_kept_, held + slack<A>, static_cast<K>(-1));
    if (!B::keeps) find_divisors();
  }

  void run(Int begin, Int end) {
    const Int n = rows_.size * last_.size * inner_;
    if (streams_) stream_.start(gx_ + begin * n);
    for (Int plane = begin; plane < end; ++plane) {
      hold(plane);
      T* to = streams_ ? stream_.next() : gx_ + plane * n;
      for (Int phase = 0; phase < rows_.step; ++phase) gather(phase, to);
      if (streams_) stream_.wrote(n);
    }
    if (streams_) stream_.finish();
  }

 private:
  // A row that is not longer than a few packs, to exactly where it belongs.
  template <class V>
  static POOLWISE_INLINE void copy(V* to, const V* from, Int n) {
    for_lanes<POOLWISE_VECTOR_BYTES / int(sizeof(V))>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
      std::memcpy(static_cast<void*>(to + lane), from + lane, U * M * sizeof(V));
    });
  }

  void find_divisors() {
    if (plan_.exact_share > 0) return;
    for (Int i = 0; i < rows_.output; ++i)
      for (Int j = 0; j < last_.output; ++j)
        fill<A>(divisors_ + (i * last_.output + j) * inner_, inner_, static_cast<A>(divided_by(plan_, rows_, false, i, 0) * divided_by(plan_, last_, true, j, 0)));
  }

  void hold(Int plane) {
    const Int n = last_.output * inner_;
    for (Int i = 0; i < rows_.output; ++i) {
      const Int at = (plane * rows_.output + i) * n, to = (i - down_.first()) * apart_ - across_.first() * inner_;
      if constexpr (B::keeps) {
        copy(held_g_ + to, g_ + at, n);
        copy(held_kept_ + to, kept_ + at, n);
      } else {
        const A* divisors = divisors_ + i * n;
        const A share = static_cast<A>(plan_.exact_share);
        for_lanes<N>(n, [&]<int M, int U>(Int lane) POOLWISE_LAMBDA {
          for (int u = 0; u < U; ++u) {
            const Int here = lane + u * M;
            const auto g = load<A, M>(g_ + at + here);
            store<M, A>(held_g_ + to + here, share == 0 ? g / load<A, M>(divisors + here) : g * share);
          }
        });
      }
    }
  }

  // The rows phase, phase + step, … of the plane.
  void gather(Int phase, T* to) {
    const Int count = (rows_.size - phase + rows_.step - 1) / rows_.step;
    if (count <= 0) return;
    switch (last_.step) {
      case 1: gather_by<1>(phase, count); break;
      case 2: gather_by<2>(phase, count); break;
      case 3: gather_by<3>(phase, count); break;
      default: gather_by<4>(phase, count);
    }
    const Int n = last_.size * inner_;
    for (Int m = 0; m < count; ++m) copy(to + (m * rows_.step + phase) * n, woven_ + m * apart_ * last_.step, n);
  }

  template <int S>
  POOLWISE_OUTLINE void gather_by(Int phase, Int count) {
    for (int s = 0; s < S; ++s) reads_.count[s] = 0;
    for (Int t1 = rows_.taps - 1; t1 >= 0; --t1) {
      const Int below = phase - rows_.start - t1 * rows_.dilation;
      if (below % rows_.step != 0) continue;
      for (Int t2 = last_.taps - 1; t2 >= 0; --t2)
        for (int s = 0; s < S; ++s) {
          const Int ahead = s - last_.start - t2 * last_.dilation;
          if (S > 1 && ahead % S != 0) continue;
          const Int lane = (floor_div(below, rows_.step) - down_.first()) * apart_ + (floor_div(ahead, S) - across_.first()) * inner_;
          reads_.add(s, {held_g_ + lane, held_kept_ + lane, t1 * last_.taps + t2});
        }
    }
    weave_all<B, S>(reads_, woven_, (count - 1) * apart_ + across_.groups * inner_);
  }

  const Plan& plan_;
  const Axis &rows_, &last_;
  Int inner_;
  Surrounded down_, across_;
  Int apart_;  // lanes from one row of gradients to the next
  const typename B::Gradient* g_;
  const K* kept_;
  T* gx_;
  G* held_g_;
  K* held_kept_;
  T* woven_;
  A* divisors_;
  Stream<T> stream_;
  bool streams_ = false;
  Reads<B> reads_;
};

}  // namespace poolwise::POOLWISE_ISA
