// A block's tensors: each by a family from its name, or all from one file.
#include "harness/inputs/block_inputs.hpp"

#include <fmt/core.h>

#include <charconv>
#include <numeric>
#include <optional>

#include "harness/cases/block_graphs.hpp"
#include "harness/cases/number.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/families.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "reference/blocks/layouts.hpp"
#include "reference/certified/blocks/real_graph.hpp"
#include "reference/blocks/rope_tables.hpp"

namespace norma {

namespace {

constexpr std::string_view kFile = "file:";

const BlockDef& block_of(const Case& c) { return *find_block(c.norm); }

/// Hash over all tensors of a file, in order of their names.
std::string hash_of_file(const Tensors& tensors) {
  Sha256 sha;
  for (const auto& [name, tensor] : tensors) {
    const std::string line = name + " " + content_hash(tensor) + "\n";
    sha.add(std::as_bytes(std::span(line)));
  }
  return sha.hex();
}

/// file:PATH@sha256-HEX, as it is; the tensor that parse_file_input names is not asked.
Tensors read_file(std::string_view value) {
  const FileInput file = parse_file_input(value, "x");
  Tensors tensors = read_safetensors(file.path).tensors;
  if (const std::string hash = hash_of_file(tensors); !hash.starts_with(file.hash))
    throw CaseError(fmt::format("the tensors of {} changed: the case says sha256-{}, they are {}", file.path, file.hash,
                                hash.substr(0, 12)));
  return tensors;
}

bool is_table(std::string_view name) { return name.ends_with("cos") || name.ends_with("sin"); }

/// Row t of [tokens, ones..., n] has the angles t 10000^(-2j/n) of pairs j < n / 2, twice.
Tensor rotary_table(const GraphValue& value, FormatId format) {
  const std::int64_t tokens = value.shape.front(), n = value.shape.back(), half = n / 2;
  if (value.shape.size() < 2 || element_count(value.shape) != tokens * n || n % 2 != 0)
    throw ProgramError(fmt::format("{} must be [tokens, an even number] to be filled, got {}", value.name, shape_text(value.shape)));
  std::vector<std::int64_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  const std::int64_t axes[] = {n};
  const RopeTables tables = rope_tables(axes, n, positions);
  const Tensor& from = value.name.ends_with("cos") ? tables.cos : tables.sin;
  Tensor table = Tensor::zeros(format, value.shape);
  for (std::int64_t i = 0; i < table.size(); ++i)
    table.set_code(i, encode(format, from.value(i / n * half + i % half), Overflow::saturate));
  return table;
}

/// A sampler's steps: s = 1 - i/n for timestep i of n, of the last axis, shifted to 3 s / (1 + 2 s) as schedulers of flow
/// matching do; 3.5 for every guidance.
std::optional<Tensor> conditions(const GraphValue& value, FormatId format) {
  const bool timestep = value.name.ends_with("timestep");
  if (!timestep && !value.name.ends_with("guidance")) return std::nullopt;
  Tensor t = Tensor::zeros(format, value.shape);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double step = 1 - static_cast<double>(i % t.cols()) / static_cast<double>(t.cols());
    t.set_code(i, encode(format, timestep ? 3 * step / (1 + 2 * step) : 3.5, Overflow::saturate));
  }
  return t;
}

/// Positions of tokens: of one axis 0, 1, ...; of more the first is 0 and the last two are row and column of a square image.
Tensor image_ids(const GraphValue& value, FormatId format) {
  Tensor ids = Tensor::zeros(format, value.shape);
  const std::int64_t axes = ids.cols(), tokens = ids.rows();
  std::int64_t side = 1;
  while (side * side < tokens) ++side;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto set = [&](std::int64_t axis, std::int64_t position) {
      ids.set_code(t * axes + axis, encode(format, static_cast<double>(position), Overflow::saturate));
    };
    if (axes == 1) set(0, t);
    if (axes > 1) set(axes - 2, t / side), set(axes - 1, t % side);
  }
  return ids;
}

/// One number for each of the first axis.
bool is_vector(const Shape& shape) { return shape.empty() || element_count(shape) == shape.front(); }

std::string_view family_of_weight(const GraphValue& weight) {
  if (!is_vector(weight.shape)) return "linear_normal";
  return weight.name.ends_with("bias") ? "small_normal" : "weight_normal";
}

template <class Work>
auto as_case_error(const Work& work) {
  try {
    return work();
  } catch (const ProgramError& e) {
    throw CaseError(e.what());
  }
}

