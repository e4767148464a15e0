// Embedders, final layers and tables of rotary embeddings: what the real classes passed on, what 16 bits lose of a
// timestep and fp32 of a frequency, what is refused (python/capture/capture_embedders.py).
#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <cmath>

#include "reference/blocks/layouts.hpp"
#include "reference/certified/blocks/real_graph.hpp"
#include "tests/impls/recorded_block.hpp"

namespace norma::test {

namespace {

using Catch::Matchers::Message;

TensorFile recorded() {
  return read_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/blocks_embedders.safetensors");
}

Graph built(std::string_view block, Shape x, Attributes numbers) {
  const BlockDef& def = *find_block(block);
  return def.build(with_defaults(def, {.x = std::move(x), .numbers = std::move(numbers)}));
}

const SiteTrace& site_of(const BlockTrace& trace, std::string_view name) {
  return *std::ranges::find(trace.sites, name, &SiteTrace::name);
}

BlockTrace traced(const std::string& call) {
  const RecordedBlock block = recorded_block(recorded(), call);
  const Graph canonical =
      find_block(block.path->block)->build(with_defaults(*find_block(block.path->block), block.call));
  BlockTrace trace = trace_block(block.graph, block.inputs, {.canonical = &canonical});
  CHECK(trace.definition_gap < 1e-12);
  return trace;
}

}  // namespace

TEST_CASE("recorded embedders, final layers and tables are the paths', site by site", "[golden][blocks]") {
  const TensorFile file = recorded();
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    CAPTURE(format);
    require_sites_as_recorded(recorded_block(file, "embedding." + format), {.programs = 7, .products = 0});
    require_sites_as_recorded(recorded_block(file, "qwen_embedding." + format), {.programs = 6, .products = 0});
    require_sites_as_recorded(recorded_block(file, "embedder." + format), {.programs = 1, .products = 2});
    require_sites_as_recorded(recorded_block(file, "vector." + format), {.programs = 19, .products = 6});
    require_sites_as_recorded(recorded_block(file, "qwen_norm_out." + format), {.programs = 3, .products = 2});
    require_sites_as_recorded(recorded_block(file, "dit_final_layer." + format), {.programs = 3, .products = 2});
    require_sites_as_recorded(recorded_block(file, "rope.llama." + format), {.programs = 4, .products = 0});
  }
  for (const char* call : {"rope.flux", "rope.qwen", "rope.bfl"}) {
    CAPTURE(call);
    require_sites_as_recorded(recorded_block(file, call), {.programs = 8, .products = 0});
  }
}

TEST_CASE("an embedding of another rounding, order or number is not the recorded one", "[golden][blocks]") {
  const TensorFile file = recorded();
  const RecordedBlock flux = recorded_block(file, "embedding.bf16");
  CHECK(refused_with_another_attribute(flux, "factor", 1001));
  CHECK(refused_with_another_attribute(flux, "shift", 1));
  CHECK(refused_with_another_attribute(flux, "max_period", 9999));
  for (const auto& [one, other] : {std::pair{"cos", "sin"}, {"t", "scaled"}})
    CHECK(refused_with_exchanged(flux, one, other));
  for (const char* site : {"t", "scaled", "embedding"}) CHECK(refused_with_a_code_changed(flux, site));
  CHECK(refused_with_exchanged(recorded_block(file, "vector.bf16"), "time_in.out_layer", "vector_in.out_layer"));
  CHECK(refused_with_exchanged(recorded_block(file, "vector.fp16"), "timestep", "guidance"));
  for (const auto& [one, other] : {std::pair{"axis1.angle", "axis2.angle"}, {"cos", "sin"}})
    CHECK(refused_with_exchanged(recorded_block(file, "rope.qwen"), one, other));
}

TEST_CASE("a timestep in 16 bits, not its embedding, is what is lost", "[blocks]") {
  const BlockTrace bf16 = traced("embedding.bf16"), fp32 = traced("embedding.fp32"),
                   qwen = traced("qwen_embedding.bf16");
  for (const BlockTrace* trace : {&bf16, &qwen}) {
    // |cos x - cos y| <= |x - y|: 1000 t at 2^-9 of itself is off by up to 2 radians, or 1.
    CHECK(trace->sites.back().leaving.relative_l2 > 0.05);
    CHECK(trace->sites.back().leaving.relative_l2 > 20 * trace->sites.back().added.relative_l2);
  }
  CHECK(fp32.sites.back().leaving.relative_l2 < 1e-4);
  CHECK(site_of(bf16, "t").added.relative_l2 > 1e3 * site_of(bf16, "freqs").added.relative_l2);
}

