// Paths of LayerNorm against what the real code returned: the emulated bits are the recorded ones.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <nlohmann/json.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "impls/emulate/orders.hpp"

namespace norma::test {
namespace {

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";
constexpr std::string_view kFormats[] = {"fp32", "bf16", "fp16"};

struct Call {
  std::string name, operation;
  double eps = 0;
  Tensors inputs;
  Tensor y;
};

std::vector<Call> calls_of(const std::string& file, std::string_view norm) {
  const TensorFile all = read_safetensors(kFolder + file);
  std::vector<Call> calls;
  const auto listed = nlohmann::json::parse(all.metadata.at("calls"));
  for (const auto& [name, call] : listed.items()) {
    if (call.at("norm").get<std::string>() != norm) continue;
    Call c{.name = name,
           .operation = call.at("operator").get<std::string>(),
           .eps = call.at("attributes").at("eps").get<double>(),
           .inputs = {},
           .y = all.tensors.at(call.at("outputs").at("y").get<std::string>())};
    for (const auto& [input, tensor] : call.at("inputs").items())
      c.inputs[input] = all.tensors.at(tensor.get<std::string>());
    calls.push_back(std::move(c));
  }
  return calls;
}

struct Count {
  std::int64_t elements = 0, differing = 0;
};

// Elements whose bits differ; all NaN are alike.
Count compare(const Tensor& got, const Tensor& want) {
  REQUIRE(got.format == want.format);
  REQUIRE(got.size() == want.size());
  Count count{.elements = got.size()};
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const bool both_nan = is_nan_code(got.format, got.code(i)) && is_nan_code(want.format, want.code(i));
    if (!both_nan && got.code(i) != want.code(i)) ++count.differing;
  }
  return count;
}

Count against(std::string_view path, const Call& call, std::string profile) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  Binding binding;
  binding.x = call.inputs.at("x").format;
  binding.attributes = {{"eps", call.eps}};
  binding.cols = call.inputs.at("x").cols();
  binding.profile = std::move(profile);
  for (const auto& [name, tensor] : call.inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return compare(emulate(build_path(*found, binding), call.inputs, {{"eps", call.eps}}).at("y"), call.y);
}

struct Recorded {
  std::string_view operation, path, profile;
  std::string_view other;  // a profile that must not give these bits
};

// torch 2.15 on a CPU with FMA; what is recorded of diffusers and transformers ran on it.
constexpr Recorded kTorch[] = {
    {"torch.nn.functional.layer_norm", "torch.layer_norm.cpu", "torch_cpu_moments", "torch_cpu_moments_2_6"},
    {"FP32LayerNorm: layer_norm(x.float(), ...).to(x.dtype)", "diffusers.fp32_layer_norm", "torch_cpu_moments", ""},
    {"diffusers.models.normalization.FP32LayerNorm", "diffusers.fp32_layer_norm", "torch_cpu_moments", ""},
    {"transformers.models.cohere.modeling_cohere.CohereLayerNorm", "transformers.cohere.layernorm", "torch_cpu", ""},
    {"transformers.models.nemotron.modeling_nemotron.NemotronLayerNorm1P", "transformers.nemotron.layernorm1p",
     "torch_cpu_moments", ""},
    {"transformers.models.olmo.modeling_olmo.OlmoLayerNorm", "transformers.olmo.layernorm", "torch_cpu_moments", ""},
};

const Recorded* recorded(std::string_view operation) {
  for (const Recorded& r : kTorch)
    if (r.operation == operation) return &r;
  return nullptr;
}

}  // namespace

TEST_CASE("torch's recorded LayerNorms are their paths bit for bit", "[cast_paths][golden]") {
  std::int64_t elements = 0;
  std::int64_t other = 0;  // torch 2.6's merges show in the bits: this comparison can fail
  int calls = 0;
  for (const std::string_view format : kFormats)
    for (const std::string_view file : {"torch_norms.", "model_norms."})
      for (const Call& call : calls_of(std::string(file) + std::string(format) + ".safetensors", "layernorm")) {
        CAPTURE(format, call.name, call.operation);
        const Recorded* path = recorded(call.operation);
        REQUIRE(path != nullptr);
        const Count count = against(path->path, call, std::string(path->profile));
        CHECK(count.differing == 0);
        elements += count.elements;
        if (!path->other.empty()) other += against(path->path, call, std::string(path->other)).differing;
        ++calls;
      }
  CHECK(other > 0);
  CHECK(calls == 228);
  CHECK(elements == 337131);
}

// mean and 1/sqrt(var) of native_layer_norm at eps 0, torch 2.15, avx2 and avx512. Each row's bits change under at
// least one other form: torch 2.6's merges, a fused mean, unfused products, the other scalar tail, lanes merged as
// vectors are.
TEST_CASE("torch's own moments are reproduced in every bit", "[cast_paths][golden]") {
  struct Measured {
    FormatId format;
    int cols, shift;
    std::uint32_t mean, root;
  };
  constexpr Measured kMeasured[] = {
      {FormatId::fp32, 257, 0, 0x409b532c, 0x3ddf05a4},  {FormatId::fp32, 579, 0, 0x409fd276, 0x3dde2e2f},
      {FormatId::fp32, 19, 1, 0x409ca86c, 0x3de90b77},   {FormatId::fp32, 513, 1, 0x409e887c, 0x3dde8807},
      {FormatId::fp32, 300, 3, 0x40a0d8bf, 0x3dde5391},  {FormatId::bf16, 257, 0, 0x3fc235ca, 0x3e61afba},
      {FormatId::bf16, 1003, 4, 0x3fc8392b, 0x3e62065f}, {FormatId::bf16, 4101, 1, 0x3fc80cfc, 0x3e62164d},
      {FormatId::bf16, 45, 6, 0x3fb5b05c, 0x3e5d4c49},   {FormatId::fp16, 579, 0, 0x409fd276, 0x3dde2e2e},
      {FormatId::fp16, 1003, 1, 0x409e7b27, 0x3ddeaaed}, {FormatId::fp16, 3077, 1, 0x409f36d4, 0x3ddea63a},
      {FormatId::fp16, 135, 4, 0x40a75555, 0x3ddfa831},
  };
  for (const Measured& m : kMeasured) {
    CAPTURE(name_of(m.format), m.cols, m.shift);
    const bool coarse = m.format == FormatId::bf16;
    std::vector<double> x;
    for (int i = 0; i < m.cols; ++i) {
      const int k = i * 7919 + 1000 * m.shift;
      x.push_back(coarse ? (k % 251 - 100) / 16.0 : (k % 2039 - 700) / 64.0);
    }
    const OrderKind kind = m.format == FormatId::fp16 ? OrderKind::torch_moments_fp16 : OrderKind::torch_moments;
    const Order order{.kind = kind, .count = 8, .vec = m.format == FormatId::fp32 ? 1 : 2};
    const Moments got = ordered_moments(order, FormatId::fp32, true, x);
    CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(got.mean)) == m.mean);
    CHECK(std::bit_cast<std::uint32_t>(1.0f / std::sqrt(static_cast<float>(got.variance))) == m.root);
  }
}

}  // namespace norma::test
