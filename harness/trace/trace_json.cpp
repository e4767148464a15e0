// The object under "trace" of a record.
#include "harness/trace/trace_json.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "harness/trace/growth.hpp"

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

Json fit_json(const GrowthFit& fit) { return {{"factor", figure(fit.factor)}, {"misfit", figure(fit.misfit)}}; }

/// Of each stream its blocks in order, and how the error grew.
Json growth(const std::vector<BlockStep>& steps) {
  std::vector<std::string> streams;
  for (const BlockStep& step : steps)
    if (std::ranges::find(streams, step.stream) == streams.end()) streams.push_back(step.stream);
  Json lines = Json::array();
  for (const std::string& stream : streams) {
    Json blocks = Json::array();
    std::vector<double> errors;
    for (const BlockStep& step : steps) {
      if (step.stream != stream) continue;
      const SiteTrace& f = step.figures;
      blocks.push_back({{"block", step.block},
                        {"truth_norm", figure(f.truth_norm)},
                        {"uncertainty", figure(f.uncertainty)},
                        {"carried", step.carried},
                        {"entering", figures(f.entering)},
                        {"added", figures(f.added)},
                        {"leaving", figures(f.leaving)}});
      errors.push_back(f.leaving.relative_l2);
    }
    const Growth g = growth_of(errors);
    lines.push_back(
        {{"stream", stream},
         {"blocks", std::move(blocks)},
         {"fit", {{"linear", fit_json(g.linear)}, {"root", fit_json(g.root)}, {"exponent", figure(g.exponent)}}}});
  }
  return lines;
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
    if (site.open != 0) line["open"] = site.open;
    sites.push_back(std::move(line));
  }
  Json json = {{"definition_gap", figure(trace.definition_gap)}};
  if (const SiteTrace* origin = first_special(trace)) json["first_special"] = origin->name;
  json["sites"] = std::move(sites);
  if (!trace.steps.empty()) json["growth"] = growth(trace.steps);
  return json;
}

}  // namespace norma
