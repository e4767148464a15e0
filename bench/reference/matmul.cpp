// Certified matrix products against the binary64 product of the library below them.
#include "reference/certified/products/matmul.hpp"

#include <fmt/core.h>

#include <cmath>

#include "bench/ratio.hpp"
#include "bench/reference/reference.hpp"
#include "bench/reference/slow.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

std::vector<double> decoded(const Tensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

struct Product {
  std::int64_t size;
  Tensor a, b;
  std::vector<double> a_values, b_values, c;

  Product(FormatId format, std::int64_t n)
      : size(n),
        a(normal_tensor(format, {n, n}, 0, 1, 7)),
        b(normal_tensor(format, {n, n}, 0, 1, 8)),
        a_values(decoded(a)),
        b_values(decoded(b)),
        c(static_cast<std::size_t>(n * n)) {}
  Matmul problem() const { return {.a = &a, .b = &b}; }
  /// Both factors are binary64 before the clock runs.
  Timed library() {
    return timed_alone([this] {
      dgemm({.m = size,
             .n = size,
             .k = size,
             .a = a_values.data(),
             .lda = size,
             .b = b_values.data(),
             .ldb = size,
             .c = c.data(),
             .ldc = size});
      return 0;
    });
  }
};

bool measure_product(const Bench& bench, FormatId in, FormatId out, std::int64_t n, bool goal, bool quick) {
  const std::string name = fmt::format("matmul.{}.{}-{}", n, name_of(in), name_of(out));
  if (!bench.wants(name) || (bench.quick && !quick)) return true;
  Product p(in, n);
  const Matmul problem = p.problem();
  const auto certified = [&](int threads) {
    return timed([&problem, out, threads] { return round_matmul(problem, out, Overflow::ieee, threads); });
  };
  const auto alone = timed_alone([&problem, out] { return round_matmul(problem, out, Overflow::ieee, 1); });
  const RoundedRows once = round_matmul(problem, out, Overflow::ieee, 1);
  const std::string what = fmt::format("{0}x{0}x{0}, {1} to {2}", n, name_of(in), name_of(out));
  bench.report(measure_ratio({.name = name,
                              .peer = "DGEMM, " + blas_description(),
                              .work = fmt::format("{} on 1 thread, {} of {} elements above binary64", what,
                                                  once.tiers.double_double + once.tiers.exact, n * n),
                              .goal = goal ? std::optional(1.3) : std::nullopt,
                              .alone = true},
                             alone, p.library(), bench.pairs(12)));
  constexpr std::size_t kDots = 64;
  std::vector<float> dots(kDots);
  const auto mpfr = timed_alone([&] {
    mpfr_dots(p.a_values.data(), p.b_values.data(), static_cast<std::size_t>(n), static_cast<std::size_t>(n), kDots,
              dots.data());
    return 0;
  });
  mpfr();
  for (std::size_t i = 0; out == FormatId::fp32 && i < kDots; ++i) {
    if (static_cast<double>(dots[i]) == once.y.value(static_cast<std::int64_t>(i))) continue;
    bench.say(fmt::format("{}: element {} is not that of 113 bits: not the same work", name, i));
    return false;
  }
  if (!bench.quick) {
    if (out == FormatId::fp32 && in == FormatId::bf16)
      bench.report(measure_ratio({.name = name + ".mpfr113",
                                  .peer = "naive MPFR, 113 bits",
                                  .work = fmt::format("{} on 1 thread; the peer does {} elements", what, kDots),
                                  .our_elements = static_cast<double>(n * n),
                                  .peer_elements = kDots,
                                  .alone = true},
                                 alone, mpfr, bench.pairs(8)));
    if (bench.threads >= 2)
      bench.report(measure_ratio({.name = fmt::format("threads.{}", name),
                                  .peer = "the same on 1 thread",
                                  .work = what + " on 2 threads",
                                  .goal = 1 / 1.8},
                                 certified(2), certified(1), bench.pairs(8)));
  }
  return once.tiers.undecided == 0;
}

}  // namespace

bool bench_matmul(const Bench& bench) {
  bool right = true;
  for (const FormatId in : {FormatId::bf16, FormatId::fp32})
    for (const FormatId out : {FormatId::fp32, FormatId::bf16})
      right = measure_product(bench, in, out, 1024, true, true) && right;
  right = measure_product(bench, FormatId::bf16, FormatId::fp32, 256, false, false) && right;
  return right;
}

}  // namespace norma::bench
