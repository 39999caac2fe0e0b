// The oracle of the C++ tests: one window at a time, one tap at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "../plan.h"

namespace poolwise {

struct Case {
  const char* name;
  Int outer;
  std::vector<Int> sizes;
  std::vector<RegularFields> axes;
  Int inner;

  static Int product(const std::vector<Int>& sizes) {
    Int n = 1;
    for (const Int size : sizes) n *= size;
    return n;
  }
  std::vector<Int> outputs() const {
    std::vector<Int> sizes;
    for (const RegularFields& axis : axes) sizes.push_back(axis.output);
    return sizes;
  }
  Int inputs_per_plane() const { return product(sizes); }
  Int outputs_per_plane() const { return product(outputs()); }
  Int input_size() const { return outer * inputs_per_plane() * inner; }
  Int output_size() const { return outer * outputs_per_plane() * inner; }
};

// Where tap t of output cell i reads along an axis, -1: nowhere; and whether it counts as padding does.
inline Int place_of(const RegularFields& axis, Int size, Int cell, Int tap) {
  const Int at = axis.start + cell * axis.step + tap * axis.dilation;
  if (at >= 0 && at < size) return at;
  if (at < -axis.low || at >= size + axis.high || axis.mode == "absent") return -1;
  if (axis.mode == "circular") return ((at % size) + size) % size;
  if (axis.mode == "reflect") return at < 0 ? -at : 2 * (size - 1) - at;
  return at < 0 ? 0 : size - 1;
}

inline bool counts(const RegularFields& axis, Int size, Int cell, Int tap) {
  const Int at = axis.start + cell * axis.step + tap * axis.dilation;
  return at >= -axis.low && at < size + axis.high;
}

struct Tap {
  Int offset, flat;  // inside the window, and among the elements of the plane
};

// The taps of one cell that are there, in their order, and how many count for a mean over the padding too.
inline std::vector<Tap> taps_of(const Case& c, Int cell, Int& counting) {
  std::vector<Tap> taps{{0, 0}};
  counting = 1;
  std::vector<Int> at(c.axes.size());
  for (std::size_t a = c.axes.size(); a-- > 0;) at[a] = cell % c.axes[a].output, cell /= c.axes[a].output;
  for (std::size_t a = 0; a < c.axes.size(); ++a) {
    std::vector<Tap> longer;
    Int counted = 0;
    for (Int t = 0; t < c.axes[a].taps; ++t) counted += counts(c.axes[a], c.sizes[a], at[a], t);
    for (const Tap& before : taps)
      for (Int t = 0; t < c.axes[a].taps; ++t) {
        const Int place = place_of(c.axes[a], c.sizes[a], at[a], t);
        if (place >= 0) longer.push_back({before.offset * c.axes[a].taps + t, before.flat * c.sizes[a] + place});
      }
    taps = longer;
    counting *= counted;
  }
  return taps;
}

struct Expected {
  std::vector<double> y, gx;
  std::vector<Int> kept, flat;
};

inline double empty_value(const std::string& body, double least, double most) {
  return body == "max" ? least : body == "min" ? most : 0;
}

// Rounds a mean of integers to the nearest, ties to even, or towards zero.
inline double whole_mean(double sum, double divisor, bool truncate) {
  return divisor == 0 ? 0 : truncate ? std::trunc(sum / divisor) : std::nearbyint(sum / divisor);
}

// Where a quantile's result lies among n sorted values: the lower of two, and the share of the higher.
inline std::pair<std::size_t, double> place_of(const std::string& body, double parameter, std::size_t n) {
  const double place = (body == "median" ? 0.5 : parameter) * static_cast<double>(n - 1);
  return {static_cast<std::size_t>(place), place - std::floor(place)};
}

// What each value weighs in a mean with weights: soft, blur, lip, stochasticmean.
inline std::vector<double> shares_of(const std::string& body, const std::vector<double>& values, std::vector<double> weights, double parameter) {
  double total = 0;
  const bool given = body == "blur" || body == "lip";
  if (!given) weights.clear();
  for (std::size_t i = 0; !given && i < values.size(); ++i)
    weights.push_back(body == "stochasticmean" ? std::max(values[i], 0.0) : std::exp(parameter * values[i]));
  for (const double weight : weights) total += weight;
  for (double& weight : weights) weight = total == 0 ? 1 / static_cast<double>(values.size()) : weight / total;
  return weights;
}

// Of a generalised mean smaller elements are raised to this.
constexpr double least_of_power = 0.5;

inline double root_of_mean(const std::vector<double>& values, double power) {
  double total = 0;
  for (const double value : values) total += std::pow(std::max(value, least_of_power), power);
  return std::pow(total / static_cast<double>(values.size()), 1 / power);
}

inline double norm_of(const std::vector<double>& values, double power) {
  double total = 0;
  for (const double value : values) total += std::pow(std::abs(value), power);
  return std::pow(total, 1 / power);
}

// What the values of one window come to.
inline double of_whole_window(const std::string& body, std::vector<double> values, const std::vector<double>& weights, double parameter,
                              bool whole) {
  const std::size_t n = values.size();
  if (body == "norm" || body == "lp") return norm_of(values, body == "norm" ? 2 : parameter);
  if (n == 0) return whole ? 0 : body == "logsumexp" ? -INFINITY : NAN;
  if (body == "gem") return root_of_mean(values, parameter);
  if (body == "logsumexp") {
    double total = 0;
    for (const double value : values) total += std::exp(parameter * value);
    return std::log(total) / parameter;
  }
  if (body == "soft" || body == "blur" || body == "lip" || body == "stochasticmean") {
    const std::vector<double> shares = shares_of(body, values, weights, parameter);
    return std::inner_product(shares.begin(), shares.end(), values.begin(), 0.0);
  }
  std::sort(values.begin(), values.end());
  if (body == "median" || body == "quantile") {
    const auto [low, part] = place_of(body, parameter, n);
    return whole || part == 0 ? values[low] : values[low] + part * (values[low + 1] - values[low]);
  }
  if (body == "topkmean") {
    const std::size_t k = std::min(n, static_cast<std::size_t>(parameter));
    return std::accumulate(values.end() - static_cast<std::ptrdiff_t>(k), values.end(), 0.0) / static_cast<double>(k);
  }
  double best = values[0];
  for (const double value : values)
    if (std::count(values.begin(), values.end(), value) > std::count(values.begin(), values.end(), best)) best = value;
  return best;
}

// What one window sends to each of its elements for an output's gradient of 1.
inline std::vector<double> sent_by_whole_window(const std::string& body, const std::vector<double>& values, const std::vector<double>& weights,
                                                double parameter) {
  const std::size_t n = values.size();
  if (n == 0) return {};
  if (body == "norm" || body == "lp") {
    std::vector<double> sent = values;
    const double power = body == "norm" ? 2 : parameter, y = norm_of(values, power);
    for (double& each : sent) each = each == 0 ? 0 : std::copysign(std::pow(std::abs(each) / y, power - 1), each);
    return sent;
  }
  if (body == "gem") {
    std::vector<double> sent = values;
    const double y = root_of_mean(values, parameter);
    for (double& each : sent) each = each < least_of_power ? 0 : std::pow(each / y, parameter - 1) / static_cast<double>(n);
    return sent;
  }
  if (body == "median" || body == "quantile" || body == "topkmean") {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t(0));
    const double sign = body == "topkmean" ? -1 : 1;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sign * values[a] < sign * values[b]; });
    std::vector<double> sent(n);
    if (body == "topkmean") {
      const std::size_t k = std::min(n, static_cast<std::size_t>(parameter));
      for (std::size_t i = 0; i < k; ++i) sent[order[i]] = 1 / static_cast<double>(k);
      return sent;
    }
    const auto [low, part] = place_of(body, parameter, n);
    sent[order[low]] = 1 - part;
    if (part > 0) sent[order[low + 1]] = part;
    return sent;
  }
  std::vector<double> sent = shares_of(body == "logsumexp" ? "soft" : body, values, weights, parameter);
  const double mean = std::inner_product(sent.begin(), sent.end(), values.begin(), 0.0);
  double positive = 0;
  for (const double value : values) positive += std::max(value, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    if (body == "soft") sent[i] *= 1 + parameter * (values[i] - mean);
    if (body == "stochasticmean" && values[i] > 0) sent[i] += (values[i] - mean) / positive;
  }
  return sent;
}

