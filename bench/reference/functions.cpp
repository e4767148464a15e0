// Elementary functions and softmax, correctly rounded, against binary64 by the C library's vector functions.
#include "reference/certified/functions/functions.hpp"

#include <fmt/core.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "bench/ratio.hpp"
#include "bench/reference/plain.hpp"
#include "bench/reference/reference.hpp"
#include "bench/reference/slow.hpp"
#include "reference/certified/functions/softmax.hpp"
#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

constexpr std::int64_t kSoftmaxCols = 1024;
constexpr double kRate = 3e8;  ///< elements a second on one core

std::vector<float> values_of(const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

/// One function, for all of its peers.
struct Job {
  std::string name;                            ///< "silu"
  std::string what;                            ///< "silu fp32 to fp32, 786432 elements of N(0, 4^2)"
  Tensor x;                                    ///< fp32
  std::function<RoundedFunction()> certified;  ///< one thread
  std::function<void(float*)> plain;
  std::function<void(float*, std::size_t)> mpfr;  ///< of the first elements
  std::size_t mpfr_count = 0;
  std::string torch;  ///< what peer.py is asked for, without x and threads
};

bool measure_job(const Bench& bench, const Job& job) {
  const std::string name = fmt::format("function.{}.fp32", job.name);
  if (!bench.wants(name)) return true;
  const auto count = static_cast<std::size_t>(job.x.size());
  std::vector<float> y(count);
  const RoundedFunction once = job.certified();
  const std::vector<float> rounded = values_of(once.y);
  const auto elements = static_cast<double>(count);
  constexpr int kPasses = 4;
  const auto run_ours = [&] {
    TierCounts tiers;
    for (int i = 0; i < kPasses; ++i) tiers += job.certified().tiers;
    return tiers;
  };
  const Timed ours = timed_alone(run_ours);
  const auto plain = timed_alone([&] {
    for (int i = 0; i < kPasses; ++i) job.plain(y.data());
    return 0;
  });
  const std::string tiers =
      fmt::format("{} of {} elements above binary64", once.tiers.double_double + once.tiers.exact, count);
  const PlainLoops& loops = plain_loops();
  bench.report(measure_ratio({.name = name,
                              .peer = loops.vector_library ? "float64, vector functions of the C library"
                                                           : "float64, functions of the C library",
                              .work = fmt::format("{} on 1 thread, {}", job.what, tiers),
                              .goal = 1.5,
                              .our_elements = elements * kPasses,
                              .peer_elements = elements * kPasses,
                              .alone = true},
                             ours, plain, bench.pairs(25)));
  std::vector<double> shares;
  for (int i = 0; i < bench.pairs(25); ++i) shares.push_back(ours() * kRate / (elements * kPasses));
  bench.report(
      ratio_line({.name = name + ".rate",
                  .peer = "300 million elements a second",
                  .work = fmt::format("{} on 1 thread; this or the ratio to float64 is to be reached", job.what),
                  .goal = 1},
                 shares));
  if (!bench.quick) {
    bench.report(measure_ratio({.name = name + ".mpfr113",
                                .peer = "naive MPFR, 113 bits",
                                .work = fmt::format("{} on 1 thread; the peer does {}", job.what, job.mpfr_count),
                                .our_elements = elements * kPasses,
                                .peer_elements = static_cast<double>(job.mpfr_count),
                                .alone = true},
                               ours, timed_alone([&] {
                                 job.mpfr(y.data(), job.mpfr_count);
                                 return 0;
                               }),
                               bench.pairs(8)));
    const std::vector<float> x = values_of(job.x);
    for (std::size_t i = 0; i < job.mpfr_count; ++i) {
      // 1 + erf and 1 + tanh cancel far out: the naive peer keeps 2^-113 of 1 times x.
      if (std::fabs(y[i] - rounded[i]) <= 0x1p-110f * std::fabs(x[i])) continue;
      bench.say(fmt::format("{}: element {} is {} here, {} in 113 bits: not the same work", name, i, rounded[i], y[i]));
      return false;
    }
    if (bench.torch != nullptr) {
      const std::string file = bench.folder + "/x";
      std::ofstream(file, std::ios::binary)
          .write(reinterpret_cast<const char*>(job.x.bytes.data()), static_cast<std::streamsize>(job.x.bytes.size()));
      bench.torch->prepare(fmt::format("{} threads=1 format=fp32 x={}", job.torch, file));
      bench.report(measure_ratio(
          {.name = name + ".torch64",
           .peer = bench.torch->name() + " float64",
           .work = fmt::format("{} on 1 thread", job.what),
           .our_elements = elements * kPasses,
           .peer_elements = elements},
          timed(run_ours), [&] { return bench.torch->run(); }, bench.pairs(12)));
    }
  }
  // Both sides round to fp32 once; binary64's last bits change about one in 10^7 of the results, a cancelling
  // 1 + erf, far out, more.
  job.plain(y.data());
  std::size_t equal = 0;
  for (std::size_t i = 0; i < count; ++i) equal += y[i] == rounded[i] ? 1 : 0;
  const double share = static_cast<double>(equal) / elements;
  if (share > 0.8 && once.tiers.undecided == 0) return true;
  bench.say(fmt::format("{}: {:.6f} of the elements are equal on both sides, {} undecided: not the same work", name,
                        share, once.tiers.undecided));
  return false;
}

Job function_job(const std::string& name, Function f, PlainFunction plain, std::size_t mpfr_count) {
  auto x = std::make_shared<const Tensor>(normal_tensor(FormatId::fp32, {kHot}, 0, 4, 6));
  const std::shared_ptr<const std::vector<float>> values = std::make_shared<const std::vector<float>>(values_of(*x));
  return {.name = name,
          .what = fmt::format("{} fp32 to fp32, {} elements of N(0, 4^2)", name, kHot),
          .x = *x,
          .certified = [x, f] { return round_function(f, *x, FormatId::fp32, Overflow::ieee, 1); },
          .plain = [values, plain](float* y) { plain_loops().function(plain, values->data(), y, values->size()); },
          .mpfr = [values, name](float* y, std::size_t count) { mpfr_function(name, values->data(), y, count); },
          .mpfr_count = mpfr_count,
          .torch = fmt::format("function64 function={} count={}", name, kHot)};
}

Job softmax_job() {
  auto x = std::make_shared<const Tensor>(normal_tensor(FormatId::fp32, {kHot / kSoftmaxCols, kSoftmaxCols}, 0, 4, 6));
  const std::shared_ptr<const std::vector<float>> values = std::make_shared<const std::vector<float>>(values_of(*x));
  return {.name = "softmax",
          .what = fmt::format("softmax fp32 to fp32, {}x{} of N(0, 4^2)", kHot / kSoftmaxCols, kSoftmaxCols),
          .x = *x,
          .certified =
              [x] {
                RoundedRows rows = round_softmax(*x, FormatId::fp32, Overflow::ieee, 1);
                return RoundedFunction{std::move(rows.y), rows.tiers};
              },
          .plain =
              [values, row = std::make_shared<std::vector<double>>(kSoftmaxCols)](float* y) {
                plain_loops().softmax(values->data(), y, values->size() / kSoftmaxCols, kSoftmaxCols, row->data());
              },
          .mpfr = [values](float* y,
                           std::size_t count) { mpfr_softmax(values->data(), y, count / kSoftmaxCols, kSoftmaxCols); },
          .mpfr_count = 8 * kSoftmaxCols,
          .torch = fmt::format("softmax64 rows={} cols={}", kHot / kSoftmaxCols, kSoftmaxCols)};
}

}  // namespace

bool bench_functions(const Bench& bench) {
  bool right = measure_job(bench, function_job("silu", Function::silu, PlainFunction::silu, 10000));
  right = measure_job(bench, function_job("gelu", Function::gelu, PlainFunction::gelu, 2000)) && right;
  right = measure_job(bench, function_job("gelu_tanh", Function::gelu_tanh, PlainFunction::gelu_tanh, 10000)) && right;
  right = measure_job(bench, softmax_job()) && right;
  return right;
}

}  // namespace norma::bench
