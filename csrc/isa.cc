// The kernels of one instruction set, but for those of whole windows.
#include "cells.h"
#include "isa.h"
#include "lines_backward.h"
#include "lines_forward.h"
#include "planes_backward.h"
#include "planes_forward.h"
#include "scatter.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// ---- forward -----------------------------------------------------------------------------------------------------------

// The numbers that a selection from elements T compares: the fastest, those with room beside them for 255 places, and for all.
template <class T>
using Numbers = std::conditional_t<std::is_floating_point_v<T>, Floating<T>, std::conditional_t<floats<T>, Keys<T>, Whole<T>>>;
template <class T>
using RoomyNumbers = std::conditional_t<sizeof(T) == 1, Whole<T, std::int16_t>, Numbers<T>>;
template <class T>
using RareNumbers = std::conditional_t<floats<T>, Floating<T, double>, Whole<T, std::int64_t>>;

// The body of any plan, and which engine is to walk for it.
enum class Engine { lines, planes, cells, masked };

template <class R, class K, class Run>
void lines_or_cells(const Plan& plan, const Buffers& buffers, Run&& run) {
  if constexpr (PlanesForward<R, K>::wanted)
    if (PlanesForward<R, K>::serves(plan, buffers)) return run.template operator()<R, K, Engine::planes>();
  if (LinesForward<R, K>::serves(plan, buffers)) return run.template operator()<R, K, Engine::lines>();
  run.template operator()<R, K, Engine::cells>();
}

template <class T, class Run>
void with_selection(const Plan& plan, const Buffers& buffers, Run&& run) {
  using Rare = Placed<RareNumbers<T>>;
  if (buffers.mask != nullptr) return run.template operator()<Rare, AnyOffset, Engine::masked>();
  if (buffers.kept == nullptr) return lines_or_cells<Extreme<Numbers<T>>, std::uint8_t>(plan, buffers, run);
  if (plan.kept == Kept::bytes) {
    using Bytes = LinesForward<Placed<RoomyNumbers<T>>, std::uint8_t>;
    using Planes = PlanesForward<Placed<RoomyNumbers<T>>, std::uint8_t>;
    if constexpr (Planes::wanted)
      if (Planes::serves(plan, buffers)) return run.template operator()<Placed<RoomyNumbers<T>>, std::uint8_t, Engine::planes>();
    if (Bytes::serves(plan, buffers)) return run.template operator()<Placed<RoomyNumbers<T>>, std::uint8_t, Engine::lines>();
  }
  if constexpr (std::is_floating_point_v<T>) {
    using Words = LinesForward<Placed<Floating<T>>, std::int32_t>;
    if (plan.kept == Kept::words && plan.additions < (1 << 28) && Words::serves(plan, buffers))
      return run.template operator()<Placed<Floating<T>>, std::int32_t, Engine::lines>();
  }
  run.template operator()<Rare, AnyOffset, Engine::cells>();
}

// Whether no sum over a window of integers T is rounded in A, nor a quotient to a tie that it is not.
template <class T, class A>
bool exact_in(const Plan& plan) {
  constexpr double most = static_cast<double>(std::numeric_limits<T>::max()) + 1, counts_to = sizeof(A) == 4 ? 0x1p23 : 0x1p52;
  return most * (static_cast<double>(plan.additions) + 1) < counts_to && plan.divisor < counts_to;
}

template <class T, class Run>
void with_whole_sum(const Plan& plan, const Buffers& buffers, Run&& run) {
  using Sum = Total<T, std::int64_t, std::int64_t>;
  if constexpr (sizeof(T) <= 2) {
    using Short = Total<T, std::int32_t, std::int64_t>;
    if (plan.body == Body::sum && plan.additions < (1 << 15) - 1 && LinesForward<Short, std::uint8_t>::serves(plan, buffers))
      return run.template operator()<Short, std::uint8_t, Engine::lines>();
    if (plan.body == Body::sum && buffers.mask == nullptr) return run.template operator()<Sum, std::uint8_t, Engine::cells>();
  }
  if (plan.body == Body::sum)
    return buffers.mask != nullptr ? run.template operator()<Sum, AnyOffset, Engine::masked>() : lines_or_cells<Sum, std::uint8_t>(plan, buffers, run);
  if constexpr (!std::is_same_v<T, Truth>) {
    if constexpr (sizeof(T) < 8) {
      using A = std::conditional_t<sizeof(T) == 1, float, double>;
      using Fast = LinesForward<Total<T, A>, std::uint8_t>;
      if (exact_in<T, A>(plan) && Fast::serves(plan, buffers)) return run.template operator()<Total<T, A>, std::uint8_t, Engine::lines>();
    }
    using Mean = Total<T, std::conditional_t<sizeof(T) == 8, Wide, std::int64_t>>;
    buffers.mask != nullptr ? run.template operator()<Mean, AnyOffset, Engine::masked>() : run.template operator()<Mean, AnyOffset, Engine::cells>();
  }
}

template <class R, class Run>
void with_floating_sum(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (buffers.mask != nullptr) return run.template operator()<R, AnyOffset, Engine::masked>();
  lines_or_cells<R, std::uint8_t>(plan, buffers, run);
}

