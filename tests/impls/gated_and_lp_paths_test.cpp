// Paths and truths of rmsnorm_gated, l2norm and lp_norm against their formulas, evaluated here at 400 bits.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/exact/real.hpp"
#include "reference/norms/norm.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr mpfr_prec_t kBits = 400;
constexpr double kEps = 0.01;

std::vector<const CastPath*> paths_here() {
  std::vector<const CastPath*> paths;
  for (const CastPath* path : all_cast_paths())
    if (path->norm == "rmsnorm_gated" || path->norm == "l2norm" || path->norm == "lp_norm") paths.push_back(path);
  return paths;
}

std::vector<FormatId> formats_of(const CastPath& path) {
  if (path.name.starts_with("ggml.")) return {FormatId::fp32};
  return {FormatId::fp32, FormatId::bf16, FormatId::fp16};
}

bool groups_rows(const CastPath& path) {
  return path.name == "transformers.mamba2.rmsnorm_gated" || path.name == "transformers.zamba2.rmsnorm_gated" ||
         path.name.starts_with("mamba_ssm.");
}

struct Setting {
  const CastPath* path;
  Binding binding;
  Tensors tensors;
  NormCall call;  ///< its tensors are set by whoever uses it
  Attributes attributes;
};

Tensor numbers(Random& random, FormatId format, Shape shape, int low, int high) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double sign = random.below(2) == 0 ? 1 : -1;
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    t.set_code(i, encode(format, sign * std::ldexp(mantissa, random.between(low, high)), Overflow::saturate));
  }
  return t;
}

Setting setting_of(const CastPath& path, FormatId x, int groups, std::uint64_t seed, std::string_view profile = "") {
  Random random{seed};
  const Shape shape{3, 24};
  Setting s{.path = &path,
            .binding = {.x = x, .formats = {}, .attributes = {}, .cols = 24, .profile = std::string(profile)},
            .tensors = {},
            .call = {},
            .attributes = {}};
  s.binding.shape = shape;
  s.tensors["x"] = numbers(random, x, shape, -3, 2);
  for (const std::string_view list : {path.required, path.optional}) {
    std::stringstream names{std::string(list)};
    for (std::string name; std::getline(names, name, ',');) {
      s.binding.formats[name] = x;
      s.tensors[name] = name == "gate" ? numbers(random, x, shape, -4, 1) : numbers(random, x, {24}, -2, 0);
    }
  }
  s.call.numbers["eps"] = kEps;
  for (const CaseDefault& d : path.norm_attributes) {
    if (d.key == "eps")
      s.call.numbers["eps"] = std::strtod(std::string(d.value).c_str(), nullptr);
    else
      s.call.words[std::string(d.key)] = std::string(d.value);
  }
  s.attributes["eps"] = s.call.numbers["eps"];
  if (path.norm == "rmsnorm_gated") s.call.numbers["groups"] = s.attributes["groups"] = groups;
  s.binding.attributes = s.attributes;
  return s;
}

Interval exp_of(const Interval& a) {
  Interval result(a.bits());
  mpfr_exp(result.lo.get(), a.lo.get(), MPFR_RNDD);
  mpfr_exp(result.hi.get(), a.hi.get(), MPFR_RNDU);
  return result;
}

std::string word(const Setting& s, std::string_view key, std::string_view otherwise) {
  const auto found = s.call.words.find(key);
  return found == s.call.words.end() ? std::string(otherwise) : found->second;
}

