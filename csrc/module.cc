// The Python module poolwise._native: the only file that knows Python. It checks everything that comes in (sizes in 64-bit
// checked arithmetic, arrays against the plan) and hands the work to the kernels with the GIL released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace nb = nanobind;

namespace poolwise {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw nb::value_error(sentence.c_str()); }

// ---- plans -------------------------------------------------------------------------------------------------------------

void require_at_least(const std::string& field, Int value, Int least) {
  if (value < least) refuse("Plan: " + field + " must be at least " + std::to_string(least) + ", got " + std::to_string(value));
}

Int fits(Wide value, const std::string& what) {
  if (value > INT64_MAX || value < INT64_MIN) refuse("Plan: " + what + " does not fit in 64 bits");
  return static_cast<Int>(value);
}

using AxisFields = std::array<Int, 8>;

Int inverse_modulo(Int value, Int modulus) {
  Wide r0 = modulus, r1 = value % modulus, s0 = 0, s1 = 1;
  while (r1 != 0) {
    const Wide q = r0 / r1;
    r0 -= q * r1, std::swap(r0, r1);
    s0 -= q * s1, std::swap(s0, s1);
  }
  return static_cast<Int>((s0 % modulus + modulus) % modulus);
}

Axis axis_of(const AxisFields& fields, std::size_t number) {
  static constexpr const char* names[8] = {"size", "output", "start", "step", "dilation", "taps", "low", "high"};
  static constexpr Int least[8] = {1, 1, INT64_MIN, 1, 1, 1, 0, 0};
  const std::string where = "axes[" + std::to_string(number) + "].";
  for (int f = 0; f < 8; ++f) require_at_least(where + names[f], fields[f], least[f]);
  const auto [size, output, start, step, dilation, taps, low, high] = fields;
  const Int cells = fits(Wide(output - 1) * step, where + "(output - 1) * step");
  const Int window = fits(Wide(taps - 1) * dilation, where + "(taps - 1) * dilation");
  fits(Wide(start) + cells, where + "start + (output - 1) * step");
  fits(Wide(start) + window, where + "start + (taps - 1) * dilation");
  fits(Wide(start) + cells + window, where + "the index of the last tap");
  fits(Wide(size) + high, where + "size + high");
  Axis axis{size, output, start, step, dilation, taps, low, high};
  const Int gcd = std::gcd(step, dilation);
  axis.cell_step = dilation / gcd;
  axis.tap_step = step / gcd;
  axis.inverse = inverse_modulo(axis.tap_step, axis.cell_step);
  return axis;
}

Body body_of(const std::string& name) {
  if (name == "max") return Body::max;
  if (name == "min") return Body::min;
  if (name == "sum") return Body::sum;
  if (name == "mean") return Body::mean;
  refuse("Plan: body must be 'max', 'min', 'sum' or 'mean', got '" + name + "'");
}

Dtype dtype_of(const std::string& name) {
  if (name == "float32") return Dtype::float32;
  if (name == "float64") return Dtype::float64;
  refuse("Plan: dtype must be 'float32' or 'float64', got '" + name + "'");
}

Kept kept_of(const Plan& plan) {
  if (plan.body == Body::sum || plan.body == Body::mean) return Kept::none;
  Wide taps = 1;
  for (const Axis& axis : plan.axes) taps = std::min<Wide>(taps * axis.taps, INT64_MAX);
  return taps <= 255 ? Kept::bytes : taps <= INT32_MAX ? Kept::words : Kept::none;
}

Int elements(const Plan& plan, Int Axis::* extent, const std::string& what) {
  Int n = std::max<Int>(plan.outer, 1);  // an empty batch is no excuse for sizes that could not be indexed
  for (const Axis& axis : plan.axes) n = fits(Wide(n) * (axis.*extent), what);
  n = fits(Wide(n) * std::max<Int>(plan.inner, 1), what);
  fits(Wide(n) * static_cast<Int>(sizeof(Int)), what + " in bytes");
  return plan.outer == 0 || plan.inner == 0 ? 0 : n;
}

