// Criteria, verdicts and vacuity on outputs made by hand.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "harness/judge/criteria.hpp"
#include "harness/judge/record.hpp"
#include "tests/harness/hand_made_truth.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

NamedMeasures output(const std::vector<HandMade>& truth, const std::vector<double>& got,
                     const std::vector<double>& ideal = {}, std::string name = "y") {
  const auto n = static_cast<std::int64_t>(truth.size());
  const HandMadeTruth source(1, n, truth);
  const Tensor bits = tensor_of(FormatId::bf16, {n}, got);
  if (ideal.empty()) return {std::move(name), measure(source, nullptr, nullptr, bits, Overflow::ieee)};
  const Tensor ideal_bits = tensor_of(FormatId::bf16, {n}, ideal);
  return {std::move(name), measure(source, nullptr, &ideal_bits, bits, Overflow::ieee)};
}

Verdict judged(const std::vector<NamedMeasures>& outputs, const std::vector<std::string>& texts) {
  std::vector<Criterion> criteria;
  for (const std::string& text : texts) criteria.push_back(parse_criterion(text));
  return judge(outputs, criteria);
}

}  // namespace

TEST_CASE("a check of elements whose truth is not known is vacuous, however few they are") {
  static constexpr double kTie = 1 + 0x1p-8;  // between two numbers of bf16: only a comparison tells
  struct Partly final : TruthSource {
    std::int64_t rows() const override { return 1; }
    std::int64_t cols() const override { return 64; }
    void enclose_row(std::int64_t, std::span<Enclosure> out) const override {
      for (std::size_t j = 0; j < out.size(); ++j)
        out[j] = {.hi = kTie, .lo = 0, .radius = j == 5 ? kInfinity : 1e-12, .magnitude = 1, .tier = Tier::binary64};
    }
    Comparison compare(std::int64_t, std::int64_t col, double m_hi, double m_lo) const override {
      if (col == 5) return Comparison::undecided;
      const double d = (kTie - m_hi) - m_lo;
      return d == 0 ? Comparison::equal : d < 0 ? Comparison::less : Comparison::greater;
    }
    Tier compare_tier() const override { return Tier::double_double; }
  };
  const Tensor got = tensor_of(FormatId::bf16, {64}, std::vector<double>(64, 1.0));
  const NamedMeasures y{"y", measure(Partly{}, nullptr, &got, got, Overflow::ieee)};
  CHECK(y.measures.counts.unknown == 1);
  CHECK(y.measures.counts.compared == 63);
  CHECK(y.measures.tiers.exact == 0);
  CHECK(y.measures.tiers.double_double == 63);
  CHECK(y.measures.allclose.empty());
  const Verdict verdict = judged({y}, {"max_ulp<=1"});
  CHECK(verdict.kind == VerdictKind::vacuous);
  CHECK_THAT(verdict.reason, ContainsSubstring("the truth of 1 of 64 elements is not known"));
  CHECK(judged({y}, {"differing<=0"}).kind == VerdictKind::pass);  // bits need no truth
}

TEST_CASE("a criterion is read with its output, relation and bound") {
  const Criterion plain = parse_criterion("max_ulp<=1.5");
  CHECK(plain.output.empty());
  CHECK(plain.measure->name == "max_ulp");
  CHECK(plain.relation == Relation::less_equal);
  CHECK(plain.bound == 1.5);
  const Criterion scale = parse_criterion("scale.p99_ulp < 1e-3");
  CHECK(scale.output == "scale");
  CHECK(scale.text == "scale.p99_ulp<1e-3");
  CHECK(scale.relation == Relation::less);
  CHECK(parse_criterion("differing==0").relation == Relation::equal);
  CHECK(parse_criterion("relative_l2>0").relation == Relation::greater);
  CHECK(parse_criterion("angle>=0").relation == Relation::greater_equal);
}

