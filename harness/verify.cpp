// One call that judges an output: truth, ideal, measures, verdict, and the words for it.
#include "harness/verify.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <ostream>
#include <stdexcept>

#include "harness/cases/number.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/judge/criteria.hpp"
#include "harness/metrics/measures.hpp"
#include "harness/run/contract.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/decide.hpp"
#include "reference/norms/norm.hpp"

namespace norma {

namespace {

template <class Rows>
std::string known(const Rows& rows) {
  std::string text;
  for (const auto* row : rows) text += (text.empty() ? "" : " ") + std::string(row->name);
  return text;
}

const NormDef& norm_named(const std::string& name) {
  const NormDef* norm = find_norm(name);
  if (norm == nullptr)
    throw std::invalid_argument(fmt::format("unknown norm '{}'; known: {}", name, known(all_norms())));
  return *norm;
}

const CastPath* path_named(const std::string& name, const NormDef& norm) {
  if (name.empty()) return nullptr;
  const CastPath* path = find_cast_path(name);
  if (path == nullptr)
    throw std::invalid_argument(fmt::format("unknown path '{}'; 'norma list paths' names them", name));
  if (path->norm != norm.name)
    throw std::invalid_argument(fmt::format("path '{}' is of {}, not of {}", name, path->norm, norm.name));
  return path;
}

/// What the caller set, then the path's own values, then the norm's.
NormCall norm_call(const NormDef& norm, const CastPath* path, const VerifyCall& call) {
  std::map<std::string, std::string> set = call.set;
  if (call.eps) set["eps"] = print_number(*call.eps);
  if (path != nullptr) {
    set.try_emplace("eps", path->eps_default);
    for (const CaseDefault& own : path->norm_attributes) set.try_emplace(std::string(own.key), own.value);
  }
  NormCall result{.inputs = &call.inputs, .numbers = {}, .words = {}};
  for (const NormAttribute& attribute : norm.attributes) {
    const std::string name(attribute.name);
    const std::string value = set.try_emplace(name, attribute.fallback).first->second;
    set.erase(name);
    if (!attribute.choices.empty()) {
      result.words[name] = value;
    } else if (const auto number = parse_number(value)) {
      result.numbers[name] = *number;
    } else {
      throw std::invalid_argument(fmt::format("{}='{}' is not a number", name, value));
    }
  }
  if (!set.empty()) {
    std::string names;
    for (const NormAttribute& attribute : norm.attributes)
      names += (names.empty() ? "" : " ") + std::string(attribute.name);
    throw std::invalid_argument(
        fmt::format("{} has no attribute '{}'; known: {}", norm.name, set.begin()->first, names));
  }
  norm.check(result);
  return result;
}

Contract contract_of(const CastPath& path, const NormCall& norm, const VerifyCall& call) {
  Binding binding{.x = call.inputs.at("x").format,
                  .formats = {},
                  .attributes = norm.numbers,
                  .cols = call.inputs.at("x").cols(),
                  .profile = call.profile,
                  .shape = call.inputs.at("x").shape};
  for (const auto& [name, tensor] : call.inputs)
    if (name != "x") binding.formats.emplace(name, tensor.format);
  return contract_from_catalogue(path.name, binding);
}

/// What a failure text quotes of one output.
struct Judged {
  std::string name;
  const Tensor* got = nullptr;
  std::shared_ptr<const TruthSource> truth;
  const Tensor* ideal = nullptr;
};

std::shared_ptr<const TruthSource> truth_of(const NormDef& norm, const NormCall& call, const std::string& output) {
  const bool known = output == "dequantized" || std::ranges::find(norm.outputs, output) != norm.outputs.end();
  if (!known) {
    std::string names;
    for (const std::string_view name : norm.outputs) names += (names.empty() ? "" : " ") + std::string(name);
    throw std::invalid_argument(fmt::format("{} has no output '{}'; known: {}", norm.name, output, names));
  }
  std::shared_ptr<const TruthSource> truth = truth_of(norm, call, output, TruthKind::fast);
  if (truth == nullptr)
    throw std::invalid_argument(fmt::format("this call of {} has no output '{}'", norm.name, output));
  return truth;
}

std::string place_text(const Judged& judged, const Place& at) {
  return judged.truth->cols() == 1 && judged.got->rows() != judged.truth->rows()
             ? fmt::format("{}[{}]", judged.name, at.row)
             : fmt::format("{}[{}, {}]", judged.name, at.row, at.col);
}

std::string value_text(FormatId format, std::uint64_t code) {
  const double value = decode(format, code);
  return fmt::format("{}  {:a}  {}", hex_code(format, code), value, print_number(value));
}

/// "0x1.8p+0 + 0x1p-60": the midpoint of a truth.
std::string exact_text(double hi, double lo) {
  if (!std::isfinite(hi) || lo == 0) return fmt::format("{:a}  {}", hi, print_number(hi));
  return fmt::format("{:a} {} {:a}  {}", hi, lo < 0 ? "-" : "+", std::fabs(lo), print_number(hi));
}

/// The element to look at: where the bits first leave the ideal if that is what failed, else the worst one.
Place place_of(const Measures& m, bool conformance_failed) {
  if (conformance_failed && m.conformance && m.conformance->first_difference.row >= 0)
    return m.conformance->first_difference;
  if (!m.worst.empty()) return m.worst.front().at;
  return m.ulp.max_at;
}

/// got, want, exact, error: one fact a line.
std::string element_text(const Judged& judged, Overflow overflow, const Place& at) {
  if (at.row < 0 || judged.name == "dequantized") return {};  // of codes times a scale only the bounds are told
  const FormatId format = judged.got->format;
  const std::int64_t i = at.row * judged.truth->cols() + at.col;
  const Enclosure enclosure = judged.truth->enclose(at.row, at.col);
  const Element y{*judged.truth, at.row, at.col, enclosure};
  const std::uint64_t got = judged.got->code(i);
  std::string text = fmt::format("  at      {}\n  got     {}\n", place_text(judged, at), value_text(format, got));
  if (judged.ideal != nullptr)
    text += fmt::format("  want    {}  (the path's ideal)\n", value_text(format, judged.ideal->code(i)));
  if (const auto rounded = round_to(y, format, overflow))
    text += fmt::format("  {}    {}  (correctly rounded)\n", judged.ideal == nullptr ? "want" : "best",
                        value_text(format, *rounded));
  text += fmt::format("  exact   {}\n", exact_text(enclosure.hi, enclosure.lo));
  const double value = decode(format, got);
  if (std::isfinite(value) && std::isfinite(enclosure.hi)) {
    const ScaledError error = scaled_error(y, value, format);
    text += fmt::format("  error   {:.3g} ulp of {}{}", ulps(error.value), name_of(format),
                        error.decided ? "" : " (undecided)");
    const auto exponent = binade(y, format);
    const double ideal = judged.ideal == nullptr ? std::nan("") : decode(format, judged.ideal->code(i));
    if (exponent && std::isfinite(ideal)) {
      const std::int64_t own = scaled_difference(value, Enclosure{.hi = ideal}, ulp_of(format, *exponent));
      text += fmt::format(": {:.3g} by the path, {:.3g} by the implementation", ulps(error.value - own), ulps(own));
    }
    text += "\n";
  }
  return text;
}

std::string shell_word(const std::string& word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::strchr("_-./=,+:", c) != nullptr;
  });
  return plain ? word : "'" + word + "'";
}

