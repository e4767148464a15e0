// Elements in double-double: u = 2^-53, errors relative.
//
// y - bias: w s 5u^2, n 3u^2, times n 5u^2, times r 5u^2: 18u^2, taken as 20u^2 beside the row's own (close_row.cpp);
// the bias 3u^2 of the sum.
#include "reference/certified/rows/close_norm.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kSlots = 16;

struct Scratch {
  CloseBlock a, weight, scale, bias;
  alignas(64) std::array<double, kCloseBlock> spare;
  alignas(64) std::array<float, kCloseBlock> h_values, weights, biases;
  std::array<std::uint32_t, kCloseBlock> left;
};
Scratch& scratch() {
  thread_local const std::unique_ptr<Scratch> memory = std::make_unique<Scratch>();
  return *memory;
}

}  // namespace

CloseNorm::CloseNorm(const RowNorm& norm)
    : norm_(norm), plain_(norm.residual == nullptr && norm.scale.tensor == nullptr && norm.weight.offset == 0) {
  // Rows come one after another: each its own group, or all groups in turn.
  slots_.resize(norm.groups == norm.rows ? kSlots : static_cast<std::size_t>(norm.groups));
}

std::shared_ptr<const CloseRow> CloseNorm::row_at(std::int64_t row) const {
  const std::int64_t group = row % norm_.groups;
  Slot& slot = slots_[static_cast<std::size_t>(group) % slots_.size()];
  {
    const std::lock_guard lock(mutex_);
    if (slot.group == group) return slot.value;
  }
  auto value = std::make_shared<const CloseRow>(read_close_row(norm_, group));
  const std::lock_guard lock(mutex_);
  slot = {group, value};
  return value;
}

void CloseNorm::enclose(const CloseRow& row, std::int64_t r, const ColumnList& all, const CloseArrays& out) const {
  Scratch& memory = scratch();
  double* const spare = memory.spare.data();
  for (std::size_t done = 0; done < all.count;) {
    const ColumnList columns = all.part(done, kCloseBlock);
    const std::size_t count = columns.count;
    if (!row.known) {
      std::fill_n(out.hi.data() + done, count, 0.0);
      std::fill_n(out.lo.data() + done, count, 0.0);
      std::fill_n(out.radius.data() + done, count, kInfinity);
      std::fill_n(out.magnitude.data() + done, count, 0.0);
      done += count;
      continue;
    }
    load_elements(norm_, r, columns, memory.a.pairs(), spare);
    if (norm_.statistics != Statistics::squares) subtract_centre(memory.a.pairs(), count, row.factor, row.centre);
    load_parameter(norm_.weight, 1.0, r, columns, memory.weight.pairs(), spare);
    if (norm_.scale.tensor != nullptr) {
      load_parameter(norm_.scale, 1.0, r, columns, memory.scale.pairs(), spare);
      multiply(memory.weight.pairs(), memory.scale.values(), count);
    }
    multiply(memory.a.pairs(), memory.weight.values(), count);
    multiply(memory.a.pairs(), row.r, count);
    load_parameter(norm_.bias, -0.0, r, columns, memory.bias.pairs(), spare);
    for (std::size_t i = 0; i < count; ++i) spare[i] = std::fabs(memory.weight.h[i]);
    add_bias(memory.a.values(), memory.bias.values(), spare,
             {.relative = row.relative, .absolute = std::fabs(row.r.h) * row.centre_error},
             {out.hi.data() + done, out.lo.data() + done, out.radius.data() + done, out.magnitude.data() + done},
             count);
    // The sign of (h - mean) 0 is not known where that of h - mean is not.
    if (row.centre_error != 0)
      for (std::size_t i = 0; i < count; ++i)
        if (memory.a.h[i] == 0 && std::isfinite(out.hi[done + i])) out.radius[done + i] = kInfinity;
    done += count;
  }
}

