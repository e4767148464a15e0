// The RMSNorm kernels as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/rmsnorm.hpp"

#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr RmsTailWords kTails[] = {
    {"", "y = rT((x r) w)"},
    {".cast_before_weight", "y = rT(rT(x r) w)"},
    {".one_plus_weight", "y = rT((x r) (1 + w))"},
    {".rounded_one_plus_weight", "y = rT(rT(x r) rT(1 + w))"},
    {".all_rounded", "y = rT(rT(x rT(r)) w)"},
};
bool offset_one(RmsTail tail) { return tail == RmsTail::one_plus_weight || tail == RmsTail::rounded_one_plus_weight; }

constexpr std::string_view kWeight[] = {"weight"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kEpsOffset[] = {"eps", "weight_offset"};
constexpr std::string_view kQuantization[] = {"quant_max", "scale_floor", "scale_cap", "scale_rule", "global_scale"};
constexpr FixedWord kWords[] = {{"eps_place", "inside"}, {"quant", "none"}};

KernelInputs inputs_of(RmsTail tail) {
  KernelInputs inputs{.norm = "rmsnorm", .required = {}, .optional = kWeight, .numbers = kEps, .ignored = kQuantization,
                      .words = kWords};
  if (offset_one(tail)) inputs.required = kWeight, inputs.optional = {}, inputs.numbers = kEpsOffset;
  return inputs;
}

class RmsNorm final : public RowKernel {
 public:
  explicit RmsNorm(const RmsVariant& v)
      : RowKernel(v.side, v.row, inputs_of(v.tail),
                  std::string(words_of(v.tail).name) + (v.approximate_root ? ".rsqrtf" : ""),
                  "RMSNorm, fused squares, " + std::string(v.approximate_root ? "rsqrtf" : "__frsqrt_rn") + ", " +
                      std::string(words_of(v.tail).formula)),
        v_(v) {}

 private:
  Program steps(Builder& b, const RowShape& shape) const override {
    if (offset_one(v_.tail) && b.binding().attributes.find("weight_offset")->second != 1)
      throw ImplSkipped("this kernel multiplies by 1 + weight: weight_offset must be 1");
    const Operand x = b.input("x");
    const bool weighted = b.binding().has("weight");
    const Operand weight = weighted ? b.input("weight") : Operand{};
    const Operand r = declare_rms_root(b, x, v_.row, shape, v_.approximate_root);
    b.output("y", declare_rms_tail(b, v_.tail, x, r, weighted ? std::optional(weight) : std::nullopt));
    return b.finish();
  }

  void launch(const RowCall& call) const override {
    const RmsLaunch l{.x = call.x, .weight = call.weight, .y = call.y, .format = call.format,
                      .weight_fp32 = call.parameters_fp32, .rows = call.rows, .cols = call.cols, .eps = call.eps,
                      .tail = v_.tail, .row = v_.row, .approximate_root = v_.approximate_root};
    if (v_.side == SideKind::host) launch_rmsnorm_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_rmsnorm_on_gpu(l, {});
#endif
  }

  RmsVariant v_;
};

}  // namespace

const RmsTailWords& words_of(RmsTail tail) { return kTails[static_cast<std::size_t>(tail)]; }

Operand declare_rms_root(Builder& b, Operand h, RowThreads row, const RowShape& shape, bool approximate) {
  const Operand mean_square = b.reduce("ms", kFp32, h,
                                       {.kind = ReduceKind::mean,
                                        .term = Term::square,
                                        .order = order_of(row, shape),
                                        .contract = true,
                                        .term_format = {}});
  const Operand sum = plus_eps_fp32(b, "ms_eps", mean_square);
  return b.map("r", Op::rsqrt, Rounding{.format = kFp32, .within_ulp = approximate ? 2 : 0}, {sum});
}

Operand declare_rms_tail(Builder& b, RmsTail tail, Operand h, Operand r, std::optional<Operand> weight) {
  const bool all_rounded = tail == RmsTail::all_rounded;
  if (all_rounded) r = to_storage(b, "r_T", r);
  if (!weight) return to_storage(b, "y", b.mul(last_step(b), kFp32, h, r));
  Operand n = b.mul("n", kFp32, h, r);
  if (all_rounded || tail == RmsTail::before_weight || tail == RmsTail::rounded_one_plus_weight)
    n = to_storage(b, "n_T", n);
  Operand w = *weight;
  if (offset_one(tail)) w = b.add("one_plus_w", kFp32, b.constant("one", 1), w);
  if (tail == RmsTail::rounded_one_plus_weight) w = to_storage(b, "one_plus_w_T", w);
  return to_storage(b, "y", b.mul(last_step(b), kFp32, n, w));
}

std::unique_ptr<Implementation> make_rmsnorm(const RmsVariant& variant) { return std::make_unique<RmsNorm>(variant); }

}  // namespace norma::cuda
