// The catalogue against itself; its paths of RMSNorm against the canonical norm: each builds, prints and
// parses; its classes say what its program does; its erasure is the canonical norm, or differs by
// the gap it names and by nothing else. Other norms' paths have tests of their own.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/exact/real.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/slips.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr FormatId kFloats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16};
constexpr mpfr_prec_t kBits = 512;

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> words;
  std::stringstream stream{std::string(list)};
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> known) {
  return std::find(known.begin(), known.end(), word) != known.end();
}

bool has_gap(const CastPath& path, std::string_view gap) {
  return std::ranges::find(path.gaps, gap) != path.gaps.end();
}

// What each project's code takes as x, beyond which it refuses.
std::vector<FormatId> formats_taken(const CastPath& path) {
  if (path.name.starts_with("amd.iron.")) return {FormatId::bf16};
  if (path.name.starts_with("flashinfer.") || path.name.starts_with("sgl_kernel.") ||
      path.name.starts_with("sglang.cpu."))
    return {FormatId::bf16, FormatId::fp16};
  if (path.name.starts_with("ggml.")) return {FormatId::fp32};
  if (path.name == "onnxruntime.cpu.simplified_layernorm") return {FormatId::fp32, FormatId::fp16};
  return {std::begin(kFloats), std::end(kFloats)};
}

enum class Optional { without, with };

// Every input in x's format, a scale in fp32.
Binding uniform_binding(const CastPath& path, FormatId x, Optional optional, std::int64_t cols = 12) {
  Binding binding{.x = x, .formats = {}, .attributes = {}, .cols = cols, .profile = ""};
  auto inputs = split(path.required);
  if (optional == Optional::with)
    for (const std::string& name : split(path.optional)) inputs.push_back(name);
  for (const std::string& name : inputs) binding.formats[name] = name == "scale" ? FormatId::fp32 : x;
  return binding;
}

// They take whole blocks of columns and have tests of their own (block_scale_paths_test).
bool into_blocks(const CastPath& path) {
  return std::ranges::any_of(path.norm_attributes, [](const CaseDefault& d) {
    return d.key == "quant" && (d.value.starts_with("mx") || d.value.starts_with("nv"));
  });
}

std::vector<const CastPath*> rmsnorm_paths() {
  std::vector<const CastPath*> paths;
  for (const CastPath* path : all_cast_paths())
    if (path->norm == "rmsnorm" && !into_blocks(*path)) paths.push_back(path);
  return paths;
}

const CastPath& path_named(std::string_view name) {
  const CastPath* path = find_cast_path(name);
  REQUIRE(path != nullptr);
  return *path;
}

