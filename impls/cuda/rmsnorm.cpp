// The RMSNorm kernels as implementations: what they refuse, what they declare, how they are started.
#include "impls/cuda/rmsnorm.hpp"

#include <algorithm>
#include <optional>

#include "impls/cuda/rmsnorm_launch.hpp"
#include "reference/program/builder.hpp"

namespace norma::cuda {

namespace {

constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};
constexpr std::int64_t kMostColumns = 1 << 24;  // beyond it a column count need not be an fp32 number

struct TailWords {
  RmsTail tail;
  std::string_view name, formula;
};
constexpr TailWords kTails[] = {
    {RmsTail::once, "", "y = rT((x r) w)"},
    {RmsTail::before_weight, ".cast_before_weight", "y = rT(rT(x r) w)"},
    {RmsTail::one_plus_weight, ".one_plus_weight", "y = rT((x r) (1 + w))"},
    {RmsTail::rounded_one_plus_weight, ".rounded_one_plus_weight", "y = rT(rT(x r) rT(1 + w))"},
    {RmsTail::all_rounded, ".all_rounded", "y = rT(rT(x rT(r)) w)"},
};

bool offset_one(RmsTail tail) { return tail == RmsTail::one_plus_weight || tail == RmsTail::rounded_one_plus_weight; }

struct Operands {
  const Tensor& x;
  const Tensor* weight;
  double eps;
};

[[noreturn]] void refuse(const std::string& why) { throw ImplSkipped(why); }

class RmsNorm final : public Implementation {
 public:
  explicit RmsNorm(const RmsVariant& variant) : v_(variant) {}

