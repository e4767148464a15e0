// Linear layers of codes: what they mean over the reals, their bits, their bounds, what is refused.
#include "impls/cast_paths/linear_plan.hpp"

#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "impls/emulate/graph.hpp"
#include "reference/blocks/block.hpp"
#include "reference/certified/blocks/product_bounds.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::Message;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Call {
  std::string_view path;
  Shape x;
  Attributes numbers;
};

Graph built(const Call& call, FormatId format = FormatId::bf16) {
  const BlockPath* path = find_block_path(call.path);
  REQUIRE(path != nullptr);
  const BlockCall full = with_defaults(*find_block(path->block), {.x = call.x, .numbers = call.numbers});
  return path->build({.x = full.x, .numbers = full.numbers, .format = format});
}

Tensor random_tensor(std::mt19937_64& draw, FormatId format, const Shape& shape, double deviation = 1) {
  std::normal_distribution<double> normal(0, deviation);
  Tensor t = Tensor::zeros(format, shape);
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, normal(draw), Overflow::saturate));
  return t;
}

Tensors inputs_of(const Graph& graph, std::uint64_t seed) {
  std::mt19937_64 draw(seed);
  Tensors tensors;
  for (const GraphInput& input : graph.inputs) {
    const Shape& shape = input.value.shape;
    const double deviation = shape.size() == 2 && input.weight ? 1 / std::sqrt(static_cast<double>(shape[1])) : 1;
    tensors[input.value.name] = random_tensor(draw, input.value.format.value_or(FormatId::fp32), shape, deviation);
  }
  return tensors;
}

/// Positive numbers of many sizes, no bias: sums as large as their magnitudes, and terms that they lose.
Tensors spread_inputs_of(const Graph& graph, std::uint64_t seed) {
  std::mt19937_64 draw(seed);
  std::uniform_real_distribution<double> exponent(-12, 0);
  Tensors tensors;
  for (const GraphInput& input : graph.inputs) {
    Tensor& t = tensors[input.value.name] = Tensor::zeros(*input.value.format, input.value.shape);
    for (std::int64_t i = 0; i < t.size() && input.value.shape.size() > 1; ++i)
      t.set_code(i, encode(t.format, std::exp2(exponent(draw)), Overflow::ieee));
  }
  return tensors;
}

LinearPlan plan_of(std::string_view mode) {
  LinearPlan plan;
  plan.mode = find_linear_mode(mode);
  REQUIRE(plan.mode != nullptr);
  return plan;
}

/// One layer y = x weight^T + bias in one format.
Graph layer(FormatId format, std::int64_t rows, std::int64_t depth, std::int64_t cols) {
  GraphBuilder g("layer");
  const auto x = g.input("x", {rows, depth}, format);
  const auto weight = g.weight("weight", {cols, depth}, format), bias = g.weight("bias", {cols}, format);
  const LinearSite site{.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{format}}};
  g.output(g.linear("y", site, x, weight, bias));
  return g.finish();
}

const Site& site_of(const Graph& graph, std::string_view name) {
  return *std::ranges::find(graph.sites, name, [](const Site& site) { return site.name(); });
}

const Call kCalls[] = {
    {"diffusers.flux.double_block", {1, 5, 128}, {{"heads", 2}, {"text", 3}, {"mlp", 256}}},
    {"transformers.llama.block", {1, 6, 128}, {{"heads", 4}, {"kv_heads", 4}, {"mlp", 256}}},
    {"facebook.dit.block", {2, 4, 128}, {{"heads", 2}, {"mlp", 128}}},
};

}  // namespace

