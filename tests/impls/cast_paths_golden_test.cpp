// Transcriptions of Python code against what torch returned: the emulated bits are the recorded
// ones.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::test {
namespace {

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";

// Elements whose bits differ; all NaN are alike.
std::int64_t differing(const Tensor& a, const Tensor& b) {
  REQUIRE(a.format == b.format);
  REQUIRE(a.size() == b.size());
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const bool both_nan = is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i));
    if (!both_nan && a.code(i) != b.code(i)) ++count;
  }
  return count;
}

Tensor emulated(std::string_view path, const Tensors& inputs, double eps, std::string profile) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  Binding binding{.x = inputs.at("x").format,
                  .formats = {},
                  .attributes = {{"eps", eps}},
                  .cols = inputs.at("x").cols(),
                  .profile = std::move(profile)};
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return emulate(build_path(*found, binding), inputs, {{"eps", eps}}).at("y");
}

struct Recorded {
  std::string_view output, path, weight, bias;
};

constexpr Recorded kRecorded[] = {
    {"y.torch", "torch.rms_norm.2_8", "weight", ""},
    {"y.torch.eps_none", "torch.rms_norm.2_8.eps_none", "weight", ""},
    {"y.torch.no_weight", "torch.rms_norm.2_8", "", ""},
    {"y.torch.no_weight.eps_none", "torch.rms_norm.2_8.eps_none", "", ""},
    {"y.torch.w32", "torch.rms_norm.2_8", "weight32", ""},
    {"y.torch.w16", "torch.rms_norm.2_8", "weight16", ""},
    {"y.diffusers", "diffusers.rmsnorm", "weight", ""},
    {"y.diffusers.bias", "diffusers.rmsnorm", "weight", "bias"},
    {"y.diffusers.no_weight", "diffusers.rmsnorm", "", ""},
    {"y.diffusers.w16", "diffusers.rmsnorm", "weight16", ""},
    {"y.diffusers.w32", "diffusers.rmsnorm", "weight32", ""},
    {"y.diffusers.w32.bias32", "diffusers.rmsnorm", "weight32", "bias32"},
    {"y.diffusers.w8", "diffusers.rmsnorm", "weight8", ""},
    {"y.diffusers.w8.bias", "diffusers.rmsnorm", "weight8", "bias"},
    {"y.gemma", "transformers.gemma.rmsnorm", "weight", ""},
    {"y.t5", "transformers.t5.layernorm", "weight", ""},
    {"y.t5.w32", "transformers.t5.layernorm", "weight32", ""},
    {"y.olmo2", "transformers.olmo2.rmsnorm", "weight", ""},
    {"y.flux", "bfl.flux.rmsnorm", "weight", ""},
};

// [1, C, 4, 4] as rows of channels.
Tensor rows_of_channels(const Tensor& image) {
  const std::int64_t channels = image.shape.at(1), pixels = image.size() / channels;
  Tensor rows = Tensor::zeros(image.format, {pixels, channels});
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t p = 0; p < pixels; ++p) rows.set_code(p * channels + c, image.code(c * pixels + p));
  return rows;
}

Tensor flat(Tensor t) {
  t.shape = {t.size()};
  return t;
}

}  // namespace

TEST_CASE("torch's recorded RMSNorms are their paths bit for bit", "[cast_paths][golden]") {
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    const Tensors all = read_safetensors(kFolder + "torch_ops." + format + ".safetensors").tensors;
    int compared = 0;
    for (const int d : {8, 9, 128, 576, 3072})
      for (const Recorded& r : kRecorded) {
        const std::string group = "rmsnorm.D" + std::to_string(d) + ".";
        const auto want = all.find(group + std::string(r.output));
        if (want == all.end()) continue;
        Tensors inputs{{"x", all.at(group + "x")}};
        if (!r.weight.empty()) inputs["weight"] = all.at(group + std::string(r.weight));
        if (!r.bias.empty()) inputs["bias"] = all.at(group + std::string(r.bias));
        CAPTURE(format, group, r.output, r.path);
        CHECK(differing(emulated(r.path, inputs, 1e-6, "torch_cpu"), want->second) == 0);
        ++compared;
      }
    CHECK(compared > 50);
  }
}

TEST_CASE("a model's recorded RMSNorms are Llama's path bit for bit", "[cast_paths][golden]") {
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    const Tensors all = read_safetensors(kFolder + "smollm2_135m." + format + ".safetensors").tensors;
    int compared = 0;
    for (const auto& [name, want] : all) {
      if (!name.ends_with(".y")) continue;
      const std::string site = name.substr(0, name.size() - 1);
      const Tensors inputs{{"x", all.at(site + "x")}, {"weight", all.at(site + "weight")}};
      CAPTURE(format, name);
      CHECK(differing(emulated("transformers.llama.rmsnorm", inputs, 1e-5, "torch_cpu"), want) == 0);
      // Another path is another function of the bits, or this comparison could not fail.
      if (format != "fp32")
        CHECK(differing(emulated("transformers.olmo2.rmsnorm", inputs, 1e-5, "torch_cpu"), want) > 0);
      ++compared;
    }
    CHECK(compared == 9);
  }
}

TEST_CASE("the Qwen-Image VAE norm's records are its paths bit for bit", "[cast_paths][golden]") {
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    const Tensors all = read_safetensors(kFolder + "torch_ops." + format + ".safetensors").tensors;
    for (const int c : {7, 96, 384})
      for (const std::string tag : {"before", "fixed"})
        for (const std::string bias : {"", ".bias"}) {
          const std::string group = "qwen_vae.C" + std::to_string(c) + ".";
          Tensors inputs{{"x", rows_of_channels(all.at(group + "x"))}, {"weight", flat(all.at(group + "gamma"))}};
          if (!bias.empty()) inputs["bias"] = flat(all.at(group + "bias"));
          const Tensor want = rows_of_channels(all.at(group + "y." + tag + bias));
          const std::string path =
              std::string("diffusers.qwen_image_vae.rms_norm") + (tag == "before" ? ".before_fix" : "");
          CAPTURE(format, group, tag, bias);
          CHECK(differing(emulated(path, inputs, 1e-12, "torch_cpu_strided"), want) == 0);
          // The fix, and the order of the sum, show in the bits: this comparison can fail.
          const bool fixed = tag == "fixed";
          const std::string other = std::string("diffusers.qwen_image_vae.rms_norm") + (fixed ? ".before_fix" : "");
          if (format != "fp32") CHECK(differing(emulated(other, inputs, 1e-12, "torch_cpu_strided"), want) > 0);
          if (format == "fp32" && c > 7) CHECK(differing(emulated(path, inputs, 1e-12, "pairwise"), want) > 0);
        }
  }
}

}  // namespace norma::test
