// Lp normalization, a formula.
#include "reference/norms/lp_norm.hpp"

#include <array>

#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "what is normalized"}};
constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-12", "", "least divisor"},
    {"p", "2", "2|1|inf", "which norm divides"},
};
constexpr std::array<std::string_view, 3> kPs{"2", "1", "inf"};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

struct Call {
  const Tensor* x = nullptr;
  double eps = 0;
  std::string_view p;
};

Call read_call(const NormCall& call) {
  const CallReader reader("lp_norm", call);
  return {.x = &reader.x(), .eps = reader.eps(1e-12), .p = reader.word("p", kPs)};
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

Operand length(Builder& b, std::string_view p, Operand x) {
  const auto reduce = [&](ReduceKind kind, Term term, Operand of) {
    const Reduction reduction{
        .kind = kind, .term = term, .order = {.kind = OrderKind::exact}, .contract = false, .term_format = {}};
    return b.reduce("total", kFp64, of, reduction);
  };
  if (p == "inf") return reduce(ReduceKind::amax, Term::value, x);
  if (p == "1") return reduce(ReduceKind::sum, Term::value, exactly(b, "size", Op::abs, {x}));
  return exactly(b, "length", Op::sqrt, {reduce(ReduceKind::sum, Term::square, x)});
}

Program formula_of(const Call& c, const NormCall& call) {
  Builder b("lp_norm", formula_binding(call));
  const Operand x = b.input("x");
  const Operand divisor = exactly(b, "divisor", Op::max, {length(b, c.p, x), b.constant("eps", c.eps)});
  b.output("y", exactly(b, "y", Op::div, {x, divisor}));
  return erase_roundings(b.finish());
}

template <TruthKind kind>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader("lp_norm", call).refuse("there is no output " + std::string(output) + "; known: y.");
  return formula_truth(formula_of(read_call(call), call), call, "y", kind);
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", read_call(call).x->shape}}; }

}  // namespace

constinit const NormDef lp_norm{
    .name = "lp_norm",
    .title = "Lp normalization",
    .formula = "y = x / max(||x||_p, eps)",
    .source = "torch.nn.functional.normalize",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth<TruthKind::mpfr>,
    .outputs_of = outputs_of,
    .fast = truth<TruthKind::fast>,
};

}  // namespace norma
