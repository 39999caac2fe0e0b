// The kernels of one instruction set that add: sums, means, norms, power means, and means with weights.
#include "isa_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

constexpr Int most_lanes = 16;  // of floats, whatever the instruction set

// Whether no sum over a window of integers T is rounded in A, nor a quotient to a tie that it is not.
template <class T, class A>
bool exact_in(const Plan& plan) {
  constexpr double most = static_cast<double>(std::numeric_limits<T>::max()) + 1, counts_to = sizeof(A) == 4 ? 0x1p23 : 0x1p52;
  return most * (static_cast<double>(plan.additions) + 1) < counts_to && plan.divisor < counts_to;
}

template <class T, class Run>
void with_whole_sum(const Plan& plan, const Buffers& buffers, Run&& run) {
  using Sum = Total<T, std::int64_t, std::int64_t>;
  if (plan.body == Body::sum) {
    if (buffers.mask != nullptr) return run.template operator()<Sum, AnyOffset, Engine::masked>();
    if constexpr (sizeof(T) > 2) {
      return lines_or_cells<Sum, std::uint8_t>(plan, buffers, run);
    } else {
      using Short = Total<T, std::int32_t, std::int64_t>;
      if (plan.additions < (1 << 15) - 1 && LinesForward<Short, std::uint8_t>::serves(plan, buffers))
        return run.template operator()<Short, std::uint8_t, Engine::lines>();
      return run.template operator()<Sum, std::uint8_t, Engine::cells>();
    }
  }
  if constexpr (!std::is_same_v<T, Truth>) {
    if constexpr (sizeof(T) == 1) {
      using Mean = ByteMean<T>;
      if (plan.additions < Mean::most_taps && plan.divisor == 0 && LinesForward<Mean, std::uint8_t>::serves(plan, buffers))
        return run.template operator()<Mean, std::uint8_t, Engine::lines>();
    }
    if constexpr (sizeof(T) < 8) {
      using A = std::conditional_t<sizeof(T) == 1, float, double>;
      using Fast = LinesForward<Total<T, A>, std::uint8_t>;
      if (exact_in<T, A>(plan) && Fast::serves(plan, buffers)) return run.template operator()<Total<T, A>, std::uint8_t, Engine::lines>();
    }
    using Mean = Total<T, std::conditional_t<sizeof(T) == 8, Wide, std::int64_t>>;
    buffers.mask != nullptr ? run.template operator()<Mean, AnyOffset, Engine::masked>() : run.template operator()<Mean, AnyOffset, Engine::cells>();
  }
}

template <class R, class Run>
void with_floating_sum(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (buffers.mask != nullptr) return run.template operator()<R, AnyOffset, Engine::masked>();
  lines_or_cells<R, std::uint8_t>(plan, buffers, run);
}

template <template <class> class Root, class Run>
void with_root(const Plan& plan, const Buffers& buffers, Run&& run) {
  switch (plan.dtype) {
    case Dtype::float16: return with_floating_sum<Root<Half>>(plan, buffers, run);
    case Dtype::bfloat16: return with_floating_sum<Root<Brain>>(plan, buffers, run);
    default: return with_floating_sum<Root<float>>(plan, buffers, run);  // the plan refuses every other
  }
}

template <class Run>
void with_sums(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (plan.body == Body::blur) return with_floats(plan, [&]<class T>() { run.template operator()<Blurred<T>, std::uint8_t, Engine::lines>(); });
  if (plan.body == Body::norm) return with_root<Norm>(plan, buffers, run);
  if (plan.body == Body::lp || plan.body == Body::gem) return with_root<Rooted>(plan, buffers, run);
  with_elements(plan, [&]<class T>() {
    const bool wide = buffers.mask != nullptr || needs_double<T>(plan.additions);
    if constexpr (!floats<T>) {
      with_whole_sum<T>(plan, buffers, run);
    } else if constexpr (std::is_same_v<T, double>) {
      wide ? with_floating_sum<LongTotal>(plan, buffers, run) : with_floating_sum<Total<T, double>>(plan, buffers, run);
    } else if (wide) {
      with_floating_sum<Total<T, double>>(plan, buffers, run);
    } else {
      lines_or_cells<Total<T, Number<T>>, std::uint8_t>(plan, buffers, run);
    }
  });
}

}  // namespace

Units add_units(const Plan& plan, const Buffers& buffers) {
  return units_of_forward(plan, buffers, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}
void add(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  walk_forward(plan, buffers, begin, end, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}

// Whether the engine of lines adds the weights: few enough additions follow one another, and a row that whole windows read from
// where it lies is not cut.
bool blurs_in_lines(const Plan& plan, const Buffers& buffers) {
  const Axis* const axes = plan.block.axes;
  if (plan.body != Body::blur) return false;
  if (plan.block.inner >= most_lanes && Wide(axes[2].size) * plan.block.inner > line_bytes / Int(sizeof(float))) return false;
  if (plan.dtype == Dtype::float32 && needs_double<float>(axes[0].taps * axes[1].taps + axes[2].taps / balanced_taps + 1)) return false;
  bool serves = false;
  with_floats(plan, [&]<class T>() { serves = LinesForward<Blurred<T>, std::uint8_t>::serves(plan, buffers); });
  return serves;
}

}  // namespace poolwise::POOLWISE_ISA
