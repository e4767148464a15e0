// Input families: seeded, versioned, and each made to find one kind of failure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "reference/formats/tensor.hpp"

namespace norma {

/// The tensor that a family fills.
struct InputSpec {
  std::string_view tensor;  ///< its name; part of the stream's key
  FormatId format = FormatId::fp32;
  Shape shape;
  std::uint64_t seed = 0;
  double eps = 0;  ///< the norm's; 0 if it has none
};

/// One element of it, as a family sees it.
struct InputElement {
  std::uint64_t key;
  std::int64_t index, row, col, cols;
  FormatId format;
  double eps;
};

/// A rule that gives each element from (seed, tensor name, index) alone. A change of any bit is a
/// new version.
struct InputFamily {
  std::string_view name;
  int version;
  std::string_view title;         ///< what it is
  std::string_view finds;         ///< the failure it was made to find
  std::string_view precondition;  ///< what holds for every tensor it fills, or when it refuses
  /// Why the family cannot fill this tensor, as the end of a sentence; empty if it can.
  std::string (*refuse)(const InputSpec& spec);
  /// The element before it is rounded to the format (to nearest; a finite overflow gives the
  /// largest number).
  double (*value)(const InputElement& element);
};

std::span<const InputFamily> all_families();
const InputFamily* find_family(std::string_view name);
/// "normal/1".
std::string versioned_name(const InputFamily& family);

/// The tensor's bits; `threads` changes nothing in them. std::invalid_argument if the family
/// refuses.
Tensor generate(const InputFamily& family, const InputSpec& spec, int threads = 1);
/// One element's code, the same as generate's.
std::uint64_t generate_element(const InputFamily& family, const InputSpec& spec,
                               std::int64_t index);

}  // namespace norma
