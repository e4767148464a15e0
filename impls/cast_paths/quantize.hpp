// Steps of quantized outputs.
#pragma once

#include <string>

#include "reference/program/builder.hpp"

namespace norma {

/// What goes to `to`: fmaxf(-limit, fminf(q, limit)), which turns NaN into limit, then the conversion.
Operand clamp_to(Builder& b, const std::string& name, Operand q, FormatRef to, double limit, Overflow overflow);

}  // namespace norma
