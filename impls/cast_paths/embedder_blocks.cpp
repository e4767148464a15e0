// FLUX.1's and Qwen-Image's embedders. A timestep arrives as a number of the scheduler, fp32 here, and is cast to T
// first: what 16 bits lose of it, the angles of the fastest frequencies show.
#include "impls/cast_paths/embedder_blocks.hpp"

#include <cmath>

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

/// Where t is multiplied by its factor.
enum class Scaled { in_t, angles };

double number(const BlockBinding& binding, std::string_view block, std::string_view name) {
  const auto found = binding.numbers.find(name);
  if (found == binding.numbers.end()) throw ProgramError(std::string(block) + " needs the number " + std::string(name));
  return found->second;
}

/// torch's arange and scalars are fp32, exp, cos and sin of SLEEF within 1 ulp.
Value sinusoid(PathBuilder& p, const std::string& block, const std::string& prefix, Value given, Scaled scaled,
               double shift) {
  GraphBuilder& g = p.g;
  const double period = number(p.binding(), block, "max_period"), factor = number(p.binding(), block, "factor");
  const auto half = static_cast<std::int64_t>(number(p.binding(), block, "dim")) / 2;
  const std::string t_format(name_of(p.format()));
  const std::int64_t batch = g.shape(given)[0];
  Value t = p.by_text(prefix + "t", "norm t\nin x:T\nout y = cast " + t_format + " x\n", {{"x", given}});
  if (scaled == Scaled::in_t)
    t = p.by_text(prefix + "scaled", "norm scaled\nin x:T factor\nout y = mul T x, factor\n", {{"x", t}},
                  {{"factor", factor}});
  const Value freqs =
      p.by_text(prefix + "freqs",
                "norm freqs\nin x:T log divisor\nl = cast fp32 log\na = mul fp32 x, l\nq = div fp32 a, divisor\n"
                "out y = exp fp32 q within=1\n",
                {{"x", g.count(prefix + "index", half, 0, 1, FormatId::fp32)}},
                {{"log", -std::log(period)}, {"divisor", static_cast<double>(half) - shift}});
  const Value column = g.repeat(prefix + "t.rows", g.reshape(prefix + "t.column", t, {batch, 1}), 1, half);
  const Value args =
      scaled == Scaled::in_t
          ? p.by_text(prefix + "args", "norm args\nin x:T freqs:fp32[cols]\nout y = mul fp32 x, freqs\n",
                      {{"x", column}, {"freqs", freqs}})
          : p.by_text(prefix + "args",
                      "norm args\nin x:T freqs:fp32[cols] factor\na = mul fp32 x, freqs\nout y = mul fp32 a, factor\n",
                      {{"x", column}, {"freqs", freqs}}, {{"factor", factor}});
  const Value cos = p.by_text(prefix + "cos", "norm cos\nin x:T\nout y = cos fp32 x within=1\n", {{"x", args}});
  const Value sin = p.by_text(prefix + "sin", "norm sin\nin x:T\nout y = sin fp32 x within=1\n", {{"x", args}});
  return p.by_text(prefix + "embedding", "norm embedding\nin x:T\nout y = cast " + t_format + " x\n",
                   {{"x", g.concat(prefix + "both", 1, {cos, sin})}});
}

Value embedder(PathBuilder& p, const std::string& prefix, Value x, std::int64_t width) {
  return p.linear(prefix + "out_layer", p.silu(prefix + "silu", p.linear(prefix + "in_layer", x, width)), width);
}

template <Scaled scaled, bool with_shift>
Graph build_embedding(const BlockBinding& binding) {
  const double shift = number(binding, "timestep_embedding", "shift");
  if (!with_shift && shift != 0) throw ProgramError("FLUX.1's code divides by dim / 2 and takes no shift but 0");
  PathBuilder p(binding, "timestep_embedding");
  const Value t = p.g.input("timestep", binding.x, FormatId::fp32);
  p.g.output(sinusoid(p, "timestep_embedding", "", t, scaled, shift));
  return p.g.finish();
}