TEST_CASE("over the reals a block with codes is the block", "[blocks]") {
  const auto none = [](const std::string&) { return false; };
  for (const Call& call : kCalls) {
    const Graph plain = built(call);
    const Tensors inputs = inputs_of(plain, 1);
    const RealOptions close{.slices = kCloseSlices};
    const RealTensors want = evaluate_graph(erase_roundings(plain), inputs, close, none);
    for (const LinearMode& mode : all_linear_modes()) {
      const Graph coded = with_linears(plain, plan_of(mode.name));
      CHECK(coded.sites.size() > plain.sites.size());
      CHECK(coded.outputs == plain.outputs);
      const RealTensors got = evaluate_graph(erase_roundings(coded), inputs, close, none);
      for (const std::string& output : plain.outputs) {
        double largest = 0, widest = 0, size = 0;
        for (std::int64_t i = 0; i < want.at(output).size(); ++i) {
          const Ball a = want.at(output).at(i), b = got.at(output).at(i);
          widest = std::max(widest, a.r + b.r);
          if (!(a.r + b.r < kInfinity)) continue;
          size = std::max(size, std::fabs(a.h));
          largest = std::max(largest, std::fabs((a.h - b.h) + (a.l - b.l)) - a.r - b.r);
        }
        CAPTURE(call.path, mode.name, output, size);
        CHECK(widest < 1e-12 * size);
        CHECK(largest <= 0x1p-100 * size);  // of the subtraction
      }
    }
  }
}

TEST_CASE("a product of codes has the bits of its declared steps", "[blocks]") {
  constexpr std::int64_t kRows = 3, kDepth = 256, kCols = 128;
  for (const FormatId format : {FormatId::bf16, FormatId::fp32})
    for (const std::string_view mode : {"fp8_tensor", "fp8_row", "fp8_block128", "mxfp8"}) {
      const Graph graph = with_linears(layer(format, kRows, kDepth, kCols), plan_of(mode));
      const Tensors inputs = inputs_of(graph, 3);
      const Tensors made = emulate_graph(graph, inputs);
      const Site& site = site_of(graph, "y");
      const Tensor &x = made.at(site.find("x")->value), &w = made.at(site.find("weight")->value);
      const Tensor &xs = made.at(site.find("x_scale")->value), &ws = made.at(site.find("weight_scale")->value);
      const std::int64_t block = std::get<LinearSite>(site.what).block, blocks = kDepth / block;
      const auto stored = [&](float v) { return encode(format, static_cast<double>(v), Overflow::ieee); };
      std::int64_t other = 0;
      for (std::int64_t i = 0; i < kRows; ++i)
        for (std::int64_t j = 0; j < kCols; ++j) {
          float total = 0;
          for (std::int64_t k = 0; k < kDepth; k += block) {
            float sum = 0;
            for (std::int64_t t = k; t < k + block; ++t)  // products of codes are exact
              sum += static_cast<float>(x.value(i * kDepth + t) * w.value(j * kDepth + t));
            const std::int64_t of_x = mode == "fp8_tensor" ? 0 : i * blocks + k / block;
            const std::int64_t of_w =
                mode == "fp8_tensor" ? 0 : (mode == "fp8_block128" ? j / 128 : j) * blocks + k / block;
            const float scaled = sum * static_cast<float>(xs.value(of_x));
            total = std::fma(scaled, static_cast<float>(ws.value(of_w)), total);
          }
          if (mode == "fp8_block128") total = static_cast<float>(decode(format, stored(total)));
          const float y = total + static_cast<float>(inputs.at("bias").value(j));
          other += made.at("y").code(i * kCols + j) != stored(y) ? 1 : 0;
        }
      CAPTURE(mode, name_of(format));
      CHECK(other == 0);
    }
}

