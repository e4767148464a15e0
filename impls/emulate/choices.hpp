// What results a program allows whose steps need not be rounded correctly (decision 0015).
#pragma once

#include <cstdint>
#include <span>

#include "impls/emulate/emulate.hpp"

namespace norma {

enum class ChoiceKind : std::uint8_t {
  none,     ///< every step is rounded correctly: one set of bits
  row,      ///< a choice for each row (the root of a norm): one nudge holds for a whole row
  element,  ///< one choice on each element's way, which ends in it alone: any nudge, element by element
  range,    ///< choices that meet: in a sum, or one after the other. Only an enclosure is known
};
/// Of a program of several stages with choices: row, since nudges there hold for all of a stage.
ChoiceKind choice_kind(const Program& program);

/// Lowest and highest value of each output element that any choices give. Where both are NaN it is NaN; where only
/// `low` is, anything is allowed.
struct OutputRange {
  Tensors low, high;
};

/// Every step of one stage from the ends of its operands: rounding is monotone, and so is each operation in each
/// operand, also a sum in its order in each term. A step within k ulp adds k to its higher end and takes k from its
/// lower one. So the range holds every allowed result; not every value in it is one. Steps that are not monotone
/// (moments, a divisor that may be 0) allow anything. Errors: as emulate; ProgramError for a program of several stages.
OutputRange emulate_range(const Program& program, const Tensors& inputs, const Attributes& attributes);

/// Of a program with choices of kind `element` or `range`: got's own bits where they are allowed, the plain ideal's
/// where not. `ideals`: element: all nudges, the plain one first; range: the plain one, then lowest and highest. In a
/// range zeros of both signs are one number.
Tensor held_against(ChoiceKind kind, std::span<const Tensor> ideals, const Tensor& got);

}  // namespace norma
