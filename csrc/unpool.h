// Max unpooling: each element goes to the place that its index names, zeros stand elsewhere. Knows nothing of Python.
#pragma once

#include "geometry.h"

namespace poolwise {

// Dense arrays: y, indices and the gradient of y are (outer, inputs, inner), the result and its gradient (outer, outputs,
// inner). An index is a place in the plane. Where places repeat, the last element in the plane's order wins.
struct Unpool {
  Int itemsize, outer, inputs, outputs, inner;

  Int elements() const { return outer * inputs * inner; }
  Int per_outer_in() const { return inputs * inner; }
  Int per_outer_out() const { return outputs * inner; }
};

// Elements are 1, 2, 4 or 8 bytes, of any kind. Throws std::invalid_argument, so that no product of the sizes overflows.
Unpool unpool_of(Int itemsize, Int outer, Int inputs, Int outputs, Int inner);

// Both give -1, or the position in `indices` of the first index outside 0 … outputs - 1, and then nothing is written. Should
// another thread change the indices meanwhile, nothing outside the arrays is touched. At most `threads` threads, 0: the
// module's count; the result does not depend on it. Throw std::invalid_argument for memory that is missing or unaligned.
Int unpool_forward(const Unpool& unpool, const void* y, const Int* indices, void* out, int threads);

// gy is g at the element's place where the element won it, else zero.
Int unpool_backward(const Unpool& unpool, const void* g, const Int* indices, void* gy, int threads);

}  // namespace poolwise
