// Blocks of a product in binary64, and their rounding.
//
// u = 2^-53; a a row of A, b a row of B, entries of at most 24 bits, so that their products are exact.
//
//   exact     Entries of a are multiples of g_a, of b of g_b. Every partial sum of products, in any order, is a
//   multiple
//             of g_a g_b and at most sum |a b| <= ||a|| ||b|| in magnitude. If that is at most 2^53 g_a g_b, it is a
//             binary64 number: no addition rounds, fused or not. (No underflow: g_a g_b >= 2^-298.)
//   bounded   Else K - 1 additions in any order: |C - c| <= (K - 1) u sum |a b| <= K u ||a|| ||b|| (Jeannerod and Rump,
//             "Improved error bounds for inner products in floating-point arithmetic", 2013: no second-order term).
//             Both hold for classical products only, not for Strassen's.
//   split     a = a1 + a2, a1 the multiple of G_a nearest to a, G_a the power of two with ||a|| <= 2^26 G_a < 2 ||a||.
//             a2 is exact, |a2| <= G_a / 2, and 0 if G_a divides g_a. The same for b.
//               c = a1.b1 + (a1.b2 + a2.b)
//             The first is exact: ||a1|| ||b1|| <= (2^26 + sqrt(K) / 2)^2 G_a G_b <= 2^53 G_a G_b for K <= 2^50. The
//             rest is one sum of 2K exact products: off by at most 2K u (||a1|| ||b2|| + ||a2|| ||b||).
//             Its products are multiples of g_a g_b too: it is exact where ||a1|| ||b2|| + ||a2|| ||b|| is at most
//             2^53 of them.
//
// `norm` is rounded up; what the bounds' own arithmetic rounds is in the factor 1 + 2^-40.
#include <tbb/enumerable_thread_specific.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "reference/certified/products/blas.hpp"
#include "reference/certified/products/matmul_parts.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/share_out.hpp"

