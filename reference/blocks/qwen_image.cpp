// Qwen-Image's block of two streams, from its first code (diffusers); each stream is turned before they are joined.
#include "reference/blocks/qwen_image.hpp"

#include "reference/blocks/joint_streams.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"heads", "24", "attention heads; they divide the width"},
    {"text", "256", "text tokens"},
    {"mlp", "0", "the MLPs' width; 0: four times the block's"},
    {"eps", "1e-6", "of all norms"},
};

constexpr std::pair<std::string_view, std::string_view> kStreams[] = {{"img.out", "img"}, {"txt.out", "txt"}};

Graph build(const BlockCall& call) {
  const JointSizes s = joint_sizes("qwen_image_block", call);
  const std::int64_t text = whole(call, "text"), all = text + s.tokens;
  GraphBuilder g("qwen_image_block");
  const Value img = g.input("img", call.x), txt = g.input("txt", {s.batch, text, s.width});
  const Value vec = g.input("vec", {s.batch, s.width});
  const Value cos = g.input("cos", {all, s.head / 2}), sin = g.input("sin", {all, s.head / 2});
  const Value activated = silu(g, "vec.silu", vec);
  TokenStream image = before_attention(g, "img", img, activated, s),
              words = before_attention(g, "txt", txt, activated, s);
  const auto turn = [&](TokenStream& stream, std::int64_t first, std::int64_t count) {
    const Value c = g.slice(stream.name + ".cos", cos, 0, first, count),
                d = g.slice(stream.name + ".sin", sin, 0, first, count);
    stream.heads.q = rotated(g, stream.name + ".q.rope", stream.heads.q, c, d);
    stream.heads.k = rotated(g, stream.name + ".k.rope", stream.heads.k, c, d);
  };
  turn(image, text, s.tokens);
  turn(words, 0, text);
  const auto joined = [&](const std::string& name, Value first, Value second) {
    return g.concat(name, 1, {first, second});
  };
  const Value a = attended(g,
                           {joined("q", words.heads.q, image.heads.q), joined("k", words.heads.k, image.heads.k),
                            joined("v", words.heads.v, image.heads.v)},
                           s);
  after_attention(g, image, g.slice("img.attended", a, 1, text, s.tokens), s);
  after_attention(g, words, g.slice("txt.attended", a, 1, 0, text), s);
  return g.finish();
}

}  // namespace

constinit const BlockDef qwen_image_block{
    .name = "qwen_image_block",
    .title = "Qwen-Image block of two streams",
    .formula =
        "both streams s: n = LN(s) (1 + c1) + t1; s1 = s + g1 Wo a; s' = s1 + g2 mlp(LN(s1) (1 + c2) + t2); "
        "a = attention(R rms(Wq n), R rms(Wk n), Wv n) of the text's and the image's tokens together; "
        "t1, c1, g1, t2, c2, g2 = Linear(silu(vec)); R turns columns 2k and 2k + 1",
    .source =
        "huggingface/diffusers src/diffusers/models/transformers/transformer_qwenimage.py v0.42.1; arXiv:2508.02324",
    .attributes = kAttributes,
    .build = build,
    .input = "img",
    .streams = kStreams,
};

}  // namespace norma::blocks
