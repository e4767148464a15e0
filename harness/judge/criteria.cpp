// Reads criteria, evaluates them, and says when a check was worth nothing.
#include "harness/judge/criteria.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace norma {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const UlpFigures& figures(const Measures& m, bool zeros) { return zeros ? m.zeros : m.ulp; }
double share(std::int64_t part, std::int64_t of) {
  return of == 0 ? kNan : static_cast<double>(part) / static_cast<double>(of);
}
double number(std::int64_t count) { return static_cast<double>(count); }

std::int64_t incorrect(const Measures& m, bool zeros) { return m.counts.compared - figures(m, zeros).correct; }
std::int64_t unfaithful(const Measures& m, bool zeros) { return m.counts.compared - figures(m, zeros).faithful; }
double differing(const Measures& m, bool zeros) {
  if (!m.conformance) return kNan;
  return number(m.conformance->of - (zeros ? m.zeros_equal : m.conformance->equal));
}

double bias(const std::optional<SplitPart>& part) { return part ? std::fabs(part->bias) : kNan; }
double largest(const std::optional<SplitPart>& part) { return part ? part->max : kNan; }
double rms(const std::optional<SplitPart>& part) { return part ? part->rms : kNan; }

// How far a zero output is from the ideal was not measured, only whether it is the ideal.
double implementation(const Measures& m, bool zeros, double (*figure)(const std::optional<SplitPart>&)) {
  if (!zeros) return figure(m.implementation);
  return m.zeros_equal == m.elements ? 0 : std::numeric_limits<double>::infinity();
}

