// The kernels of one instruction set that add numbers in floating point.
#include "isa_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

template <class Run>
void with_sums(const Plan& plan, const Buffers& buffers, Run&& run) {
  with_floats(plan, [&]<class T>() {
    const bool wide = buffers.mask != nullptr || needs_double<T>(plan.additions);
    if constexpr (std::is_same_v<T, double>) {
      wide ? masked_or_not<LongTotal>(plan, buffers, run) : masked_or_not<Total<T, double>>(plan, buffers, run);
    } else if (wide) {
      masked_or_not<Total<T, double>>(plan, buffers, run);
    } else {
      lines_or_cells<Total<T, Number<T>>, std::uint8_t>(plan, buffers, run);
    }
  });
}

}  // namespace

Units add_units(const Plan& plan, const Buffers& buffers) {
  return units_of_forward(plan, buffers, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}
void add(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  walk_forward(plan, buffers, begin, end, [](const Plan& p, const Buffers& b, auto&& run) { with_sums(p, b, run); });
}

}  // namespace poolwise::POOLWISE_ISA
