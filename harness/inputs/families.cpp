// The input families, one row each, and the loop that fills a tensor.
#include "harness/inputs/families.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "harness/inputs/random.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- draws ----

Uniforms element_draw(const InputElement& e) {
  return draw(e.key, DrawKind::element, static_cast<std::uint64_t>(e.index));
}
Uniforms row_draw(const InputElement& e) {
  return draw(e.key, DrawKind::row, static_cast<std::uint64_t>(e.row));
}
double standard_normal(const InputElement& e) { return normal_quantile(element_draw(e).first); }

/// An integer in [0, n), for n far below 2^53.
std::int64_t integer_below(double uniform, std::int64_t n) {
  return std::min(static_cast<std::int64_t>(uniform * static_cast<double>(n)), n - 1);
}
double random_sign(double uniform) { return uniform < 0.5 ? -1.0 : 1.0; }
/// 2^k for a normal k, without libm.
double power_of_two(int k) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(k + 1023) << 52);
}

// ---- rules ----

std::string never(const InputSpec&) { return {}; }

double normal(const InputElement& e) { return standard_normal(e); }
double uniform(const InputElement& e) { return 2 * element_draw(e).first - 1; }

// Student's t with two degrees of freedom: its quantile needs no more than a root.
double heavy_tailed(const InputElement& e) {
  const double u = element_draw(e).first;
  return (2 * u - 1) / std::sqrt(2 * u * (1 - u));
}

// One channel in every block of 512 (or of the whole row if it is shorter); the same channels and
// signs in every row, as in trained transformers. Source: Sun et al., "Massive Activations in Large
// Language Models", 2024.
constexpr std::int64_t kMassiveBlock = 512;
double massive(const InputElement& e) {
  const std::int64_t block = e.col / kMassiveBlock;
  const std::int64_t begin = block * kMassiveBlock;
  const std::int64_t width = std::min(kMassiveBlock, e.cols - begin);
  const Uniforms chosen = draw(e.key, DrawKind::column_block, static_cast<std::uint64_t>(block));
  const double z = standard_normal(e);
  if (e.col - begin != integer_below(chosen.first, width)) return z;
  return random_sign(chosen.second) * 1000 * (1 + 0.1 * z);
}

/// The row's constant in [1.25, 1.75), a number of the format: a step of the format away stays in
/// [1, 2).
double row_constant(const InputElement& e) {
  const int p = std::max(format_of(e.format).precision, 3);
  const double steps = power_of_two(p - 1);
  return 1.25 + static_cast<double>(
                    integer_below(row_draw(e).first, static_cast<std::int64_t>(steps / 2))) /
                    steps;
}
double near_constant(const InputElement& e) {
  const auto step = static_cast<double>(integer_below(element_draw(e).first, 3) - 1);
  return row_constant(e) + step / power_of_two(format_of(e.format).precision - 1);
}

/// Mean over standard deviation: as large as the format resolves with three bits to spare, at most
/// 2^12.
int mean_exponent(FormatId format) { return std::clamp(format_of(format).precision - 3, 2, 12); }
double huge_mean(const InputElement& e) {
  return random_sign(row_draw(e).first) * power_of_two(mean_exponent(e.format)) +
         standard_normal(e);
}

// Squares stay inside binary32: (2 * 2^50)^2 * cols for cols up to 2^24.
double wide_exponents(const InputElement& e) {
  const int low = std::max(format_of(e.format).emin, -62);
  const int high = std::min(format_of(e.format).emax - 1, 50);
  const Uniforms u = element_draw(e);
  const int exponent = low + static_cast<int>(integer_below(u.first, high - low + 1));
  const double significand = 2 * u.second - 1;  // its sign is the element's
  return (significand < 0 ? significand - 1 : significand + 1) * power_of_two(exponent);
}

double subnormal(const InputElement& e) {
  const Uniforms u = element_draw(e);
  const std::int64_t last = std::int64_t{1}
                            << format_of(e.format).mantissa_bits();  // the least normal number
  return random_sign(u.second) * static_cast<double>(1 + integer_below(u.first, last - 1)) *
         min_subnormal(e.format);
}

std::string refuse_fp16_edge(const InputSpec& spec) {
  if (max_finite(spec.format) >= 257) return {};
  return fmt::format("needs numbers about 256, and {} ends at {}", name_of(spec.format),
                     max_finite(spec.format));
}
double fp16_edge(const InputElement& e) {
  const Uniforms u = element_draw(e);
  return random_sign(u.second) * (255 + 2 * u.first);
}

