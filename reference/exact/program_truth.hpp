// The real function that a program means, enclosed: every rounding and order in it is ignored.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/exact/enclosure.hpp"
#include "reference/exact/real.hpp"
#include "reference/exact/separation.hpp"
#include "reference/formats/tensor.hpp"
#include "reference/program/layout.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// Precision of program evaluation: begins at the first and is doubled up to the second.
inline constexpr mpfr_prec_t kFirstBits = 160;
inline constexpr mpfr_prec_t kLastBits = 4096;

/// Values put in place of a node's own: exact binary64, cols of them for a node with the cols axis, else one.
using Overrides = std::map<int, std::vector<double>>;

/// Intervals of a program's values on one row, at one precision: by node and port; one for each column, or one
/// where the node does not vary along the columns or only one column was asked for. Empty for nodes that were not
/// needed.
struct RowValues {
  std::int64_t row = 0;
  std::vector<std::vector<std::vector<Interval>>> nodes;
  std::vector<std::optional<Interval>> totals;  ///< by node: the sum that a mean divides
  const std::vector<Interval>& of(Operand o) const {
    return nodes[static_cast<std::size_t>(o.node)][static_cast<std::size_t>(o.port)];
  }
  const Interval& at(Operand o, std::int64_t col) const {
    const std::vector<Interval>& values = of(o);
    return values.size() == 1 ? values.front() : values[static_cast<std::size_t>(col)];
  }
};

class PassedValue;
class RootNames;

/// Encloses the values of a program's stage, the last one if none is named, on one row. What earlier stages give is
/// enclosed as tightly as the rest: nothing is rounded between stages. Steps are real functions continued to Inf, NaN and
/// signed zeros as in IEEE 754 (Inf/Inf is NaN, 1/0 is Inf, x - x is +0).
///
/// Rows and columns are those of the stage's view.
///
/// Shapes:  a tensor named as each input node, as place() (layout.hpp) takes it.
/// Errors:  ProgramError for a missing tensor or attribute, or a size that does not fit.
/// Lives:   the tensors must outlive it. Thread-safe.
class RowEvaluator {
 public:
  RowEvaluator(const Program& program, const Tensors& inputs, const Attributes& attributes,
               std::optional<std::size_t> stage = {});

  const Layout& layout() const { return placed_.layout; }
  std::int64_t rows() const { return placed_.layout.rows; }
  std::int64_t cols() const { return placed_.layout.cols; }
  /// Rows and columns that a value varies with, on these tensors.
  Axes axes(Operand value) const { return placed_.program.nodes[static_cast<std::size_t>(value.node)].axes; }
  /// Values a node has on one row: cols() or 1.
  std::int64_t width(Operand value) const;
  /// Where an element of a value, as the tensor that it is, stands in the stage.
  Layout::Place place_of(Operand value, std::int64_t element) const;
  /// True if the node is an input that an earlier stage gives.
  bool is_passed(int node) const { return passed_[static_cast<std::size_t>(node)] != nullptr; }

  /// Enclosures of one value on one row. Precision is raised until each radius is at most 2^-100 |y|, or of
  /// Enclosure::magnitude where the value is a sum (through casts); at kLastBits the enclosure is as it is.
  /// Overridden nodes (all ports a node has, one after the other) stand as given, whatever they depend on.
  std::vector<Enclosure> enclose(Operand value, std::int64_t row, const Overrides& overrides = {}) const;

  /// The intervals behind them at one precision, with those of all nodes that `value` depends on.
  RowValues evaluate(Operand value, std::int64_t row, mpfr_prec_t bits, const Overrides& overrides = {}) const;

  /// The same for one column: steps along the columns are evaluated there only, but for those that a reduction needs.
  /// `shared` may hold what shared_part left of another column at the same precision; then reductions cost nothing.
  RowValues evaluate_column(Operand value, std::int64_t row, std::int64_t col, mpfr_prec_t bits,
                            const RowValues* shared = nullptr) const;
  RowValues shared_part(RowValues values) const;
  /// enclose() for one column; `shared_at(bits)` gives a pointer to what evaluate_column takes.
  Enclosure enclose_column(Operand value, std::int64_t row, std::int64_t col,
                           const std::function<std::shared_ptr<const RowValues>(mpfr_prec_t)>& shared_at) const;

  /// How a value of one column lies to m_hi + m_lo. Equal if its interval is a point, or is so narrow about
  /// m_hi + m_lo that a difference other than 0 would lie outside (separation.hpp).
  Comparison compare(const RowValues& values, Operand value, std::int64_t col, double m_hi, double m_lo) const;

 private:
  friend class PassedValue;
  using PassedValues = std::map<std::string, std::shared_ptr<const PassedValue>, std::less<>>;
  RowEvaluator(const Program& program, std::size_t stage, const Tensors& inputs, const Attributes& attributes,
               const PassedValues& passed);
  static PassedValues passed_before(const Program& program, std::size_t stage, const Tensors& inputs,
                                    const Attributes& attributes);
  struct Scope {
    const Overrides* overrides = nullptr;
    std::optional<std::int64_t> col;    ///< this column only
    const RowValues* shared = nullptr;  ///< values without columns that are known
  };
  RowValues evaluate(Operand value, std::int64_t row, mpfr_prec_t bits, const Scope& scope) const;
  Interval magnitude(const RowValues& values, Operand target, std::int64_t col, const Overrides& overrides) const;
  std::optional<Algebraic> algebraic_of(const RowValues& values, Operand value, std::int64_t col,
                                        RootNames& names) const;

  PlacedProgram placed_;
  std::vector<double> scalars_;  // by node: attributes, constants, the count
  std::vector<std::shared_ptr<const PassedValue>> passed_;  // by node: null but for what earlier stages give
};

/// Truth of one output of the erased program, whichever stage gives it, in the output's memory order: rows are those of
/// the view; of a batch, the positions of one channel and sample; of columns seen as rows, x's. A per-row output has one
/// column.
///
/// Errors:  as RowEvaluator; ProgramError if the program has no such output.
/// compare: decides ties too, as long as the bits that the separation bound asks for stay below kLastBits (some
///          1500 for fp32 rows, with one root); else undecided. Values made by exp, tanh, erf, sin or cos are not algebraic:
///          only their interval decides.
std::unique_ptr<TruthSource> program_truth(const Program& program, const Tensors& inputs, const Attributes& attributes,
                                           std::string_view output);

}  // namespace norma
