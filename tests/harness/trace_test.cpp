// Blocks site by site: the balls against MPFR written out by hand, the trace's sums, a planted fault.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <boost/multiprecision/mpfr.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "harness/trace/growth.hpp"
#include "harness/trace/trace.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/emulate/graph.hpp"
#include "reference/certified/blocks/product_bounds.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/certified/products/convolution.hpp"
#include "reference/blocks/block.hpp"

using namespace norma;
using Digits = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<80>>;

namespace {

Tensor normal(FormatId format, Shape shape, double deviation, std::uint64_t seed, double mean = 0) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> draw(mean, deviation);
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, draw(bits), Overflow::saturate));
  return t;
}

Tensors inputs_of(const Graph& graph, FormatId format) {
  Tensors inputs;
  std::uint64_t seed = 7;
  for (const GraphInput& input : graph.inputs) {
    const bool matrix = input.value.shape.size() >= 2 && input.weight;
    const double deviation = matrix ? 1 / std::sqrt(static_cast<double>(input.value.shape.back())) : input.weight ? 0.1 : 1.0;
    inputs[input.value.name] = normal(format, input.value.shape, deviation, ++seed);
  }
  return inputs;
}

BlockCall small_dit() { return {.x = {2, 6, 32}, .numbers = {{"heads", 4}}}; }

// ---- the DiT block once more, in 80 digits, from the paper ----

using Matrix = std::vector<std::vector<Digits>>;

Digits value(const Tensor& t, std::int64_t i) { return Digits(t.value(i)); }

std::vector<Digits> apply_linear(const std::vector<Digits>& x, const Tensor& w, const Tensor& b) {
  std::vector<Digits> y;
  const std::int64_t in = w.shape[1];
  for (std::int64_t n = 0; n < w.shape[0]; ++n) {
    Digits sum = value(b, n);
    for (std::int64_t k = 0; k < in; ++k) sum += x[static_cast<std::size_t>(k)] * value(w, n * in + k);
    y.push_back(sum);
  }
  return y;
}

std::vector<Digits> normalized(const std::vector<Digits>& x, double eps) {
  Digits mean = 0, squares = 0;
  for (const Digits& v : x) mean += v;
  mean /= static_cast<int>(x.size());
  for (const Digits& v : x) squares += (v - mean) * (v - mean);
  const Digits root = sqrt(squares / static_cast<int>(x.size()) + Digits(eps));
  std::vector<Digits> y;
  for (const Digits& v : x) y.push_back((v - mean) / root);
  return y;
}

