// Paths of GroupNorm, BatchNorm and InstanceNorm against what torch returned, layout by layout, step by step.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

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

/// torch_norms has hard rows, torch_channels ordinary channels and such whose y cancels (docs/captures.md).
constexpr std::string_view kFiles[] = {"torch_norms", "torch_channels"};

void append_calls(std::string_view file, std::string_view format, std::vector<Call>& calls) {
  const TensorFile all = read_safetensors(std::string(NORMA_SOURCE_DIR "/tests/golden/captures/").append(file) + "." +
                                          std::string(format) + ".safetensors");
  const auto listed = nlohmann::json::parse(all.metadata.at("calls"));
  for (const auto& [name, call] : listed.items()) {
    Call c{.name = std::string(file) + "/" + name,
           .norm = call.at("norm").get<std::string>(),
           .layout = call.value("layout", std::string()),
           .mode = call.value("mode", std::string()),
           .attributes = {},
           .inputs = {},
           .outputs = {}};
    if (c.norm != "groupnorm" && c.norm != "batchnorm" && c.norm != "instancenorm") continue;
    for (const auto& [key, value] : call.at("attributes").items()) c.attributes[key] = value.get<double>();
    for (const auto& [key, tensor] : call.at("inputs").items())
      c.inputs[key] = all.tensors.at(tensor.get<std::string>());
    for (const auto& [key, tensor] : call.at("outputs").items())
      c.outputs[key] = all.tensors.at(tensor.get<std::string>());
    calls.push_back(std::move(c));
  }
}

std::vector<Call> calls_of(std::string_view format) {
  std::vector<Call> calls;
  for (const std::string_view file : kFiles) append_calls(file, format, calls);
  return calls;
}

std::string_view path_of(const Call& call) {
  const bool last = call.layout == "channels_last";
  if (call.norm == "groupnorm") return last ? "torch.group_norm.cpu.channels_last" : "torch.group_norm.cpu";
  if (call.norm == "instancenorm")
    return call.mode == "eval" ? "torch.instance_norm.cpu.eval" : "torch.instance_norm.cpu";
  if (call.mode == "eval")
    return call.layout == "strided" ? "torch.batch_norm.cpu.eval.strided" : "torch.batch_norm.cpu.eval";
  return last ? "torch.batch_norm.cpu.train.channels_last" : "torch.batch_norm.cpu.train";
}

Tensors emulated(std::string_view path, const Call& call, std::string_view profile) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  const Tensor& x = call.inputs.at("x");
  Binding binding{.x = x.format,
                  .formats = {},
                  .attributes = call.attributes,
                  .cols = x.cols(),
                  .profile = std::string(profile),
                  .shape = x.shape};
  for (const auto& [name, tensor] : call.inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return emulate(build_path(*found, binding), call.inputs, call.attributes);
}

// Elements whose bits differ; all NaN are alike.
std::int64_t differing(const Tensor& got, const Tensor& want) {
  REQUIRE(got.format == want.format);
  REQUIRE(got.shape == want.shape);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const bool both_nan = is_nan_code(got.format, got.code(i)) && is_nan_code(want.format, want.code(i));
    count += !both_nan && got.code(i) != want.code(i) ? 1 : 0;
  }
  return count;
}

struct Count {
  std::int64_t elements = 0, differing = 0, calls = 0;
};

}  // namespace

TEST_CASE("torch's recorded GroupNorm, BatchNorm and InstanceNorm are their paths bit for bit",
          "[cast_paths][golden]") {
  std::map<std::string, Count> counts;  // by norm
  for (const std::string_view format : kFormats)
    for (const Call& call : calls_of(format)) {
      CAPTURE(format, call.name);
      Count& count = counts[call.norm];
      ++count.calls;
      const Tensors got = emulated(path_of(call), call, "");
      CHECK(got.size() == call.outputs.size());
      for (const auto& [name, want] : call.outputs) {
        CAPTURE(name);
        const std::int64_t wrong = differing(got.at(name), want);
        CHECK(wrong == 0);
        count.elements += want.size();
        count.differing += wrong;
      }
    }
  for (const auto& [norm, count] : counts) {
    INFO(norm << ": " << count.calls << " calls, " << count.elements << " elements, " << count.differing << " differ");
    CHECK(count.differing == 0);
    CHECK(count.calls > 20);
  }
  CHECK(counts.size() == 3);
}

TEST_CASE("the recordings tell the orders and layouts apart", "[cast_paths][golden]") {
  std::int64_t other_layout = 0, plain = 0;
  for (const Call& call : calls_of("fp32")) {
    const bool last = call.layout == "channels_last";
    if (call.norm == "groupnorm" && last)
      other_layout += differing(emulated("torch.group_norm.cpu", call, "").at("y"), call.outputs.at("y"));
    if (call.norm == "groupnorm" && !last)
      plain +=
          differing(emulated("torch.group_norm.cpu", call, "torch_cpu_moments_plain").at("y"), call.outputs.at("y"));
    if (call.norm == "batchnorm" && last && call.mode == "train")
      other_layout += differing(emulated("torch.batch_norm.cpu.train", call, "").at("y"), call.outputs.at("y"));
  }
  CHECK(other_layout > 0);
  CHECK(plain > 0);
}

TEST_CASE("norms over channels refuse what the code refuses, in one sentence", "[cast_paths]") {
  using Catch::Matchers::ContainsSubstring;
  const auto refusal = [](std::string_view path, Shape shape, Attributes attributes,
                          std::map<std::string, FormatId, std::less<>> formats = {}) -> std::string {
    Binding binding{.x = FormatId::fp32,
                    .formats = std::move(formats),
                    .attributes = std::move(attributes),
                    .cols = shape.back(),
                    .profile = {},
                    .shape = shape};
    try {
      build_path(*find_cast_path(path), binding);
    } catch (const ProgramError& e) {
      return e.what();
    }
    return "accepted";
  };
  CHECK_THAT(refusal("torch.group_norm.cpu", {2, 6, 4}, {{"eps", 1e-5}, {"groups", 4}}),
             ContainsSubstring("divides the 6 channels"));
  CHECK_THAT(refusal("torch.group_norm.cpu", {6}, {{"eps", 1e-5}, {"groups", 2}}),
             ContainsSubstring("take [N, C, ...]"));
  CHECK_THAT(refusal("torch.batch_norm.cpu.train", {1, 6}, {{"eps", 1e-5}}), ContainsSubstring("at least two"));
  CHECK_THAT(refusal("torch.instance_norm.cpu", {4, 6, 1}, {{"eps", 1e-5}}), ContainsSubstring("at least two"));
  CHECK_THAT(refusal("torch.batch_norm.cpu.eval", {4, 6, 2}, {{"eps", 1e-5}}),
             ContainsSubstring("needs the input 'running_mean'"));
  CHECK_THAT(refusal("torch.batch_norm.cpu.train", {4, 6, 2}, {{"eps", 1e-5}, {"momentum", 0.1}},
                     {{"running_mean", FormatId::fp32}}),
             ContainsSubstring("come together"));
  CHECK(refusal("torch.batch_norm.cpu.train", {4, 6, 2}, {{"eps", 1e-5}}) == "accepted");
}

}  // namespace norma::test
