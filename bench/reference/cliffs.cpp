// Rows on which a reference could be slow, against ordinary ones: at most three times the time of an element.
#include <fmt/core.h>

#include <functional>

#include "bench/reference/norm_work.hpp"
#include "bench/reference/reference.hpp"

namespace norma::bench {

namespace {

constexpr std::int64_t kCols = 3072, kRows = kHot / kCols;

/// A norm with its tensors.
struct Cliff {
  NormShape shape;
  Tensor x{}, weight{}, bias{};
  std::string what{};
};

Tensor filled(FormatId format, Shape shape, const std::function<double(std::int64_t)>& value) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, value(i), Overflow::ieee));
  return t;
}

Cliff ordinary(const std::string& norm, FormatId in, FormatId out, std::int64_t cols = kCols) {
  Cliff c{.shape = {.norm = norm, .in = in, .out = out, .rows = kHot / cols, .cols = cols}};
  c.x = normal_tensor(in, {c.shape.rows, cols}, 0, 1, 1);
  c.weight = normal_tensor(in, {cols}, 1, 0.1, 2);
  c.bias = normal_tensor(in, {cols}, 0, 0.1, 3);
  return c;
}

/// x in {1.5, 0.5}, ms + eps = 4, odd weights of nine bits: half of the elements lie on midpoints of bf16.
Cliff ties_rms() {
  Cliff c = ordinary("rmsnorm", FormatId::fp32, FormatId::bf16);
  c.x = filled(FormatId::fp32, {kRows, kCols}, [](std::int64_t i) { return i % 2 == 0 ? 1.5 : 0.5; });
  c.weight =
      filled(FormatId::fp32, {kCols}, [](std::int64_t i) { return static_cast<double>(257 + 2 * (i / 2 % 42)) / 256; });
  c.shape.eps = 2.75;
  c.what = "exact ties: r = 1/2, odd weights of 9 bits";
  return c;
}

/// Deviations of +-1 and eps = 0: r = 1, odd weights of nine bits: every element lies on a midpoint of bf16.
Cliff ties_layer() {
  Cliff c = ordinary("layernorm", FormatId::fp32, FormatId::bf16);
  c.x = filled(FormatId::fp32, {kRows, kCols}, [](std::int64_t i) { return i % 2 == 0 ? 1 : -1; });
  c.weight =
      filled(FormatId::fp32, {kCols}, [](std::int64_t i) { return static_cast<double>(257 + 2 * (i % 127)) / 256; });
  c.bias = filled(FormatId::fp32, {kCols}, [](std::int64_t) { return 0; });
  c.shape.eps = 0;
  c.what = "exact ties: r = 1, odd weights of 9 bits, no bias";
  return c;
}

/// Deviations of +-3 from the mean, eps = 0: r = 1/3, odd weights of nine bits: every element lies on a midpoint of bf16.
Cliff ties_third(const std::string& norm) {
  Cliff c = ordinary(norm, FormatId::fp32, FormatId::bf16);
  const double mean = norm == "layernorm" ? 1 : 0;
  c.x = filled(FormatId::fp32, {kRows, kCols}, [&](std::int64_t i) { return mean + (i % 2 == 0 ? 3 : -3); });
  c.weight =
      filled(FormatId::fp32, {kCols}, [](std::int64_t i) { return static_cast<double>(257 + 2 * (i % 127)) / 256; });
  c.bias = filled(FormatId::fp32, {kCols}, [](std::int64_t) { return 0; });
  c.shape.eps = 0;
  c.what = "exact ties: r = 1/3, odd weights of 9 bits, no bias";
  return c;
}

Cliff constant_rows(const std::string& norm, FormatId in, FormatId out, double eps) {
  Cliff c = ordinary(norm, in, out);
  c.x = filled(in, {kRows, kCols}, [](std::int64_t i) { return 1 + static_cast<double>(i / kCols % 7); });
  c.shape.eps = eps;
  c.what = fmt::format("constant rows, eps {}", eps);
  return c;
}

