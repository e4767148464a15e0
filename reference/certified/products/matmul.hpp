// Matrix products with bias, certified: every element of C = A B^T + bias over the reals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

///   c[i][j] = sum over k of a[i][k] b[j][k] + bias[j]
///
/// over the reals: a linear layer, b its weights.
///
/// View:     a in memory order as [M, K], K its last axis; b [N, K], or [K, N] with Columns; bias [N] or none.
/// Formats:  any up to fp32, each tensor its own. No overflow or underflow inside for any finite input.
/// Special:  IEEE: a NaN or an Inf times 0 among the products makes c NaN; else infinite products make c infinite, NaN
///           if their signs differ; the same for the bias as a further term. They touch no other element.
/// Zeros:    c = 0 is +0, whatever the signs of its terms.
/// K = 0:    c = bias, or 0.
struct Matmul {
  enum class Weights : std::uint8_t { rows, columns };  ///< b is [N, K], b is [K, N]

  const Tensor* a = nullptr;
  const Tensor* b = nullptr;
  const Tensor* bias = nullptr;
  Weights weights = Weights::rows;
};

/// Empty if shapes and formats fit; else one sentence. The functions below throw std::invalid_argument with it.
std::string matmul_fault(const Matmul& problem);

/// How wide the cheap enclosures of `matmul_truth` may be.
///
///   product   one binary64 product: exact where the ranges of row and column allow it, else K 2^-53 ||a|| ||b||
///   split     two or three products: about K^1.5 2^-78 ||a|| ||b||, below 2^-20 ulp of fp32 but where c cancels
enum class QuickProduct : std::uint8_t { product, split };

/// The truth of c, view [M, N]. `enclose` gives radius 0 or a double-double's last bits, `compare` is always decided.
/// An enclosure's magnitude is sum |a b| + |bias|. The tensors must outlive it.
///
/// Memory: a and b in binary64; of the products some hundred rows at a time.
std::unique_ptr<TruthSource> matmul_truth(const Matmul& problem, QuickProduct quick = QuickProduct::product);

/// Every element correctly rounded, codes row-major [M, N], and the tiers that settled them; none is undecided.
///
/// The codes are the same for any number of threads, vector width, CPU and BLAS. How many elements binary64 settled
/// need not be: an inexact sum's last bits depend on the BLAS and its kernel (blas.hpp), and with them whether a value
/// lies too close to a midpoint. On one machine the counts too are the same for any number of threads.
///
/// Memory: a and b in binary64, and 16 MiB a thread.
RoundedRows round_matmul(const Matmul& problem, FormatId format, Overflow overflow, int threads = 1);
/// The same to memory of the caller's: M x N elements in storage layout.
TierCounts round_matmul(const Matmul& problem, FormatId format, Overflow overflow, std::span<std::byte> out,
                        int threads = 1);

}  // namespace norma
