// Bounds for any order. u = 2^-24, g(n) = n u / (1 - n u).
//
// Products: a term of a sum of n products passes its own rounding and at most n - 1 additions, the bias one more: the
// computed sum is off by at most g(n + 1) S, S = sum |a b| + |bias| (Higham, Accuracy and Stability of Numerical
// Algorithms, 2002, section 3.1 and problem 3.3: for any order of evaluation). What underflows or is flushed is below
// 2^-126 an operation. Storing in a format of p bits adds 2^-p of the size, or half the least subnormal.
// Codes with scales: a term passes two roundings more where its block's sum is scaled, and three where the codes or the two
// scales are multiplied first; S has the scaled magnitudes, and what a block's sum loses is scaled with it.
//
// Attention: y = sum p_j v_j, p_j = e^(s_j) / sum e^(s_k). A score is off by at most
//   sigma = e + u_s (1 + u_s) (|s| + e),  e = g(D + 3) |scale| sum |q k|,
// u_s of the formats that the product and the score are stored in, together. e^(s - max) is off by the factor
// e^(+-sigma), by the subtraction's u R with R the range of scores, and by 2^-19 of its own; for each of B blocks of keys a
// factor e^(m - m') does the same. So a weight is off by a factor within 1 +- h,
//   h = (1 + 2^-18)^(B + 1) e^(sigma + (B + 1) u R) - 1,
// the stored one by 1 +- u_p more; numerator and denominator sums by g(keys + 2 B), the quotient by 2 u:
//   |error| <= sum p_j |v_j| ((1 + h)(1 + u_p)(1 + g)(1 + 4 u) / ((1 - h)(1 - g)) - 1).
#include "reference/certified/blocks/product_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "reference/certified/blocks/patches.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnit = 0x1p-24;
constexpr double kFlushed = 0x1p-125;   // of a product and the addition after it
constexpr double kSlack = 1 + 0x1p-30;  // all roundings of a bound itself

double gamma(double n) { return n * kUnit / (1 - n * kUnit); }

std::vector<double> magnitudes(const Tensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  for (double& v : values) v = std::fabs(v);
  return values;
}

double unit_of(const Rounding& rounding) {
  return rounding.format ? std::ldexp(1.0, -format_of(rounding.format->id).precision) : 0;
}

/// What storing a value of at most `size` adds; infinite where it may overflow.
double storing(const Rounding& rounding, double size) {
  if (!rounding.format) return 0;
  if (!(size <= max_finite(rounding.format->id))) return kInfinity;
  return unit_of(rounding) * size + min_subnormal(rounding.format->id);
}

/// From S, the sum of |terms| with |bias|, to the bound of the stored value.
double bound_of(double terms, double bias, double depth, BiasPlace place, const Rounding& rounding, double meant,
                double flushed = kFlushed) {
  const double sum = (terms + bias) * kSlack;
  double error = gamma(depth + 1) * sum + (depth + 1) * flushed;
  if (place == BiasPlace::after && bias != 0) {  // stored, then added in binary32
    error += storing(rounding, std::fabs(meant) + bias + error);
    error += gamma(1) * (std::fabs(meant) + error) + kFlushed;  // of the sum, which is at most that
  }
  return (error + storing(rounding, std::fabs(meant) + error)) * kSlack;
}

/// |codes| times their scales; what 1 becomes at most.
double scale_magnitudes(std::vector<double>& codes, const Tensor& of, const Tensor& scales, std::int64_t block) {
  const std::vector<double> s = magnitudes(scales);
  const ScaleLayout layout = scale_layout(of.shape, scales.shape, block);
  const std::int64_t depth = of.shape.back();
  for (std::int64_t i = 0; i < of.size(); ++i)
    codes[static_cast<std::size_t>(i)] *= s[static_cast<std::size_t>(layout.at(i / depth, i % depth / block))];
  return 1 + *std::ranges::max_element(s);
}

