// Softmax over rows with certified errors: y_i = e^(x_i) / (e^(x_1) + ... + e^(x_n)).
#pragma once

#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// The truth of softmax over the last axis, with all tiers. x must outlive it. Thread-safe.
///
/// Special: a row with a NaN or +Inf, or with nothing but -Inf, is NaN (Inf - Inf, 0/0); else -Inf gives 0 exactly.
///          Where all finite scores of a row are equal y is 1/n exactly.
/// Ends:    y is rational only there. With distinct finite scores y_i = m would be a linear relation, e^(x_i) - m
/// e^(x_1)
///          - ... = 0, between powers of e with distinct algebraic exponents, whose coefficients are not all zero:
///          Lindemann-Weierstrass excludes it. So Ziv's loop ends; it is cut off at 4096 bits, `undecided`.
std::unique_ptr<TruthSource> softmax_truth(const Tensor& x);

/// Every element correctly rounded; as round_rows.
RoundedRows round_softmax(const Tensor& x, FormatId format, Overflow overflow, int threads = 1);

}  // namespace norma
