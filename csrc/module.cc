// The Python module poolwise._native: the only file that knows Python. It checks every array against the plan and hands the work
// to the kernels with the GIL released.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cache.h"
#include "run.h"
#include "threads.h"
#include "unpool.h"

namespace nb = nanobind;

namespace poolwise {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw nb::value_error(sentence.c_str()); }
[[noreturn]] void refuse_type(const std::string& sentence) { throw nb::type_error(sentence.c_str()); }

// ---- arrays ------------------------------------------------------------------------------------------------------------

// An array's memory, held through Python's buffer protocol: any strides in bytes, read-only memory too.
class Memory {
 public:
  Memory(nb::handle array, const std::string& name, bool writable) {
    if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) == 0) return;
    PyErr_Clear();
    if (!PyObject_CheckBuffer(array.ptr()))
      refuse_type(name + ": must be an array with Python's buffer protocol, got " + nb::inst_name(array).c_str());
    refuse(name + ": must be an array of plain numbers" + (writable ? " that can be written to" : "") + ", got another");
  }
  Memory(const Memory&) = delete;
  ~Memory() { PyBuffer_Release(&view_); }

  void* data() const { return view_.buf; }
  int ndim() const { return view_.ndim; }
  Int itemsize() const { return view_.itemsize; }
  Int size(int axis) const { return view_.shape[axis]; }
  Int stride(int axis) const { return view_.strides[axis]; }

  // What the elements are: '?' bool, 'i' signed, 'u' unsigned, 'f' floating, in the machine's byte order.
  char kind() const {
    const char* format = view_.format;
    if (*format == '@' || *format == '=' || *format == '<') ++format;
    if (*format == '?') return '?';
    if (format[0] == '\0' || format[1] != '\0') return 0;
    if (std::strchr("bhilq", *format) != nullptr) return 'i';
    if (std::strchr("BHILQ", *format) != nullptr) return 'u';
    return std::strchr("efd", *format) != nullptr ? 'f' : 0;
  }

 private:
  Py_buffer view_;
};

char kind_of(Dtype dtype) {
  if (dtype == Dtype::boolean) return '?';
  if (dtype == Dtype::bfloat16) return 'u';  // the buffer protocol has no name for it: its bits as uint16
  return dtype >= Dtype::float16 ? 'f' : dtype >= Dtype::uint8 ? 'u' : 'i';
}

