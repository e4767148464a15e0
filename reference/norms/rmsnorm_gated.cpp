// Gated RMSNorm, a formula.
#include "reference/norms/rmsnorm_gated.hpp"

#include <array>
#include <cmath>

#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized"},
    {"gate", "rows,cols", true, "what the activation is taken of"},
    {"weight", "cols", false, "factor of every column"},
};
constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"gate_place", "after", "after|before", "whether the norm or the gate comes first"},
    {"activation", "silu", "silu|sigmoid", "function of the gate"},
    {"groups", "1", "", "groups that a row is normalized in"},
};
constexpr std::array<std::string_view, 2> kPlaces{"after", "before"};
constexpr std::array<std::string_view, 2> kActivations{"silu", "sigmoid"};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

struct Call {
  const Tensor* x = nullptr;
  const Tensor* gate = nullptr;
  const Tensor* weight = nullptr;
  double eps = 0;
  bool gate_first = false, silu = false;
  std::int64_t groups = 1;
};

Call read_call(const NormCall& call) {
  const CallReader reader("rmsnorm_gated", call);
  Call c{.x = &reader.x(), .gate = reader.like_x("gate"), .eps = reader.eps(1e-6)};
  if (c.gate == nullptr) reader.refuse("there is no tensor gate.");
  c.weight = reader.vector("weight", c.x->cols());
  c.gate_first = reader.word("gate_place", kPlaces) == "before";
  c.silu = reader.word("activation", kActivations) == "silu";
  c.groups = static_cast<std::int64_t>(reader.number("groups", 1, "a whole number from 1 to 2^31", [](double v) {
    return v >= 1 && v <= 0x1p31 && std::trunc(v) == v;
  }));
  if (c.x->cols() % c.groups != 0)
    reader.refuse("groups=" + std::to_string(c.groups) + " does not divide the " + std::to_string(c.x->cols()) +
                  " columns of x.");
  return c;
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

Operand square_mean(Builder& b, Operand h) {
  const Reduction mean{.kind = ReduceKind::mean,
                       .term = Term::square,
                       .order = {.kind = OrderKind::exact},
                       .contract = false,
                       .term_format = {}};
  return b.reduce("ms", kFp64, h, mean);
}

Program formula_of(const Call& c, const NormCall& call) {
  Builder b("rmsnorm_gated", formula_binding(call), View{.kind = c.groups > 1 ? ViewKind::groups : ViewKind::rows});
  const Operand x = b.input("x"), gate = b.input("gate", kRowsCols);
  const Operand e = exactly(b, "e", Op::exp, {exactly(b, "minus_gate", Op::neg, {gate})});
  const Operand divisor = exactly(b, "divisor", Op::add, {b.constant("one", 1), e});
  const Operand a = c.silu ? exactly(b, "a", Op::div, {gate, divisor})  //
                           : exactly(b, "a", Op::reciprocal, {divisor});
  const Operand h = c.gate_first ? exactly(b, "h", Op::mul, {x, a}) : x;
  const Operand root =
      exactly(b, "r", Op::rsqrt, {exactly(b, "ms_eps", Op::add, {square_mean(b, h), b.constant("eps", c.eps)})});
  Operand y = exactly(b, "n", Op::mul, {h, root});
  if (c.weight != nullptr) y = exactly(b, "nw", Op::mul, {y, b.input("weight")});
  if (!c.gate_first) y = exactly(b, "y", Op::mul, {y, a});
  b.output("y", y);
  return erase_roundings(b.finish());
}

// Groups are channels of samples of one position: tensors of other shapes are seen as [rows, cols].
Tensors flat_tensors(const Call& c) {
  if (c.groups == 1 || c.x->shape.size() == 2) return {};
  Tensors tensors{{"x", *c.x}, {"gate", *c.gate}};
  for (auto& [name, tensor] : tensors) tensor.shape = {c.x->rows(), c.x->cols()};
  if (c.weight != nullptr) tensors["weight"] = *c.weight;
  return tensors;
}

template <TruthKind kind>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y")
    CallReader("rmsnorm_gated", call).refuse("there is no output " + std::string(output) + "; known: y.");
  const Call c = read_call(call);
  return formula_truth(formula_of(c, call), call, "y", kind, flat_tensors(c));
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", read_call(call).x->shape}}; }

}  // namespace

constinit const NormDef rmsnorm_gated{
    .name = "rmsnorm_gated",
    .title = "Root-mean-square normalization with a gate",
    .formula =
        "y = weight x / sqrt(mean(x^2) + eps) silu(gate); before: the same of x silu(gate), without a gate behind",
    .source = "Dao & Gu, Transformers are SSMs, 2024",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth<TruthKind::mpfr>,
    .outputs_of = outputs_of,
    .fast = truth<TruthKind::fast>,
};

}  // namespace norma
