// transformers' LlamaDecoderLayer, site by site, in both of its attentions.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include "tests/impls/recorded_block.hpp"

namespace norma::test {

TEST_CASE("a recorded LLaMA layer is the path's, site by site", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    const TensorFile file = recorded_blocks("llama", format);
    for (const char* call : {"llama.sdpa", "llama.eager"}) {
      CAPTURE(format, call);
      require_sites_as_recorded(recorded_block(file, call), {.programs = 8, .products = 8});
    }
  }
}

TEST_CASE("a recorded LLaMA layer's error is the path's and the implementation's", "[golden][blocks]") {
  for (const char* format : {"fp32", "bf16", "fp16"}) {
    CAPTURE(format);
    require_errors_apart(recorded_block(recorded_blocks("llama", format), "llama.sdpa"));
  }
}

TEST_CASE("a LLaMA layer of another rounding, order or number is not the recorded one", "[golden][blocks]") {
  const RecordedBlock block = recorded_block(recorded_blocks("llama", "bf16"), "llama.sdpa");
  CHECK(refused_with_another_attribute(block, "eps", 0.25));
  CHECK(refused_with_exchanged(block, "cos", "sin"));
  CHECK(refused_with_exchanged(block, "self_attn.k_proj", "self_attn.v_proj"));
  for (const char* site :
       {"input_layernorm", "self_attn.q_rope", "self_attn.attention", "mlp.product", "mlp.down_proj"})
    CHECK(refused_with_a_code_changed(block, site));
}

}  // namespace norma::test
