// RMSNorm into blocks with a scale each: bits against the kernels written out in floats, truths against the norm's.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr std::int64_t kRows = 3, kCols = 96;
constexpr double kEps = 1e-5, kGlobal = 2.75;

enum class Values { plain, wide, tiny };

Tensor filled(Random& random, FormatId format, Shape shape, int low, int high) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    const double v = (random.below(2) == 0 ? 1 : -1) * std::ldexp(mantissa, random.between(low, high));
    t.set_code(i, encode(format, v, Overflow::ieee));
  }
  return t;
}

// The third block of columns has no weight; tiny weights make E8M0's least scales, or e4m3's 0.
Tensors inputs_of(FormatId format, Values values, std::uint64_t seed) {
  Random random{seed};
  const int low = values == Values::tiny ? -125 : values == Values::wide ? -9 : -2;
  const int high = values == Values::tiny ? -112 : values == Values::wide ? 9 : 2;
  Tensors tensors;
  tensors["x"] = filled(random, format, {kRows, kCols}, -3, 3);
  tensors["weight"] = filled(random, format, {kCols}, low, high);
  for (std::int64_t j = 64; j < kCols; ++j) tensors["weight"].set_code(j, 0);
  return tensors;
}

Binding binding_of(FormatId format, std::string profile) {
  Binding b{.x = format, .formats = {}, .attributes = {{"eps", kEps}, {"global_scale", kGlobal}}, .cols = kCols,
            .profile = std::move(profile)};
  b.formats["weight"] = format;
  return b;
}

const CastPath& path_of(std::string_view name) {
  const CastPath* path = find_cast_path(name);
  REQUIRE(path != nullptr);
  return *path;
}

struct Taken {
  std::string_view path;
  std::string_view quant;
  std::vector<FormatId> formats;
};
const std::vector<Taken>& all_taken() {
  static const std::vector<Taken> all{
      {"transformer_engine.rmsnorm.cudnn.mxfp8", "mxfp8", {FormatId::fp32, FormatId::bf16, FormatId::fp16}},
      {"transformer_engine.rmsnorm.cudnn.mxfp8_from_t", "mxfp8", {FormatId::fp32, FormatId::bf16, FormatId::fp16}},
      {"transformer_engine.rmsnorm.nvfp4", "nvfp4", {FormatId::bf16}},
      {"flashinfer.cute.rmsnorm_fp4", "nvfp4", {FormatId::bf16, FormatId::fp16}}};
  return all;
}

// ---- the kernels, one row after the other; sums first to last, roots and reciprocals correctly rounded ----

float rounded(FormatId format, float v) {
  return static_cast<float>(decode(format, encode(format, static_cast<double>(v), Overflow::ieee)));
}

float rstd_of(const Tensor& x, std::int64_t row) {
  float sum = 0;
  for (std::int64_t j = 0; j < kCols; ++j) {
    const float v = static_cast<float>(x.value(row * kCols + j));
    sum += v * v;
  }
  const float mean = sum / static_cast<float>(kCols) + static_cast<float>(kEps);
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(mean)));
}

std::uint64_t saturated(FormatId format, float v) { return encode(format, static_cast<double>(v), Overflow::saturate); }
float e4m3_value(std::uint64_t code) { return static_cast<float>(decode(FormatId::e4m3fn, code)); }

// The byte that cvt.rp.satfinite.ue8m0x2 gives a number that is not negative.
int e8m0_byte(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  const int exponent = static_cast<int>(bits >> 23);
  const std::uint32_t mantissa = bits & 0x7f'ffff;
  if (exponent == 0) return mantissa > 0x40'0000 ? 1 : 0;
  return mantissa != 0 && exponent != 254 ? exponent + 1 : exponent;
}

struct Codes {
  std::vector<std::uint64_t> y;
  std::vector<double> scale;
};