namespace norma::matmul {

namespace {

constexpr double kUp = 1 + 0x1p-40;
constexpr std::int64_t kPiece = 1024;  // columns of the pieces in which products of prepared rows are taken

void reserve(Numbers& numbers, std::int64_t size) { numbers.reserve(static_cast<std::size_t>(size)); }

/// The biases of a block's row: those of b's rows, or the one of a's row repeated, or zeros.
const double* bias_row(const Product& product, const Range& range, std::int64_t i, Terms terms, Numbers& buffer) {
  if (!product.bias_of_b.empty() && terms == Terms::signed_terms) return product.bias_of_b.data() + range.b0;
  reserve(buffer, range.width());
  for (std::int64_t j = range.b0; j < range.b1; ++j) {
    const double bias = product.bias(i, j);
    buffer[static_cast<std::size_t>(j - range.b0)] = terms == Terms::magnitudes ? std::fabs(bias) : bias;
  }
  return buffer.data();
}

void multiply(const Product& product, const Range& range, double* c) {
  const std::int64_t depth = product.a->depth;
  dgemm({.m = range.height(),
         .n = range.width(),
         .k = depth,
         .a = product.a->values.data() + range.a0 * depth,
         .lda = depth,
         .b = product.b->values.data() + range.b0 * depth,
         .ldb = depth,
         .c = c,
         .ldc = range.width()});
}

/// Columns of the block where NaN or Inf occur in every row.
std::vector<std::int64_t> special_columns(const Product& product, const Range& range) {
  std::vector<std::int64_t> found;
  for (std::int64_t j = range.b0; j < range.b1; ++j) {
    const auto at = static_cast<std::size_t>(j);
    if (!product.b->specials[at].empty() || (!product.bias_of_b.empty() && !std::isfinite(product.bias_of_b[at])))
      found.push_back(j);
  }
  return found;
}

/// Elements that are not finite: mid is NaN or Inf, radius 0.
void set_specials(const Product& product, const Range& range, const std::vector<std::int64_t>& special, std::int64_t i,
                  double* mid, double* radius) {
  const auto set = [&](std::int64_t j) {
    if (const double value = special_value(product, i, j); value != 0) {
      mid[j - range.b0] = value;
      radius[j - range.b0] = 0;
    }
  };
  const bool whole_row = !product.a->specials[static_cast<std::size_t>(i)].empty() ||
                         (!product.bias_of_a.empty() && !std::isfinite(product.bias_of_a[static_cast<std::size_t>(i)]));
  if (whole_row)
    for (std::int64_t j = range.b0; j < range.b1; ++j) set(j);
  else
    for (const std::int64_t j : special) set(j);
}

/// The power of two G with norm <= 2^26 G < 2 norm; 1 for a row of zeros.
double split_grid(double norm) {
  if (norm == 0) return 1;
  int exponent = 0;
  std::frexp(norm, &exponent);  // norm < 2^exponent
  return std::ldexp(1.0, exponent - 26);
}

/// At least ||x2|| of the split row x.
double low_norm(const Panel& panel, std::int64_t i) {
  const double grid = split_grid(panel.norm[static_cast<std::size_t>(i)]);
  if (panel.grid[static_cast<std::size_t>(i)] >= grid) return 0;
  return std::sqrt(static_cast<double>(panel.depth)) * (grid / 2) * (1 + 0x1p-50);
}

/// Columns [k0, k0 + depth) of some rows, or of their absolute values.
void take_columns(const Panel& panel, std::int64_t first, std::int64_t last, std::int64_t k0, std::int64_t depth,
                  Terms terms, Numbers& into) {
  reserve(into, (last - first) * depth);
  for (std::int64_t i = first; i < last; ++i) {
    const double* x = panel.values.data() + i * panel.depth + k0;
    double* y = into.data() + (i - first) * depth;
    if (terms == Terms::magnitudes)
      absolute_row(x, static_cast<std::size_t>(depth), y);
    else
      std::copy_n(x, depth, y);
  }
}

void split_rows(const Panel& panel, std::int64_t first, std::int64_t last, std::int64_t depth, const Numbers& whole,
                Numbers& high, Numbers& low) {
  reserve(high, (last - first) * depth);
  reserve(low, (last - first) * depth);
  for (std::int64_t i = first; i < last; ++i) {
    const std::int64_t at = (i - first) * depth;
    split_row(whole.data() + at, static_cast<std::size_t>(depth), split_grid(panel.norm[static_cast<std::size_t>(i)]),
              high.data() + at, low.data() + at);
  }
}

bool any_low(const Panel& panel, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i)
    if (low_norm(panel, i) != 0) return true;
  return false;
}

/// mid = a.b, or a1.b1 and rest = a1.b2 + a2.b; products that are 0 throughout are left out.
void multiply_pieces(const Product& product, const Range& range, QuickProduct quick, Terms terms, Block& block) {
  const Panel& a = *product.a;
  const Panel& b = *product.b;
  const bool split = quick == QuickProduct::split;
  const bool low_in_a = split && any_low(a, range.a0, range.a1), low_in_b = split && any_low(b, range.b0, range.b1);
  std::fill_n(block.mid.data(), range.height() * range.width(), 0.0);
  if (split) std::fill_n(block.rest.data(), range.height() * range.width(), 0.0);
  for (std::int64_t k0 = 0; k0 < a.depth; k0 += kPiece) {
    const std::int64_t depth = std::min(kPiece, a.depth - k0);
    const auto add = [&](const Numbers& x, const Numbers& y, Numbers& sum) {
      dgemm({.m = range.height(),
             .n = range.width(),
             .k = depth,
             .a = x.data(),
             .lda = depth,
             .b = y.data(),
             .ldb = depth,
             .c = sum.data(),
             .ldc = range.width(),
             .accumulate = true});
    };
    take_columns(a, range.a0, range.a1, k0, depth, terms, block.whole_a);
    take_columns(b, range.b0, range.b1, k0, depth, terms, block.whole_b);
    if (!split) {
      add(block.whole_a, block.whole_b, block.mid);
      continue;
    }
    split_rows(a, range.a0, range.a1, depth, block.whole_a, block.high_a, block.low_a);
    split_rows(b, range.b0, range.b1, depth, block.whole_b, block.high_b, block.low_b);
    add(block.high_a, block.high_b, block.mid);
    if (low_in_b) add(block.high_a, block.low_b, block.rest);
    if (low_in_a) add(block.low_a, block.whole_b, block.rest);
  }
}

}  // namespace

void enclose_block(const Product& product, const Range& range, QuickProduct quick, Terms terms, Block& block) {
  const Panel& a = *product.a;
  const Panel& b = *product.b;
  const std::int64_t width = range.width();
  const auto depth = static_cast<double>(a.depth);
  reserve(block.mid, range.height() * width);
  reserve(block.radius, range.height() * width);
  std::vector<double> low_norms;
  if (quick == QuickProduct::split) {
    reserve(block.rest, range.height() * width);
    for (std::int64_t j = range.b0; j < range.b1; ++j) low_norms.push_back(low_norm(b, j));
  }
  if (quick == QuickProduct::product && terms == Terms::signed_terms)
    multiply(product, range, block.mid.data());
  else
    multiply_pieces(product, range, quick, terms, block);
  const std::vector<std::int64_t> special = special_columns(product, range);
  for (std::int64_t i = range.a0; i < range.a1; ++i) {
    const auto at = static_cast<std::size_t>(i);
    double* mid = block.mid.data() + (i - range.a0) * width;
    double* radius = block.radius.data() + (i - range.a0) * width;
    const double* bias = bias_row(product, range, i, terms, block.bias);
    if (quick == QuickProduct::split) {
      const double low = low_norm(a, i);
      bound_split_row({.high_norm = a.norm[at] + low,  // ||a1|| <= ||a|| + ||a2||
                       .low_norm = low,
                       .grid = a.grid[at],
                       .factor = 2 * depth * kUnitRoundoff * kUp,
                       .norms = b.norm.data() + range.b0,
                       .low_norms = low_norms.data(),
                       .grids = b.grid.data() + range.b0,
                       .rest = block.rest.data() + (i - range.a0) * width,
                       .bias = bias,
                       .count = static_cast<std::size_t>(width)},
                      mid, radius);
    } else {
      bound_row({.span = a.span[at],
                 .factor = depth * kUnitRoundoff * kUp * a.norm[at],
                 .spans = b.span.data() + range.b0,
                 .norms = b.norm.data() + range.b0,
                 .bias = bias,
                 .count = static_cast<std::size_t>(width)},
                mid, radius);
    }
    set_specials(product, range, special, i, mid, radius);
  }
}

