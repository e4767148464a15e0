// Blocks of convolutions: the balls against MPFR written out by hand, checkpoints' layouts, what is refused.
#include <algorithm>
#include <boost/multiprecision/mpfr.hpp>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "reference/blocks/block.hpp"
#include "reference/blocks/layouts.hpp"
#include "reference/certified/blocks/real_graph.hpp"
#include "reference/program/causal_convolution.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::Message;
using Digits = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<60>>;

Tensors inputs_of(const Graph& graph) {
  Tensors inputs;
  std::mt19937_64 bits(11);
  for (const GraphInput& input : graph.inputs) {
    const Shape& shape = input.value.shape;
    const bool vector = shape.size() == 1;
    const double fan = vector ? 1 : static_cast<double>(element_count(shape) / shape[0]);
    std::normal_distribution<double> draw(vector ? 0.7 : 0, input.weight && !vector ? 1 / std::sqrt(fan) : 1);
    Tensor t = Tensor::zeros(FormatId::fp32, shape);
    for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(t.format, draw(bits), Overflow::saturate));
    inputs[input.value.name] = std::move(t);
  }
  return inputs;
}

// ---- in 60 digits: films [B, C, T, H, W], an image is one of one frame ----

struct Film {
  std::int64_t batch, channels, frames, height, width;
  std::vector<Digits> values;

  Film(std::int64_t b, std::int64_t c, std::int64_t t, std::int64_t h, std::int64_t w)
      : batch(b), channels(c), frames(t), height(h), width(w), values(static_cast<std::size_t>(b * c * t * h * w)) {}
  Digits& at(std::int64_t b, std::int64_t c, std::int64_t t, std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>((((b * channels + c) * frames + t) * height + i) * width + j)];
  }
  const Digits& at(std::int64_t b, std::int64_t c, std::int64_t t, std::int64_t i, std::int64_t j) const {
    return const_cast<Film&>(*this).at(b, c, t, i, j);
  }
  template <class Body>
  void each(const Body& body) {
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t t = 0; t < frames; ++t)
          for (std::int64_t i = 0; i < height; ++i)
            for (std::int64_t j = 0; j < width; ++j) body(b, c, t, i, j, at(b, c, t, i, j));
  }
};

Film film(const Tensor& x) {
  const Shape& s = x.shape;
  Film f = s.size() == 4 ? Film(s[0], s[1], 1, s[2], s[3]) : Film(s[0], s[1], s[2], s[3], s[4]);
  for (std::size_t i = 0; i < f.values.size(); ++i) f.values[i] = Digits(x.value(static_cast<std::int64_t>(i)));
  return f;
}

Digits silu(const Digits& v) { return v / (1 + exp(-v)); }
Film silu(Film x) {
  for (Digits& v : x.values) v = silu(v);
  return x;
}
Film plus(Film x, const Film& other) {
  for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += other.values[i];
  return x;
}

Film convolved(const Tensors& in, const std::string& name, const Film& x) {
  const Tensor &w = in.at(name + ".weight"), &bias = in.at(name + ".bias");
  const std::int64_t side = w.shape.back(), deep = w.shape.size() == 5 ? w.shape[2] : 1;
  Film y(x.batch, w.shape[0], x.frames, x.height, x.width);
  y.each([&](std::int64_t b, std::int64_t o, std::int64_t t, std::int64_t i, std::int64_t j, Digits& sum) {
    sum = Digits(bias.value(o));
    for (std::int64_t c = 0; c < x.channels; ++c)
      for (std::int64_t k = 0; k < deep; ++k)
        for (std::int64_t p = 0; p < side; ++p)
          for (std::int64_t q = 0; q < side; ++q) {
            const std::int64_t frame = t + k - (deep - 1), row = i + p - side / 2, col = j + q - side / 2;
            if (frame < 0 || row < 0 || row >= x.height || col < 0 || col >= x.width) continue;
            sum += x.at(b, c, frame, row, col) *
                   Digits(w.value((((o * x.channels + c) * deep + k) * side + p) * side + q));
          }
  });
  return y;
}

Film groupnormed(const Tensors& in, const std::string& name, Film x, std::int64_t groups, double eps) {
  const std::int64_t each = x.channels / groups;
  const Film from = x;
  for (std::int64_t b = 0; b < x.batch; ++b)
    for (std::int64_t g = 0; g < groups; ++g) {
      Digits mean = 0, squares = 0;
      const auto over = [&](const auto& body) {
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c)
          for (std::int64_t i = 0; i < x.height; ++i)
            for (std::int64_t j = 0; j < x.width; ++j) body(c, i, j);
      };
      const auto count = static_cast<int>(each * x.height * x.width);
      over([&](std::int64_t c, std::int64_t i, std::int64_t j) { mean += from.at(b, c, 0, i, j) / count; });
      over([&](std::int64_t c, std::int64_t i, std::int64_t j) {
        const Digits d = from.at(b, c, 0, i, j) - mean;
        squares += d * d / count;
      });
      over([&](std::int64_t c, std::int64_t i, std::int64_t j) {
        x.at(b, c, 0, i, j) =
            (from.at(b, c, 0, i, j) - mean) / sqrt(squares + Digits(eps)) * Digits(in.at(name + ".weight").value(c)) +
            Digits(in.at(name + ".bias").value(c));
      });
    }
  return x;
}

