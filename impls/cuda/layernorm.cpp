// The LayerNorm kernels as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/layernorm.hpp"

#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kAffine[] = {"weight", "bias"};
constexpr std::string_view kEps[] = {"eps"};
constexpr FixedWord kWords[] = {{"eps_place", "inside"}};
constexpr KernelInputs kInputs{.norm = "layernorm", .required = {}, .optional = kAffine, .numbers = kEps, .ignored = {},
                               .words = kWords};

constexpr StatisticWords kStatistics[] = {{".two_pass", "the mean, then mean((x - mean)^2)"},
                                          {".welford", "Welford by threads, Chan's merges"},
                                          {".one_pass", "E[x^2] - mean^2, not below 0"}};
constexpr StatisticWords kTails[] = {{"", "y = rT(fma(n, w, b))"}, {".cast_before_affine", "y = rT(rT(rT(n) w) + b)"}};

Operand mean_of(Builder& b, const std::string& name, RowThreads row, const RowShape& shape, Operand of, Term term) {
  return b.reduce(name, kFp32, of,
                  {.kind = ReduceKind::mean,
                   .term = term,
                   .order = order_of(row, shape),
                   .contract = term == Term::square,
                   .term_format = {}});
}

std::string name_of_variant(const LayerNormVariant& v) {
  return std::string(words_of(v.statistic).name) + std::string(kTails[static_cast<std::size_t>(v.tail)].name) +
         (v.approximate_root ? ".rsqrtf" : "");
}

class LayerNorm final : public RowKernel {
 public:
  explicit LayerNorm(const LayerNormVariant& v)
      : RowKernel(v.side, v.row, kInputs, name_of_variant(v),
                  "LayerNorm, " + std::string(words_of(v.statistic).title) + ", " +
                      (v.approximate_root ? "rsqrtf, " : "__frsqrt_rn, ") +
                      std::string(kTails[static_cast<std::size_t>(v.tail)].title)),
        v_(v) {}

 private:
  Program steps(Builder& b, const RowShape& shape) const override {
    const Operand x = b.input("x");
    const bool weighted = b.binding().has("weight"), biased = b.binding().has("bias");
    const Operand weight = weighted ? b.input("weight") : Operand{};
    const Operand bias = biased ? b.input("bias") : Operand{};
    const bool plain = !weighted && !biased;
    Operand y = declare_normalized(b, plain ? last_step(b) : "n", shape, v_, x);
    if (v_.tail == LayerNormTail::once) {
      if (weighted && biased) y = b.map(last_step(b), Op::fma, kFp32, {y, weight, bias});
      else if (weighted) y = b.mul(last_step(b), kFp32, y, weight);
      else if (biased) y = b.add(last_step(b), kFp32, y, bias);
    } else {
      if (weighted) y = b.mul(biased ? "scaled" : last_step(b), kFp32, to_storage(b, "n_T", y), weight);
      if (biased) y = b.add(last_step(b), kFp32, to_storage(b, weighted ? "scaled_T" : "n_T", y), bias);
    }
    b.output("y", to_storage(b, "y", y));
    return b.finish();
  }

  void launch(const RowCall& call) const override {
    const LayerNormLaunch l{.x = call.x, .weight = call.weight, .bias = call.bias, .y = call.y, .format = call.format,
                            .parameters_fp32 = call.parameters_fp32, .rows = call.rows, .cols = call.cols,
                            .eps = call.eps, .statistic = v_.statistic, .tail = v_.tail, .row = v_.row,
                            .approximate_root = v_.approximate_root};
    if (v_.side == SideKind::host) launch_layernorm_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_layernorm_on_gpu(l, {});
#endif
  }

  LayerNormVariant v_;
};

}  // namespace

const StatisticWords& words_of(Statistic statistic) { return kStatistics[static_cast<std::size_t>(statistic)]; }

DeclaredMoments declare_moments(Builder& b, RowThreads row, const RowShape& shape, Statistic statistic, Operand x) {
  if (statistic == Statistic::welford) {
    const Operand mean = b.moments("mean", "variance", kFp32, x,
                                   {.kind = OrderKind::torch_cuda_moments,
                                    .count = static_cast<int>(shape.threads),
                                    .vec = static_cast<int>(shape.vector)},
                                   true);
    return {mean, {.node = mean.node, .port = 1}};
  }
  const Operand mean = mean_of(b, "mean", row, shape, x, Term::value);
  if (statistic == Statistic::two_pass) {
    const Operand d = b.sub("d", kFp32, x, mean);
    return {mean, mean_of(b, "variance", row, shape, d, Term::square)};
  }
  const Operand mean_square = mean_of(b, "mean_square", row, shape, x, Term::square);
  const Operand negative = b.map("minus_mean", Op::neg, kFp32, {mean});
  const Operand variance = b.map("unclamped", Op::fma, kFp32, {negative, mean, mean_square});
  const Operand zero = b.constant("zero", 0);
  return {mean, b.map("variance", Op::max, kFp32, {variance, zero})};
}

Operand declare_normalized(Builder& b, const std::string& name, const RowShape& shape, const LayerNormVariant& variant,
                           Operand x) {
  const DeclaredMoments s = declare_moments(b, variant.row, shape, variant.statistic, x);
  const Operand sum = plus_eps_fp32(b, "var_eps", s.variance);
  const Rounding root{.format = kFp32, .within_ulp = variant.approximate_root ? 2 : 0};
  const Operand r = b.map("r", Op::rsqrt, root, {sum});
  return b.mul(name, kFp32, b.sub("centred", kFp32, x, s.mean), r);
}

std::unique_ptr<Implementation> make_layernorm(const LayerNormVariant& variant) {
  return std::make_unique<LayerNorm>(variant);
}

}  // namespace norma::cuda