std::vector<Digits> dit(const Tensors& in, const BlockCall& call) {
  const auto batch = static_cast<std::size_t>(call.x[0]), tokens = static_cast<std::size_t>(call.x[1]),
             width = static_cast<std::size_t>(call.x[2]), heads = static_cast<std::size_t>(call.numbers.at("heads"));
  const std::size_t size = width / heads;
  const double eps = call.numbers.at("eps");
  const auto tensor = [&](const std::string& name) -> const Tensor& { return in.at(name); };
  std::vector<Digits> result;
  for (std::size_t b = 0; b < batch; ++b) {
    std::vector<Digits> c;
    for (std::size_t i = 0; i < width; ++i) {
      const Digits v = value(tensor("c"), static_cast<std::int64_t>(b * width + i));
      c.push_back(v / (1 + exp(-v)));
    }
    const std::vector<Digits> mod = apply_linear(c, tensor("adaLN_modulation.1.weight"), tensor("adaLN_modulation.1.bias"));
    const auto part = [&](std::size_t which, std::size_t i) { return mod[which * width + i]; };
    Matrix x(tokens), qkv(tokens), merged(tokens, std::vector<Digits>(width));
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t i = 0; i < width; ++i)
        x[t].push_back(value(tensor("x"), static_cast<std::int64_t>((b * tokens + t) * width + i)));
      std::vector<Digits> n = normalized(x[t], eps);
      for (std::size_t i = 0; i < width; ++i) n[i] = n[i] * (1 + part(1, i)) + part(0, i);
      qkv[t] = apply_linear(n, tensor("attn.qkv.weight"), tensor("attn.qkv.bias"));
    }
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t t = 0; t < tokens; ++t) {
        std::vector<Digits> weights;
        Digits total = 0;
        for (std::size_t s = 0; s < tokens; ++s) {
          Digits score = 0;
          for (std::size_t d = 0; d < size; ++d) score += qkv[t][h * size + d] * qkv[s][width + h * size + d];
          weights.push_back(exp(score / sqrt(Digits(static_cast<double>(size)))));
          total += weights.back();
        }
        for (std::size_t d = 0; d < size; ++d)
          for (std::size_t s = 0; s < tokens; ++s)
            merged[t][h * size + d] += weights[s] / total * qkv[s][2 * width + h * size + d];
      }
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::vector<Digits> projected = apply_linear(merged[t], tensor("attn.proj.weight"), tensor("attn.proj.bias"));
      for (std::size_t i = 0; i < width; ++i) x[t][i] += part(2, i) * projected[i];
      std::vector<Digits> n = normalized(x[t], eps);
      for (std::size_t i = 0; i < width; ++i) n[i] = n[i] * (1 + part(4, i)) + part(3, i);
      std::vector<Digits> hidden = apply_linear(n, tensor("mlp.fc1.weight"), tensor("mlp.fc1.bias"));
      const Digits k = Digits(0x1.9884533d43651p-1), cubic = Digits(0.044715);
      for (Digits& v : hidden) v = v / 2 * (1 + tanh(k * (v + cubic * v * v * v)));
      const std::vector<Digits> out = apply_linear(hidden, tensor("mlp.fc2.weight"), tensor("mlp.fc2.bias"));
      for (std::size_t i = 0; i < width; ++i) result.push_back(x[t][i] + part(5, i) * out[i]);
    }
  }
  return result;
}

}  // namespace

TEST_CASE("a block's balls hold what 80 digits give, and are narrow", "[blocks]") {
  const BlockDef& block = *find_block("dit_block");
  const BlockCall call = with_defaults(block, small_dit());
  const Graph graph = block.build(call);
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32})
    for (const int slices : {kQuickSlices, kCloseSlices}) {
      const Tensors inputs = inputs_of(graph, format);
      const std::vector<Digits> expected = dit(inputs, call);
      const RealTensors values = evaluate_graph(graph, inputs, {.slices = slices, .threads = 2});
      const RealTensor& y = values.at("y");
      REQUIRE(static_cast<std::size_t>(y.size()) == expected.size());
      std::int64_t outside = 0;
      double widest = 0;
      for (std::int64_t i = 0; i < y.size(); ++i) {
        const Ball ball = y.at(i);
        const Digits distance = abs(expected[static_cast<std::size_t>(i)] - Digits(ball.h) - Digits(ball.l));
        if (!(distance <= Digits(ball.r))) ++outside;
        widest = std::max(widest, ball.r);
      }
      CAPTURE(name_of(format), slices, widest);
      CHECK(outside == 0);
      CHECK(widest < (slices == kQuickSlices ? 1e-9 : 1e-18));
    }
}

TEST_CASE("what leaves a site is what entered and what it added", "[blocks]") {
  const BlockDef& block = *find_block("dit_block");
  const BlockCall call = with_defaults(block, small_dit());
  const Graph canonical = block.build(call);
  const Graph path = find_block_path("facebook.dit.block")->build({.x = call.x, .numbers = call.numbers});
  const Tensors inputs = inputs_of(path, FormatId::bf16);
  const BlockTrace trace = trace_block(path, inputs, {.real = {.slices = kQuickSlices}, .canonical = &canonical});
  REQUIRE(trace.sites.size() == 14);
  for (const SiteTrace& site : trace.sites) {
    CAPTURE(site.name);
    CHECK(site.uncertainty < 1e-9);
    CHECK(site.leaving.relative_l2 <= (site.entering.relative_l2 + site.added.relative_l2) * (1 + 1e-9));
    CHECK(site.leaving.relative_l2 >= std::fabs(site.entering.relative_l2 - site.added.relative_l2) * (1 - 1e-9));
    UNSCOPED_INFO(site.name << " " << site.entering.relative_l2 << " " << site.added.relative_l2 << " "
                            << site.leaving.relative_l2 << " ulp " << site.leaving.max_ulp);
  }
  CHECK(trace.definition_gap < 1e-6);
  CHECK(trace.sites.back().leaving.relative_l2 > 1e-4);
  CHECK(trace.sites.back().leaving.relative_l2 < 1e-1);
}