std::vector<Interval> formula(const Setting& s, std::int64_t row) {
  const Tensor& x = s.tensors.at("x");
  const std::int64_t cols = x.cols();
  const auto real = [](double v) { return Interval(v, kBits); };
  const auto value = [&](const char* name, std::int64_t j) { return real(s.tensors.at(name).value(row * cols + j)); };
  const Interval one = real(1), eps = real(s.attributes.at("eps"));
  std::vector<Interval> y;
  if (s.path->norm != "rmsnorm_gated") {
    const std::string p = word(s, "p", "2");
    std::vector<Interval> terms;
    for (std::int64_t j = 0; j < cols; ++j) terms.push_back(p == "2" ? square(value("x", j)) : abs(value("x", j)));
    Interval length = sum(terms, kBits);
    if (p == "2") length = sqrt(length);
    for (std::int64_t j = 0; j < cols; ++j) y.push_back(div(value("x", j), max(length, eps)));
    return y;
  }
  const auto groups = static_cast<std::int64_t>(s.attributes.at("groups")), each = cols / groups;
  std::vector<Interval> h, a;
  for (std::int64_t j = 0; j < cols; ++j) {
    const Interval g = value("gate", j);
    const Interval sigmoid = div(one, add(one, exp_of(neg(g))));
    a.push_back(word(s, "activation", "silu") == "silu" ? mul(g, sigmoid) : sigmoid);
    h.push_back(word(s, "gate_place", "after") == "before" ? mul(value("x", j), a.back()) : value("x", j));
  }
  for (std::int64_t j = 0; j < cols; ++j) {
    std::vector<Interval> squares;
    for (std::int64_t k = 0; k < each; ++k) squares.push_back(square(h[static_cast<std::size_t>(j / each * each + k)]));
    Interval v =
        div(h[static_cast<std::size_t>(j)], sqrt(add(div(sum(squares, kBits), real(static_cast<double>(each))), eps)));
    if (s.tensors.contains("weight")) v = mul(v, real(s.tensors.at("weight").value(j)));
    if (word(s, "gate_place", "after") == "after") v = mul(v, a[static_cast<std::size_t>(j)]);
    y.push_back(v);
  }
  return y;
}

// Elements of `truth`, in memory order, that do not overlap the formula; -1: its enclosures are wide.
int differing(const Setting& s, const TruthSource& truth) {
  int differ = 0;
  std::vector<Enclosure> row(static_cast<std::size_t>(truth.cols()));
  const std::int64_t cols = s.tensors.at("x").cols();
  std::vector<Interval> want;
  for (std::int64_t r = 0; r < truth.rows(); ++r) {
    truth.enclose_row(r, row);
    for (std::size_t j = 0; j < row.size(); ++j) {
      const std::int64_t at = r * truth.cols() + static_cast<std::int64_t>(j);
      if (at % cols == 0) want = formula(s, at / cols);
      const Enclosure e = enclosure_of(want[static_cast<std::size_t>(at % cols)]);
      if (!(row[j].radius <= 0x1p-79 * std::fabs(row[j].hi))) return -1;
      const double distance = std::fabs((row[j].hi - e.hi) + (row[j].lo - e.lo));
      if (!(distance <= row[j].radius + e.radius + 0x1p-104 * std::fabs(e.hi))) ++differ;
    }
  }
  return differ;
}

template <typename Visit>
void for_settings(Visit visit) {
  std::uint64_t seed = 0;
  for (const CastPath* path : paths_here())
    for (const FormatId x : formats_of(*path))
      for (const int groups : {1, 3}) {
        if (groups > 1 && !groups_rows(*path)) continue;
        CAPTURE(path->name, name_of(x), groups);
        visit(setting_of(*path, x, groups, ++seed));
      }
}

}  // namespace

TEST_CASE("gated and Lp paths print what parses to the same, under every profile", "[cast_paths]") {
  CHECK(paths_here().size() >= 14);
  for_settings([](Setting s) {
    for (const std::string_view profile : s.path->profiles) {
      s.binding.profile = profile;
      const Program program = build_path(*s.path, s.binding);
      CAPTURE(profile, print_program(program));
      CHECK(program.norm == s.path->norm);
      CHECK(parse_program(print_program(program), s.binding) == program);
    }
  });
}

