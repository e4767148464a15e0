// Linear layers of codes: scales from the largest magnitude, codes, a product that takes the scales.
#include "impls/cast_paths/linear_plan.hpp"

#include <algorithm>
#include <charconv>
#include <set>

namespace norma {

namespace {

using Value = GraphBuilder::Value;

// e4m3's largest number is 448; clamping a quotient to it and casting is a cast that saturates. torch's own cast to
// e4m3 saturates from 2.12 on and gives NaN beyond 464 before.
constexpr PathSource kLayerwise{"huggingface/diffusers", "src/diffusers/hooks/layerwise_casting.py", "v0.42.1", "read"};
constexpr PathSource kTorchao{"pytorch/ao", "torchao/quantization/quantize_/workflows/float8/float8_tensor.py",
                              "v0.18.0", "read"};
constexpr LinearMode kModes[] = {
    {.name = "layerwise_e4m3",
     .title = "weights and biases kept in e4m3 without a scale, back in T for the product; torch from 2.12 on",
     .source = kLayerwise,
     .weight = Codes::stored},
    {.name = "layerwise_e4m3_nan",
     .title = "the same by torch up to 2.11, whose cast gives NaN beyond 464",
     .source = kLayerwise,
     .weight = Codes::stored,
     .overflow = Overflow::ieee},
    {.name = "layerwise_e5m2",
     .title = "the same in e5m2, which overflows to Inf",
     .source = kLayerwise,
     .weight = Codes::stored,
     .format = FormatId::e5m2,
     .overflow = Overflow::ieee},
    {.name = "fp8_unscaled",
     .title = "ComfyUI's fp8_linear of weights without a scale: activations clamped to 448 and cast",
     .source = {"comfyanonymous/ComfyUI", "comfy/ops.py", "1eb91db", "read"},
     .x = Codes::unscaled,
     .weight = Codes::unscaled},
    {.name = "fp8_tensor",
     .title = "torchao Float8DynamicActivationFloat8WeightConfig(PerTensor()): amax / 448 rounded to T, by _scaled_mm",
     .source = kTorchao,
     .x = Codes::tensor,
     .weight = Codes::tensor,
     .scale = ScaleRule::in_t},
    {.name = "fp8_row",
     .title = "torchao Float8DynamicActivationFloat8WeightConfig(PerRow()): a scale for each token and output channel",
     .source = kTorchao,
     .x = Codes::row,
     .weight = Codes::row,
     .scale = ScaleRule::in_t},
    {.name = "fp8_block128",
     .title = "DeepSeek-V3: activations in runs of 128, weights in squares of 128, scaled inside the sum",
     .source = {"deepseek-ai/DeepSeek-V3", "inference/kernel.py", "d4c8543", "read"},
     .x = Codes::blocks,
     .weight = Codes::squares,
     .block = 128,
     .bias = BiasPlace::after},
    {.name = "fp8_finegrained",
     .title = "transformers FineGrainedFP8Config: as fp8_block128, weights times 448 / amax",
     .source = {"huggingface/transformers", "src/transformers/integrations/finegrained_fp8.py", "v5.23.0", "read"},
     .x = Codes::blocks,
     .weight = Codes::squares,
     .weight_scale = ScaleRule::inverse,
     .block = 128,
     .bias = BiasPlace::after},
    {.name = "mxfp8",
     .title = "torchao MXTensor, e4m3 in blocks of 32 with powers of two as scales, rounded up (RCEIL)",
     .source = {"pytorch/ao", "torchao/prototype/mx_formats/mx_tensor.py", "v0.18.0", "read"},
     .x = Codes::blocks,
     .weight = Codes::blocks,
     .scale = ScaleRule::e8m0,
     .block = 32},
};

bool has(std::string_view name, std::string_view part) { return name.find(part) != std::string_view::npos; }

std::string in_words(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string program_text(const LinearMode& mode, Codes how, ScaleRule rule) {
  const std::string codes = std::string(name_of(mode.format)) + "/" + std::string(name_of(mode.overflow));
  std::string text = "norm quantize\n";
  if (how == Codes::blocks) text += "view blocks(" + std::to_string(mode.block) + ")\n";
  text += "in x:T\n";
  if (how == Codes::stored) return text + "codes = cast " + codes + " x\nout y = cast T codes\n";
  if (how == Codes::unscaled) return text + "out y = cast " + codes + " x\n";
  switch (rule) {
    case ScaleRule::in_t:
      text += "amax = amax T x\nratio = div fp32 amax, 448\nratio_T = cast T ratio\nout scale = cast fp32 ratio_T\n";
      break;
    case ScaleRule::fp32: text += "amax = amax fp32 x\nout scale = div fp32 amax, 448\n"; break;
    case ScaleRule::e8m0:
      text += "amax = amax fp32 x\nratio = div fp32 amax, 448\nout scale = e8m0_up fp32 ratio\n";
      break;
    // torch's quotient of a number and a tensor is a reciprocal and a product. Upstream takes 1 for an amax of 0, which
    // gives the same zeros.
    case ScaleRule::inverse:
      return text +
             "amax = amax fp32 x\nsafe = max fp32 amax, 0x1p-100\ninverse = reciprocal fp32 safe\nfactor = mul fp32 "
             "inverse, 448\n" +
             "out scale = reciprocal fp32 factor\nq = mul fp32 x, factor\nout y = cast " + codes + " q\n";
  }
  return text + "q = div fp32 x, scale\nout y = cast " + codes + " q\n";
}

/// Writes one path anew.
class Rewriter {
 public:
  Rewriter(const Graph& path, const LinearPlan& plan) : path_(path), plan_(plan), g_(path.block) {}

  Graph run() {
    refuse_unknown_parts();
    for (GraphInput input : path_.inputs) {
      if (input.weight && only_in_fp32(input.value.name)) input.value.format = FormatId::fp32;
      g_.adopt(input);
    }
    for (const Site& site : path_.sites) {
      const auto* linear = std::get_if<LinearSite>(&site.what);
      if (linear == nullptr)
        g_.adopt(site);
      else
        write(site, changed(*linear));
    }
    for (const std::string& output : path_.outputs) g_.output({output});
    return g_.finish();
  }

 private:
  struct Coded {
    Value codes;
    Value scale{};
  };

  void refuse_unknown_parts() const {
    std::vector<std::string> layers;
    for (const Site& site : path_.sites)
      if (std::holds_alternative<LinearSite>(site.what)) layers.push_back(site.name());
    const auto check = [&](const std::string& word, const std::vector<std::string>& parts) {
      for (const std::string& part : parts)
        if (std::ranges::none_of(layers, [&](const std::string& name) { return has(name, part); }))
          throw ProgramError(word + "=" + part + " is in the name of no linear layer of " + path_.block + "; it has " +
                             in_words(layers));
    };
    check("keep", plan_.keep);
    check("keep_fp32", plan_.keep_fp32);
  }

  bool in_fp32(const Site& site) const {
    return std::holds_alternative<LinearSite>(site.what) &&
           std::ranges::any_of(plan_.keep_fp32, [&](const std::string& part) { return has(site.name(), part); });
  }

  /// Whether every site that reads this weight is such a layer.
  bool only_in_fp32(const std::string& weight) const {
    bool any = false;
    for (const Site& site : path_.sites)
      if (std::ranges::any_of(site.arguments, [&](const Argument& a) { return a.value == weight; })) {
        if (!in_fp32(site)) return false;
        any = true;
      }
    return any;
  }

  /// NAME.fp32, and NAME as its cast.
  void write_fp32(const Site& site, LinearSite linear) {
    const FormatId to = linear.rounding.format->id;
    linear.rounding = {.format = FormatRef{FormatId::fp32}};
    const Argument* bias = site.find("bias");
    const Value wide = g_.linear(site.name() + ".fp32", linear, {site.find("x")->value}, {site.find("weight")->value},
                                 bias == nullptr ? std::nullopt : std::optional(Value{bias->value}));
    const Binding binding{.x = FormatId::fp32, .formats = {}, .attributes = {}, .cols = g_.shape(wide).back(), .profile = {}};
    const std::string text = "norm cast\nin x:T\nout y = cast " + std::string(name_of(to)) + " x\n";
    g_.program(site.name(), {.program = parse_program(text, binding)}, {{"x", wide}});
  }

  LinearSite changed(LinearSite linear) const {
    if (plan_.sum) linear.sum = *plan_.sum;
    if (plan_.bias) linear.bias = *plan_.bias;
    return linear;
  }

  bool kept(const Site& site) const {
    if (plan_.mode == nullptr) return true;
    if (std::ranges::any_of(plan_.keep, [&](const std::string& part) { return has(site.name(), part); })) return true;
    if (!plan_.keep_ragged || plan_.mode->block == 0) return false;
    const Shape& w = g_.shape({site.find("weight")->value});
    return w[1] % plan_.mode->block != 0 || (plan_.mode->weight == Codes::squares && w[0] % plan_.mode->block != 0);
  }

  void write(const Site& site, LinearSite linear) {
    if (in_fp32(site)) {
      write_fp32(site, linear);
      return;
    }
    if (kept(site)) {
      Site same = site;
      same.what = linear;
      g_.adopt(same);
      return;
    }
    const LinearMode& mode = *plan_.mode;
    const Argument* bias_of = site.find("bias");
    std::optional<Value> bias;
    if (bias_of != nullptr) bias = Value{bias_of->value};
    if (bias && mode.weight == Codes::stored) bias = coded(*bias, mode.weight, mode.weight_scale, site).codes;
    if (bias && !plan_.bias) linear.bias = mode.bias;
    const Coded x = coded({site.find("x")->value}, mode.x, mode.scale, site);
    const Coded weight = coded({site.find("weight")->value}, mode.weight, mode.weight_scale, site);
    if (weight.scale.name.empty()) {
      g_.linear(site.name(), linear, x.codes, weight.codes, bias);
      return;
    }
    linear.block = mode.x == Codes::blocks ? mode.block : g_.shape(weight.codes)[1];
    g_.scaled_linear(site.name(), linear, x.codes, weight.codes, {.x = x.scale, .weight = weight.scale}, bias);
  }

  /// A tensor as codes, at its first reader; the layer is the one that asks.
  Coded coded(const Value& value, Codes how, ScaleRule rule, const Site& layer) {
    if (how == Codes::none) return {value};
    if (const auto known = coded_.find(value.name); known != coded_.end()) return known->second;
    return coded_[value.name] = make(value, how, rule, layer);
  }

  Coded make(const Value& value, Codes how, ScaleRule rule, const Site& layer) {
    const LinearMode& mode = *plan_.mode;
    const Shape shape = g_.shape(value);
    const std::int64_t cols = shape.back(), block = mode.block;
    const bool whole = block == 0 || (cols % block == 0 && (how != Codes::squares || shape[0] % block == 0));
    if (!whole)
      throw ProgramError("linears=" + std::string(mode.name) + " needs whole blocks of " + std::to_string(block) +
                         ", and " + value.name + " of " + layer.name() + " is " + shape_text(shape) +
                         "; keep=" + layer.name() + " leaves that layer as it is");
    const std::string name = value.name + (mode.format == FormatId::e5m2 ? ".e5m2" : ".e4m3");
    const auto codes_of = [&](const Value& from) {
      const Binding binding{.x = g_.format(from).value_or(FormatId::fp32),
                            .formats = {},
                            .attributes = {},
                            .cols = g_.shape(from).back(),
                            .profile = {}};
      return g_.program(name, {.program = parse_program(program_text(mode, how, rule), binding)}, {{"x", from}});
    };
    const Value scale{name + ".scale"};
    switch (how) {
      case Codes::none: break;
      case Codes::stored:
      case Codes::unscaled: return {codes_of(value)};
      case Codes::row:
      case Codes::blocks: return {codes_of(value), scale};
      case Codes::tensor: {
        const Value codes = codes_of(g_.reshape(name + ".row", value, {1, element_count(shape)}));
        return {g_.reshape(name + ".shaped", codes, shape), scale};
      }
      case Codes::squares: {
        const std::int64_t down = shape[0] / block, across = cols / block;
        const Value cut =
            g_.permute(name + ".cut", g_.reshape(name + ".split", value, {down, block, across, block}), {0, 2, 1, 3});
        const Value codes = codes_of(g_.reshape(name + ".squares", cut, {down * across, block * block}));
        const Value back =
            g_.permute(name + ".back", g_.reshape(name + ".tiles", codes, {down, across, block, block}), {0, 2, 1, 3});
        return {g_.reshape(name + ".shaped", back, shape), scale};
      }
    }
    return {value};
  }

  const Graph& path_;
  const LinearPlan& plan_;
  GraphBuilder g_;
  std::map<std::string, Coded> coded_;
};

std::vector<std::string> parts_of(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    if (comma != 0) parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

[[noreturn]] void refuse_word(std::string_view word, std::string_view value, const std::string& known) {
  throw ProgramError(std::string(word) + "=" + std::string(value) + " is not known; known: " + known);
}

}  // namespace

std::span<const LinearMode> all_linear_modes() { return kModes; }

const LinearMode* find_linear_mode(std::string_view name) {
  const auto found = std::ranges::find(kModes, name, &LinearMode::name);
  return found == std::end(kModes) ? nullptr : found;
}

Graph with_linears(const Graph& path, const LinearPlan& plan) { return Rewriter(path, plan).run(); }

std::optional<ProductSum> parse_product_sum(std::string_view text) {
  const auto open = text.find('(');
  const std::string_view name = text.substr(0, open);
  ProductSum sum;
  if (open != std::string_view::npos) {
    const std::string_view count = text.substr(open + 1);
    const auto end = std::from_chars(count.data(), count.data() + count.size(), sum.count);
    if (end.ec != std::errc{} || end.ptr + 1 != count.data() + count.size() || *end.ptr != ')' || sum.count < 1)
      return {};
  }
  for (const ProductOrder order : {ProductOrder::exact, ProductOrder::sequential, ProductOrder::blocked,
                                   ProductOrder::split, ProductOrder::tensor_core}) {
    sum.order = order;
    const bool counted = order != ProductOrder::exact && order != ProductOrder::sequential;
    if (const std::string own = text_of(sum); own.substr(0, own.find('(')) == name && counted == (sum.count > 0))
      return sum;
  }
  return {};
}

LinearPlan linear_plan(const std::map<std::string, std::string, std::less<>>& words) {
  const auto word = [&](std::string_view name) {
    const auto found = words.find(name);
    return found == words.end() ? std::string_view{} : std::string_view(found->second);
  };
  LinearPlan plan;
  if (const std::string_view name = word("linears"); !name.empty()) {
    plan.mode = find_linear_mode(name);
    std::vector<std::string> known;
    for (const LinearMode& mode : kModes) known.emplace_back(mode.name);
    if (plan.mode == nullptr) refuse_word("linears", name, in_words(known));
  }
  plan.keep = parts_of(word("keep"));
  if (!plan.keep.empty() && plan.mode == nullptr)
    throw ProgramError("keep=" + std::string(word("keep")) +
                       " leaves layers as they are, and no linears= changes the others");
  plan.keep_fp32 = parts_of(word("keep_fp32"));
  if (const std::string_view text = word("sums"); !text.empty()) {
    plan.sum = parse_product_sum(text);
    if (!plan.sum) refuse_word("sums", text, "exact, sequential, blocked(N), split(N), tensor_core(N)");
  }
  if (const std::string_view text = word("bias"); !text.empty()) {
    constexpr std::pair<std::string_view, BiasPlace> kPlaces[] = {
        {"epilogue", BiasPlace::epilogue}, {"after", BiasPlace::after}, {"first", BiasPlace::first}};
    const auto found = std::ranges::find(kPlaces, text, &std::pair<std::string_view, BiasPlace>::first);
    if (found == std::end(kPlaces)) refuse_word("bias", text, "epilogue, after, first");
    plan.bias = found->second;
  }
  return plan;
}

}  // namespace norma
