// Calls of native kernels: refusals, rows in and out.
#include "impls/operands.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr std::int64_t kMostColumns = 1 << 24;  // beyond it a column count need not be an fp32 number

bool holds(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

std::string tensors_of(const KernelInputs& inputs) {
  std::vector<std::string_view> names{"x"};
  names.insert(names.end(), inputs.required.begin(), inputs.required.end());
  names.insert(names.end(), inputs.optional.begin(), inputs.optional.end());
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i)
    list += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + std::string(names[i]);
  return list;
}

void check_tensors(const KernelInputs& inputs, const Tensors& tensors) {
  const auto x = tensors.find("x");
  if (x == tensors.end()) throw ImplSkipped("there is no tensor 'x'");
  const FormatId t = x->second.format;
  if (t == FormatId::fp64) throw ImplSkipped("x must fit fp32, got fp64");
  for (const std::string_view name : inputs.required)
    if (!tensors.contains(name)) throw ImplSkipped("there is no tensor '" + std::string(name) + "'");
  for (const auto& [name, tensor] : tensors) {
    if (name == "x") continue;
    if (!holds(inputs.required, name) && !holds(inputs.optional, name))
      throw ImplSkipped("this kernel takes no tensor '" + name + "', only " + tensors_of(inputs));
    if (tensor.format == t || (tensor.format == FormatId::fp32 && !inputs.one_format)) continue;
    throw ImplSkipped(name + " must be " + (inputs.one_format ? "" : "fp32 or ") + "x's format " +
                      std::string(name_of(t)) + ", got " + std::string(name_of(tensor.format)));
  }
}

std::size_t width_of(const Tensor& tensor) {
  return static_cast<std::size_t>(format_of(tensor.format).storage_bytes());
}

/// Elements of a row that lie `step` apart in memory, run by run: each(element, column, count).
template <class Each>
void for_runs(const Stride& stride, std::int64_t row, std::size_t cols, const Each& each) {
  for (std::int64_t col = 0; col < static_cast<std::int64_t>(cols);) {
    const std::int64_t n = std::min(static_cast<std::int64_t>(cols) - col, stride.run);
    each(static_cast<std::size_t>(stride.at(row, col)), static_cast<std::size_t>(col), static_cast<std::size_t>(n));
    col += n;
  }
}

/// Copies of a fixed size are one instruction each.
template <class Copy>
void for_each_place(std::size_t width, const Copy& copy) {
  if (width == 1)
    copy(std::integral_constant<std::size_t, 1>());
  else if (width == 2)
    copy(std::integral_constant<std::size_t, 2>());
  else
    copy(std::integral_constant<std::size_t, 4>());
}
template <std::size_t width>
void gather(const Tensor& from, const Stride& stride, std::int64_t row, std::size_t cols, std::byte* into) {
  const auto apart = static_cast<std::size_t>(stride.step);
  for_runs(stride, row, cols, [&](std::size_t element, std::size_t at, std::size_t n) {
    for (std::size_t k = 0; k < n; ++k)
      std::memcpy(into + (at + k) * width, from.bytes.data() + (element + k * apart) * width, width);
  });
}
template <std::size_t width>
void scatter(const std::byte* from, const Stride& stride, std::int64_t row, std::size_t cols, Tensor& into) {
  const auto apart = static_cast<std::size_t>(stride.step);
  for_runs(stride, row, cols, [&](std::size_t element, std::size_t at, std::size_t n) {
    for (std::size_t k = 0; k < n; ++k)
      std::memcpy(into.bytes.data() + (element + k * apart) * width, from + (at + k) * width, width);
  });
}

}  // namespace

