// Orders of a product's sums. A panel of columns at a time, transposed, so that a loop over columns vectorizes; every
// element's own order is that of its terms.
#include "impls/emulate/products.hpp"

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "impls/emulate/orders.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr std::int64_t kPanel = 32;  // columns at a time
constexpr std::int64_t kRows = 4;    // rows that share a panel's loads

/// sums[r][c] over terms [from, to) of kRows rows, going on from what stands there. panel[k][c].
NORMA_FMA_CLONES void fused_terms(const float* const* a, const float* panel, std::int64_t from, std::int64_t to,
                                  float* sums) {
  float s[kRows * kPanel];
  for (std::int64_t i = 0; i < kRows * kPanel; ++i) s[i] = sums[i];
  for (std::int64_t k = from; k < to; ++k)
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float x = a[r][k];
      for (std::int64_t c = 0; c < kPanel; ++c)
        s[r * kPanel + c] = std::fma(x, panel[k * kPanel + c], s[r * kPanel + c]);
    }
  for (std::int64_t i = 0; i < kRows * kPanel; ++i) sums[i] = s[i];
}

NORMA_FMA_CLONES void rounded_terms(const float* const* a, const float* panel, std::int64_t from, std::int64_t to,
                                    float* sums) {
  float s[kRows * kPanel];
  for (std::int64_t i = 0; i < kRows * kPanel; ++i) s[i] = sums[i];
  for (std::int64_t k = from; k < to; ++k)
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float x = a[r][k];
      for (std::int64_t c = 0; c < kPanel; ++c) {
        const float product = x * panel[k * kPanel + c];
        s[r * kPanel + c] = s[r * kPanel + c] + product;
      }
    }
  for (std::int64_t i = 0; i < kRows * kPanel; ++i) sums[i] = s[i];
}

/// `value` cut off toward zero to binary32.
float cut_off(double value) {
  const auto nearest = static_cast<float>(value);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(value) ? std::nextafterf(nearest, 0.0f) : nearest;
}

/// The accumulator and `count` products at once: each a multiple of 2^-25 of the largest's power of two, cut off toward
/// zero, their sum cut off to binary32. Source: what Fasi, Higham, Mikaitis, Pranesh (PeerJ CS 7:e330, 2021) found of
/// tensor cores, with the two extra bits that later ones keep.
float tensor_core_step(float accumulator, const float* a, const float* b, std::int64_t stride, std::int64_t count) {
  double largest = std::fabs(static_cast<double>(accumulator));
  bool special = !std::isfinite(accumulator);
  double plain = static_cast<double>(accumulator);
  for (std::int64_t k = 0; k < count; ++k) {
    const double product = static_cast<double>(a[k]) * static_cast<double>(b[k * stride]);
    special = special || !std::isfinite(product);
    plain += product;
    largest = std::max(largest, std::fabs(product));
  }
  if (special) return static_cast<float>(plain);
  if (largest == 0) return accumulator;
  const double unit = std::ldexp(1.0, std::ilogb(largest) - 25);
  double sum = std::trunc(static_cast<double>(accumulator) / unit) * unit;
  for (std::int64_t k = 0; k < count; ++k) {
    const double product = static_cast<double>(a[k]) * static_cast<double>(b[k * stride]);
    sum += std::trunc(product / unit) * unit;  // exact: few multiples of one unit
  }
  return cut_off(sum);
}

float exact_element(const ProductCall& call, std::int64_t row, const float* panel, std::int64_t col, float start,
                    std::vector<double>& terms) {
  terms.assign(1, static_cast<double>(start));
  bool finite = std::isfinite(start);
  double plain = static_cast<double>(start);
  for (std::int64_t k = 0; k < call.depth; ++k) {
    const double product =
        static_cast<double>(call.a[row * call.depth + k]) * static_cast<double>(panel[k * kPanel + col]);
    finite = finite && std::isfinite(product);
    plain += product;
    terms.push_back(product);
  }
  return static_cast<float>(finite ? exact_sum(terms, FormatId::fp32, Overflow::ieee) : plain);
}

