// Paths of rotary embeddings against what the real code returned: the emulated bits are the recorded ones.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "tests/impls/slips.hpp"

namespace norma::test {
namespace {

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";

/// By the recorded operator and norm.
const std::map<std::string, std::string, std::less<>> kPaths = {
    {"rope transformers.llama", "transformers.llama.rope"},
    {"rope transformers.gpt_neox", "transformers.gpt_neox.rope"},
    {"rope diffusers.real", "diffusers.rope"},
    {"rope diffusers.halves", "diffusers.rope.halves"},
    {"rope diffusers.complex", "diffusers.rope.complex"},
    {"rope bfl.flux", "bfl.flux.rope"},
    {"rmsnorm_rope transformers.qwen3", "transformers.qwen3.qk_norm_rope"},
    {"rmsnorm_rope diffusers.qwen_image", "diffusers.qwen_image.qk_norm_rope"},
    {"rmsnorm_rope bfl.flux", "bfl.flux.qk_norm_rope"},
};

struct Recorded {
  std::string path;
  Tensors inputs;
  Attributes attributes;
  Tensor y;
};

Recorded read_call(const TensorFile& file, const nlohmann::json& call) {
  Recorded r;
  r.path = kPaths.at(call.at("norm").get<std::string>() + " " + call.at("operator").get<std::string>());
  for (const auto& [name, tensor] : call.at("inputs").items())
    r.inputs[name] = file.tensors.at(tensor.get<std::string>());
  for (const auto& [name, value] : call.at("attributes").items()) r.attributes[name] = value.get<double>();
  r.y = file.tensors.at(call.at("outputs").at("y").get<std::string>());
  return r;
}

Program program_of(const Recorded& r) {
  Binding binding;
  binding.x = r.inputs.at("x").format;
  binding.attributes = r.attributes;
  binding.cols = r.inputs.at("x").cols();
  for (const auto& [name, tensor] : r.inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return build_path(*find_cast_path(r.path), binding);
}

/// Elements that differ before column `until` and from it on.
struct Count {
  std::int64_t before = 0, after = 0;
};
Count differing(const Tensor& got, const Tensor& want, std::int64_t until) {
  REQUIRE(got.format == want.format);
  REQUIRE(got.shape == want.shape);
  Count count;
  for (std::int64_t i = 0; i < got.size(); ++i)
    if (got.code(i) != want.code(i)) ++(i % got.cols() < until ? count.before : count.after);
  return count;
}

}  // namespace

TEST_CASE("rotary embeddings of transformers, diffusers and FLUX are reproduced in every bit") {
  int calls = 0;
  std::int64_t found = 0, slips = 0;
  for (const std::string_view format : {"fp32", "bf16", "fp16"}) {
    const TensorFile file = read_safetensors(kFolder + "rope." + std::string(format) + ".safetensors");
    const auto listed = nlohmann::json::parse(file.metadata.at("calls"));
    for (const auto& [name, call] : listed.items()) {
      const Recorded r = read_call(file, call);
      const Program program = program_of(r);
      CAPTURE(format, name, r.path, print_program(program));
      // torch's vectors hold four complex numbers, or eight; a product of those left over is compiled as one
      // expression, in which the compiler contracts. So the last pairs of 20 columns in fp32, which no other row here
      // has.
      const bool left_over = format == "fp32" && r.y.cols() == 20 && r.path.starts_with("diffusers.") &&
                             (r.path.ends_with("complex") || r.path.find("qwen_image") != std::string::npos);
      const std::int64_t until = left_over ? 16 : r.y.cols();
      const Count count = differing(emulate(program, r.inputs, r.attributes).at("y"), r.y, until);
      CHECK(count.before == 0);
      CHECK((count.after > 0) == left_over);
      CHECK(count.after <= 15);
      ++calls;
      // One wrong operation is seen.
      for (std::size_t i = 0; i < program.nodes.size(); ++i) {
        if (!program.nodes[i].axes.has(Axis::cols)) continue;  // eps is lost in 16 bits
        const auto wrong = slip(program, i);
        if (!wrong) continue;
        ++slips;
        const Count seen = differing(emulate(*wrong, r.inputs, r.attributes).at("y"), r.y, until);
        found += seen.before > 0 ? 1 : 0;
      }
      Program other = program;
      other.view.pairing = program.view.pairing == Pairing::half ? Pairing::interleaved : Pairing::half;
      CHECK(differing(emulate(other, r.inputs, r.attributes).at("y"), r.y, until).before > 0);
    }
  }
  CHECK(calls == 81);
  CHECK(slips > 200);
  CHECK(found == slips);
}

}  // namespace norma::test
