// CUDA kernels, on the host executor, against the truth: the errors that they promise.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <map>
#include <optional>

#include "tests/impls/cuda_kernels.hpp"
#include "tests/impls/largest_ulp.hpp"

using namespace norma;
using namespace norma::test;

namespace {

const NormDef& def_of(std::string_view norm) { return *find_norm(norm); }

/// The call with every attribute of its norm.
ImplCall whole_call(const Implementation& kernel, const Tensors& inputs) {
  ImplCall call = kernel_call(kernel, inputs);
  for (const NormAttribute& a : def_of(call.norm).attributes) {
    if (!a.choices.empty())
      call.words.try_emplace(std::string(a.name), a.fallback);
    else if (!call.numbers.contains(a.name))
      call.numbers[std::string(a.name)] = std::stod(std::string(a.fallback));
  }
  return call;
}

/// What the kernel claims for these inputs, and how it errs.
struct Kept {
  std::optional<double> claim;
  double measured = 0;
};
Kept kept(Implementation& kernel, const Tensors& inputs) {
  const ImplCall call = whole_call(kernel, inputs);
  Kept result{.claim = kernel.declares(call).claim_ulp, .measured = 0};
  if (result.claim)
    result.measured = largest_ulp(def_of(call.norm), {.inputs = &inputs, .numbers = call.numbers, .words = call.words},
                                  kernel.run(call).at("y"));
  return result;
}

Implementation& host_kernel(std::string_view name) {
  for (Implementation* kernel : cuda_implementations())
    if (kernel->name() == "cuda_host." + std::string(name)) return *kernel;
  throw std::logic_error("there is no kernel " + std::string(name));
}

bool takes(const Implementation& kernel, const Tensors& inputs) {
  return kernel.name().find("one_plus") == std::string::npos || inputs.contains("weight");
}

}  // namespace

TEST_CASE("a CUDA kernel keeps its claim", "[cuda]") {
  const FormatId format = norma::test::kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))];
  std::map<std::string, int, std::less<>> claims;
  for (Implementation* kernel : kernels_named("cuda_host."))
    for (const std::int64_t cols : {1, 7, 33, 768}) {
      const auto seed = static_cast<std::uint64_t>(cols) + 100;
      const Shape shape = norm_row_of(*kernel).x_shape(2, cols);
      if (shape.empty()) continue;
      for (const Tensor& x : {ordinary(format, shape, -1, 0, seed), ordinary(format, shape, -20, 4, seed),
                              ordinary(format, shape, -4, 0, seed, 16)})
        for (const Tensors& inputs : calls_on(x, *kernel, seed)) {
          if (!takes(*kernel, inputs)) continue;
          const Kept result = kept(*kernel, inputs);
          if (!result.claim) continue;
          ++claims[kernel->name()];
          CAPTURE(kernel->name(), name_of(format), shape_text(shape), inputs.size(), *result.claim, result.measured);
          CHECK(*result.claim >= 0.5);
          CHECK(result.measured <= *result.claim);
        }
    }
  for (const std::string_view claims_much : {"rmsnorm.warp_per_row", "rmsnorm.block_per_row.rsqrtf", "modulate.eager",
                                             "layernorm.block_per_row.two_pass", "layernorm.warp_per_row.one_pass"})
    CHECK(claims["cuda_host." + std::string(claims_much)] >= 8);
}

TEST_CASE("claims of CUDA's RMSNorm are those of the counting lemma", "[cuda]") {
  const Tensors inputs{{"x", ordinary(FormatId::bf16, {1, 3072}, -1, 1, 5)},
                       {"weight", ordinary(FormatId::bf16, {3072}, -1, 1, 6)}};
  const auto claim = [&](std::string_view name) { return kept(host_kernel(name), inputs).claim.value(); };
  // y errs by 1/2 + e 2^-24 2^8 ulp of bf16: for the sum half of its h roundings and the mean's, then eps, the root,
  // two products. h: 96 squares a thread and 5 levels of a warp's tree; 24 and 7 with 128 threads in a block. |y| < 2^8
  // ulp(y), but for one part in 500. rsqrtf: 5 halves of an ulp for one.
  const auto bound = [](double h, double root) { return 0.5 + ((h + 2) / 2 + root + 2) * 0x1p-16; };
  for (const auto& [name, expected] :
       {std::pair{"rmsnorm.warp_per_row", bound(101, 1)}, std::pair{"rmsnorm.block_per_row", bound(31, 1)},
        std::pair{"rmsnorm.block_per_row.rsqrtf", bound(31, 5)}}) {
    CAPTURE(name);
    CHECK(claim(name) > 0.5 + (expected - 0.5) * 0.99);
    CHECK(claim(name) < 0.5 + (expected - 0.5) * 1.02);
  }
  CHECK(claim("rmsnorm.block_per_row.cast_before_weight") > 1.49);  // two casts
}

TEST_CASE("a CUDA kernel claims nothing where a step may overflow, or where its variance is lost", "[cuda]") {
  const Tensors large{{"x", ordinary(FormatId::fp32, {1, 64}, 100, 120, 1)}};
  const Tensors far{{"x", ordinary(FormatId::fp32, {2, 256}, -1, 0, 4, 1e4)}};
  CHECK_FALSE(kept(host_kernel("rmsnorm.warp_per_row"), large).claim.has_value());
  CHECK_FALSE(kept(host_kernel("layernorm.warp_per_row.two_pass"), large).claim.has_value());
  CHECK_FALSE(kept(host_kernel("layernorm.warp_per_row.one_pass"), far).claim.has_value());
}
