// Modulation and gated residual: loops over elements, and the same as steps of a program.
#include "impls/cpu/elementwise.hpp"

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "impls/claim.hpp"
#include "impls/operands.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"
#include "reference/program/builder.hpp"

namespace norma {

namespace {

// ---- the loops ----

/// a b + c, rounded once to fp32, with no FMA unit asked for: the product of two fp32 numbers is exact in binary64,
/// Knuth's TwoSum gives its sum with c and the rest, and from a sum whose last bit is made odd where a rest was lost
/// fp32 is rounded correctly, since 53 >= 24 + 2 (Boldo & Melquiond, Emulation of FMA and correctly rounded sums,
/// 2008). Products lie in 2^-298 .. 2^256: nothing underflows or overflows in binary64. With NaN and Inf the rest is
/// NaN, and the sum stands as it is.
__attribute__((always_inline)) inline float fused(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = c;
  const double sum = product + addend, part = sum - product;
  const double rest = (product - (sum - part)) + (addend - part);
  const auto bits = std::bit_cast<std::int64_t>(sum);
  const std::int64_t away = (rest > 0) == (sum > 0) ? 1 : -1;  // to the neighbour on the rest's side
  const bool lost = (rest < 0 || rest > 0) && (bits & 1) == 0;
  return static_cast<float>(std::bit_cast<double>(lost ? bits + away : bits));
}

NORMA_CLONES void add_one(float* s, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) s[i] = 1.0f + s[i];
}
NORMA_CLONES void multiply_row(float* x, const float* factor, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] *= factor[i];
}
NORMA_CLONES void add_row(float* x, const float* term, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] += term[i];
}
NORMA_CLONES void fuse_row(float* x, const float* factor, const float* term, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] = fused(x[i], factor[i], term[i]);
}

/// A factor and a term: y = product factor + term. For a modulation the product's other side is x, the term the shift;
/// for a gated residual it is f, the term x.
struct Form {
  std::string_view norm, title;
  std::string_view other, factor, term;
  bool offset;  ///< the factor is scale_offset + its tensor
  KernelInputs inputs;
};

constexpr std::string_view kScale[] = {"scale"};
constexpr std::string_view kShift[] = {"shift"};
constexpr std::string_view kGate[] = {"f", "gate"};
constexpr std::string_view kScaleOffset[] = {"scale_offset"};
constexpr FixedWord kGateWords[] = {{"gate_function", "identity"}};

constexpr Form kModulate{.norm = "modulate",
                         .title = "x (1 + scale) + shift",
                         .other = "x",
                         .factor = "scale",
                         .term = "shift",
                         .offset = true,
                         .inputs = {.norm = "modulate",
                                    .required = kScale,
                                    .optional = kShift,
                                    .numbers = kScaleOffset,
                                    .ignored = {},
                                    .words = {}}};
constexpr Form kGatedResidual{.norm = "gated_residual",
                              .title = "x + gate f",
                              .other = "f",
                              .factor = "gate",
                              .term = "x",
                              .offset = false,
                              .inputs = {.norm = "gated_residual",
                                         .required = kGate,
                                         .optional = {},
                                         .numbers = {},
                                         .ignored = {},
                                         .words = kGateWords}};

class ElementwiseKernel final : public Implementation {
 public:
  ElementwiseKernel(const Form& form, Steps steps) : form_(form), inputs_(form.inputs), steps_(steps) {
    inputs_.one_format = steps == Steps::eager;
  }

  std::string name() const override {
    return "cpu." + std::string(form_.norm) + (steps_ == Steps::eager ? ".eager" : ".fused");
  }
  std::string title() const override {
    return std::string(form_.title) + (steps_ == Steps::eager
                                           ? ", every operation rounded to T"
                                           : ", by one fused multiply-add in fp32 and one cast to T");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == form_.norm; }

  Declaration declares(const ImplCall& call) const override { return declare_claim(program_of(call), call); }

  std::optional<Program> declared_program(const ImplCall& call) const override { return program_of(call); }

  Tensors run(const ImplCall& call) override {
    const PlacedProgram placed = placed_call(program_of(call), call);
    const auto cols = static_cast<std::size_t>(placed.layout.cols);
    const Tensor& x = call.inputs->find("x")->second;
    const FormatId t = x.format;
    RowValues other(placed, form_.other), factors(placed, form_.factor), terms(placed, form_.term);
    const bool one_plus = adds_one(call), each = steps_ == Steps::eager;
    Tensor y = Tensor::zeros(t, x.shape);
    RowWriter writer(placed.layout, y);
    std::vector<float> row(cols), factor(cols);
    for (std::int64_t i = 0; i < placed.layout.rows; ++i) {
      other.load(i, row.data());
      factors.load(i, factor.data());
      if (one_plus) add_one(factor.data(), cols);
      if (one_plus && each) round_row(t, factor.data(), cols, Overflow::ieee);
      if (!each && terms.given()) {
        fuse_row(row.data(), factor.data(), terms.of(i).first, cols);
      } else {
        multiply_row(row.data(), factor.data(), cols);
        if (each) round_row(t, row.data(), cols, Overflow::ieee);
        if (terms.given()) add_row(row.data(), terms.of(i).first, cols);
      }
      writer.write(i, row.data());
    }
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  bool adds_one(const ImplCall& call) const { return form_.offset && call.numbers.find("scale_offset")->second != 0; }

  Program program_of(const ImplCall& call) const {
    check_operands(inputs_, call);
    Builder b(std::string(form_.norm), binding_of(call));
    const FormatRef t = b.x_format();
    const auto input = [&](std::string_view name) {
      const bool elements = name == "x" || name == "f";
      return b.input(std::string(name), elements ? kRowsCols : kCols);
    };
    const Operand other = input(form_.other);
    Operand factor = input(form_.factor);
    const bool each = steps_ == Steps::eager;
    const auto step = [&](const std::string& name, Op op, Operand p, Operand q) {
      return each ? b.eager(name, op, t, {p, q}) : b.map(name, op, kFp32, {p, q});
    };
    if (adds_one(call)) factor = step("factor", Op::add, b.constant("one", 1), factor);
    const bool has_term = form_.term == "x" || b.binding().has(form_.term);
    Operand y;
    if (has_term && !each) {
      y = b.map("sum", Op::fma, kFp32, {other, factor, input(form_.term)});
    } else {
      y = step("product", Op::mul, other, factor);
      if (has_term) y = step("sum", Op::add, y, input(form_.term));
    }
    b.output("y", b.format(y) == t ? y : b.cast("y_T", t, y));
    return b.finish();
  }

  const Form& form_;
  KernelInputs inputs_;
  Steps steps_;
};

}  // namespace

std::unique_ptr<Implementation> make_modulate(Steps steps) {
  return std::make_unique<ElementwiseKernel>(kModulate, steps);
}
std::unique_ptr<Implementation> make_gated_residual(Steps steps) {
  return std::make_unique<ElementwiseKernel>(kGatedResidual, steps);
}

}  // namespace norma
