#include "plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace poolwise {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument("Plan: " + sentence); }

void require_at_least(const std::string& field, Int value, Int least) {
  if (value < least) refuse(field + " must be at least " + std::to_string(least) + ", got " + std::to_string(value));
}

Int fits(Wide value, const std::string& what) {
  if (value > INT64_MAX || value < INT64_MIN) refuse(what + " does not fit in 64 bits");
  return static_cast<Int>(value);
}

template <class Value, std::size_t N>
Value named(const std::string& field, const std::string& name, const std::pair<const char*, Value> (&known)[N]) {
  std::string allowed;
  for (const auto& [text, value] : known) {
    if (name == text) return value;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(text) + "'";
  }
  refuse(field + " must be one of " + allowed + ", got '" + name + "'");
}

constexpr std::pair<const char*, Body> bodies[] = {
    {"max", Body::max}, {"min", Body::min}, {"relumax", Body::relumax}, {"sum", Body::sum}, {"mean", Body::mean}, {"norm", Body::norm},
    {"lp", Body::lp}, {"gem", Body::gem}, {"median", Body::median}, {"mode", Body::mode}, {"quantile", Body::quantile}, {"topkmean", Body::topkmean},
    {"soft", Body::soft}, {"logsumexp", Body::logsumexp}, {"stochasticmean", Body::stochasticmean}, {"lip", Body::lip}, {"blur", Body::blur}};
constexpr std::pair<const char*, Mode> modes[] = {{"absent", Mode::absent},
                                                  {"circular", Mode::circular},
                                                  {"reflect", Mode::reflect},
                                                  {"replicate", Mode::replicate}};
constexpr std::pair<const char*, Dtype> dtypes[] = {
    {"bool", Dtype::boolean},     {"int8", Dtype::int8},         {"int16", Dtype::int16},     {"int32", Dtype::int32},
    {"int64", Dtype::int64},      {"uint8", Dtype::uint8},       {"uint16", Dtype::uint16},   {"uint32", Dtype::uint32},
    {"uint64", Dtype::uint64},    {"float16", Dtype::float16},   {"bfloat16", Dtype::bfloat16}, {"float32", Dtype::float32},
    {"float64", Dtype::float64}};

bool is_float(Dtype dtype) { return dtype >= Dtype::float16; }
bool is_unsigned(Dtype dtype) { return dtype >= Dtype::uint8 && dtype <= Dtype::uint64; }

Int inverse_modulo(Int value, Int modulus) {
  Wide r0 = modulus, r1 = value % modulus, s0 = 0, s1 = 1;
  while (r1 != 0) {
    const Wide q = r0 / r1;
    r0 -= q * r1, std::swap(r0, r1);
    s0 -= q * s1, std::swap(s0, s1);
  }
  return static_cast<Int>((s0 % modulus + modulus) % modulus);
}

// ---- axes --------------------------------------------------------------------------------------------------------------

void find_whole(Axis& axis) {
  const Wide low = -Wide(axis.padded_begin()), reach = Wide(axis.taps - 1) * axis.dilation;
  const Int begin = larger(0, ceil_div(-low - Wide(axis.start), axis.step));
  const Int end = smaller(axis.output, floor_div(Wide(axis.padded_end()) - 1 - reach - axis.start, axis.step) + 1);
  axis.whole_begin = smaller(begin, axis.output);
  axis.whole_end = larger(axis.whole_begin, end);
}

