// Criteria ('max_ulp<=1.5') and the verdict that they, and the rules of vacuity, give.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "harness/metrics/measures.hpp"

namespace norma {

/// A criterion that cannot be read or held; one sentence with the offending word and the known
/// ones.
struct CriterionError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a measure says something of.
enum class MeasureScope : std::uint8_t {
  got,          ///< the output against the truth
  conformance,  ///< the output's bits against the ideal's
  path,         ///< the declared path alone; no output can change it
};

/// One measure that a criterion can limit. 0 is best for each of them; signed means count by
/// magnitude.
struct MeasureRow {
  std::string_view name;
  MeasureScope scope;
  std::string_view unit;
  std::string_view meaning;
  /// NaN: this record does not have it. `zeros`: the value an all-zero output would have had.
  double (*value)(const Measures& measures, bool zeros);
};
std::span<const MeasureRow> all_measures();
const MeasureRow* find_measure(std::string_view name);

enum class Relation : std::uint8_t { less, less_equal, greater, greater_equal, equal };

struct Criterion {
  std::string output;  ///< empty: the first output (y)
  const MeasureRow* measure = nullptr;
  Relation relation = Relation::less_equal;
  double bound = 0;
  std::string text;  ///< as it was written, without spaces
};

/// 'max_ulp<=1.5', 'scale.max_ulp<=1'. Errors: CriterionError.
Criterion parse_criterion(std::string_view text);

/// False for a NaN value, whatever the relation.
bool holds(const Criterion& criterion, double value);

enum class VerdictKind : std::uint8_t { pass, fail, skip, vacuous, crashed };
std::string_view name_of(VerdictKind kind);

struct HeldCriterion {
  std::string text;
  bool held = false;
  double measured = 0;
};

/// Never without a reason unless pass.
struct Verdict {
  VerdictKind kind = VerdictKind::pass;
  std::string reason;
  std::vector<HeldCriterion> criteria;
};

struct NamedMeasures {
  std::string name;
  Measures measures;
};

/// The verdict on the outputs of one call, in this order:
///
///   skip     no criterion
///   fail     a criterion does not hold, or an output has an unexpected NaN or Inf or lacks an
///   expected one.
///            If only conformance is asked for, NaN and Inf that the ideal has too, bit for bit,
///            are no reason.
///   vacuous  the check could not have failed: no element compared, most of the truth (with
///   conformance only:
///            of the ideal) is not finite, or an all-zero output would hold every criterion too
///   pass
///
/// Errors: CriterionError for a criterion on an output that is not there.
Verdict judge(std::span<const NamedMeasures> outputs, std::span<const Criterion> criteria);

}  // namespace norma