TEST_CASE("gated and Lp norms, and the erasures of their paths, are the formulas", "[cast_paths]") {
  for_settings([](Setting s) {
    s.call.inputs = &s.tensors;
    const NormDef* norm = find_norm(s.path->norm);
    REQUIRE(norm != nullptr);
    norm->check(s.call);
    CHECK(differing(s, *truth_of(*norm, s.call, "y", TruthKind::fast)) == 0);
    CHECK(differing(s, *truth_of(*norm, s.call, "y", TruthKind::mpfr)) == 0);
    const Program meant = erase_roundings(build_path(*s.path, s.binding));
    CHECK(differing(s, *program_truth(meant, s.tensors, s.attributes, "y")) == 0);
    // A slip in any product is found.
    for (std::size_t i = 0; i < meant.nodes.size(); ++i) {
      Program wrong = meant;
      Node& node = wrong.nodes[i];
      if (node.kind != NodeKind::map || (node.op != Op::mul && node.op != Op::div && node.op != Op::neg)) continue;
      if (s.path->name == "ggml.cuda.l2_norm" && node.names[0] == "eps_eps") continue;  // the length rules
      node.op = node.op == Op::mul ? Op::div : node.op == Op::div ? Op::mul : Op::cast;
      CAPTURE(node.names[0]);
      CHECK(differing(s, *program_truth(wrong, s.tensors, s.attributes, "y")) != 0);
    }
  });
}

TEST_CASE("bits of gated and Lp paths lie near what they mean", "[cast_paths]") {
  for_settings([](Setting s) {
    for (const std::string_view profile : s.path->profiles) {
      s.binding.profile = profile;
      const Program program = build_path(*s.path, s.binding);
      const Tensor got = emulate(program, s.tensors, s.attributes).at("y");
      const double unit = std::ldexp(1, 1 - format_of(s.binding.x).precision);
      const std::int64_t cols = got.cols();
      int far = 0;
      for (std::int64_t r = 0; r < got.rows(); ++r) {
        const std::vector<Interval> want = formula(s, r);
        for (std::int64_t j = 0; j < cols; ++j) {
          const double y = enclosure_of(want[static_cast<std::size_t>(j)]).hi;
          // fp32: some eight roundings; halves: at most four.
          if (!(std::fabs(got.value(r * cols + j) - y) <= 6 * unit * std::fabs(y))) ++far;
        }
      }
      CAPTURE(profile);
      CHECK(far == 0);
    }
  });
}

TEST_CASE("Lp norms of small numbers", "[cast_paths]") {
  Tensors tensors;
  tensors["x"] = Tensor::zeros(FormatId::fp32, {1, 4});
  for (int i = 0; i < 4; ++i) tensors["x"].set_code(i, encode(FormatId::fp32, i == 1 ? -5.0 : 1.0, Overflow::ieee));
  NormCall call{.inputs = &tensors, .numbers = {{"eps", 0}}, .words = {}};
  const NormDef& norm = *find_norm("lp_norm");
  const auto first = [&](const char* p) {
    call.words["p"] = p;
    return truth_of(norm, call, "y", TruthKind::fast)->enclose(0, 1);
  };
  CHECK(first("1").hi == -0.625);
  CHECK(first("1").radius == 0);
  CHECK(first("inf").hi == -1);
  CHECK(first("2").hi == -5 / std::sqrt(28.0));
  call.words["p"] = "inf";
  CHECK(truth_of(norm, call, "y", TruthKind::mpfr)->compare(0, 0, 0.2, 0) == Comparison::less);  // 0.2 is above 1/5
}

TEST_CASE("what gated norms do not take is refused in one sentence", "[cast_paths]") {
  Setting s = setting_of(*find_cast_path("transformers.mamba2.rmsnorm_gated"), FormatId::bf16, 1, 3);
  s.call.inputs = &s.tensors;
  const NormDef& norm = *find_norm("rmsnorm_gated");
  const auto refusal = [&] {
    try {
      norm.check(s.call);
    } catch (const NormError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal().empty());
  s.call.numbers["groups"] = 5;
  CHECK_THAT(refusal(), ContainsSubstring("groups=5 does not divide the 24 columns of x"));
  s.call.numbers["groups"] = 1.5;
  CHECK_THAT(refusal(), ContainsSubstring("groups") && ContainsSubstring("1.5"));
  s.call.numbers["groups"] = 1;
  s.tensors.erase("gate");
  CHECK_THAT(refusal(), ContainsSubstring("gate"));
}

}  // namespace norma::test
