// GroupNorm, InstanceNorm and BatchNorm as implementations: what they take, what they declare, how they are started.
#include "impls/cuda/channel_norm.hpp"

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "impls/cuda/layernorm.hpp"
#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

namespace {

constexpr std::string_view kAffine[] = {"weight", "bias"};
constexpr std::string_view kAffineRunning[] = {"weight", "bias", "running_mean", "running_var"};
constexpr std::string_view kRunning[] = {"running_mean", "running_var"};
constexpr std::string_view kEps[] = {"eps"};
constexpr std::string_view kEpsGroups[] = {"eps", "groups"};
constexpr std::string_view kEpsMomentum[] = {"eps", "momentum"};
constexpr std::string_view kMomentum[] = {"momentum"};
constexpr FixedWord kFromBatch[] = {{"statistics", "batch"}};
constexpr FixedWord kFromRunning[] = {{"statistics", "running"}};

constexpr std::string_view kNorms[] = {"groupnorm", "instancenorm", "batchnorm"};
constexpr std::string_view kTitles[] = {"GroupNorm", "InstanceNorm", "BatchNorm"};
constexpr ViewKind kViews[] = {ViewKind::groups, ViewKind::channels, ViewKind::batch};

std::size_t index_of(ChannelNormKind kind) { return static_cast<std::size_t>(kind); }

KernelInputs inputs_of(const ChannelNormVariant& v) {
  KernelInputs inputs{.norm = kNorms[index_of(v.kind)],
                      .required = {},
                      .optional = kAffine,
                      .numbers = kEpsGroups,
                      .ignored = {},
                      .words = {}};
  if (v.kind == ChannelNormKind::groupnorm) return inputs;
  if (v.from == MomentsFrom::given) {
    inputs.required = kRunning, inputs.numbers = kEps, inputs.ignored = kMomentum, inputs.words = kFromRunning;
    return inputs;
  }
  inputs.words = kFromBatch;
  if (v.kind == ChannelNormKind::batchnorm)
    inputs.optional = kAffineRunning, inputs.numbers = kEpsMomentum;
  else
    inputs.numbers = kEps, inputs.ignored = kMomentum;
  return inputs;
}

const Tensor* tensor_of(const ImplCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

Rounding to_format(FormatRef format) {
  return {.format = format, .overflow = format_of(format.id).storage_bits == 8 ? Overflow::saturate : Overflow::ieee};
}

/// (1 - momentum) running + momentum new; the new variance is n / (n - 1) of the biased one.
void declare_running(Builder& b, const DeclaredMoments& found) {
  const bool mean = b.binding().has("running_mean"), variance = b.binding().has("running_var");
  if (!mean && !variance) return;
  const Operand one = b.constant("one", 1);
  const Operand momentum = b.cast("momentum_f32", kFp32, b.attribute("momentum"));
  const Operand keep = b.sub("keep", kFp32, one, momentum);
  const auto update = [&](const std::string& name, Operand fresh) {
    const Operand part = b.mul(name + "_part", kFp32, momentum, fresh);
    const Operand old = b.input(name);
    const Operand sum = b.map(name + "_new", Op::fma, kFp32, {keep, old, part});
    const FormatRef stored = b.format(old);
    b.output(name, stored.id == FormatId::fp32 ? sum : b.map(name + "_stored", Op::cast, to_format(stored), {sum}));
  };
  if (mean) update("running_mean", found.mean);
  if (!variance) return;
  const Operand squares = b.mul("squares", kFp32, found.variance, b.count());
  update("running_var", b.div("unbiased", kFp32, squares, b.sub("n1", kFp32, b.count(), one)));
}

/// [samples, rows, columns] to [samples, columns, rows], elements of `width` bytes.
std::vector<std::byte> transposed(std::span<const std::byte> from, std::size_t width, std::size_t samples,
                                  std::size_t rows, std::size_t columns) {
  std::vector<std::byte> to(from.size());
  for (std::size_t n = 0; n < samples; ++n)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c)
        std::memcpy(to.data() + ((n * columns + c) * rows + r) * width,
                    from.data() + ((n * rows + r) * columns + c) * width, width);
  return to;
}

class ChannelNorm final : public Implementation {
 public:
  explicit ChannelNorm(const ChannelNormVariant& v) : v_(v), inputs_(inputs_of(v)) {}

