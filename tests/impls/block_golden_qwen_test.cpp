// Qwen-Image's block: what diffusers' class stored.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <set>
#include <string>

#include "tests/impls/block_golden.hpp"

namespace norma::test {
namespace {

std::set<std::string> refused(const GoldenBlock& golden) {
  std::set<std::string> names;
  for (const SiteCount& c : site_counts(golden))
    if (c.refused != 0) names.insert(c.name);
  return names;
}

}  // namespace

TEST_CASE("Qwen-Image's block has at every site the bits that diffusers' class stores", "[golden][blocks]") {
  const TensorFile file = captured("blocks_qwen_image");
  for (const char* format : {"fp32", "bf16", "fp16"})
    check_recorded(file, std::string("block.") + format, "diffusers.qwen_image.block", 23, 15);
}

TEST_CASE("a Qwen-Image block with exchanged streams or another eps is refused", "[golden][blocks]") {
  const TensorFile file = captured("blocks_qwen_image");
  GoldenBlock golden = golden_block(file, "block.fp32", "diffusers.qwen_image.block");
  std::swap(golden.inputs.at("img.q_norm.weight"), golden.inputs.at("txt.q_norm.weight"));
  CHECK(refused(golden) == std::set<std::string>{"img.q_norm", "txt.q_norm"});
  std::swap(golden.inputs.at("img.q_norm.weight"), golden.inputs.at("txt.q_norm.weight"));
  golden.call.numbers["eps"] = 1e-3;
  golden.path = find_block_path("diffusers.qwen_image.block")
                    ->build({.x = golden.call.x, .numbers = golden.call.numbers, .format = golden.format});
  CHECK(refused(golden).contains("img.norm1"));
  CHECK(refused(golden).contains("txt.k_norm"));
  CHECK_FALSE(refused(golden).contains("img.modulate1"));
}

TEST_CASE("Qwen-Image's block refuses heads that do not divide its width", "[blocks]") {
  const BlockDef& block = *find_block("qwen_image_block");
  CHECK_THROWS_MATCHES(block.build(with_defaults(block, {.x = {1, 4, 48}, .numbers = {{"heads", 5}}})), ProgramError,
                       Catch::Matchers::Message("heads=5 must divide the width 48"));
}

}  // namespace norma::test
