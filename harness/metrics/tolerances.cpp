// The tolerances that people really use.
#include "harness/metrics/tolerances.hpp"

namespace norma {

namespace {

constexpr std::string_view kTorch = "torch.testing.assert_close, defaults by dtype";

constexpr Tolerance kTolerances[] = {
    {"torch.testing fp64", FormatId::fp64, 1e-7, 1e-7, kTorch},
    {"torch.testing fp32", FormatId::fp32, 1.3e-6, 1e-5, kTorch},
    {"torch.testing bf16", FormatId::bf16, 1.6e-2, 1e-5, kTorch},
    {"torch.testing fp16", FormatId::fp16, 1e-3, 1e-5, kTorch},
    {"Liger bf16", FormatId::bf16, 2e-2, 2e-1, "Liger-Kernel, test/transformers/test_rms_norm.py"},
    {"flashinfer fp16", FormatId::fp16, 1e-3, 1e-3, "flashinfer, tests of rmsnorm"},
    {"flashinfer fp8", FormatId::e4m3fn, 1.0, 1.0, "flashinfer, tests of the FP8 output of rmsnorm"},
    {"flashinfer fp8", FormatId::e5m2, 1.0, 1.0, "flashinfer, tests of the FP8 output of rmsnorm"},
    {"numpy.allclose", std::nullopt, 1e-5, 1e-8, "numpy.allclose, defaults"},
    {"KernelBench", std::nullopt, 1e-2, 1e-2, "KernelBench, correctness check of generated kernels"},
};

}  // namespace

std::span<const Tolerance> all_tolerances() { return kTolerances; }

std::vector<Tolerance> tolerances_for(FormatId format) {
  std::vector<Tolerance> chosen;
  for (const Tolerance& tolerance : kTolerances) {
    if (!tolerance.format || *tolerance.format == format) chosen.push_back(tolerance);
  }
  return chosen;
}

}  // namespace norma
