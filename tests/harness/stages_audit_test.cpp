// Explanations and budgets of paths in stages: the stage of the output step by step, what it is passed as one step.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <string>

#include "harness/audit/audit.hpp"
#include "harness/audit/explain.hpp"
#include "harness/cases/case.hpp"
#include "harness/inputs/inputs.hpp"

using namespace norma;

namespace {

void check_shares(const std::string& line, const std::string& output, const std::string& passed) {
  CAPTURE(line, output);
  Session session;
  const Case value = expand_defaults(parse_case(line));
  const auto inputs = session.inputs(value);
  const auto contract = contract_of(value, inputs->tensors, nullptr);
  const auto truth = session.truth(value, output);
  const Record record = check(session, {.value = value, .impl = "path:" + std::string(value.get("path"))});
  bool moved = false;
  for (std::int64_t at = 0; at < truth->rows() * truth->cols(); at += 7) {
    const Explanation e = explain(session, value, *contract, output, at / truth->cols(), at % truth->cols());
    double sum = 0;
    bool found = false;
    for (const ExplainStep& step : e.steps) {
      sum += step.share_ulp;  // multiples of 2^-16: exact
      if (step.name != passed) continue;
      CHECK(step.text.find(", of stage ") != std::string::npos);
      moved = moved || step.share_ulp != 0;
      found = true;
    }
    CHECK(found);
    CHECK(sum == e.path_ulp);
    CHECK(e.definition_ulp == 0);
  }
  CHECK(moved);
  const Program* stage = stage_of(contract->program, output);
  const std::vector<double> budget = step_budget(session, value, *contract, output, {0});
  REQUIRE(budget.size() == stage->nodes.size());
  CHECK(budget[static_cast<std::size_t>(stage->find_value(passed)->node)] > 0);
}

}  // namespace

TEST_CASE("the shares of a path in stages add up, those of earlier stages in one step a value") {
  check_shares("grn bf16 2x3x4x24 path=facebook.convnextv2.grn input=normal seed=3", "y", "r");
}

TEST_CASE("a sum over rows is explained value by value of its column") {
  check_shares("layernorm_backward bf16 6x32 path=torch.layer_norm_backward.cpu weight.format=bf16 input=normal seed=3",
               "dweight", "n");
}

TEST_CASE("the floor of a path in stages keeps what lies between them exact") {
  const std::string file = NORMA_SOURCE_DIR "/tests/golden/captures/grn.fp32.safetensors";
  Session session;
  const SiteOptions options{
      .norm = "grn",
      .map = {{"x", "wide.x"}, {"weight", "wide.weight"}, {"bias", "wide.bias"}, {"y", "wide.timm.y"}},
      .set = {},
      .path = "timm.grn",
      .profile = ""};
  const Audit audit = plan_audit(session, sites_of(file, options), "timm.grn");
  const RunResult run = run_checks(session, audit.jobs, {});
  CHECK(run.exit_code == 0);
  const auto lines = rank_paths(session, audit, run.records, 1);
  const auto& row = lines[0]["ranking"][0];
  CHECK(row["max_ulp"].get<double>() > 100);  // weight x r + 1 nearly cancels
  CHECK(row["floor_ulp"].get<double>() <= 0.5);
  CHECK(row["equal_share"] == 1.0);
  const std::string advice = lines[0]["advice"];
  CHECK(advice.find("is the step 'factor = add W gain, one'") != std::string::npos);
}