void check_operands(const KernelInputs& inputs, const ImplCall& call) {
  check_tensors(inputs, *call.inputs);
  for (const std::string_view name : inputs.numbers)
    if (!call.numbers.contains(name)) throw ImplSkipped(std::string(name) + " is not given");
  for (const auto& [name, value] : call.numbers)
    if (value != 0 && !holds(inputs.numbers, name) && !holds(inputs.ignored, name))
      throw ImplSkipped("this kernel has no attribute '" + name + "' other than 0");
  for (const auto& [name, word] : call.words) {
    const auto fixed = std::ranges::find(inputs.words, name, &FixedWord::name);
    if (fixed == inputs.words.end() && holds(inputs.ignored, name)) continue;
    if (fixed == inputs.words.end()) throw ImplSkipped("this kernel has no attribute '" + name + "'");
    if (word != fixed->value)
      throw ImplSkipped("this kernel has no " + name + "=" + word + ", only " + name + "=" + std::string(fixed->value));
  }
}

Binding binding_of(const ImplCall& call) {
  const Tensor& x = call.inputs->find("x")->second;
  Binding binding{
      .x = x.format, .formats = {}, .attributes = call.numbers, .cols = x.cols(), .profile = {}, .shape = x.shape};
  for (const auto& [name, tensor] : *call.inputs)
    if (name != "x") binding.formats.emplace(name, tensor.format);
  return binding;
}

PlacedProgram placed_call(const Program& program, const ImplCall& call) {
  try {
    PlacedProgram placed = place(*stage_of(program, "y"), *call.inputs, call.numbers);
    if (placed.layout.cols > kMostColumns)
      throw ImplSkipped("a row must have 1 to 16777216 (2^24) values, got " + std::to_string(placed.layout.cols));
    return placed;
  } catch (const ProgramError& e) {
    throw ImplSkipped(e.what());
  }
}

RowValues::RowValues(const PlacedProgram& placed, std::string_view name) {
  for (std::size_t i = 0; i < placed.tensors.size(); ++i) {
    const Node& node = placed.program.nodes[i];
    if (placed.tensors[i] == nullptr || node.names.front() != name) continue;
    tensor_ = placed.tensors[i];
    stride_ = placed.strides[i];
    each_row_ = node.axes.has(Axis::rows);
    each_column_ = node.axes.has(Axis::cols);
    const std::int64_t cols = placed.layout.cols;
    values_.resize(static_cast<std::size_t>(each_column_ ? cols : std::min(cols, kChunk)));
  }
}

RowValues::Values RowValues::of(std::int64_t row) {
  if (!given()) return {};
  const std::int64_t wanted = each_row_ ? row : 0;
  if (loaded_ != wanted) load(wanted, values_.data());
  loaded_ = wanted;
  return {.first = values_.data(), .each_column = each_column_};
}

void RowValues::load(std::int64_t row, float* values) {
  const std::size_t width = width_of(*tensor_);
  if (!each_column_) {
    decode_row(tensor_->format, tensor_->bytes.data() + static_cast<std::size_t>(stride_.at(row, 0)) * width, values,
               1);
    std::fill(values + 1, values + values_.size(), values[0]);
    return;
  }
  if (stride_.step > 1) {
    apart_.resize(values_.size() * width);
    for_each_place(width, [&](auto size) { gather<size>(*tensor_, stride_, row, values_.size(), apart_.data()); });
    decode_row(tensor_->format, apart_.data(), values, values_.size());
    return;
  }
  for_runs(stride_, row, values_.size(), [&](std::size_t element, std::size_t at, std::size_t n) {
    const std::byte* stored = tensor_->bytes.data() + element * width;
    decode_row(tensor_->format, stored, values + at, stride_.step == 0 ? 1 : n);
    if (stride_.step == 0) std::fill(values + at + 1, values + at + n, values[at]);
  });
}

void RowWriter::write(std::int64_t row, const float* values) {
  const Stride& stride = layout_.elements;
  const auto cols = static_cast<std::size_t>(layout_.cols);
  const std::size_t width = width_of(tensor_);
  if (stride.step > 1) {
    apart_.resize(cols * width);
    encode_row(tensor_.format, values, apart_.data(), cols, Overflow::ieee);
    for_each_place(width, [&](auto size) { scatter<size>(apart_.data(), stride, row, cols, tensor_); });
    return;
  }
  for_runs(stride, row, cols, [&](std::size_t element, std::size_t at, std::size_t n) {
    encode_row(tensor_.format, values + at, tensor_.bytes.data() + element * width, n, Overflow::ieee);
  });
}

}  // namespace norma