TEST_CASE("scales and codes are those of the magnitudes they are of", "[blocks]") {
  const Graph graph = with_linears(layer(FormatId::bf16, 4, 256, 256), plan_of("fp8_block128"));
  const Tensors inputs = inputs_of(graph, 4);
  const Tensors made = emulate_graph(graph, inputs);
  const Tensor &w = inputs.at("weight"), &codes = made.at("weight.e4m3.shaped"), &scales = made.at("weight.e4m3.scale");
  REQUIRE(scales.size() == 4);
  for (std::int64_t down = 0; down < 2; ++down)
    for (std::int64_t across = 0; across < 2; ++across) {
      float amax = 0;
      for (std::int64_t i = 0; i < 128; ++i)
        for (std::int64_t j = 0; j < 128; ++j)
          amax = std::max(amax, static_cast<float>(std::fabs(w.value((down * 128 + i) * 256 + across * 128 + j))));
      const float scale = amax / 448.0f;
      CHECK(static_cast<float>(scales.value(down * 2 + across)) == scale);
      const std::int64_t at = (down * 128 + 77) * 256 + across * 128 + 31;
      CHECK(codes.code(at) ==
            encode(FormatId::e4m3fn, static_cast<double>(static_cast<float>(w.value(at)) / scale), Overflow::saturate));
    }
  const Tensors fine =
      emulate_graph(with_linears(layer(FormatId::bf16, 4, 256, 256), plan_of("fp8_finegrained")), inputs);
  for (std::int64_t i = 0; i < 4; ++i) {
    const float factor = 448.0f / static_cast<float>(scales.value(i) * 448);  // amax is scale 448, to a rounding
    CHECK(std::fabs(fine.at("weight.e4m3.scale").value(i) - 1 / static_cast<double>(factor)) <=
          0x1p-22 * scales.value(i));
  }
  CHECK(fine.at("x.e4m3").bytes == made.at("x.e4m3").bytes);
  Tensors blank = inputs;
  std::ranges::fill(blank.at("weight").bytes, std::byte{0});
  const Tensors nothing =
      emulate_graph(with_linears(layer(FormatId::bf16, 4, 256, 256), plan_of("fp8_finegrained")), blank);
  CHECK(nothing.at("y").value(5) == inputs.at("bias").value(5));
  const Tensors mx = emulate_graph(with_linears(layer(FormatId::bf16, 4, 256, 256), plan_of("mxfp8")), inputs);
  const Tensor& powers = mx.at("x.e4m3.scale");
  REQUIRE(powers.size() == 4 * 8);
  for (std::int64_t i = 0; i < powers.size(); ++i) {
    double amax = 0;
    for (std::int64_t j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(inputs.at("x").value(i * 32 + j)));
    CHECK(amax / 448 <= powers.value(i));
    CHECK(amax / 448 > powers.value(i) / 2);
    CHECK(std::log2(powers.value(i)) == std::round(std::log2(powers.value(i))));
  }
}

TEST_CASE("every order of a product of codes is within its bound, and another scale is not", "[blocks]") {
  for (const char* mode : {"layerwise_e4m3", "fp8_unscaled", "fp8_tensor", "fp8_row", "fp8_block128", "mxfp8"}) {
    const Graph plain = layer(FormatId::fp32, 5, 384, 128);
    const Tensors inputs = spread_inputs_of(plain, 5);
    std::vector<std::vector<std::uint64_t>> bits;
    for (const char* order : {"exact", "sequential", "blocked(48)", "split(4)", "tensor_core(16)"}) {
      LinearPlan plan = plan_of(mode);
      plan.sum = parse_product_sum(order);
      REQUIRE(plan.sum.has_value());
      CHECK(text_of(*plan.sum) == order);
      const Graph graph = with_linears(plain, plan);
      Tensors made = emulate_graph(graph, inputs);
      for (const auto& [name, tensor] : inputs) made[name] = tensor;
      const Site& site = site_of(graph, "y");
      const auto shares = [&](const Tensors& values) {
        std::vector<const Tensor*> arguments;
        std::vector<RealTensor> exact;
        for (const Argument& argument : site.arguments) arguments.push_back(&values.at(argument.value));
        for (const Tensor* argument : arguments) exact.push_back(exactly(*argument));
        const RealTensor meant = evaluate_site(site, exact, {}).front();
        const std::vector<double> bound = any_order_bound(site, arguments, meant);
        double largest = 0;
        for (std::int64_t i = 0; i < meant.size(); ++i) {
          const Ball m = meant.at(i);
          REQUIRE(bound[static_cast<std::size_t>(i)] < kInfinity);
          largest = std::max(
              largest, (std::fabs((made.at("y").value(i) - m.h) - m.l) + m.r) / bound[static_cast<std::size_t>(i)]);
        }
        return largest;
      };
      CAPTURE(mode, order, shares(made));
      CHECK(shares(made) <= 1);
      bits.emplace_back();
      for (std::int64_t i = 0; i < made.at("y").size(); ++i) bits.back().push_back(made.at("y").code(i));
      if (const Argument* scale = site.find("x_scale"); scale != nullptr) {
        Tensors changed = made;
        Tensor& s = changed.at(scale->value);
        s.set_code(0, encode(s.format, s.value(0) * (1 + 0x1p-10), Overflow::ieee));
        CHECK(shares(changed) > 1);
      }
    }
    // Without a scale these codes are multiples of 2^-9 below 1: few of their products add up to a sum that is rounded.
    // A run of 32 is one block of 48.
    const std::string_view name = mode;
    const bool small = name == "fp8_unscaled";
    CAPTURE(mode);
    CHECK((bits[1] != bits[2]) == (!small && name != "mxfp8"));
    CHECK((bits[1] != bits[4]) == !small);
  }
}

