// Sites bit for bit: programs by their steps, products in their declared order, attention as its form says.
#include "impls/emulate/graph.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "impls/emulate/functions.hpp"
#include "impls/emulate/products.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

std::vector<float> decoded(const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

FormatId stored_format(const GraphValue& result) {
  if (!result.format) throw ProgramError("site " + result.name + " gives real numbers: nothing is stored");
  return *result.format;
}

Tensor stored(const GraphValue& result, const std::vector<float>& values, Overflow overflow) {
  Tensor y = Tensor::zeros(stored_format(result), result.shape);
  encode_row(y.format, values.data(), y.bytes.data(), values.size(), overflow);
  return y;
}

/// A value between two steps, in the format it has there.
void round_to(const Rounding& rounding, std::vector<float>& values) {
  if (rounding.format) round_row(rounding.format->id, values.data(), values.size(), rounding.overflow);
}

/// `after`: the stored products and the bias, added in fp32 and rounded once more, as an eager addition is.
Tensor with_bias(const GraphValue& result, std::vector<float> products, const Tensor* bias, BiasPlace place,
                 const Rounding& rounding, std::int64_t run) {
  if (bias == nullptr || place == BiasPlace::first) return stored(result, products, rounding.overflow);
  const std::vector<float> b = decoded(*bias);
  if (place == BiasPlace::after) round_to(rounding, products);
  for (std::size_t i = 0; i < products.size(); ++i)
    products[i] += b[static_cast<std::size_t>(static_cast<std::int64_t>(i) / run) % b.size()];
  return stored(result, products, rounding.overflow);
}

std::vector<Tensor> run(const ProgramSite& what, const Site& site, const std::vector<const Tensor*>& arguments,
                        const EmulateOptions& options) {
  Tensors inputs;
  for (std::size_t k = 0; k < arguments.size(); ++k) inputs[site.arguments[k].role] = *arguments[k];
  Tensors outputs = emulate(what.program, inputs, what.attributes, options);
  std::vector<Tensor> results;
  for (const GraphValue& result : site.results) {
    stored_format(result);
    results.push_back(
        std::move(outputs.at(result.name == site.name() ? "y" : result.name.substr(site.name().size() + 1))));
    results.back().shape = result.shape;
  }
  return results;
}

/// Columns [from, to) of a matrix.
std::vector<float> columns_of(const std::vector<float>& m, std::int64_t depth, std::int64_t from, std::int64_t to) {
  std::vector<float> part;
  part.reserve(m.size() / static_cast<std::size_t>(depth) * static_cast<std::size_t>(to - from));
  for (auto row = m.begin(); row != m.end(); row += depth) part.insert(part.end(), row + from, row + to);
  return part;
}

std::vector<Tensor> run_scaled(const LinearSite& what, const Site& site, const std::vector<const Tensor*>& arguments,
                               const EmulateOptions& options) {
  const Tensor &x = *arguments[0], &weight = *arguments[1];
  const std::int64_t depth = weight.shape[1], cols = weight.shape[0], rows = x.size() / depth;
  const std::vector<float> a = decoded(x), b = decoded(weight), sa = decoded(*arguments[2]), sb = decoded(*arguments[3]);
  const ScaleLayout of_x = scale_layout(x.shape, arguments[2]->shape, what.block);
  const ScaleLayout of_weight = scale_layout(weight.shape, arguments[3]->shape, what.block);
  std::vector<float> total(static_cast<std::size_t>(rows * cols), 0.0f);
  for (std::int64_t block = 0; block < of_x.blocks; ++block) {
    const std::int64_t from = block * what.block, to = std::min(from + what.block, depth);
    const std::vector<float> part_a = columns_of(a, depth, from, to), part_b = columns_of(b, depth, from, to);
    const std::vector<float> part =
        ordered_product(what.sum, {.rows = rows, .cols = cols, .depth = to - from, .a = part_a.data(), .b = part_b.data(),
                                   .threads = options.threads});
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < cols; ++j) {
        const auto at = static_cast<std::size_t>(i * cols + j);
        const float scaled = part[at] * sa[static_cast<std::size_t>(of_x.at(i, block))];
        const float scale = sb[static_cast<std::size_t>(of_weight.at(j, block))];
        if (what.sum.contract) {
          total[at] = std::fma(scaled, scale, total[at]);
        } else {
          const float term = scaled * scale;
          total[at] += term;
        }
      }
  }
  const Tensor* bias = arguments.size() > 4 ? arguments[4] : nullptr;
  return {with_bias(site.results[0], std::move(total), bias, what.bias, what.rounding, 1)};
}