TEST_CASE("a stack's steps are its blocks, each alone and after the others", "[blocks]") {
  const BlockDef& block = *find_block("dit_block");
  const BlockCall call = with_defaults(block, small_dit());
  const Graph one = find_block_path("facebook.dit.block")->build({.x = call.x, .numbers = call.numbers});
  const std::vector<Stream> streams = streams_of(block);
  const int blocks = 6;
  const Graph path = stacked(one, streams, blocks);
  Tensors inputs = inputs_of(path, FormatId::bf16);
  const BlockTrace trace = trace_block(path, inputs, {.real = {.slices = kQuickSlices}, .streams = streams, .blocks = blocks});
  REQUIRE(trace.steps.size() == blocks);
  CHECK(trace.sites.size() == blocks * 14);
  CHECK(trace.steps[0].figures.entering.relative_l2 < 1e-12);
  const auto none = [](const std::string&) { return false; };
  Tensor stream = inputs.at("x");
  bool carried = false;
  double before = 0;
  for (int k = 0; k < blocks; ++k) {
    const BlockStep& step = trace.steps[static_cast<std::size_t>(k)];
    CAPTURE(k, step.figures.uncertainty);
    CHECK(step.block == k);
    CHECK(step.stream == "y");
    // A stack is certified until a block's balls are wider than may be carried on, never after.
    carried = carried || before > kCarriedRadius;
    CHECK(step.carried == carried);
    before = step.figures.uncertainty;
    // The block alone, from what the stack stored before it.
    Tensors own{{"x", stream}};
    for (const GraphInput& input : one.inputs)
      if (input.value.name != "x") own[input.value.name] = inputs.at(input.weight ? std::to_string(k) + "." + input.value.name : input.value.name);
    const RealTensor alone = evaluate_graph(one, own, {.slices = kCloseSlices}, none).at("y");
    stream = emulate_graph(one, own, {}, none).at("y");
    double squares = 0, norm = 0;
    for (std::int64_t i = 0; i < stream.size(); ++i)
      squares += std::pow(stream.value(i) - alone.at(i).h, 2), norm += alone.at(i).h * alone.at(i).h;
    CHECK_THAT(step.figures.added.relative_l2 * step.figures.truth_norm, Catch::Matchers::WithinRel(std::sqrt(squares), 1e-6));
    CHECK(step.figures.open == 0);
    CHECK(step.figures.leaving.relative_l2 > 1e-4);
    CHECK(step.figures.leaving.relative_l2 < 1e-1);
  }
  CHECK(carried);
  CHECK(trace.meant.empty());  // what a stack means is proved no longer
  CHECK(std::isnan(trace.definition_gap));
  CHECK(trace.outputs.at("y").bytes == stream.bytes);
  // What midpoints leave out is far below what is told: a closer truth tells the same.
  const BlockTrace closer = trace_block(path, inputs, {.real = {.slices = kCloseSlices}, .streams = streams, .blocks = blocks});
  for (std::size_t k = 0; k < trace.steps.size(); ++k)
    CHECK_THAT(trace.steps[k].figures.leaving.relative_l2,
               Catch::Matchers::WithinRel(closer.steps[k].figures.leaving.relative_l2, 1e-12));

  const BlockTrace two = trace_block(stacked(one, streams, 2), inputs_of(stacked(one, streams, 2), FormatId::bf16),
                                     {.real = {.slices = kCloseSlices}, .streams = streams, .blocks = 2});
  CHECK_FALSE(two.steps.back().carried);
  CHECK(two.meant.contains("y"));
}

