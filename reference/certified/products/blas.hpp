// The matrix product in binary64 under the certified GEMM: OpenBLAS on the kernel that suits the CPU, or our own loop.
#pragma once

#include <cstdint>
#include <string>

namespace norma {

/// C = A B^T, or C + A B^T: A is m x k, B is n x k, C is m x n, all row-major, rows lda, ldb, ldc numbers apart.
///
/// What callers may rely on: classical, that is, each c is a sum of the k products in some order, each product and
/// each addition rounded to nearest at most once (fused or not); one thread; same bits on the same machine. Which
/// order, and so the last bits of an inexact sum, depends on the library and its kernel.
struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;
  const double* a = nullptr;
  std::int64_t lda = 0;
  const double* b = nullptr;
  std::int64_t ldb = 0;
  double* c = nullptr;
  std::int64_t ldc = 0;
  bool accumulate = false;
};
void dgemm(const Gemm& gemm);

/// The same by plain blocked loops: what `dgemm` is where OpenBLAS is missing.
void plain_dgemm(const Gemm& gemm);

/// What `dgemm` is: "OpenBLAS 0.3.21 SkylakeX"; with a remark if the CPU allows a faster kernel; or "own loop" and why.
std::string blas_description();

/// `own` makes dgemm the plain loops, `automatic` OpenBLAS again if it is there. For tests and comparisons, while no
/// product runs. The environment variable NORMA_BLAS=own does the same from the start.
enum class Blas { automatic, own };
void choose_blas(Blas which);

}  // namespace norma
