// The audit's own figures: shares of a budget, floors, ranking, the path to change to.
#include "harness/audit/audit.hpp"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "harness/audit/explain.hpp"
#include "harness/inputs/inputs.hpp"

using namespace norma;

namespace {

constexpr std::string_view kCase = "rmsnorm bf16 3x96 path=transformers.llama.rmsnorm eps=1e-6 input=normal seed=11";

const nlohmann::ordered_json& row_of(const nlohmann::ordered_json& line, std::string_view path) {
  for (const auto& row : line["ranking"])
    if (row["path"] == path) return row;
  FAIL("no row for " << path);
  return line;
}

}  // namespace

TEST_CASE("the shares of an element's steps add up to its path error, exactly, and that is the record's") {
  Session session;
  const CheckJob job{.value = expand_defaults(parse_case(kCase)), .impl = "path:transformers.llama.rmsnorm"};
  const auto inputs = session.inputs(job.value);
  const auto contract = contract_of(job.value, inputs->tensors, nullptr);
  const Record record = check(session, job);
  std::size_t compared = 0;
  for (const WorstElement& worst : record.outputs.front().measures.worst) {
    const Explanation e = explain(session, job.value, *contract, "y", worst.at.row, worst.at.col);
    double sum = 0;
    double casts = 0;
    for (const ExplainStep& step : e.steps) {
      sum += step.share_ulp;  // multiples of 2^-16: exact
      if (!step.rounds) CHECK(step.share_ulp == 0);
      if (step.text.starts_with("cast T")) casts += step.share_ulp;
    }
    CHECK(sum == e.path_ulp);
    CHECK(e.definition_ulp == 0);
    // The record's error is rounded from the real number, the explanation's from its midpoint.
    CHECK(std::fabs(e.total_ulp - worst.ulp) <= 0x1p-16);
    // fp32's roundings are 2^-16 ulp of bf16 each; what the two casts leave is a few of those.
    CHECK(std::fabs(sum - casts) <= 16 * 0x1p-16);
    ++compared;
  }
  CHECK(compared == 8);
}

TEST_CASE("a step that another function has, not a rounding, is told as definition") {
  Session session;
  // eps outside the root at an eps that matters: the code means another function.
  const Case value = expand_defaults(parse_case("rmsnorm bf16 2x64 path=grid.eps_outside.weight_after_cast eps=0.25 input=normal seed=3"));
  const auto inputs = session.inputs(value);
  const auto contract = contract_of(value, inputs->tensors, nullptr);
  const Explanation e = explain(session, value, *contract, "y", 0, 5);
  CHECK(std::fabs(e.definition_ulp) > 4);
  CHECK(std::fabs(e.path_ulp) < 4);
  CHECK(e.total_ulp == e.definition_ulp + e.path_ulp);
}

TEST_CASE("a record splits an error of definition from an error of the casts") {
  Session session;
  const auto measured = [&](const char* line) {
    const Case value = expand_defaults(parse_case(line));
    return check(session, {.value = value, .impl = "path:" + std::string(value.get("path"))}).outputs.front().measures;
  };
  const Measures outside = measured("rmsnorm bf16 2x64 path=grid.eps_outside.weight_after_cast eps=0.25 input=normal seed=3");
  const Measures inside = measured("rmsnorm bf16 2x64 path=grid.eps_inside.weight_after_cast eps=0.25 input=normal seed=3");
  REQUIRE(outside.definition);
  CHECK(outside.definition->rms > 4);
  CHECK(outside.path->max < 2);  // two roundings of the tail, and nothing of the definition
  CHECK(inside.definition->max == 0);
  CHECK(outside.definition->bias + outside.path->bias + outside.implementation->bias == outside.total.bias);
}

