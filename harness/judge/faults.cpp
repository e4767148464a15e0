// Planted faults, one function each.
#include "harness/judge/faults.hpp"

#include <algorithm>

namespace norma {

namespace {

bool flip_lowest_bit(Tensor& output) {
  if (output.size() == 0) return false;
  const std::int64_t i = output.size() / 2;
  output.set_code(i, output.code(i) ^ 1);
  return true;
}

/// The first two rows that differ.
bool swap_rows(Tensor& output) {
  const auto row_bytes = static_cast<std::ptrdiff_t>(output.cols() * format_of(output.format).storage_bytes());
  for (std::int64_t row = 1; row < output.rows(); ++row) {
    const auto first = output.bytes.begin();
    const auto other = first + static_cast<std::ptrdiff_t>(row) * row_bytes;
    if (std::equal(first, first + row_bytes, other)) continue;
    std::swap_ranges(first, first + row_bytes, other);
    return true;
  }
  return false;
}

bool all_zeros(Tensor& output) {
  std::fill(output.bytes.begin(), output.bytes.end(), std::byte{0});
  return output.size() > 0;
}

bool one_nan(Tensor& output) {
  if (output.size() == 0) return false;
  output.set_code(output.size() - 1, format_of(output.format).nan_code());
  return true;
}

/// The last sixteenth of the output, at least one value, keeps the pattern that the buffer was
/// filled with.
bool unwritten_tail(Tensor& output) {
  if (output.size() == 0) return false;
  const std::int64_t tail = std::max<std::int64_t>(1, output.size() / 16);
  // A large finite number in every format: nothing a norm would write.
  const std::uint64_t canary = 0x7b7b'7b7b'7b7b'7b7b >> (64 - format_of(output.format).code_bits);
  for (std::int64_t i = output.size() - tail; i < output.size(); ++i) output.set_code(i, canary);
  return true;
}

/// Every value times 1.25, as when a constant factor is wrong.
bool constant_scale(Tensor& output) {
  for (std::int64_t i = 0; i < output.size(); ++i) {
    output.set_code(i, encode(output.format, 1.25 * output.value(i), Overflow::ieee));
  }
  return output.size() > 0;
}

bool wrong_eps(Tensors&, Attributes& numbers) {
  const auto eps = numbers.find("eps");
  if (eps == numbers.end() || eps->second == 0) return false;
  eps->second *= 10;
  return true;
}

/// The weight is all ones: as if it were never multiplied.
bool dropped_weight(Tensors& inputs, Attributes&) {
  const auto weight = inputs.find("weight");
  if (weight == inputs.end()) return false;
  Tensor& w = weight->second;
  bool changed = false;
  const std::uint64_t one = encode(w.format, 1.0, Overflow::ieee);
  for (std::int64_t i = 0; i < w.size(); ++i) {
    changed = changed || w.code(i) != one;
    w.set_code(i, one);
  }
  return changed;
}

/// The last step before the outputs that is rounded to a wider format than the first output is
/// rounded to the output's: a cast taken too early. Where every step has the output's format: the
/// first step is cast to bf16.
bool early_cast(Program& program) {
  if (program.outputs.empty()) return false;
  const std::optional<FormatRef> to =
      program.nodes[static_cast<std::size_t>(program.outputs.front().value.node)].rounding.format;
  if (!to) return false;
  const auto is_step = [](const Node& node) { return node.kind == NodeKind::map || node.kind == NodeKind::reduce; };
  for (auto node = program.nodes.rbegin(); node != program.nodes.rend(); ++node) {
    const std::optional<FormatRef>& format = node->rounding.format;
    if (!is_step(*node) || !format || format_of(format->id).precision <= format_of(to->id).precision) continue;
    node->rounding.format = to;
    return true;
  }
  for (Node& node : program.nodes) {
    if (!is_step(node) || !node.rounding.format || node.rounding.format->id == FormatId::bf16) continue;
    node.rounding.format = FormatRef{.id = FormatId::bf16};
    return true;
  }
  return false;
}

// One flipped bit is at most one ulp, and a cast taken too early costs about as much: only the
// ideal's bits show them for certain.
constexpr Fault kFaults[] = {
    {.name = "flipped_bit",
     .title = "the lowest bit of one value is flipped",
     .in_output = flip_lowest_bit,
     .gross = false},
    {.name = "swapped_rows", .title = "two rows are swapped", .in_output = swap_rows},
    {.name = "wrong_eps", .title = "eps is ten times too large", .in_call = wrong_eps, .gross = false},
    {.name = "dropped_weight", .title = "the weight is not applied", .in_call = dropped_weight},
    {.name = "early_cast", .title = "a cast is taken one step too early", .in_program = early_cast, .gross = false},
    {.name = "all_zeros", .title = "the output is zero everywhere", .in_output = all_zeros},
    {.name = "one_nan", .title = "the last value is NaN", .in_output = one_nan},
    {.name = "unwritten_tail", .title = "the end of the output was never written", .in_output = unwritten_tail},
    {.name = "constant_scale", .title = "every value is 1.25 times too large", .in_output = constant_scale},
};

}  // namespace

std::span<const Fault> all_faults() { return kFaults; }

const Fault* find_fault(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kFaults), std::end(kFaults), [name](const Fault& fault) { return fault.name == name; });
  return found == std::end(kFaults) ? nullptr : found;
}

}  // namespace norma
