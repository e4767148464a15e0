// What a terminal shows of a run.
#include "reports/views/terminal.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "reports/views/record.hpp"

namespace norma {

namespace {

using namespace views;
using nlohmann::json;

constexpr std::array<std::string_view, 6> kWorstFirst{"crashed", "fail", "vacuous", "skip", "pass", "measured"};

std::size_t rank_of(std::string_view verdict) {
  return static_cast<std::size_t>(std::find(kWorstFirst.begin(), kWorstFirst.end(), verdict) - kWorstFirst.begin());
}

std::string painted(std::string text, std::string_view verdict, const TerminalOptions& options) {
  if (!options.colour) return text;
  const std::size_t rank = rank_of(verdict);
  if (verdict == "measured") return text;
  const int code = rank <= 1 ? 31 : rank <= 3 ? 33 : 32;
  return fmt::format("\033[{}m{}\033[0m", code, text);
}

/// Length on the screen: code points, as no text of ours is wider.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// The end of a name tells more than its beginning, so the beginning goes.
std::string cut(std::string_view text, std::size_t width) {
  if (width_of(text) <= width) return std::string(text);
  std::size_t excess = width_of(text) - width + 1;
  std::size_t begin = 0;
  while (excess > 0 || (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    if ((static_cast<unsigned char>(text[begin]) & 0xC0) != 0x80) --excess;
    ++begin;
    if (begin == text.size()) break;
  }
  return "…" + std::string(text.substr(begin));
}

std::string ulp_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  const double size = std::fabs(value);
  if (size != 0 && (size < 0.00005 || size >= 1e6)) return fmt::format("{:.2e}", value);
  return fmt::format("{:.{}f}", value, size < 1000 ? 4 : 1);
}

std::string max_text(double value) {
  return std::isfinite(value) && value >= 0.00005 && value < 1000 ? ulp_text(std::ceil(value * 1e4) / 1e4)
                                                                  : ulp_text(value);
}

std::string signed_text(double value) {
  const std::string text = ulp_text(value);
  return value > 0 ? "+" + text : text;
}

std::string share_text(const json& part, const json& whole) {
  const auto n = number_of(part);
  const auto of = number_of(whole);
  if (!n || !of || *of == 0) return "";
  return *n == *of ? "100" : fmt::format("{:.2f}", std::floor(*n / *of * 1e4) / 1e2);
}

template <class Text>
std::string cell(const json& value, Text text) {
  const auto number = number_of(value);
  return number ? text(*number) : std::string();
}

/// `drop`: the order in which columns go when the terminal is narrow; 0: never.
struct Column {
  std::string_view title;
  bool right;
  int drop;
};
constexpr std::array<Column, 12> kColumns{{{"#", true, 6},
                                           {"verdict", false, 0},
                                           {"norm", false, 0},
                                           {"path or implementation", false, 0},
                                           {"format", false, 0},
                                           {"shape", false, 2},
                                           {"input", false, 5},
                                           {"max", true, 0},
                                           {"rms", true, 3},
                                           {"bias", true, 1},
                                           {"correct %", true, 4},
                                           {"equal %", true, 0}}};
constexpr std::size_t kName = 3;
constexpr std::size_t kNarrowestName = 16;

struct Row {
  std::string verdict;
  double worst;
  std::array<std::string, kColumns.size()> cells;
};

Row row_of(const json& record, std::string_view name, const json& output) {
  const std::string line = text_of(record, "case");
  const CaseWords words = read_case(line);
  const std::string impl = text_of(record, "impl");
  std::string subject = impl.starts_with("path:") ? impl.substr(5) : impl;
  if (const RecordedName recorded = read_recorded_name(impl); !recorded.tensor.empty())
    subject = fmt::format("file:{}#{}", recorded.file, recorded.tensor);
  const std::string_view input_tensor = read_recorded_name(words.input).tensor;
  if (!name.empty() && name != "y") subject += fmt::format(" [{}]", name);
  const std::string format = text_of(output, "format");
  const json& ordinal = at(record, {"ordinal"});
  const auto max = number_of(at(output, {"ulp", "max"}));
  const double never = -1;
  const std::string verdict = shown_verdict(record, name);
  return {.verdict = verdict,
          .worst = !max               ? never
                   : std::isnan(*max) ? std::numeric_limits<double>::infinity()
                                      : *max,
          .cells = {ordinal.is_null() ? std::string() : ordinal.dump(), verdict, std::string(words.norm), subject,
                    format.empty() ? std::string(words.format) : format, std::string(words.shape),
                    std::string(input_tensor.empty() ? words.input : input_tensor),
                    cell(at(output, {"ulp", "max"}), max_text), cell(at(output, {"ulp", "rms"}), ulp_text),
                    cell(at(output, {"ulp", "bias"}), signed_text),
                    share_text(at(output, {"rounding", "correct"}), at(output, {"counts", "compared"})),
                    share_text(at(output, {"conformance", "equal"}), at(output, {"conformance", "of"}))}};
}

/// "binary64 99.98 %, double-double 0.016 %, exact 0; undecided 0": how many elements each tier of the reference settled,
/// all outputs together. Empty where no record says.
std::string tiers_text(std::span<const json> records) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kTiers{
      {{"binary64", "binary64"}, {"double_double", "double-double"}, {"exact", "exact"}}};
  std::array<double, kTiers.size()> settled{};
  double undecided = 0;
  for (const json& record : records)
    for (const auto& [name, output] : at(record, {"outputs"}).items()) {
      for (std::size_t i = 0; i < kTiers.size(); ++i)
        settled[i] += number_of(at(output, {"tiers", kTiers[i].first})).value_or(0);
      undecided += number_of(at(output, {"counts", "undecided"})).value_or(0);
    }
  const double all = settled[0] + settled[1] + settled[2] + undecided;
  if (all == undecided) return "";
  std::string text;
  for (std::size_t i = 0; i < kTiers.size(); ++i) {
    const double percent = 100 * settled[i] / all;
    // Not all is never shown as 100.
    const std::string share = settled[i] == 0     ? "0"
                              : settled[i] == all ? "100 %"
                              : percent >= 1      ? fmt::format("{:.2f} %", std::floor(percent * 100) / 100)
                                                  : fmt::format("{:.2g} %", percent);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kTiers[i].second, share);
  }
  return fmt::format("{}; undecided {:.0f}", text, undecided);
}