std::string listed(const std::vector<Int>& sizes) {
  std::string text;
  for (const Int size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

void check_elements(const Memory& memory, const std::string& name, Dtype dtype) {
  if (memory.itemsize() == itemsize_of(dtype) && memory.kind() == kind_of(dtype)) return;
  const char* wanted = dtype == Dtype::bfloat16 ? "uint16 (the bits of bfloat16)" : name_of(dtype);
  refuse(name + ": must be " + wanted + ", got another dtype");
}

void check_shape(const Memory& memory, const std::string& name, const Plan& plan, Int Dim::*extent) {
  std::vector<Int> wanted(static_cast<std::size_t>(plan.ndim)), got;
  for (int d = 0; d < plan.ndim; ++d) wanted[static_cast<std::size_t>(plan.dims[d].number)] = plan.dims[d].*extent;
  for (int axis = 0; axis < memory.ndim(); ++axis) got.push_back(memory.size(axis));
  if (got != wanted) refuse(name + ": must have the shape " + listed(wanted) + ", got " + listed(got));
}

// Memory that is dense in the plan's order of axes.
void* dense(const Memory& memory, const std::string& name, Dtype dtype, const Plan& plan, Int Dim::*extent) {
  check_elements(memory, name, dtype);
  check_shape(memory, name, plan, extent);
  Int run = memory.itemsize();
  bool even = reinterpret_cast<std::uintptr_t>(memory.data()) % static_cast<std::uintptr_t>(run) == 0;
  for (int d = plan.ndim - 1; d >= 0; --d) {
    const int axis = plan.dims[d].number;
    if (memory.size(axis) == 0) return memory.data();
    even = even && (memory.size(axis) == 1 || memory.stride(axis) == run);
    run *= memory.size(axis);
  }
  if (!even) refuse(name + ": must be aligned and dense in the plan's order, got other strides");
  return memory.data();
}

Dtype kept_dtype(const Plan& plan) {
  return plan.kept == Kept::bytes ? Dtype::uint8 : plan.kept == Kept::words ? Dtype::int32 : Dtype::int64;
}

void* kept_memory(const Memory& memory, const Plan& plan) {
  if (plan.kept == Kept::none) refuse("kept: this plan keeps nothing (a sum, a mean), got an array");
  return dense(memory, "kept", kept_dtype(plan), plan, &Dim::output);
}

// Strides in bytes, one per dim of the plan, from those of the axes.
using Strides = std::vector<Int>;

Strides in_order(const Plan& plan, const std::vector<Int>& strides, const std::string& name) {
  if (static_cast<int>(strides.size()) != plan.ndim)
    refuse(name + ": must have " + std::to_string(plan.ndim) + " entries, got " + std::to_string(strides.size()));
  Strides ordered;
  for (int d = 0; d < plan.ndim; ++d) ordered.push_back(strides[static_cast<std::size_t>(plan.dims[d].number)]);
  return ordered;
}

Strides strides_of(const Memory& memory, const Plan& plan) {
  Strides ordered;
  for (int d = 0; d < plan.ndim; ++d) ordered.push_back(memory.stride(plan.dims[d].number));
  return ordered;
}

// The same for bare addresses, of which only so much can be known.
void* address_of(std::uintptr_t address, const std::string& name, Int elements, Int alignment) {
  if (address == 0 && elements > 0) refuse(name + ": the address must not be null, got 0");
  if (address % static_cast<std::uintptr_t>(alignment) != 0)
    refuse(name + ": the address must be a multiple of " + std::to_string(alignment) + ", got " + std::to_string(address));
  return reinterpret_cast<void*>(address);
}

void* kept_address(std::uintptr_t address, const Plan& plan) {
  if (address == 0) return nullptr;
  if (plan.kept == Kept::none) refuse("kept: this plan keeps nothing (a sum, a mean), got an address");
  return address_of(address, "kept", plan.output_size, kept_size(plan.kept));
}

// What a gradient needs: offsets, or the input.
void* needed_memory(const Memory& memory, const Plan& plan) {
  return plan.keeps_input() ? dense(memory, "kept", plan.dtype, plan, &Dim::input) : kept_memory(memory, plan);
}

void* needed_address(std::uintptr_t address, const Plan& plan) {
  if (!plan.keeps_input() || address == 0) return kept_address(address, plan);
  return address_of(address, "kept", plan.input_size, itemsize_of(plan.dtype));
}

// ---- entries -----------------------------------------------------------------------------------------------------------

using Runner = void (*)(const Plan&, const Buffers&, int);

void run(Runner runner, const Plan& plan, const Buffers& buffers, int threads) {
  const nb::gil_scoped_release release;
  runner(plan, buffers, threads);
}

// A mask over the input, if one is given.
struct Mask {
  std::optional<Memory> memory;
  Strides strides;

  Mask(nb::handle array, const Plan& plan) {
    if (array.is_none()) return;
    memory.emplace(array, "mask", false);
    check_elements(*memory, "mask", Dtype::boolean);
    check_shape(*memory, "mask", plan, &Dim::input);
    strides = strides_of(*memory, plan);
  }
  void into(Buffers& buffers) const {
    if (!memory) return;
    buffers.mask = static_cast<const std::uint8_t*>(memory->data());
    buffers.mask_strides = strides.data();
  }
};

// The second input of a plan that is paired, or its gradient, if it is given.
struct Beside {
  std::optional<Memory> memory;
  float* data = nullptr;

  Beside(nb::handle array, const std::string& name, const Plan& plan, bool writable) {
    if (array.is_none()) return;
    if (!plan.paired()) refuse(name + ": this operation has no second input, got an array");
    memory.emplace(array, name, writable);
    data = static_cast<float*>(dense(*memory, name, Dtype::float32, plan, &Dim::input));
  }
};

float* beside_address(std::uintptr_t address, const std::string& name, const Plan& plan) {
  if (address == 0) return nullptr;
  if (!plan.paired()) refuse(name + ": this operation has no second input, got an address");
  return static_cast<float*>(address_of(address, name, plan.input_size, sizeof(float)));
}

void forward(const Plan& plan, nb::handle x, nb::handle y, nb::handle kept, nb::handle mask, nb::handle beside, int threads) {
  const Memory from(x, "x", false), to(y, "y", true);
  const Mask present(mask, plan);
  const Beside second(beside, "beside", plan, false);
  std::optional<Memory> offsets;
  if (!kept.is_none()) offsets.emplace(kept, "kept", true);
  check_elements(from, "x", plan.dtype);
  check_shape(from, "x", plan, &Dim::input);
  const Strides strides = strides_of(from, plan);
  Buffers buffers;
  buffers.from = from.data();
  buffers.from_strides = strides.data();
  buffers.to = dense(to, "y", result_dtype(plan), plan, &Dim::output);
  buffers.kept = offsets ? kept_memory(*offsets, plan) : nullptr;
  buffers.beside = second.data;
  present.into(buffers);
  run(run_forward, plan, buffers, threads);
}

void backward(const Plan& plan, nb::handle g, nb::handle gx, nb::handle kept, nb::handle mask, nb::handle beside, nb::handle to_beside,
              int threads) {
  const Memory from(g, "g", false), to(gx, "gx", true);
  const Mask present(mask, plan);
  const Beside second(beside, "beside", plan, false), to_second(to_beside, "to_beside", plan, true);
  std::optional<Memory> offsets;
  if (!kept.is_none()) offsets.emplace(kept, "kept", false);
  Buffers buffers;
  buffers.from = dense(from, "g", plan.dtype, plan, &Dim::output);
  buffers.to = dense(to, "gx", plan.dtype, plan, &Dim::input);
  buffers.kept = offsets ? needed_memory(*offsets, plan) : nullptr;
  buffers.beside = second.data, buffers.to_beside = to_second.data;
  present.into(buffers);
  run(run_backward, plan, buffers, threads);
}

void indices(const Plan& plan, nb::handle kept, nb::handle out, int threads) {
  const Memory from(kept, "kept", false), to(out, "out", true);
  Buffers buffers;
  buffers.from = kept_memory(from, plan);
  buffers.to = dense(to, "out", Dtype::int64, plan, &Dim::output);
  run(run_indices, plan, buffers, threads);
}

using OptionalStrides = std::optional<std::vector<Int>>;

void forward_at(const Plan& plan, std::uintptr_t x, std::uintptr_t y, std::uintptr_t kept, std::uintptr_t mask,
                const OptionalStrides& x_strides, const OptionalStrides& mask_strides, int threads, std::uintptr_t beside) {
  Strides from, present;
  Buffers buffers;
  buffers.from = address_of(x, "x", plan.input_size, 1);
  buffers.to = address_of(y, "y", plan.output_size, itemsize_of(result_dtype(plan)));
  buffers.kept = kept_address(kept, plan);
  buffers.beside = beside_address(beside, "beside", plan);
  if (x_strides) buffers.from_strides = (from = in_order(plan, *x_strides, "x_strides")).data();
  if (mask != 0) {
    if (!mask_strides) refuse("mask_strides: must be given with a mask, got none");
    buffers.mask = reinterpret_cast<const std::uint8_t*>(mask);
    buffers.mask_strides = (present = in_order(plan, *mask_strides, "mask_strides")).data();
  }
  run(run_forward, plan, buffers, threads);
}

void backward_at(const Plan& plan, std::uintptr_t g, std::uintptr_t gx, std::uintptr_t kept, std::uintptr_t mask,
                 const OptionalStrides& mask_strides, int threads, std::uintptr_t beside, std::uintptr_t to_beside) {
  Strides present;
  Buffers buffers;
  buffers.from = address_of(g, "g", plan.output_size, itemsize_of(plan.dtype));
  buffers.to = address_of(gx, "gx", plan.input_size, itemsize_of(plan.dtype));
  buffers.kept = needed_address(kept, plan);
  buffers.beside = beside_address(beside, "beside", plan), buffers.to_beside = beside_address(to_beside, "to_beside", plan);
  if (mask != 0) {
    if (!mask_strides) refuse("mask_strides: must be given with a mask, got none");
    buffers.mask = reinterpret_cast<const std::uint8_t*>(mask);
    buffers.mask_strides = (present = in_order(plan, *mask_strides, "mask_strides")).data();
  }
  run(run_backward, plan, buffers, threads);
}

void indices_at(const Plan& plan, std::uintptr_t kept, std::uintptr_t out, int threads) {
  Buffers buffers;
  buffers.from = kept_address(kept, plan);
  buffers.to = address_of(out, "out", plan.output_size, sizeof(Int));
  if (buffers.from == nullptr && plan.output_size > 0) refuse("kept: the address must not be null, got 0");
  run(run_indices, plan, buffers, threads);
}

// ---- plans -------------------------------------------------------------------------------------------------------------

// (output, start, step, dilation, taps, low, high, mode), or (taps, spans) with int64 spans of shape (planes, output, 2).
AxisFields axis_fields(nb::handle table) {
  if (!nb::isinstance<nb::tuple>(table)) refuse_type("Plan: each of tables must be a tuple");
  const nb::tuple entries = nb::borrow<nb::tuple>(table);
  AxisFields fields;
  if (entries.size() == 8) {
    Int numbers[7];
    for (std::size_t i = 0; i < 7; ++i) numbers[i] = nb::cast<Int>(entries[i]);
    fields.regular = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6],
                      nb::cast<std::string>(entries[7])};
    return fields;
  }
  if (entries.size() != 2) refuse_type("Plan: each of tables must have 8 entries or 2, got " + std::to_string(entries.size()));
  fields.uneven = true;
  fields.taps = nb::cast<Int>(entries[0]);
  const Memory spans(entries[1], "spans", false);
  check_elements(spans, "spans", Dtype::int64);
  if (spans.ndim() != 3 || spans.size(2) != 2) refuse("spans: must have the shape (planes, output, 2), got another");
  fields.planes = spans.size(0);
  for (Int plane = 0; plane < spans.size(0); ++plane)
    for (Int cell = 0; cell < spans.size(1); ++cell) {
      Span span;
      const char* at = static_cast<const char*>(spans.data()) + plane * spans.stride(0) + cell * spans.stride(1);
      std::memcpy(&span.first, at, sizeof span.first);
      std::memcpy(&span.count, at + spans.stride(2), sizeof span.count);
      fields.spans.push_back(span);
    }
  return fields;
}

