// The backward of GroupNorm, InstanceNorm, BatchNorm.
#include "reference/norms/backward/channel_norms.hpp"

#include <array>
#include <cmath>

#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/call.hpp"

namespace norma {

namespace {

constexpr std::string_view kGroup = "groupnorm_backward", kInstance = "instancenorm_backward",
                           kBatch = "batchnorm_backward";

constexpr NormInput kX{"x", "rows,cols", true, "what the forward normalized, [N, C, ...]"};
constexpr NormInput kDy{"dy", "rows,cols", true, "gradient of the forward's output"};
constexpr NormInput kWeight{"weight", "channels", false, "factor of every channel"};
constexpr NormInput kGroupInputs[] = {kX, kDy, kWeight};
constexpr NormInput kRunningInputs[] = {kX,
                                        kDy,
                                        kWeight,
                                        {"running_mean", "channels", false, "the mean (statistics=running)"},
                                        {"running_var", "channels", false, "the variance (statistics=running)"}};

constexpr NormAttribute kEps{"eps", "1e-5", "", "keeps the root away from zero"};
constexpr NormAttribute kGroupAttributes[] = {kEps, {"groups", "32", "", "how many groups the channels make"}};
constexpr NormAttribute kRunningAttributes[] = {
    kEps, {"statistics", "batch", "batch|running", "x's own mean and variance, or running_mean and running_var"}};
constexpr std::array<std::string_view, 2> kStatistics{"batch", "running"};
constexpr std::array<std::string_view, 3> kOutputs{"dx", "dweight", "dbias"};

/// Rows are samples of `groups` times channels / groups times spatial elements, as the forward's are.
Gradients by_groups(const CallReader& reader, const Channels& c, std::int64_t groups) {
  const std::int64_t each = c.channels / groups;
  const ParameterIndex index{.rows_each = 1, .period = groups, .per_row = each, .span = c.spatial};
  const std::int64_t cols = each * c.spatial;
  Gradients g{.forward = {.rows = c.samples * groups,
                          .cols = cols,
                          .x = &reader.x(),
                          .statistics = Statistics::moments,
                          .groups = c.samples * groups,
                          .count = static_cast<double>(cols),
                          .eps_place = EpsPlace::inside,
                          .eps = reader.eps(1e-5),
                          .weight = {.tensor = reader.vector("weight", c.channels), .offset = 0, .index = index}},
              .dy = read_dy(reader)};
  if (g.forward.weight.tensor != nullptr)
    g.sums.push_back({.name = "dweight", .shape = {c.channels}, .index = index, .normalized = true});
  g.sums.push_back({.name = "dbias", .shape = {c.channels}, .index = index});
  return g;
}

Gradients read_group(const NormCall& call) {
  const CallReader reader(kGroup, call);
  const Channels c = channels_of(reader);
  const double groups = reader.number("groups", 32, "a whole number, at least 1",
                                      [](double v) { return v >= 1 && v <= 0x1p53 && v == std::floor(v); });
  const auto whole = static_cast<std::int64_t>(groups);
  if (c.channels % whole != 0)
    reader.refuse("groups is " + number_text(groups) + " but must divide the " + std::to_string(c.channels) +
                  " channels of x.");
  return by_groups(reader, c, whole);
}

/// Rows are channels; `samples_share`: those of all samples have their statistics in common.
Gradients by_channels(const CallReader& reader, bool samples_share) {
  const Channels c = channels_of(reader);
  Gradients g = by_groups(reader, c, c.channels);
  const Tensor* mean = reader.vector("running_mean", c.channels);
  const Tensor* variance = reader.vector("running_var", c.channels);
  if (reader.word("statistics", kStatistics) == "running") {
    if (mean == nullptr || variance == nullptr)
      reader.refuse(std::string("statistics=running needs a tensor ") +
                    (mean == nullptr ? "running_mean." : "running_var."));
    g.forward.statistics = Statistics::given;
    g.forward.groups = c.channels;
    g.forward.count = 1;
    g.forward.mean = mean;
    g.forward.variance = variance;
  } else if (samples_share) {
    g.forward.groups = c.channels;
    g.forward.count = static_cast<double>(c.samples * c.spatial);
  }
  return g;
}

Gradients read_instance(const NormCall& call) { return by_channels(CallReader(kInstance, call), false); }
Gradients read_batch(const NormCall& call) { return by_channels(CallReader(kBatch, call), true); }

using Group = GradientNorm<read_group, kGroup>;
using Instance = GradientNorm<read_instance, kInstance>;
using Batch = GradientNorm<read_batch, kBatch>;

}  // namespace

constinit const NormDef groupnorm_backward{
    .name = kGroup,
    .title = "Gradient of group normalization",
    .formula =
        "g = dy weight[c]; dx = r (g - mean(g) - xhat mean(g xhat)) over the channels of a group and their "
        "positions; dweight[c] = sum of dy xhat; dbias[c] = sum of dy",
    .source = "the derivative of groupnorm: Wu & He, Group Normalization, 2018",
    .inputs = kGroupInputs,
    .attributes = kGroupAttributes,
    .outputs = kOutputs,
    .check = Group::check,
    .truth = Group::truth,
    .outputs_of = Group::outputs_of,
    .fast = Group::fast,
};

constinit const NormDef instancenorm_backward{
    .name = kInstance,
    .title = "Gradient of instance normalization",
    .formula =
        "g = dy weight[c]; dx = r (g - mean(g) - xhat mean(g xhat)) over the positions of a channel, or running: "
        "g r; dweight[c] = sum of dy xhat; dbias[c] = sum of dy",
    .source = "the derivative of instancenorm: Ulyanov, Vedaldi & Lempitsky, Instance Normalization, 2016",
    .inputs = kRunningInputs,
    .attributes = kRunningAttributes,
    .outputs = kOutputs,
    .check = Instance::check,
    .truth = Instance::truth,
    .outputs_of = Instance::outputs_of,
    .fast = Instance::fast,
};

constinit const NormDef batchnorm_backward{
    .name = kBatch,
    .title = "Gradient of batch normalization",
    .formula =
        "g = dy weight[c]; dx = r (g - mean(g) - xhat mean(g xhat)) over a channel of all samples, or running: g "
        "r; dweight[c] = sum of dy xhat; dbias[c] = sum of dy",
    .source = "the derivative of batchnorm: Ioffe & Szegedy, Batch Normalization, 2015",
    .inputs = kRunningInputs,
    .attributes = kRunningAttributes,
    .outputs = kOutputs,
    .check = Batch::check,
    .truth = Batch::truth,
    .outputs_of = Batch::outputs_of,
    .fast = Batch::fast,
};

}  // namespace norma
