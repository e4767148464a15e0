// Criteria on the sites of a block: 'site.relative_l2<=1e-3' is held by every one.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/judge/criteria.hpp"

namespace norma {

/// Whether a criterion names "site" for its output.
bool is_of_sites(const Criterion& criterion);

struct SiteFinding {
  double largest = 0;  ///< of all sites; infinite where one stores a NaN or Inf, NaN where an error is not known
  std::string first;   ///< the first site, in the order of evaluation, that does not hold; empty: all do
  double at_first = 0;
};

/// What a record's trace (harness/trace/trace_json.hpp) says of it; the error is the one that leaves a site. Errors:
/// CriterionError for a measure that sites do not have, or a record without a trace.
SiteFinding over_sites(const nlohmann::json& trace, const Criterion& criterion);

/// "relative_l2 is 0.004 at site mlp.fc1, the first beyond <=0.001"
std::string text_of(const SiteFinding& finding, const Criterion& criterion);

}  // namespace norma
