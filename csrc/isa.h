// What is compiled once per instruction set, with POOLWISE_ISA its namespace and name, POOLWISE_VECTOR_BYTES the width of its packs:
// isa.cc and isa_*.cc, which are several so that compilers can share the work. Whatever is defined there lives in that namespace:
// nothing may be shared between sets.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace poolwise::POOLWISE_ISA {

// ---- who does the work -------------------------------------------------------------------------------------------------

Units cells_units(const Plan& plan, const Buffers& buffers, Int itemsize);

// In isa_selections.cc, isa_sums.cc, isa_integers.cc, isa_roots.cc and isa_backward.cc.
Units select_units(const Plan& plan, const Buffers& buffers);
void select(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units add_units(const Plan& plan, const Buffers& buffers);
void add(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units integers_units(const Plan& plan, const Buffers& buffers);
void add_integers(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units roots_units(const Plan& plan, const Buffers& buffers);
void add_roots(const Plan& plan, const Buffers& buffers, Int begin, Int end);
bool blurs_in_lines(const Plan& plan, const Buffers& buffers);
Units gradient_units(const Plan& plan, const Buffers& buffers);
void gradient(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units divided_units(const Plan& plan, const Buffers& buffers);
void divided(const Plan& plan, const Buffers& buffers, Int begin, Int end);
void shares(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units indices_units(const Plan& plan, const Buffers& buffers);
void indices(const Plan& plan, const Buffers& buffers, Int begin, Int end);

// In isa_windows.cc, for plans that need all of a window's elements at once.
Units windows_units(const Plan& plan);
void windows_forward(const Plan& plan, const Buffers& buffers, Int begin, Int end);
Units windows_backward_units(const Plan& plan);
void windows_backward(const Plan& plan, const Buffers& buffers, Int begin, Int end);

// In isa_passes.cc.
bool over_norms(Dtype dtype, const void* g, void* norms, Int n);
void times_sums(Dtype dtype, const void* x, const void* sums, void* gx, Int n);
void copied(Dtype from_dtype, const void* from, Dtype to_dtype, void* to, Int n);

// ---- which body serves a plan ------------------------------------------------------------------------------------------

template <class T>
inline constexpr bool floats = std::is_floating_point_v<Number<T>>;
// A sequential sum of n additions in float errs by at most n / 2 ulp of the sum of magnitudes, in half precision's ulp by far less.
template <class T>
inline bool needs_double(Int additions) {
  return additions > (sizeof(T) == 2 ? 4096 : 8);
}

// Calls run.operator()<T>() with the element type of the plan.
template <class Run>
void with_floats(const Plan& plan, Run&& run) {
  switch (plan.dtype) {
    case Dtype::float16: return run.template operator()<Half>();
    case Dtype::bfloat16: return run.template operator()<Brain>();
    case Dtype::float32: return run.template operator()<float>();
    case Dtype::float64: return run.template operator()<double>();
    default: return;  // integers have no gradient; the module refuses them before
  }
}

template <class Run>
void with_integers(const Plan& plan, Run&& run) {
  switch (plan.dtype) {
    case Dtype::boolean: return run.template operator()<Truth>();
    case Dtype::int8: return run.template operator()<std::int8_t>();
    case Dtype::int16: return run.template operator()<std::int16_t>();
    case Dtype::int32: return run.template operator()<std::int32_t>();
    case Dtype::int64: return run.template operator()<std::int64_t>();
    case Dtype::uint8: return run.template operator()<std::uint8_t>();
    case Dtype::uint16: return run.template operator()<std::uint16_t>();
    case Dtype::uint32: return run.template operator()<std::uint32_t>();
    case Dtype::uint64: return run.template operator()<std::uint64_t>();
    default: return;  // who asks has looked
  }
}

// Calls run.operator()<T>() with the element type of a selection: integers by their size, as `Whole` knows their signs, and a bool as the
// byte of 0 or 1 that it is.
template <class Run>
void with_ordered(const Plan& plan, Run&& run) {
  switch (plan.dtype) {
    case Dtype::boolean:
    case Dtype::int8:
    case Dtype::uint8: return run.template operator()<std::uint8_t>();
    case Dtype::int16:
    case Dtype::uint16: return run.template operator()<std::uint16_t>();
    case Dtype::int32:
    case Dtype::uint32: return run.template operator()<std::uint32_t>();
    case Dtype::int64:
    case Dtype::uint64: return run.template operator()<std::uint64_t>();
    default: return with_floats(plan, run);
  }
}

}  // namespace poolwise::POOLWISE_ISA