Cliff zero_rows(const std::string& norm) {
  Cliff c = ordinary(norm, FormatId::bf16, FormatId::fp32);
  c.x = Tensor::zeros(FormatId::bf16, {kRows, kCols});
  c.what = "zero rows";
  return c;
}

Cliff subnormal_rows(const std::string& norm) {
  Cliff c = ordinary(norm, FormatId::fp32, FormatId::fp32);
  c.x = normal_tensor(FormatId::fp32, {kRows, kCols}, 0, 0x1p-140, 1);
  c.what = "subnormal rows";
  return c;
}

void measure_cliff(const Bench& bench, const std::string& name, const Cliff& cliff, bool quick,
                   std::int64_t usual_cols = kCols) {
  if (!bench.wants(name) || (bench.quick && !quick)) return;
  const Cliff usual = ordinary(cliff.shape.norm, cliff.shape.in, cliff.shape.out, usual_cols);
  const NormWork special(cliff.shape, cliff.x, cliff.weight, cliff.bias);
  const NormWork common(usual.shape, usual.x, usual.weight, usual.bias);
  const Pages y(static_cast<std::size_t>(kHot) * sizeof(float));
  const TierCounts tiers = special.round(y.data());
  bench.report(measure_ratio({.name = name,
                              .peer = "the same on N(0, 1)",
                              .work = fmt::format("{} on 1 thread, {}; tiers {}, {}, {}", cliff.shape.text(),
                                                  cliff.what, tiers.binary64, tiers.double_double, tiers.exact),
                              .goal = 3,
                              .our_elements = static_cast<double>(cliff.shape.size() * 4),
                              .peer_elements = static_cast<double>(usual.shape.size() * 4),
                              .alone = true},
                             time_certified(special, y.data(), 4), time_certified(common, y.data(), 4),
                             bench.pairs(12)));
}

}  // namespace

bool bench_cliffs(const Bench& bench) {
  measure_cliff(bench, "cliff.rmsnorm.ties", ties_rms(), true);
  measure_cliff(bench, "cliff.layernorm.ties", ties_layer(), true);
  measure_cliff(bench, "cliff.rmsnorm.ties.third", ties_third("rmsnorm"), true);
  measure_cliff(bench, "cliff.layernorm.ties.third", ties_third("layernorm"), true);
  measure_cliff(bench, "cliff.rmsnorm.zero", zero_rows("rmsnorm"), true);
  measure_cliff(bench, "cliff.layernorm.zero", zero_rows("layernorm"), true);
  measure_cliff(bench, "cliff.rmsnorm.constant", constant_rows("rmsnorm", FormatId::bf16, FormatId::fp32, 1e-6), false);
  measure_cliff(bench, "cliff.rmsnorm.constant.no_eps", constant_rows("rmsnorm", FormatId::bf16, FormatId::bf16, 0),
                false);
  measure_cliff(bench, "cliff.layernorm.constant", constant_rows("layernorm", FormatId::bf16, FormatId::fp32, 1e-5),
                true);
  measure_cliff(bench, "cliff.rmsnorm.subnormal", subnormal_rows("rmsnorm"), false);
  measure_cliff(bench, "cliff.layernorm.subnormal", subnormal_rows("layernorm"), false);
  for (const char* norm : {"rmsnorm", "layernorm"}) {
    Cliff odd = ordinary(norm, FormatId::bf16, FormatId::fp32, 3071);
    odd.what = "3071 columns against 3072";
    measure_cliff(bench, fmt::format("cliff.{}.3071", norm), odd, true);
    Cliff narrow = ordinary(norm, FormatId::bf16, FormatId::fp32, 127);
    narrow.what = "127 columns against 128";
    measure_cliff(bench, fmt::format("cliff.{}.127", norm), narrow, false, 128);
  }
  return true;
}

}  // namespace norma::bench
