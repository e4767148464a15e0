// One element, step by step: what each rounding adds to its error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/run/check.hpp"

namespace norma {

/// One step of a program at one element.
struct ExplainStep {
  int node = 0;
  std::string name, text;
  std::string exact;    ///< the value if no step had rounded, to 20 digits
  std::string rounded;  ///< the value as emulated: decimal, hexadecimal
  bool rounds = false;  ///< this step's rounding can change a value
  double share_ulp = 0; ///< what replacing the exact value by the rounded one adds to the output's error
};

/// The budget of one element: shares add up to path_ulp exactly on the grid of 2^-16 ulp, as each is a
/// difference of successive totals.
struct Explanation {
  std::vector<ExplainStep> steps;
  std::string truth, ideal;
  double definition_ulp = 0;  ///< erasure against the canonical norm
  double path_ulp = 0;        ///< ideal against the erasure
  double total_ulp = 0;
};

/// Replaces the exact values by the emulated ones step after step, in the program's order; each step's share is
/// how far the output moves. The steps are those of the stage that gives the output; what an earlier stage passes is one
/// step, its error that of all that was rounded there. row and col are those of the output's truth.
/// Errors: ProgramError, NormError; std::invalid_argument if the truth is not finite.
Explanation explain(Session& session, const Case& expanded, const Contract& contract, const std::string& output,
                    std::int64_t row, std::int64_t col);

/// Mean square share of each step over some rows (all columns; some eight where each lies in a row of its own), in
/// ulp^2, by node of the stage that gives the output, empty if none does; the covariances between steps are left out, so
/// that the sum need not be the mean square error.
std::vector<double> step_budget(Session& session, const Case& expanded, const Contract& contract,
                                const std::string& output, const std::vector<std::int64_t>& rows);

}  // namespace norma
