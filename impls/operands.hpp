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

constexpr std::int64_t kChunk = 4096;  ///< columns that steps on a row take at a time: they stay in the first cache

/// The values of one input of a program, a row at a time, as fp32.
class RowValues {
 public:
  /// Of a row, from some column on. One value for all columns stands there kChunk times, or as often as there are
  /// columns.
  struct Values {
    const float* first = nullptr;
    bool each_column = true;
    const float* from(std::size_t column) const { return first == nullptr || !each_column ? first : first + column; }
    float one() const { return *first; }
  };

  /// No input of that name: `given` is false.
  RowValues(const PlacedProgram& placed, std::string_view name);
  bool given() const { return tensor_ != nullptr; }
  /// Valid until the next call; none if it is not given.
  Values of(std::int64_t row);
  /// A value a column into memory of the caller's, which may be changed.
  void load(std::int64_t row, float* values);

 private:
  const Tensor* tensor_ = nullptr;
  Stride stride_;
  bool each_row_ = false, each_column_ = false;
  std::int64_t loaded_ = -1;
  std::vector<float> values_;
  std::vector<std::byte> apart_;
};

/// Rounds rows of fp32 values to a tensor's format and puts them where the layout has them.
class RowWriter {
 public:
  RowWriter(const Layout& layout, Tensor& tensor) : layout_(layout), tensor_(tensor) {}
  void write(std::int64_t row, const float* values);

 private:
  const Layout& layout_;
  Tensor& tensor_;
  std::vector<std::byte> apart_;
};

}  // namespace norma