Film adm(const Tensors& in, const BlockCall& call) {
  const auto groups = static_cast<std::int64_t>(call.numbers.at("groups"));
  const double eps = call.numbers.at("eps");
  const bool modulated = call.numbers.at("scale_shift") == 1;
  const Film x = film(in.at("x"));
  Film h = convolved(in, "in_layers.2", silu(groupnormed(in, "in_layers.0", x, groups, eps)));
  const Tensor &emb = in.at("emb"), &w = in.at("emb_layers.1.weight"), &bias = in.at("emb_layers.1.bias");
  const auto e = [&](std::int64_t b, std::int64_t n) {
    Digits sum(bias.value(n));
    for (std::int64_t k = 0; k < w.shape[1]; ++k)
      sum += silu(Digits(emb.value(b * w.shape[1] + k))) * Digits(w.value(n * w.shape[1] + k));
    return sum;
  };
  const std::int64_t out = h.channels;
  if (!modulated)
    h.each([&](std::int64_t b, std::int64_t c, std::int64_t, std::int64_t, std::int64_t, Digits& v) { v += e(b, c); });
  Film n = groupnormed(in, "out_layers.0", h, groups, eps);
  if (modulated)
    n.each([&](std::int64_t b, std::int64_t c, std::int64_t, std::int64_t, std::int64_t, Digits& v) {
      v = v * (1 + e(b, c)) + e(b, out + c);
    });
  return plus(convolved(in, "skip_connection", x), convolved(in, "out_layers.3", silu(n)));
}

Film ae_resnet(const Tensors& in, const BlockCall& call) {
  const auto groups = static_cast<std::int64_t>(call.numbers.at("groups"));
  const double eps = call.numbers.at("eps");
  const Film x = film(in.at("x"));
  const Film h = convolved(in, "conv1", silu(groupnormed(in, "norm1", x, groups, eps)));
  return plus(x, convolved(in, "conv2", silu(groupnormed(in, "norm2", h, groups, eps))));
}

Film ae_attention(const Tensors& in, const BlockCall& call) {
  const Film x = film(in.at("x"));
  const Film n =
      groupnormed(in, "norm", x, static_cast<std::int64_t>(call.numbers.at("groups")), call.numbers.at("eps"));
  const Film q = convolved(in, "q", n), k = convolved(in, "k", n), v = convolved(in, "v", n);
  Film a = v;
  for (std::int64_t b = 0; b < x.batch; ++b)
    for (std::int64_t i = 0; i < x.height; ++i)
      for (std::int64_t j = 0; j < x.width; ++j) {
        Digits total = 0;
        std::vector<Digits> sums(static_cast<std::size_t>(x.channels));
        for (std::int64_t r = 0; r < x.height; ++r)
          for (std::int64_t s = 0; s < x.width; ++s) {
            Digits score = 0;
            for (std::int64_t c = 0; c < x.channels; ++c) score += q.at(b, c, 0, i, j) * k.at(b, c, 0, r, s);
            const Digits weight = exp(score / sqrt(Digits(static_cast<double>(x.channels))));
            total += weight;
            for (std::int64_t c = 0; c < x.channels; ++c)
              sums[static_cast<std::size_t>(c)] += weight * v.at(b, c, 0, r, s);
          }
        for (std::int64_t c = 0; c < x.channels; ++c) a.at(b, c, 0, i, j) = sums[static_cast<std::size_t>(c)] / total;
      }
  return plus(x, convolved(in, "proj_out", a));
}

Film qwen(const Tensors& in, const BlockCall& call) {
  const Digits eps(call.numbers.at("eps"));
  const auto normed = [&](const std::string& name, Film x) {
    const Film from = x;
    x.each([&](std::int64_t b, std::int64_t c, std::int64_t t, std::int64_t i, std::int64_t j, Digits& v) {
      Digits squares = 0;
      for (std::int64_t d = 0; d < x.channels; ++d) squares += from.at(b, d, t, i, j) * from.at(b, d, t, i, j);
      const Digits length = sqrt(squares), divisor = length > eps ? length : eps;
      v = v / divisor * sqrt(Digits(static_cast<double>(x.channels))) * Digits(in.at(name + ".gamma").value(c));
    });
    return x;
  };
  const Film x = film(in.at("x"));
  const Film h = convolved(in, "conv1", silu(normed("norm1", x)));
  return plus(convolved(in, "conv2", silu(normed("norm2", h))), convolved(in, "conv_shortcut", x));
}