TEST_CASE("numbers beyond a format saturate, or become NaN or Inf, as the mode declares", "[blocks]") {
  const auto weights_of = [](std::string_view mode, double value) {
    const Graph graph = with_linears(layer(FormatId::bf16, 1, 128, 128), plan_of(mode));
    Tensors inputs = inputs_of(graph, 6);
    inputs.at("weight").set_code(0, encode(FormatId::bf16, value, Overflow::ieee));
    Tensors made = emulate_graph(graph, inputs);
    return std::pair{made.at(site_of(graph, "y").find("weight")->value).value(0), made.at("y").value(0)};
  };
  CHECK(weights_of("layerwise_e4m3", 1000).first == 448);
  CHECK(weights_of("layerwise_e4m3", -kInfinity).first == -448);
  CHECK(std::isnan(weights_of("layerwise_e4m3_nan", 1000).first));
  CHECK(std::isnan(weights_of("layerwise_e4m3_nan", 1000).second));
  CHECK(weights_of("layerwise_e4m3_nan", 464).first == 448);
  CHECK(weights_of("layerwise_e5m2", 60000).first == 57344);
  CHECK(weights_of("layerwise_e5m2", 61440).first == kInfinity);
  CHECK(std::isnan(weights_of("layerwise_e4m3", std::nan("")).first));

  const auto result_of = [](std::string_view mode, double value, bool whole_row) {
    const Graph graph = with_linears(layer(FormatId::bf16, 2, 128, 128), plan_of(mode));
    Tensors inputs = inputs_of(graph, 7);
    for (std::int64_t i = 0; i < (whole_row ? 128 : 1); ++i)
      inputs.at("x").set_code(i, encode(FormatId::bf16, value, Overflow::ieee));
    Tensors made = emulate_graph(graph, inputs);
    return std::array{made.at(site_of(graph, "y").find("x")->value).value(0), made.at("y").value(0),
                      made.at("y").value(128)};
  };
  // Without a scale an activation beyond 448 is cut off; with one the largest is 448 itself.
  CHECK(result_of("fp8_unscaled", 1000, false)[0] == 448);
  CHECK(result_of("fp8_unscaled", kInfinity, false)[0] == 448);
  CHECK(result_of("fp8_row", 1000, false)[0] == 448);
  // A token of zeros: amax 0, a scale of 0, 0 / 0. Powers of two have a least one.
  for (const char* mode : {"fp8_row", "fp8_block128"}) {
    const auto zero = result_of(mode, 0, true);
    CHECK(std::isnan(zero[1]));
    CHECK_FALSE(std::isnan(zero[2]));
  }
  CHECK(result_of("mxfp8", 0, true)[0] == 0);
  CHECK_FALSE(std::isnan(result_of("mxfp8", 0, true)[1]));
  CHECK_FALSE(std::isnan(result_of("fp8_tensor", 0, true)[1]));
  // One Inf makes its scale Inf: it is NaN itself, all beside it 0.
  for (const char* mode : {"fp8_tensor", "fp8_row", "fp8_block128"}) {
    CHECK(std::isnan(result_of(mode, kInfinity, false)[0]));
    CHECK(std::isnan(result_of(mode, kInfinity, false)[1]));
  }
  // With one scale for all tokens the other token is lost too.
  CHECK(std::isnan(result_of("fp8_tensor", kInfinity, false)[2]));
  CHECK_FALSE(std::isnan(result_of("fp8_row", kInfinity, false)[2]));
}

