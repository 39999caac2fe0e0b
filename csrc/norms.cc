#include "norms.h"

#include <atomic>
#include <cmath>

#include "cache.h"
#include "run.h"
#include "threads.h"

namespace poolwise {
namespace {

constexpr Int elements_per_piece = 1 << 15;
constexpr Int elements_worth_sharing = 1 << 15;

// Memory for so many numbers of a type.
class Numbers : Lent {
 public:
  Numbers(Int n, Dtype dtype) : Lent(static_cast<std::size_t>(n * itemsize_of(dtype))) {}
  void* all() const { return data(); }
  double* doubles() const { return static_cast<double*>(data()); }
};

const void* at(const void* array, Dtype dtype, Int i) { return static_cast<const char*>(array) + i * itemsize_of(dtype); }
void* at(void* array, Dtype dtype, Int i) { return static_cast<char*>(array) + i * itemsize_of(dtype); }

// Calls each(begin, end) for pieces of 0 … n - 1.
template <class Each>
void in_pieces(Int n, int threads, const Each& each) {
  if (n == 0) return;
  if (threads == 0) threads = num_threads();
  share(n, n < elements_worth_sharing ? n : elements_per_piece, threads,
        [](void* context, Int begin, Int end) { (*static_cast<const Each*>(context))(begin, end); }, const_cast<Each*>(&each));
}

struct Norms {
  const Plan& plan;
  const Buffers& buffers;
  const Passes& passes;
  const int threads;

  void pass(const Plan& by, const void* from, void* to, void (*runner)(const Plan&, const Buffers&, int)) const {
    Buffers these;
    these.from = from, these.to = to;
    these.mask = buffers.mask, these.mask_strides = buffers.mask_strides;
    runner(by, these, threads);
  }
  void copy(Dtype from_dtype, const void* from, Dtype to_dtype, void* to, Int n) const {
    in_pieces(n, threads, [&](Int begin, Int end) {
      passes.copied(from_dtype, at(from, from_dtype, begin), to_dtype, at(to, to_dtype, begin), end - begin);
    });
  }

  // In float32, of float64 in float64; false, with nothing of use written, where numbers leave the range in which that is exact.
  bool in_range() const {
    const Dtype dtype = plan.dtype, working = plan.through.norms->dtype;
    const bool same = dtype == working;
    const Numbers shares(plan.output_size, working), wide(same ? 0 : plan.input_size, working);
    if (!same) copy(dtype, buffers.kept, working, wide.all(), plan.input_size);
    pass(*plan.through.norms, same ? buffers.kept : wide.all(), shares.all(), run_forward);
    std::atomic<bool> all{true};
    in_pieces(plan.output_size, threads, [&](Int begin, Int end) {
      if (!passes.over_norms(dtype, at(buffers.from, dtype, begin), at(shares.all(), working, begin), end - begin)) all = false;
    });
    if (!all) return false;
    void* const sums = same ? buffers.to : wide.all();
    pass(*plan.through.sums, shares.all(), sums, run_backward);
    in_pieces(plan.input_size, threads, [&](Int begin, Int end) {
      passes.times_sums(dtype, at(buffers.kept, dtype, begin), at(sums, working, begin), at(buffers.to, dtype, begin), end - begin);
    });
    return true;
  }

  // In float64, windows with large and with small norms apart: of those with x times a power of two.
  void lifted() const {
    const Plan &norms = *plan.exact().norms, &sums = *plan.exact().sums;
    const Int inputs = plan.input_size, outputs = plan.output_size;
    const Numbers x(inputs, Dtype::float64), g(outputs, Dtype::float64), y(outputs, Dtype::float64), shares(outputs, Dtype::float64);
    const Numbers lifted(inputs, Dtype::float64), sent(inputs, Dtype::float64), gx(inputs, Dtype::float64), lifted_y(outputs, Dtype::float64);
    copy(plan.dtype, buffers.kept, Dtype::float64, x.all(), inputs);
    copy(plan.dtype, buffers.from, Dtype::float64, g.all(), outputs);
    pass(norms, x.all(), y.all(), run_forward);
    for (Int i = 0; i < inputs; ++i) gx.doubles()[i] = 0;
    for (const double lift : {1., least_lift, 1 / least_lift}) {
      const auto is_here = [&](double norm) { return lift == (norm > 0 && norm < 1 / large_norm ? least_lift : norm > large_norm ? 1 / least_lift : 1.); };
      bool any = false;
      for (Int i = 0; i < outputs; ++i) any = any || is_here(y.doubles()[i]);
      if (!any) continue;
      for (Int i = 0; i < inputs; ++i) {
        const double v = x.doubles()[i] * lift;
        lifted.doubles()[i] = lift > 1 && std::fabs(v) > least_lift ? 0 : v;  // which these windows do not read
      }
      pass(norms, lifted.all(), lifted_y.all(), run_forward);
      for (Int i = 0; i < outputs; ++i) {
        const double norm = lifted_y.doubles()[i];
        shares.doubles()[i] = is_here(y.doubles()[i]) && norm != 0 ? g.doubles()[i] / norm : 0;
      }
      pass(sums, shares.all(), sent.all(), run_backward);
      for (Int i = 0; i < inputs; ++i) gx.doubles()[i] += sent.doubles()[i] * lifted.doubles()[i];
    }
    for (Int i = 0; i < outputs; ++i) shares.doubles()[i] = 1;
    pass(sums, shares.all(), sent.all(), run_backward);
    for (Int i = 0; i < inputs; ++i) gx.doubles()[i] = sent.doubles()[i] == 0 ? 0 : gx.doubles()[i];  // which nobody reads
    copy(Dtype::float64, gx.all(), plan.dtype, buffers.to, inputs);
  }

 private:
  static constexpr double large_norm = 0x1p400, least_lift = 0x1p600;
};

}  // namespace

void run_norms_backward(const Plan& plan, const Buffers& buffers, const Passes& passes, int threads) {
  if (plan.output_size == 0) return;
  const Norms norms{plan, buffers, passes, threads};
  if (!norms.in_range()) norms.lifted();
}

}  // namespace poolwise