  std::string name() const override {
    std::string name = v_.side == SideKind::gpu ? "cuda." : "cuda_host.";
    name += inputs_.norm;
    if (v_.from == MomentsFrom::given)
      name += ".eval";
    else if (v_.kind == ChannelNormKind::batchnorm)
      name += ".train";
    if (v_.channels_last) name += ".channels_last";
    if (v_.from != MomentsFrom::given) {
      name += v_.from == MomentsFrom::block ? ".block_per_row" : ".slices";
      name += words_of(v_.statistic).name;
    }
    return name + (v_.approximate_root ? ".rsqrtf" : "");
  }
  std::string title() const override {
    std::string title(kTitles[index_of(v_.kind)]);
    if (v_.channels_last) title += ", channels last in memory";
    title += ", ";
    title += v_.from == MomentsFrom::given ? "running statistics" : words_of(v_.statistic).title;
    title += v_.approximate_root ? ", rsqrtf" : ", __frsqrt_rn";
    title += ", y = rT(fma(n, w, b))";
    if (v_.from != MomentsFrom::given)
      title += v_.from == MomentsFrom::block ? "; one block a row" : "; slices of rows, merged by the next kernel";
    return title + (v_.side == SideKind::gpu ? ", on a GPU" : ", the kernel's source on the host executor");
  }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall&) const override { return {}; }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    const Layout layout = checked(call);
    Builder b(std::string(inputs_.norm), binding_of(call), view());
    const Operand x = b.input("x");
    const bool weighted = b.binding().has("weight"), biased = b.binding().has("bias");
    const DeclaredMoments m = v_.from == MomentsFrom::given
                                  ? DeclaredMoments{b.input("running_mean"), b.input("running_var")}
                                  : declare_moments(b, RowThreads::block, sharing(call, layout), v_.statistic, x);
    const Rounding root{.format = kFp32, .within_ulp = v_.approximate_root ? 2 : 0};
    const Operand r = b.map("r", Op::rsqrt, root, {plus_eps_fp32(b, "var_eps", m.variance)});
    const Operand centred = b.sub("centred", kFp32, x, m.mean);
    Operand y = b.mul(weighted || biased ? "n" : last_step(b), kFp32, centred, r);
    if (weighted && biased)
      y = b.map(last_step(b), Op::fma, kFp32, {y, b.input("weight"), b.input("bias")});
    else if (weighted)
      y = b.mul(last_step(b), kFp32, y, b.input("weight"));
    else if (biased)
      y = b.add(last_step(b), kFp32, y, b.input("bias"));
    b.output("y", to_storage(b, "y", y));
    if (v_.from != MomentsFrom::given) declare_running(b, m);
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    const Layout layout = checked(call);
    placed_call(*declared_program(call), call);  // parameters that do not fit
    const Tensor& x = *tensor_of(call, "x");
    Tensors outputs;
    Tensor& y = outputs.emplace("y", Tensor::zeros(x.format, x.shape)).first->second;
    const auto memory = memory_of(v_.side);
    const auto parameter = [&](std::string_view name) {
      const Tensor* t = tensor_of(call, name);
      return t == nullptr ? nullptr : memory->in(t->bytes);
    };
    const auto updated = [&](const std::string& name) -> std::byte* {
      const Tensor* old = v_.from == MomentsFrom::given ? nullptr : tensor_of(call, name);
      if (old == nullptr) return nullptr;
      return memory->out(outputs.emplace(name, Tensor::zeros(old->format, old->shape)).first->second.bytes);
    };
    const auto width = static_cast<std::size_t>(format_of(x.format).storage_bytes());
    const auto samples = static_cast<std::size_t>(layout.samples), channels = static_cast<std::size_t>(layout.channels),
               positions = static_cast<std::size_t>(layout.positions);
    std::vector<std::byte> last_x, last_y, partials;
    if (v_.channels_last) {
      last_x = transposed(x.bytes, width, samples, channels, positions);
      last_y.resize(last_x.size());
    }
    const RunRows rows = run_rows(layout, x.format);
    const ChannelColumns columns = channel_columns(layout);
    const unsigned slices = v_.from == MomentsFrom::block ? 1
                            : in_columns()                ? column_slices(columns)
                                                          : run_slices(rows);
    if (v_.from == MomentsFrom::slices)
      partials.resize(in_columns() ? partial_bytes(columns, slices) : partial_bytes(rows, slices));
    const ChannelNormLaunch l{.x = memory->in(v_.channels_last ? last_x : x.bytes),
                              .weight = parameter("weight"),
                              .bias = parameter("bias"),
                              .mean = parameter("running_mean"),
                              .variance = parameter("running_var"),
                              .y = memory->out(v_.channels_last ? last_y : y.bytes),
                              .new_mean = updated("running_mean"),
                              .new_variance = updated("running_var"),
                              .partials = memory->out(partials),
                              .format = x.format,
                              .parameters_fp32 = parameter_format(call) == FormatId::fp32,
                              .eps = static_cast<float>(call.numbers.find("eps")->second),
                              .momentum = momentum_of(call),
                              .statistic = v_.statistic,
                              .from = v_.from,
                              .slices = slices,
                              .approximate_root = v_.approximate_root};
    launch(l, rows, columns);
    memory->finish();
    if (v_.channels_last) y.bytes = transposed(last_y, width, samples, positions, channels);
    return outputs;
  }

 private:
  bool in_columns() const { return v_.channels_last && v_.kind != ChannelNormKind::groupnorm; }
  View view() const {
    return {.kind = kViews[index_of(v_.kind)],
            .channels_last = v_.channels_last && v_.kind == ChannelNormKind::groupnorm};
  }
  static FormatId parameter_format(const ImplCall& call) {
    for (const std::string_view name : kAffineRunning)
      if (const Tensor* t = tensor_of(call, name)) return t->format;
    return FormatId::fp32;
  }
  static float momentum_of(const ImplCall& call) {
    const auto found = call.numbers.find("momentum");
    return found == call.numbers.end() ? 0.0f : static_cast<float>(found->second);
  }

  /// Rows and columns of a call that the kernel takes; ImplSkipped otherwise.
  Layout checked(const ImplCall& call) const {
    check_operands(inputs_, call);
    const Tensor& x = *tensor_of(call, "x");
    check_storage(x);
    Builder b(std::string(inputs_.norm), binding_of(call), view());
    b.output("y", b.cast("y", kFp32, b.input("x")));
    const Layout layout = placed_call(b.finish(), call).layout;
    for (const std::string_view name : kAffineRunning) {
      const Tensor* t = tensor_of(call, name);
      if (t == nullptr) continue;
      if (t->size() != layout.channels)
        throw ImplSkipped(std::string(name) + " must have " + std::to_string(layout.channels) + " values, got shape " +
                          shape_text(t->shape));
      if (t->format != parameter_format(call))
        throw ImplSkipped("weight, bias and running statistics must have one format, got " +
                          std::string(name_of(parameter_format(call))) + " and " + std::string(name_of(t->format)));
    }
    if (layout.rows * 64 > 0x7fffffff)  // slices of a row are blocks of a grid
      throw ImplSkipped("samples times groups must be below 2^25, got " + std::to_string(layout.rows));
    return layout;
  }

  /// How the threads of a row, or of all its slices, share it.
  RowShape sharing(const ImplCall& call, const Layout& layout) const {
    const FormatId format = tensor_of(call, "x")->format;
    if (in_columns()) return {kColumnThreads * column_slices(channel_columns(layout)), 1};
    const RowShape block = row_shape(RowThreads::block, format, layout.cols);
    if (v_.from == MomentsFrom::block) return block;
    return {kSliceThreads * run_slices(run_rows(layout, format)), block.vector};
  }

  RunRows run_rows(const Layout& layout, FormatId format) const {
    const auto whole = [](std::int64_t v) { return static_cast<std::uint32_t>(v); };
    const auto far = [](std::int64_t v) { return static_cast<std::uint64_t>(v); };
    const std::int64_t c = layout.channels, p = layout.positions;
    RunRows r{.rows = whole(layout.rows), .cols = whole(layout.cols), .set = whole(layout.groups)};
    r.positions = whole(p);
    if (v_.kind == ChannelNormKind::batchnorm) {
      r.set = whole(c), r.run = whole(p), r.per_row = far(p), r.apart = far(c * p);
    } else {
      r.each = whole(c / layout.groups), r.per_set = far(c * p);
      if (v_.channels_last)
        r.run = r.each, r.per_row = r.each, r.apart = far(c), r.channel_by = ChannelBy::offset;
      else
        r.run = r.cols, r.per_row = r.cols, r.apart = r.cols,
        r.channel_by = r.each > 1 ? ChannelBy::position : ChannelBy::row;
    }
    const unsigned vector = 16 / static_cast<unsigned>(format_of(format).storage_bytes());
    r.width = std::gcd(r.run, vector);
    return r;
  }
  ChannelColumns channel_columns(const Layout& layout) const {
    const bool batch = v_.kind == ChannelNormKind::batchnorm;
    return {.sets = batch ? 1 : static_cast<std::uint32_t>(layout.samples),
            .rows = static_cast<std::uint32_t>(layout.cols),
            .channels = static_cast<std::uint32_t>(layout.channels)};
  }

  void launch(const ChannelNormLaunch& l, const RunRows& rows, const ChannelColumns& columns) const {
    if (v_.side == SideKind::host) {
      if (in_columns())
        launch_channel_columns_on_host(l, columns, {});
      else
        launch_channel_runs_on_host(l, rows, {});
      return;
    }
#ifdef NORMA_CUDA_BUILT
    if (in_columns())
      launch_channel_columns_on_gpu(l, columns, {});
    else
      launch_channel_runs_on_gpu(l, rows, {});
#endif
  }

  ChannelNormVariant v_;
  KernelInputs inputs_;
};

}  // namespace