std::vector<Tensor> run(const LinearSite& what, const Site& site, const std::vector<const Tensor*>& arguments,
                        const EmulateOptions& options) {
  if (what.block != 0) return run_scaled(what, site, arguments, options);
  const Tensor &x = *arguments[0], &weight = *arguments[1];
  const Tensor* bias = arguments.size() > 2 ? arguments[2] : nullptr;
  const std::vector<float> a = decoded(x), b = decoded(weight);
  const std::vector<float> start = bias != nullptr && what.bias == BiasPlace::first ? decoded(*bias) : std::vector<float>{};
  std::vector<float> products = ordered_product(
      what.sum, {.rows = x.size() / weight.shape[1], .cols = weight.shape[0], .depth = weight.shape[1], .a = a.data(),
                 .b = b.data(), .start = start, .threads = options.threads});
  return {with_bias(site.results[0], std::move(products), bias, what.bias, what.rounding, 1)};
}

std::vector<Tensor> run(const AttentionSite& what, const Site& site, const std::vector<const Tensor*>& arguments,
                        const EmulateOptions& options) {
  const Shape &qs = arguments[0]->shape, &ks = arguments[1]->shape, &vs = arguments[2]->shape;
  const std::vector<float> q = decoded(*arguments[0]), k = decoded(*arguments[1]), v = decoded(*arguments[2]);
  const std::int64_t queries = qs[2], keys = ks[2], size = qs[3], width = vs[3], shared = qs[1] / ks[1];
  const auto scale = static_cast<float>(what.scale.value_or(1 / std::sqrt(static_cast<double>(size))));
  std::vector<float> y(static_cast<std::size_t>(element_count(site.results[0].shape)));
  std::vector<float> columns(static_cast<std::size_t>(keys * width));
  for (std::int64_t head = 0; head < qs[0] * qs[1]; ++head) {
    const std::int64_t of_keys = head / qs[1] * ks[1] + head % qs[1] / shared;
    std::vector<float> scores =
        ordered_product(what.sum, {.rows = queries, .cols = keys, .depth = size, .a = q.data() + head * queries * size,
                                   .b = k.data() + of_keys * keys * size, .threads = options.threads});
    round_to(what.products, scores);
    for (float& score : scores) score *= scale;
    round_to(what.scores, scores);
    std::vector<float> sums(static_cast<std::size_t>(queries));
    for (std::int64_t i = 0; i < queries; ++i) {
      float* row = scores.data() + i * keys;
      const std::int64_t seen = what.causal ? std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys) : keys;
      const float largest = seen > 0 ? *std::max_element(row, row + seen) : 0.0f;
      float sum = 0;
      for (std::int64_t j = 0; j < keys; ++j) {
        row[j] = j < seen ? static_cast<float>(rounded_function(Op::exp, static_cast<double>(row[j] - largest), FormatId::fp32,
                                                                Overflow::ieee))
                          : 0.0f;
        sum += row[j];
      }
      sums[static_cast<std::size_t>(i)] = sum;
      if (what.normalized_first)
        for (std::int64_t j = 0; j < keys; ++j) row[j] /= sum;
    }
    round_to(what.probabilities, scores);
    for (std::int64_t j = 0; j < keys; ++j)
      for (std::int64_t c = 0; c < width; ++c)
        columns[static_cast<std::size_t>(c * keys + j)] = v[static_cast<std::size_t>((of_keys * keys + j) * width + c)];
    std::vector<float> out = ordered_product(what.sum, {.rows = queries, .cols = width, .depth = keys, .a = scores.data(),
                                                        .b = columns.data(), .threads = options.threads});
    if (!what.normalized_first)
      for (std::size_t i = 0; i < out.size(); ++i) out[i] /= sums[i / static_cast<std::size_t>(width)];
    std::ranges::copy(out, y.begin() + head * queries * width);
  }
  return {stored(site.results[0], y, what.rounding.overflow)};
}