using M = const Measures&;
using S = MeasureScope;
constexpr MeasureRow kMeasures[] = {
    {"max_ulp", S::got, "ulp", "largest |got - exact| / ulp(exact)", [](M m, bool z) { return figures(m, z).max; }},
    {"mean_ulp", S::got, "ulp", "mean of the same", [](M m, bool z) { return figures(m, z).mean_abs; }},
    {"rms_ulp", S::got, "ulp", "root of the mean square of the same", [](M m, bool z) { return figures(m, z).rms; }},
    {"bias_ulp", S::got, "ulp", "magnitude of the signed mean",
     [](M m, bool z) { return std::fabs(figures(m, z).bias); }},
    {"p50_ulp", S::got, "ulp", "median", [](M m, bool z) { return figures(m, z).quantiles[0]; }},
    {"p90_ulp", S::got, "ulp", "nine in ten are at most this", [](M m, bool z) { return figures(m, z).quantiles[1]; }},
    {"p99_ulp", S::got, "ulp", "99 in 100 are at most this", [](M m, bool z) { return figures(m, z).quantiles[2]; }},
    {"p999_ulp", S::got, "ulp", "999 in 1000 are at most this", [](M m, bool z) { return figures(m, z).quantiles[3]; }},
    {"max_condition_ulp", S::got, "ulp of the terms", "largest |got - exact| / ulp(|q| + |b|)",
     [](M m, bool z) { return figures(m, z).condition_max; }},
    {"mean_condition_ulp", S::got, "ulp of the terms", "mean of the same",
     [](M m, bool z) { return figures(m, z).condition_mean_abs; }},
    {"incorrect", S::got, "elements", "not correctly rounded", [](M m, bool z) { return number(incorrect(m, z)); }},
    {"incorrect_share", S::got, "share", "not correctly rounded, of those compared",
     [](M m, bool z) { return share(incorrect(m, z), m.counts.compared); }},
    {"unfaithful", S::got, "elements", "not one of the two neighbours of the exact value",
     [](M m, bool z) { return number(unfaithful(m, z)); }},
    {"unfaithful_share", S::got, "share", "the same, of those compared",
     [](M m, bool z) { return share(unfaithful(m, z), m.counts.compared); }},
    {"relative_l2", S::got, "ratio", "|got - exact| / |exact|, 2-norms",
     [](M m, bool z) { return figures(m, z).relative_l2; }},
    {"angle", S::got, "radians", "between got and exact", [](M m, bool z) { return figures(m, z).angle; }},
    {"nan_unexpected", S::got, "elements", "NaN for a number",
     [](M m, bool z) { return z ? 0 : number(m.counts.nan_unexpected); }},
    {"nan_missing", S::got, "elements", "a number for NaN",
     [](M m, bool z) { return number(z ? m.counts.nan_expected : m.counts.nan_missing); }},
    {"inf_unexpected", S::got, "elements", "Inf for a finite value in range",
     [](M m, bool z) { return z ? 0 : number(m.counts.inf_unexpected); }},
    {"inf_missing", S::got, "elements", "something else for Inf",
     [](M m, bool z) { return number(z ? m.counts.inf_expected : m.counts.inf_missing); }},
    {"underflow", S::got, "elements", "zero for a nonzero value",
     [](M m, bool z) { return number(z ? m.counts.compared : m.counts.underflow); }},
    {"subnormal", S::got, "elements", "subnormal results",
     [](M m, bool z) { return z ? 0 : number(m.counts.subnormal); }},
    {"overflow", S::path, "elements", "exact values beyond the format's range",
     [](M m, bool) { return number(m.counts.overflow); }},
    {"undecided", S::path, "elements", "roundings that the truth could not decide",
     [](M m, bool) { return number(m.counts.undecided); }},
    {"beyond_scale", S::got, "elements", "errors of 2^32 ulp and more",
     [](M m, bool z) { return z ? 0 : number(m.counts.beyond_scale); }},
    {"differing", S::conformance, "elements", "bits other than the ideal's", differing},
    {"differing_share", S::conformance, "share", "the same, of all elements",
     [](M m, bool z) { return m.elements == 0 ? kNan : differing(m, z) / number(m.elements); }},
    {"definition_bias", S::path, "ulp", "|mean| of what another definition costs",
     [](M m, bool) { return bias(m.definition); }},
    {"definition_max", S::path, "ulp", "largest of the same", [](M m, bool) { return largest(m.definition); }},
    {"definition_rms", S::path, "ulp", "root mean square of the same", [](M m, bool) { return rms(m.definition); }},
    {"path_bias", S::path, "ulp", "|mean| of what the casts cost", [](M m, bool) { return bias(m.path); }},
    {"path_max", S::path, "ulp", "largest of the same", [](M m, bool) { return largest(m.path); }},
    {"path_rms", S::path, "ulp", "root mean square of the same", [](M m, bool) { return rms(m.path); }},
    {"implementation_bias", S::conformance, "ulp", "|mean| of got against the ideal",
     [](M m, bool z) { return implementation(m, z, bias); }},
    {"implementation_max", S::conformance, "ulp", "largest of the same",
     [](M m, bool z) { return implementation(m, z, largest); }},
    {"implementation_rms", S::conformance, "ulp", "root mean square of the same",
     [](M m, bool z) { return implementation(m, z, rms); }},
};

std::string known_names() {
  std::string names;
  for (const MeasureRow& row : kMeasures) names += fmt::format("{}{}", names.empty() ? "" : " ", row.name);
  return names;
}

/// 0.50999999 as "0.50999999", NaN as "nan"; shortest that reads back.
std::string figure(double value) { return fmt::format("{}", value); }

const NamedMeasures& output_of(std::span<const NamedMeasures> outputs, const Criterion& criterion) {
  if (criterion.output.empty() && !outputs.empty()) return outputs.front();
  std::string known;
  for (const NamedMeasures& output : outputs) {
    if (output.name == criterion.output) return output;
    known += fmt::format("{}{}", known.empty() ? "" : " ", output.name);
  }
  throw CriterionError(fmt::format("criterion '{}' names the output '{}', but the outputs are: {}", criterion.text,
                                   criterion.output, known.empty() ? "none" : known));
}

