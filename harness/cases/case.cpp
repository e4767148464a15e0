// Case lines: words, alternatives, keys and their values; and back to text.
#include "harness/cases/case.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/ranges.h>

#include "harness/cases/block_words.hpp"
#include "harness/cases/glob.hpp"
#include "harness/cases/number.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "reference/blocks/block.hpp"
#include "reference/norms/rmsnorm.hpp"

namespace norma {

namespace {

// A word keeps quoted characters apart from plain ones by adding kLiteral, so that later steps
// cannot take a quoted brace for a brace.
using Word = std::u16string;
constexpr char16_t kLiteral = 0x100;

std::string text_of(const Word& word) {
  std::string text;
  for (const char16_t c : word) text += static_cast<char>(c & 0xff);
  return text;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

std::vector<Word> split_words(std::string_view line) {
  std::vector<Word> words;
  bool inside = false;  // a word has begun
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    char c = line[i];
    if (!quoted && is_space(c)) {
      inside = false;
      continue;
    }
    if (!quoted && !inside && c == '#') break;
    if (!inside) {
      words.emplace_back();
      inside = true;
    }
    if (c == '"') {
      quoted = !quoted;
      continue;
    }
    if (quoted && c == '\\' && i + 1 < line.size()) c = line[++i];
    const auto unit = static_cast<char16_t>(static_cast<unsigned char>(c));
    words.back() += quoted ? static_cast<char16_t>(unit | kLiteral) : unit;
  }
  if (quoted) throw CaseError(fmt::format("the quotation opened in '{}' is not closed", line));
  return words;
}

std::optional<std::int64_t> read_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size() || text.empty())
    return std::nullopt;
  return value;
}

/// A..B as its integers; the word itself if it is not a range.
std::vector<Word> expand_range(const Word& word) {
  const auto dots = word.find(u"..");
  if (dots == Word::npos || std::ranges::any_of(word, [](char16_t c) { return c >= kLiteral; }))
    return {word};
  const auto first = read_integer(text_of(word.substr(0, dots)));
  const auto last = read_integer(text_of(word.substr(dots + 2)));
  if (!first || !last) return {word};
  if (*first > *last)
    throw CaseError(
        fmt::format("the range '{}' goes down; write {}..{}", text_of(word), *last, *first));
  const auto count = static_cast<std::uint64_t>(*last) - static_cast<std::uint64_t>(*first) + 1;
  if (count == 0 || count > kMaxCasesPerLine)
    throw CaseError(
        fmt::format("the range '{}' has more than {} values", text_of(word), kMaxCasesPerLine));
  std::vector<Word> words;
  for (std::int64_t i = *first;; ++i) {
    Word number;
    for (const char c : std::to_string(i)) number += static_cast<char16_t>(c);
    words.push_back(number);
    if (i == *last) break;
  }
  return words;
}

std::vector<Word> joined(const std::vector<Word>& heads, const std::vector<Word>& tails) {
  if (heads.size() * tails.size() > kMaxCasesPerLine)
    throw CaseError(fmt::format("a line may stand for at most {} cases", kMaxCasesPerLine));
  std::vector<Word> words;
  for (const Word& head : heads)
    for (const Word& tail : tails) words.push_back(head + tail);
  return words;
}

std::vector<Word> expand_braces(const Word& word) {
  const auto open = word.find(u'{');
  if (open == Word::npos) {
    if (word.find(u'}') != Word::npos)
      throw CaseError(fmt::format("'{}' closes a brace that is not open", text_of(word)));
    return {word};
  }
  const auto close = word.find(u'}', open);
  if (close == Word::npos)
    throw CaseError(fmt::format("the brace in '{}' is not closed", text_of(word)));
  const Word inner = word.substr(open + 1, close - open - 1);
  if (inner.find(u'{') != Word::npos)
    throw CaseError(fmt::format("braces within braces in '{}'", text_of(word)));
  std::vector<Word> alternatives;
  for (std::size_t begin = 0;;) {
    const auto comma = inner.find(u',', begin);
    const Word one = inner.substr(begin, comma == Word::npos ? Word::npos : comma - begin);
    if (one.empty()) throw CaseError(fmt::format("an empty alternative in '{}'", text_of(word)));
    for (Word& each : expand_range(one)) alternatives.push_back(std::move(each));
    if (comma == Word::npos) break;
    begin = comma + 1;
  }
  if (word.substr(0, open).find(u'}') != Word::npos)
    throw CaseError(fmt::format("'{}' closes a brace that is not open", text_of(word)));
  return joined(joined({word.substr(0, open)}, alternatives),
                expand_braces(word.substr(close + 1)));
}

