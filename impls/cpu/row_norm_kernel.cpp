// Native kernels of norms: the loops of a tail, and the same as steps of a program.
#include "impls/cpu/row_norm_kernel.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "impls/claim.hpp"
#include "impls/operands.hpp"
#include "impls/cpu/running.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

// ---- one row of each kind ----

struct Kind {
  std::string_view name, title;
  View view;
  KernelInputs inputs;
  bool running_outputs = false;
};

constexpr std::string_view kAffine[] = {"weight", "bias"};
constexpr std::string_view kAffineRunning[] = {"weight", "bias", "running_mean", "running_var"};
constexpr std::string_view kRunning[] = {"running_mean", "running_var"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kEpsGroups[] = {"eps", "groups"};
constexpr std::string_view kEpsMomentum[] = {"eps", "momentum"};
constexpr std::string_view kQuantization[] = {"quant_max", "scale_floor", "scale_cap", "scale_rule", "global_scale"};
constexpr std::string_view kMomentum[] = {"momentum"};
constexpr FixedWord kRmsWords[] = {{"eps_place", "inside"}, {"quant", "none"}};
constexpr FixedWord kLayerWords[] = {{"eps_place", "inside"}};
constexpr FixedWord kBatchWords[] = {{"statistics", "batch"}};
constexpr FixedWord kRunningWords[] = {{"statistics", "running"}};

constexpr View kGroupView{.kind = ViewKind::groups};
constexpr View kChannelView{.kind = ViewKind::channels};
constexpr View kBatchView{.kind = ViewKind::batch};

// In the order of RowNormKind.
constexpr Kind kKinds[] = {
    {.name = "rmsnorm",
     .title = "RMSNorm",
     .view = {},
     .inputs = {.norm = "rmsnorm",
                .required = {},
                .optional = kAffine,
                .numbers = kEps,
                .ignored = kQuantization,
                .words = kRmsWords}},
    {.name = "layernorm",
     .title = "LayerNorm",
     .view = {},
     .inputs = {.norm = "layernorm",
                .required = {},
                .optional = kAffine,
                .numbers = kEps,
                .ignored = {},
                .words = kLayerWords}},
    {.name = "groupnorm",
     .title = "GroupNorm",
     .view = kGroupView,
     .inputs =
         {.norm = "groupnorm", .required = {}, .optional = kAffine, .numbers = kEpsGroups, .ignored = {}, .words = {}}},
    {.name = "groupnorm.channels_last",
     .title = "GroupNorm, position by position",
     .view = {.kind = ViewKind::groups, .channels_last = true},
     .inputs =
         {.norm = "groupnorm", .required = {}, .optional = kAffine, .numbers = kEpsGroups, .ignored = {}, .words = {}}},
    {.name = "instancenorm",
     .title = "InstanceNorm",
     .view = kChannelView,
     .inputs = {.norm = "instancenorm",
                .required = {},
                .optional = kAffineRunning,
                .numbers = kEpsMomentum,
                .ignored = {},
                .words = kBatchWords},
     .running_outputs = true},
    {.name = "batchnorm.train",
     .title = "BatchNorm in training",
     .view = kBatchView,
     .inputs = {.norm = "batchnorm",
                .required = {},
                .optional = kAffineRunning,
                .numbers = kEpsMomentum,
                .ignored = {},
                .words = kBatchWords},
     .running_outputs = true},
    {.name = "batchnorm.eval",
     .title = "BatchNorm in evaluation",
     .view = kBatchView,
     .inputs = {.norm = "batchnorm",
                .required = kRunning,
                .optional = kAffine,
                .numbers = kEps,
                .ignored = kMomentum,
                .words = kRunningWords}},
};

// ---- the loops ----

NORMA_CLONES void centre_row(float* x, float mean, float r, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] = (x[i] - mean) * r;
}
NORMA_CLONES void centre_row_in_double(float* x, double mean, double r, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * r);
}
NORMA_CLONES void scale_row(float* x, float r, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] *= r;
}
NORMA_CLONES void multiply_row(float* n, const float* weight, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) n[i] *= weight[i];
}
NORMA_CLONES void add_row(float* n, const float* bias, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) n[i] += bias[i];
}
/// x alpha + beta, beta = -(alpha mean) or bias - alpha mean
NORMA_CLONES void map_row(float* x, float mean, float r, std::size_t cols) {
  const float beta = -(r * mean);
  for (std::size_t i = 0; i < cols; ++i) x[i] = x[i] * r + beta;
}
NORMA_CLONES void map_row_weighted(float* x, const float* weight, float mean, float r, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) {
    const float alpha = r * weight[i];
    x[i] = x[i] * alpha + -(alpha * mean);
  }
}
NORMA_CLONES void map_row_biased(float* x, const float* bias, float mean, float r, std::size_t cols) {
  const float shift = r * mean;
  for (std::size_t i = 0; i < cols; ++i) x[i] = x[i] * r + (bias[i] - shift);
}
NORMA_CLONES void map_row_affine(float* x, const float* weight, const float* bias, float mean, float r,
                                 std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) {
    const float alpha = r * weight[i];
    x[i] = x[i] * alpha + (bias[i] - alpha * mean);
  }
}