std::vector<Tensor> run(const ConvolutionSite& what, const Site& site, const std::vector<const Tensor*>& arguments,
                        const EmulateOptions& options) {
  const Tensor &x = *arguments[0], &weight = *arguments[1];
  const Tensor* bias = arguments.size() > 2 ? arguments[2] : nullptr;
  const std::vector<float> values = decoded(x), b = decoded(weight);
  const std::vector<float> start = bias != nullptr && what.bias == BiasPlace::first ? decoded(*bias) : std::vector<float>{};
  const Shape &xs = x.shape, &ws = weight.shape, &ys = site.results[0].shape;
  const std::int64_t positions = ys[2] * ys[3], depth = ws[1] * ws[2] * ws[3], each = ws[0] / what.groups;
  std::vector<float> y(static_cast<std::size_t>(element_count(ys)));
  std::vector<float> patches(static_cast<std::size_t>(xs[0] * positions * depth));
  for (std::int64_t group = 0; group < what.groups; ++group) {
    std::size_t at = 0;
    for (std::int64_t n = 0; n < xs[0]; ++n)
      for (std::int64_t p = 0; p < positions; ++p)
        for (std::int64_t c = 0; c < ws[1]; ++c)
          for (std::int64_t i = 0; i < ws[2]; ++i)
            for (std::int64_t j = 0; j < ws[3]; ++j, ++at) {
              const std::int64_t row = p / ys[3] * what.stride[0] - what.padding[0] + i * what.dilation[0];
              const std::int64_t col = p % ys[3] * what.stride[1] - what.padding[1] + j * what.dilation[1];
              const bool inside = row >= 0 && row < xs[2] && col >= 0 && col < xs[3];
              patches[at] =
                  inside ? values[static_cast<std::size_t>(((n * xs[1] + group * ws[1] + c) * xs[2] + row) * xs[3] + col)] : 0.0f;
            }
    const std::span<const float> begin =
        start.empty() ? std::span<const float>{} : std::span(start).subspan(static_cast<std::size_t>(group * each), static_cast<std::size_t>(each));
    const std::vector<float> products =
        ordered_product(what.sum, {.rows = xs[0] * positions, .cols = each, .depth = depth, .a = patches.data(),
                                   .b = b.data() + group * each * depth, .start = begin, .threads = options.threads});
    for (std::int64_t n = 0; n < xs[0]; ++n)
      for (std::int64_t p = 0; p < positions; ++p)
        for (std::int64_t o = 0; o < each; ++o)
          y[static_cast<std::size_t>((n * ys[1] + group * each + o) * positions + p)] =
              products[static_cast<std::size_t>((n * positions + p) * each + o)];
  }
  return {with_bias(site.results[0], std::move(y), bias, what.bias, what.rounding, positions)};
}

std::vector<Tensor> run(const Rearrangement& what, const Site& site, const std::vector<const Tensor*>& arguments,
                        const EmulateOptions&) {
  if (what.kind == Rearrangement::Kind::count) {
    Tensor numbers = Tensor::zeros(stored_format(site.results[0]), site.results[0].shape);
    for (std::int64_t i = 0; i < numbers.size(); ++i)
      numbers.set_code(i, encode(numbers.format, static_cast<double>(what.numbers[0] + i * what.numbers[1]), Overflow::ieee));
    return {std::move(numbers)};
  }
  if (what.kind == Rearrangement::Kind::reshape) {
    Tensor moved = *arguments[0];
    moved.shape = site.results[0].shape;
    return {std::move(moved)};
  }
  std::vector<Shape> shapes;
  for (const Tensor* argument : arguments) shapes.push_back(argument->shape);
  Tensor moved = Tensor::zeros(arguments[0]->format, site.results[0].shape);
  const std::vector<Source> sources = sources_of(what, shapes, moved.shape);
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (sources[i].argument != Source::kZero)  // code 0 is +0 in every format with a zero
      moved.set_code(static_cast<std::int64_t>(i),
                     arguments[static_cast<std::size_t>(sources[i].argument)]->code(sources[i].element));
  return {std::move(moved)};
}

}  // namespace

std::vector<Tensor> emulate_site(const Site& site, const std::vector<const Tensor*>& arguments,
                                 const EmulateOptions& options) {
  return std::visit([&](const auto& what) { return run(what, site, arguments, options); }, site.what);
}

Tensors emulate_graph(const Graph& graph, const Tensors& inputs, const EmulateOptions& options,
                      const std::function<bool(const std::string&)>& keep) {
  Tensors values;
  std::map<std::string, std::size_t> last_use;
  for (std::size_t i = 0; i < graph.sites.size(); ++i)
    for (const Argument& argument : graph.sites[i].arguments) last_use[argument.value] = i;
  const auto value = [&](const std::string& name) -> const Tensor& {
    const auto made = values.find(name);
    return made != values.end() ? made->second : inputs.find(name)->second;
  };
  for (std::size_t i = 0; i < graph.sites.size(); ++i) {
    const Site& site = graph.sites[i];
    std::vector<const Tensor*> arguments;
    for (const Argument& argument : site.arguments) arguments.push_back(&value(argument.value));
    std::vector<Tensor> results = emulate_site(site, arguments, options);
    for (std::size_t k = 0; k < results.size(); ++k) values[site.results[k].name] = std::move(results[k]);
    if (!keep) continue;
    for (const Argument& argument : site.arguments)
      if (last_use[argument.value] == i && !keep(argument.value) &&
          std::ranges::find(graph.outputs, argument.value) == graph.outputs.end())
        values.erase(argument.value);
  }
  return values;
}

}  // namespace norma