void make_plan(Plan* self, std::string body, std::string dtype, std::vector<Int> shape, std::vector<Int> axes, nb::list tables,
               std::vector<Int> order, bool count_include_pad, double divisor, bool truncate, double parameter,
               double least, std::vector<std::vector<double>> weights) {
  PlanFields fields{std::move(body), std::move(dtype), std::move(shape), std::move(axes), {}, std::move(order),
                    count_include_pad, divisor, truncate, parameter, least, std::move(weights)};
  for (const nb::handle table : tables) {
    try {
      fields.tables.push_back(axis_fields(table));
    } catch (const nb::cast_error&) {
      refuse_type("Plan: tables must hold integers of 64 bits and a mode");
    }
  }
  new (self) Plan(plan_of(fields));
}

// ---- unpooling ---------------------------------------------------------------------------------------------------------

// Memory in C order, of that many bytes.
void* whole(const Memory& memory, const std::string& name, Int itemsize, Int elements) {
  Int held = 1, run = itemsize;
  bool even = memory.itemsize() == itemsize && reinterpret_cast<std::uintptr_t>(memory.data()) % static_cast<std::uintptr_t>(itemsize) == 0;
  for (int axis = memory.ndim() - 1; axis >= 0; --axis) {
    even = even && (memory.size(axis) <= 1 || elements == 0 || memory.stride(axis) == run);
    held *= memory.size(axis), run *= memory.size(axis);
  }
  if (!even || held != elements)
    refuse(name + ": must hold " + std::to_string(elements) + " aligned elements of " + std::to_string(itemsize) +
           " bytes in C order, got others");
  return memory.data();
}

