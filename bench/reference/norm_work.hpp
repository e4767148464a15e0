// One norm on one set of bits, for either side: the certified reference and the plain loops.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/ratio.hpp"
#include "bench/reference/buffers.hpp"
#include "bench/reference/plain.hpp"
#include "bench/reference/slow.hpp"
#include "reference/certified/rows/row_norm.hpp"

namespace norma::bench {

/// rows x cols as RowNorm views x. group: rows N G of `span` elements a channel, period G; batch, affine: rows N C of
/// one channel, period C.
struct NormShape {
  std::string norm;  ///< rmsnorm, layernorm, groupnorm, batchnorm; batchnorm_eval: with running statistics
  FormatId in = FormatId::bf16;
  FormatId out = FormatId::fp32;
  std::int64_t rows = 0, cols = 0, span = 0, period = 1;
  double eps = 1e-6;

  std::int64_t size() const { return rows * cols; }
  std::string text() const;  ///< "rmsnorm bf16 to fp32, 256x3072"
};

/// The tensors beside x, and both forms of the problem. `x` has to outlive it.
class NormWork {
 public:
  NormWork(const NormShape& shape, const Tensor& x);
  /// With parameters of the caller's: cliffs.
  NormWork(const NormShape& shape, const Tensor& x, Tensor weight, Tensor bias);
  NormWork(const NormWork&) = delete;
  NormWork& operator=(const NormWork&) = delete;

  const NormShape& shape() const { return shape_; }
  const RowNorm& problem() const { return problem_; }
  const TruthSource& exact() const { return *exact_; }
  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }
  /// The plain peer's problem, writing to `y`.
  PlainNorm plain(std::byte* y) const;

  /// All of y, correctly rounded, to `y`; one thread.
  TierCounts round(std::byte* y) const;

 private:
  NormShape shape_;
  const Tensor* x_;
  Tensor weight_, bias_, mean_, variance_;
  std::vector<float> weight_values_, bias_values_, mean_values_, variance_values_;
  RowNorm problem_;
  std::unique_ptr<TruthSource> exact_;
};

/// The first `rows` rows of a work of RMSNorm or LayerNorm, decoded for the slow peers.
struct SlowRows {
  std::vector<double> x, weight, bias;
  std::vector<float> y;
  SlowNorm norm;
  SlowRows(const NormWork& work, const Tensor& tensor, std::int64_t rows);
  SlowRows(const SlowRows&) = delete;
  SlowRows& operator=(const SlowRows&) = delete;
};

std::vector<float> decoded_floats(const Tensor& t);

/// `passes` runs of either, on the clock.
Timed time_certified(const NormWork& work, std::byte* y, int passes);
Timed time_plain(const NormWork& work, std::byte* y, int passes);

}  // namespace norma::bench