std::vector<Row> rows_of(std::span<const json> records) {
  std::vector<Row> rows;
  for (const json& record : records) {
    if (text_of(record, "kind") != "record") continue;
    const json& outputs = at(record, {"outputs"});
    if (!outputs.is_object() || outputs.empty()) rows.push_back(row_of(record, "", json::object()));
    for (const auto& [name, output] : outputs.items()) rows.push_back(row_of(record, name, output));
  }
  return rows;
}

std::string indices(const json& where) {
  std::string text;
  for (const json& index : where) text += (text.empty() ? "" : ", ") + index.dump();
  return "[" + text + "]";
}

std::string value_text(const json& value) {
  return value.is_null() ? std::string() : value.is_string() ? value.get<std::string>() : value.dump();
}

/// The output whose worst element is farthest off, with its name; null where no output has one.
std::pair<std::string, const json*> worst_output(const json& record) {
  std::pair<std::string, const json*> found{"", nullptr};
  double worst = -1;
  const json& outputs = at(record, {"outputs"});
  for (const auto& [name, output] : outputs.items()) {
    const json& elements = at(output, {"worst"});
    if (!elements.is_array() || elements.empty()) continue;
    const double ulp = std::fabs(number_of(at(elements[0], {"ulp"})).value_or(0));
    if (!(ulp <= worst)) {
      worst = std::isnan(ulp) ? std::numeric_limits<double>::infinity() : ulp;
      found = {name, &output};
    }
  }
  return found;
}

}  // namespace

std::string render_table(std::span<const json> records, const TerminalOptions& options) {
  std::vector<Row> rows = rows_of(records);
  if (options.order == TableOrder::worst_first)
    std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
      const std::size_t left = rank_of(a.verdict);
      const std::size_t right = rank_of(b.verdict);
      return left != right ? left < right : a.worst > b.worst;
    });
  const std::size_t shown = options.limit == 0 ? rows.size() : std::min(options.limit, rows.size());

  std::array<std::size_t, kColumns.size()> widths{};
  for (std::size_t c = 0; c < kColumns.size(); ++c) {
    for (std::size_t r = 0; r < shown; ++r) widths[c] = std::max(widths[c], width_of(rows[r].cells[c]));
    if (widths[c] != 0) widths[c] = std::max(widths[c], width_of(kColumns[c].title));
  }
  const auto total = [&widths] {
    std::size_t sum = 0;
    for (const std::size_t width : widths) sum += width == 0 ? 0 : width + 2;
    return sum == 0 ? 0 : sum - 2;
  };
  const auto shrink_name = [&] {
    const std::size_t excess = total() > options.width ? total() - options.width : 0;
    const std::size_t least = std::max(kNarrowestName, width_of(kColumns[kName].title));
    if (widths[kName] > least) widths[kName] = std::max(least, widths[kName] - std::min(excess, widths[kName]));
  };
  for (int step = 1; step <= 6; ++step) {
    // A name cut to a third is worse than a missing bias, so columns go while the name is long.
    if (total() <= options.width || total() - options.width <= widths[kName] / 3) break;
    for (std::size_t c = 0; c < kColumns.size(); ++c)
      if (kColumns[c].drop == step) widths[c] = 0;
  }
  shrink_name();

  const auto line_of = [&widths](const auto& text_at) {
    std::string line;
    for (std::size_t c = 0; c < kColumns.size(); ++c) {
      if (widths[c] == 0) continue;
      const auto [text, drawn] = text_at(c);
      const std::string pad(widths[c] - std::min(widths[c], width_of(text)), ' ');
      if (!line.empty()) line += "  ";
      line += kColumns[c].right ? pad + drawn : drawn + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  };
  std::string text = line_of([](std::size_t c) {
    return std::pair{std::string(kColumns[c].title), std::string(kColumns[c].title)};
  });
  for (std::size_t r = 0; r < shown; ++r)
    text += line_of([&](std::size_t c) {
      const std::string fitted = cut(rows[r].cells[c], widths[c]);
      return std::pair{fitted, c == 1 ? painted(fitted, rows[r].verdict, options) : fitted};
    });

  std::array<std::size_t, kWorstFirst.size()> counts{};
  for (const Row& row : rows)
    if (const std::size_t rank = rank_of(row.verdict); rank < counts.size()) ++counts[rank];
  text += fmt::format("\n{} rows", rows.size());
  const std::size_t measured = rank_of("measured");
  for (std::size_t i = measured; i-- > 0;)
    if (counts[i] != 0) text += fmt::format(", {} {}", counts[i], kWorstFirst[i]);
  if (counts[measured] != 0) text += fmt::format(", {} measured without a criterion", counts[measured]);
  if (shown < rows.size()) text += fmt::format("; {} shown", shown);
  if (const std::string tiers = tiers_text(records); !tiers.empty()) text += fmt::format("\nsettled by {}", tiers);
  text += fmt::format("\nmax, rms and bias in ulp: {}\n", kUlpDefinition);
  return text;
}