/// Weight and bias of a row; null where there is none.
struct RowParameters {
  const float* weight;
  const float* bias;
};

void map_alpha_beta(float* x, const RowParameters& p, float mean, float r, std::size_t cols) {
  if (p.weight != nullptr && p.bias != nullptr)
    map_row_affine(x, p.weight, p.bias, mean, r, cols);
  else if (p.weight != nullptr)
    map_row_weighted(x, p.weight, mean, r, cols);
  else if (p.bias != nullptr)
    map_row_biased(x, p.bias, mean, r, cols);
  else
    map_row(x, mean, r, cols);
}

class RowNormKernel final : public Implementation {
 public:
  RowNormKernel(RowNormKind kind, const Statistic* statistic, Tail tail)
      : kind_(kKinds[static_cast<std::size_t>(kind)]), statistic_(statistic), tail_(tail) {}

  std::string name() const override {
    std::string name = "cpu." + std::string(kind_.name);
    if (statistic_ != nullptr) name += "." + std::string(statistic_->name);
    switch (tail_) {
      case Tail::once: return name;
      case Tail::before_weight: return name + ".cast_before_weight";
      case Tail::alpha_beta: return name + ".alpha_beta";
    }
    return name;
  }

  std::string title() const override {
    std::string title(kind_.title);
    if (statistic_ != nullptr) title += ", " + std::string(statistic_->title);
    const bool centred = statistic_ == nullptr || statistic_->centred;
    switch (tail_) {
      case Tail::once: return title + (centred ? "; y = rT(((x - m) r) w + b)" : "; y = rT((x r) w + b)");
      case Tail::before_weight: return title + (centred ? "; y = rT(rT((x - m) r) w + b)" : "; y = rT(rT(x r) w + b)");
      case Tail::alpha_beta: return title + "; alpha = r w, beta = b - alpha m, y = rT(x alpha + beta)";
    }
    return title;
  }

  bool accepts_norm(std::string_view norm) const override { return norm == kind_.inputs.norm; }

  Declaration declares(const ImplCall& call) const override {
    return declare_claim(program_of(call), call);
  }

  std::optional<Program> declared_program(const ImplCall& call) const override { return program_of(call); }

