#include "run.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "cache.h"
#include "norms.h"
#include "threads.h"

namespace poolwise {
namespace {

constexpr Int bytes_per_piece = 1 << 18;      // enough work that handing it out costs nothing
constexpr Int bytes_worth_sharing = 1 << 18;  // below this, waking a thread costs more than it saves
constexpr Int bytes_worth_advice = 4 << 20;
constexpr Int bytes_worth_order = 8 << 20;    // of what is read; less may lie in a cache (benchmarks/factors.md, 70)
constexpr Int readers_worth_mirroring = 25;
constexpr Int most_divided_lanes = 1 << 20;

std::atomic<const Kernels*> chosen{best_kernels()};

enum class RowOrder { automatic, together, in_order };
std::atomic<RowOrder> row_order{RowOrder::automatic};

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

int threads_for(int asked) {
  if (asked < 0) refuse("threads: must be at least 0 (0: the module's count), got " + std::to_string(asked));
  return asked == 0 ? num_threads() : asked;
}

struct Job {
  const Plan& plan;
  Buffers buffers;
  RangeKernel kernel;
};

bool reads_in_order(const Plan& plan) {
  static const bool liked = likes_order();
  const RowOrder order = row_order.load();
  return order == RowOrder::in_order || (order == RowOrder::automatic && liked && plan.input_size * itemsize_of(plan.dtype) >= bytes_worth_order);
}

// What the call costs, in bytes: that it moves, or where windows are large and overlap, a byte for each tap.
Int cost_of(const Plan& plan) {
  const Wide moved = Wide(plan.input_size + plan.output_size) * itemsize_of(plan.dtype);
  const Wide taps = Wide(plan.output_size) * (plan.additions + 1);
  return static_cast<Int>(std::min<Wide>(std::max(moved, taps), INT64_MAX));
}

void run(const Plan& plan, const Buffers& buffers, const Family& family, int threads) {
  if (plan.output_size == 0) return;
  const int most = threads_for(threads);
  const auto [units, grain] = family.units(plan, buffers);
  const Int cost = cost_of(plan), even = (units + most - 1) / most, per_unit = std::max<Int>(cost / units, 1);
  const Int piece = std::min(even, std::max(grain, bytes_per_piece / per_unit));
  Job job{plan, buffers, family.run};
  job.buffers.rows_in_order = reads_in_order(plan);
  share(units, cost < bytes_worth_sharing ? units : piece, most,
        [](void* context, Int begin, Int end) {
          const Job& todo = *static_cast<Job*>(context);
          todo.kernel(todo.plan, todo.buffers, begin, end);
        },
        &job);
}

void advise(void* to, Int elements, Dtype dtype) {
  const Int bytes = elements * itemsize_of(dtype);
  if (bytes >= bytes_worth_advice) advise_huge_pages(to, static_cast<std::size_t>(bytes));
}

// The gradient of a mean whose windows divide by different numbers, as the sum of its shares over the mirrored windows.
void run_mirrored(const Plan& plan, const Buffers& buffers, int threads) {
  const Lent shares(static_cast<std::size_t>(plan.output_size * itemsize_of(plan.dtype)));
  Buffers first = buffers, second = buffers;
  first.to = shares.data();
  second.from = shares.data();
  run(plan, first, chosen.load()->divided, threads);
  advise(buffers.to, plan.input_size, plan.dtype);
  run(*plan.mirror, second, chosen.load()->forward, threads);
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) names.push_back(kernels->name);
  return names;
}

std::string instruction_set() { return chosen.load() == nullptr ? "" : chosen.load()->name; }

void use_instruction_set(const std::string& name) {
  std::string here;
  for (const Kernels* kernels : usable_kernels()) {
    if (name == kernels->name) {
      chosen = kernels;
      return;
    }
    here += (here.empty() ? "" : ", ") + std::string(kernels->name);
  }
  refuse("use_instruction_set: this machine runs " + here + ", got '" + name + "'");
}

void use_row_order(const std::string& name) {
  if (name == "auto")
    row_order = RowOrder::automatic;
  else if (name == "together")
    row_order = RowOrder::together;
  else if (name == "in order")
    row_order = RowOrder::in_order;
  else
    refuse("use_row_order: must be 'auto', 'together' or 'in order', got '" + name + "'");
}

// Whether the input lies as densely as the output.
bool is_dense(const Plan& plan, const Int* strides) {
  if (strides == nullptr || plan.input_size == 0) return true;
  Int run = itemsize_of(plan.dtype);
  for (int d = plan.ndim - 1; d >= 0; --d) {
    if (plan.dims[d].input != 1 && strides[d] != run) return false;
    run *= plan.dims[d].input;
  }
  return true;
}

void run_forward(const Plan& plan, const Buffers& buffers, int threads) {
  if (plan.whole() && buffers.mask != nullptr) refuse("forward: mask must be none for this operation");
  if (plan.whole() && !is_dense(plan, buffers.from_strides)) refuse("forward: x must be dense in the plan's order for this operation");
  if (plan.paired() && buffers.beside == nullptr && plan.input_size > 0) refuse("forward: beside must be given for this operation, got none");
  advise(buffers.to, plan.output_size, result_dtype(plan));
  run(plan, buffers, chosen.load()->forward, threads);
  if (plan.body == Body::norm && plan.dtype == Dtype::float64) run(plan, buffers, chosen.load()->again, threads);
}

void run_backward(const Plan& plan, const Buffers& buffers, int threads) {
  if (plan.dtype < Dtype::float16) refuse("backward: integers have no gradient, got " + std::string(name_of(plan.dtype)));
  if (plan.body >= Body::norm && !plan.has_gradient()) refuse("backward: there is no gradient of this operation on such windows");
  if (plan.sends && buffers.mask != nullptr) refuse("backward: mask must be none for this operation");
  if (plan.keeps_input() && buffers.kept == nullptr && plan.input_size > 0) refuse("backward: kept must be the input for this operation, got none");
  if (plan.paired() && (buffers.beside == nullptr || buffers.to_beside == nullptr) && plan.input_size > 0)
    refuse("backward: beside and to_beside must be given for this operation, got none");
  if (plan.selects() && buffers.kept == nullptr && plan.output_size > 0)
    refuse("backward: kept must be given for a selection, got none");
  if (plan.through.norms != nullptr) return run_norms_backward(plan, buffers, chosen.load()->passes, threads);
  if (plan.mirror != nullptr && buffers.mask == nullptr) {
    if (plan.shared_divisor > 0) return run_forward(*plan.mirror, buffers, threads);
    const bool divides = plan.block.there && plan.block.axes[2].output * plan.block.inner <= most_divided_lanes && itemsize_of(plan.dtype) >= 4;
    if (divides && plan.readers >= readers_worth_mirroring) return run_mirrored(plan, buffers, threads);
  }
  advise(buffers.to, plan.input_size, plan.dtype);
  if (plan.paired()) advise(buffers.to_beside, plan.input_size, Dtype::float32);
  if (buffers.mask == nullptr || plan.body != Body::mean || plan.divisor > 0 || plan.count_include_pad)
    return run(plan, buffers, chosen.load()->backward, threads);
  const Lent shares(static_cast<std::size_t>(plan.output_size) * sizeof(double));
  Buffers first = buffers, second = buffers;
  first.to = shares.data();
  second.from = shares.data();
  run(plan, first, chosen.load()->shares, threads);
  run(plan, second, chosen.load()->backward, threads);
}

void run_indices(const Plan& plan, const Buffers& buffers, int threads) {
  if (plan.kept == Kept::none) refuse("indices: this plan keeps nothing");
  advise(buffers.to, plan.output_size, Dtype::int64);
  run(plan, buffers, chosen.load()->indices, threads);
}

}  // namespace poolwise
