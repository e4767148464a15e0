// Steps of quantized outputs.
#include "impls/cast_paths/quantize.hpp"

namespace norma {

Operand clamp_to(Builder& b, const std::string& name, Operand q, FormatRef to, double limit, Overflow overflow) {
  const Operand below = b.map(name + "_below", Op::fmin, kFp32, {q, b.constant("q_max", limit)});
  const Operand inside = b.map(name + "_clamped", Op::fmax, kFp32, {below, b.constant("q_min", -limit)});
  return b.map(name, Op::cast, Rounding{.format = to, .overflow = overflow}, {inside});
}

}  // namespace norma