Axis regular_axis(Int size, const RegularFields& fields, const std::string& where) {
  const auto& [output, start, step, dilation, taps, low, high, mode] = fields;
  require_at_least(where + "output", output, 1);
  require_at_least(where + "step", step, 1);
  require_at_least(where + "dilation", dilation, 1);
  require_at_least(where + "taps", taps, 1);
  require_at_least(where + "low", low, 0);
  require_at_least(where + "high", high, 0);
  const Int cells = fits(Wide(output - 1) * step, where + "(output - 1) * step");
  const Int window = fits(Wide(taps - 1) * dilation, where + "(taps - 1) * dilation");
  fits(Wide(start) + cells, where + "start + (output - 1) * step");
  fits(Wide(start) + window, where + "start + (taps - 1) * dilation");
  fits(Wide(start) + cells + window + dilation, where + "the index of the last tap");
  fits(Wide(low) + 3 * Wide(size) + high, where + "low + 3 * size + high");
  fits(Wide(low) + start + cells, where + "low + start + (output - 1) * step");
  fits(Wide(low) + size + high - start, where + "low + size + high - start");
  Axis axis{size, output, start, step, dilation, taps, low, high, named(where + "mode", mode, modes)};
  const Int gcd = std::gcd(step, dilation);
  axis.cell_step = dilation / gcd;
  axis.tap_step = step / gcd;
  axis.inverse = inverse_modulo(axis.tap_step, axis.cell_step);
  find_whole(axis);
  return axis;
}

void check_span(const Span& span, const Span* before, Int size, Int taps, const std::string& where) {
  if (span.first < 0 || span.count < 0 || span.count > taps || Wide(span.first) + span.count > size)
    refuse(where + "spans must stay inside the axis of " + std::to_string(size) + " and hold at most " + std::to_string(taps) +
           ", got " + std::to_string(span.first) + " + " + std::to_string(span.count));
  if (before != nullptr && (span.first < before->first || span.first + span.count < before->first + before->count))
    refuse(where + "spans must not go back, got " + std::to_string(span.first) + " after " + std::to_string(before->first));
}

// At most so many spans of one plane hold the same element.
Int most_overlapping(const std::vector<Span>& spans, Int output) {
  Int most = 1;
  for (std::size_t plane = 0; plane < spans.size(); plane += static_cast<std::size_t>(output))
    for (std::size_t first = plane, s = plane; s < plane + static_cast<std::size_t>(output); ++s) {
      while (spans[first].first + spans[first].count <= spans[s].first && first < s) ++first;
      most = std::max(most, static_cast<Int>(s - first) + 1);
    }
  return most;
}

Axis uneven_axis(Int size, const AxisFields& fields, const std::string& where, const std::vector<Span>& spans) {
  require_at_least(where + "planes", fields.planes, 1);
  require_at_least(where + "taps", fields.taps, 1);
  const Int held = static_cast<Int>(spans.size()), output = held / fields.planes;
  require_at_least(where + "spans per plane", output, 1);
  if (output * fields.planes != held) refuse(where + "spans must be as many for every plane, got " + std::to_string(held));
  fits(2 * Wide(size), where + "2 * size");
  for (Int s = 0; s < held; ++s)
    check_span(spans[static_cast<std::size_t>(s)], s % output == 0 ? nullptr : &spans[static_cast<std::size_t>(s - 1)], size,
               fields.taps, where);
  Axis axis;
  axis.size = size, axis.output = output, axis.taps = fields.taps;
  axis.spans = spans.data(), axis.span_planes = fields.planes;
  axis.overlap = most_overlapping(spans, output);
  return axis;
}

// ---- plans -------------------------------------------------------------------------------------------------------------

void check_axes(const PlanFields& fields) {
  const Int ndim = static_cast<Int>(fields.shape.size());
  if (ndim < 1 || ndim > most_axes) refuse("shape must have 1 to 64 axes, got " + std::to_string(ndim));
  for (const Int size : fields.shape) require_at_least("each size of shape", size, 0);
  if (fields.axes.empty() || fields.axes.size() != fields.tables.size())
    refuse("axes must name at least 1 axis and have a table for each, got " + std::to_string(fields.axes.size()) + " and " +
           std::to_string(fields.tables.size()));
  std::vector<bool> seen(fields.shape.size());
  for (const Int axis : fields.axes) {
    if (axis < 0 || axis >= ndim) refuse("axes must be between 0 and " + std::to_string(ndim - 1) + ", got " + std::to_string(axis));
    if (seen[static_cast<std::size_t>(axis)]) refuse("axes must not repeat, got " + std::to_string(axis) + " twice");
    seen[static_cast<std::size_t>(axis)] = true;
    require_at_least("the size of a pooled axis", fields.shape[static_cast<std::size_t>(axis)], 1);
  }
}

