// Rows in binary64 with a bound.
#include "reference/certified/quick_norm.hpp"

#include <algorithm>
#include <limits>

namespace norma {

struct QuickNorm::State {
  RowNorm norm;
};

QuickNorm::QuickNorm(const RowNorm& norm) : state_(std::make_unique<const State>(State{norm})) {}
QuickNorm::QuickNorm(QuickNorm&&) noexcept = default;
QuickNorm& QuickNorm::operator=(QuickNorm&&) noexcept = default;
QuickNorm::~QuickNorm() = default;

void QuickNorm::enclose(std::int64_t, const QuickRow& out) const {
  std::fill(out.mid.begin(), out.mid.end(), 0.0);
  std::fill(out.radius.begin(), out.radius.end(), std::numeric_limits<double>::infinity());
  std::fill(out.magnitude.begin(), out.magnitude.end(), 0.0);
}

void QuickNorm::round_row(std::int64_t, FormatId, Overflow, std::byte*, std::vector<std::uint32_t>& open) const {
  for (std::int64_t j = 0; j < state_->norm.cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
}

void QuickNorm::score_row(std::int64_t, FormatId, const std::byte*, RowScoreSums&,
                          std::vector<std::uint32_t>& open) const {
  for (std::int64_t j = 0; j < state_->norm.cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
}

}  // namespace norma
