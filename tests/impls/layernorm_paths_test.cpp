// LayerNorm's paths against the canonical norm: each builds, prints and parses; its erasure is LayerNorm, or differs by
// the gap it names and by nothing else; its bits lie near what it means, under every profile.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/exact/real.hpp"
#include "tests/impls/slips.hpp"

namespace norma::test {
namespace {

constexpr double kEps = 0.1;  // the double next to it: nothing may round it
constexpr std::int64_t kRows = 3;

std::vector<const CastPath*> layernorm_paths() {
  std::vector<const CastPath*> paths;
  for (const CastPath* path : all_cast_paths())
    if (path->norm == "layernorm") paths.push_back(path);
  return paths;
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> words;
  std::stringstream stream{std::string(list)};
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

bool builds(const CastPath& path, const Binding& binding) {
  try {
    static_cast<void>(build_path(path, binding));
    return true;
  } catch (const ProgramError&) {
    return false;
  }
}

// Every format of x and of the parameters, with and without what is optional, long and short rows, that the code takes.
std::vector<Binding> branches(const CastPath& path) {
  std::vector<Binding> all;
  for (const FormatId x : {FormatId::fp32, FormatId::bf16, FormatId::fp16})
    for (const FormatId parameter : {x, FormatId::fp32, FormatId::bf16})
      for (const bool with_optional : {false, true})
        for (const std::int64_t cols : {12, 7, 768}) {
          Binding binding;
          binding.x = x;
          binding.cols = cols;
          auto inputs = split(path.required);
          if (with_optional)
            for (const std::string& name : split(path.optional)) inputs.push_back(name);
          for (const std::string& name : inputs) binding.formats[name] = name == "residual" ? x : parameter;
          const bool seen = std::ranges::any_of(
              all, [&](const Binding& b) { return b.x == x && b.cols == cols && b.formats == binding.formats; });
          const bool short_rows = cols != 768 || path.name == "tensorrt.skip_layernorm.vector";
          if (!seen && short_rows && builds(path, binding)) all.push_back(binding);
        }
  return all;
}

Tensor random_tensor(std::mt19937_64& random, FormatId format, Shape shape, int low, int high) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const std::uint64_t bits = random();
    const double value = std::ldexp(1 + static_cast<double>(bits >> 44) * 0x1p-20,
                                    low + static_cast<int>(bits % static_cast<unsigned>(high - low + 1)));
    t.set_code(i, encode(format, (bits & 1024) != 0 ? value : -value, Overflow::saturate));
  }
  return t;
}

// Rows around 1, around 2^-7 (where eps rules), around 4; each with a mean of its own.
Tensors random_inputs(const Binding& binding, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Tensors tensors;
  const auto rows = [&](FormatId format) {
    Tensor t = random_tensor(random, format, {kRows, binding.cols}, -2, 1);
    const double scales[] = {1, 0x1p-7, 4};
    for (std::int64_t i = 0; i < t.size(); ++i) {
      const double scale = scales[i / binding.cols];
      t.set_code(i, encode(format, (t.value(i) + 0.75) * scale, Overflow::saturate));
    }
    return t;
  };
  tensors["x"] = rows(binding.x);
  for (const auto& [name, format] : binding.formats)
    tensors[name] = name == "residual" ? rows(format) : random_tensor(random, format, {binding.cols}, -2, 0);
  return tensors;
}

double epsilon_of(FormatId format) {
  return format == FormatId::bf16 ? 0x1p-7 : format == FormatId::fp16 ? 0x1p-10 : 0x1p-23;
}

// ---- the canonical norm, at any precision, from its formula ----

constexpr mpfr_prec_t kBits = 512;

struct Canonical {
  double eps = kEps;
  bool has_eps = true;
  double weight_offset = 0;
};

// `closed`: with the path's gap closed.
Canonical canonical_of(const CastPath& path, FormatId x, bool closed) {
  Canonical c;
  for (const CaseDefault& d : path.norm_attributes) {
    REQUIRE(d.key == "weight_offset");
    c.weight_offset = std::strtod(std::string(d.value).c_str(), nullptr);
  }
  if (!closed || path.gaps.empty()) return c;
  REQUIRE(path.gaps.size() == 1);
  if (path.gaps[0] == "no_eps")
    c.has_eps = false;
  else if (path.gaps[0] == "eps_finfo_input")
    c.eps = epsilon_of(x);
  else
    FAIL("a gap that no call closes: " << path.gaps[0]);
  return c;
}

using Row = std::vector<Interval>;

// y and the sum of x and the residual
std::pair<Row, Row> canonical_row(const Canonical& c, const Tensors& tensors, std::int64_t row) {
  const Tensor& x = tensors.at("x");
  const std::int64_t cols = x.cols();
  const auto real = [](double v) { return Interval(v, kBits); };
  const Interval n = real(static_cast<double>(cols));
  Row h, squares, y;
  for (std::int64_t j = 0; j < cols; ++j) {
    const std::int64_t at = row * cols + j;
    h.push_back(real(x.value(at)));
    if (tensors.contains("residual")) h.back() = add(h.back(), real(tensors.at("residual").value(at)));
  }
  const Interval mean = div(sum(h, kBits), n);
  for (const Interval& v : h) squares.push_back(square(sub(v, mean)));
  const Interval variance = div(sum(squares, kBits), n);
  const Interval root = sqrt(c.has_eps ? add(variance, real(c.eps)) : variance);
  for (std::int64_t j = 0; j < cols; ++j) {
    Interval v = div(sub(h[static_cast<std::size_t>(j)], mean), root);
    if (tensors.contains("weight")) v = mul(v, add(real(c.weight_offset), real(tensors.at("weight").value(j))));
    if (tensors.contains("bias")) v = add(v, real(tensors.at("bias").value(j)));
    y.push_back(v);
  }
  return {y, h};
}

struct Count {
  std::int64_t agree = 0, differ = 0;
};

// Intervals are narrower than 2^-200 of their values, or they do not count as agreement.
bool agree(const Interval& a, const Interval& b) {
  if (!a.is_real() || !b.is_real()) return false;
  for (const Interval* v : {&a, &b}) {
    Real width(kBits), least(kBits);
    mpfr_sub(width.get(), v->hi.get(), v->lo.get(), MPFR_RNDU);
    mpfr_mul_2si(least.get(), v->hi.get(), -200, MPFR_RNDD);
    if (mpfr_cmpabs(width.get(), least.get()) > 0) return false;
  }
  return mpfr_less_p(a.hi.get(), b.lo.get()) == 0 && mpfr_less_p(b.hi.get(), a.lo.get()) == 0;
}

Count judge(const Program& program, const Canonical& canonical, const Tensors& tensors) {
  const Program erased = erase_roundings(program);
  const RowEvaluator evaluator(erased, tensors, {{"eps", kEps}});
  Count count;
  for (std::int64_t row = 0; row < evaluator.rows(); ++row) {
    const auto [y, residual] = canonical_row(canonical, tensors, row);
    for (const ProgramOutput& output : erased.outputs) {
      const Row& want = output.name == "residual" ? residual : y;
      const Row got = evaluator.evaluate(output.value, row, kBits).of(output.value);
      REQUIRE(got.size() == want.size());
      for (std::size_t j = 0; j < got.size(); ++j) ++(agree(got[j], want[j]) ? count.agree : count.differ);
    }
  }
  return count;
}

}  // namespace

