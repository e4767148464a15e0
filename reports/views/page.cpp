// The page: packs the lines so that a hundred thousand rows open at once, and fills the template.
//
// The rows of the table are columns of numbers and of indices into one list of words. What only the detail panel
// shows stands behind the scripts, in blocks that the page parses when a row is chosen; there an object is
// [k, values...] with its keys in keys[k], and an array is [-1, items...].
#include "reports/views/page.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "embedded/page_assets.hpp"
#include "reports/views/record.hpp"

namespace norma {

namespace {

using namespace views;
using nlohmann::json;

constexpr std::size_t kRowsPerBlock = 64;
constexpr std::size_t kManyRows = 20000;
constexpr std::size_t kWorstOfMany = 3;

class Words {
 public:
  std::size_t operator()(std::string_view word) {
    const auto [found, is_new] = ids_.try_emplace(std::string(word), list_.size());
    if (is_new) list_.push_back(word);
    return found->second;
  }
  const json& list() const { return list_; }

 private:
  std::map<std::string, std::size_t, std::less<>> ids_;
  json list_ = json::array();
};

class Packer {
 public:
  json pack(const json& value) {
    if (value.is_array()) {
      json packed = json::array({-1});
      for (const json& item : value) packed.push_back(pack(item));
      return packed;
    }
    if (!value.is_object()) return value;
    std::vector<std::string> keys;
    json packed = json::array({0});
    for (const auto& [key, item] : value.items()) {
      keys.push_back(key);
      packed.push_back(pack(item));
    }
    const auto [found, is_new] = ids_.try_emplace(keys, list_.size());
    if (is_new) list_.push_back(keys);
    packed[0] = found->second;
    return packed;
  }
  const json& keys() const { return list_; }

 private:
  std::map<std::vector<std::string>, std::size_t> ids_;
  json list_ = json::array();
};

/// Inside a script element nothing may look like a tag; \u003c is '<' to JSON. Other than ASCII is escaped too,
/// which takes care of U+2028.
std::string script_safe(const json& value) {
  const std::string plain = value.dump(-1, ' ', true, json::error_handler_t::replace);
  std::string safe;
  safe.reserve(plain.size());
  for (const char c : plain)
    if (c == '<')
      safe += "\\u003c";
    else
      safe += c;
  return safe;
}

/// The number columns of the table: name, and where the figure stands in an output.
const std::array<std::pair<const char*, json::json_pointer>, 12> kColumns{
    {{"max", json::json_pointer("/ulp/max")},
     {"rms", json::json_pointer("/ulp/rms")},
     {"bias", json::json_pointer("/ulp/bias")},
     {"definition", json::json_pointer("/split/definition/bias")},
     {"path_bias", json::json_pointer("/split/path/bias")},
     {"implementation", json::json_pointer("/split/implementation/bias")},
     {"correct", json::json_pointer("/rounding/correct")},
     {"faithful", json::json_pointer("/rounding/faithful")},
     {"compared", json::json_pointer("/counts/compared")},
     {"elements", json::json_pointer("/elements")},
     {"equal", json::json_pointer("/conformance/equal")},
     {"of", json::json_pointer("/conformance/of")}}};

std::string dimensions(const json& shape) {
  std::string text;
  if (shape.is_array())
    for (const json& size : shape) text += (text.empty() ? "" : "x") + size.dump();
  return text;
}

class Page {
 public:
  explicit Page(std::size_t rows) : many_(rows > kManyRows) {
    for (const char* name :
         {"verdict", "norm", "impl", "kind", "path", "format", "shape", "input", "output", "case", "ordinal", "worst"})
      columns_[name] = json::array();
    for (const auto& [name, where] : kColumns) columns_[name] = json::array();
  }

  void add(const json& record) {
    const json& outputs = at(record, {"outputs"});
    if (!outputs.is_object() || outputs.empty()) add_row(record, "", json::object());
    for (const auto& [name, output] : outputs.items()) add_row(record, name, output);
  }

  /// Call after the last add.
  json columns() {
    columns_["words"] = words_.list();
    columns_["keys"] = packer_.keys();
    columns_["edges"] = edges_;
    columns_["rows_per_block"] = kRowsPerBlock;
    columns_["worst_kept"] = many_ ? json(kWorstOfMany) : json();
    return std::move(columns_);
  }
  std::string blocks() {
    flush();
    return std::move(blocks_);
  }

