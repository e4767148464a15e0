// A call of a kernel of x alone, on either side.
#include "impls/cuda/row_function.hpp"

namespace norma::cuda {

RowFunction::RowFunction(SideKind side, RowThreads row, const KernelInputs& inputs, const std::string& name,
                         const std::string& title)
    : side_(side),
      row_(row),
      inputs_(inputs),
      name_((side == SideKind::gpu ? "cuda." : "cuda_host.") + name),
      title_(title + (row == RowThreads::warp ? "; one warp a row" : "; one block a row") +
             (side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor")) {}

std::optional<Program> RowFunction::declared_program(const ImplCall& call) const {
  check_operands(inputs_, call);
  const Tensor& x = call.inputs->find("x")->second;
  check_storage(x);
  Builder b(std::string(inputs_.norm), binding_of(call));
  const Operand input = b.input("x");
  b.output("y", to_storage(b, "y", steps(b, row_shape(row_, x.format, x.cols()), input)));
  return b.finish();
}

Tensors RowFunction::run(const ImplCall& call) {
  placed_call(*declared_program(call), call);  // rows that are too long
  const Tensor& x = call.inputs->find("x")->second;
  Tensor y = Tensor::zeros(x.format, x.shape);
  const auto memory = memory_of(side_);
  launch({.x = memory->in(x.bytes),
          .y = memory->out(y.bytes),
          .format = x.format,
          .rows = static_cast<std::uint32_t>(x.rows()),
          .cols = static_cast<std::uint32_t>(x.cols())});
  memory->finish();
  Tensors outputs;
  outputs.emplace("y", std::move(y));
  return outputs;
}

}  // namespace norma::cuda
