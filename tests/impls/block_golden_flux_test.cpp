// FLUX's blocks: what diffusers' classes stored, checkpoints of both projects, what is refused.
#include <algorithm>
#include <array>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <cmath>
#include <set>

#include "reference/blocks/layouts.hpp"
#include "reference/blocks/rope_tables.hpp"
#include "reference/certified/blocks/real_graph.hpp"
#include "tests/impls/recorded_block.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::Message;

constexpr const char* kFormats[] = {"fp32", "bf16", "fp16"};

BlockCall small(std::string_view block, Attributes numbers) {
  return with_defaults(*find_block(block), {.x = {1, 6, 32}, .numbers = std::move(numbers)});
}

/// Tensors below one another.
Tensor below(const std::vector<const Tensor*>& parts) {
  Tensor whole = *parts.front();
  for (std::size_t k = 1; k < parts.size(); ++k) {
    whole.shape[0] += parts[k]->shape[0];
    whole.bytes.insert(whole.bytes.end(), parts[k]->bytes.begin(), parts[k]->bytes.end());
  }
  return whole;
}

}  // namespace

TEST_CASE("FLUX's blocks have at every site the bits that diffusers' classes store", "[golden][blocks]") {
  const TensorFile file = captured("blocks_flux");
  for (const char* format : kFormats) {
    // Measured: one element of a gelu, at most, is torch's other choice.
    require_streams_as_recorded(recorded_block(file, std::string("double.") + format, "diffusers.flux.double_block"),
                                {.programs = 21, .products = 15, .chosen = 1});
    require_streams_as_recorded(recorded_block(file, std::string("single.") + format, "diffusers.flux.single_block"),
                                {.programs = 9, .products = 7});
    require_streams_as_recorded(recorded_block(file, std::string("last.") + format, "diffusers.flux.last_layer"),
                                {.programs = 3, .products = 3});
    require_streams_as_recorded(recorded_block(file, std::string("last.") + format, "bfl.flux.last_layer"),
                                {.programs = 3, .products = 3});
  }
}

TEST_CASE("an fp16 text stream that overflows is clipped by diffusers, not by FLUX's own code", "[golden][blocks]") {
  const TensorFile file = captured("blocks_flux");
  const RecordedBlock clipped = recorded_block(file, "double.clipped.fp16", "diffusers.flux.double_block");
  CHECK(refused_sites(clipped).empty());
  const RecordedBlock own = recorded_block(file, "double.clipped.fp16", "bfl.flux.double_block");
  CHECK(refused_sites(own).contains("txt.out"));
  CHECK_FALSE(refused_sites(own).contains("img.out"));
}

TEST_CASE("FLUX's own code differs from diffusers in the norm of queries and keys alone", "[golden][blocks]") {
  const TensorFile file = captured("blocks_flux");
  const std::set<std::string> norms{"img.q_norm", "img.k_norm", "txt.q_norm", "txt.k_norm"};
  CHECK(refused_sites(recorded_block(file, "double.bf16", "bfl.flux.double_block")) == norms);
  CHECK(refused_sites(recorded_block(file, "single.bf16", "bfl.flux.single_block")) ==
        std::set<std::string>{"q_norm", "k_norm"});
  for (const char* path : {"bfl.flux.double_block", "diffusers.flux.double_block"}) {
    const WholeErrors errors = whole_errors(recorded_block(file, "double.bf16", path));
    CHECK(errors.path > 1e-3);
    CHECK(errors.path < 1e-2);
  }
}

TEST_CASE("a site whose operands are exchanged, or one changed bit, is refused", "[golden][blocks]") {
  const TensorFile file = captured("blocks_flux");
  RecordedBlock golden = recorded_block(file, "double.bf16", "diffusers.flux.double_block");
  std::swap(golden.inputs.at("cos"), golden.inputs.at("sin"));
  CHECK(refused_sites(golden) == std::set<std::string>{"k.rope", "q.rope"});
  std::swap(golden.inputs.at("cos"), golden.inputs.at("sin"));
  std::swap(golden.inputs.at("img.mlp.2.bias"), golden.inputs.at("txt.mlp.2.bias"));
  CHECK(refused_sites(golden) == std::set<std::string>{"img.mlp.2", "txt.mlp.2"});
  std::swap(golden.inputs.at("img.mlp.2.bias"), golden.inputs.at("txt.mlp.2.bias"));
  Tensor& y = golden.sites.at("img.out");
  y.set_code(7, y.code(7) ^ 1u);
  CHECK(refused_sites(golden) == std::set<std::string>{"img.out"});
}