/// Each side of a shape may be a range.
std::vector<Word> expand_shape(const Word& word) {
  std::vector<Word> shapes{Word{}};
  for (std::size_t begin = 0;;) {
    const auto x = word.find(u'x', begin);
    shapes =
        joined(shapes, expand_range(word.substr(begin, x == Word::npos ? Word::npos : x - begin)));
    if (x == Word::npos) return shapes;
    shapes = joined(shapes, {Word{u"x"}});
    begin = x + 1;
  }
}

std::vector<std::string> expand_word(const Word& word) {
  std::vector<std::string> result;
  for (const Word& plain : expand_braces(word)) {
    const auto equals = plain.find(u'=');
    const bool shape_value = text_of(plain.substr(0, equals)).ends_with(".shape");
    const std::vector<Word> heads{equals == Word::npos ? Word{} : plain.substr(0, equals + 1)};
    const Word value = plain.substr(heads[0].size());
    const bool sides = equals == Word::npos || shape_value;
    for (const Word& one : joined(heads, sides ? expand_shape(value) : expand_range(value)))
      result.push_back(text_of(one));
  }
  return result;
}

constexpr std::array<std::string_view, 3> kTensorKeys{"format", "input", "shape"};

const NormAttribute* find_attribute(const NormDef& norm, std::string_view name) {
  const auto at = std::ranges::find(norm.attributes, name, &NormAttribute::name);
  return at == norm.attributes.end() ? nullptr : &*at;
}

std::string known_keys(const NormDef& norm) {
  const std::string attributes = known_words(norm.attributes, [](const NormAttribute& a) { return a.name; });
  if (find_block(norm.name) != nullptr) return fmt::format("path, profile, {}, input, seed", attributes);
  return fmt::format("path, profile, {}{}{{{}}}.{{{}}}, input, seed", attributes, norm.attributes.empty() ? "" : ", ",
                     known_words(norm.inputs, [](const NormInput& i) { return i.name; }),
                     known_words(kTensorKeys, [](std::string_view key) { return key; }));
}

FormatId read_format(std::string_view text) {
  const auto format = find_format(text);
  if (!format)
    throw CaseError(
        fmt::format("unknown format '{}'; known: {}", text,
                    known_words(all_formats(), [](const Format& f) { return f.name; })));
  return *format;
}

void check_attribute(const NormDef& norm, const NormAttribute& attribute, std::string_view value) {
  if (attribute.choices == kAnyText) return;
  if (!attribute.choices.empty()) {
    for (std::string_view rest = attribute.choices;;) {
      const auto bar = rest.find('|');
      if (rest.substr(0, bar) == value) return;
      if (bar == std::string_view::npos) break;
      rest.remove_prefix(bar + 1);
    }
    throw CaseError(fmt::format("{}={} is not a choice of {}; known: {}", attribute.name, value,
                                norm.name, attribute.choices));
  }
  const auto number = parse_number(value);
  if (!number) throw CaseError(fmt::format("{}={} is not a number", attribute.name, value));
  if (std::isnan(*number))
    throw CaseError(fmt::format("{}={} is not a number", attribute.name, value));
  if (attribute.name != "eps") return;
  if (*number < 0)
    throw CaseError(fmt::format("eps={} is negative; eps is finite and at least 0", value));
  if (std::isinf(*number))
    throw CaseError(fmt::format("eps={} is not finite; eps is finite and at least 0", value));
}

