// Steps that transcriptions of modulations share.
#include "impls/cast_paths/modulation.hpp"

namespace norma {

Operand vector_input(Builder& b, const std::string& name, Axes axes) { return b.input(name, axes); }
Operand element_input(Builder& b, const std::string& name) { return b.input(name, kRowsCols); }

Operand eager_sum(Builder& b, const std::string& name, Operand a, Operand c) {
  return b.eager(name, Op::add, promote(b.format(a), b.format(c)), {a, c});
}

Operand eager_product(Builder& b, const std::string& name, Operand a, Operand c) {
  return b.eager(name, Op::mul, promote(b.format(a), b.format(c)), {a, c});
}

Operand eager_parameter(Builder& b, const std::string& name, Axes axes) {
  const Operand value = vector_input(b, name, axes);
  if (!b.binding().has(name + "_table")) return value;
  const Operand table = vector_input(b, name + "_table", axes);
  return eager_sum(b, name + "_sum", table, value);
}

Operand eager_modulation(Builder& b, Operand n, Factor factor, Axes axes) {
  Operand y = n;
  if (b.binding().has("scale")) {
    Operand s = eager_parameter(b, "scale", axes);
    if (factor == Factor::one_plus_scale) {
      const Operand one = b.constant("one", 1);
      s = b.eager("factor", Op::add, b.format(s), {one, s});
    }
    y = eager_product(b, "scaled", y, s);
  }
  return b.binding().has("shift") ? eager_sum(b, "shifted", y, eager_parameter(b, "shift", axes)) : y;
}

Operand fp32_parameter(Builder& b, const std::string& name) {
  const Operand value = vector_input(b, name);
  if (!b.binding().has(name + "_table")) return value;
  const Operand table = vector_input(b, name + "_table");
  return b.add(name + "_sum", kFp32, value, table);
}

Operand fp32_modulation(Builder& b, Operand n, Factor factor, bool contract) {
  const bool scaled = b.binding().has("scale"), shifted = b.binding().has("shift");
  if (!scaled) return shifted ? b.add("shifted", kFp32, n, fp32_parameter(b, "shift")) : n;
  Operand s = fp32_parameter(b, "scale");
  if (factor == Factor::one_plus_scale) {
    const Operand one = b.constant("one", 1);
    s = b.add("factor", kFp32, one, s);
  }
  if (!shifted) return b.mul("scaled", kFp32, n, s);
  const Operand shift = fp32_parameter(b, "shift");
  if (contract) return b.map("shifted", Op::fma, kFp32, {n, s, shift});
  return b.add("shifted", kFp32, b.mul("scaled", kFp32, n, s), shift);
}

Operand tanh_in_fp32(Builder& b, const std::string& name, Operand a) {
  const bool correct = bound_profile(b.binding()).root == Profile::Root::correct;
  return b.map(name, Op::tanh, Rounding{.format = kFp32, .within_ulp = correct ? 0 : 2}, {a});
}

}  // namespace norma
