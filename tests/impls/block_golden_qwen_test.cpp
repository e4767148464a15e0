// Qwen-Image's block: what diffusers' class stored.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <set>
#include <string>

#include "tests/impls/recorded_block.hpp"

namespace norma::test {

TEST_CASE("Qwen-Image's block has at every site the bits that diffusers' class stores", "[golden][blocks]") {
  const TensorFile file = captured("blocks_qwen_image");
  for (const char* format : {"fp32", "bf16", "fp16"})
    require_streams_as_recorded(recorded_block(file, std::string("block.") + format, "diffusers.qwen_image.block"),
                                {.programs = 23, .products = 15});
}

TEST_CASE("a Qwen-Image block with exchanged streams or another eps is refused", "[golden][blocks]") {
  const TensorFile file = captured("blocks_qwen_image");
  RecordedBlock golden = recorded_block(file, "block.fp32", "diffusers.qwen_image.block");
  std::swap(golden.inputs.at("img.q_norm.weight"), golden.inputs.at("txt.q_norm.weight"));
  CHECK(refused_sites(golden) == std::set<std::string>{"img.q_norm", "txt.q_norm"});
  std::swap(golden.inputs.at("img.q_norm.weight"), golden.inputs.at("txt.q_norm.weight"));
  golden.call.numbers["eps"] = 1e-3;
  golden.graph = golden.path->build({.x = golden.call.x, .numbers = golden.call.numbers, .format = golden.format});
  CHECK(refused_sites(golden).contains("img.norm1"));
  CHECK(refused_sites(golden).contains("txt.k_norm"));
  CHECK_FALSE(refused_sites(golden).contains("img.modulate1"));
}

TEST_CASE("Qwen-Image's block refuses heads that do not divide its width", "[blocks]") {
  const BlockDef& block = *find_block("qwen_image_block");
  CHECK_THROWS_MATCHES(block.build(with_defaults(block, {.x = {1, 4, 48}, .numbers = {{"heads", 5}}})), ProgramError,
                       Catch::Matchers::Message("heads=5 must divide the width 48"));
}

}  // namespace norma::test