double eps_scale(double eps) { return std::sqrt(eps) * 0x1p-8; }
std::string refuse_eps_dominated(const InputSpec& spec) {
  if (!(spec.eps > 0)) return "needs eps above 0";
  if (eps_scale(spec.eps) >= 4 * min_subnormal(spec.format)) return {};
  return fmt::format("needs numbers about sqrt(eps)/256, below what {} resolves",
                     name_of(spec.format));
}
double eps_dominated(const InputElement& e) { return eps_scale(e.eps) * standard_normal(e); }

double zeros(const InputElement&) { return 0; }
double ones(const InputElement&) { return 1; }
double constant(const InputElement& e) { return row_constant(e); }

double one_outlier(const InputElement& e) {
  const Uniforms chosen = row_draw(e);
  if (e.col == integer_below(chosen.first, e.cols)) return random_sign(chosen.second) * 0x1p13;
  return standard_normal(e);
}

std::string refuse_exact_sums(const InputSpec& spec) {
  const std::int64_t cols = spec.shape.empty() ? 1 : spec.shape.back();
  if (cols <= (1 << 20)) return {};
  return fmt::format("needs at most 2^20 columns, and there are {}", cols);
}
double exact_sums(const InputElement& e) {
  return static_cast<double>(integer_below(element_draw(e).first, 9) - 4);
}

double sprinkled(const InputElement& e) {
  const std::int64_t at = integer_below(row_draw(e).first, e.cols);
  if (e.col == at) {
    switch (e.row % 4) {
      case 0: return std::numeric_limits<double>::quiet_NaN();
      case 2: return kInfinity;
      case 3: return -kInfinity;
      default: break;  // every fourth row stays finite
    }
  }
  return standard_normal(e);
}

double weight_normal(const InputElement& e) { return 1 + 0.1 * standard_normal(e); }
double small_normal(const InputElement& e) { return 0.1 * standard_normal(e); }
double linear_normal(const InputElement& e) { return standard_normal(e) / std::sqrt(static_cast<double>(e.cols)); }
double scale_uniform(const InputElement& e) { return 0.03125 * (1 + element_draw(e).first); }
double variance_uniform(const InputElement& e) { return 0.5 + 1.5 * element_draw(e).first; }

constexpr InputFamily kFamilies[] = {
    {"normal", 1, "standard normal", "roundings of ordinary rows",
     "mean about 0, deviation about 1", never, normal},
    {"uniform", 1, "uniform in (-1, 1)", "roundings of bounded rows", "|x| <= 1", never, uniform},
    {"heavy_tailed", 1, "Student's t with 2 degrees of freedom", "sums that a few squares dominate",
     "no finite variance", never, heavy_tailed},
    {"massive", 1, "normal, but one channel in 512 about 1000 times larger, the same in every row",
     "fp16 squares that overflow; small outputs that lose their bits",
     "each block of 512 columns has one |x| about 1000 (or the format's maximum)", never, massive},
    {"near_constant", 1, "a constant per row, give or take one ulp",
     "variance as E[x^2] - mean^2, which cancels", "max - min of a row is at most 2 ulp", never,
     near_constant},
    {"huge_mean", 1, "mean up to 4096 deviations, as far as the format resolves them",
     "one-pass variance; means summed in too few bits", "|mean| >= 3 deviations", never, huge_mean},
    {"wide_exponents", 1,
     "log-uniform magnitudes over the format's exponents, from 2^-62 to 2^50 at most",
     "wrong orders and accumulators; underflow of small outputs",
     "the sum of squares fits binary32", never, wide_exponents},
    {"subnormal", 1, "subnormal numbers of the format", "flushing to zero; eps lost or alone",
     "0 < |x| < the least normal number", never, subnormal},
    {"fp16_edge", 1, "255 <= |x| <= 257, either sign", "squares taken in fp16, which ends at 65504",
     "refuses formats that end below 257", refuse_fp16_edge, fp16_edge},
    {"eps_dominated", 1, "normal with deviation sqrt(eps)/256",
     "eps in the wrong place, rounded, or left out",
     "mean square about eps/65536; refuses eps=0 and formats too coarse", refuse_eps_dominated,
     eps_dominated},
    {"zeros", 1, "all +0", "division by zero when eps is lost", "all +0", never, zeros},
    {"ones", 1, "all 1", "wrong counts and offsets", "all 1", never, ones},
    {"constant", 1, "a constant per row in [1.25, 1.75)", "a variance that should be 0 and is not",
     "equal values in a row", never, constant},
    {"one_outlier", 1, "normal, but one element per row is 8192 (or the format's maximum)",
     "sequential sums that lose the small squares after the large one", "one |x| >= 8192 per row",
     never, one_outlier},
    {"exact_sums", 1, "integers from -4 to 4",
     "misread layouts and lost elements: sums are exact in any order",
     "sums and sums of squares are exact in binary32; refuses more than 2^20 columns",
     refuse_exact_sums, exact_sums},
    {"sprinkled", 1, "normal; of four rows one has a NaN, one is finite, one has +Inf, one -Inf",
     "NaN and Inf that are swallowed or spread to other rows", "the first row has one NaN", never,
     sprinkled},
    {"weight_normal", 1, "1 + 0.1 normal", "the default weight", "about 1", never, weight_normal},
    {"small_normal", 1, "0.1 normal", "the default bias, and weight where weight_offset is 1",
     "about 0", never, small_normal},
    {"linear_normal", 1, "normal / sqrt(columns)", "the default matrix of a linear layer", "a row's norm about 1", never,
     linear_normal},
    {"scale_uniform", 1, "uniform in (1/32, 1/16)", "the default scale of a quantized output",
     "positive", never, scale_uniform},
    {"variance_uniform", 1, "uniform in (1/2, 2)", "the default running variance", "positive", never,
     variance_uniform},
};