void check_order(const PlanFields& fields) {
  std::vector<Int> sorted = fields.order, plain(fields.shape.size());
  std::iota(plain.begin(), plain.end(), Int(0));
  std::sort(sorted.begin(), sorted.end());
  if (sorted != plain) refuse("order must hold each axis once");
}

void check_weights(const Plan& plan, const PlanFields& fields) {
  Wide taps = 1;
  for (const AxisFields& table : fields.tables) taps = std::min<Wide>(taps * larger(1, table.uneven ? table.taps : table.regular.taps), INT64_MAX);
  if (plan.whole() && taps > most_window_taps)
    refuse("a window must have at most " + std::to_string(most_window_taps) + " taps for this operation, got " + std::to_string(static_cast<Int>(taps)));
  const std::size_t count = plan.body == Body::blur ? fields.tables.size() : 0;
  if (fields.weights.size() != count) refuse("weights must be for " + std::to_string(count) + " axes, got them for " + std::to_string(fields.weights.size()));
  for (std::size_t a = 0; a < count; ++a) {
    const Int taps = fields.tables[a].uneven ? fields.tables[a].taps : fields.tables[a].regular.taps;
    if (static_cast<Int>(fields.weights[a].size()) != taps)
      refuse("weights must be " + std::to_string(taps) + " along axis " + std::to_string(a) + ", got " + std::to_string(fields.weights[a].size()));
    for (const double weight : fields.weights[a])
      if (!(weight >= 0 && weight <= std::numeric_limits<float>::max())) refuse("weights must be at least 0 and at most float32's largest, got " + std::to_string(weight));
  }
}

void lay_out_axes(Plan& plan, const PlanFields& fields) {
  plan.rank = static_cast<int>(fields.axes.size());
  for (const AxisFields& table : fields.tables) plan.held_spans.push_back(table.spans);
  for (std::size_t a = 0; a < fields.axes.size(); ++a) {
    const Int size = fields.shape[static_cast<std::size_t>(fields.axes[a])];
    const std::string where = "tables[" + std::to_string(a) + "].";
    plan.held_axes.push_back(fields.tables[a].uneven ? uneven_axis(size, fields.tables[a], where, plan.held_spans[a])
                                                     : regular_axis(size, fields.tables[a].regular, where));
    if (plan.body == Body::blur) plan.held_axes.back().weights = plan.held_weights[a].data();
  }
  plan.axes = plan.held_axes.data();
}

void lay_out_dims(Plan& plan, const PlanFields& fields) {
  plan.ndim = static_cast<int>(fields.shape.size());
  Int plane_stride[most_axes] = {};
  for (int number = plan.ndim - 1; number >= 0; --number) {
    if (std::find(fields.axes.begin(), fields.axes.end(), number) != fields.axes.end()) continue;
    plane_stride[number] = plan.planes;
    plan.planes = fits(Wide(plan.planes) * larger(fields.shape[static_cast<std::size_t>(number)], 1), "the number of planes");
  }
  for (int d = 0; d < plan.ndim; ++d) {
    const Int number = fields.order[static_cast<std::size_t>(d)];
    const auto found = std::find(fields.axes.begin(), fields.axes.end(), number);
    const Int size = fields.shape[static_cast<std::size_t>(number)];
    Dim dim{size, size, static_cast<int>(number), -1, plane_stride[number]};
    if (found != fields.axes.end()) {
      dim.pooled = static_cast<int>(found - fields.axes.begin());
      dim.output = plan.axes[dim.pooled].output;
    }
    plan.held_dims.push_back(dim);
  }
  plan.dims = plan.held_dims.data();
  for (int a = 0; a < plan.rank; ++a)
    if (plan.axes[a].span_planes > 1 && plan.axes[a].span_planes != plan.planes)
      refuse("spans must be for one plane or for each of the " + std::to_string(plan.planes) + ", got " +
             std::to_string(plan.axes[a].span_planes));
}

