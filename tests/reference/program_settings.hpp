// Programs with inputs for tests: random ones over tensors with special rows, and those that people write.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma::test {

inline constexpr double kInfinity = HUGE_VAL;

using Random = std::mt19937_64;

inline std::size_t below(Random& rng, std::size_t n) { return static_cast<std::size_t>(rng() % n); }
inline double signed_unit(Random& rng) { return static_cast<double>(rng() >> 11) * 0x1p-52 - 1; }

// ---- tensors ----

enum class Family {
  ordinary,
  wide,
  zeros,
  constant,
  two_values,
  subnormal,
  huge,
  integers,
  with_nan,
  with_inf,
  sparse
};
inline constexpr std::size_t kFamilies = 11;

inline double draw(Random& rng, Family family, FormatId format, std::int64_t column) {
  switch (family) {
    case Family::ordinary: return signed_unit(rng) * 4;
    case Family::wide: return signed_unit(rng) * std::ldexp(1.0, static_cast<int>(rng() % 60) - 30);
    case Family::zeros: return rng() % 2 == 0 ? 0.0 : -0.0;
    case Family::constant: return 1.171875;
    case Family::two_values: return rng() % 4 == 0 ? 1 : 1 + 0x1p-7;
    case Family::subnormal: return static_cast<double>(rng() % 7) * min_subnormal(format);
    case Family::huge: return signed_unit(rng) * max_finite(format);
    case Family::integers: return static_cast<double>(rng() % 17) - 8;
    case Family::with_nan: return column == 1 ? std::nan("") : signed_unit(rng);
    case Family::with_inf:
      return column < 2 && rng() % 2 == 0 ? std::copysign(kInfinity, signed_unit(rng)) : signed_unit(rng);
    case Family::sparse: return rng() % 3 != 0 ? 0.0 : signed_unit(rng);
  }
  std::abort();
}

inline Tensor random_tensor(Random& rng, FormatId format, const Shape& shape) {
  Tensor t = Tensor::zeros(format, shape);
  const std::int64_t cols = t.cols();
  Family family{};
  for (std::int64_t i = 0; i < t.size(); ++i) {
    if (i % cols == 0) family = rng() % 2 == 0 ? Family::ordinary : static_cast<Family>(below(rng, kFamilies));
    t.set_code(i, encode(format, draw(rng, family, format, i % cols), Overflow::ieee));
  }
  return t;
}

// ---- programs ----

struct Setting {
  Program program;
  Tensors tensors;
  Attributes attributes;
  std::int64_t rows = 0, cols = 0;
};