QuickBlock quick_block(const Product& product, const Range& range, QuickProduct quick) {
  Block terms, magnitudes;
  enclose_block(product, range, quick, Terms::signed_terms, terms);
  enclose_block(product, range, quick, Terms::magnitudes, magnitudes);
  // A magnitude serves by its binade. Where its own radius leaves that open, the element's radius says so.
  const auto size = static_cast<std::size_t>(range.height() * range.width());
  for (std::size_t at = 0; at < size; ++at) {
    const double m = magnitudes.mid[at], r = magnitudes.radius[at];
    if (std::isfinite(m) && r > 0 && std::ilogb(m - r) != std::ilogb(m + r))
      terms.radius[at] = std::max(terms.radius[at], r);
  }
  return {std::move(terms.mid), std::move(terms.radius), std::move(magnitudes.mid)};
}

std::shared_ptr<const QuickBlock> QuickBlocks::get(std::int64_t index, const std::function<QuickBlock()>& compute) {
  std::shared_ptr<Entry> found;
  {
    const std::lock_guard lock(mutex_);
    const auto at = std::find_if(kept_.begin(), kept_.end(), [&](const auto& entry) { return entry->index == index; });
    if (at != kept_.end()) {
      found = *at;
    } else {
      if (kept_.size() == kKept) kept_.erase(kept_.begin());
      found = std::make_shared<Entry>();
      found->index = index;
      kept_.push_back(found);
    }
  }
  std::call_once(found->once, [&] { found->block = compute(); });
  return {found, &found->block};
}

namespace {

/// One product as a truth: what round_open asks.
class ProductTruth final : public TruthSource {
 public:
  explicit ProductTruth(const Product& product) : product_(product) {}
  std::int64_t rows() const override { return product_.a->rows; }
  std::int64_t cols() const override { return product_.b->rows; }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    return matmul::enclose(product_, row, col, matmul::Effort::quick);
  }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] = enclose(row, static_cast<std::int64_t>(j));
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return matmul::compare(product_, row, col, m_hi, m_lo);
  }

 private:
  const Product& product_;
};

}  // namespace

void round_block(const Product& product, const Range& range, FormatId format, Overflow overflow, std::byte* first,
                 std::size_t row_bytes, Block& block, TierCounts& tiers) {
  enclose_block(product, range, QuickProduct::product, Terms::signed_terms, block);
  const ProductTruth truth(product);
  const auto width = static_cast<std::size_t>(range.width());
  const Format& f = format_of(format);
  std::vector<std::uint32_t> open;
  for (std::int64_t i = range.a0; i < range.a1; ++i) {
    const std::size_t at = static_cast<std::size_t>(i - range.a0) * width;
    std::byte* stored = first + static_cast<std::size_t>(i - range.a0) * row_bytes;
    open.clear();
    round_enclosed(format, overflow, {block.mid.data() + at, width}, {block.radius.data() + at, width}, stored, open);
    tiers.binary64 += static_cast<std::int64_t>(width - open.size());
    for (const std::uint32_t j : open) {
      if (block.radius[at + j] == 0) {  // an exact tie: the code is that of mid, which is c
        ++tiers.binary64;
        continue;
      }
      const std::uint64_t code = round_open(truth, i, range.b0 + j, format, overflow, tiers) << f.storage_shift();
      const auto bytes = static_cast<std::size_t>(f.storage_bytes());
      std::memcpy(stored + j * bytes, &code, bytes);
    }
  }
}

void for_blocks(std::int64_t blocks, int threads, const RoundBlock& round_one, TierCounts& tiers) {
  struct Own {
    Block block;
    TierCounts tiers;
  };
  tbb::enumerable_thread_specific<Own> own;
  share_out(blocks, 1, threads, [&](std::int64_t first, std::int64_t last) {
    Own& mine = own.local();
    for (std::int64_t index = first; index < last; ++index) round_one(index, mine.block, mine.tiers);
  });
  for (const Own& mine : own) tiers += mine.tiers;
}

}  // namespace norma::matmul
