// Blocks of convolutions, site by site: ADM's residual block, the blocks of FLUX's and Qwen-Image's autoencoders
// (python/capture/capture_blocks_images.py).
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include "tests/impls/recorded_block.hpp"

namespace norma::test {

namespace {

constexpr const char* kFormats[] = {"fp32", "bf16", "fp16"};

struct Call {
  const char *file, *name;
  SiteCounts fp32, half;  ///< in 16 bits some code has casts besides
};
constexpr Call kCalls[] = {
    {"adm", "adm.scale_shift.lines", {6, 4}, {7, 4}},
    {"adm", "adm.scale_shift.class", {6, 4}, {6, 4}},
    {"adm", "adm.additive.lines", {7, 4}, {8, 4}},
    {"adm", "adm.additive.class", {7, 4}, {7, 4}},
    {"flux_ae", "flux_ae.resnet.lines", {5, 3}, {13, 3}},
    {"flux_ae", "flux_ae.resnet.class", {5, 3}, {5, 3}},
    {"flux_ae", "flux_ae.attention.lines", {2, 5}, {13, 5}},
    {"flux_ae", "flux_ae.attention.class", {2, 5}, {2, 5}},
    {"qwen_vae", "qwen_vae", {5, 3}, {5, 3}},
};

}  // namespace

TEST_CASE("recorded blocks of convolutions are the paths', site by site", "[golden][blocks]") {
  for (const char* format : kFormats)
    for (const Call& call : kCalls) {
      CAPTURE(format, call.name);
      require_sites_as_recorded(recorded_block(recorded_blocks(call.file, format), call.name),
                                format == std::string_view("fp32") ? call.fp32 : call.half);
    }
}

TEST_CASE("a recorded block of convolutions errs as the path and the implementation do", "[golden][blocks]") {
  for (const char* format : kFormats)
    for (const Call& call : kCalls) {
      CAPTURE(format, call.name);
      require_errors_apart(recorded_block(recorded_blocks(call.file, format), call.name));
    }
}

TEST_CASE("a block of convolutions of another rounding, order or number is not the recorded one", "[golden][blocks]") {
  const RecordedBlock adm = recorded_block(recorded_blocks("adm", "fp16"), "adm.scale_shift.lines");
  CHECK(refused_with_another_attribute(adm, "eps", 0.25));
  CHECK(refused_with_another_attribute(adm, "groups", 8));
  CHECK(refused_with_exchanged(adm, "in_layers.2", "out_layers.3"));
  for (const char* site :
       {"in_layers.0", "in_layers.1", "emb_layers.1", "emb_out", "out_layers.0", "out_layers.3", "y"})
    CHECK(refused_with_a_code_changed(adm, site));

  const RecordedBlock attention = recorded_block(recorded_blocks("flux_ae", "bf16"), "flux_ae.attention.class");
  CHECK(refused_with_another_attribute(attention, "groups", 8));
  CHECK(refused_with_exchanged(attention, "q.weight", "k.weight"));
  for (const char* site : {"norm", "q", "attention", "proj_out"}) CHECK(refused_with_a_code_changed(attention, site));

  const RecordedBlock film = recorded_block(recorded_blocks("qwen_vae", "bf16"), "qwen_vae");
  CHECK(refused_with_another_attribute(film, "eps", 100));
  CHECK(refused_with_exchanged(film, "silu2", "norm2"));
  for (const char* site : {"norm1", "silu1", "conv1", "conv_shortcut", "y"})
    CHECK(refused_with_a_code_changed(film, site));
}

}  // namespace norma::test
