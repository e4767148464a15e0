// One pass over a trace's sites.
#include "harness/judge/sites.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace norma {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::array<std::string_view, 3> kOfSites = {"relative_l2", "rms_ulp", "max_ulp"};

double number_of(const nlohmann::json& value) {
  if (value.is_number()) return value.get<double>();
  return value.is_string() && value.get<std::string>() == "inf" ? kInfinity : kNan;
}

double error_of(const nlohmann::json& site, std::string_view measure) {
  if (site.contains("nan") || site.contains("infinite")) return kInfinity;
  if (site.contains("open")) return kNan;
  return number_of(site.at("leaving").at(std::string(measure)));
}

}  // namespace

bool is_of_sites(const Criterion& criterion) { return criterion.output == "site"; }

SiteFinding over_sites(const nlohmann::json& trace, const Criterion& criterion) {
  const std::string_view measure = criterion.measure->name;
  if (std::ranges::find(kOfSites, measure) == kOfSites.end())
    throw CriterionError(fmt::format("criterion '{}': sites have no {}; they have relative_l2 rms_ulp max_ulp",
                                     criterion.text, measure));
  if (!trace.is_object() || !trace.contains("sites"))
    throw CriterionError(
        fmt::format("criterion '{}' is on a block's sites, and nothing was traced: it needs a block and its path=",
                    criterion.text));
  SiteFinding finding;
  for (const auto& site : trace.at("sites")) {
    const double error = error_of(site, measure);
    if (std::isnan(error) || error > finding.largest) finding.largest = error;
    if (!finding.first.empty() || holds(criterion, error)) continue;
    finding.first = site.at("site").get<std::string>();
    finding.at_first = error;
  }
  return finding;
}

std::string text_of(const SiteFinding& finding, const Criterion& criterion) {
  const std::string bound = criterion.text.substr(criterion.text.find_first_of("<>="));
  if (std::isnan(finding.at_first))
    return fmt::format("the error at site {} is not known, wanted {} {}", finding.first, criterion.measure->name,
                       bound);
  return fmt::format("{} is {} at site {}, the first beyond {}", criterion.measure->name, finding.at_first,
                     finding.first, bound);
}

}  // namespace norma
