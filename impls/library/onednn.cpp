// oneDNN's normalizations: what they take, and the call.
#include "impls/library/onednn.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "impls/library/onednn_library.hpp"

namespace norma {

namespace {

struct Offered {
  OneDnnKind kind;
  std::string_view name;
  std::string_view norm;
  std::string_view title;
};

constexpr Offered kOffered[] = {
    {OneDnnKind::layer, "onednn.layernorm", "layernorm", "layer normalization"},
    {OneDnnKind::rms, "onednn.rmsnorm", "rmsnorm", "layer normalization with its RMSNorm flag"},
    {OneDnnKind::batch, "onednn.batchnorm", "batchnorm", "batch normalization, training and evaluation"},
    {OneDnnKind::group, "onednn.groupnorm", "groupnorm", "group normalization"},
};

/// An attribute whose other values are another function, which oneDNN does not have.
struct Only {
  std::string_view attribute;
  std::string_view word;  ///< empty: `number`
  double number;
};
constexpr Only kOnly[] = {
    {"eps_place", "inside", 0}, {"quant", "none", 0}, {"weight_offset", {}, 0}, {"correction", {}, 0}};

[[noreturn]] void refuse(const Offered& row, const std::string& why) { throw ImplSkipped(std::string(row.name) + why); }

const Tensor* find(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

void check_attributes(const Offered& row, const ImplCall& call) {
  for (const Only& only : kOnly) {
    if (const auto word = call.words.find(only.attribute);
        !only.word.empty() && word != call.words.end() && word->second != only.word)
      refuse(row,
             " computes " + std::string(only.attribute) + "=" + std::string(only.word) + " alone, not " + word->second);
    if (const auto number = call.numbers.find(only.attribute);
        only.word.empty() && number != call.numbers.end() && number->second != only.number)
      refuse(row, " has no " + std::string(only.attribute));
  }
}

/// fp32, a value a channel; null: none.
const Tensor* parameter(const Offered& row, const ImplCall& call, std::string_view name, std::int64_t count) {
  const Tensor* tensor = find(call, name);
  if (tensor == nullptr) return nullptr;
  if (tensor->format != FormatId::fp32)
    refuse(row, " takes " + std::string(name) + " in fp32, and here it is " + std::string(name_of(tensor->format)));
  if (tensor->size() != count)
    refuse(row, " takes " + std::string(name) + " as one vector, and here it is " + shape_text(tensor->shape));
  return tensor;
}

OneDnnCall read(const Offered& row, const ImplCall& call) {
  const Tensor& x = call.inputs->at("x");
  if (x.format != FormatId::fp32 && x.format != FormatId::bf16 && x.format != FormatId::fp16)
    refuse(row, " takes x in fp32, bf16 or fp16, and here it is " + std::string(name_of(x.format)));
  check_attributes(row, call);
  if (find(call, "residual") != nullptr) refuse(row, " adds no residual");
  const bool rows = row.kind == OneDnnKind::layer || row.kind == OneDnnKind::rms;
  OneDnnCall made{.kind = row.kind, .x = &x, .dims = rows ? Shape{x.rows(), x.cols()} : x.shape};
  // Of six axes 3.7.2 writes outside its tensors (measured); its guide knows up to five.
  if (!rows && (x.shape.size() < 2 || x.shape.size() > 5))
    refuse(row, " takes x of 2 to 5 axes, and here it is " + shape_text(x.shape));
  const std::int64_t channels = rows ? x.cols() : x.shape.at(1);
  // Its epsilon is a float, as in its C interface.
  if (const auto eps = call.numbers.find("eps"); eps != call.numbers.end()) made.eps = static_cast<float>(eps->second);
  if (const auto groups = call.numbers.find("groups"); groups != call.numbers.end())
    made.groups = static_cast<std::int64_t>(groups->second);
  // Of two axes its kernels of 3.7 take the channels for positions and write outside their tensors (measured, 3.7.2).
  if (row.kind == OneDnnKind::group && made.dims.size() == 2) made.dims.push_back(1);
  made.weight = parameter(row, call, "weight", channels);
  made.bias = parameter(row, call, "bias", channels);
  if (row.kind != OneDnnKind::batch) return made;
  const auto statistics = call.words.find("statistics");
  if (statistics != call.words.end() && statistics->second == "running") {
    made.mean = parameter(row, call, "running_mean", channels);
    made.variance = parameter(row, call, "running_var", channels);
  } else if (find(call, "running_mean") != nullptr || find(call, "running_var") != nullptr) {
    refuse(row,
           " gives a batch's mean and variance and updates no running ones: leave running_mean and running_var out");
  }
  return made;
}

class OneDnn final : public Implementation {
 public:
  explicit OneDnn(const Offered& row) : row_(row) {}

  std::string name() const override { return std::string(row_.name); }
  std::string title() const override {
    const OneDnnState& state = onednn_state();
    const std::string what = "oneDNN's " + std::string(row_.title);
    if (state.version.empty()) return what + ": not available here, " + state.missing;
    const std::string with = what + ", version " + state.version + " on one thread";
    return onednn_has(row_.kind) ? with : with + ": this version has none";
  }
  bool accepts_norm(std::string_view norm) const override { return norm == row_.norm; }

  /// The plain loops are transcribed, and only the reference loop leaves nothing to the compiler; for generated code
  /// a case names the path that it is held to.
  Declaration declares(const ImplCall& call) const override {
    const auto kernel = onednn_kernel(read(row_, call));
    if (row_.kind == OneDnnKind::layer && kernel && kernel->starts_with("ref"))
      return {.path = "onednn.layernorm.reference", .profile = {}, .claim_ulp = std::nullopt};
    return {};
  }

  Tensors run(const ImplCall& call) override {
    Tensors outputs;
    outputs.emplace("y", onednn_run(read(row_, call)));
    return outputs;
  }

 private:
  const Offered& row_;
};

}  // namespace

std::span<Implementation* const> onednn_implementations() {
  static std::array<OneDnn, std::size(kOffered)> made{OneDnn(kOffered[0]), OneDnn(kOffered[1]), OneDnn(kOffered[2]),
                                                      OneDnn(kOffered[3])};
  static const std::array<Implementation*, std::size(kOffered)> list{&made[0], &made[1], &made[2], &made[3]};
  return list;
}

}  // namespace norma
