// The kernels of one instruction set that walk backward, from what was kept of each output.
#include "cells.h"
#include "indices.h"
#include "isa.h"
#include "lines_backward.h"
#include "planes_backward.h"
#include "planes_expanded.h"
#include "scatter.h"
#include "scatter_planes.h"
#include "scatter_whole.h"

namespace poolwise::POOLWISE_ISA {
namespace {

template <class B>
struct Cells;

template <class B, class Run>
void gathered(const Plan& plan, const Buffers& buffers, Run&& run) {
  if constexpr (PlanesExpanded<B>::wanted)
    if (PlanesExpanded<B>::serves(plan, buffers)) return run.template operator()<PlanesExpanded<B>>();
  if (PlanesBackward<B>::serves(plan, buffers)) return run.template operator()<PlanesBackward<B>>();
  if (LinesBackward<B>::serves(plan, buffers)) return run.template operator()<LinesBackward<B>>();
  run.template operator()<Cells<B>>();
}

constexpr Int windows_worth_turns = 20;  // a window for so many elements, or more windows

template <class T, class K, class Run>
void with_winner(const Plan& plan, const Buffers& buffers, Run&& run) {
  using B = ToWinner<T, K>;
  if (ScatterWhole<B>::serves(plan, buffers)) return run.template operator()<ScatterWhole<B>>();
  const bool in_turns = ScatterPlanes<B>::serves(plan, buffers);
  if (!(in_turns && plan.output_size > plan.input_size / windows_worth_turns) && Scatter<B>::is_sooner(plan, buffers)) return run.template operator()<Scatter<B>>();
  if constexpr (PlanesExpanded<B>::wanted)
    if (PlanesExpanded<B>::serves(plan, buffers)) return run.template operator()<PlanesExpanded<B>>();
  if (in_turns) return run.template operator()<ScatterPlanes<B>>();
  if (Scatter<B>::serves(plan, buffers)) return run.template operator()<Scatter<B>>();
  if constexpr (std::is_same_v<K, std::uint8_t>) return gathered<B>(plan, buffers, run);
  run.template operator()<Cells<ToWinner<T, AnyOffset, double>>>();
}

// Calls run.operator()<Engine>() with the engine that walks for a plan.
template <class Run>
void with_backward(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_floats(plan, [&]<class T>() {
    if (plan.selects() && plan.kept == Kept::bytes) return with_winner<T, std::uint8_t>(plan, buffers, run);
    if (plan.selects() && plan.kept == Kept::words) return with_winner<T, std::int32_t>(plan, buffers, run);
    if (plan.selects()) return run.template operator()<Cells<ToWinner<T, AnyOffset, double>>>();
    const bool shared = buffers.mask != nullptr && plan.body == Body::mean && plan.divisor == 0 && !plan.count_include_pad;
    if (shared) return run.template operator()<Cells<ToAll<T, double, double>>>();
    if (needs_double<T>(plan.readers - 1)) return gathered<ToAll<T, double>>(plan, buffers, run);
    gathered<ToAll<T, Number<T>>>(plan, buffers, run);
  });
}

// The general engine, as the others are called.
template <class B>
struct Cells {
  const Plan& plan;
  const Buffers& buffers;
  Cells(const Plan& p, const Buffers& b) : plan(p), buffers(b) {}
  void run(Int begin, Int end) { backward_cells<B>(plan, buffers, begin, end); }
  static Units units(const Plan& plan, const Buffers& buffers) {
    Walk<ReadersOfElement> walk;
    walk_input(walk, plan, buffers);
    return {walk.units()};
  }
};

template <class Engine>
Units units_of(const Plan& plan, const Buffers& buffers) {
  if constexpr (requires { Engine::units(plan, buffers); })
    return Engine::units(plan, buffers);
  else
    return Engine::units(plan);
}

// Calls run.operator()<T>() for float32 and float64.
template <class Run>
void with_long_floats(const Plan& plan, Run&& run) {
  plan.dtype == Dtype::float64 ? run.template operator()<double>() : run.template operator()<float>();
}

}  // namespace

Units gradient_units(const Plan& plan, const Buffers& buffers) {
  Units units{0};
  with_backward(plan, buffers, [&]<class Engine>() { units = units_of<Engine>(plan, buffers); });
  return units;
}

void gradient(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_backward(plan, buffers, [&]<class Engine>() {
    Engine engine(plan, buffers);
    engine.run(begin, end);
  });
}

Units divided_units(const Plan& plan, const Buffers&) { return Shares<float>::units(plan); }
void divided(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_long_floats(plan, [&]<class T>() { Shares<T>(plan, buffers).run(begin, end); });
}

void shares(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_floats(plan, [&]<class T>() { shares_cells<T>(plan, buffers, begin, end); });
}

Units indices_units(const Plan& plan, const Buffers& buffers) {
  return IndexRows::serves(plan) ? IndexRows::units(plan) : cells_units(plan, buffers, 1);
}
void indices(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (IndexRows::serves(plan)) return IndexRows(plan, buffers).run(begin, end);
  switch (plan.kept) {
    case Kept::bytes: return indices_cells<std::uint8_t>(plan, buffers, begin, end);
    case Kept::words: return indices_cells<std::int32_t>(plan, buffers, begin, end);
    default: return indices_cells<Int>(plan, buffers, begin, end);
  }
}

}  // namespace poolwise::POOLWISE_ISA
