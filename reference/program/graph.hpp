// A block of a network as data: named tensors and, in order, the sites that make them. Nothing here computes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// A tensor of a block: given, or made by a site. No format: its values are real numbers.
struct GraphValue {
  std::string name;
  Shape shape;
  std::optional<FormatId> format{};
  bool operator==(const GraphValue&) const = default;
};

/// The order in which a product's terms are added, each addition rounded to the accumulator's format.
enum class ProductOrder : std::uint8_t {
  exact,        ///< the exact sum, rounded once
  sequential,   ///< ((t0 + t1) + t2) + ...
  blocked,      ///< blocks of `count` terms sequentially, each from 0; then the blocks' sums sequentially
  split,        ///< `count` parts of equal length (the last may be shorter) as blocks
  tensor_core,  ///< `count` terms and the accumulator at once: each cut off toward zero below 2^-2 ulp of the largest, the
                ///< sum cut off to the accumulator's precision
};
struct ProductSum {
  ProductOrder order = ProductOrder::exact;
  int count = 0;
  FormatId accumulator = FormatId::fp32;
  bool contract = true;  ///< products are added unrounded
  bool operator==(const ProductSum&) const = default;
};
/// "sequential", "blocked(256)"
std::string text_of(const ProductSum& sum);

/// Where the bias is added.
enum class BiasPlace : std::uint8_t {
  epilogue,  ///< to the accumulator, before the result is stored
  after,     ///< to the stored result, which is rounded once more
  first,     ///< the accumulator begins with it
};

/// A site whose values a program gives, its arguments the program's inputs by name.
struct ProgramSite {
  Program program;
  Attributes attributes{};
  std::string path{};  ///< the cast path that the program is, if it is of the catalogue
  bool operator==(const ProgramSite&) const = default;
};

/// y[.., n] = sum over k of x[.., k] weight[n, k] + bias[n]. Arguments x, weight, and bias or none.
///
/// With `block`, x and weight are codes that stand for code * scale, a scale for each run of `block` terms: arguments x,
/// weight, x_scale, weight_scale, and bias or none. A run's codes are multiplied and added in the order of `sum`; that times
/// x_scale, times weight_scale, each rounded, is added to the runs before it (`contract`: the last two as one).
struct LinearSite {
  ProductSum sum{};
  BiasPlace bias = BiasPlace::epilogue;
  Rounding rounding{};
  std::int64_t block = 0;  ///< 0: no scales
  bool operator==(const LinearSite&) const = default;
};

/// Where the scales of codes [rows, depth] stand: one for each of `blocks` runs of a row, or of `rows_each` rows together.
struct ScaleLayout {
  std::int64_t blocks = 1, rows_each = 1;
  std::int64_t at(std::int64_t row, std::int64_t block) const { return row / rows_each * blocks + block; }
};
ScaleLayout scale_layout(const Shape& codes, const Shape& scales, std::int64_t block);

/// y = softmax(scale q k^T + mask) v. Arguments q [B, H, Sq, D], k [B, G, Sk, D], v [B, G, Sk, E]; G divides H, query
/// head h reads head h / (H / G). Causal: query i sees keys up to i + Sk - Sq.
struct AttentionSite {
  std::optional<double> scale{};  ///< exact; none: 1 / sqrt(D)
  bool causal = false;
  ProductSum sum{};  ///< of both products
  Rounding products{};  ///< q k^T, where it is stored before the scale
  /// Scores, their exponentials (or, normalized before the second product, the probabilities), and y.
  Rounding scores{}, probabilities{}, rounding{};
  bool normalized_first = true;
  bool operator==(const AttentionSite&) const = default;
};

/// As Convolution (reference/certified/products/convolution.hpp). Arguments x [N, C, H, W], weight, and bias or none.
struct ConvolutionSite {
  std::array<std::int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
  std::int64_t groups = 1;
  ProductSum sum{};
  BiasPlace bias = BiasPlace::epilogue;
  Rounding rounding{};
  bool operator==(const ConvolutionSite&) const = default;
};

/// Values moved, none changed; zeros beside them, or numbers counted. Arguments by their place.
struct Rearrangement {
  enum class Kind : std::uint8_t {
    reshape,  ///< the same elements in memory order
    permute,  ///< axis i of the result is axis numbers[i] of the argument
    slice,    ///< of axis numbers[0]: from numbers[1] on
    concat,   ///< along axis numbers[0]
    pad,      ///< along axis numbers[0]: numbers[1] zeros, the argument, and zeros to the end
    repeat,   ///< along axis numbers[0], where the argument has one
    count,    ///< of no argument: numbers[0], numbers[0] + numbers[1], ...
  } kind = Kind::reshape;
  std::vector<std::int64_t> numbers{};
  bool operator==(const Rearrangement&) const = default;
};