/// Terms a block adds before its sum joins the others; the depth: one block.
std::int64_t block_of(const ProductSum& sum, std::int64_t depth) {
  switch (sum.order) {
    case ProductOrder::blocked: return sum.count;
    case ProductOrder::split: return std::max<std::int64_t>(1, (depth + sum.count - 1) / sum.count);
    case ProductOrder::exact:
    case ProductOrder::sequential:
    case ProductOrder::tensor_core: break;
  }
  return std::max<std::int64_t>(1, depth);
}

void one_panel(const ProductSum& sum, const ProductCall& call, std::int64_t first, float* out) {
  const std::int64_t width = std::min(kPanel, call.cols - first);
  std::vector<float> panel(static_cast<std::size_t>(call.depth * kPanel), 0.0f);
  constexpr std::int64_t kPiece = 64;  // of the depth: 8 KiB of the panel stay in the first cache
  for (std::int64_t from = 0; from < call.depth; from += kPiece)
    for (std::int64_t c = 0; c < width; ++c)
      for (std::int64_t k = from; k < std::min(from + kPiece, call.depth); ++k)
        panel[static_cast<std::size_t>(k * kPanel + c)] = call.b[(first + c) * call.depth + k];
  const auto start = [&](std::int64_t c) {
    return call.start.empty() || c >= width ? 0.0f : call.start[static_cast<std::size_t>(first + c)];
  };
  std::vector<double> terms;
  for (std::int64_t row = 0; row < call.rows; row += kRows) {
    const std::int64_t rows = std::min(kRows, call.rows - row);
    if (sum.order == ProductOrder::exact || sum.order == ProductOrder::tensor_core) {
      for (std::int64_t r = row; r < row + rows; ++r)
        for (std::int64_t c = 0; c < width; ++c) {
          float value = start(c);
          if (sum.order == ProductOrder::exact)
            value = exact_element(call, r, panel.data(), c, value, terms);
          else
            for (std::int64_t k = 0; k < call.depth; k += sum.count)
              value = tensor_core_step(value, call.a + r * call.depth + k, panel.data() + k * kPanel + c, kPanel,
                                       std::min<std::int64_t>(sum.count, call.depth - k));
          out[r * call.cols + first + c] = value;
        }
      continue;
    }
    const float* a[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) a[r] = call.a + (row + std::min(r, rows - 1)) * call.depth;
    const std::int64_t block = block_of(sum, call.depth);
    const auto add_terms = sum.contract ? fused_terms : rounded_terms;
    float total[kRows * kPanel], part[kRows * kPanel];
    for (std::int64_t i = 0; i < kRows * kPanel; ++i) total[i] = start(i % kPanel);
    if (block >= call.depth) {
      add_terms(a, panel.data(), 0, call.depth, total);
    } else {
      for (std::int64_t k = 0; k < call.depth; k += block) {
        std::fill(std::begin(part), std::end(part), 0.0f);
        add_terms(a, panel.data(), k, std::min(k + block, call.depth), part);
        for (std::int64_t i = 0; i < kRows * kPanel; ++i) total[i] = k == 0 && call.start.empty() ? part[i] : total[i] + part[i];
      }
    }
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(total + r * kPanel, width, out + (row + r) * call.cols + first);
  }
}

}  // namespace

std::vector<float> ordered_product(const ProductSum& sum, const ProductCall& call) {
  if (sum.accumulator != FormatId::fp32)
    throw ProgramError("a product accumulates in fp32, not in " + std::string(name_of(sum.accumulator)));
  const bool counted = sum.order != ProductOrder::exact && sum.order != ProductOrder::sequential;
  if (counted && sum.count < 1) throw ProgramError("a product's order " + text_of(sum) + " needs a count of at least 1");
  std::vector<float> out(static_cast<std::size_t>(call.rows * call.cols));
  const std::int64_t panels = (call.cols + kPanel - 1) / kPanel;
  const auto work = [&](std::int64_t panel) { one_panel(sum, call, panel * kPanel, out.data()); };
  if (call.threads == 1) {
    for (std::int64_t panel = 0; panel < panels; ++panel) work(panel);
  } else {
    oneapi::tbb::task_arena arena(call.threads <= 0 ? oneapi::tbb::task_arena::automatic : call.threads);
    arena.execute([&] { oneapi::tbb::parallel_for(std::int64_t{0}, panels, work); });
  }
  return out;
}

}  // namespace norma
