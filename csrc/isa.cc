// The kernels of one instruction set. Compiled once per set, with POOLWISE_ISA its namespace and name, POOLWISE_VECTOR_BYTES
// the width of its packs. Whatever is defined here lives in that namespace: nothing may be shared between sets.
#include "cells.h"
#include "kernels.h"
#include "rows_backward.h"
#include "rows_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// ---- which body serves a plan ------------------------------------------------------------------------------------------

template <class T>
inline constexpr bool floats = std::is_floating_point_v<Number<T>>;
template <class T>
inline constexpr bool is_signed = std::numeric_limits<Number<T>>::is_signed;

// The accumulators beside an element's own number: four bytes at least, eight bytes, and what a sum of integers becomes.
template <class T>
using Four = std::conditional_t<(sizeof(Number<T>) < 4), std::int32_t, Number<T>>;
template <class T>
using Eight = std::conditional_t<floats<T>, double,
                                 std::conditional_t<is_signed<T> || (sizeof(T) < 8), std::int64_t, std::uint64_t>>;
template <class T>
using Total = std::conditional_t<is_signed<T>, std::int64_t, std::uint64_t>;

// A sequential sum of n additions in float errs by at most n / 2 ulp of the sum of magnitudes, in half precision's ulp by far less.
template <class T>
bool needs_double(Int additions) {
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
void with_elements(const Plan& plan, Run&& run) {
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
    default: return with_floats(plan, run);
  }
}

// Calls run.operator()<Order>() with the order of a selection.
template <class Run>
void with_order(const Plan& plan, Run&& run) {
  switch (plan.body) {
    case Body::max: return run.template operator()<Largest>();
    case Body::min: return run.template operator()<Smallest>();
    default: return run.template operator()<LargestAboveZero>();
  }
}

// ---- forward -----------------------------------------------------------------------------------------------------------

// Calls run.operator()<B>() with the body of a mean or sum of T; `wide` asks for the accumulator that no window is too long for.
template <class T, class Run>
void with_sum(const Plan& plan, bool wide, Run&& run) {
  const bool divides = plan.body == Body::mean;
  if constexpr (!floats<T>) {
    if (!divides) return run.template operator()<Sum<T, std::uint64_t, Total<T>>>();
    if constexpr (!std::is_same_v<T, Truth>)
      return run.template operator()<WholeMean<T, std::conditional_t<sizeof(T) == 8, Wide, std::int64_t>>>();
  } else if (wide || sizeof(T) == 8) {
    return divides ? run.template operator()<Mean<T, double>>() : run.template operator()<Sum<T, double>>();
  } else {
    return divides ? run.template operator()<Mean<T, Number<T>>>() : run.template operator()<Sum<T, Number<T>>>();
  }
}

// The engine of rows is compiled for floating elements in the accumulator that their common windows need.
template <class B>
inline constexpr bool has_rows = floats<typename B::Element> && (sizeof(typename B::Element) > 2 || sizeof(typename B::Accumulator) == 4);

// The same with the body of any plan, and which engine is to walk for it.
enum class Engine { rows, cells, masked };

template <class B, class Run>
void rows_or_cells(const Plan& plan, const Buffers& buffers, Run&& run) {
  if constexpr (has_rows<B>)
    if (RowsForward<B>::serves(plan, buffers)) return run.template operator()<B, Engine::rows>();
  run.template operator()<B, Engine::cells>();
}

template <class Order, class T, class Run>
void with_selection(const Plan& plan, const Buffers& buffers, Run&& run) {
  // Zero is no element, so eight bits would not hold every offset beside `nobody`.
  using A = std::conditional_t<Order::least_wins, Number<T>, Four<T>>;
  using Rare = Winner<Order, T, AnyOffset, Eight<T>>;
  if (buffers.mask != nullptr) return run.template operator()<Rare, Engine::masked>();
  if (buffers.kept == nullptr) return rows_or_cells<Best<Order, T>>(plan, buffers, run);
  if (plan.kept == Kept::bytes) return rows_or_cells<Winner<Order, T, std::uint8_t, A>>(plan, buffers, run);
  if constexpr (floats<T> && sizeof(T) >= 4) {
    using Words = Winner<Order, T, std::int32_t>;
    if (plan.kept == Kept::words && RowsForward<Words>::serves(plan, buffers)) return run.template operator()<Words, Engine::rows>();
  }
  return run.template operator()<Rare, Engine::cells>();
}

template <class B, class Run>
void cells_or_masked(const Buffers& buffers, Run&& run) {
  if (buffers.mask != nullptr) return run.template operator()<B, Engine::masked>();
  run.template operator()<B, Engine::cells>();
}