Codes by_hand(std::string_view path, const Tensors& tensors) {
  const Tensor &x = tensors.at("x"), &w = tensors.at("weight");
  const bool flashinfer = path.starts_with("flashinfer"), mx = path.find("mxfp8") != path.npos;
  const bool from_fp32 = flashinfer || path.ends_with("mxfp8");
  const std::int64_t block = mx ? 32 : 16;
  const auto global = static_cast<float>(kGlobal);
  Codes codes;
  for (std::int64_t row = 0; row < kRows; ++row) {
    const float rstd = rstd_of(x, row);
    std::vector<float> z;
    for (std::int64_t j = 0; j < kCols; ++j) {
      const float v = static_cast<float>(x.value(row * kCols + j)), g = static_cast<float>(w.value(j));
      const float n = flashinfer ? rounded(x.format, v * g) * rstd : v * rstd * g;
      z.push_back(from_fp32 ? n : rounded(x.format, n));
    }
    for (std::int64_t first = 0; first < kCols; first += block) {
      float amax = 0;
      for (std::int64_t j = first; j < first + block; ++j) amax = std::fmax(amax, std::fabs(z[static_cast<std::size_t>(j)]));
      float inverse = 0;
      if (mx) {
        const int byte = e8m0_byte(amax * (1.0F / 448.0F));
        inverse = byte == 0 ? 1.0F : std::ldexp(1.0F, 127 - byte);
        codes.scale.push_back(std::ldexp(1.0, byte - 127));
      } else if (flashinfer) {
        const std::uint64_t s = saturated(FormatId::e4m3fn, std::fmin(global * amax * (1.0F / 6.0F), 448.0F));
        inverse = (s == 0 ? 0.0F : 1.0F / e4m3_value(s)) * global;
        codes.scale.push_back(decode(FormatId::e4m3fn, s));
      } else {
        const std::uint64_t s = saturated(FormatId::e4m3fn, amax * (global * (1.0F / 6.0F)));
        inverse = std::fmin(1.0F / (e4m3_value(s) * (1.0F / global)), std::numeric_limits<float>::max());
        codes.scale.push_back(decode(FormatId::e4m3fn, s));
      }
      for (std::int64_t j = first; j < first + block; ++j)
        codes.y.push_back(saturated(mx ? FormatId::e4m3fn : FormatId::e2m1, z[static_cast<std::size_t>(j)] * inverse));
    }
  }
  return codes;
}

// ---- truths ----

struct Difference {
  int y = 0, scale = 0;
};

bool apart(const Enclosure& a, const Enclosure& b) {
  if (std::isnan(a.hi) || std::isnan(b.hi)) return std::isnan(a.hi) != std::isnan(b.hi);
  return !(std::fabs((a.hi - b.hi) + (a.lo - b.lo)) <= (a.radius + b.radius) * (1 + 0x1p-40) + 0x1p-100 * std::fabs(a.hi));
}