Plan plan_of(const std::string& body, const std::string& dtype, Int outer, const std::vector<AxisFields>& axes, Int inner,
             bool count_include_pad, double divisor) {
  if (axes.empty() || axes.size() > 3) refuse("Plan: axes must hold 1 to 3 axes, got " + std::to_string(axes.size()));
  if (!(divisor >= 0) || divisor > std::numeric_limits<double>::max())
    refuse("Plan: divisor must be finite and at least 0 (0: none), got " + std::to_string(divisor));
  require_at_least("outer", outer, 0);
  require_at_least("inner", inner, 0);
  Plan plan{body_of(body), dtype_of(dtype), outer, inner, {}, count_include_pad, divisor, Kept::none, 0, 0};
  for (std::size_t a = 0; a < axes.size(); ++a) plan.axes[3 - axes.size() + a] = axis_of(axes[a], a);
  plan.kept = kept_of(plan);
  plan.input_size = elements(plan, &Axis::size, "the input's size");
  plan.output_size = elements(plan, &Axis::output, "the output's size");
  return plan;
}

const char* kept_dtype(const Plan& plan) {
  return plan.kept == Kept::bytes ? "uint8" : plan.kept == Kept::words ? "int32" : "";
}

// ---- instruction sets --------------------------------------------------------------------------------------------------

const Kernels* chosen = best_kernels();

const Kernels& kernels_named(const std::string& name) {
  std::string here;
  for (const Kernels* kernels : usable_kernels()) {
    if (name == kernels->name) return *kernels;
    here += (here.empty() ? "" : ", ") + std::string(kernels->name);
  }
  refuse("use_instruction_set: this machine runs " + here + ", got '" + name + "'");
}

// ---- buffers -----------------------------------------------------------------------------------------------------------

using ReadArray = nb::ndarray<nb::ro, nb::device::cpu>;
using WriteArray = nb::ndarray<nb::device::cpu>;

struct Expected {
  std::string name;
  nb::dlpack::dtype dtype;
  const char* dtype_name;
  Int size;
};

Expected floats(const Plan& plan, const char* name, Int size) {
  if (plan.dtype == Dtype::float32) return {name, nb::dtype<float>(), "float32", size};
  return {name, nb::dtype<double>(), "float64", size};
}

Expected offsets(const Plan& plan) {
  if (plan.kept == Kept::none)
    refuse("kept: this plan keeps nothing (a sum, a mean, or a window of 2**31 taps or more), got an array");
  if (plan.kept == Kept::bytes) return {"kept", nb::dtype<std::uint8_t>(), "uint8", plan.output_size};
  return {"kept", nb::dtype<std::int32_t>(), "int32", plan.output_size};
}

template <class Array>
bool is_dense(const Array& array) {
  Int run = 1;
  for (std::size_t d = array.ndim(); d-- > 0;) {
    if (array.shape(d) != 1 && array.stride(d) != run) return false;
    run *= static_cast<Int>(array.shape(d));
  }
  return true;
}

template <class Array>
auto checked(const Array& array, const Expected& expected) {
  const std::string& name = expected.name;
  if (array.dtype() != expected.dtype) refuse(name + ": must be " + expected.dtype_name + ", got another dtype");
  if (static_cast<Int>(array.size()) != expected.size)
    refuse(name + ": must hold " + std::to_string(expected.size) + " elements, got " + std::to_string(array.size()));
  if (expected.size > 0 && !is_dense(array)) refuse(name + ": must be dense and in C order, got other strides");
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  const auto itemsize = static_cast<std::uintptr_t>(expected.dtype.bits / 8);
  if (expected.size > 0 && address % itemsize != 0) refuse(name + ": must be aligned to its elements, got an unaligned array");
  return array.data();
}