std::string refusal(const CastPath& path, const Binding& binding) {
  try {
    static_cast<void>(build_path(path, binding));
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "";
}

// ---- what a program does ----

const Node& node_of(const Program& p, const Operand& o) { return p.nodes[static_cast<std::size_t>(o.node)]; }
FormatId format_at(const Program& p, const Operand& o) {
  const Node& node = node_of(p, o);
  REQUIRE(node.rounding.format.has_value());
  return node.rounding.format->id;
}
const Node* named(const Program& p, std::string_view name) {
  const auto found = p.find_value(name);
  return found ? &node_of(p, *found) : nullptr;
}
bool has_op(const Program& p, Op op) {
  return std::ranges::any_of(p.nodes, [&](const Node& n) { return n.kind == NodeKind::map && n.op == op; });
}
const Node& first_reduce(const Program& p) {
  const auto found = std::ranges::find(p.nodes, NodeKind::reduce, &Node::kind);
  REQUIRE(found != p.nodes.end());
  return *found;
}

// The step at which the weight meets the data: the operands of the first product with the weight in
// it, through casts of the weight and sums with a constant.
struct Meeting {
  Operand data;    // the other factor
  Operand factor;  // the weight, or constant + weight
  bool plus_one = false;
};
std::optional<Meeting> meeting(const Program& p) {
  std::set<int> carriers;  // values that are the weight, cast or shifted
  bool plus_one = false;
  for (std::size_t i = 0; i < p.nodes.size(); ++i) {
    const Node& node = p.nodes[i];
    const int at = static_cast<int>(i);
    if (node.kind == NodeKind::input && node.names[0] == "weight") carriers.insert(at);
    if (node.kind != NodeKind::map) continue;
    const auto carries = [&](const Operand& o) { return carriers.contains(o.node); };
    if (!std::ranges::any_of(node.operands, carries)) continue;
    if (node.op == Op::cast || node.op == Op::add) {
      carriers.insert(at);
      for (const Operand& o : node.operands)
        plus_one = plus_one || (node_of(p, o).kind == NodeKind::constant && node_of(p, o).constant == 1);
    } else if (node.op == Op::mul || node.op == Op::fma) {
      const bool first = carries(node.operands[0]);
      return Meeting{node.operands[first ? 1 : 0], node.operands[first ? 0 : 1], plus_one};
    }
  }
  return std::nullopt;
}

// The attribute eps rounded to `format` at some step, directly or after fp32.
bool rounds_eps_to(const Program& p, FormatId format) {
  std::set<int> carriers;
  bool found = false;
  for (std::size_t i = 0; i < p.nodes.size(); ++i) {
    const Node& node = p.nodes[i];
    if (node.kind == NodeKind::attribute && node.names[0] == "eps") carriers.insert(static_cast<int>(i));
    if (node.kind != NodeKind::map || node.op != Op::cast || !carriers.contains(node.operands[0].node)) continue;
    carriers.insert(static_cast<int>(i));
    found = found || node.rounding.format->id == format;
  }
  return found;
}
bool has_constant(const Program& p, double value) {
  return std::ranges::any_of(p.nodes,
                             [&](const Node& n) { return n.kind == NodeKind::constant && n.constant == value; });
}

double epsilon_of(FormatId format) {
  return format == FormatId::bf16 ? 0x1p-7 : format == FormatId::fp16 ? 0x1p-10 : 0x1p-23;
}

// ---- rows to judge erasures on ----

Tensor random_tensor(Random& random, FormatId format, Shape shape, int low, int high) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double sign = random.below(2) == 0 ? 1 : -1;
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    t.set_code(i, encode(format, sign * std::ldexp(mantissa, random.between(low, high)), Overflow::saturate));
  }
  return t;
}

