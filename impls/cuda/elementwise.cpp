// Modulation and gated residual as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/elementwise.hpp"

#include <algorithm>
#include <string>

#include "impls/claim.hpp"
#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kScale[] = {"scale"};
constexpr std::string_view kShift[] = {"shift"};
constexpr std::string_view kGate[] = {"f", "gate"};
constexpr std::string_view kScaleOffset[] = {"scale_offset"};
constexpr FixedWord kGateWords[] = {{"gate_function", "identity"}};

/// y = multiplied factor + term.
struct Form {
  std::string_view title, multiplied, factor, term;
  KernelInputs inputs;
};
constexpr Form kModulate{.title = "x (1 + scale) + shift",
                         .multiplied = "x",
                         .factor = "scale",
                         .term = "shift",
                         .inputs = {.norm = "modulate", .required = kScale, .optional = kShift, .numbers = kScaleOffset,
                                    .ignored = {}, .words = {}}};
constexpr Form kGatedResidual{.title = "x + gate f",
                              .multiplied = "f",
                              .factor = "gate",
                              .term = "x",
                              .inputs = {.norm = "gated_residual", .required = kGate, .optional = {}, .numbers = {},
                                         .ignored = {}, .words = kGateWords, .one_format = true}};

const Tensor* tensor_of(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

class Elementwise final : public Implementation {
 public:
  Elementwise(const Form& form, SideKind side, Roundings roundings)
      : form_(form), inputs_(form.inputs), side_(side), roundings_(roundings) {
    if (roundings == Roundings::each) inputs_.one_format = true;
  }

  std::string name() const override {
    return (side_ == SideKind::gpu ? "cuda." : "cuda_host.") + std::string(inputs_.norm) +
           (roundings_ == Roundings::each ? ".eager" : ".fused");
  }
  std::string title() const override {
    return std::string(form_.title) +
           (roundings_ == Roundings::each ? ", every operation rounded to T" : ", a fused multiply-add and one cast to T") +
           (side_ == SideKind::gpu ? "; one block a row, on a GPU" : "; the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall& call) const override { return declare_claim(*declared_program(call), call); }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    check_operands(inputs_, call);
    check_storage(*tensor_of(call, "x"));
    Builder b(std::string(inputs_.norm), binding_of(call));
    const auto input = [&](std::string_view name) {
      return b.input(std::string(name), name == "x" || name == "f" ? kRowsCols : kCols);
    };
    const bool each = roundings_ == Roundings::each, has_term = tensor_of(call, form_.term) != nullptr;
    const auto rounded = [&](const std::string& name, Operand v) { return each ? to_storage(b, name, v) : v; };
    const Operand multiplied = input(form_.multiplied);
    Operand factor = input(form_.factor);
    if (one_plus(call)) factor = rounded("factor_T", b.add("factor", kFp32, b.constant("one", 1), factor));
    Operand y;
    if (has_term && !each) {
      y = b.map(last_step(b), Op::fma, kFp32, {multiplied, factor, input(form_.term)});
    } else {
      y = b.mul(has_term ? "product" : last_step(b), kFp32, multiplied, factor);
      if (has_term) {
        y = rounded("product_T", y);
        y = b.add(last_step(b), kFp32, y, input(form_.term));
      }
    }
    b.output("y", to_storage(b, "y", y));
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    placed_call(*declared_program(call), call);
    const Tensor& x = *tensor_of(call, "x");
    const Tensor& factor = *tensor_of(call, form_.factor);
    const auto rows = static_cast<std::uint32_t>(x.rows());
    Tensor y = Tensor::zeros(x.format, x.shape);
    const auto memory = memory_of(side_);
    const auto rows_of = [&](const Tensor* t) -> ElementwiseLaunch::Rows {
      if (t == nullptr) return {};
      return {.values = memory->in(t->bytes), .rows = static_cast<std::uint32_t>(x.size() / t->size())};
    };
    const ElementwiseLaunch l{.x = memory->in(tensor_of(call, form_.multiplied)->bytes),
                              .factor = rows_of(&factor),
                              .term = rows_of(tensor_of(call, form_.term)),
                              .y = memory->out(y.bytes),
                              .format = x.format,
                              .parameters_fp32 = factor.format == FormatId::fp32,
                              .one_plus = one_plus(call),
                              .rows = rows,
                              .cols = static_cast<std::uint32_t>(x.cols()),
                              .roundings = roundings_};
    if (side_ == SideKind::host) launch_elementwise_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_elementwise_on_gpu(l, {});
#endif
    memory->finish();
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  static bool one_plus(const ImplCall& call) {
    const auto offset = call.numbers.find("scale_offset");
    return offset != call.numbers.end() && offset->second != 0;
  }

  const Form& form_;
  KernelInputs inputs_;
  SideKind side_;
  Roundings roundings_;
};

}  // namespace

std::unique_ptr<Implementation> make_modulate(SideKind side, Roundings roundings) {
  return std::make_unique<Elementwise>(kModulate, side, roundings);
}
std::unique_ptr<Implementation> make_gated_residual(SideKind side, Roundings roundings) {
  return std::make_unique<Elementwise>(kGatedResidual, side, roundings);
}

}  // namespace norma::cuda
