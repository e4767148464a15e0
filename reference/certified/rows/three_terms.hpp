// Sums of two or three exact terms: modulation x (1 + s) + t, gated residual x + g f, residual sum x + f.
#pragma once

#include <cstdint>
#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

///   y = x + factor f + shift           f is a tensor of x's size, or none: y = x (one + factor) + shift
///
/// over the reals. A factor without a tensor is 1 (one has to be 0 then, or there has to be an f), a shift without one
/// is not there; their offsets take no part.
///
/// View:    x in memory order as rows x cols; y has the same.
/// Special: IEEE rules: NaN and Inf act on their elements, Inf - Inf and 0 Inf are NaN.
/// Zeros:   a product that is zero has the sign of its factors, one + factor among them; sums as in IEEE addition.
struct ThreeTerms {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const Tensor* x = nullptr;
  const Tensor* f = nullptr;
  Parameter factor{};
  Parameter shift{};
  int one = 1;  ///< 1 or 0; takes part where there is no f
};

/// True if the functions below take it: all formats of at most 24 significant bits and fp32's exponents.
bool has_fast_tiers(const ThreeTerms& terms);

/// The truth of y in binary64 alone: enclosures of radius 0 but where three terms leave more than 106 bits, and
/// comparisons that are always decided. The tensors must outlive it. Thread-safe.
std::unique_ptr<TruthSource> three_terms_truth(const ThreeTerms& terms);

/// Every element correctly rounded, without a fallback; all count as settled by binary64. Any format but fp64. Same
/// result for any number of threads and vector width.
RoundedRows round_rows(const ThreeTerms& terms, FormatId format, Overflow overflow, int threads = 1);

}  // namespace norma
