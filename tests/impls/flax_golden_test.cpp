// flax's recorded norms of rows, run op by op by JAX on a CPU, against their paths. XLA's rsqrt is not correctly
// rounded: each element is that of some root within 2 ulp, and XLA flushes subnormal numbers to zero.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::test {
namespace {

struct Count {
  std::int64_t elements = 0, plain = 0, allowed = 0, flushed = 0;
};

std::string_view path_of(const std::string& name) {
  if (name.starts_with("RMSNorm.")) return "flax.linen.rmsnorm";
  if (!name.starts_with("LayerNorm.")) return "";
  return name.find(".two_pass") == std::string::npos ? "flax.linen.layernorm" : "flax.linen.layernorm.two_pass";
}

void compare(const TensorFile& file, const nlohmann::json& call, std::string_view path, std::string_view profile,
             Count& count) {
  Tensors inputs;
  for (const auto& [name, tensor] : call.at("inputs").items())
    inputs[name] = file.tensors.at(tensor.get<std::string>());
  const Attributes attributes{{"eps", call.at("attributes").at("eps").get<double>()}};
  const Tensor& x = inputs.at("x");
  Binding binding{.x = x.format,
                  .formats = {},
                  .attributes = attributes,
                  .cols = x.cols(),
                  .profile = std::string(profile),
                  .shape = x.shape};
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  const CastPath* found = find_cast_path(path);
  REQUIRE(found != nullptr);
  const Program program = build_path(*found, binding);
  std::vector<Tensor> ideals;
  for (int nudge = -choice_ulp(program); nudge <= choice_ulp(program); ++nudge)
    ideals.push_back(emulate(program, inputs, attributes, {.nudge_ulp = nudge}).at("y"));
  const Tensor& want = file.tensors.at(call.at("outputs").at("y").get<std::string>());
  REQUIRE(ideals.front().format == want.format);
  count.elements += want.size();
  for (std::int64_t i = 0; i < want.size(); ++i) {
    const auto same = [&](const Tensor& ideal) {
      return want.code(i) == ideal.code(i) || (std::isnan(want.value(i)) && std::isnan(ideal.value(i)));
    };
    bool any = false;
    for (const Tensor& ideal : ideals) any = any || same(ideal);
    count.plain += same(ideals[ideals.size() / 2]) ? 1 : 0;
    count.allowed += any ? 1 : 0;
    const double value = std::fabs(x.value(i));
    count.flushed += !any && want.value(i) == 0 && value > 0 && value < 0x1p-126 ? 1 : 0;
  }
}

}  // namespace

TEST_CASE("flax's recorded norms of rows are their paths within XLA's root", "[cast_paths][golden]") {
  struct Run {
    std::string_view tag, profile;
    std::int64_t open;  // elements that no root within 2 ulp explains: fast variance of fp32 rows, compiled
  };
  for (const Run& run : {Run{".eager", "xla_cpu", 0}, Run{".jit", "xla_cpu_jit", 11}}) {
    Count all, other;
    int calls = 0;
    for (const char* format : {"fp32", "bf16", "fp16"}) {
      const TensorFile file =
          read_safetensors(std::string(NORMA_SOURCE_DIR "/tests/golden/captures/flax.") + format + ".safetensors");
      const auto listed = nlohmann::json::parse(file.metadata.at("calls"));
      for (const auto& [name, call] : listed.items()) {
        const std::string_view path = path_of(name);
        if (path.empty() || !name.ends_with(run.tag)) continue;
        CAPTURE(format, name);
        Count count;
        compare(file, call, path, run.profile, count);
        compare(file, call, path, "sequential", other);
        const bool fast = std::string_view(format) == "fp32" && path == "flax.linen.layernorm";
        CHECK(count.elements - count.allowed - count.flushed <= (fast ? run.open : 0));
        all.elements += count.elements, all.plain += count.plain;
        all.allowed += count.allowed, all.flushed += count.flushed;
        ++calls;
      }
    }
    INFO(run.tag << ": " << calls << " calls, " << all.elements << " elements: " << all.plain << " plain, "
                 << all.allowed << " allowed, " << all.flushed << " flushed; by another order " << other.plain
                 << " plain");
    CHECK(calls == 60);
    CHECK(all.elements - all.allowed - all.flushed <= run.open);
    CHECK(all.flushed < all.elements / 50);
    CHECK(all.plain > all.elements * 9 / 10);
    CHECK(other.plain < all.plain);
  }
}

}  // namespace norma::test