using Unpooler = Int (*)(const Unpool&, const void*, const Int*, void*, int);

template <Unpooler unpooler, Int Unpool::*read, Int Unpool::*written>
Int unpool(Int itemsize, Int outer, Int inputs, Int outputs, Int inner, nb::handle from, nb::handle indices, nb::handle to,
           int threads) {
  const Unpool sizes = unpool_of(itemsize, outer, inputs, outputs, inner);
  if (threads < 0) refuse("threads: must be at least 0 (0: the module's count), got " + std::to_string(threads));
  const Memory source(from, "from", false), places(indices, "indices", false), target(to, "to", true);
  check_elements(places, "indices", Dtype::int64);
  const void* read_from = whole(source, "from", itemsize, outer * (sizes.*read) * inner);
  const void* at = whole(places, "indices", sizeof(Int), outer * inputs * inner);
  void* write_to = whole(target, "to", itemsize, outer * (sizes.*written) * inner);
  const nb::gil_scoped_release release;
  return unpooler(sizes, read_from, static_cast<const Int*>(at), write_to, threads);
}

// ---- memory for outputs ------------------------------------------------------------------------------------------------

struct Buffer {
  Lent lent;
  Py_ssize_t bytes;
};

void make_buffer(Buffer* self, Py_ssize_t size) {
  if (size < 0) refuse("Buffer: size must be at least 0, got " + std::to_string(size));
  new (self) Buffer{Lent(static_cast<std::size_t>(size)), size};
}

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  if (!nb::inst_ready(self)) {
    view->obj = nullptr;
    PyErr_SetString(PyExc_BufferError, "Buffer: __init__ was not called");
    return -1;
  }
  const Buffer* buffer = nb::inst_ptr<Buffer>(self);
  return PyBuffer_FillInfo(view, self, buffer->lent.data(), buffer->bytes, 0, flags);
}