TEST_CASE("a criterion that cannot be read names the offending word and the known ones") {
  const auto says = [](const char* text, const char* what) {
    CHECK_THROWS_MATCHES(parse_criterion(text), CriterionError, MessageMatches(ContainsSubstring(what)));
  };
  says("max_ulps<=1", "'max_ulps'; known: max_ulp mean_ulp");
  says("max_ulp", "no relation");
  says("max_ulp=1", "unknown relation '='; known: < <= > >= ==");
  says("max_ulp=>1", "unknown relation '=>'");
  says("max_ulp<=one", "'one', which is not a finite number");
  says("max_ulp<=nan", "not a finite number");
  says("max_ulp<=", "'', which is not a finite number");
  says("max_ulp<=1x", "not a finite number");
  says("<=1", "unknown measure ''");
}

TEST_CASE("NaN holds no criterion") {
  for (const char* text : {"max_ulp<1", "max_ulp<=1", "max_ulp>1", "max_ulp>=1", "max_ulp==1"}) {
    CAPTURE(text);
    CHECK_FALSE(holds(parse_criterion(text), kNan));
  }
  CHECK_FALSE(holds(parse_criterion("max_ulp<=1"), kInfinity));
}

TEST_CASE("every measure has a value for an ordinary output with an ideal") {
  const NamedMeasures y = output({{1}, {2}}, {1, 2}, {1, 2});
  for (const MeasureRow& row : all_measures()) {
    CAPTURE(row.name);
    CHECK(std::isfinite(row.value(y.measures, false)));
    CHECK_FALSE(std::isnan(row.value(y.measures, true)));
    CHECK(find_measure(row.name) == &row);
  }
}

TEST_CASE("the verdict is pass only when every criterion holds") {
  const NamedMeasures y = output({{1}, {1 + 0x1p-8}}, {1, 1 + 0x1p-7});
  CHECK(judged({y}, {"max_ulp<=0.5", "mean_ulp<=0.25"}).kind == VerdictKind::pass);
  CHECK(judged({y}, {"max_ulp<=0.5"}).reason.empty());
  const Verdict failed = judged({y}, {"max_ulp<=0.5", "incorrect==0"});
  CHECK(failed.kind == VerdictKind::fail);
  CHECK(failed.reason == "incorrect is 1, wanted incorrect==0");
  REQUIRE(failed.criteria.size() == 2);
  CHECK(failed.criteria[0].held);
  CHECK_FALSE(failed.criteria[1].held);
  const Verdict skipped = judged({y}, {});
  CHECK(skipped.kind == VerdictKind::skip);
  CHECK(skipped.reason == "no criterion");
}

TEST_CASE("a criterion on a figure that is not there fails and says so") {
  const Verdict verdict = judged({output({{1}}, {1})}, {"differing<=0"});
  CHECK(verdict.kind == VerdictKind::fail);
  CHECK_THAT(verdict.reason, ContainsSubstring("differing is not there"));
}

TEST_CASE("a criterion on an output that is not there names those that are") {
  const std::vector<NamedMeasures> outputs = {output({{1}}, {1}), output({{1}}, {1}, {}, "scale")};
  CHECK(judged(outputs, {"scale.max_ulp<=1"}).kind == VerdictKind::pass);
  CHECK_THROWS_MATCHES(judged(outputs, {"mean.max_ulp<=1"}), CriterionError,
                       MessageMatches(ContainsSubstring("'mean', but the outputs are: y scale")));
}

TEST_CASE("unexpected NaN and Inf fail whatever the limit, in any output") {
  for (const double bad : {kNan, kInfinity, -kInfinity}) {
    CAPTURE(bad);
    const Verdict verdict = judged({output({{1}, {1}}, {1, bad})}, {"mean_ulp<=100"});
    CHECK(verdict.kind == VerdictKind::fail);
    CHECK_THAT(verdict.reason, ContainsSubstring("1 unexpected"));
  }
  CHECK(judged({output({{1}}, {1}), output({{1}}, {kNan}, {}, "scale")}, {"max_ulp<=1"}).kind == VerdictKind::fail);
  CHECK(judged({output({{1}, {1}, {kNan}}, {1, 1, 1})}, {"max_ulp<=1"}).kind == VerdictKind::fail);
  CHECK(judged({output({{1}, {1}, {kNan}}, {1, 1, kNan})}, {"max_ulp<=1"}).kind == VerdictKind::pass);
}

