// norma eval: the truth, or an implementation's outputs, for somebody else's test.
#include <fmt/core.h>

#include <cmath>

#include "cli/commands.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/metrics/watched.hpp"
#include "harness/run/block_check.hpp"
#include "reference/blocks/block.hpp"
#include "reference/exact/decide.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::string what, out, round_to, overflow = "ieee", truth;
  TensorOptions tensors;
  bool json = false;
};

/// Binary64 numbers below and above everything in the enclosure. hi + (lo +- radius) is rounded to nearest twice;
/// one step outwards after each covers both roundings. A point that binary64 holds stays a point.
std::pair<double, double> bounds(const Enclosure& e) {
  if (!std::isfinite(e.hi) || (e.radius == 0 && e.lo == 0)) return {e.hi, e.hi};
  const double low_rest = std::nextafter(e.lo - e.radius, -HUGE_VAL);
  const double high_rest = std::nextafter(e.lo + e.radius, HUGE_VAL);
  return {std::nextafter(e.hi + low_rest, -HUGE_VAL), std::nextafter(e.hi + high_rest, HUGE_VAL)};
}

/// How many elements each tier settled: as enclosures, or as rounded where that was asked for.
TierCounts add_truth(Tensors& outputs, const TruthSource& truth, const Shape& shape, const std::string& prefix,
                     std::optional<FormatId> rounded, Overflow overflow) {
  TierCounts tiers;
  Tensor lo = Tensor::zeros(FormatId::fp64, shape);
  Tensor hi = lo;
  std::optional<Tensor> nearest;
  if (rounded) nearest = Tensor::zeros(*rounded, shape);
  std::vector<Enclosure> row(static_cast<std::size_t>(truth.cols()));
  for (std::int64_t r = 0; r < truth.rows(); ++r) {
    truth.enclose_row(r, row);
    for (std::int64_t c = 0; c < truth.cols(); ++c) {
      const Enclosure& e = row[static_cast<std::size_t>(c)];
      const std::int64_t at = r * truth.cols() + c;
      const auto [low, high] = bounds(e);
      lo.set_code(at, encode(FormatId::fp64, low, Overflow::ieee));
      hi.set_code(at, encode(FormatId::fp64, high, Overflow::ieee));
      const WatchedTruth watched(truth);
      if (nearest) {
        const auto code = round_to({watched, r, c, e}, *rounded, overflow);
        if (!code) throw NormError(fmt::format("the rounding of element [{},{}] to {} could not be decided", r, c, name_of(*rounded)));
        nearest->set_code(at, *code);
      }
      tiers.settle(watched.settled(e.tier));
    }
  }
  outputs[prefix + "lo"] = std::move(lo);
  outputs[prefix + "hi"] = std::move(hi);
  if (nearest) outputs[prefix + "rounded"] = *std::move(nearest);
  return tiers;
}

void evaluate_site(Session& session, const Options& options, const AuditSite& site, const std::string& prefix, Tensors& outputs,
                   nlohmann::ordered_json& tiers) {
  Case value = site.value;
  std::string what = options.what, path = options.tensors.site_options().path;
  if (what.starts_with("path:")) path = what.substr(5);
  if (what == "ideal") {
    if (path.empty()) path = site.declared;
    if (path.empty())
      throw UsageError(fmt::format("eval ideal needs --path NAME, for '{}' does not say which path its tensors were made by", options.tensors.in));
    what = "path:" + path;
  }
  if (!path.empty()) {
    value.keys["path"] = path;
    if (!site.profile.empty()) value.keys["profile"] = site.profile;
  }
  const Case expanded = expand_site(value, options.tensors.in);
  const auto inputs = session.inputs(expanded);
  if (options.what == "truth") {
    std::optional<FormatId> rounded;
    if (!options.round_to.empty()) {
      rounded = find_format(options.round_to);
      if (!rounded)
        throw UsageError(fmt::format("--round-to: unknown format '{}'; known: {}", options.round_to,
                                     known_words(all_formats(), [](const Format& f) { return f.name; })));
    }
    const auto overflow = find_overflow(options.overflow);
    if (!overflow) throw UsageError(fmt::format("--overflow: unknown policy '{}'; known: ieee, saturate_finite, saturate, nan", options.overflow));
    const NormDef& norm = norm_of(expanded);
    for (const NormOutput& output : norm.outputs_of(norm_call(expanded, inputs->tensors))) {
      const bool is_scale = output.name == "scale";  // of a quantized output: a divisor, never rounded for anybody
      const TierCounts settled = add_truth(outputs, *session.truth(expanded, std::string(output.name)), output.shape,
                                           output.name == "y" ? prefix : fmt::format("{}{}.", prefix, output.name),
                                           is_scale ? std::nullopt : rounded, *overflow);
      tiers[fmt::format("{}{}", prefix, output.name)] = {
          {"binary64", settled.binary64}, {"double_double", settled.double_double}, {"exact", settled.exact}};
    }
    return;
  }
  for (auto& [name, tensor] : made_by(session, expanded, what)) outputs[prefix + name] = std::move(tensor);
}

