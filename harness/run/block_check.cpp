// Block -> tensors -> balls, bits, output -> measures and trace -> verdict.
#include "harness/run/block_check.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <thread>

#include "harness/cases/block_graphs.hpp"
#include "harness/inputs/block_inputs.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/judge/sites.hpp"
#include "harness/trace/trace_json.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/emulate/graph.hpp"
#include "reference/blocks/block.hpp"

namespace norma {

namespace {

/// Products below this many terms are taken as closely as double-double allows, larger ones in two slices.
constexpr double kCloseTerms = 0x1p31;

double terms_of(const Graph& graph) {
  double terms = 0;
  for (const Site& site : graph.sites) {
    if (!std::holds_alternative<LinearSite>(site.what) && !std::holds_alternative<ConvolutionSite>(site.what)) continue;
    const Shape& weight = graph.find(site.find("weight")->value)->shape;
    terms += static_cast<double>(element_count(site.results[0].shape)) *
             static_cast<double>(element_count(weight) / weight.front());
  }
  return terms;
}

/// A large block has all threads, small ones run beside each other.
RealOptions real_options(const Graph& graph) {
  const bool large = terms_of(graph) >= kCloseTerms;
  return {.slices = large ? kQuickSlices : kCloseSlices,
          .threads = large ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency())) : 1};
}

/// An error in ulp is told to a part in 2^9 at least, in formats of up to 11 bits; what a wider ball holds is not known.
constexpr double kToldRadius = 0x1p-20;

/// Balls as a truth. What they leave open stays undecided.
class BallTruth final : public TruthSource {
 public:
  explicit BallTruth(RealTensor values) : values_(std::move(values)) {}
  std::int64_t rows() const override { return cols() == 0 ? 0 : values_.size() / cols(); }
  std::int64_t cols() const override { return values_.shape.empty() ? 1 : values_.shape.back(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::size_t j = 0; j < out.size(); ++j) {
      const Ball b = values_.at(row * cols() + static_cast<std::int64_t>(j));
      const double radius = b.r <= kToldRadius * std::fabs(b.h) ? b.r : std::numeric_limits<double>::infinity();
      out[j] = {.hi = b.h, .lo = b.l, .radius = radius, .magnitude = std::fabs(b.h), .tier = Tier::double_double};
    }
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Ball b = values_.at(row * cols() + col);
    const Ball d = ball::sub(b, ball::add({m_hi, 0, 0}, {m_lo, 0, 0}));
    if (d.r == 0 && d.h == 0) return Comparison::equal;
    if (!(std::fabs(d.h) * (1 - 0x1p-50) > d.r)) return Comparison::undecided;
    return d.h < 0 ? Comparison::less : Comparison::greater;
  }
  Tier compare_tier() const override { return Tier::double_double; }

 private:
  RealTensor values_;
};

const BlockPath& path_of(const std::string& name, const Case& expanded) {
  const BlockPath* path = find_block_path(name);
  if (path == nullptr) throw ProgramError(fmt::format("unknown block path '{}'; 'norma list blocks' prints the known ones", name));
  if (path->block != expanded.norm)
    throw ProgramError(fmt::format("{} is a path of {}, not of {}", name, path->block, expanded.norm));
  return *path;
}

Tensors outputs_only(const Graph& graph, Tensors values) {
  std::erase_if(values, [&](const auto& value) { return std::ranges::find(graph.outputs, value.first) == graph.outputs.end(); });
  return values;
}

Tensors emulated(const Graph& graph, const Tensors& tensors) {
  check_inputs(graph, tensors, true);
  const EmulateOptions options{.nudge_ulp = 0, .threads = real_options(graph).threads};
  return outputs_only(graph, emulate_graph(graph, tensors, options, [](const std::string&) { return false; }));
}

ImplCall call_of(const Case& expanded, const Tensors& tensors) {
  CaseAttributes attributes = attributes_of(expanded);
  return {.norm = expanded.norm, .inputs = &tensors, .numbers = std::move(attributes.numbers),
          .words = std::move(attributes.words), .path = std::string(expanded.get("path")),
          .profile = std::string(expanded.get("profile"))};
}

/// Limits on outputs as judge() holds them, those on sites by the trace.
Verdict judge_block(const Record& record, std::span<const Criterion> limits) {
  std::vector<Criterion> of_outputs;
  std::ranges::remove_copy_if(limits, std::back_inserter(of_outputs), is_of_sites);
  if (of_outputs.size() == limits.size()) return judge(record.outputs, limits);
  Verdict verdict;
  if (!of_outputs.empty()) verdict = judge(record.outputs, of_outputs);
  const nlohmann::json trace(record.trace);
  for (const Criterion& limit : limits) {
    if (!is_of_sites(limit)) continue;
    const SiteFinding sites = over_sites(trace, limit);
    verdict.criteria.push_back({.text = limit.text, .held = sites.first.empty(), .measured = sites.largest});
    if (sites.first.empty()) continue;
    verdict.kind = VerdictKind::fail;
    verdict.reason.append(verdict.reason.empty() ? "" : "; ").append(text_of(sites, limit));
  }
  return verdict;
}

