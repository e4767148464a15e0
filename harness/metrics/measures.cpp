// Measures an output: rows shared out to threads, what they kept put together.
#include "harness/metrics/measures.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <memory>
#include <stdexcept>
#include <thread>

#include "harness/metrics/pass.hpp"
#include "harness/metrics/tolerances.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

namespace {

// Elements a task takes: enough to hide its cost, few enough to share out. Sums in binary64 are
// made per task and added in task order, so this number, and not the number of threads, fixes their
// last bits.
constexpr std::int64_t kTaskElements = 8192;
// Below this many elements threads cost more than they save.
constexpr std::int64_t kFewElements = 16384;

void require(bool condition, std::string_view message) {
  if (!condition) throw std::invalid_argument(std::string(message));
}

void check_shapes(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                  const Tensor& got) {
  require(truth.rows() * truth.cols() == got.size(),
          fmt::format("measure: the output has shape {}, but the truth has {} rows of {} values", shape_text(got.shape),
                      truth.rows(), truth.cols()));
  require(erasure == nullptr || (erasure->rows() == truth.rows() && erasure->cols() == truth.cols()),
          "measure: the erasure's truth and the canonical truth differ in shape");
  for (const Tensor& ideal : ideals) {
    require(ideal.format == got.format && ideal.size() == got.size(),
            fmt::format("measure: the output is {} {}, but the ideal is {} {}", name_of(got.format),
                        shape_text(got.shape), name_of(ideal.format), shape_text(ideal.shape)));
  }
}

/// A power of two that keeps squares of the output's values within binary64; 0 but for extreme fp64
/// values.
int scale_of(const Tensor& got) {
  if (got.format != FormatId::fp64) return 0;
  double largest = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = std::fabs(got.value(i));
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  const int exponent = largest == 0 ? 0 : std::ilogb(largest);
  return std::abs(exponent) > 300 ? -exponent : 0;
}

}  // namespace

Measures measure(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                 const Tensor& got, Overflow policy, const MeasureOptions& options) {
  check_shapes(truth, erasure, ideals, got);
  const Format& format = format_of(got.format);
  const double largest = max_finite(format.id);
  const MeasureJob job{.truth = truth,
                       .erasure = erasure,
                       .ideals = options.got_is_ideal ? std::span(&got, 1) : ideals,
                       .got = got,
                       .policy = policy,
                       .options = options,
                       .format = format,
                       .largest = largest,
                       .half_beyond = ulp_of(format.id, format.emax) / 2,
                       .tie_overflows = (format.max_finite_code() & 1) != 0,
                       .scale = scale_of(got),
                       .tolerances = tolerances_for(format.id)};
  require(job.tolerances.size() <= kMaxTolerances, "measure: more tolerances for one format than it has room for");

  const std::int64_t rows = got.size() == 0 ? 0 : truth.rows();
  const std::int64_t rows_a_task = std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, truth.cols()));
  const std::int64_t tasks = (rows + rows_a_task - 1) / rows_a_task;
  std::vector<TaskSums> sums(static_cast<std::size_t>(tasks));
  // Each thread takes the next task and keeps a tally of its own.
  const auto threads = static_cast<std::size_t>(
      got.size() < kFewElements ? 1 : std::clamp<std::int64_t>(options.threads, 1, std::max<std::int64_t>(1, tasks)));
  std::vector<std::unique_ptr<RowPass>> passes;
  for (std::size_t thread = 0; thread < threads; ++thread) passes.push_back(std::make_unique<RowPass>(job));
  std::vector<std::exception_ptr> errors(threads);
  std::atomic<std::int64_t> next = 0;
  const auto work = [&](std::size_t thread) {
    try {
      for (std::int64_t task = next++; task < tasks; task = next++) {
        passes[thread]->measure(sums[static_cast<std::size_t>(task)], task * rows_a_task,
                                std::min(rows, (task + 1) * rows_a_task));
      }
    } catch (...) {
      errors[thread] = std::current_exception();
      next = tasks;
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  Tally& tally = passes.front()->tally();
  for (std::size_t thread = 1; thread < threads; ++thread) merge(tally, passes[thread]->tally());

  TaskSums all;
  for (const TaskSums& s : sums) {
    all.truth_squares += s.truth_squares;
    all.truth_error += s.truth_error;
    all.error_squares += s.error_squares;
    all.condition += s.condition;
    all.zeros_condition += s.zeros_condition;
  }
  return figures_of(tally, all, job);
}

Measures measure(const TruthSource& truth, const TruthSource* erasure, const Tensor* ideal, const Tensor& got,
                 Overflow policy, const MeasureOptions& options) {
  return measure(truth, erasure, ideal == nullptr ? std::span<const Tensor>{} : std::span<const Tensor>(ideal, 1), got,
                 policy, options);
}

}  // namespace norma