TEST_CASE("tables of a rotary embedding are rounded correctly, as FLUX has them in diffusers", "[golden][blocks]") {
  const TensorFile file = captured("blocks_flux");
  const Tensor& ids = file.tensors.at("tables.ids");
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<std::int64_t>(ids.value(i)));
  constexpr std::int64_t kAxes[] = {4, 14, 14};
  const RopeTables tables = rope_tables(kAxes, 32, positions);
  std::int64_t wrong = 0, other = 0, at = 0;
  for (std::size_t t = 0; t < positions.size(); t += 3)
    for (std::size_t a = 0; a < 3; ++a)
      for (std::int64_t j = 0; j < kAxes[a] / 2; ++j, ++at) {
        // 64 bits and more of an angle of at most 127: off by less than 2^-55, and no value is so near to a tie.
        const long double angle =
            static_cast<long double>(positions[t + a]) *
            std::pow(10000.0L, -2.0L * static_cast<long double>(j) / static_cast<long double>(kAxes[a]));
        const struct {
          const Tensor& table;
          const Tensor& recorded;
          long double exact;
        } both[] = {{tables.cos, file.tensors.at("tables.cos"), std::cos(angle)},
                    {tables.sin, file.tensors.at("tables.sin"), std::sin(angle)}};
        for (const auto& [table, recorded, exact] : both) {
          wrong += table.value(at) != static_cast<double>(static_cast<float>(exact)) ? 1 : 0;
          other += table.code(at) != recorded.code(at) ? 1 : 0;
        }
      }
  REQUIRE(at == tables.cos.size());
  CHECK(wrong == 0);
  CHECK(other == 0);
  CHECK_THROWS_MATCHES(rope_tables(std::array<std::int64_t, 3>{16, 56, 48}, 128, positions), ProgramError,
                       Message("RoPE axes 16+56+48 sum to 120, but a head has 128 columns"));
  CHECK_THROWS_MATCHES(rope_tables(std::array<std::int64_t, 3>{15, 57, 56}, 128, positions), ProgramError,
                       Message("a RoPE axis has an even number of columns, not 15"));
  CHECK_THROWS_MATCHES(rope_tables(kAxes, 32, std::span(positions).first(4)), ProgramError,
                       Message("there are 4 positions, but each token has one for each of 3 axes"));
}

