// The general engine: cell by cell, right for every geometry, dtype, layout and mask. The lanes of a pack lie along the last dim
// in memory where that is not pooled (channels last), and are single elements otherwise.
#pragma once

#include "gradients.h"
#include "reductions.h"
#include "walk.h"

namespace poolwise::POOLWISE_ISA {

template <class T>
POOLWISE_INLINE T* moved(T* p, Int bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(bytes));
}

// ---- from a plan to a walk ---------------------------------------------------------------------------------------------

// Forward: strides in bytes, as the input may lie in any way.
POOLWISE_OUTLINE void walk_output(Walk<TapsOfCell>& walk, const Plan& plan, const Buffers& buffers, Int itemsize) {
  Int dense[most_axes];
  for (Int d = plan.ndim - 1, stride = itemsize; d >= 0; --d) dense[d] = stride, stride *= plan.dims[d].input;
  const Int* strides = buffers.from_strides != nullptr ? buffers.from_strides : dense;
  SourceStride along[most_axes];
  for (int d = 0; d < plan.ndim; ++d) {
    const Dim& dim = plan.dims[d];
    const Int mask = buffers.mask != nullptr ? buffers.mask_strides[d] : 0;
    if (dim.pooled >= 0) along[dim.pooled] = {strides[d], mask};
    walk.add_dim(dim.pooled >= 0 ? TargetDim{dim.output, 0, 0, 0, dim.pooled}
                                 : TargetDim{dim.output, strides[d], mask, dim.plane_stride, -1});
  }
  for (int a = 0; a < plan.rank; ++a) walk.add_axis(plan.axes[a], along[a]);
  walk.finish(itemsize);
}

// Backward: strides in elements of the output, which gradients and kept offsets share; the mask lies over the target.
POOLWISE_OUTLINE void walk_input(Walk<ReadersOfElement>& walk, const Plan& plan, const Buffers& buffers) {
  SourceStride along[most_axes];
  Int dense[most_axes];
  for (Int d = plan.ndim - 1, stride = 1; d >= 0; --d) dense[d] = stride, stride *= plan.dims[d].output;
  for (int d = 0; d < plan.ndim; ++d) {
    const Dim& dim = plan.dims[d];
    const Int mask = buffers.mask != nullptr ? buffers.mask_strides[d] : 0;
    if (dim.pooled >= 0) along[dim.pooled] = {dense[d], 0};
    walk.add_dim(dim.pooled >= 0 ? TargetDim{dim.input, 0, mask, 0, dim.pooled}
                                 : TargetDim{dim.input, dense[d], mask, dim.plane_stride, -1});
  }
  for (int a = 0; a < plan.rank; ++a) walk.add_axis(plan.axes[a], along[a]);
  walk.finish(1);
}

// What a mean divides the window of this cell by, where no mask thins it out.
template <class A>
POOLWISE_OUTLINE A divisor_at(const Plan& plan, const Walk<TapsOfCell>& walk) {
  if constexpr (std::is_integral_v<A> || std::is_same_v<A, Wide>) {
    if (plan.divisor > 0) return static_cast<A>(plan.divisor);
    Wide product = 1;
    for (int a = 0; a < plan.rank; ++a) {
      const Axis& axis = plan.axes[a];
      const Int place = walk.place(a), plane = walk.plane();
      product *= plan.count_include_pad ? axis.counting(place, plane) : axis.present(place, plane).count;
      product = product < INT64_MAX ? product : INT64_MAX;
    }
    return static_cast<A>(product);
  } else {
    double product = 1;
    for (int a = 0; a < plan.rank; ++a) product *= divided_by(plan, plan.axes[a], a + 1 == plan.rank, walk.place(a), walk.plane());
    return static_cast<A>(product);
  }
}