TEST_CASE("a trace names the site where NaN began, and leaves out what is not known", "[blocks]") {
  const BlockDef& block = *find_block("dit_block");
  const BlockCall call = with_defaults(block, small_dit());
  const Graph path = find_block_path("facebook.dit.block")->build({.x = call.x, .numbers = call.numbers, .format = FormatId::fp16});
  Tensors inputs = inputs_of(path, FormatId::fp16);
  const BlockTrace healthy = trace_block(path, inputs, {.real = {.slices = kQuickSlices}});
  CHECK(first_special(healthy) == nullptr);
  CHECK(first_beyond(healthy, 1) == nullptr);
  Tensor& bias = inputs.at("mlp.fc1.bias");
  bias.set_code(3, encode(FormatId::fp16, 65504, Overflow::ieee));
  Tensor& weight = inputs.at("mlp.fc1.weight");
  for (std::int64_t i = 0; i < 32; ++i) weight.set_code(3 * 32 + i, encode(FormatId::fp16, 4096, Overflow::ieee));
  const BlockTrace trace = trace_block(path, inputs, {.real = {.slices = kQuickSlices}});
  REQUIRE(first_special(trace) != nullptr);
  CHECK(first_special(trace)->name == "mlp.fc1");
  CHECK(first_special(trace)->infinite > 0);
  CHECK(first_beyond(trace, 1)->name == "mlp.fc1");
  for (std::int64_t i = 0; i < 32; ++i) inputs.at("x").set_code(i, encode(FormatId::fp16, HUGE_VAL, Overflow::ieee));
  const BlockTrace lost = trace_block(path, inputs, {.real = {.slices = kQuickSlices}});
  CHECK(lost.sites[2].name == "norm1");
  CHECK(lost.sites[2].open == 32);
  CHECK(lost.sites[2].nan == 32);
}

TEST_CASE("SiLU is known where its exponential is beyond all balls", "[blocks]") {
  const BlockDef& block = *find_block("dit_block");
  const BlockCall call = with_defaults(block, {.x = {1, 2, 8}, .numbers = {{"heads", 2}}});
  const Graph path = find_block_path("facebook.dit.block")->build({.x = call.x, .numbers = call.numbers});
  Tensor c = Tensor::zeros(FormatId::bf16, {1, 8});
  const double values[] = {-590, -605, -640, -700, -3e38, 700, 3e38, -2};
  for (std::int64_t i = 0; i < 8; ++i) c.set_code(i, encode(FormatId::bf16, values[i], Overflow::saturate_finite));
  const Graph canonical = block.build(call);
  for (const Graph* graph : {&path, &canonical}) {
    const auto site = std::ranges::find(graph->sites, "adaLN_modulation.0", &Site::name);
    REQUIRE(site != graph->sites.end());
    const RealTensor y = evaluate_site(*site, {exactly(c)}, {}).front();
    for (std::int64_t i = 0; i < 8; ++i) {
      using std::exp;
      const Digits x(c.value(i)), exact = x / (1 + exp(-x));
      const Ball ball = y.at(i);
      CAPTURE(i, c.value(i), ball.h, ball.r);
      CHECK(abs(exact - Digits(ball.h) - Digits(ball.l)) <= Digits(ball.r));
      CHECK(ball.r <= std::max(1e-28 * std::fabs(ball.h), 1e-200));
    }
  }
}

