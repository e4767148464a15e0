// diffusers' WanTransformerBlock, site by site.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include "tests/impls/recorded_block.hpp"

namespace norma::test {

TEST_CASE("a recorded Wan block is the path's, site by site", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    CAPTURE(format);
    require_sites_as_recorded(recorded_block(recorded_blocks("wan", format), "wan"), {.programs = 14, .products = 12});
  }
}

TEST_CASE("a recorded Wan block's error is the path's and the implementation's", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    CAPTURE(format);
    require_errors_apart(recorded_block(recorded_blocks("wan", format), "wan"));
  }
}

TEST_CASE("a Wan block of another rounding, order or number is not the recorded one", "[golden][blocks]") {
  const RecordedBlock block = recorded_block(recorded_blocks("wan", "bf16"), "wan");
  CHECK(refused_with_another_attribute(block, "eps", 0.25));
  CHECK(refused_with_exchanged(block, "cos", "sin"));
  CHECK(refused_with_exchanged(block, "attn1.norm_q", "attn1.norm_k"));
  for (const char* site : {"modulation", "modulate1", "attn1.q_rope", "attn2.attention", "ffn.net.2", "gate1"})
    CHECK(refused_with_a_code_changed(block, site));
}

}  // namespace norma::test
