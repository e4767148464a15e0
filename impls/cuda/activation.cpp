// The activation kernels as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/activation.hpp"

#include "impls/cuda/exponential.hpp"
#include "impls/cuda/row_function.hpp"

namespace norma::cuda {

namespace {

constexpr FixedWord kErf[] = {{"approximate", "none"}};
constexpr FixedWord kTanh[] = {{"approximate", "tanh"}};
constexpr KernelInputs kSilu{.norm = "silu", .required = {}, .optional = {}, .numbers = {}, .ignored = {}, .words = {}};
constexpr KernelInputs kGeluErf{
    .norm = "gelu", .required = {}, .optional = {}, .numbers = {}, .ignored = {}, .words = kErf};
constexpr KernelInputs kGeluTanh{
    .norm = "gelu", .required = {}, .optional = {}, .numbers = {}, .ignored = {}, .words = kTanh};

struct Words {
  const KernelInputs& inputs;
  std::string_view name, title;
};
constexpr Words kWords[] = {
    {kSilu, "silu.expf", "SiLU, x / (1 + expf(-x))"},
    {kSilu, "silu", "SiLU, x / (1 + e^-x), e^-x in steps that are rounded correctly"},
    {kGeluErf, "gelu.erff", "GELU, (x / 2) (1 + erff(x / sqrt 2))"},
    {kGeluTanh, "gelu_tanh.tanhf", "GELU by tanh, (x / 2) (1 + tanhf(sqrt(2 / pi) (x + 0.044715 x^3))), the sum fused"},
};
const Words& words_of(Activation a) { return kWords[static_cast<std::size_t>(a)]; }

class ActivationKernel final : public RowFunction {
 public:
  ActivationKernel(SideKind side, Activation activation)
      : RowFunction(side, RowThreads::block, words_of(activation).inputs, std::string(words_of(activation).name),
                    std::string(words_of(activation).title)),
        activation_(activation) {}

 private:
  Operand steps(Builder& b, const RowShape&, Operand x) const override {
    const Operand one = b.constant("one", 1);
    if (activation_ == Activation::silu_library || activation_ == Activation::silu_steps) {
      const Operand minus = b.map("minus_x", Op::neg, kFp32, {x});
      const Exponential kind = activation_ == Activation::silu_steps ? Exponential::steps : Exponential::library;
      const Operand divisor = b.add("one_e", kFp32, one, exponential(b, kind, minus));
      return b.div(last_step(b), kFp32, x, divisor);
    }
    const bool erf = activation_ == Activation::gelu_erf;
    const Operand half = b.mul("half_x", kFp32, x, b.constant("half", 0.5));
    const Operand z = erf ? b.mul("z", kFp32, x, b.constant("root_half", 0x1.6a09e6p-1)) : inner(b, x);
    const Operand f = b.map(erf ? "erf" : "tanh", erf ? Op::erf : Op::tanh,
                            Rounding{.format = kFp32, .within_ulp = kLibraryUlp}, {z});
    return b.mul(last_step(b), kFp32, half, b.add("one_f", kFp32, one, f));
  }

  static Operand inner(Builder& b, Operand x) {
    const Operand square = b.mul("x2", kFp32, x, x);
    const Operand cube = b.mul("x3", kFp32, square, x);
    const Operand kappa = b.constant("kappa", 0x1.6e4e26p-5);
    const Operand sum = b.map("sum", Op::fma, kFp32, {kappa, cube, x});
    return b.mul("z", kFp32, b.constant("beta", 0x1.988454p-1), sum);
  }

  void launch(const FunctionCall& call) const override {
    const ActivationLaunch l{.x = call.x,
                             .y = call.y,
                             .format = call.format,
                             .rows = call.rows,
                             .cols = call.cols,
                             .activation = activation_};
    if (side() == SideKind::host) launch_activation_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else
      launch_activation_on_gpu(l, {});
#endif
  }

  Activation activation_;
};

}  // namespace

std::unique_ptr<Implementation> make_activation(SideKind side, Activation activation) {
  return std::make_unique<ActivationKernel>(side, activation);
}

}  // namespace norma::cuda