// Rows around 1, around 2^-7 (where eps rules), around 4; each with a spread of 2^3.
Tensors random_inputs(const Binding& binding, std::uint64_t seed) {
  Random random{seed};
  Tensors tensors;
  const Shape shape{3, binding.cols};
  const auto rows = [&](FormatId format) {
    Tensor t = random_tensor(random, format, shape, -2, 1);
    const double scales[] = {1, 0x1p-7, 4};
    for (std::int64_t i = 0; i < t.size(); ++i)
      t.set_code(i, encode(format, t.value(i) * scales[i / binding.cols], Overflow::saturate));
    return t;
  };
  tensors["x"] = rows(binding.x);
  for (const auto& [name, format] : binding.formats) {
    if (name == "residual")
      tensors[name] = rows(format);
    else if (name == "scale")
      tensors[name] = random_tensor(random, format, {}, -6, -6);
    else
      tensors[name] = random_tensor(random, format, {binding.cols}, -2, 0);
  }
  if (tensors.contains("scale")) {
    Tensor& scale = tensors.at("scale");
    scale.set_code(0, scale.code(0) & 0x7fff'ffff);  // positive
  }
  return tensors;
}

// ---- the canonical norm, at any precision, from its formula ----

struct Canonical {
  double eps = 0;
  std::string eps_place = "inside";
  double weight_offset = 0;
  std::string quant = "none";
  double quant_max = 448, scale_floor = 0, scale_cap = std::numeric_limits<double>::infinity();
};

Canonical canonical_of(const CastPath& path, double eps) {
  Canonical c{.eps = eps};
  for (const CaseDefault& d : path.norm_attributes) {
    const std::string value(d.value);
    if (d.key == "eps_place")
      c.eps_place = value;
    else if (d.key == "quant")
      c.quant = value;
    else if (d.key == "weight_offset")
      c.weight_offset = std::strtod(value.c_str(), nullptr);
    else if (d.key == "quant_max")
      c.quant_max = std::strtod(value.c_str(), nullptr);
    else if (d.key == "scale_floor")
      c.scale_floor = std::strtod(value.c_str(), nullptr);
    else
      FAIL("an attribute that the norm lacks: " << d.key);
  }
  return c;
}

using Row = std::vector<Interval>;
struct CanonicalRow {
  Row y, residual, scale;
};

CanonicalRow canonical_row(const Canonical& c, const Tensors& tensors, std::int64_t row) {
  const Tensor& x = tensors.at("x");
  const std::int64_t cols = x.cols();
  const auto real = [](double v) { return Interval(v, kBits); };
  CanonicalRow out;
  std::vector<Interval> squares;
  for (std::int64_t j = 0; j < cols; ++j) {
    Interval h = real(x.value(row * cols + j));
    if (tensors.contains("residual")) h = add(h, real(tensors.at("residual").value(row * cols + j)));
    out.residual.push_back(h);
    squares.push_back(square(h));
  }
  const Interval total = sum(squares, kBits);
  const Interval n = real(static_cast<double>(cols));
  const Interval eps = real(c.eps);
  const Interval mean = div(total, n);
  const Interval one = real(1);
  Interval r(kBits);
  if (c.eps_place == "inside")
    r = div(one, sqrt(add(mean, eps)));
  else if (c.eps_place == "sum")
    r = div(one, sqrt(add(total, eps)));
  else if (c.eps_place == "outside")
    r = div(one, add(sqrt(mean), eps));
  else if (c.eps_place == "max")
    r = div(one, max(sqrt(mean), eps));
  else if (c.eps_place == "l2max")
    r = div(sqrt(n), max(sqrt(total), eps));
  else if (c.eps_place == "none")
    r = div(one, sqrt(mean));
  else
    FAIL("no such place: " << c.eps_place);
  Interval largest = real(0);
  for (std::int64_t j = 0; j < cols; ++j) {
    Interval y = mul(out.residual[static_cast<std::size_t>(j)], r);
    if (tensors.contains("weight")) y = mul(y, add(real(c.weight_offset), real(tensors.at("weight").value(j))));
    if (tensors.contains("bias")) y = add(y, real(tensors.at("bias").value(j)));
    largest = max(largest, abs(y));
    out.y.push_back(y);
  }
  if (c.quant == "none") return out;
  Interval scale = c.quant == "static" ? real(tensors.at("scale").value(0)) : real(0);
  if (c.quant == "per_token") scale = max(div(min(largest, real(c.scale_cap)), real(c.quant_max)), real(c.scale_floor));
  out.scale.push_back(scale);
  for (Interval& y : out.y) y = div(y, scale);
  return out;
}

enum class Verdict { agree, differ, vague };

// Vague: an interval is wider than 2^-200 of its value, so that agreement would say little.
Verdict compare_intervals(const Interval& a, const Interval& b) {
  if (!a.is_real() || !b.is_real()) return Verdict::vague;
  for (const Interval* v : {&a, &b}) {
    Real width(kBits), least(kBits);
    mpfr_sub(width.get(), v->hi.get(), v->lo.get(), MPFR_RNDU);
    mpfr_mul_2si(least.get(), v->hi.get(), -200, MPFR_RNDD);
    if (mpfr_cmpabs(width.get(), least.get()) > 0) return Verdict::vague;
  }
  const bool apart = mpfr_less_p(a.hi.get(), b.lo.get()) != 0 || mpfr_less_p(b.hi.get(), a.lo.get()) != 0;
  return apart ? Verdict::differ : Verdict::agree;
}

struct Count {
  int agree = 0, differ = 0, vague = 0;
};

// Every element of every output of the erasure against the formula.
Count judge(const Program& program, const Canonical& canonical, const Tensors& tensors, double eps) {
  const Program erased = erase_roundings(program);
  Attributes attributes{{"eps", eps}};
  if (canonical.scale_cap < std::numeric_limits<double>::infinity()) attributes["scale_cap"] = canonical.scale_cap;
  const RowEvaluator evaluator(erased, tensors, attributes);
  Count count;
  for (std::int64_t row = 0; row < evaluator.rows(); ++row) {
    const CanonicalRow right = canonical_row(canonical, tensors, row);
    for (const ProgramOutput& output : erased.outputs) {
      const Row& want = output.name == "residual" ? right.residual : output.name == "scale" ? right.scale : right.y;
      const Row got = evaluator.evaluate(output.value, row, kBits).of(output.value);
      REQUIRE(got.size() == want.size());
      for (std::size_t j = 0; j < got.size(); ++j) {
        switch (compare_intervals(got[j], want[j])) {
          case Verdict::agree: ++count.agree; break;
          case Verdict::differ: ++count.differ; break;
          case Verdict::vague: ++count.vague; break;
        }
      }
    }
  }
  return count;
}

void require_agreement(const Count& count) {
  CHECK(count.differ == 0);
  CHECK(count.vague == 0);
  CHECK(count.agree > 0);
}

// The catalogue's own truth, not this file's formula: enclosures overlap and have radii below 2^-99
// of the value.
void require_same_truth(const CastPath& path, const Program& program, const Tensors& tensors, double eps) {
  const NormDef* norm = find_norm(path.norm);
  REQUIRE(norm != nullptr);
  NormCall call{.inputs = &tensors, .numbers = {{"eps", eps}}, .words = {}};
  for (const CaseDefault& d : path.norm_attributes) {
    const auto attribute = std::ranges::find(norm->attributes, d.key, &NormAttribute::name);
    REQUIRE(attribute != norm->attributes.end());
    if (attribute->choices.empty())
      call.numbers[std::string(d.key)] = std::strtod(std::string(d.value).c_str(), nullptr);
    else
      call.words[std::string(d.key)] = std::string(d.value);
  }
  norm->check(call);
  const Program meant = erase_roundings(program);
  const Attributes attributes{{"eps", eps}};
  for (const ProgramOutput& output : meant.outputs) {
    const auto canonical = norm->truth(call, output.name);
    const auto erased = program_truth(meant, tensors, attributes, output.name);
    REQUIRE(canonical->rows() == erased->rows());
    REQUIRE(canonical->cols() == erased->cols());
    const auto cols = static_cast<std::size_t>(canonical->cols());
    std::vector<Enclosure> a(cols), b(cols);
    for (std::int64_t row = 0; row < canonical->rows(); ++row) {
      canonical->enclose_row(row, a);
      erased->enclose_row(row, b);
      for (std::size_t j = 0; j < cols; ++j) {
        const double distance = std::fabs((a[j].hi - b[j].hi) + (a[j].lo - b[j].lo));
        const double least = 0x1p-99 * std::fmax(a[j].magnitude, b[j].magnitude);
        CHECK(a[j].radius <= least);
        CHECK(b[j].radius <= least);
        CHECK(distance <= a[j].radius + b[j].radius + 0x1p-105 * std::fabs(a[j].hi));
      }
    }
  }
}

// Bindings under which the code takes its branches on formats, inputs and lengths.
std::vector<Binding> branches(const CastPath& path) {
  std::vector<Binding> all;
  for (const FormatId x : formats_taken(path))
    for (const Optional optional : {Optional::without, Optional::with}) {
      all.push_back(uniform_binding(path, x, optional, 12));
      all.push_back(uniform_binding(path, x, optional, 7));
      for (const FormatId other : {FormatId::fp32, FormatId::bf16, FormatId::e4m3fn}) {
        Binding mixed = uniform_binding(path, x, optional);
        for (auto& [name, format] : mixed.formats)
          if (name != "scale") format = other;
        if (mixed.formats.contains("weight") && refusal(path, mixed).empty()) all.push_back(mixed);
      }
    }
  return all;
}

}  // namespace

