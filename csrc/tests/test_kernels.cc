// Every body, geometry, dtype, instruction set, mask and stride against the loop, between forbidden pages.
#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>

#include "../run.h"
#include "check.h"
#include "loop.h"

namespace poolwise {
namespace {

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"touching windows", 5, {13}, {{6, 0, 2, 1, 2, 0, 0, "absent"}}, 1},
      {"2/2", 3, {14, 31}, {{7, 0, 2, 1, 2, 0, 0, "absent"}, {15, 0, 2, 1, 2, 0, 0, "absent"}}, 1},
      {"2/2, one long row", 1, {2, 301}, {{1, 0, 2, 1, 2, 0, 0, "absent"}, {150, 0, 2, 1, 2, 0, 0, "absent"}}, 1},
      {"3/2, padded", 2, {11, 37}, {{6, -1, 2, 1, 3, 1, 1, "absent"}, {19, -1, 2, 1, 3, 1, 1, "absent"}}, 1},
      {"3/1, padded", 2, {13, 53}, {{13, -1, 1, 1, 3, 1, 1, "absent"}, {53, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
      {"3/4, gaps", 1, {9, 90}, {{2, 0, 4, 1, 3, 0, 0, "absent"}, {22, 1, 4, 1, 3, 0, 0, "absent"}}, 1},
      {"5/1, padded", 1, {7, 11}, {{7, -2, 1, 1, 5, 2, 2, "absent"}, {11, -2, 1, 1, 5, 2, 2, "absent"}}, 1},
      {"17 x 19", 1, {23, 23}, {{7, 0, 1, 1, 17, 0, 0, "absent"}, {5, 0, 1, 1, 19, 0, 0, "absent"}}, 1},
      {"dilated", 1, {13, 41}, {{4, -2, 2, 3, 4, 2, 2, "absent"}, {18, -2, 2, 3, 4, 2, 2, "absent"}}, 1},
      {"empty windows", 2, {3, 19}, {{6, -4, 2, 1, 2, 4, 4, "absent"}, {20, -8, 2, 1, 2, 3, 3, "absent"}}, 1},
      {"channels 3", 2, {7, 11}, {{3, 0, 2, 1, 2, 0, 0, "absent"}, {5, 0, 2, 1, 2, 0, 0, "absent"}}, 3},
      {"channels 17", 1, {7, 5}, {{7, -1, 1, 1, 3, 1, 1, "absent"}, {5, -1, 1, 1, 3, 1, 1, "absent"}}, 17},
      {"channels 83", 1, {5}, {{3, -1, 2, 1, 3, 1, 1, "absent"}}, 83},
      {"global", 2, {7, 29}, {{1, 0, 7, 1, 7, 0, 0, "absent"}, {1, 0, 29, 1, 29, 0, 0, "absent"}}, 1},
      {"circular and reflected", 2, {7, 9}, {{7, -2, 1, 1, 5, 2, 2, "circular"}, {6, -3, 2, 1, 4, 3, 3, "reflect"}}, 3},
      {"replicated", 1, {5, 23}, {{5, -1, 1, 1, 3, 1, 1, "replicate"}, {12, -2, 2, 2, 3, 2, 2, "replicate"}}, 1},
      {"folded", 1, {8, 9}, {{1, 0, 8, 1, 8, 0, 0, "absent"}, {1, 0, 9, 1, 9, 0, 0, "absent"}}, 1},
      {"folded, 10 x 10", 2, {10, 10}, {{1, 0, 10, 1, 10, 0, 0, "absent"}, {1, 0, 10, 1, 10, 0, 0, "absent"}}, 1},
      {"folded, channels 3", 1, {5, 5}, {{1, 0, 5, 1, 5, 0, 0, "absent"}, {1, 0, 5, 1, 5, 0, 0, "absent"}}, 3},
      {"folded, channels 8", 1, {3, 3}, {{1, 0, 3, 1, 3, 0, 0, "absent"}, {1, 0, 3, 1, 3, 0, 0, "absent"}}, 8},
      {"3-D", 1, {5, 6, 17}, {{3, -1, 2, 1, 3, 1, 1, "absent"}, {3, 0, 2, 1, 2, 0, 0, "absent"}, {9, -1, 2, 1, 3, 1, 1, "absent"}}, 1},
      {"4-D", 1, {3, 4, 3, 5}, {{2, 0, 1, 1, 2, 0, 0, "absent"}, {2, 0, 2, 1, 2, 0, 0, "absent"}, {3, -1, 1, 1, 3, 1, 1, "absent"}, {2, 0, 2, 1, 3, 0, 0, "absent"}}, 2},
      {"sliding and doubling", 1, {23, 29}, {{15, 0, 1, 1, 9, 0, 0, "absent"}, {18, 0, 1, 1, 12, 0, 0, "absent"}}, 1},
      {"sliding by 2, padded", 2, {37, 7}, {{19, -5, 2, 1, 11, 5, 5, "absent"}, {7, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
      {"3-D, rows that slide", 1, {3, 19, 11}, {{2, 0, 1, 1, 2, 0, 0, "absent"}, {19, -4, 1, 1, 9, 4, 4, "absent"}, {4, 0, 1, 1, 8, 0, 0, "absent"}}, 1},
      {"doubling, dilated, channels 3", 1, {61}, {{13, -4, 2, 3, 15, 4, 4, "absent"}}, 3},
      {"short rows", 9, {7, 5}, {{7, -1, 1, 1, 3, 1, 1, "absent"}, {5, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
      {"short rows, stride 3", 5, {8, 10}, {{3, 0, 3, 1, 2, 0, 0, "absent"}, {4, -1, 3, 1, 3, 1, 1, "absent"}}, 1},
      {"rows of one lane", 7, {5, 1}, {{4, 0, 1, 1, 2, 0, 0, "absent"}, {1, 0, 1, 1, 1, 0, 0, "absent"}}, 1},
      {"planes in turns", 9, {13, 13}, {{13, -2, 1, 1, 5, 2, 2, "absent"}, {13, -2, 1, 1, 5, 2, 2, "absent"}}, 1},
      {"planes in turns, 13/1", 5, {12, 20}, {{12, -6, 1, 1, 13, 6, 6, "absent"}, {20, -6, 1, 1, 13, 6, 6, "absent"}}, 1},
      {"planes in turns, 17/2", 6, {18, 19}, {{9, -8, 2, 1, 17, 8, 8, "absent"}, {10, -8, 2, 1, 17, 8, 8, "absent"}}, 1},
      {"planes in turns, 3-D", 5, {4, 5, 6}, {{4, -1, 1, 1, 3, 1, 1, "absent"}, {5, -1, 1, 1, 3, 1, 1, "absent"}, {6, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
      {"planes in turns, elements without windows", 5, {11, 23}, {{2, 1, 2, 1, 6, 0, 0, "absent"}, {9, 2, 2, 1, 4, 0, 0, "absent"}}, 1},
      {"rows of a few packs, cropped", 3, {9, 56}, {{5, 1, 1, 1, 4, 0, 0, "absent"}, {49, 2, 1, 1, 4, 0, 0, "absent"}}, 1},
      {"rows of a few packs, by 2", 3, {9, 56}, {{4, 0, 2, 1, 3, 0, 0, "absent"}, {28, -1, 2, 1, 3, 1, 1, "absent"}}, 1},
      {"rows of a few packs, far taps", 2, {7, 30}, {{3, -2, 2, 2, 4, 2, 2, "absent"}, {30, -15, 1, 5, 7, 15, 15, "absent"}}, 1},
      {"large stride", 2, {9, 47}, {{3, -1, 4, 1, 3, 1, 1, "absent"}, {9, -1, 5, 1, 9, 1, 1, "absent"}}, 1},
      {"a line in chunks", 1, {5003}, {{4995, 0, 1, 1, 9, 0, 0, "absent"}}, 1},
      {"windows far apart", 1, {39, 41}, {{2, 0, 8, 1, 31, 0, 0, "absent"}, {2, 0, 9, 1, 31, 0, 0, "absent"}}, 2},
      {"planes in packs", 37, {4, 4}, {{2, 0, 2, 1, 2, 0, 0, "absent"}, {2, 0, 2, 1, 2, 0, 0, "absent"}}, 1},
      {"planes in packs, padded", 35, {7, 7}, {{4, -1, 2, 1, 3, 1, 1, "absent"}, {4, -1, 2, 1, 3, 1, 1, "absent"}}, 1},
      {"volumes in packs", 33, {2, 3, 2}, {{1, 0, 2, 1, 2, 0, 0, "absent"}, {2, 0, 1, 1, 2, 0, 0, "absent"}, {1, 0, 2, 1, 2, 0, 0, "absent"}}, 1},
      {"channels in one step", 2, {7, 6}, {{4, -1, 2, 1, 3, 1, 1, "absent"}, {3, -1, 2, 1, 3, 1, 1, "absent"}}, 19},
      {"channels in one step, 2/2", 1, {6, 5}, {{3, 0, 2, 1, 2, 0, 0, "absent"}, {2, 0, 2, 1, 2, 0, 0, "absent"}}, 33},
      {"63 x 63", 1, {65, 67}, {{5, -1, 1, 1, 63, 1, 1, "absent"}, {5, 0, 1, 1, 63, 0, 0, "absent"}}, 1},
  };
  return all;
}

// Outputs that are written past the caches, none of whose rows is a whole number of their lines.
const std::vector<Case>& large_cases() {
  static const std::vector<Case> all = {
      {"3/1, streamed", 1, {2899, 2903}, {{2899, -1, 1, 1, 3, 1, 1, "absent"}, {2903, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
      {"short rows, streamed", 240001, {5, 7}, {{5, -1, 1, 1, 3, 1, 1, "absent"}, {7, -1, 1, 1, 3, 1, 1, "absent"}}, 1},
  };
  return all;
}

PlanFields fields_of(const Case& c, const std::string& body, const std::string& dtype) {
  PlanFields fields;
  fields.body = body, fields.dtype = dtype;
  fields.shape.push_back(c.outer);
  for (std::size_t a = 0; a < c.sizes.size(); ++a) {
    fields.shape.push_back(c.sizes[a]);
    fields.axes.push_back(static_cast<Int>(a) + 1);
    AxisFields axis;
    axis.regular = c.axes[a];
    fields.tables.push_back(axis);
  }
  fields.shape.push_back(c.inner);
  for (std::size_t d = 0; d < fields.shape.size(); ++d) fields.order.push_back(static_cast<Int>(d));
  return fields;
}

template <class T>
bool close(double wanted, T got) {
  if (std::isnan(wanted)) return got != got;
  using Limits = std::numeric_limits<T>;
  if constexpr (Limits::is_integer) {  // what T cannot hold saturates
    if (wanted >= static_cast<double>(Limits::max())) return got == Limits::max();
    return wanted <= static_cast<double>(Limits::lowest()) ? got == Limits::lowest() : static_cast<T>(wanted) == got;
  }
  if (std::isinf(wanted)) return static_cast<T>(wanted) == got;
  return std::abs(wanted - static_cast<double>(got)) <= 8 * static_cast<double>(Limits::epsilon()) * (std::abs(wanted) + 8);
}

Int kept_at(const Plan& plan, const void* kept, std::size_t at) {
  if (plan.kept == Kept::bytes) {
    const Int offset = static_cast<const std::uint8_t*>(kept)[at];
    return offset == 255 ? -1 : offset;
  }
  return plan.kept == Kept::words ? static_cast<const std::int32_t*>(kept)[at] : static_cast<const Int*>(kept)[at];
}

// One pooling, in memory of exactly the right size whose forbidden neighbour is on one side.
template <class T, class R>
class Trial {
 public:
  Trial(const Case& c, const PlanFields& fields, Touching touching, bool masked, bool backwards)
      : c_(c), fields_(fields), plan_(plan_of(fields)), masked_(masked), backwards_(backwards), touching_(touching) {
    std::mt19937 random(7);
    const int least = std::is_unsigned_v<T> ? 0 : -4;
    for (Int i = 0; i < c.input_size(); ++i) {
      x_.push_back(least + static_cast<int>(random() % 9));
      mask_.push_back(random() % 4 != 0);
    }
    for (Int i = 0; i < c.output_size(); ++i) g_.push_back(static_cast<int>(random() % 9) - 4);
    constexpr bool whole = std::numeric_limits<T>::is_integer;
    const double low = whole ? double(std::numeric_limits<T>::lowest()) : -INFINITY, high = whole ? double(std::numeric_limits<T>::max()) : INFINITY;
    expected_ = pooled(c, fields, x_, g_, masked ? mask_.data() : nullptr, whole, low, high);
  }

  void run(int threads) {
    forward(threads);
    if (plan_.kept != Kept::none) indices(threads);
    if constexpr (std::is_floating_point_v<T>) backward(threads);
  }

 private:
  // The input as it stands, or stored from its last element to its first.
  void forward(int threads) {
    const std::size_t n = x_.size(), m = g_.size();
    Guarded x(n * sizeof(T), touching_), y(m * sizeof(R), touching_), mask(n, touching_);
    Guarded kept(m * static_cast<std::size_t>(kept_size(plan_.kept)), touching_);
    std::vector<Int> strides, mask_strides;
    for (std::size_t d = 0, run = n; d < fields_.shape.size(); ++d) {
      run /= static_cast<std::size_t>(fields_.shape[d]);
      strides.push_back((backwards_ ? -1 : 1) * static_cast<Int>(run * sizeof(T)));
      mask_strides.push_back(static_cast<Int>(run));
    }
    for (std::size_t i = 0; i < n; ++i) x.as<T>()[backwards_ ? n - 1 - i : i] = static_cast<T>(x_[i]);
    std::copy(mask_.begin(), mask_.end(), mask.as<std::uint8_t>());
    x.freeze(), mask.freeze();
    Buffers buffers;
    buffers.from = x.as<T>() + (backwards_ ? n - 1 : 0);
    buffers.from_strides = strides.data();
    buffers.to = y.as<R>();
    if (plan_.kept != Kept::none) buffers.kept = kept.as<void>();
    if (masked_) buffers.mask = mask.as<std::uint8_t>(), buffers.mask_strides = mask_strides.data();
    run_forward(plan_, buffers, threads);
    kept_.assign(kept.as<char>(), kept.as<char>() + kept.bytes());
    for (std::size_t i = 0; i < m; ++i) {
      CHECK(close<R>(expected_.y[i], y.as<R>()[i]), "%s, %s of %s: y[%zu] is %g, not %g", c_.name, fields_.body.c_str(),
            fields_.dtype.c_str(), i, double(y.as<R>()[i]), expected_.y[i]);
      if (plan_.kept != Kept::none)
        CHECK(kept_at(plan_, kept.as<void>(), i) == expected_.kept[i], "%s, %s: kept[%zu]", c_.name, fields_.body.c_str(), i);
    }
    buffers.kept = nullptr;  // the same without
    Guarded alone(m * sizeof(R), touching_);
    buffers.to = alone.as<R>();
    run_forward(plan_, buffers, threads);
    CHECK(alone.equals(y), "%s, %s of %s: without offsets", c_.name, fields_.body.c_str(), fields_.dtype.c_str());
  }

  void indices(int threads) {
    Guarded kept(kept_.size(), touching_), flat(g_.size() * sizeof(Int), touching_);
    std::copy(kept_.begin(), kept_.end(), kept.as<char>());
    kept.freeze();
    Buffers buffers;
    buffers.from = kept.as<void>(), buffers.to = flat.as<Int>();
    run_indices(plan_, buffers, threads);
    for (std::size_t i = 0; i < g_.size(); ++i)
      CHECK(flat.as<Int>()[i] == expected_.flat[i], "%s, %s: index[%zu]", c_.name, fields_.body.c_str(), i);
  }

  void backward(int threads) {
    Guarded g(g_.size() * sizeof(T), touching_), gx(x_.size() * sizeof(T), touching_), mask(x_.size(), touching_);
    Guarded kept(kept_.size(), touching_);
    for (std::size_t i = 0; i < g_.size(); ++i) g.as<T>()[i] = static_cast<T>(g_[i]);
    std::copy(kept_.begin(), kept_.end(), kept.as<char>());
    std::copy(mask_.begin(), mask_.end(), mask.as<std::uint8_t>());
    g.freeze(), kept.freeze(), mask.freeze();
    std::vector<Int> mask_strides;
    for (std::size_t d = 0, run = x_.size(); d < fields_.shape.size(); ++d)
      mask_strides.push_back(static_cast<Int>(run /= static_cast<std::size_t>(fields_.shape[d])));
    Buffers buffers;
    buffers.from = g.as<T>(), buffers.to = gx.as<T>();
    if (plan_.kept != Kept::none) buffers.kept = kept.as<void>();
    if (masked_ && plan_.kept == Kept::none) buffers.mask = mask.as<std::uint8_t>(), buffers.mask_strides = mask_strides.data();
    run_backward(plan_, buffers, threads);
    for (std::size_t i = 0; i < x_.size(); ++i)
      CHECK(close<T>(expected_.gx[i], gx.as<T>()[i]), "%s, %s of %s: gx[%zu] is %g, not %g", c_.name, fields_.body.c_str(),
            fields_.dtype.c_str(), i, double(gx.as<T>()[i]), expected_.gx[i]);
  }

  const Case& c_;
  PlanFields fields_;
  Plan plan_;
  bool masked_, backwards_;
  Touching touching_;
  std::vector<double> x_, g_;
  std::vector<std::uint8_t> mask_;
  std::vector<char> kept_;
  Expected expected_;
};

template <class T>
void try_all(const Case& c, const std::string& dtype) {
  using Sum = std::conditional_t<std::is_floating_point_v<T>, T, std::conditional_t<std::is_unsigned_v<T>, std::uint64_t, Int>>;
  for (const char* body : {"max", "min", "relumax", "sum", "mean"})
    for (const int variant : {0, 1, 2, 3}) {
      PlanFields fields = fields_of(c, body, dtype);
      fields.count_include_pad = fields.truncate = variant == 1;
      fields.divisor = variant == 3 && fields.body == "mean" ? 3 : 0;
      const Touching touching = variant % 2 == 0 ? Touching::behind : Touching::before;
      const int threads[] = {1, 2, 7, 3};
      if (fields.body == "sum")
        Trial<T, Sum>(c, fields, touching, variant == 2, variant == 3).run(threads[variant]);
      else
        Trial<T, T>(c, fields, touching, variant == 2, variant == 3).run(threads[variant]);
    }
}

// Operations on whole windows, where the plan does not refuse the case. Returns whether it was served.
template <class T>
bool try_whole(const Case& c, const std::string& body, const std::string& dtype, Touching touching, int threads) {
  PlanFields fields = fields_of(c, body, dtype);
  Int taps = 1;
  for (const RegularFields& axis : c.axes) taps *= axis.taps;
  std::vector<double> of_taps{1};
  for (const RegularFields& axis : c.axes) {
    if (body != "blur" || taps > most_window_taps) break;
    std::vector<double> own, products;
    for (Int tap = 0; tap < axis.taps; ++tap) own.push_back(1.0 + double(tap % 3));
    for (const double product : of_taps)
      for (const double weight : own) products.push_back(product * weight);
    of_taps = products;
    fields.weights.push_back(own);
  }
  fields.parameter = body == "topkmean" ? 2 : body == "quantile" ? 0.3 : body == "gem" || body == "lp" ? 2.5 : 0.5;
  fields.least = least_of_power;
  std::unique_ptr<Plan> served;
  try {
    served = std::make_unique<Plan>(plan_of(fields));
  } catch (const std::invalid_argument&) {
    return false;
  }
  const Plan& plan = *served;
  constexpr bool whole = std::numeric_limits<T>::is_integer;
  const std::size_t n = static_cast<std::size_t>(c.input_size()), m = static_cast<std::size_t>(c.output_size());
  Guarded x(n * sizeof(T), touching), y(m * sizeof(T), touching);
  std::mt19937 random(11);
  for (std::size_t i = 0; i < n; ++i) x.as<T>()[i] = static_cast<T>((std::is_unsigned_v<T> ? 0 : -4) + static_cast<int>(random() % 9));
  x.freeze();
  Guarded g(m * sizeof(T), touching), gx(n * sizeof(T), touching);
  for (std::size_t i = 0; i < m; ++i) g.as<T>()[i] = static_cast<T>(static_cast<int>(random() % 5) - 2);
  g.freeze();
  Guarded logits(n * sizeof(float), touching), to_logits(n * sizeof(float), touching);
  for (std::size_t i = 0; i < n; ++i) logits.as<float>()[i] = static_cast<float>(static_cast<int>(random() % 9) - 4);
  logits.freeze();
  std::vector<double> gradient(n), of_logits(n);
  Buffers buffers;
  buffers.from = x.as<T>(), buffers.to = y.as<T>();
  if (plan.paired()) buffers.beside = logits.as<float>(), buffers.to_beside = to_logits.as<float>();
  run_forward(plan, buffers, threads);
  const Int cells = c.outputs_per_plane(), elements = c.inputs_per_plane();
  for (Int cell = 0; cell < cells; ++cell) {
    Int counting = 0;
    const std::vector<Tap> there = taps_of(c, cell, counting);
    for (Int o = 0; o < c.outer; ++o)
      for (Int i = 0; i < c.inner; ++i) {
        const auto place = [&](const Tap& tap) { return static_cast<std::size_t>((o * elements + tap.flat) * c.inner + i); };
        const std::size_t at = static_cast<std::size_t>((o * cells + cell) * c.inner + i);
        std::vector<double> values, weights;
        for (const Tap& tap : there) {
          values.push_back(static_cast<double>(x.as<T>()[place(tap)]));
          if (body == "blur") weights.push_back(of_taps[static_cast<std::size_t>(tap.offset)]);
          if (plan.paired()) weights.push_back(std::exp(fields.parameter * static_cast<double>(logits.as<float>()[place(tap)])));
        }
        const double wanted = of_whole_window(body, values, weights, fields.parameter, whole);
        CHECK(close<T>(wanted, y.as<T>()[at]), "%s, %s of %s: y is %g, not %g", c.name, body.c_str(), dtype.c_str(), double(y.as<T>()[at]), wanted);
        if (!plan.has_gradient()) continue;
        const std::vector<double> sent = sent_by_whole_window(body, values, weights, fields.parameter);
        const double mean = plan.paired() ? std::inner_product(sent.begin(), sent.end(), values.begin(), 0.0) : 0;
        for (std::size_t t = 0; t < there.size(); ++t) {
          const double own = static_cast<double>(g.as<T>()[at]) * sent[t];
          gradient[place(there[t])] += own;
          if (plan.paired()) of_logits[place(there[t])] += own * fields.parameter * (values[t] - mean);
        }
      }
  }
  if (!plan.has_gradient()) return true;
  buffers.from = g.as<T>(), buffers.to = gx.as<T>(), buffers.kept = plan.keeps_input() ? x.as<void>() : nullptr;
  run_backward(plan, buffers, threads);
  const auto check = [&](const char* what, std::size_t i, double wanted, double got) {
    CHECK(std::abs(wanted - got) <= 1e-5 * (1 + std::abs(wanted)), "%s, %s of %s: %s[%zu] is %g, not %g", c.name, body.c_str(), dtype.c_str(), what, i, got, wanted);
  };
  for (std::size_t i = 0; i < n; ++i) {
    check("gx", i, gradient[i], double(gx.as<T>()[i]));
    if (plan.paired()) check("to_beside", i, of_logits[i], double(to_logits.as<float>()[i]));
  }
  return true;
}

template <class T>
void try_whole_windows(const Case& c, const std::string& dtype, int& served) {
  constexpr bool averages = std::is_floating_point_v<T>;
  for (const std::string body : {"median", "mode", "quantile", "topkmean", "soft", "logsumexp", "stochasticmean", "lip", "blur", "norm", "lp", "gem"}) {
    if (!averages && body[0] != 'm') continue;  // of integers there are those two
    served += try_whole<T>(c, body, dtype, Touching::behind, 1);
    served += try_whole<T>(c, body, dtype, Touching::before, 7);
  }
}

// Sixteen bits and large arrays are compared in Python; here they meet the forbidden pages.
void touch_pages(const Case& c, const std::string& dtype) {
  for (const char* body : {"max", "relumax", "sum", "mean", "norm"})
    for (const Touching touching : {Touching::behind, Touching::before}) {
      const Plan plan = plan_of(fields_of(c, body, dtype));
      const std::size_t itemsize = static_cast<std::size_t>(itemsize_of(plan.dtype));
      const std::size_t n = static_cast<std::size_t>(plan.input_size) * itemsize, m = static_cast<std::size_t>(plan.output_size);
      Guarded x(n, touching), y(m * itemsize, touching), gx(n, touching), kept(m * static_cast<std::size_t>(kept_size(plan.kept)), touching);
      x.freeze();
      Buffers buffers;
      buffers.from = x.as<void>(), buffers.to = y.as<void>();
      buffers.kept = plan.kept == Kept::none ? nullptr : kept.as<void>();
      run_forward(plan, buffers, 2);
      buffers.from = y.as<void>(), buffers.to = gx.as<void>();
      if (plan.keeps_input()) buffers.kept = x.as<void>();
      run_backward(plan, buffers, 2);
    }
}

// Means are made from reciprocals: for each count that is, of every significand, the quotient itself.
void try_quotients() {
  constexpr Int n = Int(1) << 23;
  std::vector<float> x(static_cast<std::size_t>(n)), y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1 + static_cast<float>(i) * 0x1p-23f;
  for (int count = 3; count <= 128; ++count) {
    PlanFields fields;
    fields.body = "mean", fields.dtype = "float32", fields.divisor = count;
    fields.shape = {n}, fields.axes = {0}, fields.order = {0}, fields.tables.resize(1);
    fields.tables[0].regular = {n, 0, 1, 1, 1, 0, 0, "absent"};
    Buffers buffers;
    buffers.from = x.data(), buffers.to = y.data();
    run_forward(plan_of(fields), buffers, 2);
    Int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) wrong += y[i] != x[i] / static_cast<float>(count) ? 1 : 0;
    CHECK(wrong == 0, "quotients by %d: %lld are not those of a division", count, static_cast<long long>(wrong));
  }
}

}  // namespace
}  // namespace poolwise

int main() {
  using namespace poolwise;
  for (const std::string& set : instruction_sets()) {
    use_instruction_set(set);
    try_quotients();
    use_row_order("in order");
    int served = 0;
    for (const Case& c : cases()) {
      try_all<float>(c, "float32");
      try_all<std::uint8_t>(c, "uint8");
      touch_pages(c, "bfloat16");
      try_whole_windows<float>(c, "float32", served);
    }
    use_row_order("together");
    for (const Case& c : cases()) {
      try_all<float>(c, "float32");
      try_all<double>(c, "float64");
      try_all<std::int8_t>(c, "int8");
      try_all<std::int16_t>(c, "int16");
      try_all<std::int32_t>(c, "int32");
      try_all<Int>(c, "int64");
      try_all<std::uint8_t>(c, "uint8");
      try_all<std::uint16_t>(c, "uint16");
      try_all<std::uint32_t>(c, "uint32");
      try_all<std::uint64_t>(c, "uint64");
      touch_pages(c, "float16");
      touch_pages(c, "bfloat16");
      try_whole_windows<float>(c, "float32", served);
      try_whole_windows<double>(c, "float64", served);
      try_whole_windows<std::int8_t>(c, "int8", served);
      try_whole_windows<std::uint16_t>(c, "uint16", served);
      try_whole_windows<std::int32_t>(c, "int32", served);
      try_whole_windows<std::uint64_t>(c, "uint64", served);
    }
    CHECK(served > 100, "whole windows: %d trials were served", served);
    for (const Case& c : large_cases())
      for (const char* dtype : {"float16", "float32"}) touch_pages(c, dtype);
  }
  return verdict("kernels");
}
