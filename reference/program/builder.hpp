// Writes programs: one call per step, and torch's habits as helpers.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "reference/program/program.hpp"

namespace norma {

inline constexpr FormatRef kFp64{FormatId::fp64};
inline constexpr FormatRef kFp32{FormatId::fp32};
inline constexpr FormatRef kBf16{FormatId::bf16};
inline constexpr FormatRef kFp16{FormatId::fp16};

/// The wider format of torch's type promotion: fp64 > fp32 > {bf16, fp16}; bf16 with fp16 is fp32; an 8-bit
/// format promotes with nothing but itself (ProgramError otherwise).
/// Source: torch's c10/core/ScalarType promoteTypes table (v2.6.0).
FormatRef promote(FormatRef a, FormatRef b);

/// x, residual, dy [rows, cols]; scale []; weight, bias [cols], or one for each channel where the view has channels;
/// running_mean, running_var one for each channel; cos, sin of a view with pairs one for each pair. None: the name says
/// nothing of its axes.
std::optional<Axes> standard_axes(std::string_view name, const View& view);

class Builder {
 public:
  Builder(std::string norm, const Binding& binding, View view = {});

  const Binding& binding() const { return binding_; }
  FormatRef x_format() const { return binding_.format("x"); }
  FormatRef format(Operand value) const;  ///< of a rounded value; ProgramError if it is exact

  /// Axes by the standard names (standard_axes).
  Operand input(const std::string& name);
  Operand input(const std::string& name, Axes axes);
  Operand attribute(const std::string& name);  ///< exact binary64 scalar
  Operand constant(const std::string& name, double value);
  Operand count();                             ///< N, the columns of a row

  Operand map(const std::string& name, Op op, Rounding to, std::initializer_list<Operand> operands);
  Operand map(const std::string& name, Op op, FormatRef to, std::initializer_list<Operand> operands) {
    return map(name, op, Rounding{.format = to}, operands);
  }
  Operand cast(const std::string& name, FormatRef to, Operand a) { return map(name, Op::cast, to, {a}); }
  Operand add(const std::string& name, FormatRef to, Operand a, Operand b) { return map(name, Op::add, to, {a, b}); }
  Operand sub(const std::string& name, FormatRef to, Operand a, Operand b) { return map(name, Op::sub, to, {a, b}); }
  Operand mul(const std::string& name, FormatRef to, Operand a, Operand b) { return map(name, Op::mul, to, {a, b}); }
  Operand div(const std::string& name, FormatRef to, Operand a, Operand b) { return map(name, Op::div, to, {a, b}); }
  Operand sqrt(const std::string& name, FormatRef to, Operand a) { return map(name, Op::sqrt, to, {a}); }
  Operand rsqrt(const std::string& name, FormatRef to, Operand a) { return map(name, Op::rsqrt, to, {a}); }

  Operand reduce(const std::string& name, FormatRef accumulator, Operand of, const Reduction& reduction);
  /// Port 0 is the mean, port 1 the biased variance.
  Operand moments(const std::string& mean, const std::string& variance, FormatRef accumulator, Operand of,
                  Order order, bool contract);

  /// One eager torch operation on 16-bit tensors: computed and rounded in fp32, then rounded once to `to`
  /// (the intermediate is named `name` + "_f32"). On fp32 and fp64 operands it is one step in that format.
  Operand eager(const std::string& name, Op op, FormatRef to, std::initializer_list<Operand> operands);

  void output(const std::string& name, Operand value);
  /// An output that only later stages see.
  void pass(const std::string& name, Operand value);
  void pass(Operand value);  ///< by its own name
  /// Ends a stage. The builder returned writes the next one, in its own view; this one is done with. Operands belong to
  /// the stage they were made in: a later one takes what is passed, or put out, by input(name), which has its format.
  Builder next_stage(View view = {});
  Program finish();  ///< checks and hands over

 private:
  Operand push(Node node);
  void add_output(ProgramOutput output);
  Binding binding_;
  Program program_;
};

}  // namespace norma