Plan plan_without_mirror(const PlanFields& fields);

// Elements of the input or the output; an empty batch is no excuse for sizes that could not be indexed.
Int elements(const Plan& plan, Int Dim::*extent, const std::string& what) {
  Int n = 1;
  bool empty = false;
  for (int d = 0; d < plan.ndim; ++d) {
    empty = empty || plan.dims[d].*extent == 0;
    n = fits(Wide(n) * larger(plan.dims[d].*extent, 1), what);
  }
  fits(Wide(n) * static_cast<Int>(sizeof(Int)), what + " in bytes");
  return empty ? 0 : n;
}

// At most so many taps read one element: each tap from one window, and through the fold of a padding from more of its places.
Wide most_readers(const Plan& plan, std::size_t a) {
  const Axis& axis = plan.axes[a];
  if (axis.spans != nullptr || axis.mode == Mode::absent) return axis.most_readers();
  return std::min(Wide(axis.taps) * axis.output, Wide(axis.taps) * (Wide(axis.low) + axis.high + 1));
}

constexpr Int most_held_readers = 1 << 13;

void count_readers(Plan& plan) {
  for (std::size_t a = 0; a < plan.held_axes.size(); ++a)
    plan.readers = static_cast<Int>(std::min<Wide>(std::min<Wide>(most_readers(plan, a), INT64_MAX) * plan.readers, INT64_MAX));
}

void number_taps(Plan& plan) {
  Wide taps = 1, flat = 1;
  for (int a = plan.rank - 1; a >= 0; --a) {
    Axis& axis = plan.held_axes[static_cast<std::size_t>(a)];
    axis.offset_stride = static_cast<Int>(taps <= INT64_MAX ? taps : 0);
    axis.flat_stride = static_cast<Int>(flat);  // within the input's size
    taps = std::min<Wide>(taps * plan.axes[a].taps, Wide(INT64_MAX) + 1);
    flat *= plan.axes[a].size;
  }
  if (taps > INT64_MAX)  // nothing is kept, and no offset may wrap
    for (Axis& axis : plan.held_axes) axis.offset_stride = 0;
  plan.additions = static_cast<Int>(std::min<Wide>(taps, INT64_MAX)) - 1;
  if (!plan.selects() || taps > INT64_MAX) return;
  plan.kept = taps <= 255 ? Kept::bytes : taps <= INT32_MAX ? Kept::words : Kept::longs;
}

// What each tap of a window weighs, row by row.
void multiply_weights(Plan& plan) {
  if (plan.body != Body::blur || plan.additions >= most_window_taps) return;
  plan.held_products = {1};
  for (const std::vector<double>& axis : plan.held_weights) {
    std::vector<double> products;
    for (const double product : plan.held_products)
      for (const double weight : axis) products.push_back(product * weight);
    plan.held_products = std::move(products);
  }
  plan.weights = plan.held_products.data();
}

// The taps of an axis that are present in any of its cells; all of them where looking would take long.
Taps read_taps(const Axis& axis) {
  if (axis.whole_begin < axis.whole_end || axis.output > (Int(1) << 16)) return {0, axis.taps};
  Int first = axis.taps, stop = 0;
  for (Int j = 0; j < axis.output; ++j) {
    const Taps t = axis.present(j);
    if (t.count > 0) first = smaller(first, t.first), stop = larger(stop, t.first + t.count);
  }
  return {first, larger(0, stop - first)};
}

// One window over all of an axis.
bool reads_all(const Axis& axis) {
  if (axis.output != 1) return false;
  if (axis.spans != nullptr) return axis.spans[0].first == 0 && axis.spans[0].count == axis.size && axis.taps == axis.size;
  return axis.start == 0 && axis.taps == axis.size && axis.dilation == 1 && axis.low == 0 && axis.high == 0;
}

