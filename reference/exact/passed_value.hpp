// What one stage of a program gives later ones, enclosed.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "reference/exact/program_truth.hpp"

namespace norma {

/// One name for each square root: a node's, on one row and column of one stage.
class RootNames {
 public:
  int of(const RowEvaluator* stage, std::int64_t row, std::int64_t col, int node) {
    return names_.try_emplace({stage, row, col, node}, static_cast<int>(names_.size())).first->second;
  }

 private:
  std::map<std::tuple<const RowEvaluator*, std::int64_t, std::int64_t, int>, int> names_;
};

/// A value of one stage as later ones see it: a tensor of intervals at any precision, made row by row when asked for
/// and kept. Thread-safe.
class PassedValue {
  struct Row {
    std::once_flag made;
    std::vector<Interval> values;
    RowValues shared;  ///< what evaluate_column takes
  };

 public:
  /// All of it at one precision.
  struct Level {
    Level(std::int64_t count, mpfr_prec_t precision) : bits(precision), rows(static_cast<std::size_t>(count)) {}
    mpfr_prec_t bits;
    mutable std::vector<Row> rows;
  };

  PassedValue(std::shared_ptr<const RowEvaluator> from, Operand value);

  /// Its shape; without bytes.
  const Tensor& tensor() const { return shape_; }
  const Level& level(mpfr_prec_t bits) const;
  /// One element, in memory order.
  const Interval& at(const Level& level, std::int64_t element) const;
  /// What its stage makes of it as an algebraic number, the roots named as everywhere in one question.
  std::optional<Algebraic> algebraic(std::int64_t element, mpfr_prec_t bits, RootNames& names) const;

 private:
  const Row& row(const Level& level, std::int64_t index) const;

  std::shared_ptr<const RowEvaluator> from_;
  Operand value_;
  Tensor shape_;
  mutable std::mutex mutex_;
  mutable std::map<mpfr_prec_t, std::unique_ptr<Level>> levels_;
};

}  // namespace norma
