// DiT's block, site by site: its lines run as torch operations, and the class that diffusers has for it.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include "tests/impls/recorded_block.hpp"

namespace norma::test {

TEST_CASE("a recorded DiT block is the path's, site by site", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    const TensorFile file = recorded_blocks("dit", format);
    for (const char* call : {"dit.lines", "dit.class"}) {
      CAPTURE(format, call);
      require_sites_as_recorded(recorded_block(file, call), {.programs = 8, .products = 6});
    }
  }
}

TEST_CASE("a recorded DiT block's error is the path's and the implementation's", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    CAPTURE(format);
    require_errors_apart(recorded_block(recorded_blocks("dit", format), "dit.class"));
  }
}

TEST_CASE("a DiT block of another rounding, order or number is not the recorded one", "[golden][blocks]") {
  const RecordedBlock block = recorded_block(recorded_blocks("dit", "bf16"), "dit.class");
  CHECK(refused_with_another_attribute(block, "eps", 0.25));
  CHECK(refused_with_exchanged(block, "norm1", "modulate1"));
  for (const char* site : {"adaLN_modulation.0", "norm1", "modulate1", "attn.attention", "mlp.act", "gate1"})
    CHECK(refused_with_a_code_changed(block, site));
}

}  // namespace norma::test
