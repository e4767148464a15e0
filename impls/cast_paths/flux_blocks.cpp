// FLUX.1's blocks, every tensor in one format but the tables of the rotary embedding, which are fp32. Code and port
// differ in the norm of queries and keys (two roundings of a literal eps's, one of torch's own) and in what fp16 is
// clipped to.
#include "impls/cast_paths/flux_blocks.hpp"

#include "impls/cast_paths/joint_steps.hpp"

namespace norma::blocks {

namespace {

// FluxTransformerBlock, FluxSingleTransformerBlock: of two streams only the text's is clipped in fp16, and only at the
// end; x + gate f elsewhere is op by op as in the first code.
constexpr JointCode kDiffusersDouble{.path = "diffusers.flux.double_block",
                                     .block = "flux_double_block",
                                     .modulate = "diffusers.flux.modulate",
                                     .rmsnorm = "torch.rms_norm.2_8",
                                     .rope = "diffusers.rope",
                                     .gated_residual = "bfl.flux.gated_residual",
                                     .last_image = "bfl.flux.gated_residual",
                                     .last_text = "diffusers.flux.gated_residual"};
constexpr JointCode kBflDouble{.path = "bfl.flux.double_block",
                               .block = "flux_double_block",
                               .modulate = "bfl.flux.modulate",
                               .rmsnorm = "bfl.flux.rmsnorm",
                               .rope = "bfl.flux.rope",
                               .gated_residual = "bfl.flux.gated_residual",
                               .last_image = "bfl.flux.gated_residual",
                               .last_text = "bfl.flux.gated_residual"};

/// Its one stream ends as the text's of the code's double block does.
constexpr JointCode single(JointCode code, std::string_view path) {
  code.path = path, code.block = "flux_single_block";
  return code;
}
constexpr JointCode kDiffusersSingle = single(kDiffusersDouble, "diffusers.flux.single_block");
constexpr JointCode kBflSingle = single(kBflDouble, "bfl.flux.single_block");

template <const JointCode& code>
Graph build_double(const BlockBinding& binding) {
  JointBuilder b(binding, code);
  PathBuilder& p = b.p;
  const std::int64_t text = b.number("text"), all = text + b.tokens;
  const Value img = p.input("img", binding.x), txt = p.input("txt", {b.batch, text, b.width});
  const Value vec = p.input("vec", {b.batch, b.width}), cos = b.table("cos", all), sin = b.table("sin", all);
  const Value activated = p.silu("vec.silu", vec);
  const auto image = b.before_attention("img", img, activated), words = b.before_attention("txt", txt, activated);
  const auto joined = [&](const std::string& name, Value first, Value second) {
    return p.g.concat(name, 1, {first, second});
  };
  const Value q = b.rotated("q.rope", joined("q", words.heads.q, image.heads.q), cos, sin);
  const Value k = b.rotated("k.rope", joined("k", words.heads.k, image.heads.k), cos, sin);
  const Value a = b.attended({q, k, joined("v", words.heads.v, image.heads.v)});
  b.after_attention(image, p.g.slice("img.attended", a, 1, text, b.tokens), code.last_image);
  b.after_attention(words, p.g.slice("txt.attended", a, 1, 0, text), code.last_text);
  return p.g.finish();
}

template <const JointCode& code>
Graph build_single(const BlockBinding& binding) {
  JointBuilder b(binding, code);
  PathBuilder& p = b.p;
  const Value x = p.input("x", binding.x), vec = p.input("vec", {b.batch, b.width});
  const Value cos = b.table("cos", b.tokens), sin = b.table("sin", b.tokens);
  const auto mod = b.modulations("mod", p.silu("vec.silu", vec), 3);
  const Value m = b.modulated("norm", "modulate", x, mod[1], mod[0]);
  auto heads = b.heads_of("", m);
  heads.q = b.rotated("q.rope", heads.q, cos, sin);
  heads.k = b.rotated("k.rope", heads.k, cos, sin);
  const Value a = b.attended(heads), hidden = p.gelu_tanh("mlp.1", p.linear("mlp.0", m, b.mlp));
  const Value f = p.linear("proj", p.g.concat("both", 2, {a, hidden}), b.width);
  p.g.output(b.gated(code.last_text, "y", x, mod[2], f));
  return p.g.finish();
}

// AdaLayerNormContinuous and proj_out, LastLayer and its linear: one Linear gives scale and shift; that its rows stand
// in another order is a matter of the checkpoint.
Graph build_last(const BlockBinding& binding, std::string_view path, std::string_view modulate) {
  if (binding.x.size() != 3)
    throw ProgramError(std::string(path) + " needs x of shape [batch, tokens, width], got " + shape_text(binding.x));
  const auto number = [&](std::string_view name) {
    const auto found = binding.numbers.find(name);
    if (found == binding.numbers.end())
      throw ProgramError(std::string(path) + " needs the number " + std::string(name));
    return found->second;
  };
  if (number("eps") != 1e-6) throw ProgramError(std::string(path) + " has eps=1e-6 written in it and takes no other");
  const std::int64_t batch = binding.x[0], width = binding.x[2];
  PathBuilder p(binding, "flux_last_layer");
  const Value x = p.input("x", binding.x), vec = p.input("vec", {batch, width});
  const Value activated = p.silu("vec.silu", vec);
  const auto part = [&](const std::string& name) {
    return p.g.reshape(name + ".rows", p.linear(name, activated, width), {batch, 1, width});
  };
  const Value shift = part("shift"), scale = part("scale");
  const Value n = p.by_path("norm", "torch.layer_norm.cpu", {{"x", x}}, {{"eps", 1e-6}});
  const Value m = p.by_path("modulate", modulate, {{"x", n}, {"scale", scale}, {"shift", shift}});
  p.g.output(p.linear("y", m, static_cast<std::int64_t>(number("out"))));
  return p.g.finish();
}
Graph build_diffusers_last(const BlockBinding& binding) {
  return build_last(binding, "diffusers.flux.last_layer", "diffusers.flux.modulate");
}
Graph build_bfl_last(const BlockBinding& binding) {
  return build_last(binding, "bfl.flux.last_layer", "bfl.flux.modulate");
}

constexpr PathSource kDiffusers{"huggingface/diffusers", "src/diffusers/models/transformers/transformer_flux.py",
                                "v0.42.1", "read"};
constexpr PathSource kBfl{"black-forest-labs/flux", "src/flux/modules/layers.py", "802fb47", "read"};

}  // namespace

constinit const BlockPath diffusers_flux_double_block{
    .name = kDiffusersDouble.path,
    .title = "FluxTransformerBlock: torch's RMSNorm of queries and keys, fp32 rotation, fp16 text clipped",
    .block = kDiffusersDouble.block,
    .source = kDiffusers,
    .build = build_double<kDiffusersDouble>,
};

constinit const BlockPath diffusers_flux_single_block{
    .name = kDiffusersSingle.path,
    .title = "FluxSingleTransformerBlock: torch's RMSNorm of queries and keys, fp32 rotation, fp16 clipped",
    .block = kDiffusersSingle.block,
    .source = kDiffusers,
    .build = build_single<kDiffusersSingle>,
};

constinit const BlockPath bfl_flux_double_block{
    .name = kBflDouble.path,
    .title = "DoubleStreamBlock: QKNorm casts and then scales, fp32 rotation",
    .block = kBflDouble.block,
    .source = kBfl,
    .build = build_double<kBflDouble>,
};

constinit const BlockPath bfl_flux_single_block{
    .name = kBflSingle.path,
    .title = "SingleStreamBlock: QKNorm casts and then scales, fp32 rotation",
    .block = kBflSingle.block,
    .source = kBfl,
    .build = build_single<kBflSingle>,
};

constinit const BlockPath diffusers_flux_last_layer{
    .name = "diffusers.flux.last_layer",
    .title = "AdaLayerNormContinuous without parameters of its own, op by op, and proj_out",
    .block = "flux_last_layer",
    .source = kDiffusers,
    .build = build_diffusers_last,
};

constinit const BlockPath bfl_flux_last_layer{
    .name = "bfl.flux.last_layer",
    .title = "LastLayer: LayerNorm and modulation op by op, linear",
    .block = "flux_last_layer",
    .source = kBfl,
    .build = build_bfl_last,
};

}  // namespace norma::blocks
