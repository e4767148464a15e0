// Paths of gradients against the gradient itself: each builds, prints and parses; its erasure is the derivative of the
// forward's formula and nothing else; its bits lie near what it means, under every profile.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/exact/real.hpp"
#include "tests/impls/slips.hpp"

namespace norma::test {
namespace {

constexpr double kEps = 0.1;  // the double next to it: nothing may round it
constexpr mpfr_prec_t kBits = 256;

std::vector<const CastPath*> gradient_paths() {
  std::vector<const CastPath*> paths;
  for (const CastPath* path : all_cast_paths())
    if (path->norm.ends_with("_backward")) paths.push_back(path);
  return paths;
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> words;
  std::stringstream stream{std::string(list)};
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

bool of_rows(const CastPath& path) { return path.norm.starts_with("rmsnorm") || path.norm.starts_with("layernorm"); }
bool of_tokens(const CastPath& path) { return path.norm.starts_with("modulate") || path.norm.starts_with("gated"); }

Shape shape_of(const CastPath& path) {
  if (of_rows(path)) return {5, 19};
  if (of_tokens(path)) return {2, 7, 5};
  return {3, 6, 2, 4};
}

Attributes attributes_of(const CastPath& path) {
  Attributes attributes;
  if (!of_tokens(path)) attributes["eps"] = kEps;
  if (path.norm == "groupnorm_backward") attributes["groups"] = 2;
  return attributes;
}

std::string refusal(const CastPath& path, const Binding& binding) {
  try {
    static_cast<void>(build_path(path, binding));
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "";
}

// Every format of x and of the parameters, with and without a weight, that the code takes.
std::vector<Binding> branches(const CastPath& path, Shape shape) {
  std::vector<Binding> all;
  for (const FormatId x : {FormatId::fp32, FormatId::bf16, FormatId::fp16})
    for (const FormatId parameter : {x, FormatId::fp32})
      for (const bool with_optional : {false, true}) {
        Binding binding{.x = x,
                        .formats = {},
                        .attributes = attributes_of(path),
                        .cols = shape.back(),
                        .profile = "",
                        .shape = shape};
        auto inputs = split(path.required);
        if (with_optional)
          for (const std::string& name : split(path.optional)) inputs.push_back(name);
        for (const std::string& name : inputs) binding.formats[name] = name == "dy" ? x : parameter;
        const bool seen =
            std::ranges::any_of(all, [&](const Binding& b) { return b.x == x && b.formats == binding.formats; });
        if (!seen && refusal(path, binding).empty()) all.push_back(binding);
      }
  return all;
}
std::vector<Binding> branches(const CastPath& path) {
  // torch takes fp32 channels-last in whole vectors of 8 channels, or fewer than 8
  return branches(path, shape_of(path));
}

Tensor random_tensor(std::mt19937_64& random, FormatId format, Shape shape, double offset) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const std::uint64_t bits = random();
    const double value = std::ldexp(1 + static_cast<double>(bits >> 44) * 0x1p-20, static_cast<int>(bits % 3) - 2);
    t.set_code(i, encode(format, offset + ((bits & 1024) != 0 ? value : -value), Overflow::saturate));
  }
  return t;
}

Tensors random_inputs(const CastPath& path, const Binding& binding, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Shape& shape = binding.shape;
  const Shape parameters = of_rows(path)     ? Shape{shape.back()}
                           : of_tokens(path) ? Shape{shape[0], 1, shape[2]}
                                             : Shape{shape[1]};
  Tensors tensors;
  tensors["x"] = random_tensor(random, binding.x, shape, 0.75);
  for (const auto& [name, format] : binding.formats) {
    tensors[name] = random_tensor(random, format, name == "dy" ? shape : parameters, 0);
    if (name != "running_var") continue;
    Tensor& var = tensors[name];
    for (std::int64_t i = 0; i < var.size(); ++i)
      var.set_code(i, encode(format, std::fabs(var.value(i)), Overflow::ieee));
  }
  return tensors;
}

// ---- the gradient, from its formula ----

Interval real(double v) { return Interval(v, kBits); }

struct Gradient {
  std::map<std::string, std::vector<Interval>, std::less<>> outputs;
};

/// y = w (x - c) R + b: elements of one statistic and of one parameter are those of equal index.
struct Indices {
  std::function<std::size_t(std::int64_t)> statistic, parameter;
  std::size_t statistics = 0, parameters = 0;
};

Indices indices_of(const CastPath& path, const Binding& binding) {
  const auto index = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const Shape& s = binding.shape;
  if (of_rows(path)) {
    const std::int64_t cols = s.back();
    return {[=](std::int64_t e) { return index(e / cols); }, [=](std::int64_t e) { return index(e % cols); },
            index(s[0]), index(cols)};
  }
  const std::int64_t channels = s[1], positions = element_count(s) / (s[0] * channels);
  const auto channel = [=](std::int64_t e) { return index(e / positions % channels); };
  if (path.norm == "batchnorm_backward") return {channel, channel, index(channels), index(channels)};
  const std::int64_t groups = path.norm == "groupnorm_backward" ? 2 : channels;
  const std::int64_t each = channels / groups * positions;
  return {[=](std::int64_t e) { return index(e / each); }, channel, index(s[0] * groups), index(channels)};
}

Gradient gradient_of_norm(const CastPath& path, const Binding& binding, const Tensors& tensors) {
  const Indices at = indices_of(path, binding);
  const Tensor &x = tensors.at("x"), &dy = tensors.at("dy");
  const bool centred = path.norm != "rmsnorm_backward", given = tensors.contains("running_mean");
  double weight_offset = 0;
  for (const CaseDefault& d : path.norm_attributes)
    if (d.key == "weight_offset") weight_offset = std::strtod(std::string(d.value).c_str(), nullptr);
  std::vector<Interval> count(at.statistics, real(0)), mean(count), var(count), r(count), g_sum(count), gd_sum(count);
  for (std::int64_t e = 0; e < x.size(); ++e) {
    const std::size_t s = at.statistic(e);
    count[s] = add(count[s], real(1));
    if (centred) mean[s] = add(mean[s], real(x.value(e)));
  }
  for (std::size_t s = 0; s < at.statistics; ++s)
    mean[s] = given ? real(tensors.at("running_mean").value(static_cast<std::int64_t>(s))) : div(mean[s], count[s]);
  const auto centre = [&](std::int64_t e) { return sub(real(x.value(e)), mean[at.statistic(e)]); };
  for (std::int64_t e = 0; e < x.size(); ++e) {
    const std::size_t s = at.statistic(e);
    var[s] = add(var[s], square(centre(e)));
  }
  for (std::size_t s = 0; s < at.statistics; ++s) {
    const Interval v =
        given ? real(tensors.at("running_var").value(static_cast<std::int64_t>(s))) : div(var[s], count[s]);
    r[s] = div(real(1), sqrt(add(v, real(kEps))));
  }
  const auto weighted = [&](std::int64_t e) {
    const Interval d = real(dy.value(e));
    if (!tensors.contains("weight")) return d;
    const double w = tensors.at("weight").value(static_cast<std::int64_t>(at.parameter(e)));
    return mul(d, add(real(weight_offset), real(w)));
  };
  for (std::int64_t e = 0; e < x.size(); ++e) {
    const std::size_t s = at.statistic(e);
    g_sum[s] = add(g_sum[s], weighted(e));
    gd_sum[s] = add(gd_sum[s], mul(weighted(e), centre(e)));
  }
  Gradient result;
  auto& dweight = result.outputs["dweight"];
  auto& dbias = result.outputs["dbias"];
  dweight.assign(at.parameters, real(0));
  dbias = dweight;
  for (std::int64_t e = 0; e < x.size(); ++e) {
    const std::size_t s = at.statistic(e), p = at.parameter(e);
    const Interval g = weighted(e), d = centre(e);
    Interval dx = mul(g, r[s]);
    if (!given) {
      if (centred) dx = mul(sub(g, div(g_sum[s], count[s])), r[s]);
      const Interval cube = mul(mul(r[s], r[s]), r[s]);
      dx = sub(dx, mul(mul(cube, d), div(gd_sum[s], count[s])));
    }
    result.outputs["dx"].push_back(dx);
    dweight[p] = add(dweight[p], mul(real(dy.value(e)), mul(d, r[s])));
    dbias[p] = add(dbias[p], real(dy.value(e)));
  }
  return result;
}

Gradient gradient_of_modulation(const CastPath& path, const Binding& binding, const Tensors& tensors) {
  const Tensor &x = tensors.at("x"), &dy = tensors.at("dy");
  const bool gated = path.norm.starts_with("gated");
  const Tensor& factor = tensors.at(gated ? "gate" : "scale");
  const double offset = gated || !path.norm_attributes.empty() ? 0 : 1;
  const std::int64_t cols = binding.shape[2], sample = binding.shape[1] * cols;
  Gradient result;
  std::vector<Interval> products(static_cast<std::size_t>(factor.size()), real(0)), sums(products);
  for (std::int64_t e = 0; e < x.size(); ++e) {
    const std::int64_t p = e / sample * cols + e % cols;
    const auto at = static_cast<std::size_t>(p);
    result.outputs["dx"].push_back(mul(real(dy.value(e)), add(real(offset), real(factor.value(p)))));
    result.outputs["dresidual"].push_back(real(dy.value(e)));
    products[at] = add(products[at], mul(real(dy.value(e)), real(x.value(e))));
    sums[at] = add(sums[at], real(dy.value(e)));
  }
  result.outputs["dscale"] = products;
  result.outputs["dgate"] = products;
  result.outputs["dshift"] = sums;
  return result;
}

Gradient gradient_of(const CastPath& path, const Binding& binding, const Tensors& tensors) {
  return of_tokens(path) ? gradient_of_modulation(path, binding, tensors) : gradient_of_norm(path, binding, tensors);
}

double near(const Interval& v) { return mpfr_get_d(v.hi.get(), MPFR_RNDN); }

double largest(const std::vector<Interval>& values) {
  double most = 0;
  for (const Interval& v : values) most = std::max(most, std::fabs(near(v)));
  return most;
}

struct Count {
  std::int64_t agree = 0, differ = 0;
};

std::vector<std::string> outputs_of(const Program& program) {
  std::vector<std::string> names;
  for (const Program* stage : stages_of(program))
    for (const ProgramOutput& output : stage->outputs)
      if (!output.passed) names.push_back(output.name);
  return names;
}

// Elements that lie within 2^-70 of the largest of their tensor.
Count judge(const Program& program, const Gradient& right, const Tensors& tensors, const Attributes& attributes) {
  const Program erased = erase_roundings(program);
  Count count;
  for (const std::string& name : outputs_of(program)) {
    const std::vector<Interval>& want = right.outputs.at(name);
    const auto truth = program_truth(erased, tensors, attributes, name);
    if (truth->rows() * truth->cols() != static_cast<std::int64_t>(want.size())) {
      ++count.differ;
      continue;
    }
    const double bound = 0x1p-70 * largest(want);
    std::vector<Enclosure> row(static_cast<std::size_t>(truth->cols()));
    for (std::int64_t i = 0; i < truth->rows(); ++i) {
      truth->enclose_row(i, row);
      for (std::size_t j = 0; j < row.size(); ++j) {
        const Interval& w = want[static_cast<std::size_t>(i) * row.size() + j];
        const Interval off = sub(sub(w, real(row[j].hi)), real(row[j].lo));
        const bool close = row[j].radius <= bound && std::fabs(near(off)) <= bound;
        ++(close ? count.agree : count.differ);
      }
    }
  }
  return count;
}

}  // namespace

TEST_CASE("gradients' paths build for what they take, and print what parses to the same", "[cast_paths]") {
  CHECK(gradient_paths().size() >= 24);
  int programs = 0;
  for (const CastPath* path : gradient_paths()) {
    CAPTURE(path->name);
    CHECK_FALSE(branches(*path).empty());
    CHECK(path->gaps.empty());
    for (Binding binding : branches(*path))
      for (const std::string_view profile : path->profiles) {
        binding.profile = profile;
        if (!refusal(*path, binding).empty()) {
          CHECK(profile == "exact");  // moments have no exact order
          continue;
        }
        const Program program = build_path(*path, binding);
        CAPTURE(print_program(program));
        CHECK(program.norm == path->norm);
        CHECK(parse_program(print_program(program), binding) == program);
        const Program* first = stage_of(program, "dx");
        REQUIRE(first != nullptr);
        const Node& dx = first->nodes[static_cast<std::size_t>(first->find_output("dx")->value.node)];
        CHECK(dx.rounding.format->id == binding.x);
        ++programs;
      }
  }
  CHECK(programs > 150);
}

TEST_CASE("erasures are the gradients of the forward's formula", "[cast_paths]") {
  for (const CastPath* path : gradient_paths()) {
    std::uint64_t seed = 1;
    for (const Binding& branch : branches(*path)) {
      CAPTURE(path->name, name_of(branch.x), branch.formats.size());
      const Tensors tensors = random_inputs(*path, branch, ++seed);
      const Count count =
          judge(build_path(*path, branch), gradient_of(*path, branch, tensors), tensors, branch.attributes);
      CHECK(count.agree >= tensors.at("x").size());
      CHECK(count.differ == 0);
    }
  }
}

TEST_CASE("a slip in any step of a gradient's transcription is found", "[cast_paths]") {
  int slips = 0;
  for (const CastPath* path : gradient_paths()) {
    const Binding binding = branches(*path).back();
    const Tensors tensors = random_inputs(*path, binding, 11);
    const Program program = build_path(*path, binding);
    const Gradient right = gradient_of(*path, binding, tensors);
    for (std::size_t stage = 0; stage <= program.stages.size(); ++stage) {
      const bool own = stage == program.stages.size();
      const Program& of = own ? program : program.stages[stage];
      for (std::size_t i = 0; i < of.nodes.size(); ++i) {
        std::optional<Program> wrong = slip(of, i);
        if (!wrong) continue;
        CAPTURE(path->name, stage, of.nodes[i].names[0]);
        if (!own) {
          Program whole = program;
          whole.stages[stage] = *wrong;
          wrong = whole;
        }
        ++slips;
        CHECK(judge(*wrong, right, tensors, binding.attributes).differ > 0);
      }
    }
  }
  CHECK(slips > 250);
}

TEST_CASE("the bits of every gradient under every profile lie near what it means", "[cast_paths]") {
  for (const CastPath* path : gradient_paths())
    for (const Binding& branch : branches(*path)) {
      const Tensors tensors = random_inputs(*path, branch, 5);
      const Gradient right = gradient_of(*path, branch, tensors);
      for (const std::string_view profile : path->profiles) {
        Binding binding = branch;
        binding.profile = profile;
        if (!refusal(*path, binding).empty()) continue;
        CAPTURE(path->name, name_of(branch.x), profile);
        for (const auto& [name, got] : emulate(build_path(*path, binding), tensors, branch.attributes)) {
          CAPTURE(name);
          const std::vector<Interval>& want = right.outputs.at(name);
          REQUIRE(got.size() == static_cast<std::int64_t>(want.size()));
          // Statistics in T, sums of 24 terms that grow row by row in T: some roundings of T in all.
          const double bound = 24 * std::ldexp(1, -format_of(binding.x).precision) * (4 + largest(want));
          std::int64_t far = 0;
          for (std::int64_t i = 0; i < got.size(); ++i)
            far += !(std::fabs(got.value(i) - near(want[static_cast<std::size_t>(i)])) <= bound) ? 1 : 0;
          CHECK(far == 0);
        }
      }
    }
}

TEST_CASE("a matrix is the tokens of one sample", "[cast_paths]") {
  const CastPath& path = *find_cast_path("torch.modulate_backward");
  Binding binding{.x = FormatId::bf16,
                  .formats = {{"dy", FormatId::bf16}, {"scale", FormatId::bf16}},
                  .attributes = {},
                  .cols = 5,
                  .profile = "",
                  .shape = {2, 7, 5}};
  CHECK(build_path(path, binding).view.kind == ViewKind::tokens);
  binding.shape = {7, 5};
  CHECK(build_path(path, binding).view.kind == ViewKind::columns);
}

TEST_CASE("a fused sum rounds once, a 16-bit buffer after fp32", "[cast_paths]") {
  const auto sum_of = [](std::string_view reduce, FormatId format, std::vector<double> x, std::vector<double> y) {
    Tensors tensors;
    for (const auto& [name, values] : {std::pair{"x", x}, std::pair{"dy", y}}) {
      Tensor& t = tensors[name] = Tensor::zeros(FormatId::fp32, {1, static_cast<std::int64_t>(values.size())});
      for (std::int64_t i = 0; i < t.size(); ++i)
        t.set_code(i, encode(FormatId::fp32, values[static_cast<std::size_t>(i)], Overflow::ieee));
    }
    const Binding binding{.x = FormatId::fp32,
                          .formats = {{"dy", FormatId::fp32}},
                          .attributes = {},
                          .cols = 2,
                          .profile = "",
                          .shape = {}};
    const Program program = parse_program("norm rmsnorm_backward\nin x:T dy:fp32\np = mul fp64 x, dy\nout dx = sum " +
                                              std::string(name_of(format)) + " p order=" + std::string(reduce) + "\n",
                                          binding);
    return emulate(program, tensors, {}).at("dx").value(0);
  };
  // 1 + 2^-23 and just less than half an ulp: binary64 holds the tie only
  const std::vector<double> a{1 + 0x1p-23, 0x1p-12 + 0x1p-35}, b{1, 0x1p-12 - 0x1p-35};
  CHECK(sum_of("sequential contract=fma", FormatId::fp32, a, b) == std::fma(float(a[1]), float(b[1]), float(a[0])));
  CHECK(sum_of("sequential contract=fma", FormatId::fp32, a, b) == 1 + 0x1p-23);
  // 1 + 2^-8 + 2^-28: fp32 makes it a tie
  CHECK(sum_of("sequential contract=fma", FormatId::bf16, {1, 0x1p-8}, {1, 1 + 0x1p-20}) == 1 + 0x1p-7);
  CHECK(sum_of("through_fp32 contract=fma", FormatId::bf16, {1, 0x1p-8}, {1, 1 + 0x1p-20}) == 1);
}

TEST_CASE("gradients refuse what the transcriptions do not cover, in one sentence", "[cast_paths]") {
  using Catch::Matchers::ContainsSubstring;
  const auto said = [](std::string_view path, Shape shape, FormatId x = FormatId::fp32, FormatId dy = FormatId::fp32) {
    Binding binding{.x = x,
                    .formats = {{"dy", dy}},
                    .attributes = {{"eps", kEps}},
                    .cols = shape.back(),
                    .profile = "",
                    .shape = shape};
    if (path.find("group_norm") != std::string_view::npos) binding.attributes["groups"] = 2;
    return refusal(*find_cast_path(path), binding);
  };
  CHECK_THAT(said("torch.batch_norm_backward.cpu.train.channels_last", {2, 9, 4, 4}),
             ContainsSubstring("x has 9 channels"));
  CHECK(said("torch.batch_norm_backward.cpu.train.channels_last", {2, 16, 4, 4}).empty());
  CHECK_THAT(said("torch.batch_norm_backward.cpu.train", {1, 6}), ContainsSubstring("at least two"));
  CHECK_THAT(said("torch.group_norm_backward.cpu.channels_last", {1, 6, 64, 32}), ContainsSubstring("2048 positions"));
  CHECK_THAT(said("torch.layer_norm_backward.cpu", {4, 8}, FormatId::bf16, FormatId::fp32),
             ContainsSubstring("dy is fp32"));
  CHECK_THAT(said("torch.batch_norm_backward.cpu.eval", {2, 6, 4}),
             ContainsSubstring("needs the input 'running_mean'"));
}

}  // namespace norma::test
