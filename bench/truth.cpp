// What certainty costs: enclosures against a plain double loop, measures against a plain comparison, a whole check
// against what a test suite does with torch.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "bench/bench.hpp"
#include "bench/ratio.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/metrics/measures.hpp"
#include "harness/run/check.hpp"
#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

constexpr std::int64_t kRows = 64, kCols = 3072;

std::vector<double> decoded(const Tensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode_row(t.format, t.bytes.data(), values.data(), values.size());
  return values;
}

std::vector<double> plain_rmsnorm(const std::vector<double>& x, const std::vector<double>& weight, double eps) {
  std::vector<double> y(x.size());
  const std::size_t cols = weight.size();
  for (std::size_t row = 0; row < x.size(); row += cols) {
    double sum = 0;
    for (std::size_t c = 0; c < cols; ++c) sum += x[row + c] * x[row + c];
    const double r = 1 / std::sqrt(sum / static_cast<double>(cols) + eps);
    for (std::size_t c = 0; c < cols; ++c) y[row + c] = weight[c] * (x[row + c] * r);
  }
  return y;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return static_cast<double>(largest);
}

/// Enclosures that were made before: what is measured is the measuring.
class Held final : public TruthSource {
 public:
  explicit Held(const TruthSource& source) : source_(source), held_(static_cast<std::size_t>(source.rows())) {
    for (std::size_t row = 0; row < held_.size(); ++row) {
      held_[row].resize(static_cast<std::size_t>(source.cols()));
      source.enclose_row(static_cast<std::int64_t>(row), held_[row]);
    }
  }
  std::int64_t rows() const override { return source_.rows(); }
  std::int64_t cols() const override { return source_.cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::copy(held_[static_cast<std::size_t>(row)].begin(), held_[static_cast<std::size_t>(row)].end(), out.begin());
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return source_.compare(row, col, m_hi, m_lo);
  }

 private:
  const TruthSource& source_;
  std::vector<std::vector<Enclosure>> held_;
};

/// Every element enclosed to 2^-100, against the same formula in double.
void enclosures(const Bench& bench, const Case& expanded, const Tensors& inputs) {
  const NormCall call = norm_call(expanded, inputs);
  const std::vector<double> x = decoded(inputs.at("x")), weight = decoded(inputs.at("weight"));
  const double eps = call.numbers.at("eps");
  const auto enclose = [&] {
    const auto truth = norm_of(expanded).truth(call, "y");
    std::vector<Enclosure> row(static_cast<std::size_t>(kCols));
    for (std::int64_t r = 0; r < kRows; ++r) truth->enclose_row(r, row);
    return row;
  };
  bench.report(measure_ratio({.name = "truth.enclosures",
                              .peer = "plain double loop",
                              .work = fmt::format("rmsnorm fp32 {}x{} on 1 thread, to 2^-100 by MPFR", kRows, kCols)},
                             timed(enclose), timed([&] { return plain_rmsnorm(x, weight, eps); }), bench.pairs(16)));
}

/// All figures of an output, errors rounded to 2^-16 ulp and decided, against the largest difference in fp32.
void measures(const Bench& bench, const Case& expanded, const Tensors& inputs) {
  const auto truth = norm_of(expanded).truth(norm_call(expanded, inputs), "y");
  const Held held(*truth);
  const Contract contract = *contract_of(expanded, inputs, nullptr);
  const Tensor got = ideals_of(contract, inputs, attributes_of(expanded).numbers).front().at("y");
  std::vector<float> got_values(static_cast<std::size_t>(got.size())), want(got_values.size());
  decode_row(got.format, got.bytes.data(), got_values.data(), got_values.size());
  const std::vector<double> y = plain_rmsnorm(decoded(inputs.at("x")), decoded(inputs.at("weight")),
                                              norm_call(expanded, inputs).numbers.at("eps"));
  std::transform(y.begin(), y.end(), want.begin(), [](double v) { return static_cast<float>(v); });
  bench.report(
      measure_ratio({.name = "truth.measure",
                     .peer = "plain fp32 comparison",
                     .work = fmt::format("fp32 {}x{} on 1 thread, enclosures and ideal at hand", kRows, kCols)},
                    timed([&] { return measure(held, nullptr, &got, got, Overflow::ieee); }),
                    timed([&] { return largest_difference(got_values, want); }), bench.pairs(16)));
}

/// Inputs, ideal, truth, measures and verdict of one case in a new session, against torch's way.
void whole_check(const Bench& bench) {
  const Case expanded = expand_defaults(parse_case(
      fmt::format("rmsnorm bf16 {}x{} path=transformers.llama.rmsnorm profile=torch_cpu eps=1e-6", kRows, kCols)));
  const CheckJob job{.value = expanded, .impl = "path:transformers.llama.rmsnorm"};
  bench.torch->prepare(fmt::format("allclose threads=1 format=bf16 rows={} cols={} eps=1e-6", kRows, kCols));
  const auto make_check = [&] {
    Session session;
    return check(session, job);
  };
  bench.report(measure_ratio(
      {.name = "check.case",
       .peer = bench.torch->name() + " float64 + allclose",
       .work = fmt::format("rmsnorm bf16 {}x{}: random inputs, output, truth and verdict; 1 thread", kRows, kCols)},
      timed(make_check), [&] { return bench.torch->run(); }, bench.pairs(16)));
}

}  // namespace

bool bench_truth(const Bench& bench) {
  const Case expanded = expand_defaults(parse_case(
      fmt::format("rmsnorm fp32 {}x{} path=transformers.llama.rmsnorm profile=torch_cpu eps=1e-6", kRows, kCols)));
  const Tensors inputs = make_inputs(expanded, bench.threads);
  enclosures(bench, expanded, inputs);
  measures(bench, expanded, inputs);
  if (bench.torch != nullptr) whole_check(bench);
  return true;
}

}  // namespace norma::bench
