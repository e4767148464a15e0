// Linear layers in fp8 as diffusers and torchao computed them in a real block (python/capture/capture_blocks_fp8.py).
#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <set>

#include "impls/cast_paths/linear_plan.hpp"
#include "impls/emulate/graph.hpp"
#include "tests/impls/recorded_block.hpp"

namespace norma::test {
namespace {

/// A recorded call beside the path with this plan's linear layers.
RecordedBlock golden_with(const TensorFile& file, const std::string& call, const LinearPlan& plan) {
  RecordedBlock golden = recorded_block(file, call, "diffusers.flux.double_block");
  golden.graph = with_linears(golden.graph, plan);
  return golden;
}

LinearPlan plan_of(std::string_view mode) {
  LinearPlan plan;
  plan.mode = find_linear_mode(mode);
  REQUIRE(plan.mode != nullptr);
  return plan;
}

void check(const RecordedBlock& block, int programs) {
  const WholeErrors whole = whole_errors(block);
  CAPTURE(whole.path, whole.recorded, whole.gap);
  for (const SiteCheck& site : require_sites_as_recorded(block, {.programs = programs, .products = 15}))
    if (site.kind == "program") CHECK(site.differing == 0);
  // Both are as far from the truth, and that far by their roundings alone.
  CHECK(whole.gap < 1e-6);
  CHECK(whole.path < 1.1 * whole.recorded);
  CHECK(whole.recorded < 1.1 * whole.path);
}

}  // namespace

TEST_CASE("a block by layerwise casting has at every site the bits that diffusers stores", "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  // 21 programs of the block, and weight and bias of twelve layers: the modulation's two are left alone.
  check(recorded_block(file, "layerwise.bf16", "diffusers.flux.double_block.layerwise_e4m3"), 21 + 2 * 12);
  // The layers it keeps are those and no others; e5m2 is another function.
  const RecordedBlock plain = recorded_block(file, "layerwise.bf16", "diffusers.flux.double_block");
  std::set<std::string> cast;
  for (const char* s : {"img.", "txt."})
    for (const char* layer : {"q", "k", "v", "proj", "mlp.0", "mlp.2"}) cast.insert(std::string(s) + layer);
  RecordedBlock without = plain;
  std::erase_if(without.sites, [](const auto& value) { return value.first.ends_with(".e4m3"); });
  CHECK(refused_sites(without) == cast);
}

TEST_CASE("a block of torchao's float8 layers has at every site the codes, scales and results recorded",
          "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  // Codes and scales of 14 weights and of 9 tensors that they are multiplied with.
  check(golden_with(file, "row.bf16", plan_of("fp8_row")), 21 + 2 * (14 + 9));
  check(golden_with(file, "tensor.bf16", plan_of("fp8_tensor")), 21 + 2 * (14 + 9));
}

TEST_CASE("another scale, another rounding of it, or a changed code is not what torchao stored", "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  LinearMode fp32_scale = *find_linear_mode("fp8_row");
  fp32_scale.scale = fp32_scale.weight_scale = ScaleRule::fp32;
  LinearPlan plan;
  plan.mode = &fp32_scale;
  const std::set<std::string> names = refused_sites(golden_with(file, "row.bf16", plan));
  CHECK(names.contains("img.q.weight.e4m3.scale"));
  CHECK(names.contains("img.modulate1.e4m3"));
  CHECK_FALSE(names.contains("img.q"));  // the layer takes what it is given

  RecordedBlock golden = golden_with(file, "row.bf16", plan_of("fp8_row"));
  Tensor& scale = golden.sites.at("img.q.weight.e4m3.scale");
  scale.set_code(3, encode(scale.format, scale.value(3) * 1.25, Overflow::ieee));
  CHECK(refused_sites(golden) == std::set<std::string>{"img.q", "img.q.weight.e4m3.scale"});
}

TEST_CASE("a token of zeros becomes NaN by torchao, as by the path", "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  const Tensor &x = file.tensors.at("zero.x"), &weight = file.tensors.at("zero.weight"),
               &bias = file.tensors.at("zero.bias");
  GraphBuilder g("linear");
  const auto given = g.input("x", x.shape, x.format);
  const auto w = g.weight("weight", weight.shape, weight.format), b = g.weight("bias", bias.shape, bias.format);
  g.output(g.linear("y", {.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{x.format}}},
                    given, w, b));
  const Graph graph = with_linears(g.finish(), plan_of("fp8_row"));
  const Tensors made = emulate_graph(graph, {{"x", x}, {"weight", weight}, {"bias", bias}});
  const Tensor &got = file.tensors.at("zero.bf16.y"), &own = made.at("y");
  REQUIRE(got.shape == own.shape);
  for (std::int64_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got.value(i), own.value(i));
    CHECK(std::isnan(got.value(i)) == (i / got.cols() == 2));
    CHECK(std::isnan(own.value(i)) == std::isnan(got.value(i)));
    if (!std::isnan(own.value(i))) CHECK(own.code(i) == got.code(i));
  }
}

TEST_CASE("squares are transformers', blocks of powers of two torchao's, bit for bit", "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  const auto coded = [](std::string_view mode, const Tensor& x, const Tensor& weight) {
    GraphBuilder g("linear");
    const auto given = g.input("x", x.shape, x.format), w = g.weight("weight", weight.shape, weight.format);
    const LinearSite site{.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{x.format}}};
    g.output(g.linear("y", site, given, w));
    return emulate_graph(with_linears(g.finish(), plan_of(mode)), {{"x", x}, {"weight", weight}});
  };
  const auto same = [](const Tensor& own, const Tensor& got) {
    return own.format == got.format && own.size() == got.size() && own.bytes == got.bytes;
  };
  const Tensor& weight = file.tensors.at("squares.weight");
  const Tensors fine = coded("fp8_finegrained", weight, weight), plain = coded("fp8_block128", weight, weight);
  CHECK(same(fine.at("weight.e4m3.shaped"), file.tensors.at("squares.codes")));
  CHECK(same(fine.at("weight.e4m3.scale"), file.tensors.at("squares.scale")));
  CHECK_FALSE(same(plain.at("weight.e4m3.scale"), file.tensors.at("squares.scale")));
  const Tensor& x = file.tensors.at("mx.x");
  const Tensors mx = coded("mxfp8", x, x);
  CHECK(same(mx.at("x.e4m3"), file.tensors.at("mx.codes")));
  CHECK(same(mx.at("x.e4m3.scale"), file.tensors.at("mx.scale")));
}

TEST_CASE("torch's casts to e4m3 saturate, those to e5m2 overflow, as the modes declare", "[golden][blocks]") {
  const TensorFile file = captured("blocks_fp8");
  const Tensor& x = file.tensors.at("casts.x");
  const auto agree = [&](const char* mode, const Tensor& got) {
    const LinearMode& m = *find_linear_mode(mode);
    REQUIRE(got.format == m.format);
    std::int64_t other = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const std::uint64_t code = encode(m.format, x.value(i), m.overflow);
      const bool nan = is_nan_code(m.format, code) && is_nan_code(m.format, got.code(i));
      other += nan || code == got.code(i) ? 0 : 1;
    }
    return other;
  };
  CHECK(agree("layerwise_e4m3", file.tensors.at("casts.e4m3")) == 0);
  CHECK(agree("layerwise_e5m2", file.tensors.at("casts.e5m2")) == 0);
  CHECK(agree("layerwise_e4m3_nan", file.tensors.at("casts.e4m3")) == 9);  // of 14: all beyond 464 but NaN
}

}  // namespace norma::test