// The same for a cell that an element meets backward.
template <class A>
POOLWISE_OUTLINE A divisor_met(const Plan& plan, const Walk<ReadersOfElement>& walk, Int cell) {
  double product = divided_by(plan, plan.axes[plan.rank - 1], true, cell, walk.plane());
  for (int a = 0; a + 1 < plan.rank; ++a) product *= divided_by(plan, plan.axes[a], false, walk.met(a), walk.plane());
  return static_cast<A>(product);
}

// Common ones are compiled in every width.
template <class R>
inline constexpr bool common = std::is_floating_point_v<Number<typename R::Element>> &&
                               (sizeof(typename R::Accumulator) == 4 || sizeof(typename R::Element) == 8);

template <class R, class At>
POOLWISE_INLINE void for_lanes_of(Int n, At&& at) {
  constexpr int N = full<typename R::Accumulator>;
  if constexpr (common<R>)
    for_lanes<N>(n, at);
  else
    for_rare_lanes<N>(n, at);
}

// ---- forward -----------------------------------------------------------------------------------------------------------

// Where a reduction goes when all is in it.
template <class R>
struct Output {
  using A = typename R::Accumulator;
  const R reduction;
  typename R::Result* y;
  void* kept;
  Kept width;

  Output(const Plan& plan, const Buffers& buffers)
      : reduction(reduction_of(plan, buffers.mask != nullptr)), y(static_cast<typename R::Result*>(buffers.to)), kept(buffers.kept), width(plan.kept) {}

  static R reduction_of(const Plan& plan, bool masked) {
    if constexpr (std::is_constructible_v<R, const Plan&, bool>)
      return R(plan, masked);
    else
      return R(plan);
  }

  template <int N>
  POOLWISE_INLINE void put(Int at, const typename R::template State<N>& reduced, Pack<A, N> divisor) const {
    const auto state = reduction.template finished<N>(reduced);
    reduction.template write<N>(y + at, state, divisor);
    if constexpr (R::places) store_offsets<typename R::Second, N>(kept, width, at, reduction.template place<N>(state));
  }
};

template <class R>
bool divides(const R& reduction) {
  if constexpr (R::divides) return reduction.is_mean;
  return false;
}
template <class R, class V>
POOLWISE_INLINE V written_by(V divisor) {
  if constexpr (R::divides) return R::written_by(divisor);
  return divisor;
}

template <class R>
void forward_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  const T* x = static_cast<const T*>(buffers.from);
  const Output<R> out(plan, buffers);
  const R& reduction = out.reduction;
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, sizeof(T));
  walk.seek(begin);
  for (Int unit = begin; unit < end; ++unit, walk.advance()) {
    const A divisor = divides(reduction) ? written_by<R>(divisor_at<A>(plan, walk)) : A(1);
    const T* row = x + walk.lane_begin();
    const Int to = walk.target();
    for_lanes_of<R>(walk.lane_count(), [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      typename R::template State<N> state[U];
      for (int u = 0; u < U; ++u) state[u] = reduction.template nothing<N>();
      walk.meet([&](Int source, Int, Int offset, Int) POOLWISE_LAMBDA {
        const T* p = moved(row, source) + lane;
        for (int u = 0; u < U; ++u)
          state[u] = reduction.template merged<N>(state[u], reduction.template taken<N>(reduction.template read<N>(p + u * N), offset));
      });
      for (int u = 0; u < U; ++u) out.template put<N>(to + lane + u * N, state[u], every<A, N>(divisor));
    });
  }
}

// N lanes of a mask: all ones where an element is there.
template <class A, int N>
POOLWISE_INLINE Pack<Lane<A>, N> there(const std::uint8_t* mask, Int stride) {
  if (stride == 0) return every<Lane<A>, N>(*mask != 0 ? -1 : 0);
  return load<Lane<A>, N>(mask) != 0;
}

