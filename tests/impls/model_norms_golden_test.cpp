// Norm classes of diffusers and transformers, recorded, against their paths: bit for bit where every step is; gates,
// whose e^x is Sleef's, within what the path allows.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::test {
namespace {

using Json = nlohmann::json;

const std::map<std::string, std::string, std::less<>> kPaths = {
    {"GemmaRMSNorm", "transformers.gemma.rmsnorm"},
    {"Gemma2RMSNorm", "transformers.gemma.rmsnorm"},
    {"Gemma3RMSNorm", "transformers.gemma.rmsnorm"},
    {"Gemma3nRMSNorm", "transformers.gemma4.rmsnorm"},
    {"Gemma4RMSNorm", "transformers.gemma4.rmsnorm"},
    {"GptOssRMSNorm", "transformers.olmo2.rmsnorm"},
    {"Krea2RMSNorm", "diffusers.krea2.rmsnorm"},
    {"Llama4TextL2Norm", "transformers.llama4.l2norm"},
    {"Llama4TextRMSNorm", "transformers.llama4.text_rmsnorm"},
    {"LlamaRMSNorm", "transformers.llama.rmsnorm"},
    {"LpNorm", "diffusers.lp_norm"},
    {"MambaRMSNormGated", "transformers.mamba2.rmsnorm_gated"},
    {"MochiRMSNorm", "diffusers.mochi.rmsnorm"},
    {"Olmo2RMSNorm", "transformers.olmo2.rmsnorm"},
    {"Qwen3NextRMSNorm", "transformers.gemma.rmsnorm"},
    {"Qwen3NextRMSNormGated", "transformers.qwen3_next.rmsnorm_gated"},
    {"Zamba2RMSNormGated", "transformers.zamba2.rmsnorm_gated"},
};

struct Count {
  std::int64_t elements = 0, plain = 0, allowed = 0;  ///< equal to the plain ideal; to one of the ideals
};

Count compare(const Tensors& all, const Json& call, const CastPath& path) {
  const Tensor& want = all.at(call["outputs"]["y"].get<std::string>());
  Tensors inputs;
  for (const auto& [name, tensor] : call["inputs"].items()) {
    inputs[name] = all.at(tensor.get<std::string>());
    if (name == "x" || name == "gate") inputs[name].shape = {inputs[name].rows(), inputs[name].cols()};
  }
  Attributes attributes{{"eps", call["attributes"]["eps"].get<double>()}};
  const Tensor& x = inputs.at("x");
  if (call.contains("group_size"))
    attributes["groups"] = static_cast<double>(x.cols()) / call["group_size"].get<double>();
  Binding binding{.x = x.format, .formats = {}, .attributes = attributes, .cols = x.cols(), .profile = ""};
  binding.shape = x.shape;
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  const Program program = build_path(path, binding);
  std::vector<Tensor> ideals;
  for (int nudge = -choice_ulp(program); nudge <= choice_ulp(program); ++nudge)
    ideals.push_back(emulate(program, inputs, attributes, {.nudge_ulp = nudge}).at("y"));
  Count count{.elements = want.size()};
  for (std::int64_t i = 0; i < want.size(); ++i) {
    const auto same = [&](const Tensor& ideal) {
      const bool both_nan = std::isnan(want.value(i)) && std::isnan(ideal.value(i));
      return both_nan || want.code(i) == ideal.code(i);
    };
    REQUIRE(ideals.front().format == want.format);
    count.plain += same(ideals[ideals.size() / 2]) ? 1 : 0;
    bool any = false;
    for (const Tensor& ideal : ideals) any = any || same(ideal);
    count.allowed += any ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("recorded norm classes of models are their paths", "[cast_paths][golden]") {
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    const auto file =
        open_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/model_norms." + format + ".safetensors");
    const Tensors all =
        read_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/model_norms." + format + ".safetensors").tensors;
    const Json calls = Json::parse(file.metadata.at("calls"));
    int compared = 0;
    Count gates;
    for (const auto& [name, call] : calls.items()) {
      const auto path = kPaths.find(name.substr(0, name.find('.')));
      if (path == kPaths.end()) continue;
      CAPTURE(format, name, path->second);
      REQUIRE(find_cast_path(path->second) != nullptr);
      const Count count = compare(all, call, *find_cast_path(path->second));
      ++compared;
      if (!call["inputs"].contains("gate")) {
        CHECK(count.plain == count.elements);
        continue;
      }
      gates.elements += count.elements;
      gates.plain += count.plain;
      gates.allowed += count.allowed;
    }
    CHECK(compared >= 30);
    CAPTURE(format, gates.elements, gates.plain, gates.allowed);
    CHECK(gates.elements > 0);
    // The ideals move every e^x of a row the same way; in fp32 two elements of 3720 stand where they move apart.
    if (format == "fp32")
      CHECK(gates.elements - gates.allowed <= 2);
    else
      CHECK(gates.plain == gates.elements);
  }
}

}  // namespace norma::test