/// Writes the tensors if there is a folder for them. The command that repeats this check.
std::string repro_text(const NormDef& norm, const VerifyCall& call, const std::vector<std::string>& limits) {
  std::string folder = call.keep;
  if (const char* variable = std::getenv("NORMA_KEEP"); folder.empty() && variable != nullptr) folder = variable;
  std::string in = "FILE", got, first;
  if (folder.empty()) {
    first = "(with NORMA_KEEP=FOLDER in the environment the tensors are kept there)\n          ";
  } else {
    std::filesystem::create_directories(folder);
    const std::string stem = (std::filesystem::path(folder) /
                              fmt::format("{}-{}", norm.name, content_hash(call.inputs.at("x")).substr(0, 12)))
                                 .string();
    write_safetensors(stem + ".in.safetensors", call.inputs);
    write_safetensors(stem + ".out.safetensors", call.outputs);
    in = stem + ".in.safetensors";
    got = " --got " + shell_word(stem + ".out.safetensors");
  }
  std::string text = fmt::format("{}norma check {} --in {}{}", first, norm.name, shell_word(in), got);
  if (call.eps) text += " --set eps=" + print_number(*call.eps);
  for (const auto& [name, value] : call.set) text += " --set " + shell_word(name + "=" + value);
  if (!call.path.empty()) text += " --path " + shell_word(call.path);
  if (!call.profile.empty()) text += " --set profile=" + shell_word(call.profile);
  for (const std::string& limit : limits) text += " --limit " + shell_word(limit);
  return text;
}