// The lanes of a where the mask is set, those of b elsewhere.
template <class R, int N, class Mask>
POOLWISE_INLINE auto either(Mask mask, const typename R::template State<N>& a, const typename R::template State<N>& b) {
  typename R::template State<N> state;
  state.value = mask ? a.value : b.value;
  if constexpr (!std::is_void_v<typename R::Second>) state.second = mask ? a.second : b.second;
  return state;
}

// The same where a mask says which elements are there.
template <class R>
void forward_masked(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  using T = typename R::Element;
  using A = typename R::Accumulator;
  const T* x = static_cast<const T*>(buffers.from);
  const Output<R> out(plan, buffers);
  const R& reduction = out.reduction;
  const bool counts = divides(reduction) && !(plan.divisor > 0) && !plan.count_include_pad;
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, sizeof(T));
  walk.seek(begin);
  for (Int unit = begin; unit < end; ++unit, walk.advance()) {
    const A divisor = divides(reduction) ? written_by<R>(divisor_at<A>(plan, walk)) : A(1);
    const T* row = x + walk.lane_begin();
    const Int to = walk.target(), mask_step = walk.lane_mask();
    for_rare_lanes<full<A>>(walk.lane_count(), [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      const std::uint8_t* mask = buffers.mask + (walk.lane_begin() + lane) * mask_step;
      const auto nothing = reduction.template nothing<N>();
      auto state = nothing;
      Pack<A, N> held{};
      walk.meet([&](Int source, Int at, Int offset, Int) POOLWISE_LAMBDA {
        const auto here = there<A, N>(mask + at, mask_step);
        const auto element = reduction.template taken<N>(reduction.template read<N>(moved(row, source) + lane), offset);
        state = reduction.template merged<N>(state, either<R, N>(here, element, nothing));
        if constexpr (R::divides) held += here ? every<A, N>(1) : Pack<A, N>{};
      });
      out.template put<N>(to + lane, state, counts ? written_by<R>(held) : every<A, N>(divisor));
    });
  }
}

// The Euclidean norm of the window where the walk stands, in one of its lanes. Scaled by a power of two, so that no square overflows, and
// none that matters vanishes.
POOLWISE_OUTLINE double scaled_norm(const Buffers& buffers, Walk<TapsOfCell>& walk, Int lane) {
  const double* const x = static_cast<const double*>(buffers.from) + lane;
  const std::uint8_t* const mask = buffers.mask == nullptr ? nullptr : buffers.mask + lane * walk.lane_mask();
  const auto for_each = [&](auto&& take) POOLWISE_LAMBDA {
    walk.meet([&](Int source, Int at, Int, Int) POOLWISE_LAMBDA {
      if (mask == nullptr || mask[at] != 0) take(load<double, 1>(moved(x, source))[0]);
    });
  };
  double most = 0, sum = 0, lost = 0;  // lost: by the additions
  for_each([&](double v) { most = __builtin_fabs(v) > most ? __builtin_fabs(v) : most; });  // none is NaN, which no norm here is
  if (!(most > 0 && most < std::numeric_limits<double>::infinity())) return most;
  const int power = __builtin_ilogb(most);
  for_each([&](double v) {
    const double scaled = __builtin_ldexp(v, -power), square = scaled * scaled, next = sum + square;
    lost += sum >= square ? sum - next + square : square - next + sum;
    sum = next;
  });
  return __builtin_ldexp(__builtin_sqrt(sum + lost), power);
}

// The norms of float64 again whose squares overflowed or vanished.
POOLWISE_OUTLINE void norms_again(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  constexpr Int at_once = 512;
  const auto fits = [](double y) POOLWISE_LAMBDA { return !((y < least_norm && y > 0) || y > most_norm); };
  auto* const y = static_cast<double*>(buffers.to);
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, sizeof(double));
  walk.seek(begin);
  const Int first = walk.target();
  walk.seek(end - 1);
  const Int last = walk.target() + walk.lane_count();
  for (Int i = first; i < last; i += at_once) {
    const Int stop = smaller(i + at_once, last);
    int all = 1;
    for (Int k = i; k < stop; ++k) all &= fits(y[k]) ? 1 : 0;
    for (Int k = i; all == 0 && k < stop; ++k) {
      if (fits(y[k])) continue;
      walk.seek(walk.unit_of(k));
      y[k] = scaled_norm(buffers, walk, k - walk.target() + walk.lane_begin());
    }
  }
}

