// The certified rotation, of points at (1, 0): they come to lie at (cos, sin).
#include "reference/blocks/rope_tables.hpp"

#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include "reference/certified/functions/rope.hpp"
#include "reference/program/program.hpp"

namespace norma {

namespace {

void check(std::span<const std::int64_t> axes, std::int64_t head, std::size_t ids) {
  std::string text;
  for (const std::int64_t axis : axes) {
    text += (text.empty() ? "" : "+") + std::to_string(axis);
    if (axis < 2 || axis % 2 != 0)
      throw ProgramError("a RoPE axis has an even number of columns, not " + std::to_string(axis));
  }
  const std::int64_t sum = std::accumulate(axes.begin(), axes.end(), std::int64_t{0});
  if (sum != head)
    throw ProgramError("RoPE axes " + text + " sum to " + std::to_string(sum) + ", but a head has " +
                       std::to_string(head) + " columns");
  if (ids == 0 || ids % axes.size() != 0)
    throw ProgramError("there are " + std::to_string(ids) + " positions, but each token has one for each of " +
                       std::to_string(axes.size()) + " axes");
}

}  // namespace

RopeTables rope_tables(std::span<const std::int64_t> axes, std::int64_t head, std::span<const std::int64_t> ids,
                       double theta) {
  check(axes, head, ids.size());
  const auto tokens = static_cast<std::int64_t>(ids.size() / axes.size());
  RopeTables tables{Tensor::zeros(FormatId::fp32, {tokens, head / 2}),
                    Tensor::zeros(FormatId::fp32, {tokens, head / 2})};
  const std::uint64_t one = encode(FormatId::fp32, 1.0, Overflow::ieee);
  std::int64_t first = 0;  // pair of the axis
  for (std::size_t a = 0; a < axes.size(); ++a) {
    std::vector<std::int64_t> positions;
    for (std::size_t t = a; t < ids.size(); t += axes.size()) positions.push_back(ids[t]);
    Tensor points = Tensor::zeros(FormatId::fp32, {tokens, axes[a]});
    for (std::int64_t i = 0; i < points.size(); i += 2) points.set_code(i, one);
    const Rope rope{
        .x = &points, .positions = positions, .rotary = axes[a], .theta = theta, .pairing = RopePairing::interleaved};
    const Tensor turned = round_rope(rope, FormatId::fp32, Overflow::ieee).y;
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t j = 0; j < axes[a] / 2; ++j) {
        tables.cos.set_code(t * (head / 2) + first + j, turned.code(t * axes[a] + 2 * j));
        tables.sin.set_code(t * (head / 2) + first + j, turned.code(t * axes[a] + 2 * j + 1));
      }
    first += axes[a] / 2;
  }
  return tables;
}

}  // namespace norma