TEST_CASE("layers that are kept are the path's own", "[blocks]") {
  const Graph plain = built(kCalls[0]);
  LinearPlan plan = plan_of("fp8_row");
  plan.keep = {".mod", "proj"};
  const Graph coded = with_linears(plain, plan);
  int kept = 0, changed = 0;
  for (const Site& site : plain.sites) {
    const bool same = site_of(coded, site.name()) == site;
    const bool linear = std::holds_alternative<LinearSite>(site.what);
    const bool named = site.name().find(".mod") != std::string::npos || site.name().find("proj") != std::string::npos;
    CAPTURE(site.name());
    CHECK(same == (!linear || named));
    (same && linear ? kept : changed) += linear ? 1 : 0;
  }
  CHECK(kept == 4);
  CHECK(changed == 10);
  // Every layer that reads a value reads the same codes.
  CHECK(std::ranges::count(coded.sites, std::string("img.modulate1.e4m3"),
                           [](const Site& site) { return site.name(); }) == 1);
  for (const char* name : {"img.q", "img.k", "img.v"})
    CHECK(site_of(coded, name).find("x")->value == "img.modulate1.e4m3");
}

TEST_CASE("layers kept in fp32 have fp32 weights, compute in fp32 and are cast once", "[blocks]") {
  LinearPlan plan;
  plan.keep_fp32 = {"y"};
  const Graph plain = layer(FormatId::bf16, 2, 96, 40), kept = with_linears(plain, plan);
  CHECK(kept.find("weight")->format == FormatId::fp32);
  CHECK(kept.find("x")->format == FormatId::bf16);
  CHECK(kept.find("y")->format == FormatId::bf16);
  CHECK(kept.find("y.fp32")->format == FormatId::fp32);
  Tensors inputs = inputs_of(kept, 3);
  const Tensors made = emulate_graph(kept, inputs);
  for (std::int64_t i = 0; i < made.at("y").size(); ++i)
    CHECK(made.at("y").code(i) == encode(FormatId::bf16, made.at("y.fp32").value(i), Overflow::ieee));
  // Over the reals it is the plain layer; beside the same weights cast to bf16 it errs by its own last cast alone.
  const RealTensor truth = evaluate_graph(plain, inputs, {}).at("y"), meant = evaluate_graph(kept, inputs, {}).at("y");
  Tensors cast = inputs;
  for (const char* name : {"weight", "bias"}) {
    if (!inputs.contains(name)) continue;
    Tensor& t = cast.at(name);
    t = Tensor::zeros(FormatId::bf16, t.shape);
    for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(FormatId::bf16, inputs.at(name).value(i), Overflow::ieee));
  }
  const Tensor narrow = emulate_graph(plain, cast).at("y");
  double own = 0, other = 0;
  for (std::int64_t i = 0; i < truth.size(); ++i) {
    CHECK(std::fabs((truth.at(i).h - meant.at(i).h) + (truth.at(i).l - meant.at(i).l)) <= truth.at(i).r + meant.at(i).r);
    own += std::pow(made.at("y").value(i) - truth.at(i).h, 2);
    other += std::pow(narrow.value(i) - truth.at(i).h, 2);
  }
  CHECK(own < other / 1.5);
  plan.keep_fp32 = {"z"};
  CHECK_THROWS_MATCHES(with_linears(plain, plan), ProgramError,
                       Message("keep_fp32=z is in the name of no linear layer of " + plain.block + "; it has y"));
}