Difference difference(const Program& program, std::string_view quant, const Tensors& tensors) {
  const Attributes numbers{{"eps", kEps}, {"global_scale", kGlobal}};
  const NormDef& rms = *find_norm("rmsnorm");
  const NormCall call{.inputs = &tensors, .numbers = numbers, .words = {{"quant", std::string(quant)}}};
  Difference d;
  for (const std::string_view name : {"y", "scale"}) {
    const auto canonical = rms.truth(call, name);
    const auto erasure = program_truth(program, tensors, numbers, name);
    REQUIRE(erasure->rows() == canonical->rows());
    REQUIRE(erasure->cols() == canonical->cols());
    const auto cols = static_cast<std::size_t>(canonical->cols());
    for (std::int64_t row = 0; row < canonical->rows(); ++row) {
      std::vector<Enclosure> a(cols), b(cols);
      canonical->enclose_row(row, a);
      erasure->enclose_row(row, b);
      for (std::size_t j = 0; j < cols; ++j) (name == "y" ? d.y : d.scale) += apart(a[j], b[j]) ? 1 : 0;
    }
  }
  return d;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("paths into blocks build, print what parses to the same, and are the norm's", "[cast_paths]") {
  for (const Taken& taken : all_taken()) {
    const CastPath& path = path_of(taken.path);
    CAPTURE(taken.path);
    for (const FormatId x : taken.formats)
      for (const std::string_view profile : path.profiles) {
        const Binding binding = binding_of(x, std::string(profile));
        const Program program = build_path(path, binding);
        const std::string text = print_program(program);
        CAPTURE(text);
        CHECK(parse_program(text, binding) == program);
        const Tensors tensors = inputs_of(x, Values::plain, 3);
        const Tensors outputs = emulate(program, tensors, binding.attributes);
        REQUIRE(outputs.size() == 2);
        const NormCall call{.inputs = &tensors, .numbers = binding.attributes, .words = {{"quant", std::string(taken.quant)}}};
        for (const NormOutput& output : find_norm("rmsnorm")->outputs_of(call))
          CHECK(outputs.at(std::string(output.name)).shape == output.shape);
      }
    Binding narrow = binding_of(taken.formats[0], "");
    narrow.cols = 33;
    CHECK_THROWS_AS(build_path(path, narrow), ProgramError);
  }
}

TEST_CASE("bits of paths into blocks are those of the kernels", "[cast_paths]") {
  for (const Taken& taken : all_taken())
    for (const FormatId x : taken.formats)
      for (const Values values : {Values::plain, Values::wide, Values::tiny})
        for (std::uint64_t seed = 1; seed <= 20; ++seed) {
          if (x == FormatId::fp16 && values == Values::tiny) continue;
          CAPTURE(taken.path, name_of(x), static_cast<int>(values), seed);
          const Binding binding = binding_of(x, "sequential");
          const Tensors tensors = inputs_of(x, values, seed);
          const Tensors outputs = emulate(build_path(path_of(taken.path), binding), tensors, binding.attributes);
          const Codes want = by_hand(taken.path, tensors);
          const Tensor &y = outputs.at("y"), &scale = outputs.at("scale");
          REQUIRE(y.size() == static_cast<std::int64_t>(want.y.size()));
          REQUIRE(scale.size() == static_cast<std::int64_t>(want.scale.size()));
          int wrong = 0;
          for (std::int64_t i = 0; i < y.size(); ++i) wrong += y.code(i) != want.y[static_cast<std::size_t>(i)] ? 1 : 0;
          CHECK(wrong == 0);
          for (std::int64_t i = 0; i < scale.size(); ++i) CHECK(scale.value(i) == want.scale[static_cast<std::size_t>(i)]);
        }
}

TEST_CASE("erasures of paths into blocks are the canonical norm, scales and codes", "[cast_paths]") {
  for (const Taken& taken : all_taken())
    for (const Values values : {Values::plain, Values::wide}) {
      const FormatId x = taken.formats.back();
      CAPTURE(taken.path, static_cast<int>(values));
      const Program program = build_path(path_of(taken.path), binding_of(x, ""));
      const Difference d = difference(program, taken.quant, inputs_of(x, values, 5));
      CHECK(d.scale == 0);
      CHECK(d.y == 0);
    }
}

TEST_CASE("a slip in a path into blocks is found", "[cast_paths]") {
  const Binding binding = binding_of(FormatId::bf16, "");
  const Tensors tensors = inputs_of(FormatId::bf16, Values::wide, 9);
  const auto changed = [&](std::string_view path, std::string_view quant, std::string_view from, std::string_view to) {
    const std::string text = print_program(build_path(path_of(path), binding));
    return difference(parse_program(replaced(text, from, to), binding), quant, tensors);
  };
  constexpr std::string_view kMx = "transformer_engine.rmsnorm.cudnn.mxfp8", kNv = "flashinfer.cute.rmsnorm_fp4";
  CHECK(changed(kMx, "mxfp8", "e8m0_up fp32 amax_ratio", "cast fp32 amax_ratio").scale > 0);
  CHECK(changed(kMx, "mxfp8", "mul fp32 amax, ", "div fp32 amax, ").scale > 0);
  CHECK(changed(kMx, "mxfp8", "mul fp32 z, scale_inv", "mul fp32 z, scale").y > 0);
  CHECK(changed(kNv, "nvfp4", "nearest_e4m3 e4m3fn scale_capped", "cast e4m3fn scale_capped").scale > 0);
  CHECK(changed(kNv, "nvfp4", "const 448", "const 256").scale > 0);
  CHECK(changed(kNv, "nvfp4", "mul fp32 scale_rcp_or_0, global_scale_f32", "cast fp32 scale_rcp_or_0").y > 0);
}

TEST_CASE("blocks that do not fit x are refused in one sentence", "[cast_paths]") {
  const std::string text = print_program(build_path(path_of("transformer_engine.rmsnorm.cudnn.mxfp8"), binding_of(FormatId::bf16, "")));
  const Binding binding = binding_of(FormatId::bf16, "");
  const auto refusal = [&](const std::string& changed) {
    try {
      static_cast<void>(emulate(parse_program(changed, binding), inputs_of(FormatId::bf16, Values::plain, 1), binding.attributes));
    } catch (const ProgramError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal(text).empty());
  CHECK_THAT(refusal(replaced(text, "blocks(32)", "blocks(36)")), ContainsSubstring("36") && ContainsSubstring("96"));
  CHECK_THAT(refusal(replaced(text, "blocks(32)", "blocks")), ContainsSubstring("("));
  CHECK_THAT(refusal(replaced(text, "blocks(32)", "blocks(0)")), ContainsSubstring("blocks(N)"));
}

}  // namespace norma::test
