// Shapes that reach every way through the kernels of norms over channels, on a GPU and on the host executor.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "tests/impls/cuda_kernels.hpp"

namespace norma::test {

inline std::vector<Implementation*> channel_kernels(std::string_view prefix) {
  std::vector<Implementation*> kernels;
  for (Implementation* kernel : kernels_named(prefix))
    for (const std::string_view norm : {"groupnorm", "instancenorm", "batchnorm"})
      if (kernel->accepts_norm(norm)) kernels.push_back(kernel);
  return kernels;
}

/// Positions that no load divides; groups of 10, 16, 17 and 32 channels (loads of four bytes, of whole vectors, of one
/// element); more channels than a warp's columns; parameters in both formats, and none.
inline void expect_channel_ideals(std::string_view prefix, FormatId format) {
  for (const Shape& shape : {Shape{3, 20, 3, 3}, Shape{1, 32, 4, 4}, Shape{1, 34, 7, 5}, Shape{1, 64, 1, 9}}) {
    const Tensor x = ordinary(format, shape, -6, 4, 1, 0.5);
    for (Implementation* kernel : channel_kernels(prefix)) {
      if (says(*kernel, "rsqrtf")) continue;
      for (const Tensors& inputs : calls_on(x, *kernel, 2)) expect_ideal(*kernel, inputs);
      if (!says(*kernel, ".eval") && shape[0] == 3) expect_ideal(*kernel, {{"x", x}});
    }
  }
}

/// Rows of 2 to 64 slices, and rows of which the threads hold only a part.
inline void expect_long_channel_ideals(std::string_view prefix) {
  const auto expect = [&](FormatId format, const Shape& shape, std::string_view norm) {
    const Tensor x = ordinary(format, shape, -6, 4, 4, 1);
    for (Implementation* kernel : channel_kernels(prefix))
      if (!says(*kernel, "rsqrtf") && kernel->name().find(norm) != std::string::npos)
        expect_ideal(*kernel, calls_on(x, *kernel, 7).back());
  };
  expect(FormatId::fp32, {1, 2, 16390}, "");
  expect(FormatId::bf16, {1, 4, 9, 2003}, "");
  expect(FormatId::fp32, {2, 1, 265000}, "batchnorm");
}

}  // namespace norma::test
