// The object under "outputs" of a record.
#include <fmt/core.h>
#include <mpfr.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/metrics/measures.hpp"

namespace norma {

namespace {

using Json = nlohmann::ordered_json;

Json place_json(const Place& place) { return place.row < 0 ? Json() : Json::array({place.row, place.col}); }

Json optional_number(const std::optional<double>& value) { return value ? json_number(*value) : Json(); }

/// "0x1.02p+0 (1.0078125)"
std::string value_text(double value) {
  if (!std::isfinite(value)) return json_number(value).get<std::string>();
  return fmt::format("{:a} ({})", value, value);
}

struct Decimal {
  std::string digits;  ///< twenty of them
  long exponent;       ///< of the first
};

/// (|hi| + |lo|, signs told apart) (1 + 2^-77 nudge) to twenty significant digits.
Decimal decimal_of(double hi, double lo, int nudge) {
  mpfr_t sum, change;
  // Wide enough for hi + lo but for a lo far below the twentieth digit.
  mpfr_init2(sum, 160);
  mpfr_init2(change, 160);
  mpfr_set_d(sum, hi, MPFR_RNDN);
  mpfr_add_d(sum, sum, lo, MPFR_RNDN);
  mpfr_abs(sum, sum, MPFR_RNDN);
  mpfr_mul_si(change, sum, nudge, MPFR_RNDN);
  mpfr_mul_2si(change, change, -77, MPFR_RNDN);
  mpfr_add(sum, sum, change, MPFR_RNDN);
  mpfr_exp_t exponent = 0;
  char* raw = mpfr_get_str(nullptr, &exponent, 10, 20, sum, MPFR_RNDN);
  Decimal decimal{.digits = raw, .exponent = exponent - 1};
  mpfr_free_str(raw);
  mpfr_clear(sum);
  mpfr_clear(change);
  return decimal;
}

/// hi + lo to 20 significant digits, and hi in hex: "1.0078124999999999999e+0 (0x1.02p+0)". What lies within 2^-77 of
/// half-way between two such decimals goes to the even one: midpoints good to 2^-80 give the same text.
std::string midpoint_text(double hi, double lo) {
  if (!std::isfinite(hi)) return json_number(hi).get<std::string>();
  if (hi == 0) return fmt::format("{}0 (0x0p+0)", std::signbit(hi) ? "-" : "");
  Decimal decimal = decimal_of(hi, lo, -1);
  if ((decimal.digits.back() - '0') % 2 != 0) decimal = decimal_of(hi, lo, 1);
  auto& [digits, exponent] = decimal;
  const std::string sign = std::signbit(hi) ? "-" : "";
  digits.erase(std::max<std::size_t>(digits.find_last_not_of('0') + 1, 2));
  return fmt::format("{}{}.{}e{:+d} ({:a})", sign, digits.substr(0, 1), digits.substr(1), exponent, hi);
}

Json part_json(const std::optional<SplitPart>& part) {
  if (!part) return {};
  return {{"bias", json_number(part->bias)}, {"max", json_number(part->max)}, {"rms", json_number(part->rms)}};
}

Json counts_json(const Counts& c) {
  Json json = {{"compared", c.compared},       {"nan_expected", c.nan_expected}, {"nan_unexpected", c.nan_unexpected},
          {"nan_missing", c.nan_missing}, {"inf_expected", c.inf_expected}, {"inf_unexpected", c.inf_unexpected},
          {"inf_missing", c.inf_missing}, {"overflow", c.overflow},         {"underflow", c.underflow},
          {"subnormal", c.subnormal},     {"undecided", c.undecided},       {"beyond_scale", c.beyond_scale}};
  if (c.unknown != 0) json["unknown"] = c.unknown;  // of no norm
  return json;
}

Json ulp_json(const UlpFigures& ulp) {
  Json quantiles = Json::object();
  for (std::size_t i = 0; i < kQuantiles.size(); ++i) {
    quantiles[std::string(kQuantiles[i])] = json_number(ulp.quantiles[i]);
  }
  return {{"max", json_number(ulp.max)},
          {"max_at", place_json(ulp.max_at)},
          {"mean_abs", json_number(ulp.mean_abs)},
          {"rms", json_number(ulp.rms)},
          {"bias", json_number(ulp.bias)},
          {"quantiles", quantiles},
          {"histogram", {{"edges", histogram_edges()}, {"counts", ulp.histogram}}}};
}

Json worst_json(const WorstElement& worst, FormatId format, bool got_is_ideal) {
  return {{"at", place_json(worst.at)},
          {"got", hex_code(format, worst.code)},
          {"got_value", value_text(decode(format, worst.code))},
          {"truth", midpoint_text(worst.hi, worst.lo)},
          {"ideal", worst.ideal && !got_is_ideal ? Json(hex_code(format, *worst.ideal)) : Json()},
          {"ulp", json_number(worst.ulp)},
          {"definition", optional_number(worst.definition)},
          {"path", optional_number(worst.path)},
          {"implementation", got_is_ideal ? Json() : optional_number(worst.implementation)}};
}

}  // namespace

Json json_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

Json to_json(const Measures& m) {
  Json conformance;
  if (m.conformance && !m.got_is_ideal) {
    conformance = {
        {"equal", m.conformance->equal},
        {"of", m.conformance->of},
        {"first_difference", place_json(m.conformance->first_difference)},
        {"choice_ulp", m.conformance->choice_ulp},
        {"furthest", m.conformance->furthest ? worst_json(*m.conformance->furthest, m.format, false) : Json()}};
  }
  Json allclose = Json::array();
  for (const Allclose& a : m.allclose) {
    allclose.push_back({{"name", a.name},
                        {"rtol", a.rtol},
                        {"atol", a.atol},
                        {"passes", a.passes},
                        {"admits_ulp_max", json_number(a.admits_ulp_max)},
                        {"admits_ulp_median", json_number(a.admits_ulp_median)}});
  }
  Json worst = Json::array();
  for (const WorstElement& element : m.worst) worst.push_back(worst_json(element, m.format, m.got_is_ideal));
  return {
      {"format", name_of(m.format)},
      {"shape", m.shape},
      {"elements", m.elements},
      {"counts", counts_json(m.counts)},
      {"tiers", {{"binary64", m.tiers.binary64}, {"double_double", m.tiers.double_double}, {"exact", m.tiers.exact}}},
      {"ulp", ulp_json(m.ulp)},
      {"condition_ulp",
       {{"max", json_number(m.ulp.condition_max)},
        {"max_at", place_json(m.ulp.condition_max_at)},
        {"mean_abs", json_number(m.ulp.condition_mean_abs)}}},
      {"rounding", {{"correct", m.ulp.correct}, {"faithful", m.ulp.faithful}}},
      {"relative_l2", json_number(m.ulp.relative_l2)},
      {"angle", json_number(m.ulp.angle)},
      {"split",
       {{"definition", part_json(m.definition)},
        {"path", part_json(m.path)},
        {"implementation", m.got_is_ideal ? Json() : part_json(m.implementation)},
        {"total", part_json(m.total)}}},
      {"conformance", conformance},
      {"allclose", allclose},
      {"worst", worst}};
}

}  // namespace norma