/// Why the non-finite values of this output are wrong; empty: they are not.
std::string wrong_specials(const NamedMeasures& output, bool only_conformance) {
  const Counts& c = output.measures.counts;
  const std::int64_t unexpected = c.nan_unexpected + c.inf_unexpected;
  if (only_conformance && output.measures.conformance) {
    const std::int64_t own = unexpected - output.measures.unexpected_in_ideal;
    return own == 0 ? "" : fmt::format("{}: {} NaN or Inf that neither truth nor ideal has", output.name, own);
  }
  std::string reason;
  const auto say = [&](std::int64_t count, std::string_view what) {
    if (count != 0) reason += fmt::format("{}{} {}", reason.empty() ? "" : ", ", count, what);
  };
  say(c.nan_unexpected, "unexpected NaN");
  say(c.inf_unexpected, "unexpected Inf");
  say(c.nan_missing, "missing NaN");
  say(c.inf_missing, "missing Inf");
  return reason.empty() ? "" : fmt::format("{}: {}", output.name, reason);
}

/// Why criteria on this output could not have failed; empty: they could.
std::string vacuity(const NamedMeasures& output, std::span<const Criterion> criteria, bool only_conformance) {
  const Measures& m = output.measures;
  if (only_conformance) {
    if (m.elements == 0) return fmt::format("{}: no element compared", output.name);
    if (2 * m.ideal_nonfinite > m.elements) {
      return fmt::format("{}: {} of {} elements of the ideal are NaN or Inf", output.name, m.ideal_nonfinite,
                         m.elements);
    }
  } else {
    if (m.counts.compared == 0) return fmt::format("{}: no element compared", output.name);
    const std::int64_t nonfinite = m.counts.nan_expected + m.counts.inf_expected + m.counts.overflow;
    if (2 * nonfinite > m.elements) {
      return fmt::format("{}: {} of {} elements of the truth are NaN, Inf or beyond the range", output.name, nonfinite,
                         m.elements);
    }
  }
  if (!only_conformance && m.counts.unknown != 0)
    return fmt::format("{}: the truth of {} of {} elements is not known", output.name, m.counts.unknown, m.elements);
  bool depends_on_got = false;
  for (const Criterion& criterion : criteria) {
    if (criterion.measure->scope != MeasureScope::path) depends_on_got = true;
    if (!holds(criterion, criterion.measure->value(m, true))) return "";
  }
  if (!depends_on_got || m.counts.nan_expected + m.counts.inf_expected > 0) return "";
  if (m.zeros.max == 0) return fmt::format("{}: the truth is zero everywhere", output.name);
  return fmt::format("{}: an all-zero output would pass too", output.name);
}

}  // namespace

std::span<const MeasureRow> all_measures() { return kMeasures; }

const MeasureRow* find_measure(std::string_view name) {
  const auto found = std::find_if(std::begin(kMeasures), std::end(kMeasures),
                                  [name](const MeasureRow& row) { return row.name == name; });
  return found == std::end(kMeasures) ? nullptr : found;
}

