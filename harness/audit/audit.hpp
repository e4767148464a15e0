// Which cast path costs what on these tensors, what the best could do, and what to change.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/run/runner.hpp"

namespace norma {

/// One norm in a file of tensors: x with its parameters, and perhaps what a kernel wrote.
struct AuditSite {
  std::string label;      ///< "layers.0.input_layernorm" or the file's name
  Case value;             ///< expanded but for the path
  std::string recorded;   ///< "file:OUT.safetensors#y"; empty: no output in the file
  std::string declared;   ///< the path that the file or the caller says the output was made by; may be empty
  std::string profile;    ///< its profile; may be empty: the path's default
};

struct SiteOptions {
  std::string norm;
  std::map<std::string, std::string> map;  ///< norm's tensor -> tensor of the file
  std::map<std::string, std::string> set;  ///< attributes
  std::string path, profile;
};

/// The sites of a safetensors file: every PREFIX with a tensor PREFIX.x (or x alone), with weight, bias, residual,
/// scale and y beside it. Attributes, path and profile come from the file's metadata where the caller gives none.
/// CaseError or SafetensorsError, one sentence, where there is none.
std::vector<AuditSite> sites_of(const std::string& file, const SiteOptions& options);

/// The site's case with its defaults. CaseError where the path needs a tensor that the file does not have: what a case
/// line would have generated is not what the file's maker computed with.
Case expand_site(const Case& value, const std::string& file);

/// The jobs of an audit: each site's recorded output against its declared path, then every path of the catalogue
/// whose name matches and whose code takes such tensors, emulated.
struct Audit {
  std::vector<AuditSite> sites;
  std::vector<CheckJob> jobs;
  std::vector<std::size_t> site_of;   ///< by job
  std::size_t not_applicable = 0;     ///< pairs of site and path whose code does not take such tensors
};
Audit plan_audit(Session& session, std::vector<AuditSite> sites, const std::string& paths_glob);

/// One line {"kind":"audit"} a site: its paths ranked by rms error, the floor beside each, one sentence.
/// The floor of a path keeps its roundings to formats narrower than fp32 and its outputs', and does all else
/// exactly (fp64, exact sums): what any kernel that declares these casts must cost on these tensors. Measured.
std::vector<nlohmann::ordered_json> rank_paths(Session& session, const Audit& audit,
                                               const std::vector<nlohmann::ordered_json>& records, int jobs);

}  // namespace norma