TEST_CASE("with conformance alone the ideal's own NaN is no reason to fail") {
  const NamedMeasures both = output({{1}, {1}, {1}}, {1, 1, kNan}, {1, 1, kNan});
  CHECK(judged({both}, {"differing<=0"}).kind == VerdictKind::pass);
  CHECK(judged({both}, {"differing<=0", "mean_ulp<=1"}).kind == VerdictKind::fail);
  const NamedMeasures got_only = output({{1}, {1}, {1}}, {1, 1, kNan}, {1, 1, 1});
  CHECK(judged({got_only}, {"differing_share<=0.5"}).kind == VerdictKind::fail);
}

TEST_CASE("a check that could not have failed is vacuous and says why") {
  const auto reason = [](const NamedMeasures& y, const std::vector<std::string>& texts) {
    const Verdict verdict = judged({y}, texts);
    CHECK(verdict.kind == VerdictKind::vacuous);
    return verdict.reason;
  };
  CHECK(reason(output({{0}, {0}}, {0, 0}), {"max_ulp<=1"}) == "y: the truth is zero everywhere");
  CHECK(reason(output({{1}, {1}}, {1, 1}), {"max_ulp<=1000"}) == "y: an all-zero output would pass too");
  CHECK(reason(output({{1}, {1}}, {1, 1}), {"nan_unexpected<=0"}) == "y: an all-zero output would pass too");
  CHECK(reason(output({{0}, {0}}, {0, 0}, {0, 0}), {"differing<=0"}) == "y: the truth is zero everywhere");
  CHECK(reason(output({{kNan}, {kNan}, {1}}, {kNan, kNan, 1}), {"max_ulp<=1"}) ==
        "y: 2 of 3 elements of the truth are NaN, Inf or beyond the range");
  CHECK(reason(output({{kNan}}, {kNan}), {"max_ulp<=1"}) == "y: no element compared");
  CHECK(reason(output({}, {}), {"max_ulp<=1"}) == "y: no element compared");
  CHECK(reason(output({{1}, {1}, {1}}, {kNan, kNan, 1}, {kNan, kNan, 1}), {"differing<=0"}) ==
        "y: 2 of 3 elements of the ideal are NaN or Inf");
  // One limit that zeros do not hold is enough.
  CHECK(judged({output({{1}, {1}}, {1, 1})}, {"max_ulp<=1000", "relative_l2<=0.5"}).kind == VerdictKind::pass);
  // Figures of the path alone say nothing of the output, and do not pretend to.
  CHECK(judged({output({{1}, {1}}, {1, 1}, {1, 1})}, {"path_bias<=1"}).kind == VerdictKind::pass);
}

TEST_CASE("failing comes before vacuous") {
  CHECK(judged({output({{0}, {0}}, {0, 1})}, {"max_ulp<=1"}).kind == VerdictKind::fail);
  CHECK(judged({output({{1}}, {kNan})}, {"max_ulp<=1"}).kind == VerdictKind::fail);
}

TEST_CASE("a record has the shape that reports read") {
  const NamedMeasures y = output({{1}, {1}}, {1, kNan}, {1, 1});
  const Record record{.ordinal = 3,
                      .case_line = "rmsnorm bf16 1x2",
                      .impl = "path:a",
                      .path = "a",
                      .profile = "",
                      .verdict = judged({y}, {"max_ulp<=1.5"}),
                      .outputs = {y},
                      .inputs_hash = "1",
                      .outputs_hash = "2",
                      .repro = "norma run …"};
  const nlohmann::ordered_json json = to_json(record);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"kind", "ordinal", "case", "impl", "path", "profile", "verdict", "reason",
                                         "criteria", "outputs", "hashes", "repro"});
  CHECK(json["verdict"] == "fail");
  CHECK(json["criteria"][0]["measured"] == "inf");
  CHECK(json["outputs"]["y"]["counts"]["nan_unexpected"] == 1);
  CHECK(json.dump().find("null") != std::string::npos);  // first_difference and the like, never NaN
  CHECK(nlohmann::ordered_json::parse(json.dump()) == json);
}
