// Problems of the norms, for either side.
#include "bench/reference/norm_work.hpp"

#include <fmt/core.h>

#include <stdexcept>

#include "reference/formats/convert.hpp"
#include "reference/norms/affine.hpp"

namespace norma::bench {

namespace {

PlainFormat plain_format(FormatId id) {
  switch (id) {
    case FormatId::fp32: return PlainFormat::fp32;
    case FormatId::bf16: return PlainFormat::bf16;
    case FormatId::e4m3fn: return PlainFormat::e4m3fn;
    default: throw std::logic_error("the plain loops have no " + std::string(name_of(id)));
  }
}

PlainKind plain_kind(const NormShape& s) {
  if (s.norm == "rmsnorm") return PlainKind::rms;
  if (s.norm == "layernorm") return PlainKind::layer;
  if (s.norm == "groupnorm") return PlainKind::group;
  return s.norm == "batchnorm" ? PlainKind::batch : PlainKind::affine;
}

std::int64_t parameters_of(const NormShape& s) {
  switch (plain_kind(s)) {
    case PlainKind::group: return s.period * (s.cols / s.span);
    case PlainKind::batch:
    case PlainKind::affine: return s.period;
    default: return s.cols;
  }
}

}  // namespace

std::string NormShape::text() const {
  const std::string sizes = norm == "groupnorm" ? fmt::format("{}x{}, {} channels a group", rows, cols, cols / span)
                            : period > 1        ? fmt::format("{}x{}, {} channels", rows, cols, period)
                                                : fmt::format("{}x{}", rows, cols);
  return fmt::format("{} {} to {}, {}", norm, name_of(in), name_of(out), sizes);
}

std::vector<float> decoded_floats(const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

NormWork::NormWork(const NormShape& shape, const Tensor& x)
    : NormWork(shape, x, normal_tensor(shape.in, {parameters_of(shape)}, 1, 0.1, 2),
               normal_tensor(shape.in, {parameters_of(shape)}, 0, 0.1, 3)) {}

NormWork::NormWork(const NormShape& shape, const Tensor& x, Tensor weight, Tensor bias)
    : shape_(shape),
      x_(&x),
      weight_(std::move(weight)),
      bias_(std::move(bias)),
      weight_values_(decoded_floats(weight_)),
      bias_values_(decoded_floats(bias_)) {
  const PlainKind kind = plain_kind(shape);
  const bool channels = kind == PlainKind::batch || kind == PlainKind::affine;
  ParameterIndex index;
  if (kind == PlainKind::group)
    index = {.period = shape.period, .per_row = shape.cols / shape.span, .span = shape.span};
  else if (channels)
    index = {.period = shape.period, .per_row = 1, .span = shape.cols};
  problem_ = {.rows = shape.rows,
              .cols = shape.cols,
              .x = &x,
              .statistics = kind == PlainKind::rms ? Statistics::squares : Statistics::moments,
              .groups = channels ? shape.period : shape.rows,
              .count = static_cast<double>(channels ? shape.rows / shape.period * shape.cols : shape.cols),
              .eps = shape.eps,
              .weight = {.tensor = &weight_, .index = index},
              .bias = {.tensor = &bias_, .index = index}};
  if (kind == PlainKind::rms) problem_.bias = {};
  if (kind == PlainKind::affine) {
    mean_ = normal_tensor(FormatId::fp32, {shape.period}, 0, 0.1, 4);
    variance_ = normal_tensor(FormatId::fp32, {shape.period}, 1, 0.02, 5);
    mean_values_ = decoded_floats(mean_);
    variance_values_ = decoded_floats(variance_);
    problem_.statistics = Statistics::given;
    problem_.count = 1;
    problem_.mean = &mean_;
    problem_.variance = &variance_;
  }
  exact_ = affine_truth(problem_);
}

PlainNorm NormWork::plain(std::byte* y) const {
  return {.kind = plain_kind(shape_),
          .in = plain_format(shape_.in),
          .out = plain_format(shape_.out),
          .rows = static_cast<std::size_t>(shape_.rows),
          .cols = static_cast<std::size_t>(shape_.cols),
          .x = x_->bytes.data(),
          .weight = weight_values_.data(),
          .bias = bias_values_.data(),
          .span = static_cast<std::size_t>(shape_.span),
          .period = static_cast<std::size_t>(shape_.period),
          .eps = shape_.eps,
          .mean = mean_values_.data(),
          .variance = variance_values_.data(),
          .y = y};
}

TierCounts NormWork::round(std::byte* y) const {
  return round_rows(problem_, *exact_, shape_.out, Overflow::ieee, y, 1);
}

SlowRows::SlowRows(const NormWork& work, const Tensor& tensor, std::int64_t rows) {
  const auto decoded = [](const Tensor& t, std::int64_t count) {
    std::vector<double> values(static_cast<std::size_t>(count));
    decode_row(t.format, t.bytes.data(), values.data(), values.size());
    return values;
  };
  const std::int64_t cols = work.shape().cols;
  x = decoded(tensor, rows * cols);
  weight = decoded(work.weight(), cols);
  bias = decoded(work.bias(), cols);
  y.resize(x.size());
  norm = {.rows = static_cast<std::size_t>(rows),
          .cols = static_cast<std::size_t>(cols),
          .x = x.data(),
          .weight = weight.data(),
          .bias = work.shape().norm == "rmsnorm" ? nullptr : bias.data(),
          .eps = work.shape().eps,
          .y = y.data()};
}

Timed time_certified(const NormWork& work, std::byte* y, int passes) {
  return timed_alone([&work, y, passes] {
    TierCounts tiers;
    for (int i = 0; i < passes; ++i) tiers += work.round(y);
    return tiers;
  });
}

Timed time_plain(const NormWork& work, std::byte* y, int passes) {
  return timed_alone([norm = work.plain(y), passes] {
    for (int i = 0; i < passes; ++i) plain_loops().norm(norm);
    return 0;
  });
}

}  // namespace norma::bench
