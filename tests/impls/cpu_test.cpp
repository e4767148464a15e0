// The native kernels against their own words: the bits of the programs they declare, what they refuse.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <set>

#include "cpu_calls.hpp"
#include "impls/emulate/emulate.hpp"

using namespace norma;

namespace {

constexpr std::int64_t kColumns[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 129, 257};

/// Every output of the program: the kernel's bits are the ideal's.
void expect_ideal(Implementation& kernel, const KernelCall& made) {
  const auto program = kernel.declared_program(made.call);
  REQUIRE(program.has_value());
  const Tensors ideal = emulate(*program, made.inputs, made.call.numbers);
  const Tensors got = kernel.run(made.call);
  CAPTURE(kernel.name(), name_of(made.inputs.at("x").format), shape_text(made.inputs.at("x").shape),
          made.inputs.size());
  REQUIRE(got.size() == ideal.size());
  REQUIRE(got.at("y").shape == made.inputs.at("x").shape);
  for (const auto& [name, want] : ideal) {
    CAPTURE(name);
    REQUIRE(got.at(name).format == want.format);
    REQUIRE(got.at(name).size() == want.size());
    CHECK(differing(got.at(name), want) == 0);
  }
}

std::string refusal(Implementation& kernel, const KernelCall& made) {
  try {
    kernel.run(made.call);
  } catch (const ImplSkipped& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("each native kernel has a name of its own and takes one norm, which its name begins with", "[cpu]") {
  std::set<std::string> names;
  for (Implementation* kernel : cpu_implementations()) {
    CHECK(names.insert(kernel->name()).second);
    int taken = 0;
    for (const NormDef* norm : all_norms())
      if (kernel->accepts_norm(norm->name)) {
        ++taken;
        CHECK(kernel->name().starts_with("cpu." + std::string(norm->name) + "."));
      }
    CHECK(taken == 1);
    CHECK_FALSE(kernel->title().empty());
  }
  CHECK(names.size() == 40);
}

TEST_CASE("a native kernel gives the bits of the program it declares", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  for (Implementation* kernel : cpu_implementations())
    for (const std::int64_t cols : kColumns) {
      const auto seed = static_cast<std::uint64_t>(cols);
      const Shape shape = shape_for(*kernel, cols);
      for (const Tensor& x : {ordinary(format, shape, -3, 3, seed), ordinary(format, shape, -30, 30, seed + 1),
                              ordinary(format, shape, -3, 0, seed + 2, 100)})
        for (const KernelCall& call : calls_on(*kernel, x, seed + 3)) expect_ideal(*kernel, call);
    }
}

TEST_CASE("a native kernel gives the declared bits of long rows", "[cpu]") {
  for (Implementation* kernel : cpu_implementations())
    for (const FormatId format : {FormatId::fp32, FormatId::bf16})
      for (const double offset : {0.0, 1000.0}) {
        const Tensor x = ordinary(format, shape_for(*kernel, 4096), -3, 1, 5, offset);
        expect_ideal(*kernel, calls_on(*kernel, x, 6)[1]);
      }
}

TEST_CASE("a native kernel gives the declared bits on special values", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  const Format& f = format_of(format);
  for (Implementation* kernel : cpu_implementations())
    for (const std::int64_t cols : {1, 5, 16, 37}) {
      const Shape shape = shape_for(*kernel, cols);
      std::vector<Tensor> cases{any_bits(format, shape, 7), Tensor::zeros(format, shape), constant(format, shape, 3)};
      for (const std::uint64_t code : {f.nan_code(), f.infinity_code(), f.max_finite_code(), std::uint64_t{1},
                                       f.sign_code(), std::uint64_t{1} << f.mantissa_bits()}) {
        Tensor one = ordinary(format, shape, -1, 1, 3);
        one.set_code(one.size() / 2, code);
        cases.push_back(one);
        for (std::int64_t i = 0; i < one.size(); ++i) one.set_code(i, code);
        cases.push_back(one);
      }
      for (const Tensor& x : cases)
        for (const double eps : {0.0, 1e-6, 1e-300, 1e30})
          for (const KernelCall& call : calls_on(*kernel, x, 11, eps)) expect_ideal(*kernel, call);
    }
}

TEST_CASE("fused multiply-adds are rounded once, where two roundings would show", "[cpu]") {
  // Products that nearly cancel their term, halves that a rest decides, subnormals.
  std::mt19937_64 bits(9);
  const auto number = [&](int low, int high) {
    const double m = 1 + std::ldexp(static_cast<double>(bits() >> 41), -23);
    return std::ldexp((bits() & 1) != 0 ? -m : m,
                      low + static_cast<int>(bits() % static_cast<std::uint64_t>(high - low + 1)));
  };
  constexpr std::int64_t kCount = 20000;
  Tensors t;
  for (const char* name : {"x", "f", "gate"}) t.emplace(name, Tensor::zeros(FormatId::fp32, {1, kCount}));
  for (std::int64_t i = 0; i < kCount; ++i) {
    const bool small = i % 4 == 3;
    double f = number(small ? -80 : -3, small ? -60 : 3), gate = number(small ? -80 : -3, small ? -60 : 3);
    double x = number(small ? -149 : -30, small ? -130 : 30);
    if (i % 4 == 1) x = -static_cast<double>(static_cast<float>(f * gate));
    if (i % 4 == 2) {
      // Half an ulp of x and less or more by what binary64 cannot hold beside x: (1 + h)(1 - h) = 1 - h^2,
      // (1 + h)(1 - h + h^2) = 1 + h^3.
      const bool below = (bits() & 1) != 0;
      const double h = below ? 0x1p-23 : 0x1p-12, half = std::ldexp(1.0, std::ilogb(x) - 24);
      f = std::copysign(half * (1 + h), number(0, 0));
      gate = below ? 1 - h : 1 - h + h * h;
    }
    const std::pair<const char*, double> values[] = {{"f", f}, {"gate", gate}, {"x", x}};
    for (const auto& [name, v] : values) t.at(name).set_code(i, encode(FormatId::fp32, v, Overflow::ieee));
  }
  t.at("gate").shape = {kCount};
  Implementation& kernel = kernel_named("cpu.gated_residual.fused");
  const Tensor y = kernel.run(KernelCall(kernel, t).call).at("y");
  std::int64_t twice = 0, through_double = 0;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const auto f = static_cast<float>(t.at("f").value(i)), gate = static_cast<float>(t.at("gate").value(i));
    const auto x = static_cast<float>(t.at("x").value(i));
    const float once = std::fma(f, gate, x), product = f * gate;
    CHECK(static_cast<float>(y.value(i)) == once);
    twice += product + x != once ? 1 : 0;
    through_double +=
        static_cast<float>(static_cast<double>(f) * static_cast<double>(gate) + static_cast<double>(x)) != once ? 1 : 0;
  }
  CHECK(through_double > kCount / 16);
  CHECK(twice > kCount / 4);
}

TEST_CASE("a native kernel takes a value for each sample and for each element where the norm does", "[cpu]") {
  const Tensor x = ordinary(FormatId::bf16, {2, 3, 33}, -2, 2, 1);
  for (const char* name : {"cpu.modulate.eager", "cpu.modulate.fused"})
    for (const Shape& shape : {Shape{33}, Shape{2, 33}, Shape{2, 1, 33}, Shape{2, 3, 33}}) {
      Implementation& kernel = kernel_named(name);
      KernelCall call(kernel, {{"x", x},
                               {"scale", ordinary(FormatId::bf16, shape, -3, 0, 2)},
                               {"shift", ordinary(FormatId::bf16, shape, -3, 0, 3)}});
      expect_ideal(kernel, call);
      call.call.numbers["scale_offset"] = 0;
      expect_ideal(kernel, call);
    }
  Implementation& kernel = kernel_named("cpu.gated_residual.eager");
  expect_ideal(kernel, KernelCall(kernel, {{"x", x},
                                           {"f", ordinary(FormatId::bf16, {2, 3, 33}, -2, 2, 4)},
                                           {"gate", ordinary(FormatId::bf16, {2, 33}, -3, 0, 2)}}));
}

TEST_CASE("a native kernel says why it refuses", "[cpu]") {
  Implementation& rms = kernel_named("cpu.rmsnorm.sequential");
  const auto with = [&](Implementation& kernel, Tensors tensors) {
    return refusal(kernel, KernelCall(kernel, std::move(tensors)));
  };
  const auto zeros = [](FormatId format, Shape shape) { return Tensor::zeros(format, std::move(shape)); };
  using enum FormatId;
  CHECK(with(rms, {{"x", zeros(fp64, {2, 4})}}) == "x must fit fp32, got fp64");
  CHECK(with(rms, {{"x", zeros(bf16, {2, 4})}, {"residual", zeros(bf16, {2, 4})}}) ==
        "this kernel takes no tensor 'residual', only x, weight and bias");
  CHECK(with(rms, {{"x", zeros(bf16, {2, 4})}, {"weight", zeros(fp16, {4})}}) ==
        "weight must be fp32 or x's format bf16, got fp16");
  CHECK(with(rms, {{"x", zeros(bf16, {2, 4})}, {"weight", zeros(bf16, {5})}}) ==
        "tensor 'weight' has shape 5, 4 elements would fit x of shape 2x4");
  KernelCall call(rms, {{"x", zeros(bf16, {2, 4})}});
  call.call.numbers["weight_offset"] = 1;
  CHECK(refusal(rms, call) == "this kernel has no attribute 'weight_offset' other than 0");
  call.call.numbers["weight_offset"] = 0;
  call.call.words["eps_place"] = "outside";
  CHECK(refusal(rms, call) == "this kernel has no eps_place=outside, only eps_place=inside");
  call.call.words["eps_place"] = "inside";
  call.call.numbers.erase("eps");
  CHECK(refusal(rms, call) == "eps is not given");

  Implementation& group = kernel_named("cpu.groupnorm.two_pass");
  KernelCall groups(group, {{"x", zeros(bf16, {2, 6, 4})}});
  groups.call.numbers["groups"] = 4;
  CHECK(refusal(group, groups).starts_with("groups is 4"));
  CHECK(with(group, {{"x", zeros(bf16, {6})}}).find("[N, C, ...]") != std::string::npos);
  Implementation& instance = kernel_named("cpu.instancenorm.two_pass");
  KernelCall running(instance, {{"x", zeros(bf16, {2, 6, 4})}});
  running.call.words["statistics"] = "running";
  CHECK(refusal(instance, running) == "this kernel has no statistics=running, only statistics=batch");
  CHECK(with(instance, {{"x", zeros(bf16, {2, 6, 4})}, {"running_mean", zeros(bf16, {5})}}) ==
        "running_mean must have 6 values, got shape 5");
  CHECK(with(kernel_named("cpu.batchnorm.eval"), {{"x", zeros(bf16, {2, 6, 4})}}) ==
        "there is no tensor 'running_mean'");
  CHECK(with(kernel_named("cpu.gated_residual.eager"),
             {{"x", zeros(bf16, {2, 4})}, {"f", zeros(bf16, {2, 4})}, {"gate", zeros(fp32, {4})}}) ==
        "gate must be x's format bf16, got fp32");
}