  Tensors run(const ImplCall& call) override {
    const PlacedProgram placed = placed_call(program_of(call), call);
    const double eps = call.numbers.find("eps")->second;
    const auto cols = static_cast<std::size_t>(placed.layout.cols);
    const Tensor& x = call.inputs->find("x")->second;
    RowValues values(placed, "x"), weight(placed, "weight"), bias(placed, "bias");
    RowValues given_mean(placed, "running_mean"), given_variance(placed, "running_var");
    RunningStatistics running(kind_.running_outputs, call, placed.layout);
    Tensor y = Tensor::zeros(x.format, x.shape);
    RowWriter writer(placed.layout, y);
    std::vector<float> row(cols);
    for (std::int64_t i = 0; i < placed.layout.rows; ++i) {
      values.load(i, row.data());
      RowStatistic found;
      if (statistic_ != nullptr) {
        found = statistic_->find(row.data(), cols, eps);
        running.add(i, found);
      } else {
        const float variance = given_variance.of(i).one();
        found = {.mean = given_mean.of(i).one(), .variance = variance, .r = reciprocal_root(variance, eps)};
      }
      const RowValues::Values w = weight.of(i), b = bias.of(i);
      for (std::size_t at = 0; at < cols; at += kChunk)
        make_chunk(row.data() + at, found, {.weight = w.from(at), .bias = b.from(at)}, x.format,
                   std::min<std::size_t>(kChunk, cols - at));
      writer.write(i, row.data());
    }
    Tensors outputs = running.outputs();
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  void make_chunk(float* x, const RowStatistic& s, const RowParameters& p, FormatId t, std::size_t cols) const {
    const auto mean = static_cast<float>(s.mean), r = static_cast<float>(s.r);
    if (tail_ == Tail::alpha_beta) {
      map_alpha_beta(x, p, mean, r, cols);
      return;
    }
    if (statistic_ != nullptr && statistic_->in_double)
      centre_row_in_double(x, s.mean, s.r, cols);
    else if (statistic_ != nullptr && !statistic_->centred)
      scale_row(x, r, cols);
    else
      centre_row(x, mean, r, cols);
    if (tail_ == Tail::before_weight && (p.weight != nullptr || p.bias != nullptr))
      round_row(t, x, cols, Overflow::ieee);
    if (p.weight != nullptr) multiply_row(x, p.weight, cols);
    if (p.bias != nullptr) add_row(x, p.bias, cols);
  }

  Program program_of(const ImplCall& call) const {
    check_operands(kind_.inputs, call);
    Builder b(std::string(kind_.inputs.norm), binding_of(call), kind_.view);
    const Operand x = b.input("x");
    const Operand eps = b.attribute("eps");
    DeclaredStatistic s;
    if (statistic_ != nullptr) {
      s = statistic_->declare(b, x, eps);
    } else {
      s = {.mean = b.input("running_mean"), .variance = b.input("running_var"), .r = {}};
      s.r = declare_reciprocal_root(b, s.variance, eps);
    }
    const Operand y = tail_ == Tail::alpha_beta ? declare_alpha_beta(b, x, s) : declare_tail(b, x, s);
    // A cast from fp32 to fp32 is no step.
    b.output("y", b.x_format().id == FormatId::fp32 ? y : b.cast("y_T", b.x_format(), y));
    return kind_.running_outputs ? finish_with_running(std::move(b), s, kind_.view.kind == ViewKind::channels)
                                 : b.finish();
  }

  Operand declare_tail(Builder& b, Operand x, const DeclaredStatistic& s) const {
    const bool has_weight = b.binding().has("weight"), has_bias = b.binding().has("bias");
    Operand n = x;
    if (statistic_ != nullptr && statistic_->in_double) {
      n = b.cast("n", kFp32, b.mul("n_f64", kFp64, s.deviation, s.r));
    } else {
      if (s.deviation.node >= 0)
        n = s.deviation;
      else if (s.mean.node >= 0)
        n = b.sub("d", kFp32, x, s.mean);
      n = b.mul("n", kFp32, n, s.r);
    }
    if (tail_ == Tail::before_weight && (has_weight || has_bias) && b.x_format().id != FormatId::fp32)
      n = b.cast("n_T", b.x_format(), n);
    if (has_weight) n = b.mul("nw", kFp32, n, b.input("weight"));
    return has_bias ? b.add("nwb", kFp32, n, b.input("bias")) : n;
  }

  static Operand declare_alpha_beta(Builder& b, Operand x, const DeclaredStatistic& s) {
    const Operand alpha = b.binding().has("weight") ? b.mul("alpha", kFp32, s.r, b.input("weight")) : s.r;
    const Operand product = b.mul("alpha_m", kFp32, alpha, s.mean);
    const Operand beta = b.binding().has("bias") ? b.sub("beta", kFp32, b.input("bias"), product)
                                                 : b.map("beta", Op::neg, kFp32, {product});
    return b.add("x_alpha_beta", kFp32, b.mul("x_alpha", kFp32, x, alpha), beta);
  }

  const Kind& kind_;
  const Statistic* statistic_;
  Tail tail_;
};

}  // namespace

std::unique_ptr<Implementation> make_row_norm(RowNormKind kind, const Statistic* statistic, Tail tail) {
  return std::make_unique<RowNormKernel>(kind, statistic, tail);
}

}  // namespace norma
