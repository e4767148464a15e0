// RMSNorm with quantized output as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/rms_quantized.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "impls/cuda/rmsnorm.hpp"
#include "impls/cuda/row_kernel.hpp"
#include "reference/formats/convert.hpp"

namespace norma::cuda {

namespace {

constexpr FormatRef kE4m3{FormatId::e4m3fn};
constexpr FormatRef kE2m1{FormatId::e2m1};

constexpr std::string_view kScale[] = {"scale"};
constexpr std::string_view kWeight[] = {"weight"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kTokenNumbers[] = {"eps", "quant_max", "scale_floor", "scale_cap"};
constexpr std::string_view kNvfp4Numbers[] = {"eps", "global_scale"};
constexpr std::string_view kOfOthers[] = {"quant_max", "scale_floor", "scale_cap", "scale_rule", "global_scale"};
constexpr std::string_view kOfOthersThanMxfp8[] = {"quant_max", "scale_floor", "scale_cap", "global_scale"};
constexpr FixedWord kStaticWords[] = {{"eps_place", "inside"}, {"quant", "static"}};
constexpr FixedWord kTokenWords[] = {{"eps_place", "inside"}, {"quant", "per_token"}};
constexpr FixedWord kMxfp8Words[] = {{"eps_place", "inside"}, {"quant", "mxfp8"}, {"scale_rule", "ceil"}};
constexpr FixedWord kNvfp4Words[] = {{"eps_place", "inside"}, {"quant", "nvfp4"}};

struct QuantForm {
  std::string_view name, title;
  KernelInputs inputs;
};
constexpr QuantForm kForms[] = {
    {".static_fp8", "e4m3(z (1 / scale))",
     {.norm = "rmsnorm", .required = kScale, .optional = kWeight, .numbers = kEps, .ignored = kOfOthers,
      .words = kStaticWords}},
    {".per_token_fp8", "e4m3(z / scale), a scale a row",
     {.norm = "rmsnorm", .required = {}, .optional = kWeight, .numbers = kTokenNumbers, .ignored = kOfOthers,
      .words = kTokenWords}},
    {".mxfp8", "e4m3(z / scale), powers of two for 32 columns",
     {.norm = "rmsnorm", .required = {}, .optional = kWeight, .numbers = kEps, .ignored = kOfOthersThanMxfp8,
      .words = kMxfp8Words}},
    {".nvfp4", "e2m1(z global_scale / scale), e4m3 scales for 16 columns",
     {.norm = "rmsnorm", .required = {}, .optional = kWeight, .numbers = kNvfp4Numbers, .ignored = kOfOthers,
      .words = kNvfp4Words}},
};

struct RowWords {
  std::string_view name, formula;
};
constexpr RowWords kQuantizedRows[] = {{"", "z = n w"}, {".rounded", "z = rT(n w)"}, {".rounded_twice", "z = rT(rT(n) w)"}};

struct RmsQuantizedVariant {
  SideKind side;
  RowThreads threads;
  Quant quant;
  QuantizedRow row;
  bool approximate_root;
};

const Tensor* tensor_of(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

double number_of(const ImplCall& call, std::string_view name, double otherwise) {
  const auto found = call.numbers.find(name);
  return found == call.numbers.end() ? otherwise : found->second;
}

Operand saturated(Builder& b, FormatRef to, Operand q) {
  return b.map("y", Op::cast, Rounding{.format = to, .overflow = Overflow::saturate}, {q});
}

/// The largest |z| of a row, a NaN not counted.
Operand declare_amax(Builder& b, Operand z) {
  const FormatRef format = b.format(z);
  const Operand size = b.map("abs_z", Op::abs, format, {z});
  const Operand counted = b.map("abs_z_or_0", Op::fmax, format, {size, b.constant("zero", 0)});
  return b.reduce("amax", kFp32, counted, {.kind = ReduceKind::amax, .term = Term::value, .order = {}, .term_format = {}});
}

Program declare_static(Builder& b, Operand z) {
  const Operand inverse = b.map("scale_inv", Op::reciprocal, kFp32, {b.input("scale")});
  b.output("y", saturated(b, kE4m3, b.mul("q", kFp32, z, inverse)));
  return b.finish();
}

Program declare_per_token(Builder& b, Operand z, double cap) {
  Operand largest = declare_amax(b, z);
  if (cap < max_finite(FormatId::fp32))
    largest = b.map("amax_capped", Op::fmin, kFp32, {largest, b.cast("cap_f32", kFp32, b.attribute("scale_cap"))});
  const Operand max = b.cast("quant_max_f32", kFp32, b.attribute("quant_max"));
  const Operand floor = b.cast("floor_f32", kFp32, b.attribute("scale_floor"));
  const Operand scale = b.map("row_scale", Op::fmax, kFp32, {b.div("amax_ratio", kFp32, largest, max), floor});
  b.output("y", saturated(b, kE4m3, b.div("q", kFp32, z, scale)));
  b.output("scale", scale);
  return b.finish();
}

Program declare_mxfp8(Builder& b) {
  const Operand z = b.input("z", kRowsCols);
  const Operand part = b.map("max_rcp", Op::reciprocal, kFp32, {b.constant("e4m3_max", 448)});
  const Operand scale = b.map("scale", Op::e8m0_up, kFp32, {b.mul("amax_ratio", kFp32, declare_amax(b, z), part)});
  const Operand above_least = b.sub("above_least", kFp32, scale, b.constant("least_scale", 0x1p-127));
  const Operand power = b.map("scale_rcp", Op::reciprocal, kFp32, {scale});
  const Operand inverse = b.map("scale_inv", Op::unless_zero, kFp32, {above_least, power});
  b.output("y", saturated(b, kE4m3, b.mul("q", kFp32, z, inverse)));
  b.output("scale", scale);
  return b.finish();
}

Program declare_nvfp4(Builder& b) {
  const Operand z = b.input("z", kRowsCols);
  const Operand global = b.cast("global_scale_f32", kFp32, b.attribute("global_scale"));
  const Operand sixth = b.map("max_rcp", Op::reciprocal, kFp32, {b.constant("e2m1_max", 6)});
  const Operand ratio = b.mul("amax_ratio", kFp32, declare_amax(b, z), b.mul("global_sixth", kFp32, global, sixth));
  const Operand most = b.constant("float_max", 0x1.fffffep127);
  const Operand scale =
      b.map("scale", Op::nearest_e4m3, kE4m3, {b.map("ratio_capped", Op::fmin, kFp32, {ratio, most})});
  const Operand product = b.mul("product", kFp32, scale, b.map("global_rcp", Op::reciprocal, kFp32, {global}));
  const Operand quotient = b.map("product_rcp", Op::reciprocal, kFp32, {product});
  const Operand inverse = b.map("scale_inv", Op::fmin, kFp32, {quotient, most});
  b.output("y", saturated(b, kE2m1, b.mul("q", kFp32, z, inverse)));
  b.output("scale", scale);
  return b.finish();
}

/// Two codes a byte, the first one low.
Tensor unpacked_fp4(const std::vector<std::byte>& packed, const Shape& shape) {
  Tensor y = Tensor::zeros(FormatId::e2m1, shape);
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const auto pair = std::to_integer<std::uint64_t>(packed[static_cast<std::size_t>(i / 2)]);
    y.set_code(i, i % 2 == 0 ? pair & 0xf : pair >> 4);
  }
  return y;
}

Tensor powers_of_e8m0(const std::vector<std::byte>& bytes, const Shape& shape) {
  Tensor scales = Tensor::zeros(FormatId::fp32, shape);
  for (std::int64_t i = 0; i < scales.size(); ++i) {
    const int byte = std::to_integer<int>(bytes[static_cast<std::size_t>(i)]);
    scales.set_code(i, encode(FormatId::fp32, std::ldexp(1.0, byte - 127), Overflow::ieee));
  }
  return scales;
}

class RmsQuantized final : public Implementation {
 public:
  explicit RmsQuantized(const RmsQuantizedVariant& v) : v_(v) {}

  std::string name() const override {
    return std::string(v_.side == SideKind::gpu ? "cuda" : "cuda_host") +
           (v_.threads == RowThreads::warp ? ".rmsnorm.warp_per_row" : ".rmsnorm.block_per_row") + std::string(form().name) +
           std::string(words().name) + (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    return "RMSNorm to " + std::string(form().title) + ", " + std::string(words().formula) + ", fused squares, " +
           (v_.approximate_root ? "rsqrtf" : "__frsqrt_rn") +
           (v_.threads == RowThreads::warp ? "; one warp a row" : "; one block a row") +
           (v_.side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == form().inputs.norm; }
  Declaration declares(const ImplCall&) const override { return {}; }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    check(call);
    Builder b("rmsnorm", binding_of(call));
    const Tensor& x = *tensor_of(call, "x");
    const Operand h = b.input("x");
    const Operand r = declare_rms_root(b, h, v_.threads, row_shape(v_.threads, x.format, x.cols()), v_.approximate_root);
    Operand z = b.mul("n", kFp32, h, r);
    const bool weighted = tensor_of(call, "weight") != nullptr;
    if (v_.row == QuantizedRow::rounded_twice) z = to_storage(b, "n_T", z);
    if (weighted) z = b.mul("nw", kFp32, z, b.input("weight"));
    if (v_.row != QuantizedRow::fp32 && (weighted || v_.row == QuantizedRow::rounded)) z = to_storage(b, "nw_T", z);
    if (v_.quant == Quant::fixed) return declare_static(b, z);
    if (v_.quant == Quant::per_token) return declare_per_token(b, z, number_of(call, "scale_cap", 0));
    b.pass("z", z);
    Builder blocks = b.next_stage({.kind = ViewKind::blocks, .block = static_cast<int>(block_of(v_.quant))});
    return v_.quant == Quant::mxfp8 ? declare_mxfp8(blocks) : declare_nvfp4(blocks);
  }

  Tensors run(const ImplCall& call) override {
    check(call);
    const Tensor& x = *tensor_of(call, "x");
    const Tensor* weight = tensor_of(call, "weight");
    const auto cap = number_of(call, "scale_cap", 0);
    const bool packed = v_.quant == Quant::nvfp4;
    Shape scales = x.shape;
    if (has_blocks()) scales.back() /= block_of(v_.quant);
    else scales.pop_back();
    // What the kernel writes: codes, scales or bytes of scales.
    std::vector<std::byte> codes(static_cast<std::size_t>(packed ? x.size() / 2 : x.size()));
    std::vector<std::byte> scale_bytes;
    if (v_.quant == Quant::per_token) scale_bytes.resize(static_cast<std::size_t>(x.rows()) * sizeof(float));
    if (has_blocks()) scale_bytes.resize(static_cast<std::size_t>(x.size() / block_of(v_.quant)));

    const auto memory = memory_of(v_.side);
    const RmsQuantizedLaunch l{
        .norm = {.x = memory->in(x.bytes),
                 .weight = weight != nullptr ? memory->in(weight->bytes) : nullptr,
                 .y = memory->out(codes),
                 .format = x.format,
                 .weight_fp32 = weight != nullptr && weight->format == FormatId::fp32,
                 .rows = static_cast<std::uint32_t>(x.rows()),
                 .cols = static_cast<std::uint32_t>(x.cols()),
                 .eps = static_cast<float>(call.numbers.find("eps")->second),
                 .tail = RmsTail::once,
                 .row = v_.threads,
                 .approximate_root = v_.approximate_root},
        .quant = v_.quant,
        .row = v_.row,
        .scale = v_.quant == Quant::fixed ? memory->in(tensor_of(call, "scale")->bytes) : nullptr,
        .scales = scale_bytes.empty() ? nullptr : memory->out(scale_bytes),
        .quant_max = static_cast<float>(number_of(call, "quant_max", 448)),
        .scale_floor = static_cast<float>(number_of(call, "scale_floor", 0)),
        .scale_cap = cap < max_finite(FormatId::fp32) ? static_cast<float>(cap) : std::numeric_limits<float>::infinity(),
        .global_scale = static_cast<float>(number_of(call, "global_scale", 1))};
    if (v_.side == SideKind::host) launch_rms_quantized_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else launch_rms_quantized_on_gpu(l, {});
#endif
    memory->finish();

    Tensors outputs;
    outputs.emplace("y", packed ? unpacked_fp4(codes, x.shape)
                                : Tensor{.format = FormatId::e4m3fn, .shape = x.shape, .bytes = std::move(codes)});
    if (v_.quant == Quant::mxfp8) outputs.emplace("scale", powers_of_e8m0(scale_bytes, scales));
    else if (v_.quant != Quant::fixed)
      outputs.emplace("scale", Tensor{.format = packed ? FormatId::e4m3fn : FormatId::fp32, .shape = scales,
                                      .bytes = std::move(scale_bytes)});
    return outputs;
  }

 private:
  const QuantForm& form() const { return kForms[static_cast<std::size_t>(v_.quant)]; }
  const RowWords& words() const { return kQuantizedRows[static_cast<std::size_t>(v_.row)]; }
  bool has_blocks() const { return v_.quant == Quant::mxfp8 || v_.quant == Quant::nvfp4; }

  void check(const ImplCall& call) const {
    check_operands(form().inputs, call);
    const Tensor& x = *tensor_of(call, "x");
    check_storage(x);
    if (x.shape.empty()) throw ImplSkipped("x is a scalar; a norm needs at least one axis to go along");
    if (format_of(x.format).storage_bits == 8)
      throw ImplSkipped("x must be fp32, bf16 or fp16, got " + std::string(name_of(x.format)));
    if (x.cols() > 1 << 24)
      throw ImplSkipped("a row must have 1 to 16777216 (2^24) values, got " + std::to_string(x.cols()));
    if (const Tensor* weight = tensor_of(call, "weight"); weight != nullptr && weight->size() != x.cols())
      throw ImplSkipped("weight must have " + std::to_string(x.cols()) + " values, got shape " + shape_text(weight->shape));
    if (const Tensor* scale = tensor_of(call, "scale");
        scale != nullptr && (scale->format != FormatId::fp32 || scale->size() != 1))
      throw ImplSkipped("scale must be one fp32 value, got " + std::string(name_of(scale->format)) + " of shape " +
                        shape_text(scale->shape));
    if (has_blocks() && x.cols() % block_of(v_.quant) != 0)
      throw ImplSkipped("rows must be whole blocks of " + std::to_string(block_of(v_.quant)) + " columns, got " +
                        std::to_string(x.cols()));
  }

  RmsQuantizedVariant v_;
};

}  // namespace

std::vector<std::unique_ptr<Implementation>> make_rms_quantized(SideKind side) {
  std::vector<std::unique_ptr<Implementation>> all;
  for (const RowThreads threads : {RowThreads::warp, RowThreads::block})
    for (const Quant quant : {Quant::fixed, Quant::per_token, Quant::mxfp8, Quant::nvfp4})
      for (const QuantizedRow row : {QuantizedRow::fp32, QuantizedRow::rounded, QuantizedRow::rounded_twice}) {
        const bool of_tensors = quant == Quant::fixed || quant == Quant::per_token;
        if (row == QuantizedRow::rounded_twice && !of_tensors) continue;
        for (const bool approximate : {false, true})
          all.push_back(std::make_unique<RmsQuantized>(RmsQuantizedVariant{side, threads, quant, row, approximate}));
      }
  return all;
}

}  // namespace norma::cuda
