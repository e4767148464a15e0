// InstanceNorm's running statistics against what torch returned (tests/golden/captures/torch_norms).
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <string>

#include "harness/inputs/safetensors.hpp"
#include "reference/norms/norm.hpp"

using namespace norma;

namespace {

/// The largest |got - y| of an output, in units of 2^-P (|y's terms|), P the precision of got's format.
double largest_error(const char* norm, const Tensors& inputs, double momentum, const std::string& output,
                     const Tensor& got) {
  const NormCall call{.inputs = &inputs, .numbers = {{"eps", 1e-5}, {"momentum", momentum}}, .words = {}};
  const NormDef& def = *find_norm(norm);
  def.check(call);
  const auto truth = truth_of(def, call, output, TruthKind::mpfr);
  REQUIRE(truth->rows() == got.size());
  double largest = 0;
  for (std::int64_t c = 0; c < got.size(); ++c) {
    const Enclosure e = truth->enclose(c, 0);
    if (!std::isfinite(e.hi) || !std::isfinite(got.value(c))) continue;
    const double unit = std::ldexp(e.magnitude, -format_of(got.format).precision);
    largest = std::max(largest, std::fabs(got.value(c) - e.hi - e.lo) / unit);
  }
  return largest;
}

}  // namespace

// torch keeps the statistics of each sample in the parameters' format. Of sums in double beside fp32 x, in 8 fp32 lanes
// beside 16 bits, the two products, their sum, the unbiased quotient, the sum over at most 3 samples and its division
// remain: 9 roundings of 2^-P of what they add. Measured: 2.02.
TEST_CASE("instancenorm's running statistics are those that torch returned", "[golden]") {
  int calls = 0;
  for (const std::string format : {"fp32", "bf16", "fp16"}) {
    const TensorFile all =
        read_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/torch_norms." + format + ".safetensors");
    const auto listed = nlohmann::json::parse(all.metadata.at("calls"));
    for (const auto& [name, call] : listed.items()) {
      const bool tracked = call.at("norm") == "instancenorm" && call.at("outputs").contains("running_mean");
      if (!tracked || call.value("layout", "") != "contiguous") continue;
      ++calls;
      Tensors inputs;
      for (const auto& [key, tensor] : call.at("inputs").items())
        inputs[key] = all.tensors.at(tensor.get<std::string>());
      const double momentum = call.at("attributes").at("momentum").get<double>();
      for (const std::string output : {"running_mean", "running_var"}) {
        const Tensor& got = all.tensors.at(call.at("outputs").at(output).get<std::string>());
        CAPTURE(format, name, output);
        CHECK(largest_error("instancenorm", inputs, momentum, output, got) <= 9);
        // The variance of a whole batch is another number.
        if (output == "running_var" && inputs.at("x").shape[0] > 1)
          CHECK(largest_error("batchnorm", inputs, momentum, output, got) > 9);
      }
    }
  }
  CHECK(calls == 9);
}