/// Inputs of every kind of axes, then `steps` operations, reductions and constants over what stands before.
inline Setting random_setting(std::uint64_t seed, std::size_t steps) {
  Random rng(seed);
  constexpr FormatId kFormats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::fp64};
  Setting s;
  constexpr std::int64_t kWidths[] = {1, 2, 5, 16, 17, 40, 300};
  s.cols = kWidths[below(rng, std::size(kWidths))];
  s.rows = s.cols > 100 ? 2 : 5;
  Program& p = s.program;
  p.norm = "random";
  std::vector<Operand> values, columns;
  const auto push = [&](Node node) {
    const Operand o{static_cast<int>(p.nodes.size()), 0};
    values.push_back(o);
    if (node.axes.has(Axis::cols)) columns.push_back(o);
    if (node.names.size() == 2) values.push_back({o.node, 1});
    p.nodes.push_back(std::move(node));
  };
  const auto input = [&](const std::string& name, Axes axes) {
    Node node;
    node.names = {name};
    node.axes = axes;
    const FormatId format = kFormats[below(rng, std::size(kFormats))];
    node.rounding.format = FormatRef{format};
    Shape shape;
    if (axes.has(Axis::rows)) shape.push_back(s.rows);
    if (axes.has(Axis::cols)) shape.push_back(s.cols);
    s.tensors[name] = random_tensor(rng, format, shape);
    push(std::move(node));
  };
  Random own(~seed);  // of pairs: programs without them stay what they were
  /// A table of a value a rotary column or a pair, for all rows or for each.
  const auto pair_input = [&](const std::string& name, std::size_t each) {
    Node node;
    node.names = {name};
    node.axes = kPairs;
    node.rounding.format = FormatRef{FormatId::fp32};
    const std::int64_t rotary = p.view.rotary == 0 ? s.cols : p.view.rotary;
    Shape shape{rotary / static_cast<std::int64_t>(each)};
    if (own() % 2 == 0) shape.insert(shape.begin(), s.rows);
    s.tensors[name] = random_tensor(own, FormatId::fp32, shape);
    push(std::move(node));
  };
  input("x", kRowsCols);
  input("residual", kRowsCols);
  input("weight", norma::kCols);
  input("factor", kRows);
  input("scale", kScalar);
  if (s.cols % 2 == 0 && own() % 2 == 0) {
    const auto quarter = static_cast<std::int64_t>(below(own, static_cast<std::size_t>(s.cols / 2)));
    p.view.pairing = own() % 2 == 0 ? Pairing::half : Pairing::interleaved;
    p.view.rotary = 2 * quarter;
    pair_input("cos", 1 + below(own, 2));
  }
  Node attribute;
  attribute.kind = NodeKind::attribute;
  attribute.names = {"eps"};
  push(attribute);
  constexpr double kEps[] = {0, 1e-6, 1e-5, 0x1p-20, 1};
  s.attributes["eps"] = kEps[below(rng, std::size(kEps))];
  Node count;
  count.kind = NodeKind::count;
  count.names = {"N"};
  push(count);
  // A recent value more often than an old one, so that chains grow.
  const auto any = [&](const std::vector<Operand>& of) {
    const std::size_t n = of.size();
    return of[rng() % 2 == 0 ? n - 1 - below(rng, std::min<std::size_t>(n, 4)) : below(rng, n)];
  };
  for (std::size_t i = 0; i < steps; ++i) {
    Node node;
    const std::string name = "v" + std::to_string(i);
    node.names = {name};
    switch (below(rng, 8)) {
      case 0: {
        constexpr double kConstants[] = {0, 1, -1, 0.5, 3, 1.0 / 3, 1e-6, 0x1p-30, -448, 0.7978845608028654, 1e4};
        node.kind = NodeKind::constant;
        node.constant = kConstants[below(rng, std::size(kConstants))];
        break;
      }
      case 1: {
        node.kind = NodeKind::reduce;
        node.reduction.kind = static_cast<ReduceKind>(below(rng, 5));
        node.reduction.term = below(rng, 2) == 0 ? Term::value : Term::square;
        node.reduction.order = Order{.kind = OrderKind::exact};
        node.operands = {any(columns)};
        if (node.reduction.kind == ReduceKind::moments) node.names.push_back(name + "v");
        node.axes.mask = p.nodes[static_cast<std::size_t>(node.operands[0].node)].axes.mask & kRows.mask;
        break;
      }
      default: {
        // Last in the table: rotate and join, which need pairs, and scales, which have no certified evaluation.
        const OpRow* row = &all_ops()[below(rng, static_cast<std::size_t>(Op::rotate))];
        const bool paired = p.view.pairing != Pairing::none;
        if (paired && own() % 4 == 0) row = &row_of(own() % 2 == 0 ? Op::rotate : Op::join);
        const OpRow& op = *row;
        node.kind = NodeKind::map;
        node.op = op.op;
        for (int k = 0; k < op.arity; ++k) {
          node.operands.push_back(op.op == Op::rotate || rng() % 2 == 0 ? any(columns) : any(values));
          node.axes = node.axes | p.nodes[static_cast<std::size_t>(node.operands.back().node)].axes;
        }
      }
    }
    push(std::move(node));
  }
  p.outputs.push_back({"y", columns.back()});
  p.outputs.push_back({"last", values.back()});
  return s;
}

// ---- programs that people write ----

inline constexpr std::string_view kRmsNorm =
    "norm rmsnorm\nin x:T weight:W eps\nms = mean fp32 square(x)\nr = rsqrt fp32 ms + eps\n"
    "n = mul T x, r\nout y = mul T n, weight\n";
