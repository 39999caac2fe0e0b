// The kernels of one instruction set that add what each number comes to: norms, power means, and means with weights.
#include "isa_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

constexpr Int most_lanes = 16;  // of floats, whatever the instruction set

template <class Run>
void with_sums(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (plan.body == Body::blur) return with_floats(plan, [&]<class T>() { run.template operator()<Blurred<T>, std::uint8_t, Engine::lines>(); });
  with_floats(plan, [&]<class T>() {
    if (plan.body == Body::norm) return masked_or_not<Norm<T>>(plan, buffers, run);
    if constexpr (!std::is_same_v<T, double>) masked_or_not<Rooted<T>>(plan, buffers, run);  // which the plan refuses
  });
}

}  // namespace

Units roots_units(const Plan& plan, const Buffers& buffers) {
  return units_of_forward(plan, buffers, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}
void add_roots(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
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
