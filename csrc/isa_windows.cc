// The kernels of one instruction set that need all of a window's elements at once.
#include "isa.h"

#include "windows_backward.h"
#include "windows_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// The bodies of floats but the mode. Calls run.operator()<Body>().
template <class T, class Run>
void with_body(const Plan& plan, Run&& run) {
  switch (plan.body) {
    case Body::median: return run.template operator()<Middle<Floating<T>>>();
    case Body::quantile: return run.template operator()<Quantiles<Floating<T>>>();
    case Body::topkmean: return run.template operator()<Largest<Floating<T>>>();
    default: break;
  }
  if constexpr (!std::is_same_v<T, double>) {  // of which the plan refuses these
    if (plan.body == Body::soft) return run.template operator()<Softened<T>>();
    if (plan.body == Body::logsumexp) return run.template operator()<LogOfSum<T>>();
    if (plan.body == Body::stochasticmean) return run.template operator()<Expected<T>>();
    if (plan.body == Body::lip) return run.template operator()<ByLogits<T>>();
    if (!needs_double<T>(plan.additions)) return run.template operator()<Weighted<T, float>>();
  }
  run.template operator()<Weighted<T, double>>();
}

template <class Run>
void with_forward(const Plan& plan, Run&& run) {
  with_ordered(plan, [&]<class T>() {
    using Ordered = std::conditional_t<floats<T>, Floating<T>, Whole<T>>;
    if (plan.body == Body::mode) return run.template operator()<Commonest<Ordered>>();
    if constexpr (floats<T>)
      with_body<T>(plan, run);
    else
      run.template operator()<Middle<Ordered>>();  // the plan refuses all others of integers
  });
}

template <class Run>
void with_backward(const Plan& plan, Run&& run) {
  with_floats(plan, [&]<class T>() {
    if (plan.roots()) {
      if constexpr (!std::is_same_v<T, double>) run.template operator()<OverRooted<T>>();  // which the plan refuses
    } else {
      with_body<T>(plan, run);
    }
  });
}

}  // namespace

Units windows_units(const Plan& plan) { return {plan.block.output_rows()}; }

void windows_forward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_forward(plan, [&]<class B>() { WindowsForward<B>(plan, buffers).run(begin, end); });
}

Units windows_backward_units(const Plan& plan) {
  Units units{0};
  with_backward(plan, [&]<class B>() { units = WindowsBackward<B>::units(plan); });
  return units;
}

void windows_backward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_backward(plan, [&]<class B>() { WindowsBackward<B>(plan, buffers).run(begin, end); });
}

}  // namespace poolwise::POOLWISE_ISA