/// A block: all its tensors are in the file.
int evaluate_block(Session& session, const Options& options) {
  const Case expanded = expand_defaults(block_case(options.tensors));
  Tensors outputs;
  if (options.what == "truth") {
    if (!options.round_to.empty()) throw UsageError("--round-to is for norms: a block's truth may be too wide to be rounded");
    for (const BlockTruth& truth : block_truths(expanded, session.inputs(expanded)->tensors))
      add_truth(outputs, *truth.truth, truth.shape, truth.output == "y" ? "" : truth.output + ".", std::nullopt, Overflow::ieee);
  } else {
    const std::string path = options.what == "ideal" ? "path:" + std::string(expanded.get("path")) : options.what;
    if (path == "path:") throw UsageError("eval ideal needs --path NAME");
    outputs = block_made_by(session, expanded, path);
  }
  write_safetensors(options.out, outputs, {{"norm", options.tensors.norm}, {"made_by", options.what}});
  if (options.json) fmt::print("{}\n", nlohmann::ordered_json({{"out", options.out}}).dump());
  return 0;
}

int evaluate(const Options& options) {
  Session session(truth_kind(options.truth));
  if (find_block(options.tensors.norm) != nullptr) return evaluate_block(session, options);
  if (options.what.starts_with("path:") && !options.tensors.path.empty())
    throw UsageError(fmt::format("eval {} names a path already; leave out --path {}", options.what, options.tensors.path));
  if (options.what != "truth" && options.what != "ideal") session.implementation(options.what);
  const std::vector<AuditSite> sites = sites_of(options.tensors.in, options.tensors.site_options());
  Tensors outputs;
  nlohmann::ordered_json tiers = nlohmann::ordered_json::object();
  for (const AuditSite& site : sites)
    evaluate_site(session, options, site, sites.size() == 1 ? "" : site.label + ".", outputs, tiers);
  write_safetensors(options.out, outputs, {{"norm", options.tensors.norm}, {"made_by", options.what}});
  if (options.json) {
    nlohmann::ordered_json line = {{"out", options.out}};
    if (options.what == "truth") line["truth"] = kTruthKinds[static_cast<std::size_t>(session.truth_kind())];
    if (options.what == "truth") line["tiers"] = std::move(tiers);
    fmt::print("{}\n", line.dump());
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "write the truth (lo, hi, rounded) or an implementation's outputs as safetensors");
  command->add_option("WHAT", options->what, "truth, ideal (the bits of --path), or IMPL: NAME, path:NAME, cmd:\"COMMAND\"")->required()->type_name("");
  options->tensors.add_to(*command);
  command->add_option("--path", options->tensors.path, "with ideal: the cast path, NAME or FILE.path (default: as the file says); else the path whose norm and eps are meant")
      ->type_name("PATH");
  command->add_option("--out", options->out, "safetensors file to write")->required()->type_name("FILE");
  command->add_option("--round-to", options->round_to, "with truth: also y rounded once to this format")->type_name("FORMAT");
  command->add_option("--overflow", options->overflow, "overflow rule of --round-to: ieee, saturate_finite, saturate, nan")->type_name("RULE");
  add_truth_option(*command, options->truth);
  command->add_flag("--json", options->json, "print what was written, and by tiers how many elements each settled");
  command->callback([options, &outcome] { outcome.exit_code = evaluate(*options); });
}

}  // namespace norma::cli