struct Example {
  const char* block;
  BlockCall call;
  Film (*by_hand)(const Tensors&, const BlockCall&);
};
std::vector<Example> examples() {
  const auto call = [](const char* block, Shape x, Attributes numbers) {
    return with_defaults(*find_block(block), {.x = std::move(x), .numbers = std::move(numbers)});
  };
  const Attributes groups{{"groups", 4}};
  const auto adm_of = [&](double scale_shift) {
    return call("adm_resblock", {2, 8, 3, 5},
                {{"groups", 4}, {"channels_out", 12}, {"emb", 6}, {"scale_shift", scale_shift}});
  };
  return {{"adm_resblock", adm_of(1), adm},
          {"adm_resblock", adm_of(0), adm},
          {"flux_ae_resnet", call("flux_ae_resnet", {2, 8, 3, 4}, groups), ae_resnet},
          {"flux_ae_attention", call("flux_ae_attention", {2, 8, 2, 5}, groups), ae_attention},
          {"qwen_vae_residual", call("qwen_vae_residual", {2, 5, 4, 3, 2}, {{"channels_out", 6}}), qwen}};
}

bool are_same(const Tensors& a, const Tensors& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.format == y.second.format && x.second.shape == y.second.shape &&
           x.second.bytes == y.second.bytes;
  });
}

Graph built(const char* block, Shape x, Attributes numbers) {
  const BlockDef& def = *find_block(block);
  return def.build(with_defaults(def, {.x = std::move(x), .numbers = std::move(numbers)}));
}

}  // namespace

TEST_CASE("balls of blocks of convolutions hold what 60 digits give, and are narrow", "[blocks]") {
  for (const Example& example : examples()) {
    const Graph graph = find_block(example.block)->build(example.call);
    const Tensors inputs = inputs_of(graph);
    const Film expected = example.by_hand(inputs, example.call);
    for (const int slices : {kQuickSlices, kCloseSlices}) {
      const RealTensor y = evaluate_graph(graph, inputs, {.slices = slices}).at("y");
      REQUIRE(static_cast<std::size_t>(y.size()) == expected.values.size());
      std::int64_t outside = 0;
      double widest = 0;
      for (std::int64_t i = 0; i < y.size(); ++i) {
        const Ball ball = y.at(i);
        const Digits distance = abs(expected.values[static_cast<std::size_t>(i)] - Digits(ball.h) - Digits(ball.l));
        if (!(distance <= Digits(ball.r))) ++outside;
        widest = std::max(widest, ball.r);
      }
      CAPTURE(example.block, slices, widest);
      CHECK(outside == 0);
      CHECK(widest < (slices == kQuickSlices ? 1e-9 : 1e-18));
    }
  }
}

TEST_CASE("a frame sees itself and those before it", "[blocks]") {
  const BlockDef& block = *find_block("qwen_vae_residual");
  const BlockCall call = with_defaults(block, {.x = {1, 4, 5, 3, 3}, .numbers = {}});
  const Graph graph = block.build(call);
  Tensors inputs = inputs_of(graph);
  const RealTensor before = evaluate_graph(graph, inputs, {}).at("y");
  constexpr std::int64_t kFrame = 9, kChanged = 2;
  Tensor& x = inputs.at("x");
  for (std::int64_t c = 0; c < 4; ++c)
    x.set_code((c * 5 + kChanged) * kFrame + 4, encode(x.format, 3.5, Overflow::ieee));
  const RealTensor after = evaluate_graph(graph, inputs, {}).at("y");
  for (std::int64_t t = 0; t < 5; ++t) {
    std::int64_t changed = 0;
    for (std::int64_t c = 0; c < 4; ++c)
      for (std::int64_t p = 0; p < kFrame; ++p) {
        const std::int64_t at = (c * 5 + t) * kFrame + p;
        changed += before.at(at).h != after.at(at).h ? 1 : 0;
      }
    CAPTURE(t);
    // Two convolutions of three frames each: the changed frame and the four after it.
    CHECK((changed > 0) == (t >= kChanged));
  }
}

