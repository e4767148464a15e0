// Running statistics of native kernels.
#include "impls/cpu/running.hpp"

#include <string>

#include "impls/cpu/lanes.hpp"

namespace norma {

RunningStatistics::RunningStatistics(bool has_outputs, const ImplCall& call, const Layout& layout) {
  if (!has_outputs) return;
  for (const std::string_view name : {"running_mean", "running_var"}) {
    const auto found = call.inputs->find(name);
    if (found == call.inputs->end()) continue;
    if (found->second.size() != layout.channels)
      throw ImplSkipped(std::string(name) + " must have " + std::to_string(layout.channels) + " values, got shape " +
                        shape_text(found->second.shape));
    parts_.push_back(
        {.name = name, .old = &found->second, .sums = std::vector<float>(static_cast<std::size_t>(layout.channels))});
  }
  momentum_ = static_cast<float>(call.numbers.find("momentum")->second);
  count_ = static_cast<float>(layout.cols);
  samples_ = static_cast<float>(layout.samples);
  each_sample_ = layout.view.kind == ViewKind::channels;
}

void RunningStatistics::add(std::int64_t row, const RowStatistic& found) {
  for (Part& part : parts_) {
    const auto channels = static_cast<std::int64_t>(part.sums.size());
    float& sum = part.sums[static_cast<std::size_t>(row % channels)];
    const float fresh = part.name == "running_mean" ? static_cast<float>(found.mean)
                                                    : static_cast<float>(found.variance) * (count_ / (count_ - 1));
    sum = each_sample_ ? sum + fresh : fresh;
  }
}

Tensors RunningStatistics::outputs() const {
  Tensors outputs;
  const float keep = 1 - momentum_;
  for (const Part& part : parts_) {
    Tensor updated = Tensor::zeros(part.old->format, part.old->shape);
    for (std::int64_t c = 0; c < updated.size(); ++c) {
      const float sum = part.sums[static_cast<std::size_t>(c)];
      const float fresh = each_sample_ ? sum / samples_ : sum;
      const float value = keep * static_cast<float>(part.old->value(c)) + momentum_ * fresh;
      updated.set_code(c, encode(updated.format, static_cast<double>(value), Overflow::ieee));
    }
    outputs.emplace(part.name, std::move(updated));
  }
  return outputs;
}

namespace {

/// A cast, but for an fp32 value none: it is no step.
Operand fitted(Builder& b, const std::string& name, FormatRef to, Operand value) {
  return b.format(value) == to ? value : b.cast(name, to, value);
}

}  // namespace

Program finish_with_running(Builder b, const DeclaredStatistic& found, bool each_sample) {
  const bool mean = b.binding().has("running_mean"), variance = b.binding().has("running_var");
  if (!mean && !variance) return b.finish();
  Operand fresh_mean, fresh_variance;
  if (mean) fresh_mean = fitted(b, "mean_f32", kFp32, found.mean);
  if (variance) {
    const Operand n1 = b.sub("n1", kFp32, b.count(), b.constant("one", 1));
    const Operand ratio = b.div("bessel", kFp32, b.count(), n1);
    fresh_variance = b.mul("unbiased", kFp32, fitted(b, "var_f32", kFp32, found.variance), ratio);
  }
  if (each_sample) {
    // What was a row is a column of the next stage: [samples, channels], a row being a channel.
    if (mean) b.pass("sample_mean", fresh_mean);
    if (variance) b.pass("sample_variance", fresh_variance);
    b = b.next_stage({.kind = ViewKind::batch});
    const auto over_samples = [&b](const std::string& name, const std::string& of) {
      return b.reduce(name, kFp32, b.input(of, kRowsCols), mean_of(Term::value, {.kind = OrderKind::sequential}));
    };
    if (mean) fresh_mean = over_samples("mean", "sample_mean");
    if (variance) fresh_variance = over_samples("variance", "sample_variance");
  }
  const Operand momentum = b.cast("momentum_f32", kFp32, b.attribute("momentum"));
  const Operand keep = b.sub("keep", kFp32, b.constant("whole", 1), momentum);
  const auto update = [&](const std::string& name, Operand fresh) {
    const Operand old = b.input(name);
    const Operand sum = b.add(name + "_new", kFp32, b.mul(name + "_kept", kFp32, keep, old),
                              b.mul(name + "_part", kFp32, momentum, fresh));
    b.output(name, fitted(b, name + "_stored", b.format(old), sum));
  };
  if (mean) update("running_mean", fresh_mean);
  if (variance) update("running_var", fresh_variance);
  return b.finish();
}

}  // namespace norma
