// Transcriptions of modulations and adaptive norms against what the real classes returned: the emulated bits are the
// recorded ones.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <string>
#include <string_view>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::test {
namespace {

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";

struct Recorded {
  std::string_view call, path;
};

// Calls of python/capture/capture_model_norms.py, for rows of 64 and of 100.
constexpr Recorded kRecorded[] = {
    {"modulate.D*.qwen", "diffusers.qwen_image.modulate"},
    {"modulate.D*.flux", "bfl.flux.modulate"},
    {"modulate.D*.flux", "diffusers.flux.modulate"},
    {"modulate.D*.dit", "facebook.dit.modulate"},
    {"modulate.D*.wan", "diffusers.wan.modulate"},
    {"modulate.D*.film", "film.gamma"},
    {"modulate.D*.gate.flux", "bfl.flux.gated_residual"},
    {"modulate.D*.gate.flux", "diffusers.qwen_image.gated_residual"},
    {"modulate.D*.gate.wan", "diffusers.wan.gated_residual"},
    {"AdaLayerNorm.D*", "diffusers.ada_layer_norm"},
    {"AdaLayerNorm.D*.chunk_dim1", "diffusers.ada_layer_norm.chunk_dim1"},
    {"AdaLayerNormZero.D*", "diffusers.ada_layer_norm_zero"},
    {"AdaLayerNormZero.D*", "bfl.flux.ada_layernorm"},
    {"AdaLayerNormZero.D*.fp32", "diffusers.ada_layer_norm_zero.fp32_layer_norm"},
    {"AdaLayerNormZeroSingle.D*", "diffusers.ada_layer_norm_zero_single"},
    {"SD35AdaLayerNormZeroX.D*", "diffusers.sd35_ada_layer_norm_zero_x"},
    {"SD35AdaLayerNormZeroX.D*.second", "diffusers.sd35_ada_layer_norm_zero_x"},
    {"AdaLayerNormContinuous.D*", "diffusers.ada_layer_norm_continuous"},
    {"AdaLayerNormContinuous.D*.affine", "diffusers.ada_layer_norm_continuous"},
    {"AdaLayerNormContinuous.D*.rms", "diffusers.ada_layer_norm_continuous.rms_norm"},
    {"AdaLayerNormContinuous.D*.rms.affine", "diffusers.ada_layer_norm_continuous.rms_norm"},
    {"LuminaLayerNormContinuous.D*", "diffusers.lumina_layer_norm_continuous"},
    {"LuminaRMSNormZero.D*", "diffusers.lumina_rms_norm_zero"},
    {"MochiRMSNormZero.D*", "diffusers.mochi_rms_norm_zero"},
    {"MochiLayerNormContinuous.D*", "diffusers.mochi_rms_norm_zero"},
};

std::string call_of(std::string_view pattern, std::string_view length) {
  std::string name(pattern);
  return name.replace(name.find('*'), 1, length);
}

Tensors inputs_of(const TensorFile& file, const nlohmann::json& call) {
  Tensors inputs;
  for (const auto& [name, tensor] : call.at("inputs").items())
    inputs[name] = file.tensors.at(tensor.get<std::string>());
  return inputs;
}

Tensor emulated(const CastPath& path, const Tensors& inputs, const Attributes& attributes, int nudge = 0) {
  Binding binding{.x = inputs.at("x").format,
                  .formats = {},
                  .attributes = attributes,
                  .cols = inputs.at("x").cols(),
                  .profile = {}};
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return emulate(build_path(path, binding), inputs, attributes, {.nudge_ulp = nudge, .threads = 1}).at("y");
}

bool same(const Tensor& a, const Tensor& b, std::int64_t i) {
  return a.code(i) == b.code(i) || (is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)));
}

// Elements whose bits differ; all NaN are alike.
std::int64_t differing(const Tensor& a, const Tensor& b) {
  REQUIRE(a.format == b.format);
  REQUIRE(a.size() == b.size());
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) count += same(a, b, i) ? 0 : 1;
  return count;
}

Attributes attributes_of(const nlohmann::json& call) {
  Attributes attributes;
  for (const auto& [name, value] : call.at("attributes").items())
    if (value.is_number()) attributes[name] = value.get<double>();
  return attributes;
}

}  // namespace

TEST_CASE("modulations and adaptive norms have the bits that the real classes return", "[golden]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    const TensorFile file = read_safetensors(kFolder + "model_norms." + format + ".safetensors");
    const nlohmann::json calls = nlohmann::json::parse(file.metadata.at("calls"));
    for (const Recorded& recorded : kRecorded)
      for (const char* length : {"64", "100"}) {
        const std::string name = call_of(recorded.call, length);
        CAPTURE(format, name, recorded.path);
        const CastPath* path = find_cast_path(recorded.path);
        REQUIRE(path != nullptr);
        const nlohmann::json& call = calls.at(name);
        const Tensor& y = file.tensors.at(call.at("outputs").at("y").get<std::string>());
        CHECK(differing(emulated(*path, inputs_of(file, call), attributes_of(call)), y) == 0);
      }
  }
}

// torch's tanh is not correctly rounded: each recorded element is that of some nudge, and most are the unnudged one's.
TEST_CASE("gates by tanh have bits that the stated accuracy allows", "[golden]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    const TensorFile file = read_safetensors(kFolder + "model_norms." + format + ".safetensors");
    const nlohmann::json calls = nlohmann::json::parse(file.metadata.at("calls"));
    for (const char* name : {"modulate.D64.gate.z_image", "modulate.D100.gate.z_image"})
      for (const char* path_name : {"diffusers.z_image.gated_residual", "diffusers.lumina.gated_residual"}) {
        CAPTURE(format, name, path_name);
        const CastPath* path = find_cast_path(path_name);
        REQUIRE(path != nullptr);
        const nlohmann::json& call = calls.at(name);
        const Tensors inputs = inputs_of(file, call);
        const Tensor& y = file.tensors.at(call.at("outputs").at("y").get<std::string>());
        std::int64_t outside = 0, unequal = 0;
        const Tensor ideals[] = {emulated(*path, inputs, {}), emulated(*path, inputs, {}, 1),
                                 emulated(*path, inputs, {}, -1), emulated(*path, inputs, {}, 2),
                                 emulated(*path, inputs, {}, -2)};
        for (std::int64_t i = 0; i < y.size(); ++i) {
          if (!same(ideals[0], y, i)) ++unequal;
          bool found = false;
          for (const Tensor& ideal : ideals) found = found || same(ideal, y, i);
          if (!found) ++outside;
        }
        CHECK(outside == 0);
        CHECK(unequal <= y.size() / 20);
      }
  }
}

}  // namespace norma::test
