// GroupNorm, InstanceNorm, BatchNorm.
#include "reference/norms/channel_norms.hpp"

#include <array>
#include <cmath>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/running.hpp"

namespace norma {

namespace {

constexpr NormInput kX{"x", "rows,cols", true, "what is normalized, [N, C, ...]"};
constexpr NormInput kWeight{"weight", "channels", false, "factor of every channel"};
constexpr NormInput kBias{"bias", "channels", false, "added to every channel"};
constexpr NormInput kRunningMean{"running_mean", "channels", false,
                                 "the mean (statistics=running), or what is updated"};
constexpr NormInput kRunningVar{"running_var", "channels", false,
                                "the variance (statistics=running), or what is updated"};

constexpr NormInput kGroupInputs[] = {kX, kWeight, kBias};
constexpr NormInput kRunningInputs[] = {kX, kWeight, kBias, kRunningMean, kRunningVar};

constexpr NormAttribute kEps{"eps", "1e-5", "", "keeps the root away from zero"};
constexpr NormAttribute kGroupAttributes[] = {kEps, {"groups", "32", "", "how many groups the channels make"}};
constexpr NormAttribute kRunningAttributes[] = {
    kEps,
    {"statistics", "batch", "batch|running", "x's own mean and variance, or running_mean and running_var"},
    {"momentum", "0.1", "",
     "weight of x's statistics in the running ones; 1/k at step k averages all steps (torch's momentum=None)"}};
constexpr std::array<std::string_view, 2> kStatistics{"batch", "running"};

constexpr std::array<std::string_view, 1> kOutputs{"y"};
constexpr std::array<std::string_view, 3> kRunningOutputs{"y", "running_mean", "running_var"};

/// Rows that are samples of `groups` times channels / groups times spatial elements.
RowNorm by_groups(const CallReader& reader, const Channels& c, std::int64_t groups) {
  const std::int64_t each = c.channels / groups;
  const ParameterIndex index{.rows_each = 1, .period = groups, .per_row = each, .span = c.spatial};
  const auto cols = each * c.spatial;
  return {.rows = c.samples * groups,
          .cols = cols,
          .x = &reader.x(),
          .statistics = Statistics::moments,
          .groups = c.samples * groups,
          .count = static_cast<double>(cols),
          .eps_place = EpsPlace::inside,
          .eps = reader.eps(1e-5),
          .weight = {.tensor = reader.vector("weight", c.channels), .offset = 0, .index = index},
          .bias = {.tensor = reader.vector("bias", c.channels), .offset = 0, .index = index}};
}

RowNorm read_group(const NormCall& call) {
  const CallReader reader("groupnorm", call);
  const Channels c = channels_of(reader);
  const double groups = reader.number("groups", 32, "a whole number, at least 1",
                                      [](double v) { return v >= 1 && v <= 0x1p53 && v == std::floor(v); });
  const auto whole = static_cast<std::int64_t>(groups);
  if (c.channels % whole != 0)
    reader.refuse("groups is " + number_text(groups) + " but must divide the " + std::to_string(c.channels) +
                  " channels of x.");
  return by_groups(reader, c, whole);
}

/// Rows are channels; their statistics are running ones, if asked for.
RowNorm by_channels(const CallReader& reader) {
  const Channels c = channels_of(reader);
  RowNorm norm = by_groups(reader, c, c.channels);
  const Tensor* mean = reader.vector("running_mean", c.channels);
  const Tensor* variance = reader.vector("running_var", c.channels);
  if (reader.word("statistics", kStatistics) != "running") return norm;
  if (mean == nullptr || variance == nullptr)
    reader.refuse(std::string("statistics=running needs a tensor ") +
                  (mean == nullptr ? "running_mean." : "running_var."));
  norm.statistics = Statistics::given;
  norm.groups = c.channels;
  norm.count = 1;
  norm.mean = mean;
  norm.variance = variance;
  return norm;
}

/// What InstanceNorm and BatchNorm have in common. A variance of one value is 0 whatever x is, its unbiased form 0/0.
RowNorm read_running(const CallReader& reader, bool each_sample) {
  RowNorm norm = by_channels(reader);
  static_cast<void>(reader.number("momentum", 0.1, "from 0 to 1", [](double v) { return v >= 0 && v <= 1; }));
  if (norm.statistics == Statistics::given) return norm;
  const Channels c = channels_of(reader);
  const std::int64_t count = each_sample ? c.spatial : c.samples * c.spatial;
  if (count < 2)
    reader.refuse("x has shape " + shape_text(reader.x().shape) + ", one value for each channel" +
                  (each_sample ? " of a sample" : "") + "; statistics=batch needs at least two.");
  return norm;
}

RowNorm read_instance(const NormCall& call) { return read_running(CallReader("instancenorm", call), true); }

RowNorm read_batch(const NormCall& call) {
  const CallReader reader("batchnorm", call);
  RowNorm norm = read_running(reader, false);
  if (norm.statistics == Statistics::given) return norm;
  const Channels c = channels_of(reader);
  norm.groups = c.channels;
  norm.count = static_cast<double>(c.samples * c.spatial);
  return norm;
}

template <RowNorm (*read)(const NormCall&)>
void check(const NormCall& call) {
  static_cast<void>(read(call));
}

std::unique_ptr<TruthSource> group_truth(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader("groupnorm", call).refuse("there is no output " + std::string(output) + "; known: y.");
  return affine_truth(read_group(call));
}

template <RowNorm (*read)(const NormCall&)>
std::optional<RowNorm> row_norm(const NormCall& call, std::string_view output) {
  return output == "y" ? fast_problem(read(call)) : std::nullopt;
}

std::vector<NormOutput> only_y(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

/// The tensor that an output updates; null: there is no such output.
const Tensor* updated(const NormCall& call, const RowNorm& norm, std::string_view output) {
  return norm.statistics == Statistics::given ? nullptr : CallReader("", call).find(output);
}

template <RowNorm (*read)(const NormCall&)>
std::unique_ptr<TruthSource> running_truth(const NormCall& call, std::string_view output) {
  const RowNorm norm = read(call);
  if (output == "y") return affine_truth(norm);
  const CallReader reader(read == read_batch ? "batchnorm" : "instancenorm", call);
  if (output != "running_mean" && output != "running_var")
    reader.refuse("there is no output " + std::string(output) + "; known: y, running_mean, running_var.");
  const Tensor* running = updated(call, norm, output);
  if (running == nullptr)
    reader.refuse("the output " + std::string(output) + " needs statistics=batch and the input " + std::string(output) +
                  ".");
  const double momentum = reader.finite("momentum", 0.1);
  return output == "running_mean" ? running_mean_truth(norm, *running, momentum)
                                  : running_variance_truth(norm, *running, momentum);
}

template <RowNorm (*read)(const NormCall&)>
std::vector<NormOutput> running_outputs(const NormCall& call) {
  const RowNorm norm = read(call);
  std::vector<NormOutput> outputs = only_y(call);
  for (const std::string_view name : {"running_mean", "running_var"})
    if (const Tensor* running = updated(call, norm, name)) outputs.push_back({name, running->shape});
  return outputs;
}

}  // namespace

constinit const NormDef groupnorm{
    .name = "groupnorm",
    .title = "Group normalization",
    .formula = "y = weight[c] (x - mean) / sqrt(var + eps) + bias[c], over the channels of a group and their positions",
    .source = "Wu & He, Group Normalization, 2018",
    .inputs = kGroupInputs,
    .attributes = kGroupAttributes,
    .outputs = kOutputs,
    .check = check<read_group>,
    .truth = group_truth,
    .outputs_of = only_y,
    .row_norm = row_norm<read_group>,
};

constinit const NormDef instancenorm{
    .name = "instancenorm",
    .title = "Instance normalization",
    .formula = "y = weight[c] (x - mean) / sqrt(var + eps) + bias[c], over the positions of a channel, or running",
    .source = "Ulyanov, Vedaldi & Lempitsky, Instance Normalization, 2016",
    .inputs = kRunningInputs,
    .attributes = kRunningAttributes,
    .outputs = kRunningOutputs,
    .check = check<read_instance>,
    .truth = running_truth<read_instance>,
    .outputs_of = running_outputs<read_instance>,
    .row_norm = row_norm<read_instance>,
};

constinit const NormDef batchnorm{
    .name = "batchnorm",
    .title = "Batch normalization",
    .formula = "y = weight[c] (x - mean) / sqrt(var + eps) + bias[c], over a channel of all samples, or running",
    .source = "Ioffe & Szegedy, Batch Normalization, 2015",
    .inputs = kRunningInputs,
    .attributes = kRunningAttributes,
    .outputs = kRunningOutputs,
    .check = check<read_batch>,
    .truth = running_truth<read_batch>,
    .outputs_of = running_outputs<read_batch>,
    .row_norm = row_norm<read_batch>,
};

}  // namespace norma
