// What the kernels that walk forward for a reduction share: which engine serves, how it is asked and run.
//
// with(plan, buffers, run) calls run.operator()<Reduction, Offset, Engine>() with what is to walk for a plan.
#pragma once

#include "cells.h"
#include "isa.h"
#include "lines_forward.h"
#include "planes_forward.h"
#include "planes_picked.h"
#include "rows_added.h"
#include "rows_folded.h"
#include "rows_placed.h"
#include "rows_selected.h"

namespace poolwise::POOLWISE_ISA {

// What serves a reduction where rows fit a few packs.
template <class R, class K>
using RowsForward = std::conditional_t<R::idempotent, RowsSelected<R, K>, RowsAdded<R, K>>;

enum class Engine { folded, placed, placed_lines, picked, rows, lines, planes, cells, masked };

template <class R, class K, class Run>
void lines_or_cells(const Plan& plan, const Buffers& buffers, Run&& run) {
  if constexpr (RowsFolded<R>::wanted)
    if (RowsFolded<R>::serves(plan, buffers)) return run.template operator()<R, K, Engine::folded>();
  if constexpr (PlanesPicked<R, K>::wanted)
    if (PlanesPicked<R, K>::serves(plan, buffers)) return run.template operator()<R, K, Engine::picked>();
  if constexpr (Rows<R, K>::wanted)
    if (Rows<R, K>::serves(plan, buffers)) return run.template operator()<R, K, Engine::rows>();
  if constexpr (PlanesForward<R>::wanted)
    if (PlanesForward<R>::serves(plan, buffers)) return run.template operator()<R, K, Engine::planes>();
  if (LinesForward<R, K>::serves(plan, buffers)) return run.template operator()<R, K, Engine::lines>();
  run.template operator()<R, K, Engine::cells>();
}

template <class R, class Run>
void masked_or_not(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (buffers.mask != nullptr) return run.template operator()<R, AnyOffset, Engine::masked>();
  lines_or_cells<R, std::uint8_t>(plan, buffers, run);
}

template <class With>
Units units_of_forward(const Plan& plan, const Buffers& buffers, With&& with) {
  Units units{0};
  with(plan, buffers, [&]<class R, class K, Engine E>() {
    if constexpr (E == Engine::folded)
      units = RowsFolded<R>::units(plan);
    else if constexpr (E == Engine::placed)
      units = RowsPlaced<R, RowsFolded<R>>::units(plan);
    else if constexpr (E == Engine::placed_lines)
      units = RowsPlaced<R, LinesForward<R, std::uint8_t>>::units(plan);
    else if constexpr (E == Engine::picked)
      units = PlanesPicked<R, K>::units(plan);
    else if constexpr (E == Engine::lines)
      units = LinesForward<R, K>::units(plan);
    else if constexpr (E == Engine::rows)
      units = Rows<R, K>::units(plan);
    else if constexpr (E == Engine::planes)
      units = PlanesForward<R>::units(plan);
    else
      units = cells_units(plan, buffers, sizeof(typename R::Element));
  });
  return units;
}

template <class With>
void walk_forward(const Plan& plan, const Buffers& buffers, Int begin, Int end, With&& with) {
  with(plan, buffers, [&]<class R, class K, Engine E>() {
    if constexpr (E == Engine::folded)
      RowsFolded<R>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::placed)
      RowsPlaced<R, RowsFolded<R>>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::placed_lines)
      RowsPlaced<R, LinesForward<R, std::uint8_t>>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::picked)
      PlanesPicked<R, K>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::lines)
      LinesForward<R, K>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::rows)
      RowsForward<R, K>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::planes)
      PlanesForward<R>(plan, buffers).run(begin, end);
    else if constexpr (E == Engine::masked)
      forward_masked<R>(plan, buffers, begin, end);
    else
      forward_cells<R>(plan, buffers, begin, end);
  });
}

}  // namespace poolwise::POOLWISE_ISA
