// Reads recorded blocks and holds each site to what was recorded.
#include "tests/impls/recorded_block.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "impls/emulate/graph.hpp"
#include "reference/certified/blocks/product_bounds.hpp"

namespace norma::test {

TensorFile recorded_blocks(std::string_view name, std::string_view format) {
  return read_safetensors(std::string(NORMA_SOURCE_DIR "/tests/golden/captures/blocks_") + std::string(name) + "." +
                          std::string(format) + ".safetensors");
}

RecordedBlock recorded_block(const TensorFile& file, const std::string& call) {
  const nlohmann::json entry = nlohmann::json::parse(file.metadata.at("calls")).at(call);
  RecordedBlock block;
  block.path = find_block_path(entry.at("path").get<std::string>());
  if (block.path == nullptr) throw std::runtime_error("no path " + entry.at("path").get<std::string>());
  for (const auto& [name, tensor] : entry.at("inputs").items())
    block.inputs[name] = file.tensors.at(tensor.get<std::string>());
  for (const auto& [name, value] : entry.at("attributes").items()) block.call.numbers[name] = value.get<double>();
  const Tensor& x = block.inputs.at(std::string(find_block(block.path->block)->input));
  block.call.x = x.shape;
  block.format = entry.contains("format") ? *find_format(entry.at("format").get<std::string>()) : x.format;
  block.graph = block.path->build({.x = x.shape, .numbers = block.call.numbers, .format = block.format});
  for (const auto& [name, tensor] : entry.at("outputs").items())
    block.sites[name] = file.tensors.at(tensor.get<std::string>());
  return block;
}

namespace {

/// Of one finite element: how much of its bound it uses.
double share_of(double stored, const Ball& meant, double bound) {
  const double distance = std::fabs((stored - meant.h) - meant.l) + meant.r;
  return bound > 0 ? distance / bound : distance > 0 ? HUGE_VAL : 0;
}

SiteCheck check_site(const Site& site, const std::vector<const Tensor*>& arguments, const Tensor& recorded) {
  SiteCheck check{.name = site.name(), .kind = {}, .format = recorded.format, .elements = recorded.size()};
  const Tensor declared = emulate_site(site, arguments).front();
  if (declared.shape != recorded.shape || declared.format != recorded.format)
    throw std::runtime_error("recorded " + site.name() + " is " + shape_text(recorded.shape) + ", not " +
                             shape_text(declared.shape) + " in the path's format");
  for (std::int64_t i = 0; i < recorded.size(); ++i) check.differing += declared.code(i) != recorded.code(i) ? 1 : 0;
  if (const auto* program = std::get_if<ProgramSite>(&site.what)) {
    check.kind = "program";
    // An activation has one such step, an exp or tanh of the element alone: each element may have a choice of its own.
    std::vector<Tensor> allowed{declared};
    for (int k = 1; k <= choice_ulp(program->program); ++k)
      for (const int nudge : {k, -k}) allowed.push_back(emulate_site(site, arguments, {.nudge_ulp = nudge}).front());
    for (std::int64_t i = 0; i < recorded.size(); ++i) {
      const auto same = [&](const Tensor& tensor) { return tensor.code(i) == recorded.code(i); };
      check.refused += std::ranges::none_of(allowed, same) ? 1 : 0;
    }
    return check;
  }
  constexpr std::array kKinds{"program", "linear", "attention", "convolution", "rearrangement"};
  check.kind = kKinds.at(site.what.index());
  check.many_keys = check.kind == "attention" && arguments[1]->shape[2] >= 16;
  std::vector<RealTensor> exact;
  for (const Tensor* argument : arguments) exact.push_back(exactly(*argument));
  const RealTensor meant = evaluate_site(site, exact, {}).front();
  const std::vector<double> bounds = any_order_bound(site, arguments, meant);
  for (std::int64_t i = 0; i < recorded.size(); ++i) {
    const double bound = bounds[static_cast<std::size_t>(i)];
    const double share = share_of(recorded.value(i), meant.at(i), bound);
    if (!(share <= 1 && std::isfinite(bound))) ++check.refused;  // a bound that is infinite would allow anything
    check.largest_share = std::max(check.largest_share, share);
  }
  return check;
}

}  // namespace

std::vector<SiteCheck> check_sites(const RecordedBlock& block) {
  check_inputs(block.graph, block.inputs, true);
  Tensors values = block.inputs;
  std::vector<SiteCheck> checks;
  for (const Site& site : block.graph.sites) {
    std::vector<const Tensor*> arguments;
    for (const Argument& argument : site.arguments) arguments.push_back(&values.at(argument.value));
    if (site.moves_only()) {
      Tensor moved = emulate_site(site, arguments).front();
      values[site.name()] = std::move(moved);
      continue;
    }
    const auto found = block.sites.find(site.name());
    if (found == block.sites.end()) throw std::runtime_error("nothing was recorded at " + site.name());
    checks.push_back(check_site(site, arguments, found->second));
    values[site.name()] = found->second;
  }
  return checks;
}

namespace {

std::string text_of(const SiteCheck& check) {
  std::string text = check.name + " (" + check.kind + "): " + std::to_string(check.refused) + " of " +
                     std::to_string(check.elements) + " refused, " + std::to_string(check.differing) + " other bits";
  if (check.kind != "program") text += ", at most " + std::to_string(check.largest_share) + " of the bound";
  return text;
}

bool any_refused(const RecordedBlock& block) {
  return std::ranges::any_of(check_sites(block), [](const SiteCheck& check) { return check.refused != 0; });
}

}  // namespace

void require_sites_as_recorded(const RecordedBlock& block, SiteCounts counts) {
  SiteCounts found;
  for (const SiteCheck& check : check_sites(block)) {
    UNSCOPED_INFO(text_of(check));
    ++(check.kind == "program" ? found.programs : found.products);
    CHECK(check.refused == 0);
    // In 16 bits the order of fp32 sums seldom shows (measured: in none of 12 attentions of fewer than 16 keys, in at most
    // 2 elements of a linear layer and 5 of a convolution), so that the places of an attention's roundings do.
    const std::int64_t allowed = check.kind == "linear" ? 2 : check.kind == "convolution" ? 5 : 0;
    if (format_of(check.format).precision < 24 && !check.many_keys) CHECK(check.differing <= allowed);
  }
  CHECK(found.programs == counts.programs);
  CHECK(found.products == counts.products);
  CHECK(block.sites.size() == static_cast<std::size_t>(counts.programs + counts.products));
}

void require_errors_apart(const RecordedBlock& block) {
  const Graph canonical = find_block(block.path->block)->build(block.call);
  const BlockTrace path = trace_block(block.graph, block.inputs, {.canonical = &canonical});
  const BlockTrace recorded = trace_block(block.graph, block.inputs, {.recorded = &block.sites});
  REQUIRE(path.sites.size() == recorded.sites.size());
  // The path and the block's formula are the same function but for constants that the code rounds to binary32.
  CHECK(path.definition_gap < 1e-6);
  for (std::size_t i = 0; i < path.sites.size(); ++i) {
    const SiteTrace& site = recorded.sites[i];
    UNSCOPED_INFO(site.name << ": path adds " << path.sites[i].added.relative_l2 << ", leaves "
                            << path.sites[i].leaving.relative_l2 << "; recorded adds " << site.added.relative_l2
                            << ", leaves " << site.leaving.relative_l2 << ", other bits "
                            << site.differing.value_or(-1));
    CHECK(site.differing.has_value());
    CHECK(site.uncertainty < 1e-9);
    CHECK(site.leaving.relative_l2 <= (site.entering.relative_l2 + site.added.relative_l2) * (1 + 1e-9));
  }
  // Measured: 0.995 to 1.033 of each other; 0.5 to 2 units for the block.
  const double own = path.sites.back().leaving.relative_l2, theirs = recorded.sites.back().leaving.relative_l2;
  const double unit = std::ldexp(1.0, -format_of(block.inputs.at("x").format).precision);
  CHECK(theirs < 1.1 * own);
  CHECK(own < 1.1 * theirs);
  CHECK(theirs > unit / 4);
  CHECK(theirs < 4 * unit);
}

bool refused_with_another_attribute(RecordedBlock block, const std::string& attribute, double value) {
  block.call.numbers[attribute] = value;
  block.graph = block.path->build({.x = block.call.x, .numbers = block.call.numbers, .format = block.format});
  return any_refused(block);
}

bool refused_with_exchanged(RecordedBlock block, const std::string& one, const std::string& other) {
  Tensors& tensors = block.sites.contains(one) ? block.sites : block.inputs;
  std::swap(tensors.at(one), tensors.at(other));
  return any_refused(block);
}

bool refused_with_a_code_changed(RecordedBlock block, const std::string& site) {
  Tensor& recorded = block.sites.at(site);
  const auto own = std::ranges::find(block.graph.sites, site, &Site::name);
  if (std::holds_alternative<ProgramSite>(own->what)) {
    recorded.set_code(recorded.size() / 2, recorded.code(recorded.size() / 2) ^ 1u);
    return any_refused(block);
  }
  double largest = 0;
  for (std::int64_t i = 0; i < recorded.size(); ++i) largest = std::max(largest, std::fabs(recorded.value(i)));
  const double changed = recorded.value(0) + largest / 10;
  recorded.set_code(0, encode(recorded.format, changed, Overflow::ieee));
  return any_refused(block);
}

}  // namespace norma::test