TEST_CASE("growth is fitted by least squares", "[blocks]") {
  const std::vector<double> linear{2, 4, 6, 8, 10}, root{3, 3 * std::sqrt(2.0), 3 * std::sqrt(3.0), 6};
  const Growth a = growth_of(linear), b = growth_of(root);
  CHECK_THAT(a.linear.factor, Catch::Matchers::WithinRel(2.0, 1e-14));
  CHECK(a.linear.misfit < 1e-14);
  CHECK(a.root.misfit > 0.2);
  CHECK_THAT(a.exponent, Catch::Matchers::WithinRel(1.0, 1e-14));
  CHECK_THAT(b.root.factor, Catch::Matchers::WithinRel(3.0, 1e-14));
  CHECK(b.root.misfit < 1e-14);
  CHECK_THAT(b.exponent, Catch::Matchers::WithinRel(0.5, 1e-14));
  // By hand: ratios 1 and 2, factor 5 / 3, misfits -2/5 and 1/5.
  const Growth c = growth_of(std::vector<double>{1, 4});
  CHECK_THAT(c.linear.factor, Catch::Matchers::WithinRel(5.0 / 3, 1e-14));
  CHECK_THAT(c.linear.misfit, Catch::Matchers::WithinRel(std::sqrt(0.1), 1e-14));
  CHECK(std::isnan(growth_of(std::vector<double>{1}).exponent));
  CHECK(std::isnan(growth_of(std::vector<double>{1, 0}).linear.factor));
}

TEST_CASE("products in every declared order lie within the bound for any order, and not far within", "[blocks]") {
  const std::vector<ProductSum> orders{{.order = ProductOrder::exact},
                                       {.order = ProductOrder::sequential},
                                       {.order = ProductOrder::sequential, .contract = false},
                                       {.order = ProductOrder::blocked, .count = 16},
                                       {.order = ProductOrder::split, .count = 3}};
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32})
    for (const BiasPlace place : {BiasPlace::epilogue, BiasPlace::after, BiasPlace::first})
      for (const ProductSum& sum : orders) {
        GraphBuilder g("products");
        const Rounding to{.format = FormatRef{format}};
        const auto x = g.input("x", {5, 200}, format), w = g.weight("w", {9, 200}, format), b = g.weight("b", {9}, format);
        g.output(g.linear("y", {.sum = sum, .bias = place, .rounding = to}, x, w, b));
        const auto q = g.input("q", {1, 2, 7, 16}, format), k = g.input("k", {1, 1, 70, 16}, format),
                   v = g.input("v", {1, 1, 70, 5}, format);
        g.output(g.attention("a", {.causal = true, .sum = sum, .probabilities = to, .rounding = to, .normalized_first = false}, q, k, v));
        const auto image = g.input("image", {1, 4, 6, 5}, format), kernel = g.weight("kernel", {6, 2, 3, 3}, format);
        g.output(g.convolution("c", {.padding = {1, 1}, .groups = 2, .sum = sum, .bias = place, .rounding = to}, image, kernel,
                               g.weight("cb", {6}, format)));
        const Graph graph = g.finish();
        const Tensors inputs = inputs_of(graph, format);
        const Tensors bits = emulate_graph(graph, inputs);
        for (const Site& site : graph.sites) {
          std::vector<const Tensor*> given;
          std::vector<RealTensor> exact;
          for (const Argument& argument : site.arguments) {
            given.push_back(&inputs.at(argument.value));
            exact.push_back(exactly(*given.back()));
          }
          const RealTensor meant = evaluate_site(site, exact, {.slices = kCloseSlices}).front();
          const std::vector<double> bound = any_order_bound(site, given, meant);
          const Tensor& got = bits.at(site.name());
          double closest = 0;
          std::int64_t outside = 0;
          for (std::int64_t i = 0; i < got.size(); ++i) {
            const Ball ball = meant.at(i);
            const double error = std::fabs((got.value(i) - ball.h) - ball.l);
            if (!(error <= bound[static_cast<std::size_t>(i)] + ball.r)) ++outside;
            closest = std::max(closest, error / bound[static_cast<std::size_t>(i)]);
          }
          CAPTURE(site.name(), name_of(format), text_of(sum), static_cast<int>(place), closest);
          CHECK(outside == 0);
          if (format != FormatId::fp32) CHECK(closest > 0.05);  // a bound far beyond every error would tell nothing
        }
      }
}