TEST_CASE("weights of diffusers' blocks of convolutions have norma's names", "[blocks]") {
  const Graph adm = built("adm_resblock", {1, 8, 3, 3}, {{"groups", 4}, {"emb", 6}, {"channels_out", 12}});
  const Tensors inputs = inputs_of(adm);
  const std::pair<const char*, const char*> names[] = {
      {"norm1", "in_layers.0"},  {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
      {"norm2", "out_layers.0"}, {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"}};
  Tensors given{{"x", inputs.at("x")}, {"emb", inputs.at("emb")}};
  for (const auto& [there, here] : names)
    for (const char* end : {".weight", ".bias"})
      given[std::string("down.0.") + there + end] = inputs.at(std::string(here) + end);
  CHECK(are_same(from_layout(adm, "diffusers", given, "down.0."), inputs));
  // Without a convolution beside the block its tensors are left over.
  const Graph same = built("flux_ae_resnet", {1, 8, 3, 3}, {{"groups", 4}});
  Tensors own = inputs_of(same);
  CHECK(are_same(from_layout(same, "diffusers", own), own));
  own["conv_shortcut.bias"] = own.at("conv1.bias");
  CHECK_THROWS_MATCHES(from_layout(same, "diffusers", own), ProgramError,
                       Message("tensor conv_shortcut.bias is none that layout diffusers of flux_ae_resnet has"));
}

TEST_CASE("weights of one block are found behind their prefix", "[blocks]") {
  const std::pair<Graph, const char*> blocks[] = {
      {built("flux_ae_resnet", {1, 8, 3, 3}, {{"groups", 4}, {"channels_out", 12}}), "bfl"},
      {built("flux_ae_attention", {1, 8, 3, 3}, {{"groups", 4}}), "bfl"},
      {built("qwen_vae_residual", {1, 8, 2, 3, 3}, {{"channels_out", 12}}), "diffusers"}};
  for (const auto& [block, layout] : blocks) {
    const Tensors inputs = inputs_of(block);
    Tensors given{{"x", inputs.at("x")}, {"decoder.conv_in.weight", inputs.at("x")}};
    for (const auto& [name, tensor] : inputs)
      if (name != "x") given["decoder.mid.0." + name] = tensor;
    CAPTURE(block.block);
    CHECK(are_same(from_layout(block, layout, given, "decoder.mid.0."), inputs));
  }
}

TEST_CASE("matrices of a Linear are kernels of one pixel", "[blocks]") {
  const Graph attention = built("flux_ae_attention", {1, 8, 3, 3}, {{"groups", 4}});
  const Tensors inputs = inputs_of(attention);
  const std::pair<const char*, const char*> names[] = {
      {"group_norm", "norm"}, {"to_q", "q"}, {"to_k", "k"}, {"to_v", "v"}, {"to_out.0", "proj_out"}};
  Tensors given;
  for (const auto& [there, here] : names)
    for (const char* end : {".weight", ".bias"}) {
      Tensor t = inputs.at(std::string(here) + end);
      if (t.shape.size() == 4) t.shape.resize(2);
      given[std::string(there) + end] = std::move(t);
    }
  Tensors expected = inputs;
  expected.erase("x");
  CHECK(are_same(from_layout(attention, "diffusers", given), expected));
  given["to_q.weight"].shape = {4, 16};
  CHECK_THROWS_MATCHES(from_layout(attention, "diffusers", given), ProgramError,
                       Message("tensor to_q.weight must be 8x8x1x1, got 4x16"));
}

TEST_CASE("blocks of convolutions refuse what does not fit in one sentence", "[blocks]") {
  CHECK_THROWS_MATCHES(built("adm_resblock", {1, 30, 4, 4}, {{"groups", 8}}), ProgramError,
                       Message("groups=8 must divide the 30 channels of adm_resblock"));
  CHECK_THROWS_MATCHES(built("flux_ae_resnet", {1, 32, 4, 4}, {{"groups", 8}, {"channels_out", 12}}), ProgramError,
                       Message("groups=8 must divide the 12 channels of flux_ae_resnet"));
  CHECK_THROWS_MATCHES(built("flux_ae_attention", {32, 4, 4}, {}), ProgramError,
                       Message("flux_ae_attention needs x of shape [batch, channels, height, width], got 32x4x4"));
  CHECK_THROWS_MATCHES(
      built("qwen_vae_residual", {1, 8, 4, 4}, {}), ProgramError,
      Message("qwen_vae_residual needs x of shape [batch, channels, frames, height, width], got 1x8x4x4"));
  CHECK_THROWS_MATCHES(built("adm_resblock", {1, 32, 4, 4}, {{"scale_shift", 2}}), ProgramError,
                       Message("scale_shift must be 0 or 1"));
  GraphBuilder g("film");
  const auto x = g.input("x", {1, 2, 3, 4, 4}), w = g.weight("w", {5, 2, 3, 3, 3}), b = g.weight("b", {5});
  CHECK_THROWS_MATCHES(causal_convolution(g, "c", {}, x, w, b), ProgramError,
                       Message("site c: x is 1x2x3x4x4 and weight is 5x2x3x3x3; they must be [B, T, C, H, W] and "
                               "[O, C, kt, kh, kw], in one group"));
  CHECK_THROWS_MATCHES(g.pad("p", x, 1, -1, 0), ProgramError,
                       Message("site p: there cannot be -1 zeros beside an axis"));
}

}  // namespace norma::test