namespace {

/// A criterion on the bits does not hold.
bool bits_are_wrong(const json& record) {
  const json& criteria = at(record, {"criteria"});
  return criteria.is_array() && std::any_of(criteria.begin(), criteria.end(), [](const json& criterion) {
           return at(criterion, {"held"}) != true && text_of(criterion, "text").find("differing") != std::string::npos;
         });
}

}  // namespace

std::string render_failure(const json& record, const TerminalOptions& options) {
  const std::string verdict = shown_verdict(record);
  std::string text = fmt::format("{}  {}\n", painted(verdict, verdict, options), text_of(record, "impl"));
  const auto fact = [&text](std::string_view name, const std::string& value) {
    if (!value.empty()) text += fmt::format("  {:<7}{}\n", name, value);
  };
  fact("case", text_of(record, "case"));
  fact("reason", text_of(record, "reason"));
  // Of a check that could not have failed no element says anything.
  const auto [name, output] =
      verdict == "vacuous" ? std::pair<std::string, const json*>{"", nullptr} : worst_output(record);
  if (output != nullptr) {
    // Where the bits were asked for and are not there, a differing element says more than the least exact one.
    const json& furthest = at(*output, {"conformance", "furthest"});
    const json& element = furthest.is_object() && bits_are_wrong(record) ? furthest : output->at("worst")[0];
    const std::string got = text_of(element, "got");
    const std::string want = text_of(element, "ideal");
    const std::size_t bits = std::max(got.size(), want.size());
    fact("at", name + indices(at(element, {"at"})));
    fact("got", fmt::format("{:<{}}  {}", got, bits, value_text(at(element, {"got_value"}))));
    if (!want.empty()) {
      const std::string value = value_text(at(element, {"ideal_value"}));
      fact("want", fmt::format("{:<{}}  {}{}the bits of {}", want, bits, value, value.empty() ? "" : ", ",
                               text_of(record, "path")));
    }
    fact("exact", fmt::format("{:<{}}  {}", "", bits, text_of(element, "truth")));
    std::string error = cell(at(element, {"ulp"}), signed_text) + " ulp";
    for (const char* part : {"definition", "path", "implementation"})
      if (const auto value = number_of(at(element, {part})))
        error +=
            fmt::format("{} {} {}", part == std::string_view("definition") ? " =" : ",", part, signed_text(*value));
    fact("error", error);
  }
  if (const json& criteria = at(record, {"criteria"}); criteria.is_array())
    for (const json& criterion : criteria)
      if (at(criterion, {"held"}) != true)
        fact("bound",
             fmt::format("{}, measured {}", text_of(criterion, "text"), value_text(at(criterion, {"measured"}))));
  if (output != nullptr) {
    const json& of = at(*output, {"conformance", "of"});
    const json& equal = at(*output, {"conformance", "equal"});
    if (of.is_number_unsigned() && equal.is_number_unsigned())
      fact("bits", of == equal ? fmt::format("all {} elements as {}", of.dump(), text_of(record, "path"))
                               : fmt::format("{} of {} elements differ from {}",
                                             of.get<std::uint64_t>() - equal.get<std::uint64_t>(), of.dump(),
                                             text_of(record, "path")));
  }
  fact("repro", text_of(record, "repro"));
  return text;
}

}  // namespace norma