std::vector<double> bound(const LinearSite& what, const std::vector<const Tensor*>& arguments, const RealTensor& meant,
                          int threads) {
  constexpr std::int64_t kSlab = 256;
  const std::int64_t depth = arguments[1]->shape[1], cols = arguments[1]->shape[0], rows = arguments[0]->size() / depth;
  std::vector<double> a = magnitudes(*arguments[0]);
  std::vector<double> b = magnitudes(*arguments[1]);
  const std::size_t before_bias = what.block == 0 ? 2 : 4;
  const std::vector<double> bias = arguments.size() > before_bias ? magnitudes(*arguments[before_bias]) : std::vector<double>{};
  double roundings = static_cast<double>(depth), flushed = kFlushed;
  if (what.block != 0) {
    roundings += 3;
    flushed *= scale_magnitudes(a, *arguments[0], *arguments[2], what.block);
    flushed *= scale_magnitudes(b, *arguments[1], *arguments[3], what.block);
  }
  std::vector<double> bounds(static_cast<std::size_t>(rows * cols));
  share_out((cols + kSlab - 1) / kSlab, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t slab = first; slab < last; ++slab) {
      const std::int64_t j0 = slab * kSlab, width = std::min(kSlab, cols - j0);
      dgemm({.m = rows, .n = width, .k = depth, .a = a.data(), .lda = depth, .b = b.data() + j0 * depth, .ldb = depth,
             .c = bounds.data() + j0, .ldc = cols, .accumulate = false});
    }
  });
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    double& to = bounds[static_cast<std::size_t>(i)];
    to = bound_of(to, bias.empty() ? 0 : bias[static_cast<std::size_t>(i % cols)], roundings, what.bias, what.rounding,
                  meant.at(i).h, flushed);
  }
  return bounds;
}

std::vector<double> bound(const ConvolutionSite& what, const std::vector<const Tensor*>& arguments, const RealTensor& meant,
                          int threads) {
  constexpr std::int64_t kSlab = 256;
  const Shape &xs = arguments[0]->shape, &ws = arguments[1]->shape, &ys = meant.shape;
  const std::vector<double> x = magnitudes(*arguments[0]), w = magnitudes(*arguments[1]);
  const std::vector<double> bias = arguments.size() > 2 ? magnitudes(*arguments[2]) : std::vector<double>{};
  const std::int64_t each = ws[0] / what.groups, depth = ws[1] * ws[2] * ws[3], positions = ys[2] * ys[3];
  std::vector<double> bounds(static_cast<std::size_t>(meant.size()));
  for (std::int64_t group = 0; group < what.groups; ++group) {
    const std::vector<double> patches = patches_of(x, what, xs, ws, ys, group, {0, xs[0] * positions}, threads);
    // One image's pixels are the columns of its outputs.
    const std::int64_t slabs = (positions + kSlab - 1) / kSlab;
    share_out(xs[0] * slabs, 1, threads, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t at = first; at < last; ++at) {
        const std::int64_t n = at / slabs, p = at % slabs * kSlab;
        dgemm({.m = each, .n = std::min(kSlab, positions - p), .k = depth, .a = w.data() + group * each * depth, .lda = depth,
               .b = patches.data() + (n * positions + p) * depth, .ldb = depth,
               .c = bounds.data() + (n * ys[1] + group * each) * positions + p, .ldc = positions, .accumulate = false});
      }
    });
  }
  for (std::int64_t i = 0; i < meant.size(); ++i) {
    double& to = bounds[static_cast<std::size_t>(i)];
    to = bound_of(to, bias.empty() ? 0 : bias[static_cast<std::size_t>(i / positions % ys[1])], static_cast<double>(depth),
                  what.bias, what.rounding, meant.at(i).h);
  }
  return bounds;
}

