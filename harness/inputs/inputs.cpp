// Expands a case and makes its tensors.
#include "harness/inputs/inputs.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "harness/cases/number.hpp"
#include "harness/inputs/block_inputs.hpp"
#include "reference/blocks/block.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/families.hpp"
#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"

namespace norma {

namespace {

constexpr std::string_view kFile = "file:";
constexpr std::string_view kHashMark = "@sha256-";
constexpr std::size_t kHashDigits = 12;

bool is_file(std::string_view value) { return value.starts_with(kFile); }
std::string input_key(std::string_view input) {
  return input == "x" ? "input" : fmt::format("{}.input", input);
}

// ---- which tensors take part, and their shapes ----

bool names(std::string_view list, std::string_view word) {
  for (std::size_t begin = 0;;) {
    const auto comma = list.find(',', begin);
    std::string_view each =
        list.substr(begin, comma == std::string_view::npos ? comma : comma - begin);
    while (each.starts_with(' ')) each.remove_prefix(1);
    while (each.ends_with(' ')) each.remove_suffix(1);
    if (each == word) return true;
    if (comma == std::string_view::npos) return false;
    begin = comma + 1;
  }
}

/// The inputs that a path file's text names: "in x:T weight:W eps".
std::vector<std::string> inputs_of_path_file(const Case& c) {
  std::vector<std::string> inputs;
  if (!is_file(c.get("path"))) return inputs;
  std::istringstream text(read_path_file(c.get("path")));
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string word;
    if (!(words >> word) || word != "in") continue;
    while (words >> word) inputs.push_back(word.substr(0, word.find(':')));
  }
  return inputs;
}

std::vector<const NormInput*> inputs_of(const Case& c) {
  const CastPath* path = find_cast_path(c.get("path"));
  const std::vector<std::string> in_file = inputs_of_path_file(c);
  std::vector<const NormInput*> inputs;
  for (const NormInput& input : norm_of(c).inputs) {
    const bool named = std::ranges::any_of(c.keys, [&](const auto& key) {
      return key.first.starts_with(fmt::format("{}.", input.name));
    });
    // A path knows best what its code takes: some modulations have no scale.
    const bool filed = std::ranges::find(in_file, input.name) != in_file.end();
    // So does a file: what is shifted by a recorded tensor has a scale only if one was recorded too.
    const bool shift_alone = input.name == "scale" && c.get("shift.input").starts_with("file:");
    const bool refused = path != nullptr ? !names(path->required, input.name) && !names(path->optional, input.name)
                                         : (!in_file.empty() && !filed) || shift_alone;
    if (input.name == "x" || (input.required && !refused) || named || filed ||
        (path != nullptr && names(path->required, input.name)))
      inputs.push_back(&input);
  }
  return inputs;
}

/// The shapes that one axes word of norm.hpp names beside x's; none where x does not settle them.
std::vector<Shape> shapes_named(std::string_view axes, const Shape& x) {
  if (axes.empty()) return {Shape{}};
  if (axes == "rows,cols") return {x};
  if (x.empty()) return {};
  if (axes == "cols") return {{x.back()}};
  if (axes == "rows") return {Shape(x.begin(), x.end() - 1)};
  if (axes == "pairs") {  // of tokens before heads; what broadcasts otherwise, the norm tells
    if (x.size() < 3) return {x};
    return {{x[x.size() - 3], 1, x.back()}};
  }
  if (x.size() < 2) return {};
  if (axes == "channels") return {{x[1]}};
  if (axes == "samples,channels") {
    Shape ones(x.size(), 1);
    ones[0] = x[0];
    ones[1] = x[1];
    return {{x[0], x[1]}, ones};
  }
  if (axes != "samples,cols") return {};
  Shape broadcast(x.size(), 1);
  broadcast.front() = x.front();
  broadcast.back() = x.back();
  return {{x.front(), x.back()}, broadcast};
}

/// Every shape that a norm takes, the usual one first; none where the norm leaves it open.
std::vector<Shape> shapes_beside(std::string_view axes, const Shape& x) {
  std::vector<Shape> shapes;
  for (;;) {
    const auto bar = axes.find('|');
    for (const Shape& shape : shapes_named(axes.substr(0, bar), x))
      if (std::ranges::find(shapes, shape) == shapes.end()) shapes.push_back(shape);
    if (bar == std::string_view::npos) return shapes;
    axes.remove_prefix(bar + 1);
  }
}

bool has_channels(const NormDef& norm) {
  return std::ranges::any_of(norm.inputs, [](const NormInput& input) { return input.axes == "channels"; });
}

std::string one_of(const std::vector<Shape>& shapes) {
  std::string text;
  for (const Shape& shape : shapes) text += (text.empty() ? "" : " or ") + shape_text(shape);
  return text;
}

// ---- values ----

const InputFamily& family_of(std::string_view value) {
  const auto slash = value.find('/');
  const std::string_view name = value.substr(0, slash);
  const InputFamily* family = find_family(name);
  if (family == nullptr)
    throw CaseError(
        fmt::format("unknown input family '{}'; known: {}; or file:PATH#TENSOR", name,
                    known_words(all_families(), [](const InputFamily& f) { return f.name; })));
  if (slash != std::string_view::npos && value.substr(slash + 1) != std::to_string(family->version))
    throw CaseError(
        fmt::format("input family '{}' is at version {} here, and the case asks for '{}'", name,
                    family->version, value));
  return *family;
}

std::string_view default_family(const Case& c, const NormInput& input) {
  if (input.name == "weight")
    return parse_number(c.get("weight_offset")).value_or(0) == 1 ? "small_normal" : "weight_normal";
  if (input.name == "bias" || input.name == "shift" || input.name == "running_mean") return "small_normal";
  if (input.name.ends_with("_table")) return "small_normal";
  if (input.axes == "pairs") return "uniform";
  if (input.name == "running_var") return "variance_uniform";
  // One value divides codes; one for each column is a distance from one.
  if (input.name == "scale") {
    if (input.axes.empty()) return "scale_uniform";
    return parse_number(c.get("scale_offset")).value_or(1) == 0 ? "weight_normal" : "small_normal";
  }
  return "normal";
}

/// "file:REST@sha256-HEX" as REST and HEX; HEX is empty if not given.
std::pair<std::string_view, std::string_view> split_hash(std::string_view value) {
  const std::string_view rest = value.substr(kFile.size());
  const auto at = rest.rfind(kHashMark);
  if (at == std::string_view::npos) return {rest, {}};
  const std::string_view digits = rest.substr(at + kHashMark.size());
  const bool hex = digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (!hex || digits.size() < kHashDigits || digits.size() > 64)
    throw CaseError(fmt::format(
        "'{}' ends in no hash: {} takes 12 to 64 lower-case hexadecimal digits", value, kHashMark));
  return {rest.substr(0, at), digits};
}

Tensor read_file_input(const FileInput& file, std::string_view input) {
  Tensor tensor = read_tensor(open_safetensors(file.path), file.tensor);
  if (const std::string hash = content_hash(tensor); !hash.starts_with(file.hash))
    throw CaseError(fmt::format(
        "{} is tensor '{}' of {}, whose contents changed: the case says sha256-{}, it is {}", input,
        file.tensor, file.path, file.hash, hash.substr(0, kHashDigits)));
  return tensor;
}

/// Parameters are stored as they broadcast, too: [1, 1, 1, C].
Shape without_leading_ones(const Shape& shape) {
  return {std::ranges::find_if(shape, [](std::int64_t side) { return side != 1; }), shape.end()};
}

void check_file_tensor(const Tensor& tensor, std::string_view input, FormatId format,
                       const std::vector<Shape>& shapes) {
  if (tensor.format != format)
    throw CaseError(fmt::format("{} is {} in its file, and the case says {}", input,
                                name_of(tensor.format), name_of(format)));
  const auto fits = [&](const Shape& shape) {
    return shape == tensor.shape || (input != "x" && without_leading_ones(shape) == without_leading_ones(tensor.shape));
  };
  if (!shapes.empty() && std::ranges::none_of(shapes, fits))
    throw CaseError(fmt::format("{} has shape {} in its file, and the case needs {}", input,
                                shape_text(tensor.shape), one_of(shapes)));
}

// ---- defaults ----

/// Attributes of a quantized output and the kinds of quant that have them; a line of another kind leaves them out.
struct OfQuant {
  std::string_view attribute, kinds;
};
constexpr OfQuant kOfQuant[] = {{"quant_max", "per_token"},
                                {"scale_floor", "per_token"},
                                {"scale_cap", "per_token"},
                                {"scale_rule", "mxfp8, mxfp4"},
                                {"global_scale", "nvfp4"}};

bool has_meaning(const Case& c, std::string_view attribute) {
  const auto* row = std::ranges::find(kOfQuant, attribute, &OfQuant::attribute);
  return row == std::end(kOfQuant) || names(row->kinds, c.get("quant"));
}

void expand_attributes(Case& c, std::string_view eps_default) {
  const CastPath* path = find_cast_path(c.get("path"));
  if (path != nullptr) {
    if (!path->profiles.empty()) c.keys.try_emplace("profile", path->profiles.front());
    for (const CaseDefault& own : path->norm_attributes) {
      const std::string& value = c.keys.try_emplace(std::string(own.key), own.value).first->second;
      if (!same_value(value, own.value))
        throw CaseError(fmt::format("{}={}: {} computes another norm, the one with {}={}", own.key, value, path->name,
                                    own.key, own.value));
    }
    if (eps_default.empty()) eps_default = path->eps_default;
  }
  for (const NormAttribute& attribute : norm_of(c).attributes) {
    if (!c.keys.contains(attribute.name) && !has_meaning(c, attribute.name)) continue;
    const bool use_path = attribute.name == "eps" && !eps_default.empty();
    std::string& value =
        c.keys.try_emplace(std::string(attribute.name), use_path ? eps_default : attribute.fallback)
            .first->second;
    if (!attribute.choices.empty()) continue;
    const auto number = parse_number(value);
    if (!number) throw CaseError(fmt::format("{}={} is not a number", attribute.name, value));
    value = print_number(*number);
  }
}

/// A path that is a file gets the hash of its text.
void expand_path_file(Case& c) {
  const auto at = c.keys.find("path");
  if (at == c.keys.end() || !is_file(at->second)) return;
  const std::string text = read_path_file(at->second);
  if (split_hash(at->second).second.empty())
    at->second += fmt::format("{}{}", kHashMark,
                              sha256_hex(std::as_bytes(std::span(text))).substr(0, kHashDigits));
}

void expand_seed(Case& c) {
  std::uint64_t seed = 0;
  const std::string_view text = c.get("seed");
  std::from_chars(text.data(), text.data() + text.size(), seed);
  c.keys["seed"] = std::to_string(seed);
}

/// x comes first, for its shape decides the others'.
void expand_input(Case& c, const NormInput& input) {
  const bool is_x = input.name == "x";
  std::string& value =
      c.keys.try_emplace(input_key(input.name), default_family(c, input)).first->second;
  const std::string format_key = fmt::format("{}.format", input.name);
  const std::string shape_key = fmt::format("{}.shape", input.name);

  std::optional<Tensor> from_file;
  if (is_file(value)) {
    FileInput file = parse_file_input(value, input.name);
    from_file = read_file_input(file, input.name);
    if (file.hash.empty()) file.hash = content_hash(*from_file).substr(0, kHashDigits);
    value = fmt::format("{}{}#{}{}{}", kFile, file.path, file.tensor, kHashMark, file.hash);
  } else {
    value = versioned_name(family_of(value));
  }

  // The shapes that fit, the usual one first; none: open.
  std::vector<Shape> shapes;
  if (!is_x)
    shapes = shapes_beside(input.axes, c.shape.value());
  else if (c.shape)
    shapes = {*c.shape};
  std::optional<Shape> shape;
  if (!shapes.empty()) shape = shapes.front();
  const std::optional<Shape> usual = shape;
  if (const std::string_view said = c.get(shape_key); !is_x && !said.empty()) {
    const Shape asked = parse_shape(said);
    if (shape && input.axes != "pairs" && std::ranges::find(shapes, asked) == shapes.end())
      throw CaseError(fmt::format("{}={} does not fit x {}: {} has to be {}", shape_key, said,
                                  shape_text(*c.shape), input.name, one_of(shapes)));
    c.keys.erase(shape_key);
    shape = asked;
    shapes = {asked};
  }
  if (from_file && input.axes == "pairs") shapes = {from_file->shape};
  if (from_file && (!shape || std::ranges::find(shapes, from_file->shape) != shapes.end())) shape = from_file->shape;
  if (!shape && is_x)
    throw CaseError(
        fmt::format("the shape '-' needs input=file:PATH#TENSOR, and input is {}", value));
  if (!shape)
    throw CaseError(fmt::format("{}.shape is needed: x {} does not determine it", input.name,
                                shape_text(*c.shape)));
  if (is_x && shape->empty()) throw CaseError("x is a scalar; a norm needs at least one axis to go along");
  if (is_x && shape->size() < 2 && has_channels(norm_of(c)))
    throw CaseError(fmt::format("{} takes x with samples and channels, [N, C, ...], and x has shape {}", c.norm,
                                shape_text(*shape)));
  if (is_x)
    c.shape = shape;
  else if (usual != shape)
    c.keys[shape_key] = shape_text(*shape);

  FormatId format = c.format;
  if (!is_x) {
    if (from_file) format = from_file->format;
    const auto said = c.keys.try_emplace(format_key, name_of(format)).first;
    format = find_format(said->second).value();
  }
  if (from_file) check_file_tensor(*from_file, input.name, format, shapes);
}

Shape shape_of(const Case& c, const NormInput& input) {
  if (input.name == "x") return *c.shape;
  if (const std::string_view said = c.get(fmt::format("{}.shape", input.name)); !said.empty())
    return parse_shape(said);
  return shapes_beside(input.axes, *c.shape).front();
}

/// Shapes, formats and attributes that the norm refuses are refused before any value is made. Of the tensors' values it
/// asks for those of a single number only, which stand for themselves here as 1.
void check_norm(const Case& c) {
  Tensors tensors;
  for (const NormInput* input : inputs_of(c)) {
    const bool is_x = input->name == "x";
    const std::string_view said = c.get(fmt::format("{}.format", input->name));
    Tensor tensor{.format = is_x ? c.format : find_format(said).value(), .shape = shape_of(c, *input), .bytes = {}};
    if (tensor.size() == 1) {
      tensor = Tensor::zeros(tensor.format, tensor.shape);
      tensor.set_code(0, encode(tensor.format, 1.0, Overflow::saturate));
    }
    tensors.emplace(input->name, std::move(tensor));
  }
  CaseAttributes attributes = attributes_of(c);
  try {
    norm_of(c).check({.inputs = &tensors, .numbers = std::move(attributes.numbers), .words = std::move(attributes.words)});
  } catch (const NormError& e) {
    throw CaseError(e.what());
  }
}

Tensor make_input(const Case& c, const NormInput& input, int threads) {
  const std::string_view value = c.get(input_key(input.name));
  if (is_file(value)) return read_file_input(parse_file_input(value, input.name), input.name);
  InputSpec spec{.tensor = input.name, .format = c.format, .shape = shape_of(c, input)};
  if (const std::string_view said = c.get(fmt::format("{}.format", input.name)); !said.empty())
    spec.format = find_format(said).value();
  const std::string_view seed = c.get("seed");
  std::from_chars(seed.data(), seed.data() + seed.size(), spec.seed);
  spec.eps = parse_number(c.get("eps")).value_or(0);
  try {
    return generate(family_of(value), spec, threads);
  } catch (const std::invalid_argument& error) {
    throw CaseError(fmt::format("{} of '{}': {}", input.name, print_case(c), error.what()));
  }
}

}  // namespace