// Where every window reads whole rows, what it reads of two axes lies in one piece: they are one, as long as both. Offsets and flat
// indices are the same. Of channels, rows stay short enough to be held, and long rows are left to who reads them so.
constexpr Int most_joined = 1 << 17;  // lanes
constexpr Wide most_joined_place = Wide(1) << 31;
constexpr Int most_joined_bytes = 64;  // of a row

// Whether the windows of an axis, times so many elements, are windows of consecutive ones.
bool is_in_pieces(const Axis& axis, Int times) {
  if (axis.mode != Mode::absent || axis.dilation != 1) return false;
  for (const Wide place : {Wide(axis.size), Wide(axis.step), Wide(axis.output - 1) * axis.step, Wide(axis.start), Wide(axis.taps), Wide(axis.low), Wide(axis.high)})
    if (place * times > most_joined_place || place * times < -most_joined_place) return false;
  return true;
}
bool can_join(const Plan& plan, const Block& block) {
  const Axis &rows = block.axes[1], &last = block.axes[2];
  if (plan.body == Body::blur || block.dims[1] < 0 || !reads_all(last)) return false;
  if (reads_all(rows) && rows.size > 1 && last.size > 1)
    return plan.whole() || block.inner == 1 || Wide(rows.size) * last.size * block.inner <= most_joined;
  if (plan.dims[block.dims[1]].pooled < 0) return false;  // whose places are none of the flat indices'
  return block.inner == 1 && last.size * itemsize_of(plan.dtype) <= most_joined_bytes && is_in_pieces(rows, last.size);
}

void join_last_axes(Plan& plan) {
  Block& block = plan.block;
  const Axis& rows = block.axes[1];
  const Int n = block.axes[2].size;
  if (reads_all(rows)) {
    block.axes[2] = regular_axis(rows.size * n, {1, 0, rows.size * n, 1, rows.size * n, 0, 0, "absent"}, "");
  } else if (rows.spans != nullptr) {
    std::vector<Span> spans(rows.spans, rows.spans + rows.output);
    for (Span& span : spans) span.first *= n, span.count *= n;
    plan.held_spans.push_back(std::move(spans));
    block.axes[2] = uneven_axis(rows.size * n, {{}, true, rows.taps * n, 1, {}}, "", plan.held_spans.back());
  } else {
    block.axes[2] = regular_axis(rows.size * n, {rows.output, rows.start * n, rows.step * n, 1, rows.taps * n, rows.low * n, rows.high * n, "absent"}, "");
  }
  block.axes[1] = block.axes[0];
  block.axes[0] = Axis();
  block.axes[0].whole_end = 1;
  block.dims[2] = block.dims[1], block.dims[1] = block.dims[0], block.dims[0] = -1;
}

// The block of side-by-side axes, where the pooled ones are at most three dims apart, in the user's order, and alike for all planes.
void find_block(Plan& plan) {
  int first = plan.ndim, last = -1, before = -1;
  for (int d = 0; d < plan.ndim; ++d) {
    const int a = plan.dims[d].pooled;
    if (a < 0) continue;
    if (a != before + 1 || plan.axes[a].span_planes > 1) return;
    before = a;
    first = std::min(first, d), last = d;
  }
  if (last - first > 2) return;
  Block& block = plan.block;
  for (Axis& axis : block.axes) axis.whole_end = 1;
  for (int d = 0; d < plan.ndim; ++d) {
    const Dim& dim = plan.dims[d];
    if (d < first) block.outer *= dim.input;
    if (d > last) block.inner *= dim.input;
    if (d < first || d > last) continue;
    const int at = 3 - (last - first + 1) + d - first;
    block.dims[at] = d;
    if (dim.pooled >= 0) {
      block.axes[at] = plan.axes[dim.pooled];
    } else {
      if (dim.input == 0) return;
      block.axes[at].size = block.axes[at].output = block.axes[at].whole_end = dim.input;
      block.axes[at].flat_stride = 0;
    }
  }
  while (can_join(plan, block)) join_last_axes(plan);
  block.read = read_taps(block.axes[2]);
  block.there = true;
  const Axis& across = block.axes[2];
  const bool mirrored = across.spans == nullptr && across.step == 1 && across.output > 1;  // or woven
  if (is_float(plan.dtype) && across.size <= most_held_readers && !mirrored && !block.folds()) {
    for (Int x = 0; x < across.size; ++x) plan.held_readers.push_back(across.readers(x));
    block.readers = plan.held_readers.data();
  }
}

