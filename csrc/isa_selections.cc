// The kernels of one instruction set that pick elements.
#include "isa_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// The numbers that a selection from elements T compares: the fastest, those with room beside them for 255 places, and for all.
template <class T>
using Numbers = std::conditional_t<std::is_floating_point_v<T>, Floating<T>, std::conditional_t<floats<T>, Keys<T>, Whole<T>>>;
template <class T>
using RoomyNumbers = std::conditional_t<sizeof(T) == 1, Whole<T, std::int16_t>, Numbers<T>>;
template <class T>
using RareNumbers = std::conditional_t<floats<T>, Floating<T, double>, Whole<T, std::int64_t>>;

template <class T, class Run>
void with_selection(const Plan& plan, const Buffers& buffers, Run&& run) {
  using Rare = Placed<RareNumbers<T>>;
  if (buffers.mask != nullptr) return run.template operator()<Rare, AnyOffset, Engine::masked>();
  if (buffers.kept == nullptr) return lines_or_cells<Extreme<Numbers<T>>, std::uint8_t>(plan, buffers, run);
  using Largest = Extreme<Numbers<T>>;
  using Roomy = Placed<RoomyNumbers<T>>;
  using Picked = PlanesPicked<Roomy, std::uint8_t>;
  using InRows = Rows<Roomy, std::uint8_t>;
  const bool bytes = plan.kept == Kept::bytes, whole_rows = places_rows<Largest>(plan, buffers);
  if (whole_rows && plan.additions >= larger(full<float>, full<typename Roomy::Accumulator>)) return run.template operator()<Largest, AnyOffset, Engine::placed>();
  if constexpr (Picked::wanted)
    if (bytes && Picked::serves(plan, buffers)) return run.template operator()<Roomy, std::uint8_t, Engine::picked>();
  if (whole_rows) return run.template operator()<Largest, AnyOffset, Engine::placed>();
  if (places_lines<Largest>(plan, buffers)) return run.template operator()<Largest, AnyOffset, Engine::placed_lines>();
  if constexpr (InRows::wanted)
    if (bytes && InRows::serves(plan, buffers)) return run.template operator()<Roomy, std::uint8_t, Engine::rows>();
  if (bytes && LinesForward<Roomy, std::uint8_t>::serves(plan, buffers)) return run.template operator()<Roomy, std::uint8_t, Engine::lines>();
  if constexpr (floats<T>) {
    using Words = LinesForward<Placed<Floating<T>>, std::int32_t>;
    if (plan.kept == Kept::words && plan.additions < (1 << 28) && Words::serves(plan, buffers))
      return run.template operator()<Placed<Floating<T>>, std::int32_t, Engine::lines>();
  }
  run.template operator()<Rare, AnyOffset, Engine::cells>();
}

template <class Run>
void with_selections(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_ordered(plan, [&]<class T>() { with_selection<T>(plan, buffers, run); });
}

}  // namespace

Units select_units(const Plan& plan, const Buffers& buffers) {
  return units_of_forward(plan, buffers, [](const Plan& p, const Buffers& b, auto&& run) { with_selections(p, b, run); });
}
void select(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  walk_forward(plan, buffers, begin, end, [](const Plan& p, const Buffers& b, auto&& run) { with_selections(p, b, run); });
}

}  // namespace poolwise::POOLWISE_ISA