Criterion parse_criterion(std::string_view text) {
  Criterion criterion;
  for (const char c : text) {
    if (c != ' ' && c != '\t') criterion.text += c;
  }
  const std::string_view compact = criterion.text;
  const std::size_t at = compact.find_first_of("<>=");
  if (at == std::string_view::npos) {
    throw CriterionError(
        fmt::format("criterion '{}' has no relation; wanted: MEASURE<=NUMBER, with < <= > >= or ==", text));
  }
  const std::size_t past = compact.find_first_not_of("<>=", at);
  const std::string_view relation = compact.substr(at, past == std::string_view::npos ? past : past - at);
  if (relation == "<") {
    criterion.relation = Relation::less;
  } else if (relation == "<=") {
    criterion.relation = Relation::less_equal;
  } else if (relation == ">") {
    criterion.relation = Relation::greater;
  } else if (relation == ">=") {
    criterion.relation = Relation::greater_equal;
  } else if (relation == "==") {
    criterion.relation = Relation::equal;
  } else {
    throw CriterionError(
        fmt::format("criterion '{}' has the unknown relation '{}'; known: < <= > >= ==", text, relation));
  }
  std::string_view name = compact.substr(0, at);
  if (const std::size_t dot = name.rfind('.'); dot != std::string_view::npos) {
    criterion.output = name.substr(0, dot);
    name = name.substr(dot + 1);
  }
  criterion.measure = find_measure(name);
  if (criterion.measure == nullptr) {
    throw CriterionError(
        fmt::format("criterion '{}' names the unknown measure '{}'; known: {}", text, name, known_names()));
  }
  const std::string_view digits = past == std::string_view::npos ? std::string_view{} : compact.substr(past);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), criterion.bound);
  if (error != std::errc{} || end != digits.data() + digits.size() || !std::isfinite(criterion.bound)) {
    throw CriterionError(fmt::format("criterion '{}' has the bound '{}', which is not a finite number", text, digits));
  }
  return criterion;
}

bool holds(const Criterion& criterion, double value) {
  switch (criterion.relation) {
    case Relation::less: return value < criterion.bound;
    case Relation::less_equal: return value <= criterion.bound;
    case Relation::greater: return value > criterion.bound;
    case Relation::greater_equal: return value >= criterion.bound;
    case Relation::equal: return value == criterion.bound;
  }
  return false;
}

std::string_view name_of(VerdictKind kind) {
  switch (kind) {
    case VerdictKind::pass: return "pass";
    case VerdictKind::fail: return "fail";
    case VerdictKind::skip: return "skip";
    case VerdictKind::vacuous: return "vacuous";
    case VerdictKind::crashed: return "crashed";
  }
  return "";
}

Verdict judge(std::span<const NamedMeasures> outputs, std::span<const Criterion> criteria) {
  Verdict verdict;
  if (criteria.empty()) return {.kind = VerdictKind::skip, .reason = "no criterion", .criteria = {}};

  std::string failed, empty;
  for (const Criterion& criterion : criteria) {
    const NamedMeasures& output = output_of(outputs, criterion);
    const double value = criterion.measure->value(output.measures, false);
    const bool held = holds(criterion, value);
    verdict.criteria.push_back({.text = criterion.text, .held = held, .measured = value});
    if (held) continue;
    // Without a compared element there is no figure to fail by: the check was empty.
    const bool nothing =
        std::isnan(value) && output.measures.counts.compared == 0 && criterion.measure->scope == MeasureScope::got;
    std::string& reason = nothing ? empty : failed;
    reason += fmt::format("{}{} is {}, wanted {}", reason.empty() ? "" : "; ", criterion.measure->name,
                          std::isnan(value) ? "not there" : figure(value), criterion.text);
  }
  const bool only_conformance = std::all_of(criteria.begin(), criteria.end(), [](const Criterion& c) {
    return c.measure->scope == MeasureScope::conformance;
  });
  for (const NamedMeasures& output : outputs) {
    if (const std::string reason = wrong_specials(output, only_conformance); !reason.empty()) {
      failed += fmt::format("{}{}", failed.empty() ? "" : "; ", reason);
    }
  }
  if (!failed.empty()) {
    verdict.kind = VerdictKind::fail;
    verdict.reason = failed;
    return verdict;
  }
  for (const NamedMeasures& output : outputs) {
    std::vector<Criterion> own;
    for (const Criterion& criterion : criteria) {
      if (&output_of(outputs, criterion) == &output) own.push_back(criterion);
    }
    if (own.empty()) continue;
    if (const std::string reason = vacuity(output, own, only_conformance); !reason.empty()) {
      verdict.kind = VerdictKind::vacuous;
      verdict.reason = reason;
      return verdict;
    }
  }
  if (!empty.empty()) {
    verdict.kind = VerdictKind::fail;
    verdict.reason = empty;
  }
  return verdict;
}

}  // namespace norma