// What every window of a mean divides by, where that is one number; else 0.
double even_divisor(const Plan& plan) {
  double product = 1;
  for (int a = 0; a < plan.rank; ++a) {
    const Axis& axis = plan.axes[a];
    if (axis.span_planes > 1) return 0;
    const double first = plan.divided_by(axis, a + 1 == plan.rank, axis.whole_begin < axis.output ? axis.whole_begin : 0, 0);
    if (axis.output - (axis.whole_end - axis.whole_begin) > most_held_readers) return 0;
    for (Int i = axis.whole_begin > 0 ? 0 : axis.whole_end; i < axis.output; i = i + 1 == axis.whole_begin ? axis.whole_end : i + 1)
      if (plan.divided_by(axis, a + 1 == plan.rank, i, 0) != first) return 0;
    product *= first;
  }
  return product;
}

void find_share(Plan& plan) {
  int power = 0;
  plan.shared_divisor = even_divisor(plan);
  plan.exact_share = plan.shared_divisor >= 1 && plan.shared_divisor <= 0x1p60 && std::frexp(plan.shared_divisor, &power) == 0.5 ? 1 / plan.shared_divisor : 0;
}

constexpr Int most_line_bytes = Int(1) << 24;
constexpr Int most_added = 9;
constexpr double least_temperature = 1e-30;  // whose shares float32 can tell from nothing

void check_parameter(const Plan& plan) {
  const auto require = [&plan](const std::string& sentence, bool holds) {
    if (!holds) refuse("parameter must be " + sentence + ", got " + std::to_string(plan.parameter));
  };
  if (plan.exponential())
    require("at least 1e-30 and at most float32's largest", plan.parameter >= least_temperature && plan.parameter <= std::numeric_limits<float>::max());
  if (plan.body == Body::quantile) require("between 0 and 1", plan.parameter >= 0 && plan.parameter <= 1);
  if (plan.body != Body::topkmean) return;
  require("a whole number of at least 1", plan.parameter >= 1 && plan.parameter == std::floor(plan.parameter));
  const double added = std::min(plan.parameter, static_cast<double>(plan.additions) + 1);
  if (added > most_added) refuse("at most " + std::to_string(most_added) + " of the largest are added one after the other, got " + std::to_string(static_cast<Int>(added)));
}

// Powers of what float32 holds, from 2^-126, or of a norm from 2^-149, to 2^128, must be normal numbers of double, and so must their sums.
void check_power(const Plan& plan) {
  if (!is_float(plan.dtype) || plan.dtype == Dtype::float64)
    refuse("dtype must be float16, bfloat16 or float32 for powers, which are added in float64, got " + std::string(name_of(plan.dtype)));
  const double least = plan.body == Body::gem ? 126 : 149, sums = std::log2(static_cast<double>(plan.additions) + 1);
  if (!(plan.parameter >= 1 && plan.parameter * least <= 1020 && plan.parameter * 128 + sums < 1024))
    refuse("parameter must be at least 1, and its powers and their sums what float64 holds, got " + std::to_string(plan.parameter));
  if (plan.body == Body::gem && !(plan.least >= std::numeric_limits<float>::min() && plan.least <= std::numeric_limits<float>::max()))
    refuse("least must be a normal float32 above 0, got " + std::to_string(plan.least));
}

