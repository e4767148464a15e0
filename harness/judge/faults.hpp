// Planted faults: what the judge must catch before anybody believes it.
#pragma once

#include <span>
#include <string_view>

#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// One fault. Exactly one of the three functions is set; each returns false where the fault cannot
/// be planted (one row cannot be swapped), and then has changed nothing.
struct Fault {
  std::string_view name;
  std::string_view title;
  bool (*in_output)(Tensor& output) = nullptr;
  /// Changes what the implementation is given, not what it is judged by.
  bool (*in_call)(Tensors& inputs, Attributes& numbers) = nullptr;
  bool (*in_program)(Program& program) = nullptr;
  /// The error is far above one ulp of a typical output, so a limit must catch it, not only the
  /// ideal's bits.
  bool gross = true;
};

std::span<const Fault> all_faults();
const Fault* find_fault(std::string_view name);

}  // namespace norma
