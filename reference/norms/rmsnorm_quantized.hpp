// RMSNorm's quantized outputs: codes y = n / scale, and the scale of each row.
#pragma once

#include <limits>
#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// What n is divided by: `scale`, or with per_token, for each row, max(min(max_j |n_j|, cap) / max, floor).
struct Quantization {
  bool per_token = false;
  double scale = 1;
  double max = 448;
  double floor = 0x1.2492492492492p-18;
  double cap = std::numeric_limits<double>::infinity();
};

/// The truth of y = n / scale, n the norm.
std::unique_ptr<TruthSource> quantized_truth(const RowNorm& norm, const Quantization& quantization);
/// The truth of the scale, one a row.
std::unique_ptr<TruthSource> scale_truth(const RowNorm& norm, const Quantization& quantization);

}  // namespace norma
