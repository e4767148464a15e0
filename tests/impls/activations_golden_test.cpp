// Transcriptions of activations and softmax against what torch, transformers and models' lines returned.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/choices.hpp"
#include "reference/certified/functions/functions.hpp"

namespace norma::test {
namespace {

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";
constexpr const char* kFormats[] = {"fp32", "bf16", "fp16"};

struct Recorded {
  std::string_view call, path;
};
constexpr Recorded kElementwise[] = {
    {"silu", "torch.silu"},
    {"fp32_silu", "diffusers.fp32_silu"},
    {"swish", "timm.swish"},
    {"gelu_tanh", "torch.gelu_tanh"},
    {"gelu_new", "transformers.gelu_new"},
    {"gelu_fast", "transformers.gelu_fast"},
    {"quick_gelu", "transformers.quick_gelu"},
    {"approximate_gelu", "diffusers.approximate_gelu"},
};

struct Call {
  Tensors inputs;
  Tensor y;
};
Call call_of(const TensorFile& file, const std::string& name) {
  const nlohmann::json calls = nlohmann::json::parse(file.metadata.at("calls"));
  const nlohmann::json& call = calls.at(name);
  return {{{"x", file.tensors.at(call.at("inputs").at("x").get<std::string>())}},
          file.tensors.at(call.at("outputs").at("y").get<std::string>())};
}

bool same(const Tensor& a, const Tensor& b, std::int64_t i) {
  return a.code(i) == b.code(i) || (is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)));
}

struct Compared {
  std::int64_t unequal = 0;  ///< to the plain ideal
  std::int64_t outside = 0;  ///< of what the path allows
};
/// Of elements from `begin` to `end`.
Compared compare(std::string_view path_name, const Call& call, std::int64_t begin, std::int64_t end) {
  const CastPath* path = find_cast_path(path_name);
  REQUIRE(path != nullptr);
  const Tensor& x = call.inputs.at("x");
  const Program program = build_path(
      *path, {.x = x.format, .formats = {}, .attributes = {}, .cols = x.cols(), .profile = "", .shape = x.shape});
  std::vector<Tensor> ideals{emulate(program, call.inputs, {}).at("y")};
  const ChoiceKind kind = choice_kind(program);
  if (kind == ChoiceKind::range) {
    const OutputRange range = emulate_range(program, call.inputs, {});
    ideals.push_back(range.low.at("y"));
    ideals.push_back(range.high.at("y"));
  } else {
    REQUIRE(kind == ChoiceKind::element);
    for (int k = 1; k <= choice_ulp(program); ++k)
      for (const int nudge : {k, -k}) ideals.push_back(emulate(program, call.inputs, {}, {.nudge_ulp = nudge}).at("y"));
  }
  const Tensor held = held_against(kind, ideals, call.y);
  Compared compared;
  for (std::int64_t i = begin; i < end; ++i) {
    if (!same(ideals[0], call.y, i)) ++compared.unequal;
    if (!same(held, call.y, i)) ++compared.outside;
  }
  return compared;
}

}  // namespace

TEST_CASE("activations have bits that their library's accuracy allows, element by element", "[golden]") {
  for (const char* format : kFormats) {
    const TensorFile file = read_safetensors(kFolder + "activations." + format + ".safetensors");
    for (const Recorded& recorded : kElementwise)
      for (const char* site : {"ordinary", "hard"}) {
        const std::string name = std::string(site) + "." + std::string(recorded.call);
        const Call call = call_of(file, name);
        const auto [unequal, outside] = compare(recorded.path, call, 0, call.y.size());
        CAPTURE(format, name, recorded.path, unequal, outside, call.y.size());
        CHECK(outside == 0);
        CHECK(unequal <= call.y.size() / 10);
      }
  }
}

// ATen's loop takes pairs of vectors of 16 floats, or of 32 16-bit values; the rest one by one.
TEST_CASE("gelu has the bits of ATen's vectors and of its scalar loop", "[golden]") {
  for (const char* format : kFormats) {
    const TensorFile file = read_safetensors(kFolder + "activations." + format + ".safetensors");
    for (const char* name : {"ordinary.gelu", "hard.gelu"}) {
      const Call call = call_of(file, name);
      const std::int64_t size = call.y.size(), whole = size - size % (call.y.format == FormatId::fp32 ? 32 : 64);
      const Compared vectors = compare("torch.gelu.cpu", call, 0, whole);
      const Compared scalars = compare("torch.gelu.cpu.scalar", call, whole, size);
      CAPTURE(format, name, vectors.unequal, scalars.unequal);
      CHECK(vectors.outside == 0);
      CHECK(scalars.outside == 0);
      CHECK(vectors.unequal + scalars.unequal <= size / 10);
    }
  }
}

// oneDNN's polynomial, which fp32 and bf16 go through by default, has no stated bound: measured against the real GELU.
TEST_CASE("gelu by oneDNN is within measured distances of the real function", "[golden]") {
  for (const char* format : kFormats) {
    const TensorFile file = read_safetensors(kFolder + "activations." + format + ".safetensors");
    const Call call = call_of(file, "ordinary.gelu.default");
    const Tensor& x = call.inputs.at("x");
    double most = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const DoubleDouble y = evaluate(Function::gelu, DoubleDouble{x.value(i), 0});
      most = std::max(most, std::fabs(call.y.value(i) - y.h) / std::max(1.0, std::fabs(x.value(i))));
    }
    CAPTURE(format, most);
    CHECK(most < (call.y.format == FormatId::fp32 ? 0x1p-22 : call.y.format == FormatId::bf16 ? 0x1p-8 : 0x1p-11));
  }
}

TEST_CASE("softmax lies in the range that the exponentials' accuracy leaves", "[golden]") {
  for (const char* format : kFormats) {
    const TensorFile file = read_safetensors(kFolder + "activations." + format + ".safetensors");
    std::int64_t unequal = 0, elements = 0;
    for (const char* site : {"D1", "D3", "D16", "D17", "D33", "D64", "D100", "D1000", "special"}) {
      const Call call = call_of(file, std::string("softmax.") + site);
      const Compared compared = compare("torch.softmax.cpu", call, 0, call.y.size());
      CAPTURE(format, site, compared.unequal);
      CHECK(compared.outside == 0);
      unequal += compared.unequal;
      elements += call.y.size();
    }
    CAPTURE(format, unequal, elements);
    CHECK(unequal <= (std::string_view(format) == "fp32" ? elements / 3 : elements / 100));
  }
}

}  // namespace norma::test