void check_path(const NormDef& norm, std::string_view name) {
  if (name.starts_with("file:")) return;
  const CastPath* path = find_cast_path(name);
  if (path != nullptr && path->norm == norm.name) return;
  if (const BlockPath* block = find_block_path(name); block != nullptr && block->block == norm.name) return;
  if (find_block(norm.name) != nullptr)
    throw CaseError(fmt::format("unknown path '{}' of {}; 'norma list blocks --show {}' prints the known ones", name, norm.name, norm.name));
  std::string known = fmt::format("'norma list paths --norm {}' prints the known ones", norm.name);
  std::string alike;
  for (const CastPath* p : all_cast_paths())
    if (p->norm == norm.name && p->name.find(name) != std::string_view::npos)
      alike.append(alike.empty() ? "" : ", ").append(p->name);
  if (!alike.empty()) known = fmt::format("there are {}; {}", alike, known);
  if (path != nullptr)
    throw CaseError(fmt::format("path={} is a path of {}, not of {}; {}", name, path->norm, norm.name, known));
  throw CaseError(fmt::format("unknown path '{}'; {}", name, known));
}

void check_profile(const Case& c, std::string_view name) {
  const CastPath* path = find_cast_path(c.get("path"));
  if (find_profile(name) == nullptr)
    throw CaseError(
        fmt::format("unknown profile '{}'; known: {}", name,
                    known_words(all_profiles(), [](const Profile& p) { return p.name; })));
  if (path != nullptr && std::ranges::find(path->profiles, name) == path->profiles.end())
    throw CaseError(fmt::format("path {} does not run under profile '{}'; it knows: {}", path->name,
                                name,
                                known_words(path->profiles, [](std::string_view p) { return p; })));
}

void check_seed(std::string_view text) {
  std::uint64_t seed = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size())
    throw CaseError(fmt::format("seed={} is not an integer from 0 to 2^64 - 1", text));
}

[[noreturn]] void refuse_key(const NormDef& norm, std::string_view key) {
  throw CaseError(
      fmt::format("unknown key '{}' for {}; known: {}", key, norm.name, known_keys(norm)));
}

void check_tensor_key(const NormDef& norm, std::string_view key, std::string_view value) {
  const auto dot = key.rfind('.');
  const std::string_view tensor = key.substr(0, dot);
  const std::string_view what = key.substr(dot + 1);
  if (std::ranges::find(kTensorKeys, what) == kTensorKeys.end()) refuse_key(norm, key);
  if (std::ranges::find(norm.inputs, tensor, &NormInput::name) == norm.inputs.end())
    throw CaseError(
        fmt::format("unknown tensor '{}' in '{}'; inputs of {}: {}", tensor, key, norm.name,
                    known_words(norm.inputs, [](const NormInput& i) { return i.name; })));
  if (tensor == "x")
    throw CaseError(fmt::format("'{}' is not a key: x's {} is the case's {} word", key, what,
                                what == "format" ? "second" : "third"));
  if (what == "format") read_format(value);
  if (what == "shape") parse_shape(value);
}

void check_key(const NormDef& norm, const Case& c, std::string_view key, std::string_view value) {
  if (key == "path") return check_path(norm, value);
  if (key == "profile") return check_profile(c, value);
  if (key == "seed") return check_seed(value);
  if (key == "input") return;
  if (const NormAttribute* attribute = find_attribute(norm, key))
    return check_attribute(norm, *attribute, value);
  if (key.find('.') == std::string_view::npos || find_block(norm.name) != nullptr) refuse_key(norm, key);
  check_tensor_key(norm, key, value);
}

const NormDef& known_norm(std::string_view name) {
  if (const NormDef* norm = find_norm(name)) return *norm;
  if (const NormDef* block = find_block_words(name)) return *block;
  throw CaseError(fmt::format("unknown norm or block '{}'; norms: {}; blocks: {}", name,
                              known_words(all_norms(), [](const NormDef* n) { return n->name; }),
                              known_words(all_blocks(), [](const BlockDef* b) { return b->name; })));
}