template <class Run>
void with_norm(const Plan& plan, const Buffers& buffers, Run&& run) {
  switch (plan.dtype) {
    case Dtype::float16: return with_floating_sum<Norm<Half>>(plan, buffers, run);
    case Dtype::bfloat16: return with_floating_sum<Norm<Brain>>(plan, buffers, run);
    default: return with_floating_sum<Norm<float>>(plan, buffers, run);  // the plan refuses every other
  }
}

// Whether the engine of lines adds the weights: few enough additions follow one another.
bool blurs_in_lines(const Plan& plan, const Buffers& buffers) {
  const Axis* const axes = plan.block.axes;
  if (plan.body != Body::blur) return false;
  if (plan.dtype == Dtype::float32 && needs_double<float>(axes[0].taps * axes[1].taps + axes[2].taps / balanced_taps + 1)) return false;
  bool serves = false;
  with_floats(plan, [&]<class T>() { serves = LinesForward<Blurred<T>, std::uint8_t>::serves(plan, buffers); });
  return serves;
}

template <class Run>
void with_forward(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (plan.body == Body::blur) return with_floats(plan, [&]<class T>() { run.template operator()<Blurred<T>, std::uint8_t, Engine::lines>(); });
  if (plan.selects()) return with_ordered(plan, [&]<class T>() { with_selection<T>(plan, buffers, run); });
  if (plan.body == Body::norm) return with_norm(plan, buffers, run);
  with_elements(plan, [&]<class T>() {
    const bool wide = buffers.mask != nullptr || needs_double<T>(plan.additions);
    if constexpr (!floats<T>) {
      with_whole_sum<T>(plan, buffers, run);
    } else if constexpr (std::is_same_v<T, double>) {
      wide ? with_floating_sum<LongTotal>(plan, buffers, run) : with_floating_sum<Total<T, double>>(plan, buffers, run);
    } else if (wide) {
      with_floating_sum<Total<T, double>>(plan, buffers, run);
    } else {
      lines_or_cells<Total<T, Number<T>>, std::uint8_t>(plan, buffers, run);
    }
  });
}

Units cells_units(const Plan& plan, const Buffers& buffers, Int itemsize) {
  Walk<TapsOfCell> walk;
  walk_output(walk, plan, buffers, itemsize);
  return {walk.units()};
}

Units forward_units(const Plan& plan, const Buffers& buffers) {
  if (plan.whole() && !blurs_in_lines(plan, buffers)) return windows_units(plan);
  Units units{0};
  with_forward(plan, buffers, [&]<class R, class K, Engine E>() {
    if constexpr (E == Engine::lines)
      units = LinesForward<R, K>::units(plan);
    else if constexpr (E == Engine::planes)
      units = PlanesForward<R, K>::units(plan);
    else
      units = cells_units(plan, buffers, sizeof(typename R::Element));
  });
  return units;
}

void forward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (plan.whole() && !blurs_in_lines(plan, buffers)) return windows_forward(plan, buffers, begin, end);
  with_forward(plan, buffers, [&]<class R, class K, Engine E>() {
    if constexpr (E == Engine::lines) {
      LinesForward<R, K> engine(plan, buffers);
      engine.run(begin, end);
    } else if constexpr (E == Engine::planes) {
      PlanesForward<R, K>(plan, buffers).run(begin, end);
    } else if constexpr (E == Engine::masked) {
      forward_masked<R>(plan, buffers, begin, end);
    } else {
      forward_cells<R>(plan, buffers, begin, end);
    }
  });
}

// ---- backward ----------------------------------------------------------------------------------------------------------

template <class B>
struct Cells;

template <class B, class Run>
void gathered(const Plan& plan, const Buffers& buffers, Run&& run) {
  if (PlanesBackward<B>::serves(plan, buffers)) return run.template operator()<PlanesBackward<B>>();
  if (LinesBackward<B>::serves(plan, buffers)) return run.template operator()<LinesBackward<B>>();
  run.template operator()<Cells<B>>();
}

template <class T, class K, class Run>
void with_winner(const Plan& plan, const Buffers& buffers, Run&& run) {
  using B = ToWinner<T, K>;
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

Units backward_units(const Plan& plan, const Buffers& buffers) {
  if (plan.sends) return windows_backward_units(plan);
  Units units{0};
  with_backward(plan, buffers, [&]<class Engine>() { units = units_of<Engine>(plan, buffers); });
  return units;
}

void backward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (plan.sends) return windows_backward(plan, buffers, begin, end);
  with_backward(plan, buffers, [&]<class Engine>() {
    Engine engine(plan, buffers);
    engine.run(begin, end);
  });
}

// Calls run.operator()<T>() for float32 and float64.
template <class Run>
void with_long_floats(const Plan& plan, Run&& run) {
  plan.dtype == Dtype::float64 ? run.template operator()<double>() : run.template operator()<float>();
}
Units divided_units(const Plan& plan, const Buffers&) { return Shares<float>::units(plan); }
void divided(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_long_floats(plan, [&]<class T>() { Shares<T>(plan, buffers).run(begin, end); });
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

Units output_units(const Plan& plan, const Buffers& buffers) { return cells_units(plan, buffers, 1); }

}  // namespace

extern const Kernels kernels;
const Kernels kernels{POOLWISE_ISA_NAME,
                      {forward_units, forward},
                      {backward_units, backward},
                      {divided_units, divided},
                      {output_units, shares},
                      {output_units, indices}};

}  // namespace poolwise::POOLWISE_ISA
