// The certified matrix product: a truth, and every element rounded.
#include "reference/certified/products/matmul.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "reference/certified/products/matmul_parts.hpp"

namespace norma {

namespace {

using matmul::Block;
using matmul::Panel;
using matmul::Product;
using matmul::Range;

// Blocks of a product. Wide enough that the BLAS runs at its speed, and independent of the number of threads.
constexpr std::int64_t kBlockRows = 512, kBlockCols = 1024;
// Of a product that is but one of those, or one thread would make it all; the BLAS is some 4 % slower on them.
constexpr std::int64_t kNarrowCols = 128;
// Of a truth, which is asked row by row.
constexpr std::int64_t kTruthRows = 128;

struct Extent {
  std::int64_t m = 0, n = 0, k = 0;
};

Extent extent_of(const Matmul& problem) {
  const Shape& b = problem.b->shape;
  const bool rows = problem.weights == Matmul::Weights::rows;
  const std::int64_t k = problem.a->cols();
  return {.m = k == 0 ? element_count(Shape(problem.a->shape.begin(), problem.a->shape.end() - 1)) : problem.a->rows(),
          .n = rows ? b[0] : b[1],
          .k = k};
}

void require(const Matmul& problem) {
  if (std::string fault = matmul_fault(problem); !fault.empty()) throw std::invalid_argument(fault);
}

/// Both operands in binary64.
struct Operands {
  Panel a, b;
  std::vector<double> bias;

  Operands(const Matmul& problem, const Extent& extent, int threads)
      : a(matmul::panel_of_rows(*problem.a, extent.m, extent.k, threads)),
        b(problem.weights == Matmul::Weights::rows
              ? matmul::panel_of_rows(*problem.b, extent.n, extent.k, threads)
              : matmul::panel_of_columns(*problem.b, extent.n, extent.k, threads)) {
    if (problem.bias == nullptr) return;
    for (std::int64_t j = 0; j < extent.n; ++j) bias.push_back(problem.bias->value(j));
  }
  Product product() const { return {.a = &a, .b = &b, .bias_of_b = bias}; }
};

class MatmulTruth final : public TruthSource {
 public:
  MatmulTruth(const Matmul& problem, QuickProduct quick)
      : extent_(extent_of(problem)), operands_(problem, extent_, 1), product_(operands_.product()), quick_(quick) {}

  std::int64_t rows() const override { return extent_.m; }
  std::int64_t cols() const override { return extent_.n; }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    return matmul::enclose(product_, row, col, matmul::Effort::close);
  }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] = enclose(row, static_cast<std::int64_t>(j));
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return matmul::compare(product_, row, col, m_hi, m_lo);
  }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const std::int64_t index = row / kTruthRows, first = index * kTruthRows;
    const auto block = blocks_.get(index, [&] {
      return quick_block(product_, {first, std::min(first + kTruthRows, extent_.m), 0, extent_.n}, quick_);
    });
    const auto copy = [&](const Numbers& from, std::span<double> to) {
      std::copy_n(from.data() + (row - first) * extent_.n, extent_.n, to.begin());
    };
    copy(block->mid, out.mid);
    copy(block->radius, out.radius);
    copy(block->magnitude, out.magnitude);
    return Tier::binary64;
  }

 private:
  Extent extent_;
  Operands operands_;
  Product product_;
  QuickProduct quick_;
  mutable matmul::QuickBlocks blocks_;
};

}  // namespace

std::string matmul_fault(const Matmul& problem) {
  if (problem.a == nullptr || problem.b == nullptr) return "matmul needs two tensors, a and b.";
  for (const auto& [name, tensor] : {std::pair("a", problem.a), {"b", problem.b}, {"bias", problem.bias}})
    if (tensor != nullptr && tensor->format == FormatId::fp64)
      return std::string("matmul takes formats up to fp32, but ") + name + " is fp64.";
  if (problem.a->shape.empty()) return "matmul needs an a of shape [..., K], but it is a scalar.";
  if (problem.b->shape.size() != 2)
    return "matmul needs a b with two axes, but it is " + shape_text(problem.b->shape) + ".";
  const bool rows = problem.weights == Matmul::Weights::rows;
  const std::int64_t k = problem.a->shape.back();
  const std::int64_t depth = problem.b->shape[rows ? 1 : 0], n = problem.b->shape[rows ? 0 : 1];
  if (depth != k)
    return "matmul: a is " + shape_text(problem.a->shape) + ", so b needs a " + (rows ? "last" : "first") +
           " axis of " + std::to_string(k) + ", but it is " + shape_text(problem.b->shape) + ".";
  if (problem.bias != nullptr && problem.bias->size() != n)
    return "matmul: b is " + shape_text(problem.b->shape) + ", so bias needs " + std::to_string(n) +
           " elements, but it is " + shape_text(problem.bias->shape) + ".";
  return {};
}

std::unique_ptr<TruthSource> matmul_truth(const Matmul& problem, QuickProduct quick) {
  require(problem);
  return std::make_unique<MatmulTruth>(problem, quick);
}

TierCounts round_matmul(const Matmul& problem, FormatId format, Overflow overflow, std::span<std::byte> out,
                        int threads) {
  require(problem);
  const Extent extent = extent_of(problem);
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  const std::size_t row_bytes = static_cast<std::size_t>(extent.n) * bytes;
  if (out.size() != static_cast<std::size_t>(extent.m) * row_bytes)
    throw std::invalid_argument("round_matmul needs room for " + std::to_string(extent.m * extent.n) + " elements of " +
                                std::string(name_of(format)) + ", but got " + std::to_string(out.size()) + " bytes.");
  const Operands operands(problem, extent, threads);
  const Product product = operands.product();
  const std::int64_t cols = extent.m <= kBlockRows && extent.n <= kBlockCols ? kNarrowCols : kBlockCols;
  const std::int64_t across = (extent.n + cols - 1) / cols;
  const std::int64_t blocks = across * ((extent.m + kBlockRows - 1) / kBlockRows);
  const auto round_one = [&](std::int64_t index, Block& block, TierCounts& tiers) {
    const std::int64_t i = index / across * kBlockRows, j = index % across * cols;
    const Range range{i, std::min(i + kBlockRows, extent.m), j, std::min(j + cols, extent.n)};
    std::byte* first = out.data() + static_cast<std::size_t>(i) * row_bytes + static_cast<std::size_t>(j) * bytes;
    matmul::round_block(product, range, format, overflow, first, row_bytes, block, tiers);
  };
  TierCounts tiers;
  matmul::for_blocks(blocks, threads, round_one, tiers);
  return tiers;
}

RoundedRows round_matmul(const Matmul& problem, FormatId format, Overflow overflow, int threads) {
  require(problem);
  const Extent extent = extent_of(problem);
  RoundedRows result{.y = Tensor::zeros(format, {extent.m, extent.n}), .tiers = {}};
  result.tiers = round_matmul(problem, format, overflow, result.y.bytes, threads);
  return result;
}

}  // namespace norma