Enclosure CloseNorm::enclose(std::int64_t row, std::int64_t col) const {
  Enclosure e;
  enclose(*row_at(row), row, {col, 1}, {{&e.hi, 1}, {&e.lo, 1}, {&e.radius, 1}, {&e.magnitude, 1}});
  e.tier = Tier::double_double;
  return e;
}

bool CloseNorm::bracket(const CloseRow& row, std::int64_t r, const ColumnList& all, std::span<double> value,
                        std::span<double> side) const {
  if (!row.rational) return false;
  const RationalRoot& root = *row.rational;
  Scratch& memory = scratch();
  double* const spare = memory.spare.data();
  for (std::size_t done = 0; done < all.count;) {
    const ColumnList columns = all.part(done, kCloseBlock);
    const std::size_t count = columns.count;
    double* const v = value.data() + done;
    double* const s = side.data() + done;
    load_elements(norm_, r, columns, memory.a.pairs(), spare);
    if (norm_.statistics != Statistics::squares) subtract_centre(memory.a.pairs(), count, row.factor, row.centre);
    load_parameter(norm_.weight, 1.0, r, columns, memory.weight.pairs(), spare);
    load_parameter(norm_.bias, -0.0, r, columns, memory.bias.pairs(), spare);
    load_parameter(norm_.scale, 1.0, r, columns, memory.scale.pairs(), spare);
    norma::bracket(memory.a.values(), memory.weight.values(), memory.scale.values(), memory.bias.values(), root, v, s,
                   count);
    done += count;
  }
  return true;
}

bool CloseNorm::odd_at_once(const CloseRow& row, std::int64_t r, const ColumnList& columns, std::span<double> odd,
                            std::span<double> side) const {
  if (!plain_ || !row.narrow || row.rational->side != 0 || row.rational->numerator != 1) return false;
  Scratch& memory = scratch();
  const float* const h = floats_at(*norm_.x, r * norm_.cols, columns, memory.h_values.data());
  const auto parameter = [&](const Parameter& p, float neutral, float* spare) -> const float* {
    if (p.tensor != nullptr && p.index.span == 1) return floats_at(*p.tensor, p.index.at(r, 0), columns, spare);
    load_values(p, neutral, r, columns, spare);
    return spare;
  };
  const float* const weight = parameter(norm_.weight, 1.0F, memory.weights.data());
  const float* const bias = norm_.bias.tensor == nullptr ? nullptr : parameter(norm_.bias, 0.0F, memory.biases.data());
  odd_quotients(h, weight, bias, {.factor = row.factor, .centre = row.centre.h, .root = row.rational->root}, odd.data(),
                side.data(), columns.count);
  return true;
}

Tier CloseNorm::odd(const CloseRow& row, std::int64_t r, const ColumnList& columns, std::span<double> odd,
                    std::span<double> side) const {
  Scratch& memory = scratch();
  if (!row.rational) {
    alignas(64) std::array<double, kCloseBlock> low, radius, magnitude;
    enclose(row, r, columns, {odd, low, radius, magnitude});
    sides_of(low.data(), radius.data(), side.data(), columns.count);
    round_to_odd(odd.data(), side.data(), odd.data(), columns.count);
    return Tier::double_double;
  }
  if (!odd_at_once(row, r, columns, odd, side)) {
    bracket(row, r, columns, odd, side);
    round_to_odd(odd.data(), side.data(), odd.data(), columns.count);
    return Tier::exact;
  }
  if (all_known(side.data(), columns.count)) return Tier::exact;
  std::size_t left = 0;
  for (std::size_t i = 0; i < columns.count; ++i)
    if (std::isnan(side[i])) memory.left[left++] = static_cast<std::uint32_t>(columns.at(i));
  std::array<double, kCloseBlock> near, sides;
  bracket(row, r, {.count = left, .list = memory.left.data()}, near, sides);
  round_to_odd(near.data(), sides.data(), near.data(), left);
  left = 0;
  for (std::size_t i = 0; i < columns.count; ++i) {
    if (!std::isnan(side[i])) continue;
    odd[i] = near[left];
    side[i] = sides[left++];
  }
  return Tier::exact;
}

}  // namespace norma
