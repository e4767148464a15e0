// Reads .cases files, suites and command lines into cases.
#include "harness/cases/files.hpp"
#include "harness/cases/block_words.hpp"
#include "reference/blocks/block.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

namespace norma {

namespace {

std::string_view first_word(std::string_view text) {
  return text.substr(0, text.find_first_of(" \t{"));
}

bool begins_case(std::string_view word) {
  const auto known = [](std::string_view name) { return find_norm(name) != nullptr || find_block_words(name) != nullptr; };
  if (known(first_word(word))) return true;
  // {rmsnorm,layernorm} begins one too.
  if (!word.starts_with('{')) return false;
  return known(word.substr(1, word.find_first_of(",}") - 1));
}

/// A word of a command line as a word of a case line: the shell has removed the quotes that spaces
/// need.
std::string requoted(const std::string& word) {
  const auto equals = word.find('=');
  if (equals == std::string::npos || word.find_first_of(" \t\"\\") == std::string::npos)
    return word;
  std::string text = word.substr(0, equals + 1) + '"';
  for (const char c : word.substr(equals + 1)) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

}  // namespace

const Suite* find_suite(std::string_view name) {
  const auto at = std::ranges::find(all_suites(), name, &Suite::name);
  return at == all_suites().end() ? nullptr : &*at;
}

std::string_view title_of(const Suite& suite) {
  const auto begin = suite.text.find("# ");
  if (begin == std::string_view::npos) return {};
  const auto end = suite.text.find('\n', begin);
  return suite.text.substr(begin + 2, end == std::string_view::npos ? end : end - begin - 2);
}

std::vector<LocatedCase> read_cases(std::string_view text, const std::string& origin) {
  std::vector<LocatedCase> cases;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    const auto begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos || line[begin] == '#') continue;
    const std::string place = fmt::format("{}:{}", origin, number);
    try {
      for (Case& c : expand_cases(line)) cases.push_back({std::move(c), place});
    } catch (const CaseError& error) {
      throw CaseError(fmt::format("{}: {}", place, error.what()));
    }
  }
  return cases;
}

std::vector<LocatedCase> read_cases_file(const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored))
    throw CaseError(fmt::format("{} is a folder, not a .cases file", file.string()));
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw CaseError(fmt::format("cannot read the cases file {}", file.string()));
  std::ostringstream text;
  text << stream.rdbuf();
  std::vector<LocatedCase> cases = read_cases(text.str(), file.string());
  if (cases.empty()) throw CaseError(fmt::format("{} holds no case", file.string()));
  return cases;
}

std::vector<LocatedCase> gather_cases(std::span<const std::string> words) {
  std::vector<LocatedCase> cases;
  const auto append = [&](std::vector<LocatedCase> more) {
    std::ranges::move(more, std::back_inserter(cases));
  };
  for (std::size_t i = 0; i < words.size();) {
    const std::string& word = words[i];
    if (begins_case(word)) {
      std::string line = word;
      const auto ends = [](const std::string& w) {
        return begins_case(w) || w.starts_with('@') || w.ends_with(".cases");
      };
      for (++i; i < words.size() && (!ends(words[i]) || words[i].find('=') != std::string::npos);
           ++i)
        line += " " + requoted(words[i]);
      for (Case& c : expand_cases(line)) cases.push_back({std::move(c), ""});
      continue;
    }
    ++i;
    if (word.starts_with('@')) {
      const Suite* suite = find_suite(std::string_view{word}.substr(1));
      if (suite == nullptr)
        throw CaseError(fmt::format(
            "unknown suite '{}'; known: {}", word,
            known_words(all_suites(), [](const Suite& s) { return fmt::format("@{}", s.name); })));
      append(read_cases(suite->text, word));
    } else if (word.ends_with(".cases")) {
      append(read_cases_file(word));
    } else {
      throw CaseError(
          fmt::format("'{}' begins with no norm or block, and is neither FILE.cases nor @SUITE; norms: {}; blocks: {}",
                      word, known_words(all_norms(), [](const NormDef* n) { return n->name; }),
                      known_words(all_blocks(), [](const BlockDef* b) { return b->name; })));
    }
  }
  return cases;
}

}  // namespace norma
