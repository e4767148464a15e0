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
    if (input.name == "x" || input.required || named ||
        (path != nullptr && names(path->required, input.name)) ||
        std::ranges::find(in_file, input.name) != in_file.end())
      inputs.push_back(&input);
  }
  return inputs;
}

/// The shape that goes with x's; none where the norm's axes leave it open.
std::optional<Shape> shape_beside(std::string_view axes, const Shape& x) {
  if (axes.empty()) return Shape{};
  if (x.empty()) return std::nullopt;
  if (axes == "rows,cols") return x;
  if (axes == "cols") return Shape{x.back()};
  if (axes == "rows") return Shape(x.begin(), x.end() - 1);
  return std::nullopt;
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

std::string_view default_family(const Case& c, std::string_view input) {
  if (input == "weight")
    return parse_number(c.get("weight_offset")).value_or(0) == 1 ? "small_normal" : "weight_normal";
  if (input == "bias") return "small_normal";
  if (input == "scale") return "scale_uniform";
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

void check_file_tensor(const Tensor& tensor, std::string_view input, FormatId format,
                       const std::optional<Shape>& shape) {
  if (tensor.format != format)
    throw CaseError(fmt::format("{} is {} in its file, and the case says {}", input,
                                name_of(tensor.format), name_of(format)));
  if (shape && tensor.shape != *shape)
    throw CaseError(fmt::format("{} has shape {} in its file, and the case needs {}", input,
                                shape_text(tensor.shape), shape_text(*shape)));
}

// ---- defaults ----

void expand_attributes(Case& c, std::string_view eps_default) {
  const CastPath* path = find_cast_path(c.get("path"));
  if (path != nullptr) {
    if (!path->profiles.empty()) c.keys.try_emplace("profile", path->profiles.front());
    for (const CaseDefault& fallback : path->norm_attributes)
      c.keys.try_emplace(std::string(fallback.key), fallback.value);
    if (eps_default.empty()) eps_default = path->eps_default;
  }
  for (const NormAttribute& attribute : norm_of(c).attributes) {
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
      c.keys.try_emplace(input_key(input.name), default_family(c, input.name)).first->second;
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

  std::optional<Shape> shape = is_x ? c.shape : shape_beside(input.axes, c.shape.value());
  if (const std::string_view said = c.get(shape_key); !is_x && !said.empty()) {
    const Shape asked = parse_shape(said);
    if (shape && asked != *shape)
      throw CaseError(fmt::format("{}={} does not fit x {}: {} has to be {}", shape_key, said,
                                  shape_text(*c.shape), input.name, shape_text(*shape)));
    if (shape) c.keys.erase(shape_key);
    shape = asked;
  }
  if (!shape && from_file) shape = from_file->shape;
  if (!shape && is_x)
    throw CaseError(
        fmt::format("the shape '-' needs input=file:PATH#TENSOR, and input is {}", value));
  if (!shape)
    throw CaseError(fmt::format("{}.shape is needed: x {} does not determine it", input.name,
                                shape_text(*c.shape)));
  if (is_x && shape->empty()) throw CaseError("x is a scalar; a norm needs at least one axis to go along");
  if (is_x) c.shape = shape;

  FormatId format = c.format;
  if (!is_x) {
    if (from_file) format = from_file->format;
    const auto said = c.keys.try_emplace(format_key, name_of(format)).first;
    format = find_format(said->second).value();
  }
  if (from_file) check_file_tensor(*from_file, input.name, format, shape);
}

Shape shape_of(const Case& c, const NormInput& input) {
  if (input.name == "x") return *c.shape;
  if (const std::string_view said = c.get(fmt::format("{}.shape", input.name)); !said.empty())
    return parse_shape(said);
  return shape_beside(input.axes, *c.shape).value();
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
  Case expanded = c;
  expand_path_file(expanded);
  expand_attributes(expanded, eps_default);
  expand_seed(expanded);
  const std::vector<const NormInput*> inputs = inputs_of(expanded);
  for (const NormInput* input : inputs)
    if (input->name == "x") expand_input(expanded, *input);
  for (const NormInput* input : inputs)
    if (input->name != "x") expand_input(expanded, *input);
  return expanded;
}

Tensors make_inputs(const Case& c, int threads) {
  const Case expanded = expand_defaults(c);
  Tensors tensors;
  for (const NormInput* input : inputs_of(expanded))
    tensors.emplace(input->name, make_input(expanded, *input, threads));
  return tensors;
}

}  // namespace norma
