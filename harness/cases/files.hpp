// Where cases come from: lines of a .cases file, built-in suites, words of a command line.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/cases/case.hpp"

namespace norma {

/// A set of cases that travels inside the program: harness/cases/suites/NAME.cases.
struct Suite {
  std::string_view name;
  std::string_view text;
};
std::span<const Suite> all_suites();
const Suite* find_suite(std::string_view name);
/// What the suite's first comment line says.
std::string_view title_of(const Suite& suite);

/// A case and where it was written: "tests/x.cases:12", "@smoke:3", or empty for a command line.
struct LocatedCase {
  Case value;
  std::string origin;
};

/// The cases of a text, one line each; # begins a comment. Errors are CaseErrors that begin with
/// origin:line.
std::vector<LocatedCase> read_cases(std::string_view text, const std::string& origin);
std::vector<LocatedCase> read_cases_file(const std::filesystem::path& file);

/// The positional words of a command: @SUITE, FILE.cases, or cases. A word whose first word is a
/// norm's name begins a case, and the words up to the next such word, file or suite belong to it;
/// so nobody has to quote.
std::vector<LocatedCase> gather_cases(std::span<const std::string> words);

}  // namespace norma