Case read_words(std::span<const std::string> words) {
  const NormDef& norm = known_norm(words[0]);
  if (words.size() < 3)
    throw CaseError(fmt::format("'{}' has no {}; a case is NORM FORMAT SHAPE key=value ...",
                                fmt::join(words, " "), words.size() < 2 ? "FORMAT" : "SHAPE"));
  Case c{.norm = words[0], .format = read_format(words[1]), .shape = std::nullopt, .keys = {}};
  if (words[2] != "-") c.shape = parse_shape(words[2]);
  for (const std::string& word : words.subspan(3)) {
    const auto equals = word.find('=');
    if (equals == std::string::npos) throw CaseError(fmt::format("'{}' is not key=value", word));
    const std::string key = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    if (value.empty()) throw CaseError(fmt::format("'{}' has no value", word));
    if (!c.keys.emplace(key == "x.input" ? "input" : key, value).second)
      throw CaseError(fmt::format("'{}' sets a key that the line has set before", word));
  }
  for (const auto& [key, value] : c.keys) check_key(norm, c, key, value);
  return c;
}

/// The columns that share a scale of the path's output, where the case's rows are no whole number of them; else 0.
std::int64_t refused_block(const CastPath& path, const std::vector<std::string>& words) {
  const auto quant = std::ranges::find(path.norm_attributes, "quant", &CaseDefault::key);
  if (quant == path.norm_attributes.end() || words.size() < 3 || words[2] == "-") return 0;
  const Shape shape = parse_shape(words[2]);
  const std::int64_t columns = shape.empty() ? 1 : shape.back(), block = block_columns(quant->value);
  return columns % block == 0 ? 0 : block;
}

/// The words of one case with path=PATTERN as one set of words a path; themselves if no path is a pattern.
std::vector<std::vector<std::string>> expand_paths(const std::vector<std::string>& words) {
  constexpr std::string_view kKey = "path=";
  const auto at = std::ranges::find_if(words, [&](const std::string& word) {
    return word.starts_with(kKey) && !word.starts_with("path=file:") && word.find_first_of("*?") != std::string::npos;
  });
  if (at == words.end()) return {words};
  const NormDef& norm = known_norm(words[0]);
  const std::string_view pattern = std::string_view(*at).substr(kKey.size());
  std::vector<std::vector<std::string>> expanded;
  const CastPath* left_out = nullptr;
  for (const CastPath* path : all_cast_paths()) {
    if (path->norm != norm.name || !glob_matches(pattern, path->name)) continue;
    if (refused_block(*path, words) != 0) {
      left_out = path;
      continue;
    }
    expanded.push_back(words);
    expanded.back()[static_cast<std::size_t>(at - words.begin())] = std::string(kKey) + std::string(path->name);
  }
  for (const BlockPath* path : all_block_paths()) {
    if (path->block != norm.name || !glob_matches(pattern, path->name)) continue;
    expanded.push_back(words);
    expanded.back()[static_cast<std::size_t>(at - words.begin())] = std::string(kKey) + std::string(path->name);
  }
  if (expanded.empty() && left_out != nullptr)
    throw CaseError(fmt::format(
        "path={} matches only paths whose blocks of columns must divide the rows, as those of {} of {} do not divide shape {}'s",
        pattern, refused_block(*left_out, words), left_out->name, words[2]));
  if (expanded.empty())
    throw CaseError(fmt::format("path={} matches no path of {}; 'norma list paths --norm {}' prints the known ones",
                                pattern, norm.name, norm.name));
  return expanded;
}

std::string quoted_if_needed(const std::string& value) {
  const bool range = value.find("..") != std::string::npos;
  if (!range && value.find_first_of(" \t\r\n\"{}\\") == std::string::npos) return value;
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

/// Where a key stands in the canonical line.
int rank_of(const NormDef& norm, std::string_view key) {
  if (key == "path") return 0;
  if (key == "profile") return 1;
  if (key == "eps") return 2;
  if (find_attribute(norm, key) != nullptr) return 3;
  if (key == "input") return 5;
  if (key == "seed") return 6;
  return 4;
}

}  // namespace