// Calls at(walk) for each unit of the output, strides in elements.
template <class At>
POOLWISE_INLINE void for_outputs(const Plan& plan, const Buffers& buffers, Int begin, Int end, At&& at) {
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, 1);
  walk.seek(begin);
  for (Int unit = begin; unit < end; ++unit, walk.advance()) at(walk);
}

// The gradient of the output over how many elements the mask leaves of each window: a masked mean's share for each of them.
template <class T>
void shares_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  const T* g = static_cast<const T*>(buffers.from);
  double* shares = static_cast<double*>(buffers.to);
  for_outputs(plan, buffers, begin, end, [&](Walk<TapsOfCell>& walk) POOLWISE_LAMBDA {
    for (Int lane = 0; lane < walk.lane_count(); ++lane) {
      const std::uint8_t* mask = buffers.mask + (walk.lane_begin() + lane) * walk.lane_mask();
      double held = 0;
      walk.meet([&](Int, Int at, Int, Int) POOLWISE_LAMBDA { held += mask[at] != 0 ? 1 : 0; });
      store<1, double>(shares + walk.target() + lane, load<double, 1>(g + walk.target() + lane) / held);
    }
  });
}

// ---- backward ----------------------------------------------------------------------------------------------------------

// Gathered: every element of the input adds what the windows that read it send back, in their order, so each is written once and
// nothing depends on the threads. Kept offsets are only compared with those of taps that exist, so a wrong one reaches nothing.
template <class B>
void backward_cells(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  using T = typename B::Element;
  using A = typename B::Accumulator;
  using L = Lane<A>;
  const bool divided = plan.body == Body::mean && (buffers.mask == nullptr || plan.divisor > 0 || plan.count_include_pad);
  const auto* g = static_cast<const typename B::Gradient*>(buffers.from);
  T* gx = static_cast<T*>(buffers.to);
  Walk<ReadersOfElement> walk;
  walk_input(walk, plan, buffers);
  walk.seek(begin);
  for (Int unit = begin; unit < end; ++unit, walk.advance()) {
    const Int first = walk.lane_begin(), to = walk.target();
    for_lanes_of<B>(walk.lane_count(), [&]<int N, int U>(Int lane) POOLWISE_LAMBDA {
      Pack<A, N> sum[U];
      for (int u = 0; u < U; ++u) sum[u] = Pack<A, N>{};
      walk.meet([&](Int source, Int, Int offset, Int cell) POOLWISE_LAMBDA {
        const Int at = source + first + lane;
        const A divisor = divided ? divisor_met<A>(plan, walk, cell) : A(1);
        for (int u = 0; u < U; ++u) {
          const auto sent = load<A, N>(g + at + u * N);
          if constexpr (B::keeps) {
            const auto kept = load_offsets<typename B::Offset, L, N>(buffers.kept, plan.kept, at + u * N);
            sum[u] = B::template route<N>(sum[u], sent, kept, offset);
          } else {
            sum[u] = B::template route<N>(sum[u], sent, divisor);
          }
        }
      });
      for (int u = 0; u < U; ++u) {
        if (buffers.mask != nullptr && !B::keeps) {  // what a mask has taken away is no winner, but would have its share
          const std::uint8_t* mask = buffers.mask + walk.mask() + (lane + u * N) * walk.lane_mask();
          sum[u] = there<A, N>(mask, walk.lane_mask()) ? sum[u] : Pack<A, N>{};
        }
        store<N, A>(gx + to + lane + u * N, sum[u]);
      }
    });
  }
}

}  // namespace poolwise::POOLWISE_ISA
