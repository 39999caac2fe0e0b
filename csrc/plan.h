// One pooling of arrays of one shape: what to compute, which axes, in what order memory holds the output. Knows no addresses.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "geometry.h"

namespace poolwise {

enum class Body { max, min, relumax, sum, mean, norm, lp, gem, median, mode, quantile, topkmean, soft, logsumexp, stochasticmean, lip, blur };
enum class Dtype { boolean, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64 };
enum class Kept { none, bytes, words, longs };  // of one offset inside a window: 1, 4 or 8 bytes

constexpr Int most_window_taps = 49;  // of bodies that need whole windows
constexpr int most_axes = 64;  // as many as NumPy and PyTorch allow

// One axis of the arrays, in the order of memory. `pooled` is its number among the pooled axes, -1 for an axis of the batch.
struct Dim {
  Int input = 1, output = 1;
  int number = 0;  // among the axes of the array, as its user sees it
  int pooled = -1;
  Int plane_stride = 0;  // of the batch: counts the planes of per-plane spans
};

// Pooled axes that lie side by side in a dense array of shape (outer, axes[0].size, axes[1].size, axes[2].size, inner), which
// the fast engines walk. Fewer than three are preceded by axes of one cell; neighbours that one window covers whole are one axis,
// and so are an axis and a short one that every window reads whole.
struct Block {
  bool there = false;
  Int outer = 1, inner = 1;
  Axis axes[3];
  int dims[3] = {-1, -1, -1};  // which of the plan's dims each axis is
  Taps read{0, 0};             // the taps of the last axis that are present in any of its cells
  const Run* readers = nullptr;  // the cells of the last axis that read each of its elements, where engines want to know

  // Whether padding holds elements of the input.
  POOLWISE_INLINE bool folds() const { return axes[0].mode != Mode::absent || axes[1].mode != Mode::absent || axes[2].mode != Mode::absent; }
  POOLWISE_INLINE bool unfolded() const { return there && !folds(); }
  POOLWISE_INLINE Int input_rows() const { return outer * axes[0].size * axes[1].size; }
  POOLWISE_INLINE Int output_rows() const { return outer * axes[0].output * axes[1].output; }
};

struct Plan {
  Body body = Body::max;
  Dtype dtype = Dtype::float32;
  Kept kept = Kept::none;
  bool count_include_pad = false;
  bool truncate = false;  // an integer mean towards zero instead of to the nearest even
  double divisor = 0;     // 0: none is given
  double parameter = 1;  // of the body: a temperature, a quantile, a power, or how many of the largest
  double least = 0;      // to which the body raises smaller elements
  const double* weights = nullptr;  // of the taps of a window, row by row
  Int additions = 0;      // of the longest sum over one window
  Int readers = 1;        // at most so many taps read one element
  int ndim = 0, rank = 0;
  const Dim* dims = nullptr;   // slowest first
  const Axis* axes = nullptr;  // the pooled ones, in the user's order
  Block block;
  // Where every stride is 1, the gradient of a sum is a sum of gradients over the mirrored windows: the plan of that. Its windows
  // divide by `shared_divisor`, or by none where that differs.
  std::unique_ptr<Plan> mirror;
  double shared_divisor = 1;  // what every window of a mean divides by, 0 where they differ; 1 of what is no mean
  double exact_share = 1;     // its reciprocal where the product with that is the quotient, a power of two; else 0
  // Whether the gradient is computed from whole windows, and whether their elements are needed for it: the input is kept then.
  bool sends = false;
  Int input_size = 0, output_size = 0, planes = 1;

  // What the pointers above and those of the axes point to; kernels do not look here.
  std::vector<Dim> held_dims;
  std::vector<Axis> held_axes;
  std::vector<std::vector<Span>> held_spans;
  std::vector<Run> held_readers;
  std::vector<std::vector<double>> held_weights;  // of the taps of each axis
  std::vector<double> held_products;

  // A norm's gradient goes through norms and their sums (norms.h): in float32, of float64 in float64; and in float64 where that is another.
  struct Through {
    std::unique_ptr<Plan> norms, sums;
  };
  Through through, wide;
  POOLWISE_INLINE const Through& exact() const { return wide.norms == nullptr ? through : wide; }

  Plan() = default;
  Plan(Plan&&) = default;
  Plan(const Plan&) = delete;

  // Whether the body needs all of a window's elements at once.
  POOLWISE_INLINE bool whole() const { return is_whole(body); }
  static constexpr bool is_whole(Body body) { return body >= Body::median; }
  POOLWISE_INLINE bool exponential() const { return body == Body::soft || body == Body::logsumexp || body == Body::lip; }
  // Whether a second array of floats, as large as the input, says what each element weighs.
  POOLWISE_INLINE bool paired() const { return body == Body::lip; }
  POOLWISE_INLINE bool keeps_input() const { return (sends && body != Body::blur) || through.norms != nullptr; }
  POOLWISE_INLINE bool has_gradient() const { return dtype >= Dtype::float16 && (body < Body::norm || sends || through.norms != nullptr); }
  // Whether the result is the root of a sum of powers.
  POOLWISE_INLINE bool roots() const { return body == Body::norm || body == Body::lp || body == Body::gem; }
  POOLWISE_INLINE bool selects() const { return body == Body::max || body == Body::min || body == Body::relumax; }

  // A mean divides by the product of these over the axes; a given divisor stands on the last axis alone.
  POOLWISE_INLINE double divided_by(const Axis& axis, bool last, Int cell, Int plane) const {
    if (divisor > 0) return last ? divisor : 1;
    if (axis.weights != nullptr) return weight(axis, axis.present(cell, plane));
    return static_cast<double>(count_include_pad ? axis.counting(cell, plane) : axis.present(cell, plane).count);
  }

 private:
  static POOLWISE_INLINE double weight(const Axis& axis, Taps taps) {
    double sum = 0;
    for (Int t = taps.first; t < taps.first + taps.count; ++t) sum += axis.weights[t];
    return sum;
  }
};

struct RegularFields {
  Int output, start, step, dilation, taps, low, high;
  std::string mode;
};

// One pooled axis as the caller describes it: regular, or uneven by spans (planes × output of them) of at most `taps` elements.
struct AxisFields {
  RegularFields regular{};
  bool uneven = false;
  Int taps = 0, planes = 1;
  std::vector<Span> spans{};
};

struct PlanFields {
  std::string body, dtype;
  std::vector<Int> shape;        // of the input
  std::vector<Int> axes;         // the pooled ones
  std::vector<AxisFields> tables;  // one for each of them
  std::vector<Int> order;        // the axes in the order in which memory holds the output, slowest first
  bool count_include_pad = false;
  double divisor = 0;
  bool truncate = false;
  double parameter = 1;          // of a body that has one
  double least = 0;
  std::vector<std::vector<double>> weights{};  // of a blur, one for each tap of each axis
};

// Checks everything, in 64-bit arithmetic that cannot wrap. Throws std::invalid_argument with a sentence.
Plan plan_of(const PlanFields& fields);

Int itemsize_of(Dtype dtype);
const char* name_of(Dtype dtype);
Dtype result_dtype(const Plan& plan);  // a sum of integers widens
// The bodies that there are, as PlanFields names them, and those of them that need whole windows.
std::vector<std::string> body_names();
std::vector<std::string> whole_body_names();
const char* kept_name(Kept kept);
Int kept_size(Kept kept);

}  // namespace poolwise
