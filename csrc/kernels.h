// What one instruction set offers: the same entries, each over a range of rows so that threads can share the work.
#pragma once

#include "geometry.h"

namespace poolwise {

struct Buffers {
  const void* from;  // the input, or the gradient of the output, or kept offsets
  void* to;          // the output, or the gradient of the input, or indices
  void* kept;        // one offset per output element, or null
};

using RowsKernel = void (*)(const Plan&, const Buffers&, Int begin, Int end);

struct Kernels {
  const char* name;
  RowsKernel forward;   // over output rows
  RowsKernel backward;  // over input rows
  RowsKernel indices;   // over output rows
};

// A list of the sets that this machine can run, the best last.
struct UsableKernels {
  const Kernels* sets[4];
  int count;
  const Kernels* const* begin() const { return sets; }
  const Kernels* const* end() const { return sets + count; }
};

UsableKernels usable_kernels();
const Kernels* best_kernels();

}  // namespace poolwise