std::string_view Case::get(std::string_view key) const {
  const auto at = keys.find(key);
  return at == keys.end() ? std::string_view{} : std::string_view{at->second};
}

const NormDef& norm_of(const Case& c) { return known_norm(c.norm); }

Shape parse_shape(std::string_view text) {
  if (text == "scalar") return {};
  constexpr std::int64_t kTooMany = std::int64_t{1} << 40;
  Shape shape;
  std::int64_t count = 1;
  for (std::size_t begin = 0;;) {
    const auto x = text.find('x', begin);
    const auto word = text.substr(begin, x == std::string_view::npos ? x : x - begin);
    std::int64_t side = 0;
    const auto result = std::from_chars(word.data(), word.data() + word.size(), side);
    const bool whole = !word.empty() && result.ptr == word.data() + word.size();
    if (!whole || result.ec == std::errc::invalid_argument)
      throw CaseError(
          fmt::format("'{}' is not a shape; write 4x3072, or '-' when a file gives x's", text));
    if (result.ec == std::errc{} && side <= 0)
      throw CaseError(
          fmt::format("shape '{}' has the side {}; every side is at least 1", text, side));
    if (result.ec != std::errc{} || side >= kTooMany / count + (kTooMany % count != 0))
      throw CaseError(fmt::format("shape '{}' has 2^40 elements or more", text));
    count *= side;
    shape.push_back(side);
    if (x == std::string_view::npos) return shape;
    begin = x + 1;
  }
}

std::vector<Case> expand_cases(std::string_view line) {
  std::vector<std::vector<std::string>> choices;
  std::size_t count = 1;
  for (const Word& word : split_words(line)) {
    choices.push_back(expand_word(word));
    count *= choices.back().size();
    if (count > kMaxCasesPerLine)
      throw CaseError(fmt::format("a line may stand for at most {} cases", kMaxCasesPerLine));
  }
  if (choices.empty()) throw CaseError("an empty case; a case is NORM FORMAT SHAPE key=value ...");
  std::vector<Case> cases;
  std::vector<std::string> words(choices.size());
  for (std::size_t n = 0; n < count; ++n) {
    std::size_t rest = n;
    for (std::size_t i = choices.size(); i-- > 0; rest /= choices[i].size())
      words[i] = choices[i][rest % choices[i].size()];
    for (const std::vector<std::string>& one : expand_paths(words)) cases.push_back(read_words(one));
    if (cases.size() > kMaxCasesPerLine)
      throw CaseError(fmt::format("a line may stand for at most {} cases", kMaxCasesPerLine));
  }
  return cases;
}

Case parse_case(std::string_view line) {
  std::vector<Case> cases = expand_cases(line);
  if (cases.size() != 1)
    throw CaseError(fmt::format("'{}' stands for {} cases, not for one", line, cases.size()));
  return std::move(cases.front());
}

std::string print_case(const Case& c) {
  const NormDef& norm = norm_of(c);
  std::vector<std::pair<int, std::string>> words;
  for (const auto& [key, value] : c.keys)
    words.emplace_back(rank_of(norm, key), key + "=" + quoted_if_needed(value));
  std::ranges::stable_sort(words, {},
                           &std::pair<int, std::string>::first);  // the map is in order of names
  std::string line =
      fmt::format("{} {} {}", c.norm, name_of(c.format), c.shape ? shape_text(*c.shape) : "-");
  for (const auto& [rank, word] : words) line += " " + word;
  return line;
}

CaseAttributes attributes_of(const Case& c) {
  CaseAttributes attributes;
  for (const NormAttribute& attribute : norm_of(c).attributes) {
    const std::string_view value = c.get(attribute.name);
    if (value.empty()) continue;
    if (attribute.choices.empty())
      attributes.numbers.emplace(attribute.name, parse_number(value).value());
    else
      attributes.words.emplace(attribute.name, value);
  }
  return attributes;
}

}  // namespace norma