// The same for a bare address, of which only so much can be known.
void* checked_address(std::uintptr_t address, const Expected& expected) {
  const auto itemsize = static_cast<std::uintptr_t>(expected.dtype.bits / 8);
  if (address == 0 && expected.size > 0) refuse(expected.name + ": the address must not be null, got 0");
  if (address % itemsize != 0)
    refuse(expected.name + ": the address must be a multiple of " + std::to_string(itemsize) + ", got " + std::to_string(address));
  return reinterpret_cast<void*>(address);
}

// ---- running -----------------------------------------------------------------------------------------------------------

constexpr Int bytes_per_piece = 1 << 18;       // enough work that handing it out costs nothing
constexpr Int bytes_worth_sharing = 1 << 18;   // below this, waking a thread costs more than it saves
constexpr Int bytes_worth_advice = 4 << 20;

int threads_for(int asked) {
  if (asked < 0) refuse("threads: must be at least 0 (0: the module's count), got " + std::to_string(asked));
  return asked == 0 ? num_threads() : asked;
}

struct Job {
  const Plan& plan;
  const Buffers& buffers;
  RowsKernel kernel;
};

void run_rows(const Plan& plan, const Buffers& buffers, RowsKernel kernel, Int rows, int threads) {
  if (plan.output_size == 0 || rows == 0) return;
  const Int bytes = (plan.input_size + plan.output_size) * plan.itemsize();
  const Int per_row = std::max<Int>(bytes / rows, 1);
  const Int even = (rows + threads - 1) / threads;
  const Int piece = std::max<Int>(1, std::min(even, bytes_per_piece / per_row));
  Job job{plan, buffers, kernel};
  const nb::gil_scoped_release release;
  share(rows, bytes < bytes_worth_sharing ? rows : piece, threads,
        [](void* context, Int begin, Int end) {
          const Job& job = *static_cast<Job*>(context);
          job.kernel(job.plan, job.buffers, begin, end);
        },
        &job);
}

void advise(void* to, Int elements, Int itemsize) {
  const Int bytes = elements * itemsize;
  if (bytes >= bytes_worth_advice) advise_huge_pages(to, static_cast<std::size_t>(bytes));
}

void run_forward(const Plan& plan, const Buffers& buffers, int threads) {
  advise(buffers.to, plan.output_size, plan.itemsize());
  run_rows(plan, buffers, chosen->forward, plan.output_rows(), threads);
}

void run_backward(const Plan& plan, const Buffers& buffers, int threads) {
  const bool picks = plan.body == Body::max || plan.body == Body::min;
  if (picks && buffers.kept == nullptr && plan.output_size > 0)
    refuse("backward: kept must be given for max and min, got none");
  advise(buffers.to, plan.input_size, plan.itemsize());
  run_rows(plan, buffers, chosen->backward, plan.input_rows(), threads);
}

void forward(const Plan& plan, const ReadArray& x, const WriteArray& y, const std::optional<WriteArray>& kept, int threads) {
  const Buffers buffers{checked(x, floats(plan, "x", plan.input_size)), checked(y, floats(plan, "y", plan.output_size)),
                        kept ? checked(*kept, offsets(plan)) : nullptr};
  run_forward(plan, buffers, threads_for(threads));
}

void backward(const Plan& plan, const ReadArray& g, const WriteArray& gx, const std::optional<ReadArray>& kept, int threads) {
  const void* from = kept ? checked(*kept, offsets(plan)) : nullptr;
  const Buffers buffers{checked(g, floats(plan, "g", plan.output_size)), checked(gx, floats(plan, "gx", plan.input_size)),
                        const_cast<void*>(from)};
  run_backward(plan, buffers, threads_for(threads));
}

void forward_at(const Plan& plan, std::uintptr_t x, std::uintptr_t y, std::uintptr_t kept, int threads) {
  const Buffers buffers{checked_address(x, floats(plan, "x", plan.input_size)),
                        checked_address(y, floats(plan, "y", plan.output_size)),
                        kept == 0 ? nullptr : checked_address(kept, offsets(plan))};
  run_forward(plan, buffers, threads_for(threads));
}