std::unique_ptr<Implementation> make_channel_norm(const ChannelNormVariant& variant) {
  return std::make_unique<ChannelNorm>(variant);
}

std::vector<std::unique_ptr<Implementation>> make_channel_norms(SideKind side) {
  std::vector<std::unique_ptr<Implementation>> all;
  for (const ChannelNormKind kind :
       {ChannelNormKind::groupnorm, ChannelNormKind::instancenorm, ChannelNormKind::batchnorm})
    for (const bool last : {false, true})
      for (const bool approximate : {false, true}) {
        const bool single = kind != ChannelNormKind::groupnorm;
        for (const MomentsFrom from : {MomentsFrom::block, MomentsFrom::slices}) {
          if (from == MomentsFrom::block && single && last) continue;
          for (const Statistic statistic : {Statistic::two_pass, Statistic::welford, Statistic::one_pass})
            all.push_back(make_channel_norm({.side = side,
                                             .kind = kind,
                                             .channels_last = last,
                                             .from = from,
                                             .statistic = statistic,
                                             .approximate_root = approximate}));
        }
        if (single)
          all.push_back(make_channel_norm({.side = side,
                                           .kind = kind,
                                           .channels_last = last,
                                           .from = MomentsFrom::given,
                                           .statistic = Statistic::two_pass,
                                           .approximate_root = approximate}));
      }
  return all;
}

}  // namespace norma::cuda