TEST_CASE("the catalogue lists each path once, completely", "[cast_paths]") {
  std::set<std::string_view> names;
  for (const CastPath* path : all_cast_paths()) {
    CAPTURE(path->name);
    CHECK(names.insert(path->name).second);
    CHECK(find_cast_path(path->name) == path);
    CHECK(find_norm(path->norm) != nullptr);
    for (const std::string_view text : {path->title, path->source.project, path->source.file})
      CHECK_FALSE(text.empty());
    CHECK(one_of(path->source.evidence, {"read", "quoted", "inferred"}));
    CHECK_FALSE(path->profiles.empty());
    for (const std::string_view profile : path->profiles) CHECK(find_profile(profile) != nullptr);
    if (path->norm != "rmsnorm") continue;
    for (const std::string_view text : {path->eps_default, path->eps_class, path->root, path->tail})
      CHECK_FALSE(text.empty());
    CHECK(one_of(path->eps_place, {"inside", "sum", "outside", "max", "l2max", "none"}));
    CHECK(one_of(path->eps_class, {"exact", "fp32", "rounded to T", "finfo(T)", "finfo(fp32)", "hard-coded"}));
    CHECK(one_of(path->tail, {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"}));
    CHECK(one_of(path->residual, {"", "unrounded", "rounded", "fp32 for fp16 only"}));
    char* end = nullptr;
    const std::string eps(path->eps_default);
    CHECK(std::strtod(eps.c_str(), &end) > 0);
    CHECK(*end == '\0');
  }
  CHECK(names.size() >= 109);
  CHECK(find_cast_path("no.such.path") == nullptr);
}

TEST_CASE("profiles are named once and their orders print and parse", "[cast_paths]") {
  std::set<std::string_view> names;
  for (const Profile& profile : all_profiles()) {
    CAPTURE(profile.name);
    CHECK(names.insert(profile.name).second);
    CHECK(find_profile(profile.name) == &profile);
    CHECK_FALSE(profile.title.empty());
    for (const Order& order : {profile.sum, profile.sum_half}) CHECK(parse_order(text_of(order)) == order);
  }
  CHECK(find_profile("no_such_profile") == nullptr);
}

TEST_CASE("every path builds for its formats and profiles, and prints what parses to the same", "[cast_paths]") {
  for (const CastPath* path : rmsnorm_paths()) {
    CAPTURE(path->name);
    const std::vector<FormatId> taken = formats_taken(*path);
    for (const FormatId x : kFloats)
      for (const Optional optional : {Optional::without, Optional::with}) {
        const Binding binding = uniform_binding(*path, x, optional);
        const std::string why = refusal(*path, binding);
        CAPTURE(name_of(x), why);
        CHECK(why.empty() == (std::ranges::find(taken, x) != taken.end()));
      }
    for (Binding binding : branches(*path))
      for (const std::string_view profile : path->profiles) {
        binding.profile = profile;
        const Program program = build_path(*path, binding);
        const std::string text = print_program(program);
        CAPTURE(text);
        CHECK(program.norm == path->norm);
        CHECK(parse_program(text, binding) == program);
        CHECK((program.find_output("residual") != nullptr) == binding.has("residual"));
        CHECK((program.find_output("scale") != nullptr) == (canonical_of(*path, 1).quant == "per_token"));
      }
    // No profile named is the first one named.
    Binding binding = uniform_binding(*path, taken[0], Optional::without);
    const Program by_default = build_path(*path, binding);
    binding.profile = path->profiles.front();
    CHECK(build_path(*path, binding) == by_default);
  }
}

TEST_CASE("what the code does not take is refused by name", "[cast_paths]") {
  const CastPath& llama = path_named("meta.llama.rmsnorm");
  Binding binding = uniform_binding(llama, FormatId::bf16, Optional::without);
  CHECK(refusal(llama, binding).empty());
  Binding changed = binding;
  changed.formats.erase("weight");
  CHECK_THAT(refusal(llama, changed), ContainsSubstring("weight") && ContainsSubstring("meta.llama.rmsnorm"));
  changed = binding;
  changed.formats["bias"] = FormatId::bf16;
  CHECK_THAT(refusal(llama, changed), ContainsSubstring("bias") && ContainsSubstring("weight"));
  changed = binding;
  changed.profile = "abacus";
  CHECK_THAT(refusal(llama, changed), ContainsSubstring("abacus") && ContainsSubstring("torch_cpu"));
  changed = binding;
  changed.x = FormatId::fp64;
  CHECK_THAT(refusal(llama, changed), ContainsSubstring("fp64") && ContainsSubstring("fp16"));
  changed = binding;
  changed.formats["weight"] = FormatId::e4m3fn;
  CHECK_THAT(refusal(llama, changed), ContainsSubstring("e4m3fn"));
  const CastPath& vllm = path_named("vllm.rms_norm.new");
  changed = binding;
  changed.formats["weight"] = FormatId::fp32;
  CHECK_THAT(refusal(vllm, changed), ContainsSubstring("fp32") && ContainsSubstring("bf16"));
}

TEST_CASE("a row's classes say what its program does", "[cast_paths]") {
  for (const CastPath* path : rmsnorm_paths()) {
    CAPTURE(path->name);
    const std::vector<FormatId> taken = formats_taken(*path);
    const FormatId x = std::ranges::find(taken, FormatId::fp16) != taken.end() ? FormatId::fp16 : taken[0];
    Binding binding = uniform_binding(*path, x, Optional::with);
    const bool exact = std::ranges::find(path->profiles, "exact") != path->profiles.end();
    binding.profile = exact ? "exact" : "cuda_warp";  // roots are one rsqrt under both
    if (path->tail == "E" && x != FormatId::fp32) binding.formats["weight"] = FormatId::fp32;
    const Program p = build_path(*path, binding);
    CAPTURE(print_program(p));

    // eps
    const bool uses_eps = named(p, "eps") != nullptr;
    if (path->eps_class == "fp32") {
      CHECK(uses_eps == (path->eps_place != "none"));
      CHECK_FALSE(rounds_eps_to(p, FormatId::fp16));
    } else if (path->eps_class == "rounded to T") {
      CHECK(rounds_eps_to(p, x));
    } else if (path->eps_class == "finfo(T)") {
      CHECK_FALSE(uses_eps);
      CHECK(has_constant(p, epsilon_of(x)));
      CHECK(has_gap(*path, "eps_finfo_input"));
    } else if (path->eps_class == "finfo(fp32)") {
      CHECK_FALSE(uses_eps);
      CHECK(has_constant(p, 0x1p-23));
      CHECK(has_gap(*path, "eps_finfo_fp32"));
    } else if (path->eps_class == "hard-coded") {
      CHECK_FALSE(uses_eps);
      CHECK(has_constant(p, std::strtod(std::string(path->eps_default).c_str(), nullptr)));
      CHECK(has_gap(*path, "eps_hard_coded"));
    }
    const bool canonical_place = canonical_of(*path, 1).eps_place == path->eps_place;
    const bool names_place = has_gap(*path, "eps_on_sum") || has_gap(*path, "eps_outside") ||
                             has_gap(*path, "eps_max") || has_gap(*path, "eps_l2max") || has_gap(*path, "no_eps");
    CHECK(canonical_place != names_place);
    CHECK(has_op(p, Op::max) == one_of(path->eps_place, {"max", "l2max"}));

    // root
    if (path->root.starts_with("x/")) CHECK(has_op(p, Op::div));
    if (path->root == "1/sqrt") CHECK((has_op(p, Op::sqrt) && has_op(p, Op::reciprocal)));
    if (path->root.starts_with("rsqrt") || path->root.starts_with("pow"))
      CHECK(has_op(p, Op::rsqrt));
    else
      CHECK_FALSE(has_op(p, Op::rsqrt));

    // tail
    const FormatId out = format_at(p, p.find_output("y")->value);
    const auto m = meeting(p);
    CHECK(m.has_value() == binding.has("weight"));
    if (m && path->tail == "D") {  // fp16 weights here
      CHECK(m->plus_one);
      CHECK(format_at(p, m->factor) == x);
    }
    if (m && one_of(path->tail, {"A", "I"})) {
      CHECK(format_at(p, m->data) == x);
      CHECK_FALSE(m->plus_one);
    }
    if (m && one_of(path->tail, {"B", "C"})) {
      CHECK(format_at(p, m->data) == FormatId::fp32);
      CHECK(node_of(p, m->data).axes.has(Axis::cols));
      CHECK(m->plus_one == (path->tail == "C"));
    }
    if (m && path->tail == "C") CHECK(format_at(p, m->factor) == FormatId::fp32);
    if (m && path->tail == "H") CHECK_FALSE(node_of(p, m->data).axes.has(Axis::cols));
    if (path->tail == "E") CHECK(out == FormatId::fp32);
    if (path->tail == "F") {  // what is summed is in T, and so is what the sum is used as
      const auto sums = std::ranges::find(p.nodes, NodeKind::reduce, &Node::kind);
      CHECK(format_at(p, sums->operands[0]) == x);
      for (const Node& node : p.nodes)
        for (const Operand& o : node.operands)
          if (o.node == sums - p.nodes.begin()) CHECK((node.op == Op::cast && node.rounding.format->id == x));
    }
    if (path->tail != "E" && canonical_of(*path, 1).quant == "none") CHECK(out == x);
    if (canonical_of(*path, 1).quant != "none") CHECK(format_of(out).code_bits == 8);
    CHECK((canonical_of(*path, 1).weight_offset == 1) == one_of(path->tail, {"C", "D"}));

    // residual
    CHECK(binding.has("residual") == !path->residual.empty());
    const FormatId summed = format_at(p, first_reduce(p).operands[0]);
    if (path->residual == "rounded") CHECK(summed == x);
    if (path->residual == "unrounded" || path->residual == "fp32 for fp16 only") CHECK(summed == FormatId::fp32);
    if (path->residual == "fp32 for fp16 only") {
      const Program bf16 = build_path(*path, uniform_binding(*path, FormatId::bf16, Optional::with));
      CHECK(format_at(bf16, first_reduce(bf16).operands[0]) == FormatId::bf16);
    }
  }
}

TEST_CASE("erasures are the canonical norm, or differ by the gap named and by nothing else", "[cast_paths]") {
  constexpr double kEps = 0.1;  // the double next to it: nothing may round it
  for (const CastPath* path : rmsnorm_paths()) {
    std::uint64_t seed = 1;
    for (const Binding& branch : branches(*path)) {
      CAPTURE(path->name, name_of(branch.x), branch.cols, branch.formats.size());
      const Tensors tensors = random_inputs(branch, ++seed);
      const Program program = build_path(*path, branch);
      Canonical canonical = canonical_of(*path, kEps);
      double eps = kEps;
      if (path->gaps.empty()) {
        require_agreement(judge(program, canonical, tensors, eps));
        continue;
      }
      REQUIRE(path->gaps.size() == 1);
      const std::string_view gap = path->gaps[0];
      if (gap == "clamp") continue;  // below
      CHECK(judge(program, canonical, tensors, eps).differ > 0);
      // The same call with the gap closed.
      if (gap == "eps_hard_coded")
        eps = canonical.eps = std::strtod(std::string(path->eps_default).c_str(), nullptr);
      else if (gap == "eps_finfo_input")
        eps = canonical.eps = epsilon_of(branch.x);
      else if (gap == "eps_finfo_fp32")
        eps = canonical.eps = 0x1p-23;
      else
        canonical.eps_place = path->eps_place;
      require_agreement(judge(program, canonical, tensors, eps));
    }
  }
}

TEST_CASE("a clamp is a gap where it acts, and only there", "[cast_paths]") {
  for (const CastPath* path : rmsnorm_paths()) {
    if (!has_gap(*path, "clamp")) continue;
    CAPTURE(path->name);
    for (const Optional optional : {Optional::without, Optional::with}) {
      Binding binding = uniform_binding(*path, FormatId::bf16, optional);
      Tensors tensors = random_inputs(binding, 7);
      Canonical canonical = canonical_of(*path, 0.1);
      require_agreement(judge(build_path(*path, binding), canonical, tensors, 0.1));
      if (canonical.quant == "static") {
        const Program program = build_path(*path, binding);
        const double most = max_finite(format_at(program, program.find_output("y")->value));
        tensors["scale"].set_code(0, encode(FormatId::fp32, 0x1p-12 * 448 / most, Overflow::ieee));
      } else {
        canonical.scale_cap = 0.25;
        binding.attributes["scale_cap"] = 0.25;
      }
      const Count clamped = judge(build_path(*path, binding), canonical, tensors, 0.1);
      CHECK(clamped.differ > 0);
      CHECK(clamped.agree > 0);
    }
  }
}

TEST_CASE("erasures agree with the catalogue of norms", "[cast_paths]") {
  for (const CastPath* path : rmsnorm_paths()) {
    if (!path->gaps.empty() && path->gaps[0] != "clamp") continue;
    CAPTURE(path->name);
    const Binding binding = uniform_binding(*path, formats_taken(*path)[0], Optional::with);
    require_same_truth(*path, build_path(*path, binding), random_inputs(binding, 3), 0.1);
  }
}

TEST_CASE("a slip in any product of a transcription is found", "[cast_paths]") {
  for (const CastPath* path : rmsnorm_paths()) {
    if (!path->gaps.empty()) continue;
    CAPTURE(path->name);
    const Binding binding = uniform_binding(*path, formats_taken(*path)[0], Optional::with);
    const Tensors tensors = random_inputs(binding, 11);
    const Program program = build_path(*path, binding);
    int slips = 0;
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      const std::optional<Program> wrong = slip(program, i);
      if (!wrong) continue;
      ++slips;
      CAPTURE(program.nodes[i].names[0]);
      CHECK(judge(*wrong, canonical_of(*path, 0.1), tensors, 0.1).differ > 0);
    }
    CHECK(slips > 0);
  }
}

TEST_CASE("the bits of every path under every profile lie near what it means", "[cast_paths]") {
  constexpr double kEps = 0.1;
  for (const CastPath* path : rmsnorm_paths())
    for (const FormatId x : formats_taken(*path))
      for (const std::string_view profile : path->profiles) {
        Binding binding = uniform_binding(*path, x, Optional::with, 100);
        binding.profile = profile;
        CAPTURE(path->name, name_of(x), profile);
        const Program program = build_path(*path, binding);
        const Program meant = erase_roundings(program);
        const Tensors tensors = random_inputs(binding, 5);
        const Attributes attributes{{"eps", kEps}};
        const Tensors ideal = emulate(program, tensors, attributes);
        for (const ProgramOutput& output : program.outputs) {
          const Tensor& got = ideal.at(output.name);
          const auto truth = program_truth(meant, tensors, attributes, output.name);
          const auto cols = static_cast<std::size_t>(truth->cols());
          REQUIRE(got.size() == truth->rows() * truth->cols());
          // Six roundings to x's format (LTX2 and torch 2.4.0 take them), and those of the output.
          const int precision = std::min(format_of(got.format).precision, format_of(x).precision);
          const double unit = std::ldexp(1, 1 - precision);
          std::vector<Enclosure> row(cols);
          std::int64_t far = 0;
          for (std::int64_t r = 0; r < truth->rows(); ++r) {
            truth->enclose_row(r, row);
            for (std::size_t j = 0; j < cols; ++j) {
              const double value = got.value(r * truth->cols() + static_cast<std::int64_t>(j));
              const double bound = 6 * unit * row[j].magnitude + 6 * min_subnormal(got.format);
              if (!(std::fabs(value - row[j].hi) <= bound)) ++far;
            }
          }
          CAPTURE(output.name);
          CHECK(far == 0);
        }
      }
}

TEST_CASE("steps stand in the order in which the code takes them", "[cast_paths]") {
  const CastPath& path = path_named("bfl.flux.rmsnorm");
  CHECK(print_program(build_path(path, uniform_binding(path, FormatId::bf16, Optional::with))) ==
        "norm rmsnorm\n"
        "in   x:T weight:W\n"
        "eps_literal = const 1e-06\n"
        "eps_f32     = cast fp32 eps_literal\n"
        "ms          = mean fp32 square(x)  order=torch_cpu(8)\n"
        "ms_eps      = add fp32 ms, eps_f32\n"
        "r_sqrt      = sqrt fp32 ms_eps\n"
        "r           = reciprocal fp32 r_sqrt\n"
        "n           = mul fp32 x, r\n"
        "n_T         = cast T n\n"
        "y_f32       = mul fp32 n_T, weight\n"
        "out y       = cast T y_f32\n");
}

TEST_CASE("rows of a length that four does not divide leave torch's vectorised kernel", "[cast_paths]") {
  const CastPath& fused = path_named("torch.rms_norm.fused_cuda");
  const CastPath& fallback = path_named("torch.rms_norm.fused_cuda.fallback");
  for (const std::string profile : {"", "cuda_warp"}) {
    const auto at = [&](const CastPath& path, std::int64_t cols) {
      Binding binding = uniform_binding(path, FormatId::bf16, Optional::with, cols);
      binding.profile = profile;
      return build_path(path, binding);
    };
    CHECK(at(fused, 127) == at(fallback, 127));
    CHECK_FALSE(at(fused, 128) == at(fallback, 128));
  }
}

}  // namespace norma::test