Verification judge_call(const NormDef& norm, const VerifyCall& call) {
  if (call.limits.empty() && call.path.empty())
    throw std::invalid_argument("a check needs a criterion: limits such as 'max_ulp<=1', or a path");
  if (!call.inputs.contains("x")) throw std::invalid_argument("there is no input 'x'");
  const std::string first(norm.outputs.front());
  if (!call.outputs.contains(first)) throw std::invalid_argument(fmt::format("there is no output '{}'", first));
  const std::vector<std::string> limits = call.limits.empty() ? std::vector<std::string>{"differing<=0"} : call.limits;
  std::vector<Criterion> criteria;
  for (const std::string& limit : limits) criteria.push_back(parse_criterion(limit));

  const CastPath* path = path_named(call.path, norm);
  const NormCall attributes = norm_call(norm, path, call);
  std::optional<Contract> contract;
  std::vector<Tensors> ideals;
  if (path != nullptr) {
    contract = contract_of(*path, attributes, call);
    ideals = ideals_of(*contract, call.inputs, attributes.numbers, call.threads);
  }
  std::map<std::string, std::shared_ptr<const TruthSource>> truths;
  const auto truth = [&](const std::string& output) {
    auto& held = truths[output];
    if (held == nullptr) held = truth_of(norm, attributes, output);
    return held;
  };
  const auto erasure = [&](const std::string& output) -> std::shared_ptr<const TruthSource> {
    return certified_program_truth(contract->program, call.inputs, attributes.numbers, output);
  };
  const std::vector<NamedMeasures> measures =
      measure_outputs({.canonical = truth, .erasure = erasure}, attributes, contract, ideals, call.outputs,
                      {.overflow = call.overflow, .got_is_ideal = false, .threads = call.threads});
  std::vector<Judged> judged;
  for (const NamedMeasures& output : measures) {
    const std::string tensor = output.name == "dequantized" ? "y" : output.name;
    const bool has_ideal = !ideals.empty() && ideals.front().contains(tensor);
    judged.push_back({.name = output.name,
                      .got = &call.outputs.at(tensor),
                      .truth = truth(output.name),
                      .ideal = has_ideal ? &ideals.front().at(tensor) : nullptr});
  }
  const Verdict verdict = judge(measures, criteria);

  Verification result{.passed = verdict.kind == VerdictKind::pass,
                      .verdict = std::string(name_of(verdict.kind)),
                      .text = {},
                      .measures = {}};
  for (std::size_t o = 0; o < measures.size(); ++o)
    for (const MeasureRow& row : all_measures())
      result.measures[(o == 0 ? "" : measures[o].name + ".") + std::string(row.name)] =
          row.value(measures[o].measures, false);

  const Tensor& x = call.inputs.at("x");
  result.text = fmt::format("norma: {}  {} {} {}{}\n", result.verdict, norm.name, name_of(x.format),
                            shape_text(x.shape), call.path.empty() ? "" : "  path=" + call.path);
  if (!verdict.reason.empty()) result.text += "  why     " + verdict.reason + "\n";
  if (result.passed) {
    const Measures& m = measures.front().measures;
    result.text += fmt::format("  error   {:.3g} ulp at most, {:.3g} on average, over {} elements\n", m.ulp.max,
                               m.ulp.mean_abs, m.counts.compared);
    return result;
  }
  for (std::size_t o = 0; o < judged.size(); ++o) {
    bool failed = false, conformance_failed = false;
    for (std::size_t c = 0; c < criteria.size() && c < verdict.criteria.size(); ++c) {
      const bool mine = criteria[c].output == judged[o].name || (criteria[c].output.empty() && o == 0);
      if (!mine || verdict.criteria[c].held) continue;
      failed = true;
      if (criteria[c].measure->scope == MeasureScope::conformance) conformance_failed = true;
    }
    const Measures& m = measures[o].measures;
    if (!failed && m.counts.nan_unexpected + m.counts.inf_unexpected + m.counts.nan_missing + m.counts.inf_missing == 0)
      continue;
    result.text += element_text(judged[o], call.overflow, place_of(m, conformance_failed));
    result.text += fmt::format("  count   {} of {} elements are not correctly rounded",
                               m.counts.compared - m.ulp.correct, m.counts.compared);
    if (m.conformance)
      result.text +=
          fmt::format(", {} of {} differ from the ideal", m.conformance->of - m.conformance->equal, m.conformance->of);
    result.text += "\n";
  }
  for (const HeldCriterion& criterion : verdict.criteria)
    result.text += fmt::format("  bound   {}  {} ({})\n", criterion.text, criterion.held ? "holds" : "does not hold",
                               print_number(criterion.measured));
  result.text += "  repro   " + repro_text(norm, call, call.limits) + "\n";
  return result;
}

}  // namespace

Tensor view(FormatId format, Shape shape, const void* data) {
  Tensor tensor = Tensor::zeros(format, std::move(shape));
  if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), data, tensor.bytes.size());
  return tensor;
}

std::ostream& operator<<(std::ostream& stream, const Verification& verification) { return stream << verification.text; }

Verification verify(const std::string& norm, const VerifyCall& call) {
  const NormDef& definition = norm_named(norm);
  try {
    return judge_call(definition, call);
  } catch (const NormError& e) {
    throw std::invalid_argument(e.what());
  } catch (const ProgramError& e) {
    throw std::invalid_argument(e.what());
  } catch (const CriterionError& e) {
    throw std::invalid_argument(e.what());
  }
}

}  // namespace norma
