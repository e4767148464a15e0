// A call of a kernel of rows, on either side.
#include "impls/cuda/row_kernel.hpp"

#include <algorithm>

#include "impls/claim.hpp"

namespace norma::cuda {

namespace {

constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};
constexpr std::int64_t kMostRows = 0x7fffffff;  // of a grid

const Tensor* tensor_of(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

}  // namespace

void check_storage(const Tensor& x) {
  if (std::ranges::find(kStorage, x.format) == std::end(kStorage))
    throw ImplSkipped("x must be fp32, bf16, fp16, e4m3fn or e5m2, got " + std::string(name_of(x.format)));
  if (x.rows() > kMostRows) throw ImplSkipped("rows must be below 2^31, got " + std::to_string(x.rows()));
}

RowKernel::RowKernel(SideKind side, RowThreads row, const KernelInputs& inputs, std::string name, std::string title)
    : side_(side),
      row_(row),
      inputs_(inputs),
      name_((side == SideKind::gpu ? "cuda." : "cuda_host.") + std::string(inputs.norm) +
            (row == RowThreads::warp ? ".warp_per_row" : ".block_per_row") + name),
      title_(std::move(title) + (row == RowThreads::warp ? "; one warp a row" : "; one block a row") +
             (side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor")) {}

void RowKernel::check(const ImplCall& call) const {
  check_operands(inputs_, call);
  const Tensor& x = *tensor_of(call, "x");
  check_storage(x);
  const Tensor* weight = tensor_of(call, "weight");
  const Tensor* bias = tensor_of(call, "bias");
  if (weight != nullptr && bias != nullptr && weight->format != bias->format)
    throw ImplSkipped("weight and bias must have one format, got " + std::string(name_of(weight->format)) + " and " +
                      std::string(name_of(bias->format)));
  for (const Tensor* parameter : {weight, bias})
    if (parameter != nullptr && parameter->size() != x.cols())
      throw ImplSkipped("weight and bias must have " + std::to_string(x.cols()) + " values, got shape " +
                        shape_text(parameter->shape));
}

std::optional<Program> RowKernel::declared_program(const ImplCall& call) const {
  check(call);
  Builder b(std::string(inputs_.norm), binding_of(call));
  const Tensor& x = *tensor_of(call, "x");
  return steps(b, row_shape(row_, x.format, x.cols()));
}

Declaration RowKernel::declares(const ImplCall& call) const { return declare_claim(*declared_program(call), call); }

Tensors RowKernel::run(const ImplCall& call) {
  check(call);
  placed_call(*declared_program(call), call);  // rows that are too long
  const Tensor& x = *tensor_of(call, "x");
  const Tensor* weight = tensor_of(call, "weight");
  const Tensor* bias = tensor_of(call, "bias");
  const Tensor* parameter = weight != nullptr ? weight : bias;
  Tensor y = Tensor::zeros(x.format, x.shape);
  const auto memory = memory_of(side_);
  launch({.x = memory->in(x.bytes),
          .weight = weight != nullptr ? memory->in(weight->bytes) : nullptr,
          .bias = bias != nullptr ? memory->in(bias->bytes) : nullptr,
          .y = memory->out(y.bytes),
          .format = x.format,
          .parameters_fp32 = parameter != nullptr && parameter->format == FormatId::fp32,
          .rows = static_cast<std::uint32_t>(x.rows()),
          .cols = static_cast<std::uint32_t>(x.cols()),
          .eps = static_cast<float>(call.numbers.find("eps")->second)});
  memory->finish();
  Tensors outputs;
  outputs.emplace("y", std::move(y));
  return outputs;
}

Order order_of(RowThreads row, const RowShape& shape) {
  return {.kind = row == RowThreads::warp ? OrderKind::warp : OrderKind::block,
          .count = static_cast<int>(shape.threads),
          .vec = static_cast<int>(shape.vector)};
}

Operand to_storage(Builder& b, const std::string& name, Operand value) {
  const FormatRef t = b.x_format();
  if (t.id == FormatId::fp32) return value;
  const Overflow overflow = format_of(t.id).storage_bits == 8 ? Overflow::saturate : Overflow::ieee;
  return b.map(name, Op::cast, Rounding{.format = t, .overflow = overflow}, {value});
}

std::string last_step(const Builder& b) { return b.x_format().id == FormatId::fp32 ? "y" : "y_f32"; }

Operand plus_eps_fp32(Builder& b, const std::string& name, Operand a) {
  const Operand eps = b.cast("eps_f32", kFp32, b.attribute("eps"));
  return b.add(name, kFp32, a, eps);
}

}  // namespace norma::cuda
