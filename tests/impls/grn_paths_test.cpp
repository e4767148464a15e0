// Paths of global response normalization: every bit that the real code returned, and what their erasures mean.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/slips.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr std::string_view kPaths[] = {"facebook.convnextv2.grn", "transformers.convnextv2.grn", "diffusers.grn",
                                       "timm.grn", "timm.grn.2023"};

struct Call {
  std::string name, form;
  Tensors inputs;
  Tensor y;
};

std::vector<Call> calls_of(const std::string& file) {
  const TensorFile all = read_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/" + file + ".safetensors");
  std::vector<Call> calls;
  const auto listed = nlohmann::json::parse(all.metadata.at("calls"));
  for (const auto& [name, call] : listed.items()) {
    if (call.at("norm").get<std::string>() != "grn") continue;
    Call c{.name = name, .form = call.at("operator").get<std::string>(), .inputs = {}, .y = {}};
    for (const auto& [key, tensor] : call.at("inputs").items())
      c.inputs[key == "gamma" ? "weight" : key == "beta" ? "bias" : key] = all.tensors.at(tensor.get<std::string>());
    c.y = all.tensors.at(call.at("outputs").at("y").get<std::string>());
    calls.push_back(std::move(c));
  }
  return calls;
}

Binding binding_of(const Tensors& inputs) {
  Binding b;
  b.x = inputs.at("x").format, b.cols = inputs.at("x").cols(), b.shape = inputs.at("x").shape;
  for (const auto& [name, tensor] : inputs)
    if (name != "x") b.formats[name] = tensor.format;
  return b;
}

std::int64_t equal(std::string_view path, const Call& call) {
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  const Tensor y = emulate(build_path(*found, binding_of(call.inputs)), call.inputs, {{"eps", 1e-6}}).at("y");
  REQUIRE(y.format == call.y.format);
  REQUIRE(y.shape == call.y.shape);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) count += y.code(i) == call.y.code(i);
  return count;
}

Tensors small_inputs(FormatId format) {
  const auto tensor = [&](Shape shape, double first, double step) {
    Tensor t = Tensor::zeros(format, std::move(shape));
    for (std::int64_t i = 0; i < t.size(); ++i)
      t.set_code(i, encode(format, first + step * static_cast<double>((i * 7) % 11), Overflow::ieee));
    return t;
  };
  Tensors in;
  in["x"] = tensor({2, 2, 3, 5}, -1.5, 0.375);
  in["weight"] = tensor({5}, 0.5, 0.25);
  in["bias"] = tensor({5}, -0.25, 0.125);
  return in;
}

/// Elements of the erasure that are certainly not the canonical norm's.
std::int64_t differing(const Program& meant, const Tensors& in) {
  const Attributes numbers{{"eps", 0.1}};
  const auto canonical = find_norm("grn")->truth({.inputs = &in, .numbers = numbers, .words = {}}, "y");
  const auto erased = program_truth(meant, in, numbers, "y");
  REQUIRE(erased->rows() == canonical->rows());
  std::int64_t count = 0;
  for (std::int64_t r = 0; r < canonical->rows(); ++r)
    for (std::int64_t c = 0; c < canonical->cols(); ++c) {
      const Enclosure a = canonical->enclose(r, c), b = erased->enclose(r, c);
      count += std::abs((a.hi - b.hi) + (a.lo - b.lo)) > a.radius + b.radius;
    }
  return count;
}

}  // namespace

TEST_CASE("GRN paths have every bit of what the real code returned") {
  const std::map<std::string, std::vector<std::string_view>> paths_of{
      {"transformers", {"transformers.convnextv2.grn", "facebook.convnextv2.grn"}},
      {"diffusers.models.normalization.GlobalResponseNorm", {"diffusers.grn"}},
      {"timm", {"timm.grn"}},
      {"timm.2023", {"timm.grn.2023"}}};
  std::int64_t compared = 0;
  for (const std::string format : {"fp32", "bf16", "fp16"})
    for (const std::string file : {"grn.", "model_norms."})
      for (const Call& call : calls_of(file + format))
        for (const std::string_view path : paths_of.at(call.form)) {
          CAPTURE(format, call.name, path);
          CHECK(equal(path, call) == call.y.size());
          compared += call.y.size();
        }
  CHECK(compared == 3 * (4 * (1632 + 96 + 42) + 1440));
}

TEST_CASE("the forms of GRN differ where they round, and mean the same") {
  for (const Call& call : calls_of("grn.bf16"))
    if (call.name.starts_with("wide") && call.form == "timm") CHECK(equal("timm.grn.2023", call) < call.y.size());
  for (const std::string_view name : kPaths) {
    const CastPath& path = *find_cast_path(name);
    for (const FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16}) {
      const Tensors in = small_inputs(format);
      const Program meant = erase_roundings(build_path(path, binding_of(in)));
      CAPTURE(name, print_program(meant));
      CHECK(differing(meant, in) == 0);
      if (format != FormatId::bf16) continue;
      // One slip anywhere, in whichever stage, shows.
      for (std::size_t s = 0; s <= meant.stages.size(); ++s) {
        const Program& stage = s < meant.stages.size() ? meant.stages[s] : meant;
        for (std::size_t i = 0; i < stage.nodes.size(); ++i) {
          const auto slipped = slip(stage, i);
          if (!slipped) continue;
          Program wrong = meant;
          (s < meant.stages.size() ? wrong.stages[s] : wrong).nodes = slipped->nodes;
          CAPTURE(s, stage.nodes[i].names[0]);
          CHECK(differing(wrong, in) > 0);
        }
      }
    }
  }
}

TEST_CASE("GRN paths take images of floats with both parameters") {
  const CastPath& path = *find_cast_path("timm.grn");
  Tensors in = small_inputs(FormatId::bf16);
  in["weight"] = small_inputs(FormatId::fp32)["weight"];
  const Program mixed = build_path(path, binding_of(in));
  CHECK(mixed.nodes[static_cast<std::size_t>(mixed.find_output("y")->value.node)].rounding.format->id ==
        FormatId::fp32);
  Binding flat = binding_of(in);
  flat.shape = {4, 5};
  CHECK_THROWS_WITH(build_path(path, flat), ContainsSubstring("x has 2 axes; GRN takes [N, H, W, C]"));
}

}  // namespace norma::test