  std::string name() const override {
    return std::string(v_.side == SideKind::gpu ? "cuda" : "cuda_host") + ".rmsnorm." +
           (v_.row == RmsRow::warp ? "warp_per_row" : "block_per_row") + std::string(words().name) +
           (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    return "RMSNorm, one " + std::string(v_.row == RmsRow::warp ? "warp" : "block") + " a row, fused squares, " +
           (v_.approximate_root ? "rsqrtf" : "__frsqrt_rn") + "; " + std::string(words().formula) +
           (v_.side == SideKind::gpu ? "; on a GPU" : "; the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == "rmsnorm"; }
  Declaration declares(const ImplCall&) const override { return {}; }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    const Operands in = operands_of(call);
    Binding binding{.x = in.x.format, .formats = {}, .attributes = call.numbers, .cols = in.x.cols(), .profile = {}};
    if (in.weight != nullptr) binding.formats.emplace("weight", in.weight->format);
    Builder b("rmsnorm", binding);
    const FormatRef t = b.x_format();
    const bool fp32 = t.id == FormatId::fp32;
    const Operand x = b.input("x");
    const Operand weight = in.weight != nullptr ? b.input("weight") : Operand{};
    const RmsShape shape = rms_shape(v_.row, in.x.format, in.x.cols());
    const Operand mean_square =
        b.reduce("ms", kFp32, x,
                 {.kind = ReduceKind::mean,
                  .term = Term::square,
                  .order = {.kind = v_.row == RmsRow::warp ? OrderKind::warp : OrderKind::block,
                            .count = static_cast<int>(shape.threads),
                            .vec = static_cast<int>(shape.vector)},
                  .contract = true,
                  .term_format = {}});
    const Operand sum = b.add("ms_eps", kFp32, mean_square, b.cast("eps_f32", kFp32, b.attribute("eps")));
    Rounding root{.format = kFp32};
    if (v_.approximate_root) root.within_ulp = 2;
    Operand r = b.map("r", Op::rsqrt, root, {sum});
    const auto to_storage = [&](const std::string& name, Operand value) {
      return fp32 ? value : b.map(name, Op::cast, Rounding{.format = t, .overflow = overflow_of(t.id)}, {value});
    };
    const bool all_rounded = v_.tail == RmsTail::all_rounded;
    if (all_rounded) r = to_storage("r_T", r);
    const bool last = in.weight == nullptr && !all_rounded;
    Operand value = b.mul(last ? last_name(fp32) : "n", kFp32, x, r);
    if (all_rounded && in.weight != nullptr) value = to_storage("n_T", value);
    if (in.weight != nullptr) {
      if (v_.tail == RmsTail::before_weight || v_.tail == RmsTail::rounded_one_plus_weight)
        value = to_storage("n_T", value);
      Operand w = weight;
      if (offset_one(v_.tail)) w = b.add("one_plus_w", kFp32, b.constant("one", 1), weight);
      if (v_.tail == RmsTail::rounded_one_plus_weight) w = to_storage("one_plus_w_T", w);
      value = b.mul(last_name(fp32), kFp32, value, w);
    }
    b.output("y", to_storage("y", value));
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    const Operands in = operands_of(call);
    Tensor y = Tensor::zeros(in.x.format, in.x.shape);
    const auto memory = memory_of(v_.side);
    const RmsLaunch launch{.x = memory->in(in.x.bytes),
                           .weight = in.weight != nullptr ? memory->in(in.weight->bytes) : nullptr,
                           .y = memory->out(y.bytes),
                           .format = in.x.format,
                           .weight_fp32 = in.weight != nullptr && in.weight->format == FormatId::fp32,
                           .rows = static_cast<std::uint32_t>(in.x.rows()),
                           .cols = static_cast<std::uint32_t>(in.x.cols()),
                           .eps = static_cast<float>(in.eps),
                           .tail = v_.tail,
                           .row = v_.row,
                           .approximate_root = v_.approximate_root};
    if (v_.side == SideKind::host) launch_rmsnorm_on_host(launch, {});
#ifdef NORMA_CUDA_BUILT
    else launch_rmsnorm_on_gpu(launch, {});
#endif
    memory->finish();
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  const TailWords& words() const { return kTails[static_cast<std::size_t>(v_.tail)]; }
  static std::string last_name(bool fp32) { return fp32 ? "y" : "y_f32"; }
  static Overflow overflow_of(FormatId format) {
    return format_of(format).storage_bits == 8 ? Overflow::saturate : Overflow::ieee;
  }

  Operands operands_of(const ImplCall& call) const {
    const auto x = call.inputs->find("x");
    if (x == call.inputs->end()) refuse("there is no tensor 'x'");
    const Tensor* weight = nullptr;
    for (const auto& [name, tensor] : *call.inputs) {
      if (name == "weight") weight = &tensor;
      else if (name != "x") refuse("this kernel takes no tensor '" + name + "', only x and weight");
    }
    const FormatId t = x->second.format;
    if (std::ranges::find(kStorage, t) == std::end(kStorage))
      refuse("x must be fp32, bf16, fp16, e4m3fn or e5m2, got " + std::string(name_of(t)));
    if (x->second.cols() < 1 || x->second.cols() > kMostColumns)
      refuse("cols must be 1 to 16777216 (2^24), got " + std::to_string(x->second.cols()));
    if (x->second.rows() > 0x7fffffff) refuse("rows must be below 2^31, got " + std::to_string(x->second.rows()));
    if (weight != nullptr && weight->format != FormatId::fp32 && weight->format != t)
      refuse("weight must be fp32 or x's format " + std::string(name_of(t)) + ", got " +
             std::string(name_of(weight->format)));
    if (weight != nullptr && weight->size() != x->second.cols())
      refuse("weight must have " + std::to_string(x->second.cols()) + " values, got shape " + shape_text(weight->shape));
    if (weight == nullptr && offset_one(v_.tail)) refuse("this kernel needs a weight");
    const double offset = offset_one(v_.tail) ? 1 : 0;
    std::optional<double> eps;
    for (const auto& [name, value] : call.numbers) {
      if (name == "eps") eps = value;
      else if (name == "weight_offset" && weight != nullptr) {
        if (value != offset) refuse("this kernel's weight_offset is " + std::to_string(static_cast<int>(offset)));
      }
    }
    if (!eps) refuse("eps is not given");
    for (const auto& [name, word] : call.words)
      if (!(name == "eps_place" && word == "inside") && !(name == "quant" && word == "none"))
        refuse("this kernel has no " + name + "=" + word + " (eps is inside the root, y is not quantized)");
    return {x->second, weight, *eps};
  }

  RmsVariant v_;
};

}  // namespace

std::unique_ptr<Implementation> make_rmsnorm(const RmsVariant& variant) { return std::make_unique<RmsNorm>(variant); }

}  // namespace norma::cuda
