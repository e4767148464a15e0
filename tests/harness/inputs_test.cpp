#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "harness/cases/files.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/families.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/random.hpp"
#include "harness/inputs/safetensors.hpp"

namespace norma {

namespace {

using Catch::Matchers::ContainsSubstring;

/// A folder of the test's own, removed at its end.
struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("norma_inputs_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name) const { return (path / name).string(); }
};

Tensor made(std::string_view family, FormatId format, Shape shape, double eps = 1e-6) {
  return generate(
      *find_family(family),
      {.tensor = "x", .format = format, .shape = std::move(shape), .seed = 7, .eps = eps});
}

struct Moments {
  double mean = 0, deviation = 0, largest = 0, least = INFINITY;
  double range = 0;  ///< max - min, exact
};
Moments moments(const Tensor& t, std::int64_t row) {
  Moments m;
  double squares = 0;
  double low = INFINITY, high = -INFINITY;
  const std::int64_t n = t.cols();
  for (std::int64_t i = row * n; i < (row + 1) * n; ++i) {
    m.mean += t.value(i) / static_cast<double>(n);
    low = std::min(low, t.value(i));
    high = std::max(high, t.value(i));
    m.largest = std::max(m.largest, std::fabs(t.value(i)));
    m.least = std::min(m.least, std::fabs(t.value(i)));
  }
  for (std::int64_t i = row * n; i < (row + 1) * n; ++i)
    squares += (t.value(i) - m.mean) * (t.value(i) - m.mean);
  m.range = high - low;
  m.deviation = std::sqrt(squares / static_cast<double>(n));
  return m;
}

bool refuses(const InputFamily& family, FormatId format) {
  return !family.refuse({.tensor = "x", .format = format, .shape = {4, 1024}, .eps = 1e-6}).empty();
}

std::string expanded(std::string_view line) {
  return print_case(expand_defaults(parse_case(line)));
}

std::string refusal(std::string_view line) {
  try {
    make_inputs(parse_case(line));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

// Expected values: an independent Philox4x32-10 and statistics.NormalDist().inv_cdf in Python.
TEST_CASE("uniforms and normals have their known bits", "[inputs]") {
  const std::uint64_t key = stream_key(3, "x");
  CHECK(draw(key, DrawKind::element, 0).first == 0x1.9e1fcb6d0e2ffp-1);
  CHECK(draw(key, DrawKind::element, 1).first == 0x1.a37b9244dda66p-2);
  CHECK(draw(key, DrawKind::element, std::uint64_t{1} << 33).first == 0x1.f4d34c8dabd55p-1);
  const std::map<double, double> quantiles{
      {0x1p-53, -0x1.06b48528cea51p+3}, {0x1p-20, -0x1.30d5024a3fa4dp+2},
      {0.01, -0x1.29c5c4630ff0ep+1},    {0.07499, -0x1.7089c3b117169p+0},
      {0.0751, -0x1.7056dc6686c9ap+0},  {0.3, -0x1.0c7e39582c5fap-1},
      {0.9, 0x1.4813c36e26d34p+0},      {1 - 0x1p-53, 0x1.06b48528cea51p+3}};
  for (const auto& [u, quantile] : quantiles) {
    CAPTURE(u);
    CHECK(std::fabs(normal_quantile(u) - quantile) <= 0x1p-50 * std::fabs(quantile));
  }
  for (double u = 0x1p-53; u < 1; u *= 1.37)
    REQUIRE(std::fabs(minus_log(u) + std::log(u)) <= 0x1p-50 * std::fabs(std::log(u)) + 0x1p-54);
}

// A change here is a new version of the family: raise its number in families.cpp and replace the
// row.
TEST_CASE("each family has its known bits", "[inputs]") {
  std::vector<std::string> digests;
  for (const InputFamily& family : all_families()) {
    std::string line = versioned_name(family);
    for (const FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16})
      line +=
          " " +
          sha256_hex(
              generate(family,
                       {.tensor = "x", .format = format, .shape = {5, 600}, .seed = 3, .eps = 1e-6})
                  .bytes)
              .substr(0, 8);
    digests.push_back(line);
  }
  const std::vector<std::string> known{
      "normal/1 e5b896a8 2513fb5c 5b678472",         "uniform/1 d42afd7e cdb0295e 5a84221a",
      "heavy_tailed/1 b68e4ef2 7d2e281d 059db5e6",   "massive/1 b4ebd6c0 8b0e3722 61ffbe67",
      "near_constant/1 d02a0846 719826e1 bca2dae8",  "huge_mean/1 900a0bbe 070eab02 d86cbd9c",
      "wide_exponents/1 b7d0a93f 3b334ce5 6ac17118", "subnormal/1 80b70b72 332fd5e2 5d5c26f5",
      "fp16_edge/1 fe775a0d 876d7070 5d95a90f",      "eps_dominated/1 710699e8 91199702 9173c7b8",
      "zeros/1 ff6698a6 a6bedce1 a6bedce1",          "ones/1 3300ce5c 4c236422 6bce7eee",
      "constant/1 1d7f0dd5 945d33ff 24677143",       "one_outlier/1 38fdeab5 0357f9be 183ea3f5",
      "exact_sums/1 b374dac9 f049d3db f7c06065",     "sprinkled/1 b7f5eb6d 14874f97 db495593",
      "weight_normal/1 3cbf6884 25f6f38d 773e05f5",  "small_normal/1 0c40dbb0 3ff9fa75 1a6b0e36",
      "linear_normal/1 d7f0b084 27cfc90b f78b994b",
      "scale_uniform/1 41e6005c 94d20158 07a23d49", "variance_uniform/1 c3a3873c e22a36ea 41739eab",
  };
  CHECK(digests == known);
}

TEST_CASE("normal elements are the bits that Python computes", "[inputs]") {
  const InputFamily& normal = *find_family("normal");
  const InputSpec spec{.tensor = "x", .format = FormatId::fp32, .shape = {4, 1024}, .seed = 3};
  CHECK(generate_element(normal, spec, 0) == 0x3f5fa54e);
  CHECK(generate_element(normal, spec, 1) == 0xbe69ecde);
  CHECK(generate_element(normal, spec, 5) == 0xbe8cca35);
  CHECK(generate_element(normal, spec, 1000) == 0xbebe5720);
}

TEST_CASE("an element depends on seed, tensor and index alone", "[inputs]") {
  for (const InputFamily& family : all_families()) {
    CAPTURE(family.name);
    const InputSpec spec{
        .tensor = "x", .format = FormatId::bf16, .shape = {300, 700}, .seed = 11, .eps = 1e-6};
    const Tensor one = generate(family, spec, 1);
    REQUIRE(one.bytes == generate(family, spec, 3).bytes);
    for (std::int64_t i = one.size() - 1; i >= 0; i -= 6997)
      REQUIRE(one.code(i) == generate_element(family, spec, i));
  }
  const auto first = [](std::string_view tensor, std::uint64_t seed) {
    return generate_element(
        *find_family("normal"),
        {.tensor = tensor, .format = FormatId::fp32, .shape = {8}, .seed = seed}, 0);
  };
  CHECK(first("x", 1) != first("weight", 1));
  CHECK(first("x", 1) != first("x", 2));
}

TEST_CASE("the precondition of each family holds in every format that it fills", "[inputs]") {
  const FormatId format = GENERATE(from_range(std::vector<FormatId>{
      FormatId::fp64, FormatId::fp32, FormatId::tf32, FormatId::bf16, FormatId::fp16,
      FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz}));
  CAPTURE(name_of(format));
  const double top = max_finite(format);
  const double step = std::ldexp(1.0, 1 - format_of(format).precision);
  const Shape shape{4, 1024};
  for (std::int64_t row = 0; row < 4; ++row) {
    const Moments n = moments(made("normal", format, shape), row);
    CHECK(std::fabs(n.mean) < 0.15);
    CHECK(std::fabs(n.deviation - 1) < 0.1);
    CHECK(moments(made("uniform", format, shape), row).largest <= 1);
    CHECK(moments(made("heavy_tailed", format, shape), row).largest >= 8);
    CHECK(moments(made("massive", format, shape), row).largest >= std::min(500.0, top));
    CHECK(moments(made("near_constant", format, shape), row).range <= 2 * step);
    CHECK(moments(made("near_constant", format, shape), row).range > 0);
    const Moments mean = moments(made("huge_mean", format, shape), row);
    CHECK(std::fabs(mean.mean) >= 3 * mean.deviation);
    CHECK(mean.deviation > 0.5);
    const Moments wide = moments(made("wide_exponents", format, shape), row);
    CHECK(wide.largest <= std::min(top, 0x1p51));
    CHECK(wide.least <= 0x1p-5);
    const Moments tiny = moments(made("subnormal", format, shape), row);
    CHECK(tiny.least > 0);
    CHECK(tiny.largest < min_normal(format));
    if (!refuses(*find_family("fp16_edge"), format)) {
      const Moments edge = moments(made("fp16_edge", format, shape), row);
      CHECK(edge.least >= 255 * (1 - step));
      CHECK(edge.largest <= 257 * (1 + step));
    }
    if (!refuses(*find_family("eps_dominated"), format)) {
      const Moments small = moments(made("eps_dominated", format, shape), row);
      CHECK(small.deviation * small.deviation < 1e-6 / 30000);
      CHECK(small.largest > 0);
    }
    CHECK(moments(made("zeros", format, shape), row).largest == 0);
    CHECK(moments(made("ones", format, shape), row).range == 0);
    CHECK(moments(made("constant", format, shape), row).range == 0);
    CHECK(moments(made("constant", format, shape), row).least >= 1.25);
    CHECK(moments(made("one_outlier", format, shape), row).largest == std::min(8192.0, top));
    const Tensor sums = made("exact_sums", format, shape);
    for (std::int64_t i = row * 1024; i < (row + 1) * 1024; ++i)
      REQUIRE((sums.value(i) == std::round(sums.value(i)) && std::fabs(sums.value(i)) <= 4));
    CHECK(moments(made("scale_uniform", format, shape), row).least >= 0.03125);
    CHECK(moments(made("variance_uniform", format, shape), row).least >= 0.5);
    const Tensor sprinkled = made("sprinkled", format, shape);
    std::int64_t strange = 0;
    for (std::int64_t i = row * 1024; i < (row + 1) * 1024; ++i)
      strange += std::isfinite(sprinkled.value(i)) ? 0 : 1;
    CHECK(strange == (row == 1 ? 0 : 1));
  }
  CHECK(std::isnan(moments(made("sprinkled", format, {1, 8}), 0).mean));
}

TEST_CASE("massive channels are the same in every row, one in each 512", "[inputs]") {
  const Tensor t = made("massive", FormatId::bf16, {16, 3072});
  for (std::int64_t col = 0; col < 3072; ++col) {
    const bool large = std::fabs(t.value(col)) > 100;
    for (std::int64_t row = 1; row < 16; ++row)
      REQUIRE((std::fabs(t.value(row * 3072 + col)) > 100) == large);
  }
  std::int64_t count = 0;
  for (std::int64_t col = 0; col < 3072; ++col) count += std::fabs(t.value(col)) > 100 ? 1 : 0;
  CHECK(count == 6);
}

TEST_CASE("every family states what it finds and what holds", "[inputs]") {
  for (const InputFamily& family : all_families()) {
    CAPTURE(family.name);
    CHECK(family.version >= 1);
    CHECK_FALSE(family.title.empty());
    CHECK_FALSE(family.finds.empty());
    CHECK_FALSE(family.precondition.empty());
    CHECK(find_family(family.name) == &family);
  }
}

TEST_CASE("expanding writes every default out", "[inputs]") {
  const std::string line =
      expanded("rmsnorm bf16 4x64 path=bfl.flux.rmsnorm input=normal seed=03 eps=0.000001");
  CHECK_THAT(line,
             ContainsSubstring("rmsnorm bf16 4x64 path=bfl.flux.rmsnorm profile=") &&
                 ContainsSubstring(" eps=1e-6 eps_place=inside") &&
                 ContainsSubstring(
                     " weight.format=bf16 weight.input=weight_normal/1 input=normal/1 seed=3"));
  CHECK_THAT(expanded("rmsnorm bf16 4x64"), ContainsSubstring(" eps=1e-6 ") &&
                                                ContainsSubstring(" input=normal/1 seed=0") &&
                                                !ContainsSubstring("weight."));
  CHECK_THAT(expanded("rmsnorm bf16 4x64 path=meta.llama.rmsnorm"),
             ContainsSubstring(" eps=1e-5 "));
  CHECK_THAT(
      expanded("rmsnorm bf16 4x64 path=transformers.gemma.rmsnorm"),
      ContainsSubstring(" weight_offset=1 ") && ContainsSubstring(" weight.input=small_normal/1 "));
  CHECK_THAT(expanded("rmsnorm bf16 4x64 weight.format=fp32 bias.input=zeros residual.shape=4x64 "
                      "scale.format=fp32"),
             ContainsSubstring(" bias.format=bf16 bias.input=zeros/1 residual.format=bf16 "
                               "residual.input=normal/1 scale.format=fp32 "
                               "scale.input=scale_uniform/1 weight.format=fp32 "
                               "weight.input=weight_normal/1 input=normal/1 seed=0"));
  CHECK_THAT(print_case(expand_defaults(parse_case("rmsnorm bf16 4x64"), "1e-3")),
             ContainsSubstring(" eps=0.001 "));
  for (const Suite& suite : all_suites())
    for (const LocatedCase& located : read_cases(suite.text, std::string(suite.name))) {
      const Case once = expand_defaults(located.value);
      REQUIRE(expand_defaults(once) == once);
      REQUIRE(parse_case(print_case(once)) == once);
    }
}

TEST_CASE("an expanded case makes the same tensors as the short one", "[inputs]") {
  const Case c =
      parse_case("rmsnorm bf16 4x64 path=bfl.flux.rmsnorm residual.input=uniform seed=5");
  const Tensors a = make_inputs(c);
  const Tensors b = make_inputs(parse_case(print_case(expand_defaults(c))), 2);
  REQUIRE(a.size() == 3);
  for (const auto& [name, tensor] : a) {
    CHECK(tensor.bytes == b.at(name).bytes);
    CHECK(tensor.shape == b.at(name).shape);
  }
  CHECK(a.at("weight").shape == Shape{64});
  CHECK(make_inputs(parse_case("rmsnorm bf16 4x64 scale.input=scale_uniform")).at("scale").shape ==
        Shape{});
}

TEST_CASE("parameters take the shapes that their norm has beside x", "[inputs]") {
  const auto shape_of = [](const std::string& line, const char* name) {
    return make_inputs(parse_case(line)).at(name).shape;
  };
  CHECK(shape_of("layernorm bf16 2x3x8 weight.input=ones", "weight") == Shape{8});
  CHECK(shape_of("layernorm bf16 2x3x8 weight.shape=2x8", "weight") == Shape{2, 8});
  CHECK(shape_of("layernorm bf16 2x3x8 weight.shape=2x1x8", "weight") == Shape{2, 1, 8});
  CHECK(shape_of("gated_residual bf16 2x3x8", "gate") == Shape{8});
  CHECK(shape_of("gated_residual bf16 2x3x8 gate.shape=2x3x8", "gate") == Shape{2, 3, 8});
  CHECK(shape_of("groupnorm bf16 2x6x5x5 groups=3 bias.input=ones", "bias") == Shape{6});
  CHECK_THAT(expanded("layernorm bf16 2x3x8 weight.shape=8"), !ContainsSubstring("shape="));
  CHECK_THAT(expanded("modulate bf16 2x3x8 shift.shape=2x8"),
             ContainsSubstring(" scale.input=small_normal/1 shift.format=bf16 shift.input=small_normal/1 shift.shape=2x8 "));
  const Tensors batch =
      make_inputs(parse_case("batchnorm fp32 2x600 statistics=running running_mean.input=normal running_var.format=fp32"));
  for (std::int64_t c = 0; c < 600; ++c) CHECK(batch.at("running_var").value(c) >= 0.5);
  for (const char* line : {"layernorm bf16 2x3x8 bias.shape=2x1x8", "modulate fp32 2x3x8 shift.shape=2x8",
                           "batchnorm bf16 2x3x8 statistics=running running_mean.format=fp32 running_var.format=fp32"}) {
    const Case once = expand_defaults(parse_case(line));
    CHECK(expand_defaults(once) == once);
    CHECK(parse_case(print_case(once)) == once);
  }
  CHECK(refusal("layernorm bf16 2x3x8 weight.shape=3x8") ==
        "weight.shape=3x8 does not fit x 2x3x8: weight has to be 8 or 2x8 or 2x1x8");
  CHECK(refusal("groupnorm bf16 8 groups=4") ==
        "groupnorm takes x with samples and channels, [N, C, ...], and x has shape 8");
  CHECK(refusal("groupnorm bf16 2x8x3") == "groupnorm: groups is 32 but must divide the 8 channels of x.");
  CHECK(refusal("batchnorm bf16 2x8 statistics=running") ==
        "batchnorm: statistics=running needs a tensor running_mean.");
  CHECK(refusal("rmsnorm bf16 2x8 quant=static") == "rmsnorm: quant=static needs a tensor scale of one value.");
}

TEST_CASE("inputs that cannot be made are refused in one sentence", "[inputs]") {
  CHECK_THAT(refusal("rmsnorm bf16 4x8 input=norml"),
             ContainsSubstring("unknown input family 'norml'; known: normal, uniform,"));
  CHECK(refusal("rmsnorm bf16 4x8 input=normal/2") ==
        "input family 'normal' is at version 1 here, and the case asks for 'normal/2'");
  CHECK(refusal("rmsnorm bf16 4x8 weight.shape=7") ==
        "weight.shape=7 does not fit x 4x8: weight has to be 8");
  CHECK(refusal("rmsnorm bf16 4x8 residual.shape=4x7") ==
        "residual.shape=4x7 does not fit x 4x8: residual has to be 4x8");
  CHECK(refusal("rmsnorm bf16 - input=normal") ==
        "the shape '-' needs input=file:PATH#TENSOR, and input is normal/1");
  CHECK_THAT(refusal("rmsnorm bf16 4x8 input=eps_dominated eps=0"),
             ContainsSubstring("input family 'eps_dominated' needs eps above 0"));
  CHECK_THAT(refusal("rmsnorm e4m3fnuz 4x8 input=fp16_edge"),
             ContainsSubstring("needs numbers about 256, and e4m3fnuz ends at 240"));
  CHECK_THAT(refusal("rmsnorm bf16 1x1048577 input=exact_sums"),
             ContainsSubstring("needs at most 2^20 columns, and there are 1048577"));
  CHECK_THAT(refusal("rmsnorm bf16 - input=file:/nowhere.safetensors#x"),
             ContainsSubstring("/nowhere.safetensors: no such file"));
  CHECK_THAT(refusal("rmsnorm bf16 - input=file:#x"), ContainsSubstring("is not file:PATH#TENSOR"));
  CHECK_THAT(refusal("rmsnorm bf16 - input=file:a#x@sha256-12"),
             ContainsSubstring("ends in no hash"));
}

TEST_CASE("tensors come from files, held by their hash", "[inputs]") {
  const Folder folder;
  const std::string file = folder.file("in.safetensors");
  Tensors tensors{{"h", made("normal", FormatId::bf16, {2, 3, 16})},
                  {"weight", made("ones", FormatId::fp32, {16})}};
  write_safetensors(file, tensors);

  const Case c = expand_defaults(
      parse_case("rmsnorm bf16 - input=file:" + file + "#h weight.input=file:" + file));
  const std::string line = print_case(c);
  CAPTURE(line);
  CHECK(c.shape == Shape{2, 3, 16});
  CHECK(c.get("weight.format") == "fp32");
  CHECK(c.get("input") ==
        "file:" + file + "#h@sha256-" + content_hash(tensors.at("h")).substr(0, 12));
  CHECK(expand_defaults(c) == c);
  CHECK(parse_case(line) == c);
  CHECK(make_inputs(c).at("x").bytes == tensors.at("h").bytes);
  CHECK(make_inputs(c).at("weight").bytes == tensors.at("weight").bytes);

  CHECK_THAT(refusal("rmsnorm fp16 - input=file:" + file + "#h"),
             ContainsSubstring("x is bf16 in its file, and the case says fp16"));
  CHECK_THAT(refusal("rmsnorm bf16 4x16 input=file:" + file + "#h"),
             ContainsSubstring("x has shape 2x3x16 in its file, and the case needs 4x16"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 weight.input=file:" + file),
             ContainsSubstring("weight has shape 16 in its file, and the case needs 8"));
  CHECK_THAT(refusal("rmsnorm bf16 - input=file:" + file),
             ContainsSubstring("has no tensor 'x'; it has: h, weight"));

  tensors.at("h").set_code(0, 0x3f80);
  write_safetensors(file, tensors);
  CHECK_THAT(refusal(line), ContainsSubstring("whose contents changed: the case says sha256-"));
}

TEST_CASE("a shift from a file needs no scale", "[inputs]") {
  const Folder folder;
  const std::string file = folder.file("in.safetensors");
  write_safetensors(file, {{"x", made("normal", FormatId::bf16, {2, 16})},
                           {"shift", made("ones", FormatId::fp32, {16})},
                           {"scale", made("ones", FormatId::fp32, {16})}});
  for (const char* norm : {"modulate", "ada_layernorm", "ada_rmsnorm"}) {
    const std::string shifted = std::string(norm) + " bf16 - input=file:" + file + " shift.input=file:" + file;
    const Case alone = expand_defaults(parse_case(shifted));
    CHECK(!make_inputs(alone).contains("scale"));
    CHECK(expand_defaults(alone) == alone);
    CHECK(make_inputs(parse_case(shifted + " scale.input=file:" + file)).contains("scale"));
    // A shift that is made is made beside a scale.
    CHECK(make_inputs(parse_case(std::string(norm) + " bf16 2x16 shift.input=normal")).contains("scale"));
  }
}

TEST_CASE("a path that is a file is held by its hash", "[inputs]") {
  const Folder folder;
  const std::string file = folder.file("my.path");
  std::ofstream(file) << "norm rmsnorm\n";
  const Case c = expand_defaults(parse_case("rmsnorm bf16 4x8 path=file:" + file));
  CHECK(c.get("path") ==
        "file:" + file + "@sha256-" +
            sha256_hex(std::as_bytes(std::span(std::string_view("norm rmsnorm\n")))).substr(0, 12));
  CHECK(expand_defaults(c) == c);
  CHECK(read_path_file(c.get("path")) == "norm rmsnorm\n");
  std::ofstream(file) << "norm layernorm\n";
  CHECK_THAT(refusal(print_case(c)),
             ContainsSubstring("the path file " + file + " changed: the case says sha256-"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 path=file:/nowhere.path"),
             ContainsSubstring("cannot read the path file '/nowhere.path'"));
}

TEST_CASE("SHA-256 gives the published digests", "[inputs]") {
  const auto digest = [](std::string_view text) {
    return sha256_hex(std::as_bytes(std::span(text)));
  };
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1'000'000, 'a');
  Sha256 in_pieces;
  for (std::size_t at = 0; at < million.size(); at += 999)
    in_pieces.add(std::as_bytes(std::span(std::string_view(million).substr(at, 999))));
  CHECK(in_pieces.hex() == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace norma
