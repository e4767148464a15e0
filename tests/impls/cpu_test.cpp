// The native kernels against their own words: the bits of the program they declare, the error they claim.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "impls/cpu/cpu.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/formats/convert.hpp"

using namespace norma;

namespace {

constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::tf32, FormatId::bf16,     FormatId::fp16,
                                 FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz};
constexpr std::int64_t kColumns[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 129, 768, 3072};

/// mt19937_64's sequence is fixed by the standard; the distributions of <random> are not, so bits are used.
Tensor any_bits(FormatId format, Shape shape, std::uint64_t seed) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  const std::uint64_t mask = (std::uint64_t{2} << (format_of(format).code_bits - 1)) - 1;
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, bits() & mask);
  return t;
}

/// Finite values of both signs, magnitudes log-uniform in [2^low, 2^high), in T.
Tensor ordinary(FormatId format, Shape shape, double low, double high, std::uint64_t seed) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double u = std::ldexp(static_cast<double>(bits() >> 11), -53);
    const double sign = (bits() & 1) != 0 ? -1 : 1;
    t.set_code(i, encode(format, sign * std::exp2(low + (high - low) * u), Overflow::saturate));
  }
  return t;
}

ImplCall call_on(const Tensors& inputs, double eps) {
  ImplCall call;
  call.norm = "rmsnorm";
  call.inputs = &inputs;
  call.numbers["eps"] = eps;
  call.words["eps_place"] = "inside";
  call.words["quant"] = "none";
  call.numbers["quant_max"] = 448;
  call.numbers["weight_offset"] = 0;
  return call;
}

/// Elements whose bits differ; all NaN are alike.
std::int64_t differing(const Tensor& a, const Tensor& b) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i)
    if (a.code(i) != b.code(i) && !(is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)))) ++count;
  return count;
}

void expect_ideal(Implementation& kernel, const Tensors& inputs, double eps) {
  const ImplCall call = call_on(inputs, eps);
  const auto program = kernel.declared_program(call);
  REQUIRE(program.has_value());
  const Tensors ideal = emulate(*program, inputs, call.numbers);
  const Tensors got = kernel.run(call);
  CAPTURE(kernel.name(), name_of(inputs.at("x").format), shape_text(inputs.at("x").shape), eps,
          print_program(*program));
  REQUIRE(got.size() == 1);
  REQUIRE(got.at("y").format == ideal.at("y").format);
  REQUIRE(got.at("y").shape == inputs.at("x").shape);
  CHECK(differing(got.at("y"), ideal.at("y")) == 0);
}

/// Weights as a kernel may meet them: none, in x's format, in fp32.
std::vector<Tensors> with_weights(const Tensor& x, std::uint64_t seed) {
  std::vector<Tensors> all(x.format == FormatId::fp32 ? 2 : 3);
  for (Tensors& inputs : all) inputs.emplace("x", x);
  all[1].emplace("weight", ordinary(x.format, {x.cols()}, -2, 2, seed));
  if (all.size() == 3) all[2].emplace("weight", ordinary(FormatId::fp32, {x.cols()}, -2, 2, seed));
  return all;
}

double ulp_at(const Format& f, double y) {
  const int e = y == 0 ? f.emin : std::max(std::ilogb(y), f.emin);
  return std::ldexp(1.0, e - f.precision + 1);
}

