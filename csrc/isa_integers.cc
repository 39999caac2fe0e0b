// The kernels of one instruction set that add integers.
#include "isa_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// Whether no sum over a window of integers T is rounded in A, nor a quotient to a tie that it is not.
template <class T, class A>
bool exact_in(const Plan& plan) {
  constexpr double most = static_cast<double>(std::numeric_limits<T>::max()) + 1, counts_to = sizeof(A) == 4 ? 0x1p23 : 0x1p52;
  return most * (static_cast<double>(plan.additions) + 1) < counts_to && plan.divisor < counts_to;
}

template <class T, class Run>
void with_sum(const Plan& plan, const Buffers& buffers, Run&& run) {
  using Sum = Total<std::conditional_t<sizeof(T) == 8, std::uint64_t, T>, std::int64_t, std::int64_t>;  // 64 bits wrap, signed or not
  if (plan.body == Body::sum) {
    if constexpr (sizeof(T) > 2) {
      return masked_or_not<Sum>(plan, buffers, run);
    } else {
      if (buffers.mask != nullptr) return run.template operator()<Sum, AnyOffset, Engine::masked>();
      using Short = Total<T, std::int32_t, std::int64_t>;
      if (plan.additions < (1 << 15) - 1 && LinesForward<Short, std::uint8_t>::serves(plan, buffers))
        return run.template operator()<Short, std::uint8_t, Engine::lines>();
      return run.template operator()<Sum, std::uint8_t, Engine::cells>();
    }
  }
  if constexpr (!std::is_same_v<T, Truth>) {
    if constexpr (sizeof(T) == 1) {
      using Mean = ByteMean<T>;
      if (plan.additions < Mean::most_taps && plan.divisor == 0 && LinesForward<Mean, std::uint8_t>::serves(plan, buffers))
        return run.template operator()<Mean, std::uint8_t, Engine::lines>();
    }
    if constexpr (sizeof(T) < 8) {
      using A = std::conditional_t<sizeof(T) == 1, float, double>;
      using Fast = LinesForward<Total<T, A>, std::uint8_t>;
      if (exact_in<T, A>(plan) && Fast::serves(plan, buffers)) return run.template operator()<Total<T, A>, std::uint8_t, Engine::lines>();
    }
    using Mean = Total<T, std::conditional_t<sizeof(T) == 8, Wide, std::int64_t>>;
    buffers.mask != nullptr ? run.template operator()<Mean, AnyOffset, Engine::masked>() : run.template operator()<Mean, AnyOffset, Engine::cells>();
  }
}

template <class Run>
void with_sums(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_integers(plan, [&]<class T>() { with_sum<T>(plan, buffers, run); });
}

}  // namespace

Units integers_units(const Plan& plan, const Buffers& buffers) {
  return units_of_forward(plan, buffers, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}
void add_integers(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  walk_forward(plan, buffers, begin, end, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}

}  // namespace poolwise::POOLWISE_ISA