 private:
  void add_row(const json& record, std::string_view output_name, const json& output) {
    const std::string line = text_of(record, "case");
    const std::string impl = text_of(record, "impl");
    const CaseWords parts = read_case(line);
    json ids = json::array();
    for (const std::string_view word : words_of(line)) ids.push_back(words_(word));
    const std::string format = text_of(output, "format");
    const std::string shape =
        parts.shape.empty() || parts.shape == "-" ? dimensions(at(output, {"shape"})) : std::string(parts.shape);
    word("verdict", shown_verdict(record, output_name));
    word("norm", parts.norm);
    word("impl", impl);
    word("kind", kind_of_impl(impl));
    word("path", text_of(record, "path"));
    word("format", format.empty() ? parts.format : format);
    word("shape", shape);
    word("input", parts.input);
    word("output", output_name);
    columns_["case"].push_back(std::move(ids));
    columns_["ordinal"].push_back(at(record, {"ordinal"}));
    for (const auto& [name, where] : kColumns)
      columns_[name].push_back(output.contains(where) ? output.at(where) : json());
    columns_["worst"].push_back(at(output, {"worst"}).size());

    if (in_block_ == kRowsPerBlock) flush();
    block_.push_back(packer_.pack(detail(record, line, output)));
    ++in_block_;
  }

  void word(const char* column, std::string_view text) { columns_[column].push_back(words_(text)); }

  json detail(const json& record, const std::string& line, const json& output) {
    json kept = record;
    kept.erase("outputs");
    for (const char* known : {"kind", "ordinal", "case", "impl", "path", "verdict"}) kept.erase(known);
    // The repro line repeats the case; one mark stands for it.
    std::string repro = text_of(record, "repro");
    if (const std::size_t here = repro.find(line); !line.empty() && here != std::string::npos) {
      kept["repro"] = json::array({repro.substr(0, here), repro.substr(here + line.size())});
    }
    kept["output"] = output;
    // Histograms have few distinct edges and, outside a short range, counts of zero.
    if (const json& counts = at(output, {"ulp", "histogram", "counts"}); counts.is_array()) {
      std::size_t begin = 0;
      std::size_t end = counts.size();
      while (begin < end && counts[begin] == 0) ++begin;
      while (end > begin && counts[end - 1] == 0) --end;
      json& histogram = kept["output"]["ulp"]["histogram"];
      const auto known = std::find(edges_.begin(), edges_.end(), histogram["edges"]);
      const auto place = known - edges_.begin();
      if (known == edges_.end()) edges_.push_back(histogram["edges"]);
      histogram = {{"edges", place},
                   {"first", begin},
                   {"counts", json(counts.begin() + static_cast<std::ptrdiff_t>(begin),
                                   counts.begin() + static_cast<std::ptrdiff_t>(end))}};
    }
    if (many_ && text_of(record, "verdict") == "pass")
      if (json& worst = kept["output"]["worst"]; worst.is_array() && worst.size() > kWorstOfMany)
        worst.erase(worst.begin() + kWorstOfMany, worst.end());
    return kept;
  }

  void flush() {
    if (in_block_ == 0) return;
    blocks_ += "<script type=\"application/json\" class=\"block\">";
    blocks_ += script_safe(block_);
    blocks_ += "</script>\n";
    block_ = json::array();
    in_block_ = 0;
  }

  bool many_;
  Words words_;
  Packer packer_;
  json columns_ = json::object();
  json edges_ = json::array();
  json block_ = json::array();
  std::size_t in_block_ = 0;
  std::string blocks_;
};

/// The template with each {{name}} replaced; what is put in is not looked at again.
std::string fill(std::string_view text, const std::map<std::string_view, std::string_view>& values) {
  std::string filled;
  for (;;) {
    const std::size_t open = text.find("{{");
    if (open == std::string_view::npos) return filled.append(text);
    const std::size_t close = text.find("}}", open);
    filled.append(text.substr(0, open));
    filled.append(values.at(text.substr(open + 2, close - open - 2)));
    text.remove_prefix(close + 2);
  }
}

}  // namespace

std::string render_page(std::span<const json> lines) {
  std::size_t rows = 0;
  for (const json& line : lines)
    if (const json& outputs = at(line, {"outputs"}); outputs.is_object()) rows += outputs.size();
  Page page(rows);
  json contexts = json::array();
  json audits = json::array();
  for (const json& line : lines) {
    const std::string kind = text_of(line, "kind");
    if (kind == "record") page.add(line);
    if (kind == "context") contexts.push_back(line);
    if (kind == "audit") audits.push_back(line);
  }
  const json data{{"contexts", std::move(contexts)},
                  {"audits", std::move(audits)},
                  {"definition", kUlpDefinition},
                  {"rows", page.columns()}};
  // blocks() is last: the packer's keys are complete before it, because packing happens in add.
  const std::string data_text = script_safe(data);
  const std::string blocks = page.blocks();
  return fill(embedded::page_html, {{"css", embedded::page_css},
                                    {"data", data_text},
                                    {"chart_js", embedded::chart_js},
                                    {"page_js", embedded::page_js},
                                    {"trace_js", embedded::trace_js},
                                    {"detail_js", embedded::detail_js},
                                    {"blocks", blocks}});
}

}  // namespace norma