template <class Run>
void with_forward(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_elements(plan, [&]<class T>() {
    if (plan.selects()) return with_order(plan, [&]<class Order>() { with_selection<Order, T>(plan, buffers, run); });
    const bool wide = buffers.mask != nullptr || needs_double<T>(plan.additions);
    if constexpr (std::is_same_v<T, double>)
      if (wide) return plan.body == Body::mean ? cells_or_masked<LongMean<T>>(buffers, run) : cells_or_masked<LongSum<T>>(buffers, run);
    with_sum<T>(plan, wide, [&]<class B>() {
      if (buffers.mask != nullptr) {
        if constexpr (!floats<T> || (std::is_same_v<typename B::Accumulator, double> && !std::is_same_v<T, double>))
          return run.template operator()<B, Engine::masked>();
      }
      rows_or_cells<B>(plan, buffers, run);
    });
  });
}

Int cells_units(const Plan& plan, const Buffers& buffers, Int itemsize) {
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, itemsize);
  return walk.units();
}

Int forward_units(const Plan& plan, const Buffers& buffers) {
  Int units = 0;
  with_forward(plan, buffers, [&]<class B, Engine E>() {
    units = E == Engine::rows ? plan.block.output_rows() : cells_units(plan, buffers, sizeof(typename B::Element));
  });
  return units;
}

void forward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_forward(plan, buffers, [&]<class B, Engine E>() {
    if constexpr (E == Engine::rows) {
      RowsForward<B> engine(plan, buffers);
      engine.run(begin, end);
    } else if constexpr (E == Engine::masked) {
      forward_masked<B>(plan, buffers, begin, end);
    } else {
      forward_cells<B>(plan, buffers, begin, end);
    }
  });
}

// ---- backward ----------------------------------------------------------------------------------------------------------

template <class B, class Run>
void rows_or_cells_back(const Plan& plan, const Buffers& buffers, Run&& run) {
  if constexpr (has_rows<B>)
    if (RowsBackward<B>::serves(plan, buffers)) return run.template operator()<B, Engine::rows>();
  run.template operator()<B, Engine::cells>();
}

template <class Run>
void with_backward(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_floats(plan, [&]<class T>() {
    if (plan.selects()) {
      // Where the winner's gradient goes does not depend on the order that chose it.
      if (plan.kept == Kept::bytes) return rows_or_cells_back<Winner<Largest, T, std::uint8_t>>(plan, buffers, run);
      if constexpr (sizeof(T) >= 4) {
        using Words = Winner<Largest, T, std::int32_t>;
        if (plan.kept == Kept::words && RowsBackward<Words>::serves(plan, buffers))
          return run.template operator()<Words, Engine::rows>();
      }
      return run.template operator()<Winner<Largest, T, AnyOffset, double>, Engine::cells>();
    }
    const bool shared = buffers.mask != nullptr && plan.body == Body::mean && plan.divisor == 0 && !plan.count_include_pad;
    if (shared) return run.template operator()<Shared<T>, Engine::cells>();
    with_sum<T>(plan, needs_double<T>(plan.readers - 1), [&]<class B>() { rows_or_cells_back<B>(plan, buffers, run); });
  });
}

Int backward_units(const Plan& plan, const Buffers& buffers) {
  Int units = 0;
  with_backward(plan, buffers, [&]<class B, Engine E>() {
    if constexpr (E == Engine::rows) {
      units = plan.block.input_rows();
    } else {
      Walk<ReadersOfElement> walk;
      walk_input(walk, plan, buffers);
      units = walk.units();
    }
  });
  return units;
}

void backward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_backward(plan, buffers, [&]<class B, Engine E>() {
    if constexpr (E == Engine::rows) {
      RowsBackward<B> engine(plan, buffers);
      engine.run(begin, end);
    } else {
      backward_cells<B>(plan, buffers, begin, end);
    }
  });
}

void shares(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_floats(plan, [&]<class T>() { shares_cells<T>(plan, buffers, begin, end); });
}

void indices(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  switch (plan.kept) {
    case Kept::bytes: return indices_cells<std::uint8_t>(plan, buffers, begin, end);
    case Kept::words: return indices_cells<std::int32_t>(plan, buffers, begin, end);
    default: return indices_cells<Int>(plan, buffers, begin, end);
  }
}

Int output_units(const Plan& plan, const Buffers& buffers) { return cells_units(plan, buffers, 1); }

}  // namespace

extern const Kernels kernels;
const Kernels kernels{POOLWISE_ISA_NAME,
                      {forward_units, forward},
                      {backward_units, backward},
                      {output_units, shares},
                      {output_units, indices}};

}  // namespace poolwise::POOLWISE_ISA
