// The softmax kernels as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/softmax.hpp"

#include "impls/cuda/row_function.hpp"

namespace norma::cuda {

namespace {

constexpr KernelInputs kInputs{
    .norm = "softmax", .required = {}, .optional = {}, .numbers = {}, .ignored = {}, .words = {}};

std::string name_of_variant(const SoftmaxVariant& v) {
  return std::string("softmax") + (v.row == RowThreads::warp ? ".warp_per_row" : ".block_per_row") +
         (v.exponential == Exponential::library ? ".expf" : "");
}
std::string title_of(const SoftmaxVariant& v) {
  return std::string("Softmax, e^(x - max) / sum, ") +
         (v.exponential == Exponential::library ? "expf" : "exponentials in steps that are rounded correctly");
}

class Softmax final : public RowFunction {
 public:
  explicit Softmax(const SoftmaxVariant& v)
      : RowFunction(v.side, v.row, kInputs, name_of_variant(v), title_of(v)), v_(v) {}

 private:
  Operand steps(Builder& b, const RowShape& shape, Operand x) const override {
    const Operand largest =
        b.reduce("largest", kFp32, x,
                 {.kind = ReduceKind::largest, .term = Term::value, .order = {}, .contract = false, .term_format = {}});
    const Operand e = exponential(b, v_.exponential, b.sub("below", kFp32, x, largest));
    const Operand total = b.reduce("total", kFp32, e,
                                   {.kind = ReduceKind::sum,
                                    .term = Term::value,
                                    .order = order_of(v_.row, shape),
                                    .contract = false,
                                    .term_format = {}});
    return b.div(last_step(b), kFp32, e, total);
  }

  void launch(const FunctionCall& call) const override {
    const SoftmaxLaunch l{.x = call.x,
                          .y = call.y,
                          .format = call.format,
                          .rows = call.rows,
                          .cols = call.cols,
                          .row = v_.row,
                          .exponential = v_.exponential};
    if (side() == SideKind::host) launch_softmax_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else
      launch_softmax_on_gpu(l, {});
#endif
  }

  SoftmaxVariant v_;
};

}  // namespace

std::unique_ptr<Implementation> make_softmax(const SoftmaxVariant& variant) {
  return std::make_unique<Softmax>(variant);
}

}  // namespace norma::cuda