void backward_at(const Plan& plan, std::uintptr_t g, std::uintptr_t gx, std::uintptr_t kept, int threads) {
  const Buffers buffers{checked_address(g, floats(plan, "g", plan.output_size)),
                        checked_address(gx, floats(plan, "gx", plan.input_size)),
                        kept == 0 ? nullptr : checked_address(kept, offsets(plan))};
  run_backward(plan, buffers, threads_for(threads));
}

void indices(const Plan& plan, const ReadArray& kept, const WriteArray& out, int threads) {
  const Expected winners{"out", nb::dtype<Int>(), "int64", plan.output_size};
  const Buffers buffers{checked(kept, offsets(plan)), checked(out, winners), nullptr};
  run_rows(plan, buffers, chosen->indices, plan.output_rows(), threads_for(threads));
}

void indices_at(const Plan& plan, std::uintptr_t kept, std::uintptr_t out, int threads) {
  const Expected winners{"out", nb::dtype<Int>(), "int64", plan.output_size};
  const Buffers buffers{checked_address(kept, offsets(plan)), checked_address(out, winners), nullptr};
  run_rows(plan, buffers, chosen->indices, plan.output_rows(), threads_for(threads));
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) names.push_back(kernels->name);
  return names;
}

void set_threads(int n) {
  if (n < 1) refuse("set_num_threads: n must be at least 1, got " + std::to_string(n));
  set_num_threads(n);
}

}  // namespace
}  // namespace poolwise

NB_MODULE(_native, m) {
  using namespace poolwise;
  if (chosen == nullptr) throw nb::import_error("poolwise needs a processor with at least x86-64-v2");
  nb::set_leak_warnings(false);  // plans that Python's caches hold at exit are no leak
  m.doc() = "Pooling kernels on dense arrays of shape (outer, sizes…, inner).";

  nb::class_<Plan>(m, "Plan")
      .def("__init__",
           [](Plan* self, const std::string& body, const std::string& dtype, Int outer, const std::vector<AxisFields>& axes,
              Int inner, bool count_include_pad, double divisor) {
             new (self) Plan(plan_of(body, dtype, outer, axes, inner, count_include_pad, divisor));
           },
           nb::arg("body"), nb::arg("dtype"), nb::arg("outer"), nb::arg("axes"), nb::arg("inner"),
           nb::arg("count_include_pad") = false, nb::arg("divisor") = 0.0)
      .def_prop_ro("kept_dtype", kept_dtype)
      .def_ro("input_size", &Plan::input_size)
      .def_ro("output_size", &Plan::output_size)
      .def("forward", forward, nb::arg("x").noconvert(), nb::arg("y").noconvert(), nb::arg("kept").noconvert() = nb::none(),
           nb::arg("threads") = 0)
      .def("backward", backward, nb::arg("g").noconvert(), nb::arg("gx").noconvert(),
           nb::arg("kept").noconvert() = nb::none(), nb::arg("threads") = 0)
      .def("indices", indices, nb::arg("kept").noconvert(), nb::arg("out").noconvert(), nb::arg("threads") = 0)
      .def("forward_at", forward_at, nb::arg("x"), nb::arg("y"), nb::arg("kept") = 0, nb::arg("threads") = 0)
      .def("backward_at", backward_at, nb::arg("g"), nb::arg("gx"), nb::arg("kept") = 0, nb::arg("threads") = 0)
      .def("indices_at", indices_at, nb::arg("kept"), nb::arg("out"), nb::arg("threads") = 0);

  m.def("set_num_threads", set_threads, nb::arg("n"));
  m.def("get_num_threads", num_threads);
  m.def("instruction_set", [] { return std::string(chosen->name); });
  m.def("instruction_sets", instruction_sets);
  m.def("use_instruction_set", [](const std::string& name) { chosen = &kernels_named(name); }, nb::arg("name"));
}
