// A record as JSON.
#include "harness/judge/record.hpp"

namespace norma {

nlohmann::ordered_json to_json(const Record& record) {
  using Json = nlohmann::ordered_json;
  Json criteria = Json::array();
  for (const HeldCriterion& c : record.verdict.criteria) {
    criteria.push_back({{"text", c.text}, {"held", c.held}, {"measured", json_number(c.measured)}});
  }
  Json outputs = Json::object();
  for (const NamedMeasures& output : record.outputs) outputs[output.name] = to_json(output.measures);
  Json json = {{"kind", "record"},
               {"ordinal", record.ordinal},
               {"case", record.case_line},
               {"impl", record.impl},
               {"path", record.path},
               {"profile", record.profile},
               {"verdict", name_of(record.verdict.kind)},
               {"reason", record.verdict.reason},
               {"criteria", criteria},
               {"outputs", outputs},
               {"hashes", {{"inputs", record.inputs_hash}, {"outputs", record.outputs_hash}}},
               {"repro", record.repro}};
  if (!record.depends_on.empty()) json["depends_on"] = record.depends_on;
  if (!record.ran.empty()) json["ran"] = record.ran;
  if (!record.trace.empty()) json["trace"] = record.trace;
  return json;
}

}  // namespace norma
