// A program evaluated in balls, a row at a time: which steps in which pass, and where their values stand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "reference/certified/programs/ball_rows.hpp"
#include "reference/formats/tensor.hpp"
#include "reference/program/layout.hpp"

namespace norma {

/// A tensor of balls: what an earlier stage gives.
struct BallTensor {
  std::vector<double> h, l, r;
};
/// By node; null for inputs that are tensors. Shorter than the nodes: null for the rest.
using PassedBalls = std::vector<std::shared_ptr<const BallTensor>>;

/// How exp, tanh and erf are computed along columns: in binary64, or in double-double as everything else.
enum class Effort { quick, close };

class BallProgram {
 public:
  /// The values of one row while it is worked on; one for each thread.
  struct Workspace {
    struct Value {
      Ball one;                     ///< a value without columns
      std::vector<double> h, l, r;  ///< one for each column, of the row or of a piece
    };
    std::vector<Value> values;    ///< by slot
    std::vector<float> narrow;    ///< a piece of a tensor up to fp32
    std::vector<double> decoded;  ///< a piece of an fp64 tensor
    std::array<std::vector<double>, 6> scratch;
    Effort effort = Effort::close;
  };

  /// Evaluates the `wanted` values of one stage, whose roundings are ignored. Its tensors must outlive this.
  BallProgram(PlacedProgram placed, const Attributes& attributes, const std::vector<Operand>& wanted,
              PassedBalls passed = {});

  Workspace workspace() const;
  void run(Workspace& work, std::int64_t row, Effort effort = Effort::close) const;
  /// A wanted value after run(): for every column, or one.
  BallRow row_of(const Workspace& work, Operand wanted) const;

 private:
  /// Columns at a time, a multiple of BallSum::kLanes: what steps leave each other stays in the first cache.
  static constexpr std::size_t kPiece = 256;

  /// The value of one port of a node.
  struct Slot {
    bool fixed = false;  ///< the same for all rows
    bool per_column = false;
    bool whole = false;     ///< all columns are kept, else those of one piece
    bool repeated = false;  ///< no columns, but steps with columns use it: stands there for a whole piece
    bool plain = false;     ///< binary64 numbers in range: l and r are zero
  };
  /// Steps between two rounds of reductions: those without columns, then piece by piece the others, the reductions
  /// taking their operand's pieces as they come.
  struct Pass {
    std::vector<std::size_t> scalars, columns, reductions;
  };
  using Value = Workspace::Value;

  void lay_out(const std::vector<Operand>& wanted);
  std::vector<Pass> schedule(bool fixed) const;
  void run_passes(const std::vector<Pass>& passes, Workspace& work, std::int64_t row) const;
  void run_scalar(std::size_t node, Workspace& work, std::int64_t row) const;
  void run_piece(std::size_t node, Workspace& work, std::int64_t row, std::size_t from, std::size_t count) const;
  void move_columns(const Node& node, const Workspace& work, const BallRowOut& to, std::size_t from,
                    std::size_t count) const;
  void load(std::size_t node, Workspace& work, std::int64_t row, std::size_t from, std::size_t count) const;
  void load_passed(std::size_t node, Workspace& work, std::int64_t row, std::size_t from, std::size_t count) const;
  BallRow terms_of(const Reduction& reduction, const BallRow& values, Workspace& work, std::size_t count) const;
  void finish(std::size_t node, const BallSum& sum, const BallMax& largest, Workspace& work) const;

  Operand source(Operand o) const;  ///< through casts
  /// c of a divisor k + e^c with a constant k >= 0, as sigmoids have it.
  std::optional<Operand> exponent_under(const Node& node) const;
  std::size_t slot_of(Operand o) const;
  const Value& value(const Workspace& work, Operand o) const;
  BallRow piece(const Workspace& work, Operand o, std::size_t from) const;
  void set_scalar(Value& value, const Slot& slot, const Ball& ball) const;

  Program program_;
  std::vector<const Tensor*> tensors_;  // by node
  PassedBalls passed_;                  // by node
  std::vector<Stride> strides_;         // by node
  std::vector<double> scalars_;         // by node: attributes, constants, the count
  Layout layout_;
  std::size_t cols_;
  std::vector<char> needed_;             // by node
  std::vector<std::size_t> first_slot_;  // by node
  std::vector<Slot> slots_;
  std::vector<Pass> passes_;
  std::vector<Value> fixed_;  // by slot
  std::vector<double> zeros_;
};

}  // namespace norma
