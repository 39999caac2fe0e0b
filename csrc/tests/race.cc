// Many threads at once on shared plans, while others change the thread count and the instruction set. For ThreadSanitizer.
#include <atomic>
#include <thread>
#include <vector>

#include "../run.h"
#include "../threads.h"
#include "check.h"

namespace poolwise {
namespace {

constexpr Int planes = 96, size = 40, cells = 20;

Plan plan(const char* body) {
  PlanFields fields;
  fields.body = body, fields.dtype = "float32";
  fields.shape = {planes, size, size}, fields.axes = {1, 2}, fields.order = {0, 1, 2};
  AxisFields axis;
  axis.regular = {cells, -1, 2, 1, 3, 1, 1, "absent"};
  fields.tables = {axis, axis};
  return plan_of(fields);
}

struct Results {
  std::vector<float> y = std::vector<float>(planes * cells * cells), gx = std::vector<float>(planes * size * size);
  std::vector<std::uint8_t> kept = std::vector<std::uint8_t>(planes * cells * cells);
};

Results both_ways(const Plan& plan, const std::vector<float>& x, int threads) {
  Results r;
  Buffers buffers;
  buffers.from = x.data(), buffers.to = r.y.data();
  buffers.kept = plan.kept == Kept::none ? nullptr : r.kept.data();
  run_forward(plan, buffers, threads);
  buffers.from = r.y.data(), buffers.to = r.gx.data();
  run_backward(plan, buffers, threads);
  return r;
}

}  // namespace
}  // namespace poolwise

int main() {
  using namespace poolwise;
  const Plan max = plan("max"), mean = plan("mean");
  std::vector<float> x(planes * size * size);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 1013);
  const Results wanted[] = {both_ways(max, x, 1), both_ways(mean, x, 1)};
  std::atomic<int> wrong{0}, busy{6};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller)
    callers.emplace_back([&, caller] {
      for (int turn = 0; turn < 30; ++turn) {
        const int which = (caller + turn) % 2;
        const Results got = both_ways(which == 0 ? max : mean, x, turn % 4);
        if (got.y != wanted[which].y || got.gx != wanted[which].gx || got.kept != wanted[which].kept) ++wrong;
      }
      --busy;
    });
  const std::vector<std::string> sets = instruction_sets();
  for (int turn = 0; busy > 0; ++turn) {
    set_num_threads(1 + turn % 7);
    use_instruction_set(sets[static_cast<std::size_t>(turn) % sets.size()]);
    std::this_thread::yield();
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0, "%d results differ", wrong.load());
  return verdict("threads");
}
