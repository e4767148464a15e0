// What the certified matrix product and the convolution share: rows in binary64 with what bounds their products, a
// block of products with its bounds, single products in two words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "reference/certified/double_double.hpp"
#include "reference/certified/products/matmul.hpp"
#include "reference/certified/products/numbers.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/format.hpp"

namespace norma::matmul {

inline constexpr std::uint32_t kInfinityBits = 0x7f80'0000;  ///< of binary32

/// An Inf or NaN of a row.
struct Special {
  std::int64_t at;
  double value;
};

/// Rows of values of a format up to fp32.
struct Panel {
  std::int64_t rows = 0, depth = 0;
  Numbers values;                              ///< rows x depth; what is not finite is 0 here
  std::vector<double> norm;                    ///< at least the row's Euclidean norm
  std::vector<double> grid;                    ///< a power of two; all entries of the row are multiples of it
  std::vector<double> span;                    ///< norm / grid
  std::vector<std::vector<Special>> specials;  ///< by row, ascending

  Panel(std::int64_t rows_, std::int64_t depth_);
  std::span<const double> row(std::int64_t i) const {
    return {values.data() + i * depth, static_cast<std::size_t>(depth)};
  }
  double* row_data(std::int64_t i) { return values.data() + i * depth; }
  /// Takes depth values over; rows may be set by several threads at once.
  void set_row(std::int64_t i, const float* x);
};

/// Rows of a tensor seen as [rows, depth]; the columns of one seen as [depth, rows].
Panel panel_of_rows(const Tensor& tensor, std::int64_t rows, std::int64_t depth, int threads);
Panel panel_of_columns(const Tensor& tensor, std::int64_t rows, std::int64_t depth, int threads);

/// Rows of two panels and a bias: c[i][j] = a[i] . b[j] + bias. The bias belongs to b's rows, or to a's, or is 0.
struct Product {
  const Panel* a = nullptr;
  const Panel* b = nullptr;
  std::span<const double> bias_of_a{}, bias_of_b{};

  double bias(std::int64_t i, std::int64_t j) const {
    if (!bias_of_a.empty()) return bias_of_a[static_cast<std::size_t>(i)];
    return bias_of_b.empty() ? 0.0 : bias_of_b[static_cast<std::size_t>(j)];
  }
};

// ---- one element ----

/// NaN or +-Inf if c is that: an entry of its row or column, or its bias, is not finite. Else 0.
double special_value(const Product& product, std::int64_t i, std::int64_t j);

/// close: what TruthSource promises; double-double where it suffices, else an exact sum. quick: double-double, so that
/// a radius of 0 may be missed.
enum class Effort : std::uint8_t { quick, close };
Enclosure enclose(const Product& product, std::int64_t i, std::int64_t j, Effort effort);
/// Always decided for finite c.
Comparison compare(const Product& product, std::int64_t i, std::int64_t j, double m_hi, double m_lo);

// ---- blocks ----

/// Rows [a0, a1) of a with rows [b0, b1) of b. What is computed of one is the same whoever asks, as the bits of an
/// inexact product may depend on its extent: cut a product into blocks that do not depend on threads.
struct Range {
  std::int64_t a0, a1, b0, b1;
  std::int64_t height() const { return a1 - a0; }
  std::int64_t width() const { return b1 - b0; }
};

/// mid and radius of a block, width() numbers a row.
struct Block {
  Numbers mid, radius;
  Numbers rest, whole_a, high_a, low_a, whole_b, high_b, low_b, bias;  ///< scratch
};
/// `magnitudes`: of sum |a b| + |bias| instead, NaN or Inf where c is.
enum class Terms : std::uint8_t { signed_terms, magnitudes };
void enclose_block(const Product& product, const Range& range, QuickProduct quick, Terms terms, Block& block);

/// A block as TruthSource::enclose_quick gives it.
struct QuickBlock {
  Numbers mid, radius, magnitude;
};
QuickBlock quick_block(const Product& product, const Range& range, QuickProduct quick);

/// The last few blocks asked for, each computed by who asks first. Thread-safe.
class QuickBlocks {
 public:
  std::shared_ptr<const QuickBlock> get(std::int64_t index, const std::function<QuickBlock()>& compute);

 private:
  struct Entry {
    std::int64_t index = 0;
    std::once_flag once;
    QuickBlock block;
  };
  static constexpr std::size_t kKept = 8;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Entry>> kept_;  // the oldest first
};

/// Rounds a block; the codes of row a0 + r are stored at `first` + r row_bytes.
void round_block(const Product& product, const Range& range, FormatId format, Overflow overflow, std::byte* first,
                 std::size_t row_bytes, Block& block, TierCounts& tiers);

/// Calls round_one(index, scratch, tiers) for each block, a scratch a thread, and adds up the tiers.
using RoundBlock = std::function<void(std::int64_t index, Block& block, TierCounts& tiers)>;
void for_blocks(std::int64_t blocks, int threads, const RoundBlock& round_one, TierCounts& tiers);

// ---- loops ----

/// What one pass over a row tells; `values` receives it in binary64.
struct RowFacts {
  std::uint32_t largest;  ///< binary32 bits of max |x|: at least kInfinityBits if one is not finite
  std::uint32_t
      smallest_bit;  ///< binary32 bits of the least 2^k that is the lowest set bit of an entry; 0: all are zero
  double squares;    ///< sum of x^2 in 16 lanes
};
RowFacts take_row(const float* x, std::size_t count, double* values);

/// In 16 lanes of two words: |sum a b - value| <= error, |sum |a b| - magnitude| <= error.
struct Dot {
  DoubleDouble value, magnitude;
  double error;
};
Dot dot(std::span<const double> a, std::span<const double> b);

/// From the product c of a row and the columns: mid = c + bias, in place, and its radius.
struct BoundRow {
  double span;    ///< of a's row
  double factor;  ///< radius of an inexact product: factor norms[j]
  const double* spans;
  const double* norms;
  const double* bias;
  std::size_t count;
};
void bound_row(const BoundRow& row, double* mid, double* radius);

/// The same for c + rest, the second word of a split product; radius of an inexact rest: factor times
/// high_norm low_norms[j] + low_norm norms[j].
struct BoundSplitRow {
  double high_norm, low_norm, grid;  ///< of the two parts of a's row; of the row
  double factor;
  const double* norms;
  const double* low_norms;
  const double* grids;
  const double* rest;
  const double* bias;
  std::size_t count;
};
void bound_split_row(const BoundSplitRow& row, double* mid, double* radius);

/// x = high + low, high the multiple of `grid` nearest to x.
void split_row(const double* x, std::size_t count, double grid, double* high, double* low);

void absolute_row(const double* x, std::size_t count, double* magnitude);

}  // namespace norma::matmul
