// Frequencies and angles in binary64 or in fp32: at position p an fp32 frequency errs by up to p 2^-23 of its angle.
#include "impls/cast_paths/rope_ids_blocks.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

std::vector<std::int64_t> axes_of(const BlockBinding& binding) {
  if (binding.x.size() != 2) throw ProgramError("ids are [tokens, axes], got " + shape_text(binding.x));
  std::vector<std::int64_t> axes;
  for (std::int64_t a = 0; a < std::min<std::int64_t>(binding.x[1], 3); ++a)
    axes.push_back(static_cast<std::int64_t>(binding.numbers.at("axis" + std::to_string(a))));
  if (std::accumulate(axes.begin(), axes.end(), 0.0) != binding.numbers.at("head"))
    throw ProgramError("the RoPE axes of " + shape_text(binding.x) + " ids do not sum to a head's columns");
  return axes;
}

/// 1 / theta^(2j / d), outer product, cos and sin, all in `of`: pow, cos and sin of a library within 1 ulp. Then fp32,
/// and T where the code hands tables on in the model's format.
Graph build(const BlockBinding& binding, FormatId of, bool in_t) {
  const std::vector<std::int64_t> axes = axes_of(binding);
  const std::string wide(name_of(of)), stored(name_of(in_t ? binding.format : FormatId::fp32));
  PathBuilder p(binding, "rope_from_ids");
  GraphBuilder& g = p.g;
  const Value ids = g.input("ids", binding.x, FormatId::fp32);
  std::vector<Value> angles;
  for (std::size_t a = 0; a < axes.size(); ++a) {
    const std::string name = "axis" + std::to_string(a);
    const Value omega = p.by_text(name + ".omega",
                                  "norm omega\nin x:T theta columns\nq = div " + wide + " x, columns\np = pow " + wide +
                                      " theta, q within=1\nout y = reciprocal " + wide + " p\n",
                                  {{"x", g.count(name + ".index", axes[a] / 2, 0, 2, of)}},
                                  {{"theta", binding.numbers.at("theta")}, {"columns", static_cast<double>(axes[a])}});
    const Value position =
        g.repeat(name + ".position", g.slice(name + ".ids", ids, 1, static_cast<std::int64_t>(a), 1), 1, axes[a] / 2);
    angles.push_back(p.by_text(name + ".angle",
                               "norm angle\nin x:T omega:" + wide + "[cols]\nout y = mul " + wide + " x, omega\n",
                               {{"x", position}, {"omega", omega}}));
  }
  const Value angle = g.concat("angle", 1, angles);
  for (const std::string name : {"cos", "sin"})
    g.output(p.by_text(name,
                       "norm " + name + "\nin x:T\nc = " + name + " " + wide +
                           " x within=1\nf = cast fp32 c\nout y = cast " + stored + " f\n",
                       {{"x", angle}}));
  return g.finish();
}

Graph build_fp64(const BlockBinding& binding) { return build(binding, FormatId::fp64, false); }
Graph build_fp32(const BlockBinding& binding) { return build(binding, FormatId::fp32, false); }
Graph build_in_t(const BlockBinding& binding) { return build(binding, FormatId::fp32, true); }

}  // namespace

constinit const BlockPath diffusers_flux_rope_ids{
    .name = "diffusers.flux.rope_ids",
    .title = "FluxPosEmbed: frequencies, angles, cos and sin in binary64, one cast to fp32",
    .block = "rope_from_ids",
    .source = {"huggingface/diffusers", "src/diffusers/models/embeddings.py:885-940", "v0.42.1", "read"},
    .build = build_fp64,
};

constinit const BlockPath bfl_flux_rope_ids{
    .name = "bfl.flux.rope_ids",
    .title = "EmbedND, rope: all in fp32, the positions' format, since commit 4343061",
    .block = "rope_from_ids",
    .source = {"black-forest-labs/flux", "src/flux/math.py", "802fb47", "read"},
    .build = build_fp32,
};

constinit const BlockPath bfl_flux_rope_ids_float64{
    .name = "bfl.flux.rope_ids.float64",
    .title = "EmbedND, rope before commit 4343061: binary64, cast to fp32",
    .block = "rope_from_ids",
    .source = {"black-forest-labs/flux", "src/flux/math.py", "before 4343061", "read"},
    .build = build_fp64,
};

constinit const BlockPath diffusers_qwen_rope_ids{
    .name = "diffusers.qwen_image.rope_ids",
    .title = "QwenEmbedRope.rope_params: fp32 pow, outer product and polar",
    .block = "rope_from_ids",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py", "v0.42.1",
               "read"},
    .build = build_fp32,
};

constinit const BlockPath transformers_llama_rope_ids{
    .name = "transformers.llama.rope_ids",
    .title = "LlamaRotaryEmbedding: fp32 inv_freq times position, cos and sin cast to T",
    .block = "rope_from_ids",
    .source = {"huggingface/transformers", "src/transformers/models/llama/modeling_llama.py", "v5.23.0", "read"},
    .build = build_in_t,
};

}  // namespace norma::blocks
