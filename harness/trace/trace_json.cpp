// The object under "trace" of a record.
#include "harness/trace/trace_json.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace norma {

namespace {

using Json = nlohmann::ordered_json;

/// Six digits: what binary64 midpoints give alike on every machine.
Json figure(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[32];
  std::snprintf(text, sizeof text, "%.5e", value);
  return std::strtod(text, nullptr);
}

Json figures(const ErrorFigures& e) {
  return {{"relative_l2", figure(e.relative_l2)},
          {"rms_ulp", figure(e.rms_ulp)},
          {"max_ulp", figure(e.max_ulp)},
          {"worst", e.worst},
          {"gain", figure(e.gain)},
          {"coherent", e.coherent ? figure(*e.coherent) : Json()}};
}

}  // namespace

Json to_json(const BlockTrace& trace) {
  const std::vector<const SiteTrace*> order = ranked(trace);
  Json sites = Json::array();
  for (const SiteTrace& site : trace.sites) {
    Json line = {{"site", site.name}, {"kind", site.kind}};
    if (!site.path.empty()) line["path"] = site.path;
    line["format"] = name_of(site.format);
    line["shape"] = site.shape;
    line["rank"] = std::ranges::find(order, &site) - order.begin() + 1;
    line["truth_norm"] = figure(site.truth_norm);
    line["uncertainty"] = figure(site.uncertainty);
    line["entering"] = figures(site.entering);
    line["added"] = figures(site.added);
    line["leaving"] = figures(site.leaving);
    if (site.differing) line["differing"] = *site.differing;
    if (site.nan != 0) line["nan"] = site.nan;
    if (site.infinite != 0) line["infinite"] = site.infinite;
    if (site.clipped != 0) line["clipped"] = site.clipped;
    sites.push_back(std::move(line));
  }
  return {{"definition_gap", figure(trace.definition_gap)}, {"sites", std::move(sites)}};
}

}  // namespace norma