TEST_CASE("checkpoints of both projects give the same weights", "[blocks]") {
  const TensorFile file = captured("blocks_flux");
  const RecordedBlock golden = recorded_block(file, "double.bf16", "diffusers.flux.double_block");
  const auto tensor = [&](const std::string& name) { return &golden.inputs.at(name); };
  Tensors bfl;
  for (const std::string s : {"img", "txt"}) {
    const auto linear = [&](const std::string& there, const std::vector<std::string>& here) {
      for (const char* end : {".weight", ".bias"}) {
        std::vector<const Tensor*> parts;
        for (const std::string& name : here) parts.push_back(tensor(s + "." + name + end));
        bfl["double_blocks.3." + s + there + end] = below(parts);
      }
    };
    linear("_mod.lin", {"mod"}), linear("_attn.qkv", {"q", "k", "v"}), linear("_attn.proj", {"proj"});
    linear("_mlp.0", {"mlp.0"}), linear("_mlp.2", {"mlp.2"});
    bfl["double_blocks.3." + s + "_attn.norm.query_norm.scale"] = *tensor(s + ".q_norm.weight");
    bfl["double_blocks.3." + s + "_attn.norm.key_norm.scale"] = *tensor(s + ".k_norm.weight");
    bfl[s] = *tensor(s);
  }
  for (const char* name : {"vec", "cos", "sin"}) bfl[name] = *tensor(name);
  bfl["double_blocks.4.img_mod.lin.bias"] = bfl["double_blocks.3.img_mod.lin.bias"];  // another block's
  const Graph canonical = canonical_graph(golden);
  const Tensors weights = from_layout(canonical, "bfl", bfl, "double_blocks.3.");
  REQUIRE(weights.size() == golden.inputs.size());
  for (const auto& [name, t] : golden.inputs) {
    CAPTURE(name);
    CHECK(weights.at(name).shape == t.shape);
    CHECK(weights.at(name).bytes == t.bytes);
  }
  CHECK_THROWS_MATCHES(from_layout(canonical, "sgl", bfl), ProgramError,
                       Message("block flux_double_block has no layout sgl; it has norma, diffusers, bfl"));
  CHECK_THROWS_MATCHES(
      from_layout(canonical, "bfl", bfl, "double_blocks.4."), ProgramError,
      Message("layout bfl of flux_double_block has a tensor double_blocks.4.img_mod.lin.weight, which is "
              "missing"));
  Tensors wrong = bfl;
  wrong["double_blocks.3.img_attn.qkv.bias"].shape = {96, 2};
  CHECK_THROWS_MATCHES(from_layout(canonical, "bfl", wrong, "double_blocks.3."), ProgramError,
                       Message("tensor double_blocks.3.img_attn.qkv.bias must be 192, got 96x2"));
  wrong = bfl;
  wrong["double_blocks.3.lora"] = bfl["vec"];
  CHECK_THROWS_MATCHES(from_layout(canonical, "bfl", wrong, "double_blocks.3."), ProgramError,
                       Message("tensor double_blocks.3.lora is none that layout bfl of flux_double_block has"));
}

TEST_CASE("a checkpoint's blocks are found by their prefixes and stacked in the order of their numbers", "[blocks]") {
  GraphBuilder g("dit_block");
  const auto x = g.input("x", {2, 3}, FormatId::fp32);
  g.output(g.linear("y", {}, x, g.weight("a.weight", {3, 3}, FormatId::fp32), g.weight("a.bias", {3}, FormatId::fp32)));
  const Graph one = g.finish();
  const auto filled = [](Shape shape, double v) {
    Tensor t = Tensor::zeros(FormatId::fp32, std::move(shape));
    for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(FormatId::fp32, v, Overflow::ieee));
    return t;
  };
  Tensors given{{"x", filled({2, 3}, -1)}, {"final.weight", filled({3}, 9)}};
  for (const int k : {9, 10, 11}) {
    given["blocks." + std::to_string(k) + ".a.weight"] = filled({3, 3}, k);
    given["blocks." + std::to_string(k) + ".a.bias"] = filled({3}, k);
  }
  const Tensors stack = stack_from_layout(one, 3, "norma", given);
  REQUIRE(stack.size() == 7);
  for (int k = 0; k < 3; ++k) {
    CHECK(stack.at(std::to_string(k) + ".a.weight").value(4) == 9 + k);
    CHECK(stack.at(std::to_string(k) + ".a.bias").value(2) == 9 + k);
  }
  CHECK(stack.at("x").value(0) == -1);
  CHECK_THROWS_MATCHES(
      stack_from_layout(one, 2, "norma", given), ProgramError,
      Message("layout norma of dit_block: 2 blocks are asked for, and the tensors are of 3, with the prefixes "
              "blocks.9., blocks.10., blocks.11."));
}

namespace {

/// The block for tokens, an image or a video, whichever it takes.
Graph of_any_shape(const BlockDef& block) {
  BlockCall call;
  if (std::ranges::find(block.attributes, "heads", &BlockAttribute::name) != block.attributes.end())
    call.numbers["heads"] = 4;
  for (const Shape& x : {Shape{1, 6, 384}, Shape{1, 64, 4, 4}, Shape{1, 64, 2, 4, 4}, Shape{2, 64}}) try {
      call.x = x;
      return block.build(with_defaults(block, call));
    } catch (const ProgramError&) {
      // The next shape may be one it takes.
    }
  throw ProgramError(std::string(block.name) + " takes none of the shapes");
}

}  // namespace