struct Argument {
  std::string role;   ///< the program's input, or x, weight, bias, q, k, v
  std::string value;  ///< an input of the graph, or what an earlier site gives
  bool operator==(const Argument&) const = default;
};

struct Site {
  std::variant<ProgramSite, LinearSite, AttentionSite, ConvolutionSite, Rearrangement> what;
  std::vector<Argument> arguments;
  /// The first has the site's name, further ones the site's name, a dot and theirs.
  std::vector<GraphValue> results;
  const std::string& name() const { return results.front().name; }
  const Argument* find(std::string_view role) const;
  bool moves_only() const { return std::holds_alternative<Rearrangement>(what); }
  bool operator==(const Site&) const = default;
};

struct GraphInput {
  GraphValue value;
  bool weight = false;  ///< a parameter of the network
  bool operator==(const GraphInput&) const = default;
};

/// Sites stand in an order of evaluation.
struct Graph {
  std::string block;
  std::vector<GraphInput> inputs;
  std::vector<Site> sites;
  std::vector<std::string> outputs;
  const GraphValue* find(std::string_view value) const;
  bool operator==(const Graph&) const = default;
};

/// The graph with every rounding removed: what it means over the reals.
Graph erase_roundings(const Graph& graph);

/// What a block hands to the next one: an output and the input that it becomes.
struct Stream {
  std::string output, input;
};
/// `count` blocks one after the other. Values of block k are named "k.NAME", its weights too; inputs that are no weights
/// and no streams are given once, to all of them. Outputs are the last block's, under its own names.
Graph stacked(const Graph& graph, std::span<const Stream> streams, int count);

/// Where each element of a rearrangement's result comes from.
struct Source {
  static constexpr std::int32_t kZero = -1;
  std::int32_t argument = 0;  ///< kZero: it is 0
  std::int64_t element = 0;
};
std::vector<Source> sources_of(const Rearrangement& what, const std::vector<Shape>& arguments, const Shape& result);

/// Shape of a convolution's result, [N, O, OH, OW].
Shape convolved_shape(const ConvolutionSite& what, const Shape& x, const Shape& weight);

/// Writes graphs: one call a site. Errors: ProgramError naming the site, the argument and what would fit.
class GraphBuilder {
 public:
  explicit GraphBuilder(std::string block) { graph_.block = std::move(block); }

  /// A value by its name.
  struct Value {
    std::string name;
  };
  Value input(const std::string& name, Shape shape, std::optional<FormatId> format = {});
  Value weight(const std::string& name, Shape shape, std::optional<FormatId> format = {});

  /// Result: y, like the argument x (or the first). Further outputs of the program are results too.
  Value program(const std::string& name, ProgramSite what, std::vector<std::pair<std::string, Value>> arguments);
  Value linear(const std::string& name, const LinearSite& what, Value x, Value weight, std::optional<Value> bias = {});
  /// Of codes with scales: what.block is the terms that share one.
  struct Scales {
    Value x, weight;
  };
  Value scaled_linear(const std::string& name, const LinearSite& what, Value x, Value weight, const Scales& scales,
                      std::optional<Value> bias = {});
  Value attention(const std::string& name, const AttentionSite& what, Value q, Value k, Value v);
  Value convolution(const std::string& name, const ConvolutionSite& what, Value x, Value weight,
                    std::optional<Value> bias = {});
  Value reshape(const std::string& name, Value x, Shape shape);
  Value permute(const std::string& name, Value x, std::vector<std::int64_t> axes);
  Value slice(const std::string& name, Value x, std::int64_t axis, std::int64_t from, std::int64_t count);
  Value concat(const std::string& name, std::int64_t axis, const std::vector<Value>& parts);
  Value pad(const std::string& name, Value x, std::int64_t axis, std::int64_t before, std::int64_t after);
  /// An axis of one, `times` long.
  Value repeat(const std::string& name, Value x, std::int64_t axis, std::int64_t times);
  /// first, first + step, ..., `length` numbers that the format holds.
  Value count(const std::string& name, std::int64_t length, std::int64_t first, std::int64_t step,
              std::optional<FormatId> format = {});
  /// Parts of equal length along an axis, named name.0, name.1, ...
  std::vector<Value> chunk(const std::string& name, Value x, std::int64_t axis, std::int64_t parts);

  /// [B, S, H D] as [B, H, S, D], and back.
  Value split_heads(const std::string& name, Value x, std::int64_t heads);
  Value merge_heads(const std::string& name, Value x);

  /// What another graph has, as it is.
  void adopt(const GraphInput& input);
  void adopt(const Site& site) { push(site); }

  const Shape& shape(const Value& value) const { return value_of(value).shape; }
  std::optional<FormatId> format(const Value& value) const { return value_of(value).format; }
  void output(const Value& value) { graph_.outputs.push_back(value.name); }
  Graph finish();

 private:
  const GraphValue& value_of(const Value& value) const;
  Value push(Site site);
  Graph graph_;
};

}  // namespace norma