TEST_CASE("in fp32 the floor is one rounding, whatever the steps cost") {
  const std::string file = NORMA_SOURCE_DIR "/tests/golden/captures/smollm2_135m.fp32.safetensors";
  Session session;
  const Audit audit = plan_audit(session,
                                 sites_of(file, {.norm = "rmsnorm", .map = {{"x", "norm.x"}, {"weight", "norm.weight"}, {"y", "norm.y"}},
                                                 .set = {}, .path = "", .profile = ""}),
                                 "transformers.llama.rmsnorm");
  const RunResult run = run_checks(session, audit.jobs, {});
  const auto lines = rank_paths(session, audit, run.records, 1);
  const auto& llama = row_of(lines[0], "transformers.llama.rmsnorm");
  CHECK(llama["max_ulp"].get<double>() > 3);
  CHECK(llama["floor_ulp"].get<double>() <= 0.5);
}

TEST_CASE("an audit ranks the paths, keeps the casts in their floors and names a path to change to") {
  const std::string file = NORMA_SOURCE_DIR "/tests/golden/captures/smollm2_135m.bf16.safetensors";
  SiteOptions options{.norm = "rmsnorm", .map = {}, .set = {}, .path = "", .profile = ""};
  options.map = {{"x", "norm.x"}, {"weight", "norm.weight"}, {"y", "norm.y"}};
  Session session;
  std::vector<AuditSite> sites = sites_of(file, options);
  REQUIRE(sites.size() == 1);
  CHECK(sites.front().declared == "transformers.llama.rmsnorm");
  const Audit audit = plan_audit(session, sites, "transformers.*");
  REQUIRE(audit.jobs.front().impl.starts_with("file:"));  // the recorded output comes first
  const RunResult run = run_checks(session, audit.jobs, {});
  CHECK(run.exit_code == 0);
  const auto lines = rank_paths(session, audit, run.records, 2);
  REQUIRE(lines.size() == 1);
  const auto& llama = row_of(lines[0], "transformers.llama.rmsnorm");
  const auto& olmo = row_of(lines[0], "transformers.olmo2.rmsnorm");
  const auto& gemma = row_of(lines[0], "transformers.gemma.rmsnorm");
  CHECK(llama["declared"] == true);
  CHECK(llama["equal_share"] == 1.0);
  // One rounding to bf16 cannot cost more than half an ulp; two cost more, and no kernel can save them.
  CHECK(olmo["floor_ulp"].get<double>() <= 0.5);
  CHECK(olmo["floor_ulp"].get<double>() > 0.49);
  CHECK(llama["floor_ulp"].get<double>() > 1.0);
  CHECK(std::fabs(llama["floor_ulp"].get<double>() - llama["max_ulp"].get<double>()) < 0.01);
  // 1 + w is another norm than the file's: named, and ranked after all that compute the file's.
  CHECK(gemma["gap"] == "another norm: weight_offset=1");
  bool others = false;
  double before = 0;
  for (const auto& row : lines[0]["ranking"]) {
    const bool other = row["gap"] != "" || row["format"] != "bf16";
    CHECK(!(others && !other));
    if (!others && !other) {
      CHECK(row["rms_ulp"].get<double>() >= before);
      before = row["rms_ulp"].get<double>();
    }
    others = other;
  }
  CHECK(lines[0]["best"] == "transformers.olmo2.rmsnorm");
  const std::string advice = lines[0]["advice"];
  CHECK(advice.find("'n_T = cast T n'") != std::string::npos);
  CHECK(advice.find("change to transformers.olmo2.rmsnorm") != std::string::npos);
}

TEST_CASE("a recorded output is told apart from the path it is said to come from") {
  const std::string file = NORMA_SOURCE_DIR "/tests/golden/captures/smollm2_135m.bf16.safetensors";
  SiteOptions options{.norm = "rmsnorm", .map = {{"x", "norm.x"}, {"weight", "norm.weight"}, {"y", "norm.y"}}, .set = {},
                      .path = "transformers.olmo2.rmsnorm", .profile = ""};
  Session session;
  const Audit audit = plan_audit(session, sites_of(file, options), "transformers.olmo2.rmsnorm");
  const RunResult run = run_checks(session, audit.jobs, {});
  CHECK(run.exit_code == 1);
  CHECK(run.records.front()["verdict"] == "fail");
}
