// Running statistics as the native kernels update them: (1 - momentum) running + momentum new, in fp32, stored in their
// own format.
#pragma once

#include "impls/operands.hpp"
#include "impls/cpu/statistics.hpp"

namespace norma {

/// The new part is the mean and the variance n / (n - 1) of a channel: of its one row (BatchNorm), or the mean over its
/// rows, one a sample, added first to last (InstanceNorm).
class RunningStatistics {
 public:
  /// Nothing is kept where the kernel has no such outputs or the call no running_mean and no running_var.
  RunningStatistics(bool has_outputs, const ImplCall& call, const Layout& layout);
  /// A row's statistic; rows in order.
  void add(std::int64_t row, const RowStatistic& found);
  /// running_mean and running_var, those that the call has.
  Tensors outputs() const;

 private:
  struct Part {
    std::string_view name;
    const Tensor* old;
    std::vector<float> sums;  ///< by channel
  };
  std::vector<Part> parts_;
  float momentum_ = 0, count_ = 0, samples_ = 1;
  bool each_sample_ = false;
};

/// The same as steps after those that found a row's statistic. `each_sample`: a row is a channel of one sample, and the
/// means over the samples are a stage of their own.
Program finish_with_running(Builder program, const DeclaredStatistic& found, bool each_sample);

}  // namespace norma