FileInput parse_file_input(std::string_view value, std::string_view input) {
  const auto [rest, digits] = split_hash(value);
  const auto mark = rest.rfind('#');
  FileInput file{.path = std::string(rest.substr(0, mark)),
                 .tensor = std::string(input),
                 .hash = std::string(digits)};
  if (mark != std::string_view::npos) file.tensor = rest.substr(mark + 1);
  if (file.path.empty() || file.tensor.empty())
    throw CaseError(fmt::format("'{}' is not file:PATH#TENSOR", value));
  return file;
}

std::string read_path_file(std::string_view value) {
  const auto [name, digits] = split_hash(value);
  const std::string path(name);
  std::error_code ignored;
  std::ifstream stream(path, std::ios::binary);
  if (!stream || std::filesystem::is_directory(path, ignored))
    throw CaseError(fmt::format("cannot read the path file '{}'", path));
  std::ostringstream text;
  text << stream.rdbuf();
  const std::string hash = sha256_hex(std::as_bytes(std::span(text.view())));
  if (!hash.starts_with(digits))
    throw CaseError(fmt::format("the path file {} changed: the case says sha256-{}, it is {}", path,
                                digits, hash.substr(0, kHashDigits)));
  return text.str();
}

Case expand_defaults(const Case& c, std::string_view eps_default) {
  if (find_block(c.norm) != nullptr) return expand_block_defaults(c);
  Case expanded = c;
  expand_path_file(expanded);
  expand_attributes(expanded, eps_default);
  expand_seed(expanded);
  const std::vector<const NormInput*> inputs = inputs_of(expanded);
  for (const NormInput* input : inputs)
    if (input->name == "x") expand_input(expanded, *input);
  for (const NormInput* input : inputs)
    if (input->name != "x") expand_input(expanded, *input);
  check_norm(expanded);
  return expanded;
}

Tensors make_inputs(const Case& c, int threads) {
  const Case expanded = expand_defaults(c);
  if (find_block(c.norm) != nullptr) return make_block_inputs(expanded, threads);
  Tensors tensors;
  for (const NormInput* input : inputs_of(expanded))
    tensors.emplace(input->name, make_input(expanded, *input, threads));
  return tensors;
}

}  // namespace norma