TEST_CASE("balls of a convolution hold what the certified convolution gives", "[blocks]") {
  const FormatId format = FormatId::bf16;
  GraphBuilder g("convolution");
  const auto x = g.input("x", {2, 4, 7, 6}, format), w = g.weight("w", {6, 2, 3, 2}, format), b = g.weight("b", {6}, format);
  g.output(g.convolution("y", {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2}, x, w, b));
  const Graph graph = g.finish();
  const Tensors inputs = inputs_of(graph, format);
  const RealTensor y = evaluate_graph(graph, inputs, {.slices = kCloseSlices}).at("y");
  const auto truth = convolution_truth({.x = &inputs.at("x"), .weight = &inputs.at("w"), .bias = &inputs.at("b"),
                                        .stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2});
  REQUIRE(truth->rows() * truth->cols() == y.size());
  std::int64_t outside = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const Enclosure e = truth->enclose(i / truth->cols(), i % truth->cols());
    const Ball ball = y.at(i);
    if (!(std::fabs((ball.h - e.hi) + (ball.l - e.lo)) <= ball.r + e.radius)) ++outside;
    CHECK(ball.r <= 1e-25);
  }
  CHECK(outside == 0);
}

TEST_CASE("radii of a product pass on what its factors leave open, and nothing is claimed of what is not finite", "[blocks]") {
  BallTensor a{.h = {3, -2, 1, 5}, .l = {0, 0, 0, 0}, .r = {0.5, 0.25, 0, 0}};
  const BallTensor b{.h = {4, 8, -1, 2}, .l = {0, 0, 0, 0}, .r = {0, 0, 0.125, 0}};
  const auto product = [&] {
    return ball_matmul({.rows = 2, .depth = 2, .balls = &a}, {.rows = 2, .depth = 2, .balls = &b}, nullptr, kQuickSlices);
  };
  const BallTensor c = product();
  // Corners of the intervals: [2.5, 3.5] 4 + [-2.25, -1.75] 8 is within 4 of -4, the other rows alike.
  const double mid[] = {-4, -7, 44, 9}, least[] = {4, 0.5 * 1.125 + 0.25 * 2 + 3 * 0.125, 0, 0.125};
  for (std::size_t i = 0; i < 4; ++i) {
    CAPTURE(i, c.h[i], c.r[i]);
    CHECK(c.h[i] == mid[i]);
    CHECK(c.r[i] >= least[i]);
    CHECK(c.r[i] <= 5.2 * least[i]);  // what Cauchy and Schwarz may add: the root of 26
  }
  CHECK(c.r[2] == 0);  // exact factors, an exact product
  a.h[1] = std::numeric_limits<double>::infinity();
  CHECK(std::isinf(product().r[0]));
  CHECK(product().r[3] <= 5.2 * least[3]);
}

TEST_CASE("a product's radius covers what the BLAS rounds", "[blocks]") {
  // What the first slice of a leaves is positive throughout, as b is: sums grow, and so do their roundings.
  constexpr std::int64_t kDepth = 1 << 18;
  BallTensor a, b;
  std::mt19937_64 bits(3);
  std::uniform_real_distribution<double> rest(0, 0x1p-18), factor(0.5, 1);
  for (std::int64_t k = 0; k < kDepth; ++k) {
    a.h.push_back(1 + rest(bits));
    b.h.push_back(factor(bits));
  }
  a.l = a.r = b.l = b.r = std::vector<double>(kDepth, 0);
  a.l[0] = 0x1p-60;  // a binary64 number alone would be exact in its slices
  Digits exact = Digits(a.l[0]) * Digits(b.h[0]);
  for (std::size_t k = 0; k < kDepth; ++k) exact += Digits(a.h[k]) * Digits(b.h[k]);
  for (const Blas blas : {Blas::own, Blas::automatic}) {
    choose_blas(blas);
    const BallTensor c = ball_matmul({.rows = 1, .depth = kDepth, .balls = &a}, {.rows = 1, .depth = kDepth, .balls = &b},
                                     nullptr, kQuickSlices);
    const Digits error = abs(exact - Digits(c.h[0]) - Digits(c.l[0]));
    CAPTURE(error.convert_to<double>() * 0x1p60, c.r[0] * 0x1p60);
    CHECK(error <= Digits(c.r[0]));
    CHECK(c.r[0] <= 1e-9);
  }
  choose_blas(Blas::automatic);
}
