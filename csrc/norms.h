// The gradient of a Euclidean norm: x times the sum of g / norm over the windows that read it, in passes over whole arrays.
#pragma once

#include "kernels.h"

namespace poolwise {

// Buffers as of `run_backward`, which calls it for plans that have `through`; `passes` are of the instruction set that is chosen.
void run_norms_backward(const Plan& plan, const Buffers& buffers, const Passes& passes, int threads);

}  // namespace poolwise
