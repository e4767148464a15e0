// Convolutions of images, certified: matrix products of weights and patches.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "reference/certified/products/matmul.hpp"

namespace norma {

///   y[n][o][p] = sum over c, i, j of x[n][c][p stride - padding + (i, j) dilation] weight[o][c][i][j] + bias[o]
///
/// over the reals, c in the channels of o's group; beyond the image x is 0.
///
/// View:     x [N, C, H, W]; weight [O, C / groups, kh, kw]; bias [O] or none; y [N, O, OH, OW],
///           OH = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1.
/// Formats, Special, Zeros: as Matmul. The 0 beyond the image is a number too: times an infinite weight it is NaN.
struct Convolution {
  const Tensor* x = nullptr;
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;
  std::array<std::int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};  ///< along H, along W
  std::int64_t groups = 1;
};

/// Empty if shapes and formats fit; else one sentence. The functions below throw std::invalid_argument with it.
std::string convolution_fault(const Convolution& problem);

/// [N, O, OH, OW]
Shape convolution_shape(const Convolution& problem);

/// The truth of y, view [N O, OH OW]; as matmul_truth. The tensors must outlive it.
///
/// Memory: the weights in binary64, patches of some output rows at a time, of the outputs some dozen channels.
std::unique_ptr<TruthSource> convolution_truth(const Convolution& problem, QuickProduct quick = QuickProduct::product);

/// Every element correctly rounded, as round_matmul.
///
/// Memory: the weights in binary64, and 32 MiB a thread.
RoundedRows round_convolution(const Convolution& problem, FormatId format, Overflow overflow, int threads = 1);

}  // namespace norma
