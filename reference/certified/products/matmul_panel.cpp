// Rows in binary64, with what bounds their products.
#include <algorithm>
#include <bit>
#include <cmath>

#include "reference/certified/products/matmul_parts.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/formats/convert.hpp"

namespace norma::matmul {

Panel::Panel(std::int64_t rows_, std::int64_t depth_) : rows(rows_), depth(depth_) {
  const auto n = static_cast<std::size_t>(rows);
  values.reserve(n * static_cast<std::size_t>(depth));
  norm.resize(n);
  grid.resize(n);
  span.resize(n);
  specials.resize(n);
}

/// The squares are exact, at most `depth` additions and a square root round: (depth + 6) u covers them relatively.
void Panel::set_row(std::int64_t i, const float* x) {
  const auto at = static_cast<std::size_t>(i);
  const auto count = static_cast<std::size_t>(depth);
  RowFacts facts = take_row(x, count, row_data(i));
  specials[at].clear();
  if (facts.largest >= kInfinityBits) {
    std::vector<float> finite(x, x + count);
    for (std::size_t k = 0; k < count; ++k) {
      if (std::isfinite(x[k])) continue;
      specials[at].push_back({static_cast<std::int64_t>(k), static_cast<double>(x[k])});
      finite[k] = 0;
    }
    facts = take_row(finite.data(), count, row_data(i));
  }
  norm[at] = std::sqrt(facts.squares) * (1 + (static_cast<double>(depth) + 6) * kUnitRoundoff);
  grid[at] = facts.smallest_bit == 0 ? 1.0 : static_cast<double>(std::bit_cast<float>(facts.smallest_bit));
  span[at] = norm[at] / grid[at];
}

namespace {

constexpr std::int64_t kColumns = 16;  // taken out of a [depth, rows] tensor at a time

const std::byte* stored_at(const Tensor& tensor, std::int64_t index) {
  return tensor.bytes.data() + index * format_of(tensor.format).storage_bytes();
}

}  // namespace

Panel panel_of_rows(const Tensor& tensor, std::int64_t rows, std::int64_t depth, int threads) {
  Panel panel(rows, depth);
  share_out(rows, 64, threads, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> x(static_cast<std::size_t>(depth));
    for (std::int64_t i = first; i < last; ++i) {
      decode_row(tensor.format, stored_at(tensor, i * depth), x.data(), x.size());
      panel.set_row(i, x.data());
    }
  });
  return panel;
}

Panel panel_of_columns(const Tensor& tensor, std::int64_t rows, std::int64_t depth, int threads) {
  Panel panel(rows, depth);
  share_out((rows + kColumns - 1) / kColumns, 4, threads, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> x(static_cast<std::size_t>(depth * kColumns));
    float piece[kColumns];
    for (std::int64_t i0 = first * kColumns; i0 < std::min(rows, last * kColumns); i0 += kColumns) {
      const std::int64_t columns = std::min(kColumns, rows - i0);
      for (std::int64_t k = 0; k < depth; ++k) {
        decode_row(tensor.format, stored_at(tensor, k * rows + i0), piece, static_cast<std::size_t>(columns));
        for (std::int64_t c = 0; c < columns; ++c) x[static_cast<std::size_t>(c * depth + k)] = piece[c];
      }
      for (std::int64_t c = 0; c < columns; ++c) panel.set_row(i0 + c, x.data() + c * depth);
    }
  });
  return panel;
}

}  // namespace norma::matmul
