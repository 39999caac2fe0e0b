#include "norms.h"

#include <atomic>
#include <cmath>
#include <optional>

#include "cache.h"
#include "run.h"
#include "threads.h"

namespace poolwise {
namespace {

constexpr Int elements_per_piece = 1 << 15;

const void* at(const void* array, Dtype dtype, Int i) { return static_cast<const char*>(array) + i * itemsize_of(dtype); }
void* at(void* array, Dtype dtype, Int i) { return static_cast<char*>(array) + i * itemsize_of(dtype); }

// Memory for so many numbers of a type.
class Numbers {
 public:
  Numbers(Int n, Dtype dtype) : lent_(static_cast<std::size_t>(n * itemsize_of(dtype))) {}
  void* all() const { return lent_.data(); }
  double* doubles() const { return static_cast<double*>(lent_.data()); }

 private:
  Lent lent_;
};

// One gradient. In float32, or float64 where memory holds that; again in float64 where numbers leave the range in which that is exact.
class Norms {
 public:
  Norms(const Plan& plan, const Buffers& buffers, const Passes& passes, int threads)
      : plan_(plan), buffers_(buffers), passes_(passes), threads_(threads == 0 ? num_threads() : threads) {}

  void run() const {
    if (!in_range()) lifted();
  }

 private:
  // Norms of float64 beyond which, or one over which, numbers over them may leave float64; and what they are multiplied by first.
  static constexpr double large_norm = 0x1p400, lift_of_small = 0x1p600;

  // Calls each(begin, end) for pieces of 0 … n - 1.
  template <class Each>
  void in_pieces(Int n, Each each) const {
    share(n, elements_per_piece, threads_, [](void* context, Int begin, Int end) { (*static_cast<Each*>(context))(begin, end); }, &each);
  }
  // Calls each(i) for 0 … n - 1.
  template <class Each>
  void for_each(Int n, Each each) const {
    in_pieces(n, [&](Int begin, Int end) {
      for (Int i = begin; i < end; ++i) each(i);
    });
  }

  void pass(const Plan& by, const void* from, void* to, void (*runner)(const Plan&, const Buffers&, int)) const {
    Buffers these;
    these.from = from, these.to = to;
    these.mask = buffers_.mask, these.mask_strides = buffers_.mask_strides;
    runner(by, these, threads_);
  }
  void copy(Dtype from_dtype, const void* from, Dtype to_dtype, void* to, Int n) const {
    in_pieces(n, [&](Int begin, Int end) {
      passes_.copied(from_dtype, at(from, from_dtype, begin), to_dtype, at(to, to_dtype, begin), end - begin);
    });
  }
  // The array as numbers of a type: itself, or a copy in `room`.
  const void* as(Dtype dtype, const void* array, Int n, std::optional<Numbers>& room) const {
    if (plan_.dtype == dtype) return array;
    room.emplace(n, dtype);
    copy(plan_.dtype, array, dtype, room->all(), n);
    return room->all();
  }

  // False, with nothing of use written, where numbers leave the range.
  bool in_range() const {
    const Dtype dtype = plan_.dtype, working = plan_.through.norms->dtype;
    const Numbers shares(plan_.output_size, working);
    std::optional<Numbers> wide;
    pass(*plan_.through.norms, as(working, buffers_.kept, plan_.input_size, wide), shares.all(), run_forward);
    std::atomic<bool> all{true};
    in_pieces(plan_.output_size, [&](Int begin, Int end) {
      if (!passes_.over_norms(dtype, at(buffers_.from, dtype, begin), at(shares.all(), working, begin), end - begin)) all = false;
    });
    if (!all) return false;
    void* const sums = wide ? wide->all() : buffers_.to;
    pass(*plan_.through.sums, shares.all(), sums, run_backward);
    in_pieces(plan_.input_size, [&](Int begin, Int end) {
      passes_.times_sums(dtype, at(buffers_.kept, dtype, begin), at(sums, working, begin), at(buffers_.to, dtype, begin), end - begin);
    });
    return true;
  }

  // In float64, windows with large and with small norms apart: of those with x times a power of two.
  void lifted() const {
    const Plan &norms = *plan_.exact().norms, &sums = *plan_.exact().sums;
    const Int inputs = plan_.input_size, outputs = plan_.output_size;
    std::optional<Numbers> room_of_x, room_of_g, room_of_gx, lifted_x, lifted_y;
    const auto* const x = static_cast<const double*>(as(Dtype::float64, buffers_.kept, inputs, room_of_x));
    const auto* const g = static_cast<const double*>(as(Dtype::float64, buffers_.from, outputs, room_of_g));
    const Numbers norms_of_x(outputs, Dtype::float64), shares(outputs, Dtype::float64), sums_of_shares(inputs, Dtype::float64);
    if (plan_.dtype != Dtype::float64) room_of_gx.emplace(inputs, Dtype::float64);
    double *const y = norms_of_x.doubles(), *const share = shares.doubles(), *const sum = sums_of_shares.doubles();
    double* const gx = room_of_gx ? room_of_gx->doubles() : static_cast<double*>(buffers_.to);
    pass(norms, x, y, run_forward);
    for_each(inputs, [&](Int i) { gx[i] = 0; });
    for (const double lift : {1., lift_of_small, 1 / lift_of_small}) {
      const auto is_here = [&](double norm) { return lift == (norm > 0 && norm < 1 / large_norm ? lift_of_small : norm > large_norm ? 1 / lift_of_small : 1.); };
      std::atomic<bool> any{false};
      for_each(outputs, [&](Int i) {
        if (is_here(y[i])) any = true;
      });
      if (!any) continue;
      const double* norm = y;
      if (lift != 1) {
        if (!lifted_x) lifted_x.emplace(inputs, Dtype::float64), lifted_y.emplace(outputs, Dtype::float64);
        for_each(inputs, [&](Int i) {
          const double v = x[i] * lift;
          lifted_x->doubles()[i] = lift > 1 && std::fabs(v) > lift_of_small ? 0 : v;  // which these windows do not read
        });
        pass(norms, lifted_x->all(), lifted_y->all(), run_forward);
        norm = lifted_y->doubles();
      }
      for_each(outputs, [&](Int i) { share[i] = is_here(y[i]) && norm[i] != 0 ? g[i] / norm[i] : 0; });
      pass(sums, share, sum, run_backward);
      for_each(inputs, [&](Int i) {  // small numbers beside large ones vanish where they are lifted
        gx[i] += lift < 1 && std::fabs(x[i]) < 1 ? x[i] * (sum[i] * lift) : (lift == 1 ? x[i] : lifted_x->doubles()[i]) * sum[i];
      });
    }
    for_each(outputs, [&](Int i) { share[i] = 1; });
    pass(sums, share, sum, run_backward);
    for_each(inputs, [&](Int i) { gx[i] = sum[i] == 0 ? 0 : gx[i]; });  // which nobody reads
    if (room_of_gx) copy(Dtype::float64, gx, plan_.dtype, buffers_.to, inputs);
  }

  const Plan& plan_;
  const Buffers& buffers_;
  const Passes& passes_;
  const int threads_;
};

}  // namespace

void run_norms_backward(const Plan& plan, const Buffers& buffers, const Passes& passes, int threads) {
  if (plan.output_size > 0) Norms(plan, buffers, passes, threads).run();
}

}  // namespace poolwise