inline constexpr std::string_view kLayerNorm =
    "norm layernorm\nin x:T weight:W bias:T eps\nm, v = moments fp32 x\nr = rsqrt fp32 v + eps\nd = sub fp32 x, m\n"
    "n = mul fp32 d, r\nq = mul fp32 n, weight\nout y = add T q, bias\n";
inline constexpr std::string_view kLayerNormByPowers =
    "norm layernorm\nin x:T weight:W bias:T eps\nm = mean fp32 x\np = mean fp32 square(x)\nv = sub fp32 p, m * m\n"
    "r = rsqrt fp32 fmax(v, 0) + eps\nq = fma fp32 (x - m) * r, weight, bias\nout y = cast T q\n";
inline constexpr std::string_view kSoftmax =
    "norm softmax\nin x:T\nlargest = largest fp32 x\ne = exp fp32 x - largest\ntotal = sum fp32 e\nout y = div T e, "
    "total\n";
inline constexpr std::string_view kModulate =
    "norm modulate\nin x:T weight:W bias:T\nout y = cast T x * (1 + weight) + bias\n";
inline constexpr std::string_view kSigmoid = "norm sigmoid\nin x:T\nout y = reciprocal T 1 + exp(-x)\n";
inline constexpr std::string_view kSilu = "norm silu\nin x:T\nout y = div T x, 1 + exp(-x)\n";
inline constexpr std::string_view kGelu = "norm gelu\nin x:T\nout y = mul T 0.5 * x, 1 + erf(x / sqrt(2))\n";
inline constexpr std::string_view kGeluTanh =
    "norm gelu\nin x:T\nz = mul fp32 0.7978845608028654, x + 0.044715 * x * x * x\n"
    "out y = mul T 0.5 * x, 1 + tanh(z)\n";

/// A program over x [rows, cols], weight and bias [cols] of `format`.
inline Setting setting_of(std::string_view text, FormatId format, std::int64_t rows, std::int64_t cols,
                          std::uint64_t seed) {
  Random rng(seed);
  Binding binding;
  binding.x = format;
  binding.cols = cols;
  for (const char* name : {"weight", "bias", "residual"}) binding.formats[name] = format;
  Setting s{.program = parse_program(text, binding),
            .tensors = {},
            .attributes = {{"eps", 1e-6}},
            .rows = rows,
            .cols = cols};
  s.tensors["x"] = random_tensor(rng, format, {rows, cols});
  s.tensors["weight"] = random_tensor(rng, format, {cols});
  s.tensors["bias"] = random_tensor(rng, format, {cols});
  return s;
}

/// Inputs for a path of the catalogue, all in x's format but for a scale.
inline Setting setting_of(const CastPath& path, FormatId format, bool optional, std::uint64_t seed) {
  Random rng(seed);
  constexpr std::int64_t kRows = 12;
  Setting s{.program = {}, .tensors = {}, .attributes = {}, .rows = kRows, .cols = 21};
  Binding binding{.x = format, .formats = {}, .attributes = {}, .cols = s.cols, .profile = ""};
  s.tensors["x"] = random_tensor(rng, format, {s.rows, s.cols});
  std::string names(path.required);
  if (optional) names += "," + std::string(path.optional);
  for (std::size_t from = 0; from <= names.size();) {
    const std::size_t to = std::min(names.find(',', from), names.size());
    const std::string name = names.substr(from, to - from);
    from = to + 1;
    if (name.empty()) continue;
    binding.formats[name] = name == "scale" ? FormatId::fp32 : format;
    if (name == "scale") {
      s.tensors[name] = Tensor::zeros(FormatId::fp32, {});
      s.tensors[name].set_code(0, encode(FormatId::fp32, 0.037, Overflow::ieee));
    } else {
      s.tensors[name] = random_tensor(rng, format, name == "residual" ? Shape{s.rows, s.cols} : Shape{s.cols});
    }
  }
  s.program = build_path(path, binding);
  for (const Node& node : s.program.nodes)
    if (node.kind == NodeKind::attribute) s.attributes[node.names[0]] = node.names[0] == "eps" ? 1e-6 : 1200;
  return s;
}

}  // namespace norma::test