TEST_CASE("frequencies in fp32 cost what a position multiplies, in binary64 nothing", "[blocks]") {
  const BlockTrace flux = traced("rope.flux"), bfl = traced("rope.bfl"), llama = traced("rope.llama.fp32");
  for (const char* table : {"cos", "sin"}) {
    CHECK(site_of(flux, table).leaving.max_ulp <= 0.5 + 1e-6);
    // Positions up to 4095 and 100000: 2^-24 of such an angle.
    CHECK(site_of(bfl, table).leaving.relative_l2 > 100 * site_of(flux, table).leaving.relative_l2);
    CHECK(site_of(llama, table).leaving.relative_l2 > site_of(bfl, table).leaving.relative_l2);
  }
}

TEST_CASE("embedders and tables refuse sizes that do not fit", "[blocks]") {
  CHECK_THROWS_MATCHES(built("rope_from_ids", {8, 3}, {{"axis2", 48}}), ProgramError,
                       Message("RoPE axes 16+56+48 sum to 120, but a head has 128 columns"));
  CHECK_THROWS_MATCHES(built("rope_from_ids", {8, 2}, {}), ProgramError,
                       Message("ids are 8x2, but each token has one position for each of 3 axes"));
  CHECK_THROWS_MATCHES(built("rope_from_ids", {8, 3}, {{"axis0", 15}}), ProgramError,
                       Message("axis0 must be an even number of columns, at least 2"));
  CHECK_THROWS_MATCHES(built("timestep_embedding", {8}, {{"dim", 255}}), ProgramError,
                       Message("dim=255 must be even: as many cosines as sines"));
  CHECK_THROWS_MATCHES(built("timestep_embedding", {8, 2}, {}), ProgramError,
                       Message("timestep_embedding needs timesteps, one for each of a batch, got 8x2"));
  CHECK_THROWS_MATCHES(built("mlp_embedder", {8}, {}), ProgramError,
                       Message("mlp_embedder needs x of shape [batch, numbers], got 8"));
  CHECK_THROWS_MATCHES(built("qwen_norm_out", {8, 2}, {}), ProgramError,
                       Message("qwen_norm_out needs x of shape [batch, tokens, width], got 8x2"));
}

TEST_CASE("embedders take their weights under the names of checkpoints", "[blocks]") {
  const Graph graph = built("flux_vec", {2, 5}, {{"width", 6}, {"dim", 4}});
  Tensors there;
  double value = 0;
  for (const char* part : {"timestep_embedder", "guidance_embedder", "text_embedder"})
    for (const auto& [layer, columns] :
         {std::pair{".linear_1", std::string(part) == "text_embedder" ? 5 : 4}, {".linear_2", 6}}) {
      const std::string name = std::string(part) + layer;
      there[name + ".weight"] = Tensor::zeros(FormatId::fp32, {6, columns});
      there[name + ".bias"] = Tensor::zeros(FormatId::fp32, {6});
      there[name + ".bias"].set_code(0, encode(FormatId::fp32, ++value, Overflow::ieee));
    }
  for (const auto& [name, shape] : {std::pair<const char*, Shape>{"x", {2, 5}}, {"timestep", {2}}, {"guidance", {2}}})
    there[name] = Tensor::zeros(FormatId::fp32, shape);
  const Tensors here = from_layout(graph, "diffusers", there);
  check_inputs(graph, here, false);
  double expected = 0;
  for (const char* name : {"time_in.in_layer", "time_in.out_layer", "guidance_in.in_layer", "guidance_in.out_layer",
                           "vector_in.in_layer", "vector_in.out_layer"})
    CHECK(here.at(std::string(name) + ".bias").value(0) == ++expected);
}

TEST_CASE("a graph counts and repeats", "[blocks]") {
  GraphBuilder g("numbers");
  CHECK_THROWS_MATCHES(g.count("k", 300, 0, 1, FormatId::bf16), ProgramError,
                       Message("site k: bf16 does not hold 257"));
  const auto k = g.count("k", 3, 5, -2, FormatId::fp32);
  CHECK_THROWS_MATCHES(g.repeat("r", k, 0, 2), ProgramError,
                       Message("site r: an axis of one is repeated once at least, and this is one of 3, 2 times"));
  g.output(g.repeat("y", g.reshape("column", k, {3, 1}), 1, 2));
  const Graph graph = g.finish();
  const BlockTrace trace = trace_block(graph, {}, {});
  const Tensor& y = trace.outputs.at("y");
  REQUIRE(y.shape == Shape{3, 2});
  for (std::int64_t i = 0; i < 6; ++i) CHECK(y.value(i) == 5 - 2 * static_cast<double>(i / 2));
  for (std::int64_t i = 0; i < 6; ++i) CHECK(trace.meant.at("y").at(i).h == y.value(i));
}

}  // namespace norma::test
