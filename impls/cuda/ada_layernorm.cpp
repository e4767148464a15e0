// LayerNorm with modulation as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/ada_layernorm.hpp"

#include <string>
#include <string_view>

#include "impls/cuda/layernorm.hpp"
#include "impls/claim.hpp"
#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kScale[] = {"scale"};
constexpr std::string_view kOptional[] = {"shift", "weight", "bias"};
constexpr std::string_view kNumbers[] = {"eps", "scale_offset"};
constexpr FixedWord kWords[] = {{"eps_place", "inside"}};

KernelInputs inputs_of(Roundings roundings) {
  return {.norm = "ada_layernorm", .required = kScale, .optional = kOptional, .numbers = kNumbers, .ignored = {},
          .words = kWords, .one_format = roundings == Roundings::each};
}

class AdaLayerNorm final : public Implementation {
 public:
  explicit AdaLayerNorm(const AdaLayerNormVariant& v) : v_(v), inputs_(inputs_of(v.roundings)) {}

  std::string name() const override {
    return std::string(v_.side == SideKind::gpu ? "cuda." : "cuda_host.") + "ada_layernorm" +
           (v_.row == RowThreads::warp ? ".warp_per_row" : ".block_per_row") +
           std::string(words_of(v_.statistic).name) + (v_.roundings == Roundings::each ? ".eager" : ".fused") +
           (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    return "LayerNorm and modulation, " + std::string(words_of(v_.statistic).title) + ", " +
           (v_.approximate_root ? "rsqrtf, " : "__frsqrt_rn, ") +
           (v_.roundings == Roundings::each ? "norm, factor, product and sum rounded to T" : "one cast to T") +
           (v_.row == RowThreads::warp ? "; one warp a row" : "; one block a row") +
           (v_.side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall& call) const override { return declare_claim(*declared_program(call), call); }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    check(call);
    Builder b(std::string(inputs_.norm), binding_of(call));
    const Operand x = b.input("x");
    const bool each = v_.roundings == Roundings::each;
    const bool weighted = b.binding().has("weight"), biased = b.binding().has("bias"), shifted = b.binding().has("shift");
    const auto rounded = [&](const std::string& name, Operand v) { return each ? to_storage(b, name, v) : v; };
    const Tensor& tensor = call.inputs->find("x")->second;
    const LayerNormVariant norm{.row = v_.row, .statistic = v_.statistic, .approximate_root = v_.approximate_root};
    Operand n = declare_normalized(b, "n", row_shape(v_.row, tensor.format, tensor.cols()), norm, x);
    if (weighted && biased) n = b.map("nwb", Op::fma, kFp32, {n, b.input("weight", kCols), b.input("bias", kCols)});
    else if (weighted) n = b.mul("nw", kFp32, n, b.input("weight", kCols));
    else if (biased) n = b.add("nb", kFp32, n, b.input("bias", kCols));
    n = rounded("n_T", n);
    const Operand factor = rounded("factor_T", b.add("factor", kFp32, b.constant("one", 1), b.input("scale", kCols)));
    Operand y;
    if (shifted && !each) {
      y = b.map(last_step(b), Op::fma, kFp32, {n, factor, b.input("shift", kCols)});
    } else {
      y = b.mul(shifted ? "scaled" : last_step(b), kFp32, n, factor);
      if (shifted) y = b.add(last_step(b), kFp32, rounded("scaled_T", y), b.input("shift", kCols));
    }
    b.output("y", to_storage(b, "y", y));
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    placed_call(*declared_program(call), call);
    const Tensor& x = call.inputs->find("x")->second;
    Tensor y = Tensor::zeros(x.format, x.shape);
    const auto memory = memory_of(v_.side);
    const auto rows_of = [&](std::string_view name) -> ElementwiseLaunch::Rows {
      const auto t = call.inputs->find(name);
      if (t == call.inputs->end()) return {};
      return {.values = memory->in(t->second.bytes), .rows = static_cast<std::uint32_t>(x.size() / t->second.size())};
    };
    const AdaLayerNormLaunch l{.x = memory->in(x.bytes),
                               .weight = rows_of("weight").values,
                               .bias = rows_of("bias").values,
                               .scale = rows_of("scale"),
                               .shift = rows_of("shift"),
                               .y = memory->out(y.bytes),
                               .format = x.format,
                               .parameters_fp32 = call.inputs->find("scale")->second.format == FormatId::fp32,
                               .rows = static_cast<std::uint32_t>(x.rows()),
                               .cols = static_cast<std::uint32_t>(x.cols()),
                               .eps = static_cast<float>(call.numbers.find("eps")->second),
                               .statistic = v_.statistic,
                               .row = v_.row,
                               .approximate_root = v_.approximate_root,
                               .roundings = v_.roundings};
    if (v_.side == SideKind::host) launch_ada_layernorm_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_ada_layernorm_on_gpu(l, {});
#endif
    memory->finish();
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  void check(const ImplCall& call) const {
    check_operands(inputs_, call);
    const Tensor& x = call.inputs->find("x")->second;
    check_storage(x);
    if (call.numbers.find("scale_offset")->second != 1)
      throw ImplSkipped("this kernel multiplies by 1 + scale: scale_offset must be 1");
    const FormatId parameters = call.inputs->find("scale")->second.format;
    for (const auto& [name, tensor] : *call.inputs) {
      if (name != "x" && tensor.format != parameters)
        throw ImplSkipped("scale, shift, weight and bias must have one format, got " + std::string(name_of(parameters)) +
                          " and " + std::string(name_of(tensor.format)));
      if ((name == "weight" || name == "bias") && tensor.size() != x.cols())
        throw ImplSkipped("weight and bias must have " + std::to_string(x.cols()) + " values, got shape " +
                          shape_text(tensor.shape));
    }
  }

  AdaLayerNormVariant v_;
  KernelInputs inputs_;
};

}  // namespace

std::unique_ptr<Implementation> make_ada_layernorm(const AdaLayerNormVariant& variant) {
  return std::make_unique<AdaLayerNorm>(variant);
}

}  // namespace norma::cuda
