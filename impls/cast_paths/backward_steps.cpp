// Steps that transcriptions of gradients share.
#include "impls/cast_paths/backward_steps.hpp"

namespace norma {

namespace {

Operand sum_of(Builder& b, const std::string& name, FormatRef accumulator, Operand terms, Order order, bool fused) {
  Reduction sum = reduction(ReduceKind::sum, Term::value, order);
  sum.contract = fused;
  return b.reduce(name, accumulator, terms, sum);
}

}  // namespace

Operand product_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand a, Operand c, Order order,
                    bool fused) {
  const Operand terms = b.mul(name + "_terms", fused ? kFp64 : kFp32, a, c);
  return sum_of(b, name, accumulator, terms, order, fused);
}

Operand fused_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand products, Order order) {
  return sum_of(b, name, accumulator, products, order, true);
}

Operand value_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand of, Order order) {
  return sum_of(b, name, accumulator, of, order, false);
}

Operand fused_product_minus(Builder& b, const std::string& name, Operand a, Operand c, Operand d) {
  return b.map(name, Op::fma, kFp32, {a, c, b.map("minus_" + name, Op::neg, kFp32, {d})});
}

Operand fused_minus_product(Builder& b, const std::string& name, Operand c, Operand a, Operand d) {
  return b.map(name, Op::fma, kFp32, {b.map("minus_" + name, Op::neg, kFp32, {a}), d, c});
}

Operand product_of(Builder& b, const std::string& name, std::initializer_list<Operand> factors) {
  const auto* factor = factors.begin();
  Operand product = *factor++;
  int step = 0;
  for (; factor != factors.end(); ++factor) {
    const bool last = factor + 1 == factors.end();
    product = b.mul(last ? name : name + "_" + std::to_string(++step), kFp32, product, *factor);
  }
  return product;
}

void put_out(Builder& b, const std::string& name, FormatRef format, Operand value) {
  b.output(name, b.cast(name, format, value));
}

void require_gradient_formats(const Binding& binding, std::string_view code, Mixed mixed) {
  require_float_or_half(binding, code);
  require_format(binding, "dy", std::string(code) + " beside such an x", {binding.x});
  for (const std::string_view name : {"weight", "bias"}) {
    if (!binding.has(name) || binding.format(name).id == binding.x) continue;
    if (mixed == Mixed::taken && binding.format(name).id == FormatId::fp32) continue;
    throw ProgramError(std::string(name) + " is " + std::string(name_of(binding.format(name).id)) + " and x is " +
                       std::string(name_of(binding.x)) + "; " + std::string(code) + " takes x's format for both" +
                       (mixed == Mixed::taken ? ", or fp32 parameters with 16-bit x" : ""));
  }
}

Order torch_outer_order(std::int64_t columns) {
  return {.kind = OrderKind::torch_outer, .count = static_cast<int>(columns)};
}

}  // namespace norma
