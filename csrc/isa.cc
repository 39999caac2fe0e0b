// The kernels of one instruction set.
#include "cells.h"
#include "isa.h"

namespace poolwise::POOLWISE_ISA {

Units cells_units(const Plan& plan, const Buffers& buffers, Int itemsize) {
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, itemsize);
  return {walk.units()};
}

namespace {

bool in_windows(const Plan& plan, const Buffers& buffers) { return plan.whole() && !blurs_in_lines(plan, buffers); }

// Who reduces windows to states that can be merged.
Family merging(const Plan& plan) {
  if (plan.selects()) return {select_units, select};
  if (plan.roots() || plan.body == Body::blur) return {roots_units, add_roots};
  return plan.dtype < Dtype::float16 ? Family{integers_units, add_integers} : Family{add_units, add};
}

Units forward_units(const Plan& plan, const Buffers& buffers) {
  return in_windows(plan, buffers) ? windows_units(plan) : merging(plan).units(plan, buffers);
}
void forward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  in_windows(plan, buffers) ? windows_forward(plan, buffers, begin, end) : merging(plan).run(plan, buffers, begin, end);
}

Units backward_units(const Plan& plan, const Buffers& buffers) {
  return plan.sends ? windows_backward_units(plan) : gradient_units(plan, buffers);
}
void backward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  plan.sends ? windows_backward(plan, buffers, begin, end) : gradient(plan, buffers, begin, end);
}

Units norms_units(const Plan& plan, const Buffers& buffers) { return cells_units(plan, buffers, sizeof(double)); }
Units shares_units(const Plan& plan, const Buffers& buffers) { return cells_units(plan, buffers, 1); }

}  // namespace

extern const Kernels kernels;
const Kernels kernels{POOLWISE_ISA_NAME,
                      {forward_units, forward},
                      {backward_units, backward},
                      {divided_units, divided},
                      {shares_units, shares},
                      {indices_units, indices},
                      {norms_units, norms_again},
                      {over_norms, times_sums, copied}};

}  // namespace poolwise::POOLWISE_ISA
