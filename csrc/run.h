// Runs plans on arrays, on the instruction set that is chosen, shared among threads. Knows nothing of Python.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace poolwise {

// The instruction sets that this machine runs, the best last; which one is chosen; and choosing another.
std::vector<std::string> instruction_sets();
std::string instruction_set();
void use_instruction_set(const std::string& name);  // throws std::invalid_argument

// How rows of windows that are alike are read, for tests: "together", "in order", or "auto": in order from 8 MiB on where the processor likes that.
void use_row_order(const std::string& name);  // throws std::invalid_argument

// Each takes at most `threads` threads, 0: the module's count. The sizes and strides of the arrays must be those of the plan;
// whatever the arrays hold, nothing outside them is read or written. Throw std::invalid_argument where something is missing.
void run_forward(const Plan& plan, const Buffers& buffers, int threads);
void run_backward(const Plan& plan, const Buffers& buffers, int threads);
void run_indices(const Plan& plan, const Buffers& buffers, int threads);

}  // namespace poolwise
