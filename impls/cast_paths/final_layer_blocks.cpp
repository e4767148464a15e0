// DiT's FinalLayer; AdaLayerNormContinuous and proj_out of diffusers' Qwen-Image. They differ in the halves' order.
#include "impls/cast_paths/final_layer_blocks.hpp"

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

struct Code {
  std::string block, condition, activation, modulation, modulate, last;
  bool scale_first;
};

Graph build(const BlockBinding& binding, const Code& code) {
  const double eps = binding.numbers.at("eps");
  if (eps != 1e-6) throw ProgramError("the code of " + code.block + " has eps=1e-6 written in it and takes no other");
  PathBuilder p(binding, code.block);
  const std::int64_t batch = binding.x[0], width = binding.x[2];
  const Value x = p.input("x", binding.x), c = p.input(code.condition, {batch, width});
  const Value all = p.linear(code.modulation, p.silu(code.activation, c), 2 * width);
  const auto halves = p.g.chunk("modulation", p.g.reshape("modulation", all, {batch, 1, 2 * width}), -1, 2);
  const Value &scale = halves[code.scale_first ? 0 : 1], &shift = halves[code.scale_first ? 1 : 0];
  const Value n = p.by_path("norm", "torch.layer_norm.cpu", {{"x", x}}, {{"eps", eps}});
  const Value m = p.by_path("modulate", code.modulate, {{"x", n}, {"scale", scale}, {"shift", shift}});
  p.g.output(p.linear(code.last, m, static_cast<std::int64_t>(binding.numbers.at("out"))));
  return p.g.finish();
}

Graph build_dit(const BlockBinding& binding) {
  return build(binding, {"dit_final_layer", "c", "adaLN_modulation.0", "adaLN_modulation.1", "facebook.dit.modulate",
                         "linear", false});
}
Graph build_qwen(const BlockBinding& binding) {
  return build(binding, {"qwen_norm_out", "temb", "norm_out.silu", "norm_out.linear", "diffusers.flux.modulate",
                         "proj_out", true});
}

}  // namespace

constinit const BlockPath facebook_dit_final_layer{
    .name = "facebook.dit.final_layer",
    .title = "FinalLayer: LayerNorm and modulation op by op, linear",
    .block = "dit_final_layer",
    .source = {"facebookresearch/DiT", "models.py:124-142", "ed81ce2", "read"},
    .build = build_dit,
};

constinit const BlockPath diffusers_qwen_norm_out{
    .name = "diffusers.qwen_image.norm_out",
    .title = "AdaLayerNormContinuous op by op, scale before shift, and proj_out",
    .block = "qwen_norm_out",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py", "v0.42.1",
               "read"},
    .build = build_qwen,
};

}  // namespace norma::blocks
