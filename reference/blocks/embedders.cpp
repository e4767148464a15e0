// Sinusoidal embeddings of numbers and the layers that follow them, from their first code.
#include "reference/blocks/embedders.hpp"

#include "reference/blocks/formulas.hpp"
#include "reference/blocks/joint_streams.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kEmbedding[] = {
    {"dim", "256", "numbers of the embedding; even"},
    {"factor", "1000", "what the timestep is multiplied by"},
    {"max_period", "10000", "of the slowest angle, nearly"},
    {"shift", "0", "what the divisor of the exponents lacks of dim / 2"},
};
constexpr BlockAttribute kEmbedder[] = {{"width", "3072", "of both layers"}};
constexpr BlockAttribute kVector[] = {
    {"width", "3072", "of the model"},
    {"dim", "256", "numbers of an embedding; even"},
    {"factor", "1000", "what timestep and guidance are multiplied by"},
    {"max_period", "10000", "of the slowest angle, nearly"},
};

struct Sinusoid {
  std::int64_t half;
  double factor, period, divisor;
};
Sinusoid sinusoid_of(const BlockCall& call, double shift) {
  const std::int64_t dim = whole(call, "dim");
  const Sinusoid s{dim / 2, call.numbers.at("factor"), call.numbers.at("max_period"),
                   static_cast<double>(dim / 2) - shift};
  if (dim % 2 != 0) throw ProgramError("dim=" + std::to_string(dim) + " must be even: as many cosines as sines");
  if (!(s.period >= 1)) throw ProgramError("max_period must be at least 1");
  if (!(s.divisor > 0)) throw ProgramError("shift must be less than dim / 2, which is " + std::to_string(s.half));
  return s;
}

void check_vector(const std::string& block, const Shape& x, std::size_t axes, const std::string& wanted) {
  if (x.size() != axes) throw ProgramError(block + " needs " + wanted + ", got " + shape_text(x));
}

/// cos(t w_k) for k < half, then sin(t w_k); w_k = max_period^(-k / divisor).
Value sinusoid(GraphBuilder& g, const std::string& prefix, Value t, const Sinusoid& s) {
  const std::int64_t batch = g.shape(t)[0];
  const Value freqs =
      formula(g, prefix + "freqs",
              "norm freqs\nin x:T period divisor\nq = div exact x, divisor\nm = neg exact q\n"
              "out y = pow exact period, m\n",
              {{"x", g.count(prefix + "index", s.half, 0, 1)}}, {{"period", s.period}, {"divisor", s.divisor}});
  const Value column = g.repeat(prefix + "t.rows", g.reshape(prefix + "t.column", t, {batch, 1}), 1, s.half);
  const Value args =
      formula(g, prefix + "args", "norm args\nin x:T freqs:fp64[cols] factor\nout y = mul exact x * factor, freqs\n",
              {{"x", column}, {"freqs", freqs}}, {{"factor", s.factor}});
  const Value cos = formula(g, prefix + "cos", "norm cos\nin x:T\nout y = cos exact x\n", {{"x", args}});
  const Value sin = formula(g, prefix + "sin", "norm sin\nin x:T\nout y = sin exact x\n", {{"x", args}});
  return formula(g, prefix + "embedding", "norm embedding\nin x:T\nout y = cast exact x\n",
                 {{"x", g.concat(prefix + "both", 1, {cos, sin})}});
}

Value embedder(GraphBuilder& g, const std::string& prefix, Value x, std::int64_t width) {
  const Value hidden = silu(g, prefix + "silu", linear(g, prefix + "in_layer", x, width));
  return linear(g, prefix + "out_layer", hidden, width);
}

Graph build_embedding(const BlockCall& call) {
  check_vector("timestep_embedding", call.x, 1, "timesteps, one for each of a batch");
  const Sinusoid s = sinusoid_of(call, call.numbers.at("shift"));
  GraphBuilder g("timestep_embedding");
  g.output(sinusoid(g, "", g.input("timestep", call.x), s));
  return g.finish();
}

Graph build_embedder(const BlockCall& call) {
  check_vector("mlp_embedder", call.x, 2, "x of shape [batch, numbers]");
  GraphBuilder g("mlp_embedder");
  g.output(embedder(g, "", g.input("x", call.x), whole(call, "width")));
  return g.finish();
}

Graph build_vector(const BlockCall& call) {
  check_vector("flux_vec", call.x, 2, "x of shape [batch, numbers], the text's vector");
  const Sinusoid s = sinusoid_of(call, 0);
  const std::int64_t batch = call.x[0], width = whole(call, "width");
  GraphBuilder g("flux_vec");
  const Value x = g.input("x", call.x), t = g.input("timestep", {batch}), guidance = g.input("guidance", {batch});
  const Value time = embedder(g, "time_in.", sinusoid(g, "time.", t, s), width);
  const Value guided = embedder(g, "guidance_in.", sinusoid(g, "guidance.", guidance, s), width);
  const Value both = add(g, "time_and_guidance", time, guided);
  g.output(add(g, "vec", both, embedder(g, "vector_in.", x, width)));
  return g.finish();
}

}  // namespace

constinit const BlockDef timestep_embedding{
    .name = "timestep_embedding",
    .title = "sinusoidal embedding of a timestep",
    .formula = "y = [cos(factor t w), sin(factor t w)], w_k = max_period^(-k / (dim/2 - shift)) for k < dim/2",
    .source = "black-forest-labs/flux src/flux/modules/layers.py 802fb47; Vaswani et al., arXiv:1706.03762",
    .attributes = kEmbedding,
    .build = build_embedding,
    .input = "timestep",
};

constinit const BlockDef mlp_embedder{
    .name = "mlp_embedder",
    .title = "two linear layers and SiLU between them",
    .formula = "y = W2 silu(W1 x + b1) + b2",
    .source = "black-forest-labs/flux src/flux/modules/layers.py 802fb47",
    .attributes = kEmbedder,
    .build = build_embedder,
};

constinit const BlockDef flux_vec{
    .name = "flux_vec",
    .title = "FLUX.1's vector of timestep, guidance and text",
    .formula =
        "y = time_in(E(timestep)) + guidance_in(E(guidance)) + vector_in(x), E the sinusoidal embedding, "
        "each _in two linear layers and SiLU between them",
    .source = "black-forest-labs/flux src/flux/model.py 802fb47",
    .attributes = kVector,
    .build = build_vector,
};

}  // namespace norma::blocks
