// Su et al., RoFormer, with the columns of a head shared out among axes as FLUX.1 does it.
#include "reference/blocks/rope_ids.hpp"

#include <cmath>
#include <numeric>
#include <vector>

#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"head", "128", "columns of a head, the sum of the axes'"},
    {"axis0", "16", "columns that turn with the first of a token's positions; even"},
    {"axis1", "56", "with the second; 0: there is none"},
    {"axis2", "56", "with the third; 0: there is none"},
    {"theta", "10000", "the base of the frequencies"},
};

/// Columns of a head along each axis that is given.
std::vector<std::int64_t> axes_of(const Shape& ids, const Attributes& numbers) {
  if (ids.size() != 2) throw ProgramError("rope_from_ids needs ids of shape [tokens, axes], got " + shape_text(ids));
  std::vector<std::int64_t> axes;
  std::string text;
  for (const char* name : {"axis0", "axis1", "axis2"}) {
    const double columns = numbers.at(name);
    if (columns == 0 && !axes.empty()) break;
    if (!(columns >= 2) || columns != std::floor(columns) || std::fmod(columns, 2) != 0 || columns > 0x1p20)
      throw ProgramError(std::string(name) + " must be an even number of columns, at least 2");
    axes.push_back(static_cast<std::int64_t>(columns));
    text += (text.empty() ? "" : "+") + std::to_string(axes.back());
  }
  const std::int64_t sum = std::accumulate(axes.begin(), axes.end(), std::int64_t{0});
  if (static_cast<double>(sum) != numbers.at("head"))
    throw ProgramError("RoPE axes " + text + " sum to " + std::to_string(sum) + ", but a head has " +
                       std::to_string(static_cast<std::int64_t>(numbers.at("head"))) + " columns");
  if (ids[1] != static_cast<std::int64_t>(axes.size()))
    throw ProgramError("ids are " + shape_text(ids) + ", but each token has one position for each of " +
                       std::to_string(axes.size()) + " axes");
  return axes;
}

Graph build(const BlockCall& call) {
  const std::vector<std::int64_t> axes = axes_of(call.x, call.numbers);
  const double theta = call.numbers.at("theta");
  if (!(theta >= 1)) throw ProgramError("theta must be at least 1");
  GraphBuilder g("rope_from_ids");
  const Value ids = g.input("ids", call.x);
  std::vector<Value> angles;
  for (std::size_t a = 0; a < axes.size(); ++a) {
    const std::string name = "axis" + std::to_string(a);
    const Value omega = formula(g, name + ".omega",
                                "norm omega\nin x:T theta columns\nq = div exact x, columns\nm = neg exact q\n"
                                "out y = pow exact theta, m\n",
                                {{"x", g.count(name + ".index", axes[a] / 2, 0, 2)}},
                                {{"theta", theta}, {"columns", static_cast<double>(axes[a])}});
    const Value position =
        g.repeat(name + ".position", g.slice(name + ".ids", ids, 1, static_cast<std::int64_t>(a), 1), 1, axes[a] / 2);
    angles.push_back(formula(g, name + ".angle", "norm angle\nin x:T omega:fp64[cols]\nout y = mul exact x, omega\n",
                             {{"x", position}, {"omega", omega}}));
  }
  const Value angle = g.concat("angle", 1, angles);
  g.output(formula(g, "cos", "norm cos\nin x:T\nout y = cos exact x\n", {{"x", angle}}));
  g.output(formula(g, "sin", "norm sin\nin x:T\nout y = sin exact x\n", {{"x", angle}}));
  return g.finish();
}

}  // namespace

constinit const BlockDef rope_from_ids{
    .name = "rope_from_ids",
    .title = "tables of a rotary embedding from positions",
    .formula = "cos and sin of ids[., a] theta^(-2j / axis_a), j < axis_a / 2, axis after axis",
    .source = "Su et al., arXiv:2104.09864; black-forest-labs/flux src/flux/math.py, modules/layers.py 802fb47",
    .attributes = kAttributes,
    .build = build,
    .input = "ids",
};

}  // namespace norma::blocks
