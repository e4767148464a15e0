// One call that judges an output inside your own test, Catch2, GoogleTest or any other.
//
// example-begin verify
//   const norma::Verification v = norma::verify("rmsnorm", {
//       .inputs = {{"x", norma::view(norma::FormatId::bf16, {4, 3072}, x.data())},
//                  {"weight", norma::view(norma::FormatId::bf16, {3072}, weight.data())}},
//       .outputs = {{"y", norma::view(norma::FormatId::bf16, {4, 3072}, y.data())}},
//       .eps = 1e-6,
//       .path = "bfl.flux.rmsnorm",
//       .limits = {"max_ulp<=1.5"},
//   });
//   REQUIRE(v);                 // Catch2 prints v, which is the failure text
//   ASSERT_TRUE(v) << v.text;   // GoogleTest
// example-end verify
#pragma once

#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "reference/formats/tensor.hpp"

namespace norma {

/// A copy of row-major values in your memory, each in the format's storage (bf16: two bytes, little-endian).
Tensor view(FormatId format, Shape shape, const void* data);

/// What is judged and by what. At least one criterion is required: limits, or a path.
struct VerifyCall {
  Tensors inputs{};   ///< x, weight, residual, ...: what the kernel read
  Tensors outputs{};  ///< y, residual, scale, ...: what it wrote
  /// Unset: the path's own default, or the norm's.
  std::optional<double> eps{};
  /// Other attributes as --set takes them: {"eps_place", "outside"}, {"weight_offset", "1"}.
  std::map<std::string, std::string> set{};
  /// A cast path of the catalogue. It tells apart what the casts cost and what the kernel adds; without limits
  /// the output must have its bits (differing<=0).
  std::string path{};
  std::string profile{};
  /// 'max_ulp<=1.5', 'scale.max_ulp<=1': all must hold. `norma list metrics` names the measures.
  std::vector<std::string> limits{};
  /// What the format of an output makes of values beyond its range.
  Overflow overflow = Overflow::ieee;
  /// A folder where the tensors of a failed check are kept, for the repro line. Empty: $NORMA_KEEP, if it is set.
  std::string keep{};
  int threads = 1;
};

struct Verification {
  bool passed = false;
  std::string verdict;  ///< pass, fail or vacuous
  std::string text;     ///< for people: what failed, got, want, exact, error, bound, repro
  /// Every measure by its name in a limit: max_ulp, ...; of outputs other than the first scale.max_ulp, ...
  /// NaN where a measure is not there.
  std::map<std::string, double> measures;
  explicit operator bool() const { return passed; }
};
std::ostream& operator<<(std::ostream& stream, const Verification& verification);

/// Throws std::invalid_argument with one sentence for a call that makes no sense: an unknown norm, path or
/// measure, a tensor that does not fit, no criterion.
Verification verify(const std::string& norm, const VerifyCall& call);

}  // namespace norma