PyType_Slot buffer_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)}, {0, nullptr}};

void set_threads(int n) {
  if (n < 1) refuse("set_num_threads: n must be at least 1, got " + std::to_string(n));
  set_num_threads(n);
}

}  // namespace
}  // namespace poolwise

NB_MODULE(_native, m) {
  using namespace poolwise;
  if (instruction_set().empty()) throw nb::import_error("poolwise was not built for this processor: x86-64-v2 at least, or what POOLWISE_SETS=native found where it was built");
  nb::set_leak_warnings(false);  // plans that Python's caches hold at exit are no leak
  m.doc() = "Pooling kernels. Arrays come through the buffer protocol, or as addresses (`_at`) with strides in bytes.";

  nb::class_<Plan>(m, "Plan")
      .def("__init__", make_plan, nb::arg("body"), nb::arg("dtype"), nb::arg("shape"), nb::arg("axes"), nb::arg("tables"),
           nb::arg("order"), nb::arg("count_include_pad") = false, nb::arg("divisor") = 0.0, nb::arg("truncate") = false,
           nb::arg("parameter") = 1.0, nb::arg("least") = 0.0, nb::arg("weights") = std::vector<std::vector<double>>())
      .def_prop_ro("kept_dtype", [](const Plan& plan) { return kept_name(plan.kept); })
      .def_prop_ro("result_dtype", [](const Plan& plan) { return name_of(result_dtype(plan)); })
      .def_prop_ro("paired", [](const Plan& plan) { return plan.paired(); })
      .def_prop_ro("keeps_input", [](const Plan& plan) { return plan.keeps_input(); })
      .def_prop_ro("has_gradient", [](const Plan& plan) { return plan.has_gradient(); })
      .def_ro("input_size", &Plan::input_size)
      .def_ro("output_size", &Plan::output_size)
      .def("forward", forward, nb::arg("x"), nb::arg("y"), nb::arg("kept") = nb::none(), nb::arg("mask") = nb::none(),
           nb::arg("beside") = nb::none(), nb::arg("threads") = 0)
      .def("backward", backward, nb::arg("g"), nb::arg("gx"), nb::arg("kept") = nb::none(), nb::arg("mask") = nb::none(),
           nb::arg("beside") = nb::none(), nb::arg("to_beside") = nb::none(), nb::arg("threads") = 0)
      .def("indices", indices, nb::arg("kept"), nb::arg("out"), nb::arg("threads") = 0)
      .def("forward_at", forward_at, nb::arg("x"), nb::arg("y"), nb::arg("kept") = 0, nb::arg("mask") = 0,
           nb::arg("x_strides") = nb::none(), nb::arg("mask_strides") = nb::none(), nb::arg("threads") = 0, nb::arg("beside") = 0)
      .def("backward_at", backward_at, nb::arg("g"), nb::arg("gx"), nb::arg("kept") = 0, nb::arg("mask") = 0,
           nb::arg("mask_strides") = nb::none(), nb::arg("threads") = 0, nb::arg("beside") = 0, nb::arg("to_beside") = 0)
      .def("indices_at", indices_at, nb::arg("kept"), nb::arg("out"), nb::arg("threads") = 0);

  const auto def_unpool = [&m](const char* name, auto function) {
    m.def(name, function, nb::arg("itemsize"), nb::arg("outer"), nb::arg("inputs"), nb::arg("outputs"), nb::arg("inner"),
          nb::arg("from_"), nb::arg("indices"), nb::arg("to"), nb::arg("threads") = 0);
  };
  def_unpool("unpool", unpool<unpool_forward, &Unpool::inputs, &Unpool::outputs>);
  def_unpool("unpool_backward", unpool<unpool_backward, &Unpool::outputs, &Unpool::inputs>);

  nb::class_<Buffer>(m, "Buffer", nb::type_slots(buffer_slots)).def("__init__", make_buffer, nb::arg("size"));

  m.def("bodies", body_names);
  m.def("whole_bodies", whole_body_names);
  m.def("set_num_threads", set_threads, nb::arg("n"));
  m.def("get_num_threads", num_threads);
  m.def("instruction_set", instruction_set);
  m.def("instruction_sets", instruction_sets);
  m.def("use_instruction_set", use_instruction_set, nb::arg("name"));
  m.def("use_row_order", use_row_order, nb::arg("name"));
}