/// All tensors of the case's file under the block's own names.
Tensors tensors_of_file(const Case& expanded) {
  return as_case_error([&] {
    return stack_from_layout(single_graph(expanded), block_count(expanded), expanded.get("layout"), read_file(expanded.get("input")));
  });
}

}  // namespace

Case expand_block_defaults(const Case& c) {
  Case expanded = c;
  for (const NormAttribute& attribute : norm_of(c).attributes) {
    if (attribute.fallback.empty()) continue;
    std::string& value = expanded.keys.try_emplace(std::string(attribute.name), attribute.fallback).first->second;
    if (attribute.choices.empty()) value = print_number(parse_number(value).value());
  }
  std::uint64_t seed = 0;
  const std::string_view text = expanded.get("seed");
  std::from_chars(text.data(), text.data() + text.size(), seed);
  expanded.keys["seed"] = std::to_string(seed);
  std::string& input = expanded.keys.try_emplace("input", "normal").first->second;
  const bool is_file = input.starts_with(kFile);
  if (is_file) {
    const Tensors tensors = read_file(input);
    const auto main = tensors.find(block_of(c).input);
    if (main == tensors.end())
      throw CaseError(fmt::format("{} has no tensor '{}', whose shape {} begins with", input, block_of(c).input, c.norm));
    if (expanded.shape && *expanded.shape != main->second.shape)
      throw CaseError(fmt::format("{} has shape {} in its file, and the case says {}", block_of(c).input,
                                  shape_text(main->second.shape), shape_text(*expanded.shape)));
    expanded.shape = main->second.shape;
    if (parse_file_input(input, "x").hash.empty()) input += "@sha256-" + hash_of_file(tensors).substr(0, 12);
  } else {
    const InputFamily* family = find_family(std::string_view(input).substr(0, input.find('/')));
    if (family == nullptr)
      throw CaseError(fmt::format("unknown input family '{}'; known: {}; or file:PATH", input,
                                  known_words(all_families(), [](const InputFamily& f) { return f.name; })));
    if (const std::string versioned = versioned_name(*family); input.find('/') != std::string::npos && input != versioned)
      throw CaseError(fmt::format("input family '{}' is at version {} here, and the case asks for '{}'", family->name,
                                  family->version, input));
    input = versioned_name(*family);
    if (!expanded.shape) throw CaseError(fmt::format("the shape '-' needs input=file:PATH, and input is {}", input));
  }
  const Graph graph = declared_graph(expanded);
  if (is_file) as_case_error([&] { check_inputs(graph, tensors_of_file(expanded), false); });
  return expanded;
}

Tensors make_block_inputs(const Case& expanded, int threads) {
  const std::string_view input = expanded.get("input");
  const Graph graph = declared_graph(expanded);
  if (input.starts_with(kFile)) return tensors_of_file(expanded);
  std::uint64_t seed = 0;
  const std::string_view text = expanded.get("seed");
  std::from_chars(text.data(), text.data() + text.size(), seed);
  Tensors tensors;
  for (const GraphInput& given : graph.inputs) {
    const GraphValue& value = given.value;
    const std::string_view family = given.weight ? family_of_weight(value) : input.substr(0, input.find('/'));
    const bool table = !given.weight && is_table(value.name);
    const bool ids = !given.weight && value.name == "ids";
    const FormatId format = value.format.value_or(table || ids ? FormatId::fp32 : expanded.format);
    if (ids) {
      tensors.emplace(value.name, image_ids(value, format));
      continue;
    }
    if (std::optional<Tensor> given_as = given.weight ? std::nullopt : conditions(value, FormatId::fp32)) {
      tensors.emplace(value.name, std::move(*given_as));
      continue;
    }
    if (table) {
      tensors.emplace(value.name, as_case_error([&] { return rotary_table(value, format); }));
      continue;
    }
    InputSpec spec{.tensor = value.name, .format = format, .shape = value.shape, .seed = seed};
    // A kernel's row is all that one output reads.
    if (given.weight && value.shape.size() > 2) {
      spec.shape = {value.shape[0]};
      if (!is_vector(value.shape)) spec.shape.push_back(element_count(value.shape) / value.shape[0]);
    }
    try {
      Tensor tensor = generate(*find_family(family), spec, threads);
      tensor.shape = value.shape;
      tensors.emplace(value.name, std::move(tensor));
    } catch (const std::invalid_argument& error) {
      throw CaseError(fmt::format("{} of '{}': {}", value.name, print_case(expanded), error.what()));
    }
  }
  return tensors;
}

}  // namespace norma