TEST_CASE("variants of paths leave alone what upstream does", "[blocks]") {
  const auto coded = [](const Call& call) {
    std::vector<std::string> names;
    const Graph graph = built(call);
    for (const Site& site : graph.sites)
      if (std::holds_alternative<LinearSite>(site.what) && site.find("weight")->value != site.name() + ".weight")
        names.push_back(site.name());
    return names;
  };
  const Attributes flux{{"heads", 2}, {"text", 3}};
  CHECK(coded({"diffusers.flux.double_block.layerwise_e4m3", {1, 5, 64}, flux}).size() == 12);
  CHECK(coded({"diffusers.qwen_image.block.layerwise_e4m3", {1, 5, 64}, flux}).size() == 14);
  CHECK(coded({"diffusers.flux.single_block.layerwise_e4m3", {1, 5, 64}, {{"heads", 2}}}) ==
        std::vector<std::string>{"q", "k", "v", "mlp.0", "proj"});
  CHECK(coded({"diffusers.wan.block.layerwise_e4m3", {1, 5, 64}, flux}).size() == 10);
  // k_proj and v_proj give 64 columns here: no whole squares of 128.
  CHECK(
      coded({"transformers.llama.block.finegrained_fp8", {1, 5, 128}, {{"heads", 4}, {"kv_heads", 2}, {"mlp", 256}}}) ==
      std::vector<std::string>{"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                               "mlp.down_proj"});
}

TEST_CASE("words of linear layers are read, and what is not known is named", "[blocks]") {
  const LinearPlan plan =
      linear_plan({{"linears", "fp8_row"}, {"keep", "mod,proj"}, {"sums", "tensor_core(32)"}, {"bias", "after"}});
  CHECK(plan.mode->name == "fp8_row");
  CHECK(plan.keep == std::vector<std::string>{"mod", "proj"});
  CHECK(*plan.sum == ProductSum{.order = ProductOrder::tensor_core, .count = 32});
  CHECK(*plan.bias == BiasPlace::after);
  CHECK(linear_plan({}).mode == nullptr);
  for (const char* wrong : {"blocked", "blocked(0)", "blocked(4", "sequential(4)", "tree(4)", "blocked(4))", ""})
    CHECK_FALSE(parse_product_sum(wrong).has_value());
  CHECK_THROWS_MATCHES(
      linear_plan({{"linears", "fp8"}}), ProgramError,
      Message("linears=fp8 is not known; known: layerwise_e4m3, layerwise_e4m3_nan, layerwise_e5m2, fp8_unscaled, "
              "fp8_tensor, fp8_row, fp8_block128, fp8_finegrained, mxfp8"));
  CHECK_THROWS_MATCHES(
      linear_plan({{"sums", "tree(4)"}}), ProgramError,
      Message("sums=tree(4) is not known; known: exact, sequential, blocked(N), split(N), tensor_core(N)"));
  CHECK_THROWS_MATCHES(linear_plan({{"bias", "before"}}), ProgramError,
                       Message("bias=before is not known; known: epilogue, after, first"));
  CHECK_THROWS_MATCHES(linear_plan({{"keep", "mod"}}), ProgramError,
                       Message("keep=mod leaves layers as they are, and no linears= changes the others"));

  LinearPlan unknown = plan_of("fp8_row");
  unknown.keep = {"mlp", "attn"};
  CHECK_THROWS_MATCHES(
      with_linears(built({"diffusers.flux.single_block", {1, 5, 64}, {{"heads", 2}}}), unknown), ProgramError,
      Message("keep=attn is in the name of no linear layer of flux_single_block; it has mod, q, k, v, mlp.0, proj"));
  CHECK_THROWS_MATCHES(
      with_linears(layer(FormatId::bf16, 2, 96, 128), plan_of("fp8_block128")), ProgramError,
      Message("linears=fp8_block128 needs whole blocks of 128, and x of y is 2x96; keep=y leaves that layer as it is"));
  LinearPlan first = plan_of("fp8_row");
  first.bias = BiasPlace::first;
  CHECK_THROWS_MATCHES(with_linears(layer(FormatId::bf16, 2, 96, 128), first), ProgramError,
                       Message("site y: a product of scaled codes cannot begin with its bias"));
}

TEST_CASE("scales that fit no codes are refused", "[blocks]") {
  GraphBuilder g("layer");
  const auto x = g.input("x", {4, 64}, FormatId::e4m3fn), weight = g.weight("weight", {8, 64}, FormatId::e4m3fn);
  const auto five = g.input("five", {5}, FormatId::fp32), one = g.input("one", {1}, FormatId::fp32);
  CHECK_THROWS_MATCHES(
      g.scaled_linear("y", {.block = 64}, x, weight, {.x = five, .weight = one}), ProgramError,
      Message("site y: five is 5, and x of 4x64 needs 1 scales for each row, or for as many rows each"));
  CHECK_THROWS_MATCHES(
      g.scaled_linear("y", {.block = 32}, x, weight, {.x = one, .weight = one}), ProgramError,
      Message("site y: one is 1, and x of 4x64 needs 2 scales for each row, or for as many rows each"));
  CHECK_THROWS_MATCHES(g.scaled_linear("y", {}, x, weight, {.x = one, .weight = one}), ProgramError,
                       Message("site y: scales need a block of at least 1 term, got 0"));
}

}  // namespace norma::test
