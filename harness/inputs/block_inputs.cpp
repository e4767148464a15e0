// A block's tensors: each by a family from its name, or all from one file.
#include "harness/inputs/block_inputs.hpp"

#include <fmt/core.h>

#include <charconv>

#include "harness/cases/number.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/families.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"

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

/// file:PATH@sha256-HEX; the tensor that parse_file_input names is not asked.
Tensors read_file(std::string_view value, std::string_view layout) {
  const FileInput file = parse_file_input(value, "x");
  Tensors tensors = read_safetensors(file.path).tensors;
  if (const std::string hash = hash_of_file(tensors); !hash.starts_with(file.hash))
    throw CaseError(fmt::format("the tensors of {} changed: the case says sha256-{}, they are {}", file.path, file.hash,
                                hash.substr(0, 12)));
  if (layout != "norma")
    throw CaseError(fmt::format("layout={} is none that this block's tensors have", layout));
  return tensors;
}

std::string_view family_of_weight(const GraphValue& weight) {
  if (weight.shape.size() >= 2) return "linear_normal";
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

}  // namespace

BlockCall block_call(const Case& c) {
  BlockCall call{.x = c.shape.value_or(Shape{}), .numbers = attributes_of(c).numbers};
  return as_case_error([&] { return with_defaults(block_of(c), std::move(call)); });
}

Case expand_block_defaults(const Case& c) {
  Case expanded = c;
  for (const NormAttribute& attribute : norm_of(c).attributes) {
    std::string& value = expanded.keys.try_emplace(std::string(attribute.name), attribute.fallback).first->second;
    if (attribute.choices.empty()) value = print_number(parse_number(value).value());
  }
  std::uint64_t seed = 0;
  const std::string_view text = expanded.get("seed");
  std::from_chars(text.data(), text.data() + text.size(), seed);
  expanded.keys["seed"] = std::to_string(seed);
  std::string& input = expanded.keys.try_emplace("input", "normal").first->second;
  if (input.starts_with(kFile)) {
    const Tensors tensors = read_file(input, expanded.get("layout"));
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
  as_case_error([&] { return block_of(c).build(block_call(expanded)); });
  return expanded;
}

Tensors make_block_inputs(const Case& expanded, int threads) {
  const std::string_view input = expanded.get("input");
  if (input.starts_with(kFile)) return read_file(input, expanded.get("layout"));
  const Graph graph = as_case_error([&] { return block_of(expanded).build(block_call(expanded)); });
  std::uint64_t seed = 0;
  const std::string_view text = expanded.get("seed");
  std::from_chars(text.data(), text.data() + text.size(), seed);
  Tensors tensors;
  for (const GraphInput& given : graph.inputs) {
    const GraphValue& value = given.value;
    const std::string_view family = given.weight ? family_of_weight(value) : input.substr(0, input.find('/'));
    InputSpec spec{.tensor = value.name, .format = expanded.format, .shape = value.shape, .seed = seed};
    // A kernel's row is all that one output reads.
    if (given.weight && value.shape.size() > 2)
      spec.shape = {value.shape[0], element_count(value.shape) / value.shape[0]};
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