// Everything about one pooling, from x and the output's gradient g; mask may be null.
inline Expected pooled(const Case& c, const PlanFields& fields, const std::vector<double>& x, const std::vector<double>& g,
                       const std::uint8_t* mask, bool whole, double least, double most) {
  const bool selects = fields.body != "sum" && fields.body != "mean";
  const Int cells = c.outputs_per_plane(), elements = c.inputs_per_plane();
  const std::size_t n = static_cast<std::size_t>(c.output_size());
  Expected e{std::vector<double>(n), std::vector<double>(x.size()), std::vector<Int>(n, -1), std::vector<Int>(n, -1)};
  for (Int cell = 0; cell < cells; ++cell) {
    Int counting = 0;
    const std::vector<Tap> taps = taps_of(c, cell, counting);
    for (Int o = 0; o < c.outer; ++o)
      for (Int i = 0; i < c.inner; ++i) {
        const std::size_t to = static_cast<std::size_t>((o * cells + cell) * c.inner + i);
        const auto place = [&](const Tap& tap) { return static_cast<std::size_t>((o * elements + tap.flat) * c.inner + i); };
        double best = empty_value(fields.body, least, most), sum = 0, there = 0;
        for (const Tap& tap : taps) {
          const std::size_t from = place(tap);
          if (mask != nullptr && mask[from] == 0) continue;
          const bool first = there == 0 && fields.body != "relumax";
          if (selects && (first || (fields.body == "min" ? x[from] < best : x[from] > best)))
            best = x[from], e.kept[to] = tap.offset, e.flat[to] = tap.flat;
          sum += x[from], ++there;
        }
        const double divisor = fields.divisor > 0 ? fields.divisor : fields.count_include_pad ? double(counting) : there;
        if (selects) {
          e.y[to] = best;
          for (const Tap& tap : taps)
            if (tap.offset == e.kept[to]) e.gx[place(tap)] += g[to];
          continue;
        }
        const bool mean = fields.body == "mean";
        e.y[to] = !mean ? sum : whole ? whole_mean(sum, divisor, fields.truncate) : sum / divisor;
        for (const Tap& tap : taps)
          if (mask == nullptr || mask[place(tap)] != 0) e.gx[place(tap)] += mean ? g[to] / divisor : g[to];
      }
  }
  return e;
}

}  // namespace poolwise
