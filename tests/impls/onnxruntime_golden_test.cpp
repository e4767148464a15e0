// ONNX Runtime's normalizations on its CPU provider, recorded, against their paths: bit for bit.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "impls/emulate/orders.hpp"

namespace norma::test {
namespace {

struct Recorded {
  std::string_view operation, path;
};
constexpr Recorded kRecorded[] = {
    {"LayerNormalization", "onnxruntime.cpu.layernorm.1_31"},
    {"SkipLayerNormalization", "onnxruntime.cpu.skip_layernorm.1_31"},
    {"SimplifiedLayerNormalization", "onnxruntime.cpu.simplified_layernorm.1_31"},
    {"RMSNormalization", "onnxruntime.cpu.simplified_layernorm.1_31"},
    {"SkipSimplifiedLayerNormalization", "onnxruntime.cpu.skip_simplified_layernorm"},
    {"LpNormalization", "onnx.lpnormalization"},
    {"BatchNormalization", "onnxruntime.cpu.batch_norm"},
};

struct Count {
  std::int64_t elements = 0, differing = 0;
  std::int64_t zeros = 0;  ///< 0 where the path divides by 0
};

// All outputs of a call; all NaN are alike.
Count compare(const TensorFile& file, const nlohmann::json& call, std::string_view path, std::string_view profile) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  Tensors inputs;
  for (const auto& [name, tensor] : call.at("inputs").items())
    inputs[name] = file.tensors.at(tensor.get<std::string>());
  Attributes attributes;
  for (const auto& [name, value] : call.at("attributes").items()) attributes[name] = value.get<double>();
  const Tensor& x = inputs.at("x");
  Binding binding{.x = x.format,
                  .formats = {},
                  .attributes = attributes,
                  .cols = x.cols(),
                  .profile = std::string(profile),
                  .shape = x.shape};
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  const Tensors outputs = emulate(build_path(*found, binding), inputs, attributes);
  Count count;
  for (const auto& [name, tensor] : call.at("outputs").items()) {
    const Tensor& want = file.tensors.at(tensor.get<std::string>());
    const Tensor& got = outputs.at(name);
    REQUIRE(got.format == want.format);
    REQUIRE(got.size() == want.size());
    count.elements += want.size();
    for (std::int64_t i = 0; i < want.size(); ++i) {
      const bool both_nan = std::isnan(got.value(i)) && std::isnan(want.value(i));
      if (both_nan || got.code(i) == want.code(i)) continue;
      const bool zero = want.value(i) == 0 && !std::isfinite(got.value(i));
      (zero ? count.zeros : count.differing) += 1;
    }
  }
  return count;
}

}  // namespace

TEST_CASE("ONNX Runtime's recorded normalizations are their paths bit for bit", "[cast_paths][golden]") {
  Count all, other_order, older;
  int calls = 0;
  for (const char* format : {"fp32", "fp16", "bf16"}) {
    const TensorFile file =
        read_safetensors(std::string(NORMA_SOURCE_DIR "/tests/golden/captures/onnxruntime.") + format + ".safetensors");
    const auto listed = nlohmann::json::parse(file.metadata.at("calls"));
    for (const auto& [name, call] : listed.items()) {
      const std::string operation = name.substr(0, name.find('.'));
      for (const Recorded& recorded : kRecorded) {
        if (operation != recorded.operation || name.ends_with(".train")) continue;
        // 16-bit x goes through casts to fp32 there; the path is ONNX's own, in T.
        if (operation == "LpNormalization" && std::string_view(format) != "fp32") continue;
        CAPTURE(format, name);
        const Count count = compare(file, call, recorded.path, "");
        CHECK(count.differing == 0);
        // ONNX's text divides by a norm of 0, too, as the path does; ONNX Runtime gives zeros.
        if (operation != "LpNormalization") CHECK(count.zeros == 0);
        all.elements += count.elements;
        all.differing += count.differing;
        ++calls;
        if (std::string_view(format) == "fp32" && operation != "BatchNormalization")
          other_order.differing += compare(file, call, recorded.path, "sequential").differing;
        if (operation == "LayerNormalization" && std::string_view(format) != "bf16")
          older.differing += compare(file, call, "onnxruntime.cpu.layernorm", "").differing;
      }
    }
  }
  INFO(all.differing << " of " << all.elements << " elements differ in " << calls << " calls");
  CHECK(calls > 80);
  CHECK(all.elements > 40000);
  // The comparison can fail: another order, another version's algebra.
  CHECK(other_order.differing > 1000);
  CHECK(older.differing > 1000);
}

// The Mean that LayerNormalization of 1.31.1 returned for rows whose terms show what was added before what: 2^80 and
// -2^80 at two places, ones elsewhere. A one is lost where it meets 2^80 before -2^80 does.
TEST_CASE("ONNX Runtime's rows are added in vectors, by halves, and then the rest", "[cast_paths]") {
  struct Measured {
    int length, first, second, left;  // `left` ones
  };
  constexpr Measured kMeasured[] = {
      {8, 0, 4, 6},    {8, 0, 2, 4},   {8, 0, 1, 0},     {9, 3, 8, 0},    {11, 8, 9, 1},   {11, 0, 4, 9},
      {16, 0, 12, 12}, {16, 4, 14, 8}, {20, 16, 18, 10}, {24, 1, 23, 12}, {15, 12, 13, 1}, {13, 0, 12, 0},
  };
  // Binary64 hides the order of the mean from recorded bits: the path's own is held to what was measured.
  const Order order{.kind = OrderKind::ort_rows, .count = 4, .vec = 4};
  const Binding binding{.x = FormatId::fp32,
                        .formats = {{"weight", FormatId::fp32}},
                        .attributes = {},
                        .cols = 20,
                        .profile = {},
                        .shape = {}};
  const Program program = build_path(*find_cast_path("onnxruntime.cpu.layernorm.1_31"), binding);
  const auto sum = program.find_value("mean_f64");
  REQUIRE(sum.has_value());
  CHECK(program.nodes[static_cast<std::size_t>(sum->node)].reduction.order == order);
  for (const Measured& m : kMeasured) {
    CAPTURE(m.length, m.first, m.second);
    std::vector<double> terms(static_cast<std::size_t>(m.length), 1.0);
    terms[static_cast<std::size_t>(m.first)] = 0x1p80;
    terms[static_cast<std::size_t>(m.second)] = -0x1p80;
    CHECK(ordered_sum(order, FormatId::fp64, false, terms) == m.left);
  }
}

}  // namespace norma::test
