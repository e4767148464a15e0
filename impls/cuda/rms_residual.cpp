// Residual sum and RMSNorm as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/rms_residual.hpp"

#include <string>

#include "impls/claim.hpp"
#include "impls/cuda/rmsnorm.hpp"
#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kResidual[] = {"residual"};
constexpr std::string_view kResidualWeight[] = {"residual", "weight"};
constexpr std::string_view kWeight[] = {"weight"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kEpsOffset[] = {"eps", "weight_offset"};
constexpr std::string_view kQuantization[] = {"quant_max", "scale_floor", "scale_cap", "scale_rule", "global_scale"};
constexpr FixedWord kWords[] = {{"eps_place", "inside"}, {"quant", "none"}};

const Tensor* tensor_of(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

class RmsResidual final : public Implementation {
 public:
  explicit RmsResidual(const RmsResidualVariant& v)
      : v_(v),
        inputs_{.norm = "rmsnorm", .required = kResidual, .optional = kWeight, .numbers = kEps, .ignored = kQuantization,
                .words = kWords} {
    if (one_plus()) inputs_.required = kResidualWeight, inputs_.optional = {}, inputs_.numbers = kEpsOffset;
  }

  std::string name() const override {
    return std::string(v_.side == SideKind::gpu ? "cuda" : "cuda_host") +
           (v_.row == RowThreads::warp ? ".rmsnorm.warp_per_row" : ".rmsnorm.block_per_row") +
           (rounded() ? ".residual_rounded" : ".residual_unrounded") + std::string(words_of(v_.tail).name) +
           (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    return std::string("RMSNorm of x + residual, ") + (rounded() ? "the sum rounded to T, " : "of the sum in fp32, ") +
           "fused squares, " + (v_.approximate_root ? "rsqrtf, " : "__frsqrt_rn, ") + std::string(words_of(v_.tail).formula) +
           (v_.row == RowThreads::warp ? "; one warp a row" : "; one block a row") +
           (v_.side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall& call) const override { return declare_claim(*declared_program(call), call); }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    check(call);
    Builder b("rmsnorm", binding_of(call));
    const Tensor& x = *tensor_of(call, "x");
    Operand h = b.add("h", kFp32, b.input("x"), b.input("residual"));
    const std::optional<Operand> weight =
        tensor_of(call, "weight") != nullptr ? std::optional(b.input("weight")) : std::nullopt;
    const Operand stored = to_storage(b, "h_T", h);
    if (rounded()) h = stored;
    const Operand r = declare_rms_root(b, h, v_.row, row_shape(v_.row, x.format, x.cols()), v_.approximate_root);
    b.output("y", declare_rms_tail(b, v_.tail, h, r, weight));
    b.output("residual", stored);
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    placed_call(*declared_program(call), call);
    const Tensor& x = *tensor_of(call, "x");
    const Tensor* weight = tensor_of(call, "weight");
    Tensor y = Tensor::zeros(x.format, x.shape), sum = Tensor::zeros(x.format, x.shape);
    const auto memory = memory_of(v_.side);
    const RmsResidualLaunch l{
        .norm = {.x = memory->in(x.bytes),
                 .weight = weight != nullptr ? memory->in(weight->bytes) : nullptr,
                 .y = memory->out(y.bytes),
                 .format = x.format,
                 .weight_fp32 = weight != nullptr && weight->format == FormatId::fp32,
                 .rows = static_cast<std::uint32_t>(x.rows()),
                 .cols = static_cast<std::uint32_t>(x.cols()),
                 .eps = static_cast<float>(call.numbers.find("eps")->second),
                 .tail = v_.tail,
                 .row = v_.row,
                 .approximate_root = v_.approximate_root},
        .residual = memory->in(tensor_of(call, "residual")->bytes),
        .sum = memory->out(sum.bytes),
        .kind = v_.sum};
    if (v_.side == SideKind::host) launch_rms_residual_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_rms_residual_on_gpu(l, {});
#endif
    memory->finish();
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    outputs.emplace("residual", std::move(sum));
    return outputs;
  }

 private:
  bool rounded() const { return v_.sum == ResidualSum::rounded; }
  bool one_plus() const { return v_.tail == RmsTail::one_plus_weight; }

  void check(const ImplCall& call) const {
    check_operands(inputs_, call);
    const Tensor &x = *tensor_of(call, "x"), &residual = *tensor_of(call, "residual");
    check_storage(x);
    if (residual.format != x.format || residual.shape != x.shape)
      throw ImplSkipped("residual must have x's format and shape, " + std::string(name_of(x.format)) + " " +
                        shape_text(x.shape) + ", got " + std::string(name_of(residual.format)) + " " +
                        shape_text(residual.shape));
    if (const Tensor* weight = tensor_of(call, "weight"); weight != nullptr && weight->size() != x.cols())
      throw ImplSkipped("weight must have " + std::to_string(x.cols()) + " values, got shape " + shape_text(weight->shape));
    if (one_plus() && call.numbers.find("weight_offset")->second != 1)
      throw ImplSkipped("this kernel multiplies by 1 + weight: weight_offset must be 1");
  }

  RmsResidualVariant v_;
  KernelInputs inputs_;
};

}  // namespace

std::unique_ptr<Implementation> make_rms_residual(const RmsResidualVariant& variant) {
  return std::make_unique<RmsResidual>(variant);
}

}  // namespace norma::cuda
