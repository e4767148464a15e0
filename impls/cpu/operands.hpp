// What a native kernel is called with: what it refuses, and the rows of its tensors, decoded and stored. One place for
// all kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "impls/implementation.hpp"
#include "reference/program/layout.hpp"

namespace norma {

/// A choice of the norm that a kernel has one way of only.
struct FixedWord {
  std::string_view name, value;
};

/// What a kernel takes. All else is refused by name.
struct KernelInputs {
  std::string_view norm;
  std::span<const std::string_view> required;  ///< tensors beside x
  std::span<const std::string_view> optional;
  std::span<const std::string_view> numbers;  ///< attributes it reads
  std::span<const std::string_view> ignored;  ///< attributes that say something only of what it refuses anyhow
  std::span<const FixedWord> words;
  bool one_format = false;  ///< tensors in x's format only, not in fp32 beside it
};

/// Throws ImplSkipped, one sentence: a tensor missing, unknown or of another format, an attribute that is not read and
/// not 0, a word of another value.
void check_operands(const KernelInputs& inputs, const ImplCall& call);

/// Formats, attributes and shape of a call, for a builder.
Binding binding_of(const ImplCall& call);

/// The stage of a kernel's program that gives y, with its rows and columns. Throws ImplSkipped where shapes do not fit
/// or a row is longer than fp32 can count.
PlacedProgram placed_call(const Program& program, const ImplCall& call);

/// The values of one input of a program, a row at a time, as fp32.
class RowValues {
 public:
  /// No input of that name: `given` is false.
  RowValues(const PlacedProgram& placed, std::string_view name);
  bool given() const { return tensor_ != nullptr; }
  /// One value a column; valid until the next call.
  const float* of(std::int64_t row);
  /// Into memory of the caller's, which may be changed.
  void load(std::int64_t row, float* values) const;

 private:
  const Tensor* tensor_ = nullptr;
  Stride stride_;
  bool each_row_ = false;
  std::int64_t loaded_ = -1;
  std::vector<float> values_;
};

/// Rounds a row of fp32 values to the tensor's format and puts them where the layout has the row.
void write_row(const Layout& layout, std::int64_t row, const float* values, Tensor& tensor);

}  // namespace norma
