// The kernels of one instruction set. Compiled once per set, with POOLWISE_ISA its namespace and name, POOLWISE_VECTOR_BYTES
// the width of its packs. Whatever is defined here lives in that namespace: nothing may be shared between sets.
#include "backward.h"
#include "forward.h"
#include "kernels.h"
#include "rows_backward.h"
#include "rows_forward.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// Sums of at most this many sequential additions stay within 3 ulp of the sum of magnitudes; longer ones go through double.
constexpr Int most_float_additions = 6;

Int additions(const Plan& plan) {
  Wide n = 0;
  for (const Axis& axis : plan.axes) n += axis.taps - 1;
  return n > most_float_additions ? most_float_additions + 1 : static_cast<Int>(n);
}

// Calls run.template operator()<B>() with the body that serves the plan; K is the type of the offsets where they are kept.
template <class T, class K, class Run>
void with_body(const Plan& plan, bool keeps, Run&& run) {
  const bool wide = additions(plan) > most_float_additions;
  switch (plan.body) {
    case Body::max:
      return keeps ? run.template operator()<Winner<Largest, T, K>>() : run.template operator()<Best<Largest, T>>();
    case Body::min:
      return keeps ? run.template operator()<Winner<Smallest, T, K>>() : run.template operator()<Best<Smallest, T>>();
    case Body::sum:
      return wide ? run.template operator()<Sum<T, double>>() : run.template operator()<Sum<T, T>>();
    case Body::mean:
      return wide ? run.template operator()<Mean<T, double>>() : run.template operator()<Mean<T, T>>();
  }
}

template <class Run>
void with_types(const Plan& plan, bool keeps, Run&& run) {
  const bool bytes = plan.kept == Kept::bytes;
  if (plan.dtype == Dtype::float32)
    return bytes ? with_body<float, std::uint8_t>(plan, keeps, run) : with_body<float, std::int32_t>(plan, keeps, run);
  return bytes ? with_body<double, std::uint8_t>(plan, keeps, run) : with_body<double, std::int32_t>(plan, keeps, run);
}

void forward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_types(plan, buffers.kept != nullptr, [&]<class B>() { forward_rows<B>(plan, buffers, begin, end); });
}

void backward(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  with_types(plan, buffers.kept != nullptr, [&]<class B>() {
    // The best element alone cannot send a gradient back; the module refuses that before it comes here.
    if constexpr (B::keeps || std::is_base_of_v<Sum<typename B::Element, typename B::Accumulator>, B>)
      backward_rows<B>(plan, buffers, begin, end);
  });
}

void indices(const Plan& plan, const Buffers& buffers, Int begin, Int end) {
  if (plan.kept == Kept::bytes)
    indices_rows<std::uint8_t>(plan, buffers, begin, end);
  else
    indices_rows<std::int32_t>(plan, buffers, begin, end);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels{POOLWISE_ISA_NAME, forward, backward, indices};

}  // namespace poolwise::POOLWISE_ISA
