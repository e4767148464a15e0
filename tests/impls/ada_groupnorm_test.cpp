// Paths of GroupNorm under a modulation: their erasures against the canonical norm, their bits against what the real
// classes returned.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/slips.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

const std::string kFolder = NORMA_SOURCE_DIR "/tests/golden/captures/";
constexpr FormatId kFloats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16};
constexpr double kEps = 0.1;  // the double next to it: nothing may round it
const Shape kX{2, 6, 5};

std::vector<const CastPath*> paths() {
  std::vector<const CastPath*> found;
  for (const CastPath* path : all_cast_paths())
    if (path->norm == "ada_groupnorm") found.push_back(path);
  return found;
}

Tensor random_tensor(FormatId format, Shape shape, Random& random, int least, int most) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double sign = random.below(2) == 0 ? 1 : -1;
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    t.set_code(i, encode(format, sign * std::ldexp(mantissa, random.between(least, most)), Overflow::saturate));
  }
  return t;
}

std::vector<std::string> required(const CastPath& path) {
  std::vector<std::string> words;
  std::stringstream stream{std::string(path.required)};
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

Attributes attributes_of(const CastPath& path) {
  Attributes numbers{{"eps", kEps}, {"groups", 3}};
  for (const CaseDefault& own : path.norm_attributes) numbers[std::string(own.key)] = std::stod(std::string(own.value));
  return numbers;
}

// ADM's own parameters are fp32; SpatialNorm's maps have x's shape.
Tensors random_inputs(const CastPath& path, FormatId x, std::uint64_t seed) {
  Random random{seed};
  Tensors tensors{{"x", random_tensor(x, kX, random, -2, 1)}};
  for (const std::string& name : required(path)) {
    const bool own = name == "weight" || name == "bias";
    const bool full = own && path.name.starts_with("guided_diffusion.");
    const Shape shape = own ? Shape{kX[1]} : path.name == "diffusers.spatial_norm" ? kX : Shape{kX[0], kX[1]};
    tensors[name] = random_tensor(full ? FormatId::fp32 : x, shape, random, -3, 0);
  }
  return tensors;
}

Binding binding_of(const Tensors& inputs, const Attributes& attributes, std::string_view profile = {}) {
  const Tensor& x = inputs.at("x");
  Binding binding{.x = x.format,
                  .formats = {},
                  .attributes = attributes,
                  .cols = x.cols(),
                  .profile = std::string(profile),
                  .shape = x.shape};
  for (const auto& [name, tensor] : inputs)
    if (name != "x") binding.formats[name] = tensor.format;
  return binding;
}

// Elements of the erasure that are certainly not the canonical norm's.
int differing(const CastPath& path, const Program& program, const Tensors& inputs) {
  const Attributes numbers = attributes_of(path);
  const Program meant = erase_roundings(program);
  const NormCall call{.inputs = &inputs, .numbers = numbers, .words = {}};
  const NormDef& norm = *find_norm(path.norm);
  norm.check(call);
  const auto canonical = norm.truth(call, "y");
  const auto erased = program_truth(meant, inputs, numbers, "y");
  REQUIRE(canonical->rows() == erased->rows());
  REQUIRE(canonical->cols() == erased->cols());
  int count = 0;
  for (std::int64_t row = 0; row < canonical->rows(); ++row)
    for (std::int64_t col = 0; col < canonical->cols(); ++col) {
      const Enclosure a = canonical->enclose(row, col), b = erased->enclose(row, col);
      const double distance = std::fabs((a.hi - b.hi) + (a.lo - b.lo));
      REQUIRE(a.radius + b.radius <= 0x1p-98 * std::fmax(a.magnitude, b.magnitude));
      count += distance <= a.radius + b.radius + 0x1p-105 * std::fabs(a.hi) ? 0 : 1;
    }
  return count;
}

std::string refusal(std::string_view path, const Binding& binding) {
  try {
    build_path(*find_cast_path(path), binding);
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("paths of adaptive GroupNorm print what parses to the same, under every profile", "[cast_paths]") {
  REQUIRE(paths().size() == 6);
  for (const CastPath* path : paths())
    for (const FormatId x : kFloats)
      for (const std::string_view profile : path->profiles) {
        CAPTURE(path->name, name_of(x), profile);
        const Binding binding = binding_of(random_inputs(*path, x, 1), attributes_of(*path), profile);
        const Program program = build_path(*path, binding);
        CHECK(program.norm == path->norm);
        CHECK(parse_program(print_program(program), binding) == program);
      }
}

TEST_CASE("erasures of adaptive GroupNorms are the canonical norm, and a slip in any step is found", "[cast_paths]") {
  for (const CastPath* path : paths())
    for (const FormatId x : kFloats) {
      CAPTURE(path->name, name_of(x));
      const Tensors inputs = random_inputs(*path, x, 2);
      const Program program = build_path(*path, binding_of(inputs, attributes_of(*path)));
      CHECK(differing(*path, program, inputs) == 0);
      int slips = 0;
      for (std::size_t i = 0; i < program.nodes.size(); ++i) {
        const std::optional<Program> wrong = slip(program, i);
        if (!wrong) continue;
        ++slips;
        CAPTURE(program.nodes[i].names[0]);
        CHECK(differing(*path, *wrong, inputs) > 0);
      }
      CHECK(slips >= 4);
    }
}

TEST_CASE("the bits of adaptive GroupNorms lie near what they mean", "[cast_paths]") {
  for (const CastPath* path : paths())
    for (const FormatId x : kFloats)
      for (const std::string_view profile : path->profiles) {
        CAPTURE(path->name, name_of(x), profile);
        const Tensors inputs = random_inputs(*path, x, 3);
        const Attributes numbers = attributes_of(*path);
        const Program program = build_path(*path, binding_of(inputs, numbers, profile));
        const Tensor y = emulate(program, inputs, numbers).at("y");
        CHECK(y.format == x);
        const NormCall call{.inputs = &inputs, .numbers = numbers, .words = {}};
        const auto truth = find_norm(path->norm)->truth(call, "y");
        // h, n, factor, product, sum: each within half an ulp of a value that the terms' magnitude bounds times 4.
        const double unit = std::ldexp(1, 1 - format_of(x).precision);
        int far = 0;
        for (std::int64_t i = 0; i < y.size(); ++i) {
          const Enclosure e = truth->enclose(i / truth->cols(), i % truth->cols());
          if (!(std::fabs(y.value(i) - e.hi) <= 10 * unit * (1 + e.magnitude))) ++far;
        }
        CHECK(far == 0);
      }
}

TEST_CASE("adaptive GroupNorms have the bits that the real classes return", "[golden]") {
  struct Recorded {
    std::string_view file, call, path;
  };
  constexpr Recorded kRecorded[] = {
      {"model_norms", "AdaGroupNorm", "diffusers.ada_group_norm"},
      {"ada_groupnorm", "SpatialNorm.2x32x4x5", "diffusers.spatial_norm"},
      {"ada_groupnorm", "SpatialNorm.1x64x3x3", "diffusers.spatial_norm"},
      {"ada_groupnorm", "ResnetBlock2D.scale_shift", "diffusers.resnet.norm2.scale_shift"},
      {"ada_groupnorm", "ResnetBlock2D.default", "diffusers.resnet.norm2.additive"},
      {"ada_groupnorm", "adm.scale_shift", "guided_diffusion.resblock.scale_shift"},
      {"ada_groupnorm", "adm.additive", "guided_diffusion.resblock.additive"},
  };
  std::int64_t elements = 0;
  for (const char* format : {"fp32", "bf16", "fp16"})
    for (const Recorded& recorded : kRecorded) {
      CAPTURE(format, recorded.call);
      const TensorFile file = read_safetensors(kFolder + std::string(recorded.file) + "." + format + ".safetensors");
      const auto calls = nlohmann::json::parse(file.metadata.at("calls"));
      const auto& call = calls.at(std::string(recorded.call));
      Tensors inputs;
      for (const auto& [name, tensor] : call.at("inputs").items())
        inputs[name] = file.tensors.at(tensor.get<std::string>());
      Attributes numbers;
      for (const auto& [name, value] : call.at("attributes").items()) numbers[name] = value.get<double>();
      const Tensor& want = file.tensors.at(call.at("outputs").at("y").get<std::string>());
      const CastPath* path = find_cast_path(recorded.path);
      REQUIRE(path != nullptr);
      const Tensor got = emulate(build_path(*path, binding_of(inputs, numbers)), inputs, numbers).at("y");
      REQUIRE(got.format == want.format);
      REQUIRE(got.shape == want.shape);
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < want.size(); ++i) {
        const bool both_nan = std::isnan(got.value(i)) && std::isnan(want.value(i));
        wrong += both_nan || got.code(i) == want.code(i) ? 0 : 1;
      }
      CHECK(wrong == 0);
      elements += want.size();
    }
  CHECK(elements > 30000);
}

TEST_CASE("adaptive GroupNorms refuse what the code refuses, in one sentence", "[cast_paths]") {
  Binding binding{.x = FormatId::bf16,
                  .formats = {},
                  .attributes = {{"eps", kEps}, {"groups", 4}},
                  .cols = 5,
                  .profile = {},
                  .shape = kX};
  binding.formats = {{"scale", FormatId::bf16}, {"shift", FormatId::bf16}};
  CHECK_THAT(refusal("diffusers.ada_group_norm", binding), ContainsSubstring("divides the 6 channels"));
  binding.attributes["groups"] = 3;
  CHECK(refusal("diffusers.ada_group_norm", binding) == "accepted");
  CHECK_THAT(refusal("diffusers.spatial_norm", binding), ContainsSubstring("needs the input 'weight'"));
  binding.formats["weight"] = binding.formats["bias"] = FormatId::bf16;
  CHECK(refusal("diffusers.spatial_norm", binding) == "accepted");
  CHECK_THAT(refusal("guided_diffusion.resblock.scale_shift", binding), ContainsSubstring("fp32"));
}

}  // namespace norma::test