TEST_CASE("LayerNorm's paths build for what they take, and print what parses to the same", "[cast_paths]") {
  CHECK(layernorm_paths().size() >= 36);
  int programs = 0;
  for (const CastPath* path : layernorm_paths()) {
    CAPTURE(path->name);
    CHECK(std::strtod(std::string(path->eps_default).c_str(), nullptr) > 0);
    CHECK_FALSE(branches(*path).empty());
    for (Binding binding : branches(*path))
      for (const std::string_view profile : path->profiles) {
        binding.profile = profile;
        const Program program = build_path(*path, binding);
        const std::string text = print_program(program);
        CAPTURE(text);
        CHECK(program.norm == "layernorm");
        CHECK(parse_program(text, binding) == program);
        if (program.find_output("residual") != nullptr) CHECK(binding.has("residual"));
        const Node& y = program.nodes[static_cast<std::size_t>(program.find_output("y")->value.node)];
        if (path->tail != "E" && path->tail != "H") CHECK(y.rounding.format->id == binding.x);
        ++programs;
      }
  }
  CHECK(programs > 500);
}

TEST_CASE("erasures are LayerNorm, or differ by the gap named and by nothing else", "[cast_paths]") {
  for (const CastPath* path : layernorm_paths()) {
    std::uint64_t seed = 1;
    for (const Binding& branch : branches(*path)) {
      CAPTURE(path->name, name_of(branch.x), branch.cols, branch.formats.size());
      const Tensors tensors = random_inputs(branch, ++seed);
      const Program program = build_path(*path, branch);
      const Count count = judge(program, canonical_of(*path, branch.x, true), tensors);
      CHECK(count.agree > 0);
      CHECK(count.differ == 0);
      if (!path->gaps.empty()) CHECK(judge(program, canonical_of(*path, branch.x, false), tensors).differ > 0);
    }
  }
}

