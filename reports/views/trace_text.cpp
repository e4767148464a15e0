// What a terminal shows of a block's sites.
#include "reports/views/trace_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reports/views/record.hpp"

namespace norma {

namespace {

using namespace views;
using nlohmann::json;

constexpr std::size_t kShownSites = 8;
constexpr std::size_t kShownBlocks = 12;

std::string relative(const json& value) {
  const auto number = number_of(value);
  return number ? fmt::format("{:.2e}", *number) : "-";
}
std::string percent(const json& value) {
  const auto number = number_of(value);
  return number ? fmt::format("{:.0f} %", 100 * *number) : "-";
}

std::string sites_text(const json& record) {
  const json& sites = at(record, {"trace", "sites"});
  std::vector<const json*> order;
  for (const json& site : sites) order.push_back(&site);
  std::ranges::stable_sort(order, {}, [](const json* site) { return number_of(at(*site, {"rank"})).value_or(0); });
  order.resize(std::min(order.size(), kShownSites));
  std::size_t width = 4;
  for (const json* site : order) width = std::max(width, text_of(*site, "site").size());
  std::string text =
      fmt::format("{} of {}'s {} sites, by the error that each adds; errors relative to the truth there\n",
                  order.size(), text_of(record, "path"), sites.size());
  text += fmt::format("  {:<{}}  {:>9}  {:>9}  {:>9}  {:>9}  what\n", "site", width, "added", "entering", "leaving",
                      "in common");
  for (const json* site : order) {
    const std::string path = text_of(*site, "path");
    text += fmt::format("  {:<{}}  {:>9}  {:>9}  {:>9}  {:>9}  {}, {}\n", text_of(*site, "site"), width,
                        relative(at(*site, {"added", "relative_l2"})), relative(at(*site, {"entering", "relative_l2"})),
                        relative(at(*site, {"leaving", "relative_l2"})), percent(at(*site, {"added", "coherent"})),
                        path.empty() ? text_of(*site, "kind") : path, text_of(*site, "format"));
  }
  return text;
}

/// Every block of a short stack; of a long one the first, the last and those between at equal steps.
std::string growth_text(const json& stream) {
  const json& blocks = at(stream, {"blocks"});
  const json& fit = at(stream, {"fit"});
  std::string text = fmt::format("{} block after block\n  {:>5}  {:>9}  {:>9}  {:>9}  truth\n",
                                 text_of(stream, "stream"), "block", "leaving", "entering", "added");
  const std::size_t rows = std::min(blocks.size(), kShownBlocks);
  for (std::size_t r = 0; r < rows; ++r) {
    const json& block = blocks[rows == 1 ? 0 : r * (blocks.size() - 1) / (rows - 1)];
    const bool carried = at(block, {"carried"}) == true;
    text +=
        fmt::format("  {:>5}  {:>9}  {:>9}  {:>9}  {}{}\n", at(block, {"block"}).dump(),
                    relative(at(block, {"leaving", "relative_l2"})), relative(at(block, {"entering", "relative_l2"})),
                    relative(at(block, {"added", "relative_l2"})),
                    fmt::format("+-{}", relative(at(block, {"uncertainty"}))), carried ? ", carried by midpoints" : "");
  }
  if (at(blocks.back(), {"carried"}) == true)
    text += "  carried: each block is certified, the stack is not; so the output above may have no figures\n";
  text +=
      fmt::format("  grows like {} k (misfit {}) or {} sqrt(k) (misfit {}); the best power is k^{}\n",
                  relative(at(fit, {"linear", "factor"})), percent(at(fit, {"linear", "misfit"})),
                  relative(at(fit, {"root", "factor"})), percent(at(fit, {"root", "misfit"})),
                  number_of(at(fit, {"exponent"})) ? fmt::format("{:.2f}", *number_of(at(fit, {"exponent"}))) : "-");
  return text;
}

}  // namespace

std::string render_trace(const json& record) {
  const json& sites = at(record, {"trace", "sites"});
  if (!sites.is_array() || sites.empty()) return "";
  std::string text = sites_text(record);
  if (const json& growth = at(record, {"trace", "growth"}); growth.is_array())
    for (const json& stream : growth) text += growth_text(stream);
  const std::string origin = text_of(at(record, {"trace"}), "first_special");
  for (const json& site : sites)
    if (text_of(site, "site") == origin)
      text += fmt::format("NaN, Inf or a clipped number is first stored at {}: {} NaN, {} Inf, {} clipped\n", origin,
                          number_of(at(site, {"nan"})).value_or(0), number_of(at(site, {"infinite"})).value_or(0),
                          number_of(at(site, {"clipped"})).value_or(0));
  return text;
}

}  // namespace norma
