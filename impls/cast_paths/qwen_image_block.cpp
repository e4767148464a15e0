// QwenImageTransformerBlock, every tensor in one format but the tables of the rotary embedding, which are fp32.
#include "impls/cast_paths/qwen_image_block.hpp"

#include "impls/cast_paths/joint_steps.hpp"

namespace norma::blocks {

namespace {

// Only what leaves the block is clipped in fp16; x + gate f before that is op by op as in FLUX.
constexpr JointCode kCode{.path = "diffusers.qwen_image.block",
                          .block = "qwen_image_block",
                          .eps_written = false,
                          .modulate = "diffusers.qwen_image.modulate",
                          .rmsnorm = "diffusers.rmsnorm",
                          .rope = "diffusers.rope.complex",
                          .gated_residual = "bfl.flux.gated_residual",
                          .last_image = "diffusers.qwen_image.gated_residual",
                          .last_text = "diffusers.qwen_image.gated_residual"};

Graph build(const BlockBinding& binding) {
  JointBuilder b(binding, kCode);
  PathBuilder& p = b.p;
  const std::int64_t text = b.number("text"), all = text + b.tokens;
  const Value img = p.input("img", binding.x), txt = p.input("txt", {b.batch, text, b.width});
  const Value vec = p.input("vec", {b.batch, b.width}), cos = b.table("cos", all), sin = b.table("sin", all);
  const Value activated = p.silu("vec.silu", vec);
  auto image = b.before_attention("img", img, activated), words = b.before_attention("txt", txt, activated);
  const auto turn = [&](JointBuilder::Stream& s, std::int64_t first, std::int64_t count) {
    const Value c = p.g.slice(s.name + "cos", cos, 0, first, count),
                d = p.g.slice(s.name + "sin", sin, 0, first, count);
    s.heads.q = b.rotated(s.name + "q.rope", s.heads.q, c, d);
    s.heads.k = b.rotated(s.name + "k.rope", s.heads.k, c, d);
  };
  turn(image, text, b.tokens);
  turn(words, 0, text);
  const auto joined = [&](const std::string& name, Value first, Value second) {
    return p.g.concat(name, 1, {first, second});
  };
  const Value a = b.attended({joined("q", words.heads.q, image.heads.q), joined("k", words.heads.k, image.heads.k),
                              joined("v", words.heads.v, image.heads.v)});
  b.after_attention(image, p.g.slice("img.attended", a, 1, text, b.tokens), kCode.last_image);
  b.after_attention(words, p.g.slice("txt.attended", a, 1, 0, text), kCode.last_text);
  return p.g.finish();
}

}  // namespace

constinit const BlockPath diffusers_qwen_image_block{
    .name = kCode.path,
    .title = "QwenImageTransformerBlock: RMSNorm casts and then scales, a complex rotation, fp16 clipped",
    .block = kCode.block,
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py", "v0.42.1",
               "read"},
    .build = build,
};

}  // namespace norma::blocks