TEST_CASE("every weight of every layout is one of its block, and each is held once", "[blocks]") {
  for (const BlockDef* block : all_blocks())
    for (const std::string_view layout : layouts_of(block->name)) {
      CAPTURE(block->name, layout);
      const Graph graph = of_any_shape(*block);
      // Of nothing given each name in turn is missing, until all are there.
      Tensors given;
      std::size_t held = 0;
      for (bool complete = false; !complete;) try {
          held = from_layout(graph, layout, given).size();
          complete = true;
        } catch (const ProgramError& error) {
          const std::string text = error.what();
          const auto at = text.find("a tensor ");
          if (at != std::string::npos) {
            const std::string name = text.substr(at + 9, text.find(", which") - at - 9);
            given[name] = Tensor::zeros(FormatId::bf16, {1});
            continue;
          }
          const std::string wanted = text.substr(text.find("must be ") + 8);
          Shape shape;
          for (std::size_t from = 0; from < wanted.find(',');
               from = std::min(wanted.find('x', from), wanted.find(',')) + 1)
            shape.push_back(std::stoll(wanted.substr(from)));
          given[text.substr(7, text.find(" must") - 7)] = Tensor::zeros(FormatId::bf16, shape);
        }
      const auto weights = std::ranges::count_if(graph.inputs, &GraphInput::weight);
      CHECK(held == static_cast<std::size_t>(weights));
    }
}

TEST_CASE("FLUX's blocks refuse sizes that do not fit, in one sentence", "[blocks]") {
  const BlockDef& twice = *find_block("flux_double_block");
  CHECK_THROWS_MATCHES(twice.build(small("flux_double_block", {{"heads", 5}})), ProgramError,
                       Message("heads=5 must divide the width 32"));
  CHECK_THROWS_MATCHES(
      twice.build(small("flux_double_block", {{"heads", 32}})), ProgramError,
      Message("a head of 1 columns has no pairs to turn: heads=32 must leave an even number of the width "
              "32"));
  BlockCall flat = small("flux_double_block", {{"heads", 2}});
  flat.x = {6, 32};
  CHECK_THROWS_MATCHES(twice.build(flat), ProgramError,
                       Message("flux_double_block needs tokens of shape [batch, tokens, width], got 6x32"));
  const BlockPath& path = *find_block_path("diffusers.flux.double_block");
  const Attributes numbers = small("flux_double_block", {{"heads", 2}, {"text", 3}}).numbers;
  CHECK_THROWS_MATCHES(path.build({.x = flat.x, .numbers = numbers}), ProgramError,
                       Message("diffusers.flux.double_block needs tokens of shape [batch, tokens, width], got 6x32"));
  Attributes other = numbers;
  other["eps"] = 1e-5;
  CHECK_THROWS_MATCHES(path.build({.x = {1, 6, 32}, .numbers = other}), ProgramError,
                       Message("diffusers.flux.double_block has eps=1e-6 written in it and takes no other"));
  other = numbers;
  other.erase("text");
  CHECK_THROWS_MATCHES(path.build({.x = {1, 6, 32}, .numbers = other}), ProgramError,
                       Message("diffusers.flux.double_block needs text, a whole number"));
  other = numbers;
  other["heads"] = 32;
  CHECK_THROWS_MATCHES(path.build({.x = {1, 6, 32}, .numbers = other}), ProgramError,
                       Message("heads=32 must divide the width 32 into heads of an even number of columns"));
  // Tables of the image's tokens alone.
  const Graph graph = path.build({.x = {1, 6, 32}, .numbers = numbers});
  Tensors inputs;
  for (const GraphInput& input : graph.inputs)
    inputs[input.value.name] = Tensor::zeros(*input.value.format, input.value.shape);
  inputs["cos"] = Tensor::zeros(FormatId::fp32, {6, 8});
  CHECK_THROWS_AS(check_inputs(graph, inputs, true), ProgramError);
}

}  // namespace norma::test
