// What one instruction set offers: the same entries, each over a range of units of work so that threads can share it.
#pragma once

#include "plan.h"

namespace poolwise {

// The arrays of one call. Strides are in bytes, one per dim of the plan; all other arrays are dense in the order of the dims.
struct Buffers {
  const void* from = nullptr;                  // the input, or the gradient of the output, or kept offsets
  void* to = nullptr;                          // the output, or the gradient of the input, or indices
  void* kept = nullptr;                        // one offset per output element, or null; backward also the input
  const float* beside = nullptr;               // of a plan that is paired: its second input
  float* to_beside = nullptr;                  // and backward the gradient of that
  const std::uint8_t* mask = nullptr;          // over the input, or null: which elements are there
  const Int* from_strides = nullptr;           // of the input; null: dense
  const Int* mask_strides = nullptr;
  bool rows_in_order = false;                  // are to be read so; `run` says it, no caller
};

// Units of work, and how many at least should be done by one thread in a row.
struct Units {
  Int count, grain = 1;
};

using UnitsKernel = Units (*)(const Plan&, const Buffers&);
using RangeKernel = void (*)(const Plan&, const Buffers&, Int begin, Int end);

struct Family {
  UnitsKernel units;
  RangeKernel run;
};

// Over n elements, for the gradients of norms: x, g and gx have the dtype, all others are float32, or of float64 float64.
struct Passes {
  bool (*over_norms)(Dtype dtype, const void* g, void* norms, Int n);  // in place of the norms, 0 where they are; false: sums or products could leave the range
  void (*times_sums)(Dtype dtype, const void* x, const void* sums, void* gx, Int n);
  void (*copied)(Dtype from_dtype, const void* from, Dtype to_dtype, void* to, Int n);
};

struct Kernels {
  const char* name;
  Family forward;   // over the output
  Family backward;  // over the input
  Family divided;   // over the output: g over what its window divides by, in the plan's dtype, which is no half precision
  Family shares;    // over the output: g divided by how many elements the mask leaves, in float64
  Family indices;   // over the output
  Family again;     // over the output: norms of float64 whose squares overflowed or vanished
  Passes passes;
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

// Whether this processor, by its maker, fetches ahead well by itself, but only what is read in the order of memory: AMD's, of which one was
// measured (benchmarks/factors.md, 70).
bool likes_order();

}  // namespace poolwise
