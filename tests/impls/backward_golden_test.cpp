// Paths of gradients against what torch's autograd returned, operator by operator, layout by layout: every recorded
// bit.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::test {
namespace {

constexpr std::string_view kFormats[] = {"fp32", "bf16", "fp16"};

struct Call {
  std::string name, norm, layout, mode;
  Attributes attributes;
  Tensors inputs, outputs;
};

std::vector<Call> calls_of(std::string_view file, std::string_view format) {
  const TensorFile all = read_safetensors(std::string(NORMA_SOURCE_DIR "/tests/golden/captures/").append(file) + "." +
                                          std::string(format) + ".safetensors");
  const auto listed = nlohmann::json::parse(all.metadata.at("calls"));
  std::vector<Call> calls;
  for (const auto& [name, call] : listed.items()) {
    Call c{.name = name,
           .norm = call.at("norm").get<std::string>(),
           .layout = call.value("layout", std::string()),
           .mode = call.value("mode", std::string()),
           .attributes = {},
           .inputs = {},
           .outputs = {}};
    for (const auto& [key, value] : call.at("attributes").items()) c.attributes[key] = value.get<double>();
    for (const auto& [key, tensor] : call.at("inputs").items())
      if (key != "bias" && key != "shift" && key != "residual")
        c.inputs[key] = all.tensors.at(tensor.get<std::string>());
    if (call.contains("statistics")) {
      c.inputs["running_mean"] = all.tensors.at(call.at("statistics")[0].get<std::string>());
      c.inputs["running_var"] = all.tensors.at(call.at("statistics")[1].get<std::string>());
    }
    for (const auto& [key, tensor] : call.at("outputs").items())
      if (key != "y") c.outputs[key] = all.tensors.at(tensor.get<std::string>());
    calls.push_back(std::move(c));
  }
  return calls;
}

/// torch_gradients has modulations, fp32 parameters beside 16-bit x and dy in x's layout (docs/captures.md).
constexpr std::string_view kFiles[] = {"torch_backward", "torch_gradients"};

/// x is channels-last where the layout says so; dy is contiguous but for channels_last_both.
std::string path_of(const Call& call) {
  const bool last = call.layout == "channels_last", both = call.layout == "channels_last_both";
  if (call.norm == "modulate") return "torch.modulate_backward";
  if (call.norm == "gated_residual") return "torch.gated_residual_backward";
  if (call.norm == "layernorm") return "torch.layer_norm_backward.cpu";
  if (call.norm == "rmsnorm") return "torch.rms_norm_backward.2_8";
  if (call.norm == "instancenorm") return "torch.instance_norm_backward.cpu";
  if (call.norm == "groupnorm")
    return last ? "torch.group_norm_backward.cpu.channels_last" : "torch.group_norm_backward.cpu";
  return "torch.batch_norm_backward.cpu." + call.mode + (last ? ".mixed" : both ? ".channels_last" : "");
}

Tensors emulated(std::string_view path, const Call& call) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  const Tensor& x = call.inputs.at("x");
  Binding binding{
      .x = x.format, .formats = {}, .attributes = call.attributes, .cols = x.cols(), .profile = {}, .shape = x.shape};
  for (const auto& [name, tensor] : call.inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return emulate(build_path(*found, binding), call.inputs, call.attributes);
}

// Elements whose bits differ.
std::int64_t differing(const Tensor& got, const Tensor& want) {
  REQUIRE(got.format == want.format);
  REQUIRE(got.size() == want.size());
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) count += got.code(i) != want.code(i) ? 1 : 0;
  return count;
}

/// What the path refuses: fp32 in channels-last whose channels are neither fewer than 8 nor a multiple of 8.
bool is_refused(const Call& call) {
  const Tensor& x = call.inputs.at("x");
  return call.layout == "channels_last_both" && x.format == FormatId::fp32 && x.shape[1] > 8 && x.shape[1] % 8 != 0;
}

struct Count {
  std::int64_t elements = 0, differing = 0, calls = 0, refused = 0;
};

}  // namespace

TEST_CASE("torch's recorded gradients are their paths bit for bit", "[cast_paths][golden]") {
  std::map<std::string, Count> counts;  // by norm
  for (const std::string_view format : kFormats)
    for (const std::string_view file : kFiles)
      for (const Call& call : calls_of(file, format)) {
        CAPTURE(format, file, call.name);
        Count& count = counts[call.norm];
        if (is_refused(call)) {
          CHECK_THROWS_AS(emulated(path_of(call), call), ProgramError);
          ++count.refused;
          continue;
        }
        ++count.calls;
        const Tensors got = emulated(path_of(call), call);
        for (const auto& [name, want] : call.outputs) {
          CAPTURE(name);
          REQUIRE(got.contains(name));
          const std::int64_t wrong = differing(got.at(name), want);
          CHECK(wrong == 0);
          count.elements += want.size();
          count.differing += wrong;
        }
      }
  std::int64_t elements = 0, refused = 0;
  for (const auto& [norm, count] : counts) {
    INFO(norm << ": " << count.calls << " calls, " << count.elements << " elements, " << count.differing << " differ, "
              << count.refused << " calls refused");
    CHECK(count.differing == 0);
    CHECK(count.calls >= 6);
    elements += count.elements;
    refused += count.refused;
  }
  CHECK(counts.size() == 7);
  CHECK(elements > 150'000);
  CHECK(refused == 2);
}

TEST_CASE("the recordings tell the layouts and the saved statistics apart", "[cast_paths][golden]") {
  std::int64_t other_layout = 0, unlike = 0;
  for (const std::string_view file : kFiles)
    for (const Call& call : calls_of(file, "fp32")) {
      if (call.norm == "groupnorm" && call.layout == "channels_last")
        other_layout += differing(emulated("torch.group_norm_backward.cpu", call).at("dx"), call.outputs.at("dx"));
      if (call.norm == "batchnorm" && call.mode == "train" && call.layout == "channels_last")
        unlike += differing(emulated("torch.batch_norm_backward.cpu.train", call).at("dx"), call.outputs.at("dx"));
    }
  CHECK(other_layout > 0);
  CHECK(unlike > 0);
}

}  // namespace norma::test
