// How much memory a streamed problem takes, by the kernel's count of this process's largest resident set.
#include <fmt/core.h>

#include <cstring>
#include <fstream>
#include <optional>

#include "bench/ratio.hpp"
#include "bench/reference/plain.hpp"
#include "bench/reference/reference.hpp"
#include "reference/certified/rows/row_norm.hpp"
#include "reference/norms/affine.hpp"

namespace norma::bench {

namespace {

constexpr double kGiB = 0x1p30;

/// Bytes of a line of /proc/self/status; empty: there is none.
std::optional<double> status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  return std::nullopt;
}

/// What the largest resident set was above the present one, while `body` ran.
template <class Body>
std::optional<double> growth(Body body) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the largest is the present one
  const std::optional<double> before = status_bytes("VmRSS");
  body();
  const std::optional<double> most = status_bytes("VmHWM");
  if (!before || !most) return std::nullopt;
  return *most - *before;
}

void report_growth(const Bench& bench, const std::string& name, const std::string& work, std::optional<double> bytes,
                   double goal_bytes) {
  if (!bytes) {
    bench.say(fmt::format("left out {}: there is no /proc/self/status here", name));
    return;
  }
  bench.report(ratio_line({.name = name,
                           .peer = goal_bytes >= kGiB ? "1 GiB" : fmt::format("{:.0f} MiB", goal_bytes * 0x1p-20),
                           .work = fmt::format("{}; {:.1f} MiB", work, *bytes * 0x1p-20),
                           .goal = 1},
                          {*bytes / goal_bytes}));
}

/// 10^9 elements that come in slabs of rows, each rounded and scored, none kept: rows are norms of their own, so that a
/// caller may cut a tensor anywhere between rows.
void streamed(const Bench& bench) {
  const std::string name = "memory.stream";
  if (!bench.wants(name) || bench.quick) return;
  constexpr std::int64_t kCols = 3072, kRows = 512, kSlabs = 640;  // 1.007e9 elements
  const Tensor pool = normal_tensor(FormatId::bf16, {kRows + 64, kCols}, 0, 1, 1);
  const Tensor weight = normal_tensor(FormatId::bf16, {kCols}, 1, 0.1, 2);
  std::int64_t rounded = 0, scored = 0;
  const double start = seconds_now();
  const std::optional<double> bytes = growth([&] {
    Tensor x = Tensor::zeros(FormatId::bf16, {kRows, kCols});
    const RowNorm norm{.rows = kRows,
                       .cols = kCols,
                       .x = &x,
                       .groups = kRows,
                       .count = kCols,
                       .eps = 1e-6,
                       .weight = {.tensor = &weight}};
    for (std::int64_t slab = 0; slab < kSlabs; ++slab) {
      std::memcpy(x.bytes.data(), pool.bytes.data() + slab % 64 * kCols * 2, x.bytes.size());
      const auto exact = affine_truth(norm);
      const RoundedRows rows = round_rows(norm, *exact, FormatId::fp32, Overflow::ieee, bench.threads);
      rounded += rows.y.size() - rows.tiers.undecided;
      scored += score_rows(norm, *exact, rows.y, bench.threads).scored;
    }
  });
  report_growth(bench, name,
                fmt::format("rmsnorm bf16 to fp32, {} rows of {} in slabs of {}, {} elements rounded and {} scored in "
                            "{:.1f} s on {} threads",
                            kRows * kSlabs, kCols, kRows, rounded, scored, seconds_now() - start, bench.threads),
                bytes, kGiB);
}

/// A tensor in memory: what scoring it takes beside input and output.
void in_flight(const Bench& bench) {
  const std::string name = "memory.rows_in_flight";
  if (!bench.wants(name)) return;
  constexpr std::int64_t kCols = 3072, kRows = (std::int64_t{1} << 24) / kCols;
  const Tensor x = normal_tensor(FormatId::bf16, {kRows, kCols}, 0, 1, 1, bench.threads);
  const Tensor weight = normal_tensor(FormatId::bf16, {kCols}, 1, 0.1, 2);
  const RowNorm norm{.rows = kRows,
                     .cols = kCols,
                     .x = &x,
                     .groups = kRows,
                     .count = kCols,
                     .eps = 1e-6,
                     .weight = {.tensor = &weight}};
  const auto exact = affine_truth(norm);
  const Tensor y = round_rows(norm, *exact, FormatId::bf16, Overflow::ieee, bench.threads).y;
  std::int64_t scored = 0;
  const std::optional<double> bytes = growth([&] { scored = score_rows(norm, *exact, y, bench.threads).scored; });
  report_growth(bench, name,
                fmt::format("rmsnorm bf16 to bf16, {}x{} in memory: scoring {} elements on {} threads", kRows, kCols,
                            scored, bench.threads),
                bytes, 0x1p26);
}

}  // namespace

bool bench_memory(const Bench& bench) {
  in_flight(bench);
  streamed(bench);
  return true;
}

}  // namespace norma::bench
