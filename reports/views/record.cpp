// Reading a record of run.jsonl.
#include "reports/views/record.hpp"

#include <array>
#include <limits>

namespace norma::views {

std::optional<double> number_of(const nlohmann::json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const auto& word = value.get_ref<const std::string&>();
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (word == "inf") return std::numeric_limits<double>::infinity();
  if (word == "-inf") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

const nlohmann::json& at(const nlohmann::json& value, std::initializer_list<std::string_view> path) {
  static const nlohmann::json null;
  const nlohmann::json* here = &value;
  for (const std::string_view key : path) {
    if (!here->is_object()) return null;
    const auto found = here->find(key);
    if (found == here->end()) return null;
    here = &*found;
  }
  return *here;
}

std::string text_of(const nlohmann::json& value, std::string_view key) {
  const nlohmann::json& text = at(value, {key});
  return text.is_string() ? text.get<std::string>() : std::string();
}

std::string shown_verdict(const nlohmann::json& record) {
  const bool measured = text_of(record, "verdict") == "skip" && text_of(record, "reason") == "no criterion" &&
                        !at(record, {"outputs"}).empty();
  return measured ? "measured" : text_of(record, "verdict");
}

std::string shown_verdict(const nlohmann::json& record, std::string_view output) {
  const std::string verdict = shown_verdict(record);
  if (verdict != "pass") return verdict;
  if (output.empty()) return verdict;
  // A criterion without a name is about the first output: y, or dx.
  const nlohmann::json& outputs = at(record, {"outputs"});
  const std::string_view first = outputs.contains("y") ? "y" : outputs.contains("dx") ? "dx" : output;
  for (const nlohmann::json& criterion : at(record, {"criteria"})) {
    const std::string text = text_of(criterion, "text");
    const std::string_view measure = std::string_view(text).substr(0, text.find_first_of("<>="));
    const std::size_t dot = measure.find('.');
    if ((dot == std::string_view::npos ? first : measure.substr(0, dot)) == output) return verdict;
  }
  return "measured";
}

RecordedName read_recorded_name(std::string_view name) {
  constexpr std::string_view kFile = "file:";
  constexpr std::string_view kSuffix = ".safetensors";
  const std::size_t hash = name.find('#');
  if (!name.starts_with(kFile) || hash == std::string_view::npos) return {};
  std::string_view file = name.substr(kFile.size(), hash - kFile.size());
  if (const std::size_t slash = file.rfind('/'); slash != std::string_view::npos) file.remove_prefix(slash + 1);
  if (file.ends_with(kSuffix)) file.remove_suffix(kSuffix.size());
  const std::string_view tensor = name.substr(hash + 1);
  return {.file = file, .tensor = tensor.substr(0, tensor.find('@'))};
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t begin = 0;;) {
    const std::size_t end = line.find(' ', begin);
    words.push_back(line.substr(begin, end - begin));
    if (end == std::string_view::npos) return words;
    begin = end + 1;
  }
}

CaseWords read_case(std::string_view line) {
  CaseWords found;
  const std::array positions{&found.norm, &found.format, &found.shape};
  std::size_t position = 0;
  for (const std::string_view word : words_of(line)) {
    const std::size_t equals = word.find('=');
    const std::string_view key = word.substr(0, equals);
    if (equals == std::string_view::npos) {
      if (position < positions.size()) *positions[position++] = word;
    } else if (key == "input" || key == "x.input") {
      found.input = word.substr(equals + 1);
    } else if (key == "seed") {
      found.seed = word.substr(equals + 1);
    }
  }
  return found;
}

std::string kind_of_impl(std::string_view impl) {
  const std::size_t end = impl.find_first_of(":.");
  return std::string(impl.substr(0, end));
}

}  // namespace norma::views