/// The largest |got - exact| / ulp(exact), exact in 64-bit long double (its own error is below 2^-38 ulp).
double largest_ulp(const Tensors& inputs, double eps, const Tensor& got) {
  const Tensor& x = inputs.at("x");
  const auto w = inputs.find("weight");
  double largest = 0;
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    long double sum = 0;
    for (std::int64_t c = 0; c < x.cols(); ++c) {
      const long double v = x.value(r * x.cols() + c);
      sum += v * v;
    }
    const long double root = std::sqrt(sum / static_cast<long double>(x.cols()) + static_cast<long double>(eps));
    for (std::int64_t c = 0; c < x.cols(); ++c) {
      const std::int64_t i = r * x.cols() + c;
      const long double weight = w == inputs.end() ? 1.0L : static_cast<long double>(w->second.value(c));
      const long double y = static_cast<long double>(x.value(i)) * weight / root;
      if (std::isnan(y)) continue;  // 0/0: a row of zeros with eps = 0
      const double error = static_cast<double>(std::fabs(static_cast<long double>(got.value(i)) - y)) /
                           ulp_at(format_of(got.format), static_cast<double>(y));
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

}  // namespace

TEST_CASE("each native kernel has a name of its own and takes rmsnorm only", "[cpu]") {
  std::set<std::string> names;
  for (Implementation* kernel : cpu_implementations()) {
    CHECK(names.insert(kernel->name()).second);
    CHECK(kernel->accepts_norm("rmsnorm"));
    CHECK_FALSE(kernel->accepts_norm("layernorm"));
  }
  CHECK(names.size() == 6);
}

TEST_CASE("a native kernel gives the bits of the program it declares", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  for (const std::int64_t cols : kColumns) {
    const auto seed = static_cast<std::uint64_t>(cols);
    for (const Tensor& x : {ordinary(format, {3, cols}, -3, 3, seed), ordinary(format, {2, cols}, -30, 30, seed + 1)})
      for (const Tensors& inputs : with_weights(x, seed + 2))
        for (Implementation* kernel : cpu_implementations()) expect_ideal(*kernel, inputs, 1e-6);
  }
}

TEST_CASE("a native kernel gives the declared bits on special values", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  const Format& f = format_of(format);
  for (const std::int64_t cols : {std::int64_t{1}, std::int64_t{5}, std::int64_t{16}, std::int64_t{37}}) {
    std::vector<Tensor> rows{any_bits(format, {16, cols}, 7), Tensor::zeros(format, {2, cols})};
    for (const std::uint64_t code : {f.nan_code(), f.infinity_code(), f.max_finite_code(), std::uint64_t{1},
                                     f.sign_code(), std::uint64_t{1} << f.mantissa_bits()}) {
      Tensor one = ordinary(format, {1, cols}, -1, 1, 3);
      one.set_code(cols / 2, code);
      rows.push_back(one);
      for (std::int64_t i = 0; i < cols; ++i) one.set_code(i, code);
      rows.push_back(one);
    }
    for (const Tensor& x : rows)
      for (const Tensors& inputs : with_weights(x, 11))
        for (Implementation* kernel : cpu_implementations())
          for (const double eps : {0.0, 1e-6, 1e-300, 1e30}) expect_ideal(*kernel, inputs, eps);
  }
}

TEST_CASE("a native kernel keeps its claim", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  for (const std::int64_t cols : kColumns) {
    const auto seed = static_cast<std::uint64_t>(cols) + 100;
    for (const Tensor& x : {ordinary(format, {4, cols}, -3, 3, seed), ordinary(format, {4, cols}, -1, 0, seed),
                            ordinary(format, {4, cols}, -20, 4, seed)})
      for (const Tensors& inputs : with_weights(x, seed))
        for (Implementation* kernel : cpu_implementations())
          for (const double eps : {1e-6, 0.0}) {
            const ImplCall call = call_on(inputs, eps);
            const auto claim = kernel->declares(call).claim_ulp;
            CAPTURE(kernel->name(), name_of(format), cols, eps, inputs.contains("weight"));
            const bool may_leave_range = std::sqrt(static_cast<double>(cols)) * 4.1 > max_finite(format);
            if (!may_leave_range && eps > 0) REQUIRE(claim.has_value());
            if (claim) CHECK(largest_ulp(inputs, eps, kernel->run(call).at("y")) <= *claim);
          }
  }
}

TEST_CASE("the claims are those of the notes", "[cpu]") {
  const Tensors inputs{{"x", ordinary(FormatId::bf16, {1, 3072}, -1, 1, 5)},
                       {"weight", ordinary(FormatId::bf16, {3072}, -1, 1, 6)}};
  const auto claim = [&](std::string_view name) {
    for (Implementation* kernel : cpu_implementations())
      if (kernel->name() == name) return kernel->declares(call_on(inputs, 1e-6)).claim_ulp.value();
    FAIL("there is no kernel " << name);
    return 0.0;
  };
  // 0.5 + (h/2 + 5) 2^-24 2^8 with h = 3071, and h = 191 + 15 in 16 lanes.
  CHECK(claim("cpu.rmsnorm.sequential") > 0.5 + 1540.5 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.sequential") < 0.5 + 1541.5 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.lanes") > 0.5 + 108 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.lanes") < 0.5 + 109 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.double_accumulator") < 0.5 + 3.6 * 0x1p-16);  // 2^-17 for a product that may underflow
  CHECK(claim("cpu.rmsnorm.lanes.cast_before_weight") > 2);  // two casts: one ulp more, and the binade's edge
}

TEST_CASE("a native kernel claims nothing where a step may overflow or underflow", "[cpu]") {
  Tensors inputs{{"x", ordinary(FormatId::fp32, {1, 64}, 100, 120, 1)}};
  for (Implementation* kernel : cpu_implementations()) {
    const bool doubles = kernel->name().find("double") != std::string::npos;
    CHECK(kernel->declares(call_on(inputs, 1e-6)).claim_ulp.has_value() == doubles);
  }
  inputs.at("x") = ordinary(FormatId::fp32, {1, 64}, -120, -100, 1);  // squares underflow beside eps = 0
  for (Implementation* kernel : cpu_implementations()) {
    const bool doubles = kernel->name().find("double") != std::string::npos;
    CHECK(kernel->declares(call_on(inputs, 0)).claim_ulp.has_value() == doubles);
  }
}

TEST_CASE("a native kernel says why it refuses", "[cpu]") {
  Implementation& kernel = *cpu_implementations()[0];
  const auto refusal = [&](const ImplCall& call) -> std::string {
    try {
      kernel.run(call);
    } catch (const ImplSkipped& e) {
      return e.what();
    }
    return "";
  };
  Tensors inputs{{"x", Tensor::zeros(FormatId::fp64, {2, 4})}};
  CHECK(refusal(call_on(inputs, 1e-6)) == "x must fit fp32, got fp64");
  inputs.at("x") = Tensor::zeros(FormatId::bf16, {2, 4});
  inputs.emplace("residual", Tensor::zeros(FormatId::bf16, {2, 4}));
  CHECK(refusal(call_on(inputs, 1e-6)) == "this kernel takes no tensor 'residual', only x and weight");
  inputs.erase("residual");
  inputs.emplace("weight", Tensor::zeros(FormatId::fp16, {4}));
  CHECK(refusal(call_on(inputs, 1e-6)) == "weight must be fp32 or x's format bf16, got fp16");
  inputs.at("weight") = Tensor::zeros(FormatId::bf16, {5});
  CHECK(refusal(call_on(inputs, 1e-6)) == "weight must have 4 values, got shape 5");
  inputs.erase("weight");
  ImplCall call = call_on(inputs, 1e-6);
  call.numbers["weight_offset"] = 1;
  CHECK(refusal(call) == "this kernel has no attribute 'weight_offset' other than 0");
  call.numbers["weight_offset"] = 0;
  call.words["eps_place"] = "outside";
  CHECK(refusal(call) == "this kernel has no eps_place=outside (eps is inside the root, y is not quantized)");
}
