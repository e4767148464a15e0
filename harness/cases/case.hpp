// A case: one line of text that names everything needed to repeat one check.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "reference/formats/tensor.hpp"
#include "reference/norms/norm.hpp"

namespace norma {

/// A case that cannot be read or repeated; the message is one sentence that quotes the offending
/// word and names the known ones.
struct CaseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A case line as data. Only known norms, formats, keys, paths and profiles get in, values have the
/// form their key asks for; which tensors there are and whether they fit together is settled by
/// harness/inputs.
struct Case {
  std::string norm;
  FormatId format = FormatId::fp32;  ///< x's, and the default of every other input tensor
  std::optional<Shape> shape;        ///< x's; none ('-'): a file gives it
  std::map<std::string, std::string, std::less<>> keys;  ///< as written, but "x.input" is "input"

  /// The value of a key; empty if the line does not have it (no key may be empty).
  std::string_view get(std::string_view key) const;
  bool operator==(const Case&) const = default;
};

/// NORM FORMAT SHAPE {key=value}, one case: braces and ranges that make several are refused.
/// A value with spaces, braces, backslashes or quotes stands in "..." with \" and \\ inside.
Case parse_case(std::string_view line);

/// The canonical line: path, profile, eps, the norm's other attributes by name, TENSOR.* by name,
/// input, seed. parse_case(print_case(c)) == c.
std::string print_case(const Case& c);

/// All cases of a line: {a,b} anywhere in a word gives each alternative, A..B as a value, as a side
/// of the shape or inside braces gives each integer; path=torch.* gives each path of the norm that matches. The last
/// word varies fastest, a pattern's paths fastest of all. At most kMaxCasesPerLine.
std::vector<Case> expand_cases(std::string_view line);
inline constexpr std::size_t kMaxCasesPerLine = 1'000'000;

/// "4x3072", "scalar". CaseError for a side that is not positive or 2^40 elements and more.
Shape parse_shape(std::string_view text);

/// The norm's attributes that the case sets, as a NormCall takes them.
struct CaseAttributes {
  Attributes numbers;
  std::map<std::string, std::string, std::less<>> words;
};
CaseAttributes attributes_of(const Case& c);

const NormDef& norm_of(const Case& c);

/// "a, b, c": how messages list the known words.
template <typename Range, typename Name>
std::string known_words(const Range& range, Name name) {
  std::string text;
  for (const auto& item : range) text.append(text.empty() ? "" : ", ").append(name(item));
  return text;
}

}  // namespace norma
