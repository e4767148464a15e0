#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "harness/cases/case.hpp"
#include "harness/cases/files.hpp"
#include "harness/cases/number.hpp"

namespace norma {

namespace {

std::vector<std::string> printed(std::string_view line) {
  std::vector<std::string> lines;
  for (const Case& c : expand_cases(line)) lines.push_back(print_case(c));
  return lines;
}

std::string refusal(std::string_view line) {
  try {
    expand_cases(line);
  } catch (const CaseError& error) {
    return error.what();
  }
  return "accepted";
}

using Catch::Matchers::ContainsSubstring;
using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("a case prints in the canonical order of keys", "[cases]") {
  const Case c = parse_case(
      "rmsnorm  bf16 4x3072 seed=3 input=normal weight.input=ones weight.format=fp32 quant=none "
      "eps_place=inside eps=1e-6 "
      "profile=torch_cpu path=diffusers.rmsnorm");
  CHECK(print_case(c) ==
        "rmsnorm bf16 4x3072 path=diffusers.rmsnorm profile=torch_cpu eps=1e-6 eps_place=inside "
        "quant=none "
        "weight.format=fp32 weight.input=ones input=normal seed=3");
  CHECK(c.get("eps") == "1e-6");
  CHECK(c.get("weight_offset").empty());
  CHECK(c.shape == Shape{4, 3072});
  CHECK(parse_case("rmsnorm fp16 - x.input=file:a.safetensors#x").get("input") ==
        "file:a.safetensors#x");
  CHECK(print_case(parse_case("rmsnorm fp16 - input=file:a.safetensors#x # why")) ==
        "rmsnorm fp16 - input=file:a.safetensors#x");
}

TEST_CASE("parse and print are inverse on random cases", "[cases]") {
  std::mt19937_64 random(20);  // raw words only: a distribution would differ between libraries
  const auto pick = [&](const auto& list) { return list[random() % std::size(list)]; };
  const char* const paths[] = {"", "bfl.flux.rmsnorm", "file:my path.path", "file:{odd}.path"};
  const char* const shapes[] = {"-", "1", "4x8", "2x3x576"};
  const char* const inputs[] = {"", "normal", "massive/1", "file:a b\"c\\d.safetensors#x",
                                "file:x#1..8"};
  const char* const numbers[] = {"", "1e-6", "0x1p-20", "0", "1_0.5"};
  for (int round = 0; round < 2000; ++round) {
    Case c{.norm = "rmsnorm", .format = pick(kFormats).id, .shape = std::nullopt, .keys = {}};
    if (const std::string shape = pick(shapes); shape != "-") c.shape = parse_shape(shape);
    const auto set = [&](const char* key, const std::string& value) {
      if (!value.empty()) c.keys[key] = value;
    };
    set("path", pick(paths));
    set("input", pick(inputs));
    set("weight.input", pick(inputs));
    set("eps", pick(numbers));
    set("weight_offset", pick(numbers));
    if (random() % 2 == 0) set("weight.format", std::string(pick(kFormats).name));
    if (random() % 2 == 0) set("bias.shape", "8");
    if (random() % 2 == 0) set("seed", std::to_string(random()));
    const std::string line = print_case(c);
    CAPTURE(line);
    REQUIRE(parse_case(line) == c);
    REQUIRE(print_case(parse_case(line)) == line);
  }
}

TEST_CASE("braces and ranges stand for several cases, the last word varying fastest", "[cases]") {
  CHECK(printed("rmsnorm {bf16,fp16} 4x{8,16} seed=1..2") ==
        Lines{"rmsnorm bf16 4x8 seed=1", "rmsnorm bf16 4x8 seed=2", "rmsnorm bf16 4x16 seed=1",
              "rmsnorm bf16 4x16 seed=2", "rmsnorm fp16 4x8 seed=1", "rmsnorm fp16 4x8 seed=2",
              "rmsnorm fp16 4x16 seed=1", "rmsnorm fp16 4x16 seed=2"});
  CHECK(printed("rmsnorm fp32 1..2x7..8") ==
        Lines{"rmsnorm fp32 1x7", "rmsnorm fp32 1x8", "rmsnorm fp32 2x7", "rmsnorm fp32 2x8"});
  CHECK(printed("rmsnorm fp32 1x8 seed={1..2,7}") ==
        Lines{"rmsnorm fp32 1x8 seed=1", "rmsnorm fp32 1x8 seed=2", "rmsnorm fp32 1x8 seed=7"});
  CHECK(printed("rmsnorm fp32 1x8 {weight,bias}.format=fp16") ==
        Lines{"rmsnorm fp32 1x8 weight.format=fp16", "rmsnorm fp32 1x8 bias.format=fp16"});
  CHECK(printed("rmsnorm fp32 1x8 bias.shape=7..8").size() == 2);
  CHECK(printed("rmsnorm fp32 1x8 input=file:../a#x") ==
        Lines{"rmsnorm fp32 1x8 input=\"file:../a#x\""});
  CHECK(refusal("rmsnorm fp32 1x8 seed={1,2") == "the brace in 'seed={1,2' is not closed");
  CHECK(refusal("rmsnorm fp32 1x8 seed=1,2}") == "'seed=1,2}' closes a brace that is not open");
  CHECK(refusal("rmsnorm fp32 1x8 seed={1,{2,3}}") == "braces within braces in 'seed={1,{2,3}}'");
  CHECK(refusal("rmsnorm fp32 1x8 seed={1,}") == "an empty alternative in 'seed={1,}'");
  CHECK(refusal("rmsnorm fp32 1x8 seed=8..1") == "the range '8..1' goes down; write 1..8");
  CHECK(refusal("rmsnorm fp32 1x8 seed=1..2000000") ==
        "the range '1..2000000' has more than 1000000 values");
  CHECK(refusal("rmsnorm fp32 1..2000x1..2000") == "a line may stand for at most 1000000 cases");
  CHECK_THROWS_WITH(parse_case("rmsnorm fp32 1x8 seed=1..2"),
                    ContainsSubstring("stands for 2 cases"));
}

TEST_CASE("a pattern of paths stands for the norm's paths that match", "[cases]") {
  CHECK(printed("rmsnorm {fp32,bf16} 1x8 path=bfl.*") ==
        Lines{"rmsnorm fp32 1x8 path=bfl.flux.rmsnorm", "rmsnorm fp32 1x8 path=bfl.flux.rmsnorm.scale_fp32",
              "rmsnorm fp32 1x8 path=bfl.flux2.rmsnorm", "rmsnorm bf16 1x8 path=bfl.flux.rmsnorm",
              "rmsnorm bf16 1x8 path=bfl.flux.rmsnorm.scale_fp32", "rmsnorm bf16 1x8 path=bfl.flux2.rmsnorm"});
  CHECK(printed("{layernorm,rmsnorm} fp32 1x8 path=mlx.fast.*") ==
        Lines{"layernorm fp32 1x8 path=mlx.fast.layer_norm", "rmsnorm fp32 1x8 path=mlx.fast.rms_norm"});
  CHECK(printed("rmsnorm fp32 1x8 path=torch.rms_norm.2_?") ==
        Lines{"rmsnorm fp32 1x8 path=torch.rms_norm.2_6", "rmsnorm fp32 1x8 path=torch.rms_norm.2_8"});
  CHECK(refusal("rmsnorm fp32 1x8 path=frob.*") ==
        "path=frob.* matches no path of rmsnorm; 'norma list paths --norm rmsnorm' prints the known ones");
  // Paths whose blocks of columns, 32 and 16, do not divide the rows are left out; one that is named is not.
  const auto matching = [](const std::string& shape) { return printed("rmsnorm bf16 " + shape + " path=transformer_engine.*"); };
  CHECK(printed("rmsnorm bf16 2x64 path=*mxfp8*").size() == 2);
  CHECK(matching("2x48").size() == matching("2x64").size() - 2);
  CHECK(matching("2x33").size() == matching("2x64").size() - 3);
  CHECK(matching("-").size() == matching("2x64").size());
  CHECK(printed("rmsnorm bf16 2x48 path=transformer_engine.rmsnorm.cudnn.mxfp8").size() == 1);
  CHECK(refusal("rmsnorm bf16 2x33 path=*nvfp4") ==
        "path=*nvfp4 matches only paths whose blocks of columns must divide the rows, as those of 16 of "
        "transformer_engine.rmsnorm.nvfp4 do not divide shape 2x33's");
  // A path of another norm is no match.
  CHECK_THAT(refusal("layernorm fp32 1x8 path=bfl.flux*"), ContainsSubstring("matches no path of layernorm"));
  CHECK_THROWS_WITH(parse_case("rmsnorm fp32 1x8 path=bfl.*"), ContainsSubstring("stands for 3 cases"));
}

TEST_CASE("a case reports the unknown word and the known ones", "[cases]") {
  CHECK_THAT(refusal("rmsnrm bf16 4x8"),
             ContainsSubstring("unknown norm or block 'rmsnrm'; norms: ") && ContainsSubstring("rmsnorm"));
  CHECK(refusal("rmsnorm bf17 4x8") ==
        "unknown format 'bf17'; known: fp64, fp32, tf32, bf16, fp16, e4m3fn, e5m2, e4m3fnuz, "
        "e5m2fnuz, e2m1");
  CHECK_THAT(refusal("rmsnorm bf16 4x8 sed=3"),
             ContainsSubstring("unknown key 'sed' for rmsnorm; known: path, profile, eps, ") &&
                 ContainsSubstring("input, seed"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 wait.format=fp32"),
             ContainsSubstring(
                 "unknown tensor 'wait' in 'wait.format'; inputs of rmsnorm: x, weight, bias"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 weight.kind=fp32"),
             ContainsSubstring("unknown key 'weight.kind'"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 weight.format=f32"),
             ContainsSubstring("unknown format 'f32'"));
  CHECK_THAT(
      refusal("rmsnorm bf16 4x8 path=bfl.flux.rms"),
      ContainsSubstring("unknown path 'bfl.flux.rms'; there are bfl.flux.rmsnorm,"));
  CHECK_THAT(refusal("rmsnorm bf16 4x8 profile=gpu"),
             ContainsSubstring("unknown profile 'gpu'; known: torch_cpu"));
  CHECK_THAT(
      refusal("rmsnorm bf16 4x8 eps_place=outsid"),
      ContainsSubstring("eps_place=outsid is not a choice of rmsnorm; known: inside|sum|outside"));
  CHECK(refusal("rmsnorm bf16 4x8 x.format=fp32") ==
        "'x.format' is not a key: x's format is the case's second word");
  CHECK(refusal("rmsnorm bf16 4x8 seed") == "'seed' is not key=value");
  CHECK(refusal("rmsnorm bf16 4x8 seed=") == "'seed=' has no value");
  CHECK(refusal("rmsnorm bf16 4x8 seed=1 seed=2") ==
        "'seed=2' sets a key that the line has set before");
  CHECK(refusal("rmsnorm bf16 4x8 input=normal x.input=ones") ==
        "'x.input=ones' sets a key that the line has set before");
  CHECK(refusal("rmsnorm bf16") ==
        "'rmsnorm bf16' has no SHAPE; a case is NORM FORMAT SHAPE key=value ...");
  CHECK(refusal("") == "an empty case; a case is NORM FORMAT SHAPE key=value ...");
  CHECK_THAT(refusal("rmsnorm bf16 4x8 input=\"file:a"), ContainsSubstring("is not closed"));
}

TEST_CASE("a case refuses values that no norm can take", "[cases]") {
  CHECK(refusal("rmsnorm bf16 4x8 eps=-1e-6") ==
        "eps=-1e-6 is negative; eps is finite and at least 0");
  CHECK(refusal("rmsnorm bf16 4x8 eps=inf") ==
        "eps=inf is not finite; eps is finite and at least 0");
  CHECK(refusal("rmsnorm bf16 4x8 eps=1e999") ==
        "eps=1e999 is not finite; eps is finite and at least 0");
  CHECK(refusal("rmsnorm bf16 4x8 eps=nan") == "eps=nan is not a number");
  CHECK(refusal("rmsnorm bf16 4x8 eps=small") == "eps=small is not a number");
  CHECK(refusal("rmsnorm bf16 4x8 seed=-1") == "seed=-1 is not an integer from 0 to 2^64 - 1");
  CHECK(refusal("rmsnorm bf16 4x8 seed=18446744073709551615") == "accepted");
  CHECK(refusal("rmsnorm bf16 4x8 seed=18446744073709551616") ==
        "seed=18446744073709551616 is not an integer from 0 to 2^64 - 1");
  CHECK(refusal("rmsnorm bf16 0x8") == "shape '0x8' has the side 0; every side is at least 1");
  CHECK(refusal("rmsnorm bf16 4x-8") == "shape '4x-8' has the side -8; every side is at least 1");
  CHECK(refusal("rmsnorm bf16 4x") ==
        "'4x' is not a shape; write 4x3072, or '-' when a file gives x's");
  CHECK_THAT(refusal("rmsnorm bf16 4by8"), ContainsSubstring("is not a shape"));
  CHECK(refusal("rmsnorm bf16 1048576x1048575") == "accepted");
  CHECK(refusal("rmsnorm bf16 1048576x1048576") ==
        "shape '1048576x1048576' has 2^40 elements or more");
  CHECK(refusal("rmsnorm bf16 99999999999999999999") ==
        "shape '99999999999999999999' has 2^40 elements or more");
  CHECK_THAT(refusal("rmsnorm bf16 4x8 weight.shape=0"), ContainsSubstring("has the side 0"));
}

TEST_CASE("numbers are read as Python reads them", "[cases]") {
  CHECK(parse_number("1e-6") == 1e-6);
  CHECK(parse_number("+.5") == 0.5);
  CHECK(parse_number("5.") == 5.0);
  CHECK(parse_number("1_000.5") == 1000.5);
  CHECK(parse_number("0x1p-20") == 0x1p-20);
  CHECK(parse_number("-0X1.8P+1") == -3.0);
  CHECK(parse_number("0x.8") == 0.5);
  CHECK(parse_number("Infinity") == INFINITY);
  CHECK(parse_number("-inf") == -INFINITY);
  CHECK(std::isnan(parse_number("nan").value()));
  CHECK(parse_number("1e999") == INFINITY);
  CHECK(parse_number("-1e-999") == 0.0);
  CHECK(parse_number("0.0000001e-400") == 0.0);
  CHECK(parse_number("0x1p2000") == INFINITY);
  CHECK(parse_number("4.9e-324") == 0x1p-1074);
  CHECK(parse_number("0.1") == 0.1);
  CHECK(parse_number("2.00000000000000011102230246251565404236316680908203126") == 2.0);
  for (const char* bad : {"", "+", "--1", "+-1", "1e", "e5", "1 ", "0x", "1__0", "_1", "1_",
                          "nan(1)", "1,5", "0x1p", "1f"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_number(bad).has_value());
  }
  CHECK(print_number(1e-6) == "1e-6");
  CHECK(print_number(0x1p-20) == "9.5367431640625e-7");
  CHECK(print_number(1e300) == "1e300");
  CHECK(print_number(448) == "448");
  CHECK(print_number(INFINITY) == "inf");
  std::mt19937_64 random(3);
  for (int i = 0; i < 20000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (std::isfinite(value)) REQUIRE(parse_number(print_number(value)) == value);
  }
}

TEST_CASE("attributes come as numbers and words", "[cases]") {
  const CaseAttributes a =
      attributes_of(parse_case("rmsnorm bf16 4x8 eps=0x1p-20 eps_place=outside"));
  CHECK(a.numbers == Attributes{{"eps", 0x1p-20}});
  CHECK(a.words.at("eps_place") == "outside");
}

TEST_CASE("a cases file names file and line of a mistake", "[cases]") {
  const auto cases =
      read_cases("# title\n\n  rmsnorm bf16 4x8 seed=1..2\r\n# more\nrmsnorm fp32 1x8", "a.cases");
  REQUIRE(cases.size() == 3);
  CHECK(cases[1].origin == "a.cases:3");
  CHECK(cases[2].origin == "a.cases:5");
  CHECK_THROWS_WITH(read_cases("\nrmsnorm bf16 4x0\n", "a.cases"),
                    "a.cases:2: shape '4x0' has the side 0; every side is at least 1");
  CHECK_THROWS_WITH(read_cases_file("/nowhere/x.cases"),
                    "cannot read the cases file /nowhere/x.cases");
  CHECK_THROWS_WITH(read_cases_file("/tmp"), "/tmp is a folder, not a .cases file");
}

TEST_CASE("words of a command line form cases without quotes", "[cases]") {
  const auto gathered = [](const Lines& words) {
    Lines lines;
    for (const LocatedCase& c : gather_cases(words)) lines.push_back(print_case(c.value));
    return lines;
  };
  CHECK(gathered({"rmsnorm", "bf16", "4x8", "seed=1", "rmsnorm", "fp32", "1x8"}) ==
        Lines{"rmsnorm bf16 4x8 seed=1", "rmsnorm fp32 1x8"});
  CHECK(gathered({"rmsnorm bf16 4x8 seed=1..2", "rmsnorm", "fp32", "-",
                  "input=file:a b.safetensors#x"}) ==
        Lines{"rmsnorm bf16 4x8 seed=1", "rmsnorm bf16 4x8 seed=2",
              "rmsnorm fp32 - input=\"file:a b.safetensors#x\""});
  CHECK(gathered({"rmsnorm", "fp32", "1x8", "@smoke"}).size() > 10);
  CHECK_THROWS_WITH(gathered({"@smok"}),
                    ContainsSubstring("unknown suite '@smok'; known: @smoke, @main"));
  CHECK_THROWS_WITH(gathered({"rmsnrm", "bf16"}),
                    ContainsSubstring("'rmsnrm' begins with no norm or block"));
}

TEST_CASE("every built-in suite reads and has a title", "[cases]") {
  for (const Suite& suite : all_suites()) {
    CAPTURE(suite.name);
    CHECK_FALSE(title_of(suite).empty());
    CHECK_FALSE(read_cases(suite.text, "@" + std::string(suite.name)).empty());
  }
}

}  // namespace norma