/// Where NaN and Inf of a failing output began.
void tell_origin(Verdict& verdict, const BlockTrace& trace) {
  if (verdict.kind != VerdictKind::fail || verdict.reason.find("unexpected") == std::string::npos) return;
  if (const SiteTrace* origin = first_special(trace))
    verdict.reason += fmt::format("; the first site with any is {}: {} NaN, {} Inf, {} clipped of {}", origin->name, origin->nan,
                                  origin->infinite, origin->clipped, origin->elements);
}

std::vector<BlockTruth> truths_of(const Graph& graph, const RealTensors& values) {
  std::vector<BlockTruth> truths;
  for (const std::string& output : graph.outputs) {
    const RealTensor& value = values.at(output);
    truths.push_back({output, value.shape, std::make_unique<BallTruth>(value)});
  }
  return truths;
}

}  // namespace

std::vector<BlockTruth> block_truths(const Case& expanded, const Tensors& tensors) {
  const Graph graph = canonical_graph(expanded);
  return truths_of(graph, evaluate_graph(graph, tensors, real_options(graph), [](const std::string&) { return false; }));
}

Tensors block_made_by(Session& session, const Case& expanded, const std::string& impl) {
  const auto inputs = session.inputs(expanded);
  // A file may have more than the outputs: what was stored at the sites.
  if (impl.starts_with("file:")) return read_safetensors(parse_file_input(impl, "y").path).tensors;
  const auto implementation = session.implementation(impl);
  if (implementation == nullptr) return emulated(path_graph(expanded, path_of(impl.substr(5), expanded)), inputs->tensors);
  if (!implementation->accepts_norm(expanded.norm))
    throw ImplSkipped(fmt::format("{} does not compute {}", impl, expanded.norm));
  return implementation->run(call_of(expanded, inputs->tensors));
}

Record check_block(Session& session, const CheckJob& job) {
  Record record;
  record.ordinal = job.ordinal;
  record.case_line = print_case(job.value);
  record.impl = job.impl;
  record.path = std::string(job.value.get("path"));
  record.repro = repro_line(job);
  const auto end = [&](VerdictKind kind, const std::string& reason) {
    record.verdict = {.kind = kind, .reason = reason, .criteria = {}};
    return record;
  };
  const auto inputs = session.inputs(job.value);
  record.inputs_hash = inputs->hash;
  if (record.path.empty() && job.impl.starts_with("path:")) record.path = job.impl.substr(5);
  const bool is_ideal = job.impl == "path:" + record.path;
  std::optional<Graph> path;
  Tensors ideal, got;
  BlockTrace trace;
  std::vector<BlockTruth> truths;
  try {
    if (!record.path.empty()) path = path_graph(job.value, path_of(record.path, job.value));
    const Graph canonical = canonical_graph(job.value);
    const RealTensors values =
        evaluate_graph(canonical, inputs->tensors, real_options(canonical), [](const std::string&) { return false; });
    truths = truths_of(canonical, values);
    if (!is_ideal) got = block_made_by(session, job.value, job.impl);
    if (path) {
      // An implementation's outputs stand in the trace, too; its other sites are the path's.
      const std::vector<Stream> streams = streams_of(*find_block(job.value.norm));
      trace = trace_block(*path, inputs->tensors,
                          {.real = real_options(*path), .streams = streams, .blocks = block_count(job.value),
                           .recorded = is_ideal ? nullptr : &got});
      if (!trace.meant.empty()) trace.definition_gap = definition_gap(canonical, values, *path, trace.meant);
      ideal = is_ideal ? trace.outputs : emulated(*path, inputs->tensors);
      if (is_ideal) got = trace.outputs;
      record.trace = to_json(trace);
    }
  } catch (const ProgramError& e) {
    return end(VerdictKind::skip, e.what());
  } catch (const ImplSkipped& e) {
    return end(VerdictKind::skip, e.what());
  } catch (const ImplCrashed& e) {
    return end(VerdictKind::crashed, e.what());
  }
  std::erase_if(got, [&](const auto& value) {
    return std::ranges::find(truths, value.first, &BlockTruth::output) == truths.end();
  });
  record.outputs_hash = hash_of(got);
  for (const BlockTruth& truth : truths) {
    const auto found = got.find(truth.output);
    if (found == got.end() || found->second.shape != truth.shape)
      return end(VerdictKind::crashed, fmt::format("wrote no {} of shape {}", truth.output, shape_text(truth.shape)));
    const auto bits = ideal.find(truth.output);
    if (bits != ideal.end() && bits->second.format != found->second.format)
      return end(VerdictKind::fail, fmt::format("{} is {}, but {} gives {} here", truth.output, name_of(found->second.format),
                                                record.path, name_of(bits->second.format)));
    std::vector<Tensor> ideals;
    if (bits != ideal.end()) ideals.push_back(bits->second);
    std::optional<BallTruth> meant;
    if (const auto own = trace.meant.find(truth.output); own != trace.meant.end()) meant.emplace(own->second);
    record.outputs.push_back({truth.output, measure(*truth.truth, meant ? &*meant : nullptr, ideals, found->second, Overflow::ieee,
                                                    {.threads = 1, .choice_ulp = 0, .got_is_ideal = is_ideal})});
  }
  record.verdict = judge_block(record, job.limits);
  tell_origin(record.verdict, trace);
  return record;
}

}  // namespace norma