Graph build_embedder(const BlockBinding& binding) {
  PathBuilder p(binding, "mlp_embedder");
  const Value x = p.input("x", binding.x);
  p.g.output(embedder(p, "", x, static_cast<std::int64_t>(number(binding, "mlp_embedder", "width"))));
  return p.g.finish();
}

Graph build_vector(const BlockBinding& binding) {
  PathBuilder p(binding, "flux_vec");
  const std::int64_t batch = binding.x[0];
  const auto width = static_cast<std::int64_t>(number(binding, "flux_vec", "width"));
  const Value x = p.input("x", binding.x), t = p.g.input("timestep", {batch}, FormatId::fp32),
              guidance = p.g.input("guidance", {batch}, FormatId::fp32);
  const auto embedded = [&](const std::string& name, Value from) {
    return embedder(p, name + "_in.", sinusoid(p, "flux_vec", name + ".", from, Scaled::in_t, 0), width);
  };
  const auto sum = [&](const std::string& name, Value a, Value b) {
    return p.by_text(name, "norm add\nin x:T other:T[rows,cols]\nout y = add T x, other\n", {{"x", a}, {"other", b}});
  };
  const Value time = embedded("time", t), guided = embedded("guidance", guidance);
  const Value both = sum("time_and_guidance", time, guided);
  p.g.output(sum("vec", both, embedder(p, "vector_in.", x, width)));
  return p.g.finish();
}

constexpr PathSource kBflLayers{"black-forest-labs/flux", "src/flux/modules/layers.py", "802fb47", "read"};
constexpr PathSource kBflModel{"black-forest-labs/flux", "src/flux/model.py", "802fb47", "read"};
constexpr PathSource kEmbeddings{"huggingface/diffusers", "src/diffusers/models/embeddings.py", "v0.42.1", "read"};
constexpr PathSource kQwen{"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py",
                           "v0.42.1", "read"};

}  // namespace

constinit const BlockPath bfl_timestep_embedding{
    .name = "bfl.flux.timestep_embedding",
    .title = "timestep_embedding: t and 1000 t rounded to T, fp32 angles, one cast",
    .block = "timestep_embedding",
    .source = kBflLayers,
    .build = build_embedding<Scaled::in_t, false>,
};

constinit const BlockPath diffusers_flux_timestep_embedding{
    .name = "diffusers.flux.timestep_embedding",
    .title = "timestep.to(T) * 1000, then Timesteps: fp32 angles, cosines first, one cast",
    .block = "timestep_embedding",
    .source = kEmbeddings,
    .build = build_embedding<Scaled::in_t, true>,
};

constinit const BlockPath diffusers_qwen_timestep_embedding{
    .name = "diffusers.qwen_image.timestep_embedding",
    .title = "timestep.to(T), then Timesteps with scale=1000: the factor in fp32, after the frequencies",
    .block = "timestep_embedding",
    .source = kQwen,
    .build = build_embedding<Scaled::angles, true>,
};

constinit const BlockPath bfl_mlp_embedder{
    .name = "bfl.flux.mlp_embedder",
    .title = "MLPEmbedder: Linear, SiLU, Linear in T",
    .block = "mlp_embedder",
    .source = kBflLayers,
    .build = build_embedder,
};

constinit const BlockPath diffusers_timestep_embedder{
    .name = "diffusers.timestep_embedder",
    .title = "TimestepEmbedding, PixArtAlphaTextProjection: Linear, SiLU, Linear in T",
    .block = "mlp_embedder",
    .source = kEmbeddings,
    .build = build_embedder,
};

constinit const BlockPath bfl_flux_vec{
    .name = "bfl.flux.vec",
    .title = "Flux.forward: time_in, then + guidance_in, then + vector_in, each sum rounded to T",
    .block = "flux_vec",
    .source = kBflModel,
    .build = build_vector,
};

constinit const BlockPath diffusers_flux_vec{
    .name = "diffusers.flux.vec",
    .title = "CombinedTimestepGuidanceTextProjEmbeddings: timestep + guidance, then + text, each sum rounded to T",
    .block = "flux_vec",
    .source = kEmbeddings,
    .build = build_vector,
};

}  // namespace norma::blocks