// What the engine of whole windows does not do.
void check_whole(const Plan& plan) {
  const Block& block = plan.block;
  const bool any_dtype = plan.body == Body::median || plan.body == Body::mode;
  if (!any_dtype && !is_float(plan.dtype)) refuse("dtype must be a float's for this operation, got " + std::string(name_of(plan.dtype)));
  if (plan.exponential() && plan.dtype == Dtype::float64) refuse("dtype must not be float64 for exponentials, which are float32's");
  if (plan.body == Body::stochasticmean && plan.dtype == Dtype::float64) refuse("dtype must not be float64 for squares, which would overflow");
  check_parameter(plan);
  if (plan.divisor > 0 || plan.count_include_pad) refuse("divisor and count_include_pad are a mean's alone");
  for (int a = 0; a < plan.rank; ++a)
    if (plan.axes[a].spans != nullptr) refuse("windows must be regular for this operation");
  if (!block.there) refuse("pooled axes must lie side by side, at most three, for this operation");
  if (plan.body != Body::blur) return;
  const double most = *std::max_element(plan.held_products.begin(), plan.held_products.end());
  if (!(most >= std::numeric_limits<float>::min() && most <= std::numeric_limits<float>::max()))
    refuse("the largest product of weights must be a normal float32, got " + std::to_string(most));
  for (const double weight : plan.held_products)
    if (weight > 0 && weight < most * 0x1p-60) refuse("weights must not differ by more than 2**60 times, got " + std::to_string(weight));
}

// Whether the engine of whole windows computes the gradient: what it holds of a row must not be too much.
bool sends_from_windows(const Plan& plan) {
  const Block& block = plan.block;
  if (plan.body <= Body::norm || plan.body == Body::mode || !is_float(plan.dtype)) return false;
  const Int taps = plan.additions + 1;
  if (!block.there || taps > most_window_taps) return false;
  for (const Axis& axis : block.axes)
    if (axis.spans != nullptr || axis.mode != Mode::absent) return false;
  const Axis &rows = block.axes[1], &last = block.axes[2];
  const Wide row = (Wide(last.output) + Wide(last.taps - 1) * last.dilation / last.step + 1) * block.inner;
  const Wide apart = plan.body == Body::blur ? Wide(rows.taps - 1) * rows.dilation / rows.step : 0;  // rows from the first tap to the last
  return row * 8 * ((taps + 4) * Wide(rows.taps + 1) + apart) <= most_line_bytes;
}

constexpr Int most_mirrored = Int(1) << 31;  // sizes and distances, so that those of the mirror are within 64 bits

std::unique_ptr<Plan> mirror_of(const Plan& plan, const PlanFields& fields) {
  if (plan.selects() || plan.body >= Body::norm || !is_float(plan.dtype)) return nullptr;
  PlanFields mirrored = fields;
  for (int a = 0; a < plan.rank; ++a) {
    const Axis& axis = plan.axes[a];
    if (axis.spans != nullptr || axis.mode != Mode::absent || axis.step != 1 || axis.output == 1) return nullptr;
    const Wide start = -Wide(axis.start) - Wide(axis.taps - 1) * axis.dilation;
    if (start < -most_mirrored || start > most_mirrored || axis.size > most_mirrored) return nullptr;
    if (axis.dilation > most_mirrored || axis.taps > most_mirrored || axis.output > most_mirrored) return nullptr;
    mirrored.tables[static_cast<std::size_t>(a)].regular = {axis.size, static_cast<Int>(start), 1, axis.dilation, axis.taps, 0, 0, "absent"};
  }
  for (int d = 0; d < plan.ndim; ++d) mirrored.shape[static_cast<std::size_t>(plan.dims[d].number)] = plan.dims[d].output;
  const bool divides = plan.shared_divisor > 0 && plan.body == Body::mean;
  mirrored.body = divides ? "mean" : "sum", mirrored.divisor = divides ? plan.shared_divisor : 0;
  return std::make_unique<Plan>(plan_without_mirror(mirrored));
}

}  // namespace

