// A plan that contradicts itself is refused, whatever number stands where; unpooling checks every index.
#include <limits>
#include <stdexcept>

#include "../plan.h"
#include "../unpool.h"
#include "check.h"

namespace poolwise {
namespace {

constexpr Int most = std::numeric_limits<Int>::max(), least = std::numeric_limits<Int>::lowest();

PlanFields good() {
  PlanFields fields;
  fields.body = "max", fields.dtype = "float32";
  fields.shape = {2, 9}, fields.axes = {1}, fields.order = {0, 1};
  AxisFields axis;
  axis.regular = {4, 0, 2, 1, 2, 0, 0, "absent"};
  fields.tables = {axis};
  return fields;
}

template <class Change>
void refused(const char* what, Change change) {
  PlanFields fields = good();
  change(fields);
  try {
    plan_of(fields);
    CHECK(false, "%s was accepted", what);
  } catch (const std::invalid_argument&) {
  }
}

// Every number of a table at the ends of 64 bits: refused, or a plan, but never undefined.
void extremes() {
  const Int values[] = {least, least + 1, -1, 0, 1, most / 2, most - 1, most};
  Int RegularFields::*const fields[] = {&RegularFields::output, &RegularFields::start, &RegularFields::step, &RegularFields::dilation,
                                        &RegularFields::taps,   &RegularFields::low,   &RegularFields::high};
  int plans = 0;
  for (const auto first : fields)
    for (const auto second : fields)
      for (const Int a : values)
        for (const Int b : values) {
          PlanFields tried = good();
          tried.tables[0].regular.*first = a;
          tried.tables[0].regular.*second = b;
          try {
            plan_of(tried);
            ++plans;
          } catch (const std::invalid_argument&) {
          }
        }
  CHECK(plans > 0, "none of them is a plan");
}

void spans(std::vector<Span> held, Int taps, bool right) {
  PlanFields fields = good();
  fields.tables[0].uneven = true;
  fields.tables[0].taps = taps;
  fields.tables[0].spans = std::move(held);
  try {
    plan_of(fields);
    CHECK(right, "spans were accepted");
  } catch (const std::invalid_argument& fault) {
    CHECK(!right, "%s", fault.what());
  }
}

void unpooling() {
  const float y[] = {1, 2, 3};
  for (const Int bad : {Int(4), Int(-1), least, most}) {
    const Int indices[] = {0, 3, bad};
    float out[] = {7, 7, 7, 7};
    CHECK(unpool_forward(unpool_of(4, 1, 3, 4, 1), y, indices, out, 1) == 2 && out[0] == 7, "an index of %lld", static_cast<long long>(bad));
  }
  const Int twice[] = {2, 0, 2};
  float out[4], back[3];
  const float g[] = {5, 6, 7, 8};
  CHECK(unpool_forward(unpool_of(4, 1, 3, 4, 1), y, twice, out, 1) == -1, "right indices");
  CHECK(out[0] == 2 && out[1] == 0 && out[2] == 3 && out[3] == 0, "the last has the word");
  CHECK(unpool_backward(unpool_of(4, 1, 3, 4, 1), g, twice, back, 1) == -1, "right indices");
  CHECK(back[0] == 0 && back[1] == 5 && back[2] == 7, "its gradient goes to the last");
}

}  // namespace
}  // namespace poolwise

int main() {
  using namespace poolwise;
  plan_of(good());
  refused("a body", [](PlanFields& f) { f.body = "lowest"; });
  refused("a dtype", [](PlanFields& f) { f.dtype = "complex64"; });
  refused("a mode", [](PlanFields& f) { f.tables[0].regular.mode = "wrap"; });
  refused("no shape", [](PlanFields& f) { f.shape.clear(); });
  refused("a negative size", [](PlanFields& f) { f.shape[0] = -1; });
  refused("a size of 2^62", [](PlanFields& f) { f.shape[0] = Int(1) << 62; });
  refused("an empty pooled axis", [](PlanFields& f) { f.shape[1] = 0; });
  refused("no axes", [](PlanFields& f) { f.axes.clear(); });
  refused("an axis outside", [](PlanFields& f) { f.axes[0] = 2; });
  refused("an axis below", [](PlanFields& f) { f.axes[0] = -1; });
  refused("a repeated axis", [](PlanFields& f) { f.axes.push_back(1), f.tables.push_back(f.tables[0]); });
  refused("a table too few", [](PlanFields& f) { f.tables.clear(); });
  refused("an order that repeats", [](PlanFields& f) { f.order = {0, 0}; });
  refused("an order too short", [](PlanFields& f) { f.order = {0}; });
  refused("a negative divisor", [](PlanFields& f) { f.divisor = -1; });
  refused("an infinite divisor", [](PlanFields& f) { f.divisor = std::numeric_limits<double>::infinity(); });
  refused("a mean of bools", [](PlanFields& f) { f.body = "mean", f.dtype = "bool"; });
  refused("a fraction of integers", [](PlanFields& f) { f.body = "mean", f.dtype = "int8", f.divisor = 2.5; });
  extremes();
  spans({{0, 2}, {3, 2}}, 2, true);
  spans({{0, 3}}, 2, false);
  spans({{8, 2}}, 2, false);
  spans({{-1, 2}}, 2, false);
  spans({{3, 1}, {2, 1}}, 2, false);
  spans({{most, 1}}, 2, false);
  spans({{1, most}}, most, false);
  spans({}, 2, false);
  unpooling();
  return verdict("plans");
}