std::vector<double> values_of(const Tensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

std::vector<double> bound(const AttentionSite& what, const std::vector<const Tensor*>& arguments, const RealTensor& meant,
                          int threads) {
  const Shape &qs = arguments[0]->shape, &ks = arguments[1]->shape, &vs = arguments[2]->shape;
  const std::vector<double> q = values_of(*arguments[0]), k = values_of(*arguments[1]), v = values_of(*arguments[2]);
  const std::int64_t queries = qs[2], keys = ks[2], size = qs[3], width = vs[3], shared = qs[1] / ks[1];
  const double scale = what.scale.value_or(1 / std::sqrt(static_cast<double>(size)));
  const double blocks = std::ceil(static_cast<double>(keys) / 32);
  std::vector<double> bounds(static_cast<std::size_t>(meant.size()));
  share_out(qs[0] * qs[1], 1, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> scores(static_cast<std::size_t>(keys));
    for (std::int64_t head = begin; head < end; ++head) {
      const std::int64_t of_keys = head / qs[1] * ks[1] + head % qs[1] / shared;
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t seen = what.causal ? std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys) : keys;
        double sigma = 0, largest = -kInfinity, least = kInfinity;
        for (std::int64_t j = 0; j < seen; ++j) {
          double sum = 0, terms = 0;
          for (std::int64_t d = 0; d < size; ++d) {
            const double product = q[static_cast<std::size_t>((head * queries + i) * size + d)] *
                                   k[static_cast<std::size_t>((of_keys * keys + j) * size + d)];
            sum += product;
            terms += std::fabs(product);
          }
          const double score = scale * sum;
          scores[static_cast<std::size_t>(j)] = score;
          const double computed = gamma(static_cast<double>(size) + 3) * std::fabs(scale) * terms +
                                  static_cast<double>(size) * kFlushed;
          const double stored = unit_of(what.products) + unit_of(what.scores);
          sigma = std::max(sigma, computed + stored * (1 + stored) * (std::fabs(score) + computed));
          largest = std::max(largest, score), least = std::min(least, score);
        }
        double total = 0;
        for (std::int64_t j = 0; j < seen; ++j) {
          double& score = scores[static_cast<std::size_t>(j)];
          score = std::exp(score - largest);
          total += score;
        }
        const double range = seen > 0 ? largest - least + 2 * sigma : 0;
        const double h = std::pow(1 + 0x1p-18, blocks + 1) * std::exp(sigma + (blocks + 1) * kUnit * range) - 1;
        const double sums = gamma(static_cast<double>(keys) + 2 * blocks);
        const double factor = h < 0.5 ? (1 + h) * (1 + unit_of(what.probabilities)) * (1 + sums) * (1 + 4 * kUnit) /
                                                ((1 - h) * (1 - sums)) -
                                            1
                                      : kInfinity;
        for (std::int64_t c = 0; c < width; ++c) {
          double size_of = 0, largest_v = 0;
          for (std::int64_t j = 0; j < seen; ++j) {
            const double magnitude = std::fabs(v[static_cast<std::size_t>((of_keys * keys + j) * width + c)]);
            size_of += scores[static_cast<std::size_t>(j)] / total * magnitude;
            largest_v = std::max(largest_v, magnitude);
          }
          const std::int64_t at = (head * queries + i) * width + c;
          // Probabilities that are stored below the least subnormal of their format.
          const double lost = what.probabilities.format
                                  ? static_cast<double>(keys) * min_subnormal(what.probabilities.format->id) * largest_v * 2
                                  : 0;
          const double error = factor * size_of * kSlack + lost + static_cast<double>(keys) * kFlushed * (1 + largest_v);
          bounds[static_cast<std::size_t>(at)] =
              (error + storing(what.rounding, std::fabs(meant.at(at).h) + error)) * kSlack;
        }
      }
    }
  });
  return bounds;
}

}  // namespace

std::vector<double> any_order_bound(const Site& site, const std::vector<const Tensor*>& arguments, const RealTensor& meant,
                                    int threads) {
  if (const auto* linear = std::get_if<LinearSite>(&site.what)) return bound(*linear, arguments, meant, threads);
  if (const auto* attention = std::get_if<AttentionSite>(&site.what)) return bound(*attention, arguments, meant, threads);
  if (const auto* convolution = std::get_if<ConvolutionSite>(&site.what))
    return bound(*convolution, arguments, meant, threads);
  throw std::invalid_argument("site " + site.name() + " is no product: its order is declared.");
}

}  // namespace norma