Int itemsize_of(Dtype dtype) {
  static constexpr Int sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(dtype)];
}

const char* name_of(Dtype dtype) { return dtypes[static_cast<int>(dtype)].first; }

Dtype result_dtype(const Plan& plan) {
  if (plan.body != Body::sum || is_float(plan.dtype)) return plan.dtype;
  return is_unsigned(plan.dtype) ? Dtype::uint64 : Dtype::int64;
}

std::vector<std::string> body_names() {
  std::vector<std::string> names;
  for (const auto& [name, body] : bodies) names.emplace_back(name);
  return names;
}

std::vector<std::string> whole_body_names() {
  std::vector<std::string> names;
  for (const auto& [name, body] : bodies)
    if (Plan::is_whole(body)) names.emplace_back(name);
  return names;
}

const char* kept_name(Kept kept) {
  static constexpr const char* names[] = {"", "uint8", "int32", "int64"};
  return names[static_cast<int>(kept)];
}

Int kept_size(Kept kept) {
  static constexpr Int sizes[] = {0, 1, 4, 8};
  return sizes[static_cast<int>(kept)];
}

namespace {

Plan plan_without_mirror(const PlanFields& fields) {
  Plan plan;
  plan.body = named("body", fields.body, bodies);
  plan.dtype = named("dtype", fields.dtype, dtypes);
  plan.count_include_pad = fields.count_include_pad;
  plan.divisor = fields.divisor;
  plan.truncate = fields.truncate;
  if (!(plan.divisor >= 0) || plan.divisor > std::numeric_limits<double>::max())
    refuse("divisor must be finite and at least 0 (0: none), got " + std::to_string(plan.divisor));
  if (!is_float(plan.dtype) && (plan.divisor > 0x1p53 || plan.divisor != std::floor(plan.divisor)))
    refuse("divisor must be a whole number up to 2**53 for integers, got " + std::to_string(plan.divisor));
  if (plan.body == Body::mean && plan.dtype == Dtype::boolean) refuse("dtype must not be bool for a mean, got bool");
  if (plan.body == Body::norm && !is_float(plan.dtype)) refuse("dtype must be a float's for a norm, got " + std::string(name_of(plan.dtype)));
  plan.parameter = fields.parameter;
  plan.least = fields.least;
  plan.held_weights = fields.weights;
  check_axes(fields);
  check_order(fields);
  check_weights(plan, fields);
  lay_out_axes(plan, fields);
  lay_out_dims(plan, fields);
  plan.input_size = elements(plan, &Dim::input, "the input's size");
  plan.output_size = elements(plan, &Dim::output, "the output's size");
  number_taps(plan);
  if (plan.body == Body::lp || plan.body == Body::gem) check_power(plan);
  multiply_weights(plan);
  count_readers(plan);
  find_block(plan);
  if (plan.whole()) check_whole(plan);
  plan.sends = sends_from_windows(plan);
  if (plan.body == Body::mean) find_share(plan);
  return plan;
}

Plan::Through through_of(const PlanFields& fields, const char* dtype) {
  PlanFields norms = fields, sums = fields;
  norms.dtype = sums.dtype = dtype, sums.body = "sum";
  return {std::make_unique<Plan>(plan_without_mirror(norms)), std::make_unique<Plan>(plan_of(sums))};
}

}  // namespace

Plan plan_of(const PlanFields& fields) {
  Plan plan = plan_without_mirror(fields);
  plan.mirror = mirror_of(plan, fields);
  if (plan.body == Body::norm) {
    plan.through = through_of(fields, plan.dtype == Dtype::float64 ? "float64" : "float32");
    if (plan.dtype != Dtype::float64) plan.wide = through_of(fields, "float64");
  }
  return plan;
}

}  // namespace poolwise