TEST_CASE("a slip in any step of a LayerNorm's transcription is found", "[cast_paths]") {
  int slips = 0;
  for (const CastPath* path : layernorm_paths()) {
    const Binding binding = branches(*path).back();
    const Tensors tensors = random_inputs(binding, 11);
    const Program program = build_path(*path, binding);
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      const std::optional<Program> wrong = slip(program, i);
      if (!wrong) continue;
      CAPTURE(path->name, program.nodes[i].names[0]);
      ++slips;
      CHECK(judge(*wrong, canonical_of(*path, binding.x, true), tensors).differ > 0);
    }
  }
  CHECK(slips > 200);
}

TEST_CASE("the bits of every LayerNorm under every profile lie near what it means", "[cast_paths]") {
  for (const CastPath* path : layernorm_paths())
    for (const Binding& branch : branches(*path))
      for (const std::string_view profile : path->profiles) {
        if (branch.cols == 12) continue;
        Binding binding = branch;
        binding.profile = profile;
        CAPTURE(path->name, name_of(branch.x), profile);
        const Program program = build_path(*path, binding);
        const Program meant = erase_roundings(program);
        const Tensors tensors = random_inputs(binding, 5);
        const Tensors ideal = emulate(program, tensors, {{"eps", kEps}});
        const Tensor& got = ideal.at("y");
        const auto truth = program_truth(meant, tensors, {{"eps", kEps}}, "y");
        // In T alone a row of 768 loses a bit a level of its sums; elsewhere the last roundings rule.
        const double roundings = path->tail == "F" ? 48 : 8;
        const int precision = std::min(format_of(got.format).precision, format_of(binding.x).precision);
        std::vector<Enclosure> row(static_cast<std::size_t>(binding.cols));
        std::int64_t far = 0;
        for (std::int64_t r = 0; r < kRows; ++r) {
          truth->enclose_row(r, row);
          for (std::int64_t j = 0; j < binding.cols; ++j) {
            const Enclosure& e = row[static_cast<std::size_t>(j)];
            const double bound =
                roundings * std::ldexp(1, 1 - precision) * (e.magnitude + 4) + 6 * min_subnormal(got.format);
            if (!(std::fabs(got.value(r * binding.cols + j) - e.hi) <= bound)) ++far;
          }
        }
        CHECK(far == 0);
      }
}

TEST_CASE("rows that four does not divide leave torch's vectorised LayerNorm", "[cast_paths]") {
  const CastPath& fused = *find_cast_path("torch.layer_norm.cuda");
  const CastPath& fallback = *find_cast_path("torch.layer_norm.cuda.fallback");
  Binding binding;
  binding.x = FormatId::bf16;
  binding.formats = {{"weight", FormatId::bf16}, {"bias", FormatId::bf16}};
  for (const std::string profile : {"", "cuda_warp"}) {
    binding.profile = profile;
    binding.cols = 127;
    CHECK(build_path(fused, binding) == build_path(fallback, binding));
    binding.cols = 128;
    CHECK_FALSE(build_path(fused, binding) == build_path(fallback, binding));
  }
}

}  // namespace norma::test