InputElement element_at(const InputSpec& spec, std::uint64_t key, std::int64_t index) {
  const std::int64_t cols = spec.shape.empty() ? 1 : spec.shape.back();
  return {.key = key,
          .index = index,
          .row = index / cols,
          .col = index % cols,
          .cols = cols,
          .format = spec.format,
          .eps = spec.eps};
}

void require(const InputFamily& family, const InputSpec& spec) {
  if (const std::string reason = family.refuse(spec); !reason.empty())
    throw std::invalid_argument(fmt::format("input family '{}' {}", family.name, reason));
}

void fill(const InputFamily& family, const InputSpec& spec, std::int64_t begin, std::int64_t end,
          Tensor& tensor) {
  constexpr std::int64_t kChunk = 1024;
  const std::uint64_t key = stream_key(spec.seed, spec.tensor);
  const auto stride = static_cast<std::size_t>(format_of(spec.format).storage_bytes());
  std::vector<double> values(kChunk);
  for (std::int64_t at = begin; at < end; at += kChunk) {
    const auto count = static_cast<std::size_t>(std::min(kChunk, end - at));
    for (std::size_t i = 0; i < count; ++i)
      values[i] = family.value(element_at(spec, key, at + static_cast<std::int64_t>(i)));
    encode_row(spec.format, values.data(),
               tensor.bytes.data() + static_cast<std::size_t>(at) * stride, count,
               Overflow::saturate_finite);
  }
}

}  // namespace

std::span<const InputFamily> all_families() { return kFamilies; }

const InputFamily* find_family(std::string_view name) {
  const auto at = std::ranges::find(kFamilies, name, &InputFamily::name);
  return at == std::end(kFamilies) ? nullptr : at;
}

std::string versioned_name(const InputFamily& family) {
  return fmt::format("{}/{}", family.name, family.version);
}

Tensor generate(const InputFamily& family, const InputSpec& spec, int threads) {
  require(family, spec);
  Tensor tensor = Tensor::zeros(spec.format, spec.shape);
  const std::int64_t size = tensor.size();
  const std::int64_t parts = std::clamp<std::int64_t>(size / 65536, 1, std::max(threads, 1));
  std::vector<std::jthread> workers;
  for (std::int64_t part = 1; part < parts; ++part)
    workers.emplace_back([&, part] {
      fill(family, spec, size / parts * part, part + 1 == parts ? size : size / parts * (part + 1),
           tensor);
    });
  fill(family, spec, 0, parts == 1 ? size : size / parts, tensor);
  workers.clear();
  return tensor;
}

std::uint64_t generate_element(const InputFamily& family, const InputSpec& spec,
                               std::int64_t index) {
  require(family, spec);
  return encode(spec.format,
                family.value(element_at(spec, stream_key(spec.seed, spec.tensor), index)),
                Overflow::saturate_finite);
}

}  // namespace norma
