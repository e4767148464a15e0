// The rotary embedding as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/rope.hpp"

#include <string>
#include <string_view>

#include "impls/claim.hpp"
#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kTables[] = {"cos", "sin"};
constexpr std::string_view kWeight[] = {"weight"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kRead[] = {"pairing", "rotary"};  // both said or not
constexpr FixedWord kWords[] = {{"eps_place", "inside"}};

KernelInputs inputs_of(const RopeVariant& v) {
  KernelInputs inputs{.norm = "rope",
                      .required = kTables,
                      .optional = {},
                      .numbers = {},
                      .ignored = kRead,
                      .words = {},
                      .one_format = v.roundings == RopeRoundings::each};
  if (v.normed) inputs.norm = "rmsnorm_rope", inputs.optional = kWeight, inputs.numbers = kEps, inputs.words = kWords;
  return inputs;
}

struct Words {
  std::string_view name, title;
};
constexpr Words kRoundings[] = {{".eager", "both products and their sum rounded to T"},
                                {".fp32", "both products and their sum in fp32, one cast to T"},
                                {".fused", "a product and a fused multiply-add, one cast to T"}};
const Words& words_of(RopeRoundings r) { return kRoundings[static_cast<std::size_t>(r)]; }

class Rope final : public Implementation {
 public:
  explicit Rope(const RopeVariant& v) : v_(v), inputs_(inputs_of(v)) {}

  std::string name() const override {
    return (v_.side == SideKind::gpu ? "cuda." : "cuda_host.") + std::string(inputs_.norm) + ".warp_per_row" +
           std::string(words_of(v_.roundings).name) + (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    const std::string norm = v_.approximate_root ? "RMSNorm by rsqrtf and rotary embedding, "
                             : v_.normed         ? "RMSNorm by __frsqrt_rn and rotary embedding, "
                                                 : "rotary embedding, ";
    return norm + std::string(words_of(v_.roundings).title) +
           (v_.side == SideKind::gpu ? "; one warp a row, on a GPU" : "; the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall& call) const override { return declare_claim(*declared_program(call), call); }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    check(call);
    Builder b(std::string(inputs_.norm), binding_of(call), view_of(call));
    const Operand n = v_.normed ? normed(b) : b.input("x");
    const bool each = v_.roundings == RopeRoundings::each;
    const auto rounded = [&](const std::string& name, Operand v) { return each ? to_storage(b, name, v) : v; };
    const bool partial = rotary_of(call) < call.inputs->find("x")->second.cols();
    const Operand crossed = b.mul("crossed", kFp32, b.map("partner", Op::rotate, b.format(n), {n}), b.input("sin"));
    Operand y;
    if (v_.roundings == RopeRoundings::one) {
      y = b.map("turned_f32", Op::fma, kFp32, {n, b.input("cos"), crossed});
    } else {
      const Operand product = rounded("product_T", b.mul("product", kFp32, n, b.input("cos")));
      const Operand other = rounded("crossed_T", crossed);
      y = b.add("turned_f32", kFp32, product, other);
    }
    y = to_storage(b, "turned", y);
    if (partial) {
      const Operand passed = b.format(n) == b.x_format() ? n : to_storage(b, "n_T", n);
      y = b.map("joined", Op::join, b.x_format(), {y, passed});
    }
    b.output("y", y);
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    const PlacedProgram placed = placed_call(*declared_program(call), call);
    const Tensor& x = call.inputs->find("x")->second;
    const Tensor& cos = call.inputs->find("cos")->second;
    const auto weight = call.inputs->find("weight");
    const bool weighted = weight != call.inputs->end();
    const std::int64_t rotary = rotary_of(call);
    Tensor y = Tensor::zeros(x.format, x.shape);
    const auto memory = memory_of(v_.side);
    const RopeLaunch l{.x = memory->in(x.bytes),
                       .cos = memory->in(cos.bytes),
                       .sin = memory->in(call.inputs->find("sin")->second.bytes),
                       .weight = weighted ? memory->in(weight->second.bytes) : nullptr,
                       .y = memory->out(y.bytes),
                       .format = x.format,
                       .tables_fp32 = cos.format == FormatId::fp32,
                       .weight_fp32 = weighted && weight->second.format == FormatId::fp32,
                       .normed = v_.normed,
                       .approximate_root = v_.approximate_root,
                       .interleaved = view_of(call).pairing == Pairing::interleaved,
                       .table_of_columns = cos.cols() == rotary,
                       .rows = static_cast<std::uint32_t>(x.rows()),
                       .cols = static_cast<std::uint32_t>(x.cols()),
                       .rotary = static_cast<std::uint32_t>(rotary),
                       .eps = v_.normed ? static_cast<float>(call.numbers.find("eps")->second) : 0.0f,
                       .tables = table_rows(placed),
                       .roundings = v_.roundings};
    if (v_.side == SideKind::host) launch_rope_on_host(l, {});
#ifdef NORMA_CUDA_BUILT
    else
      launch_rope_on_gpu(l, {});
#endif
    memory->finish();
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  static std::int64_t rotary_of(const ImplCall& call) {
    const auto said = call.numbers.find("rotary");
    const std::int64_t cols = call.inputs->find("x")->second.cols();
    return said == call.numbers.end() || said->second == 0 ? cols : static_cast<std::int64_t>(said->second);
  }
  static View view_of(const ImplCall& call) {
    const auto said = call.words.find("pairing");
    const bool interleaved = said != call.words.end() && said->second == "interleaved";
    const std::int64_t rotary = rotary_of(call), cols = call.inputs->find("x")->second.cols();
    return {.pairing = interleaved ? Pairing::interleaved : Pairing::half, .rotary = rotary == cols ? 0 : rotary};
  }
  static RopeLaunch::TableRows table_rows(const PlacedProgram& placed) {
    for (std::size_t i = 0; i < placed.program.nodes.size(); ++i) {
      if (placed.program.nodes[i].kind != NodeKind::input || placed.program.nodes[i].names.front() != "cos") continue;
      const Stride& s = placed.strides[i];
      return {.rows_each = static_cast<std::uint32_t>(s.rows_each),
              .period = static_cast<std::uint32_t>(s.period),
              .set = static_cast<std::uint32_t>(s.set),
              .sets_each = static_cast<std::uint32_t>(s.sets_each),
              .per_row = static_cast<std::uint64_t>(s.per_row),
              .per_set = static_cast<std::uint64_t>(s.per_set)};
    }
    return {};
  }

  void check(const ImplCall& call) const {
    check_operands(inputs_, call);
    const Tensor& x = call.inputs->find("x")->second;
    check_storage(x);
    const Tensor& cos = call.inputs->find("cos")->second;
    const Tensor& sin = call.inputs->find("sin")->second;
    if (cos.shape != sin.shape || cos.format != sin.format)
      throw ImplSkipped("cos and sin must have one shape and format, got " + shape_text(cos.shape) + " " +
                        std::string(name_of(cos.format)) + " and " + shape_text(sin.shape) + " " +
                        std::string(name_of(sin.format)));
    const auto weight = call.inputs->find("weight");
    if (weight != call.inputs->end() && weight->second.size() != x.cols())
      throw ImplSkipped("weight must have " + std::to_string(x.cols()) + " values, got shape " +
                        shape_text(weight->second.shape));
  }

  Operand normed(Builder& b) const {
    const Operand x = b.input("x");
    const RowShape shape = row_shape(RowThreads::warp, b.x_format().id, b.binding().cols);
    const Operand mean_square = b.reduce("ms", kFp32, x,
                                         {.kind = ReduceKind::mean,
                                          .term = Term::square,
                                          .order = order_of(RowThreads::warp, shape),
                                          .contract = true,
                                          .term_format = {}});
    const Rounding root{.format = kFp32, .within_ulp = v_.approximate_root ? 2 : 0};
    const Operand r = b.map("r", Op::rsqrt, root, {plus_eps_fp32(b, "ms_eps", mean_square)});
    const bool one = v_.roundings == RopeRoundings::one;
    Operand n = b.mul("n_f32", kFp32, x, r);
    if (!one) n = to_storage(b, "n", n);
    if (!b.binding().has("weight")) return n;
    n = b.mul("nw_f32", kFp32, n, b.input("weight"));
    return one ? n : to_storage(b, "nw", n);
  }

  RopeVariant v_;
  KernelInputs inputs_;
};

}  // namespace

std::unique_ptr<Implementation> make_rope(const RopeVariant& variant) { return std::make_unique<Rope>(variant); }

}  // namespace norma::cuda
