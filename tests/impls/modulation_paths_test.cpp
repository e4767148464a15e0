// Paths of modulations, gates and adaptive norms against their formula, written here once more in MPFR intervals; and
// what is claimed of them: a zero scale or gate changes nothing, gamma and 1 + gamma round alike.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
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

constexpr mpfr_prec_t kBits = 512;
constexpr double kEps = 0.1;  // the double next to it: nothing may round it
constexpr FormatId kFloats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16};
constexpr std::string_view kNorms[] = {"modulate", "gated_residual", "ada_layernorm", "ada_rmsnorm"};

std::vector<const CastPath*> paths() {
  std::vector<const CastPath*> found;
  for (const CastPath* path : all_cast_paths())
    if (std::ranges::find(kNorms, path->norm) != std::end(kNorms)) found.push_back(path);
  return found;
}

const CastPath& path_named(std::string_view name) {
  const CastPath* path = find_cast_path(name);
  REQUIRE(path != nullptr);
  return *path;
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> words;
  std::stringstream stream{std::string(list)};
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> known) {
  return std::ranges::find(known, word) != known.end();
}

bool is_flashinfer_norm(const CastPath& path) { return path.name.starts_with("flashinfer.fused_dit_layernorm"); }

// FlashInfer's kernel takes bf16 beside fp32 tables and affine; the others what one asks for.
FormatId format_beside(const CastPath& path, std::string_view tensor, FormatId x) {
  const bool full = one_of(tensor, {"weight", "bias", "gate_table", "scale_table", "shift_table"});
  return is_flashinfer_norm(path) && full ? FormatId::fp32 : x;
}
std::vector<FormatId> formats_taken(const CastPath& path) {
  if (is_flashinfer_norm(path)) return {FormatId::bf16};
  return {std::begin(kFloats), std::end(kFloats)};
}

enum class Optional { without, with };

Binding binding_of(const CastPath& path, FormatId x, Optional optional, std::int64_t cols) {
  Binding binding{.x = x, .formats = {}, .attributes = {}, .cols = cols, .profile = {}};
  auto inputs = split(path.required);
  if (optional == Optional::with)
    for (const std::string& name : split(path.optional)) inputs.push_back(name);
  for (const std::string& name : inputs) binding.formats[name] = format_beside(path, name, x);
  return binding;
}

Tensor random_tensor(Random& random, FormatId format, Shape shape, int low, int high) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double sign = random.below(2) == 0 ? 1 : -1;
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    t.set_code(i, encode(format, sign * std::ldexp(mantissa, random.between(low, high)), Overflow::saturate));
  }
  return t;
}

// x [2, 3, cols]: two samples of three rows. Parameters: one vector, one for each sample, or one for each element.
enum class Vectors { shared, samples, elements };
Tensors random_inputs(const Binding& binding, Vectors vectors, std::uint64_t seed) {
  Random random{seed};
  const std::int64_t cols = binding.cols;
  const Shape rows{2, 3, cols};
  Tensors tensors{{"x", random_tensor(random, binding.x, rows, -2, 1)}};
  for (const auto& [name, format] : binding.formats) {
    const bool whole = one_of(name, {"residual", "f"});
    const bool one = one_of(name, {"weight", "bias"}) || name.ends_with("_table") || vectors == Vectors::shared;
    const Shape shape = whole || (!one && vectors == Vectors::elements) ? rows : one ? Shape{cols} : Shape{2, cols};
    tensors[name] = random_tensor(random, format, shape, -3, 0);
  }
  return tensors;
}

// ---- the formula ----

struct Formula {
  std::string_view norm;
  double weight_offset = 0, scale_offset = 1;
  bool tanh_gate = false;
  double eps = kEps;
};

Formula formula_of(const CastPath& path) {
  Formula f{.norm = path.norm};
  for (const CaseDefault& own : path.norm_attributes) {
    if (own.key == "weight_offset")
      f.weight_offset = std::strtod(std::string(own.value).c_str(), nullptr);
    else if (own.key == "scale_offset")
      f.scale_offset = std::strtod(std::string(own.value).c_str(), nullptr);
    else if (own.key == "gate_function")
      f.tanh_gate = own.value == "tanh";
    else
      FAIL("an attribute that the norms lack: " << own.key);
  }
  if (path.eps_class == "hard-coded") f.eps = std::strtod(std::string(path.eps_default).c_str(), nullptr);
  return f;
}

Interval real(double v) { return Interval(v, kBits); }

Interval tanh_of(const Interval& a) {
  Interval t = a;
  mpfr_tanh(t.lo.get(), a.lo.get(), MPFR_RNDD);
  mpfr_tanh(t.hi.get(), a.hi.get(), MPFR_RNDU);
  return t;
}

Interval parameter(const Tensors& tensors, const std::string& name, std::int64_t row, std::int64_t col) {
  const Tensor& x = tensors.at("x");
  const auto one = [&](const Tensor& t) {
    if (t.size() == x.size()) return real(t.value(row * x.cols() + col));
    if (t.size() == x.cols()) return real(t.value(col));
    return real(t.value(row / (x.rows() / t.rows()) * x.cols() + col));
  };
  const Interval value = one(tensors.at(name));
  const auto table = tensors.find(name + "_table");
  return table == tensors.end() ? value : add(value, one(table->second));
}

struct RowOf {
  std::vector<Interval> y, residual;
};

RowOf formula_row(const Formula& f, const Tensors& tensors, std::int64_t row) {
  const Tensor& x = tensors.at("x");
  const std::int64_t cols = x.cols();
  const auto has = [&](const char* name) { return tensors.contains(name); };
  RowOf out;
  std::vector<Interval> n;
  for (std::int64_t j = 0; j < cols; ++j) {
    Interval h = real(x.value(row * cols + j));
    if (has("residual")) {
      if (has("gate")) h = mul(h, parameter(tensors, "gate", row, j));
      h = add(h, real(tensors.at("residual").value(row * cols + j)));
    }
    n.push_back(h);
  }
  out.residual = n;
  const Interval count = real(static_cast<double>(cols));
  if (f.norm == "ada_layernorm") {
    const Interval mean = div(sum(n, kBits), count);
    for (Interval& v : n) v = sub(v, mean);
  }
  if (f.norm == "ada_layernorm" || f.norm == "ada_rmsnorm") {
    std::vector<Interval> squares;
    for (const Interval& v : n) squares.push_back(square(v));
    const Interval root = sqrt(add(div(sum(squares, kBits), count), real(f.eps)));
    for (Interval& v : n) v = div(v, root);
  }
  for (std::int64_t j = 0; j < cols; ++j) {
    Interval y = n[static_cast<std::size_t>(j)];
    if (f.norm == "gated_residual") {
      Interval gate = parameter(tensors, "gate", row, j);
      if (f.tanh_gate) gate = tanh_of(gate);
      y = add(y, mul(gate, real(tensors.at("f").value(row * cols + j))));
    }
    if (has("weight")) y = mul(y, add(real(f.weight_offset), real(tensors.at("weight").value(j))));
    if (has("bias")) y = add(y, real(tensors.at("bias").value(j)));
    if (has("scale")) y = mul(y, add(real(f.scale_offset), parameter(tensors, "scale", row, j)));
    if (has("shift")) y = add(y, parameter(tensors, "shift", row, j));
    out.y.push_back(y);
  }
  return out;
}

bool apart(const Interval& a, const Interval& b) {
  return mpfr_less_p(a.hi.get(), b.lo.get()) != 0 || mpfr_less_p(b.hi.get(), a.lo.get()) != 0;
}

// Elements of the erasure that are certainly not the formula's.
int differing(const Program& program, const Formula& f, const Tensors& tensors) {
  const Program erased = erase_roundings(program);
  const RowEvaluator evaluator(erased, tensors, {{"eps", f.eps}});
  int count = 0;
  for (std::int64_t row = 0; row < evaluator.rows(); ++row) {
    const RowOf want = formula_row(f, tensors, row);
    for (const ProgramOutput& output : erased.outputs) {
      const RowValues values = evaluator.evaluate(output.value, row, kBits);
      const auto& right = output.name == "residual" ? want.residual : want.y;
      for (std::size_t j = 0; j < right.size(); ++j) {
        const Interval& got = values.at(output.value, static_cast<std::int64_t>(j));
        REQUIRE(got.is_real());
        if (apart(got, right[j])) ++count;
      }
    }
  }
  return count;
}

NormCall call_of(const CastPath& path, const Formula& f, const Tensors& tensors) {
  const NormDef* norm = find_norm(path.norm);
  REQUIRE(norm != nullptr);
  NormCall call{.inputs = &tensors, .numbers = {}, .words = {}};
  for (const NormAttribute& a : norm->attributes)
    if (a.name == "eps") call.numbers["eps"] = f.eps;
  for (const CaseDefault& own : path.norm_attributes)
    if (own.key == "gate_function")
      call.words[std::string(own.key)] = own.value;
    else
      call.numbers[std::string(own.key)] = std::strtod(std::string(own.value).c_str(), nullptr);
  norm->check(call);
  return call;
}

// Every output's enclosures hold the formula's value and are narrow.
void require_truth(const CastPath& path, const Formula& f, const Tensors& tensors, const Program& program) {
  const NormCall call = call_of(path, f, tensors);
  const NormDef& norm = *find_norm(path.norm);
  for (const TruthKind kind : {TruthKind::mpfr, TruthKind::fast})
    for (const ProgramOutput& output : program.outputs) {
      const auto truth = truth_of(norm, call, output.name, kind);
      std::vector<Enclosure> got(static_cast<std::size_t>(truth->cols()));
      int wrong = 0, wide = 0;
      for (std::int64_t row = 0; row < truth->rows(); ++row) {
        truth->enclose_row(row, got);
        const RowOf want = formula_row(f, tensors, row);
        const auto& right = output.name == "residual" ? want.residual : want.y;
        for (std::size_t j = 0; j < got.size(); ++j) {
          const Enclosure& e = got[j];
          const Interval middle = add(real(e.hi), real(e.lo)), radius = real(e.radius);
          const Interval low = sub(middle, radius), high = add(middle, radius);
          const bool below = mpfr_less_p(right[j].hi.get(), low.lo.get()) != 0;
          const bool above = mpfr_less_p(high.hi.get(), right[j].lo.get()) != 0;
          if (below || above || !right[j].is_real()) ++wrong;
          if (!(e.radius <= 0x1p-79 * e.magnitude)) ++wide;
        }
      }
      CAPTURE(output.name, kind == TruthKind::fast);
      CHECK(wrong == 0);
      CHECK(wide == 0);
    }
}

template <typename Visit>
void for_each_branch(const CastPath& path, Visit&& visit) {
  for (const FormatId x : formats_taken(path))
    for (const Optional optional : {Optional::without, Optional::with})
      for (const std::int64_t cols : {12, 7}) visit(binding_of(path, x, optional, cols));
}

Tensor run(std::string_view name, const Tensors& inputs, std::string profile = {}) {
  const CastPath& path = path_named(name);
  Binding binding{.x = inputs.at("x").format,
                  .formats = {},
                  .attributes = {},
                  .cols = inputs.at("x").cols(),
                  .profile = std::move(profile)};
  for (const auto& [tensor, t] : inputs)
    if (tensor != "x") binding.formats[tensor] = t.format;
  return emulate(build_path(path, binding), inputs, {{"eps", 1e-6}}).at("y");
}

// Every finite number of a 16-bit format, in rows of 256.
Tensor all_finite(FormatId format) {
  std::vector<std::uint64_t> codes;
  for (std::uint64_t c = 0; c < 65536; ++c)
    if (std::isfinite(decode(format, c))) codes.push_back(c);
  Tensor t = Tensor::zeros(format, {static_cast<std::int64_t>(codes.size()) / 256, 256});
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, codes[static_cast<std::size_t>(i)]);
  return t;
}

Tensor filled(FormatId format, Shape shape, double value) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, value, Overflow::ieee));
  return t;
}

struct Changes {
  int values = 0, signs_of_zero = 0;
};
Changes changes(const Tensor& before, const Tensor& after) {
  REQUIRE(before.size() == after.size());
  Changes c;
  for (std::int64_t i = 0; i < before.size(); ++i) {
    const double a = before.value(i), b = after.value(i);
    if (a == 0 && b == 0 && std::signbit(a) != std::signbit(b))
      ++c.signs_of_zero;
    else if (!(a == b) && !(std::isnan(a) && std::isnan(b)))
      ++c.values;
  }
  return c;
}

}  // namespace

TEST_CASE("rows of modulations are complete", "[modulation]") {
  CHECK(paths().size() >= 61);
  for (const CastPath* path : paths()) {
    CAPTURE(path->name);
    const bool normalizes = path->norm.starts_with("ada_");
    CHECK(one_of(path->tail, {"K", "L"}));
    CHECK(path->eps_default.empty() == !normalizes);
    CHECK(one_of(path->eps_place, {normalizes ? "inside" : "none"}));
    CHECK(one_of(path->eps_class, {"fp32", "hard-coded", ""}));
    CHECK(one_of(path->source.evidence, {"read", "quoted", "inferred"}));
    for (const std::string_view text : {path->title, path->source.project, path->source.file})
      CHECK_FALSE(text.empty());
    for (const std::string_view profile : path->profiles) CHECK(find_profile(profile) != nullptr);
  }
}

TEST_CASE("modulations build for every format and profile, and print what parses to the same", "[modulation]") {
  for (const CastPath* path : paths()) {
    CAPTURE(path->name);
    for_each_branch(*path, [&](Binding binding) {
      for (const std::string_view profile : path->profiles) {
        binding.profile = profile;
        const Program program = build_path(*path, binding);
        CAPTURE(print_program(program));
        CHECK(parse_program(print_program(program), binding) == program);
        CHECK(program.norm == path->norm);
        CHECK((program.find_output("residual") != nullptr) == !path->residual.empty());
        // K ends in the tensors' format by an operation, L by one cast of an fp32 value.
        const Operand y = program.find_output("y")->value;
        const Node& last = program.nodes[static_cast<std::size_t>(y.node)];
        CHECK(last.rounding.format->id == binding.x);
        if (path->tail != "L") continue;
        CHECK(last.op == Op::cast);
        for (std::size_t i = 0; i < program.nodes.size(); ++i) {
          const Node& node = program.nodes[i];
          const bool stored = static_cast<int>(i) == y.node || (node.op == Op::cast && !path->residual.empty());
          if (node.kind == NodeKind::map && !stored) CHECK(node.rounding.format->id == FormatId::fp32);
        }
      }
    });
  }
}

TEST_CASE("erasures of modulations are their formula, whatever the parameters' shape", "[modulation]") {
  for (const CastPath* path : paths()) {
    std::uint64_t seed = 1;
    for_each_branch(*path, [&](const Binding& binding) {
      for (const Vectors vectors : {Vectors::shared, Vectors::samples, Vectors::elements}) {
        CAPTURE(path->name, name_of(binding.x), binding.cols, static_cast<int>(vectors));
        const Tensors tensors = random_inputs(binding, vectors, ++seed);
        const Formula f = formula_of(*path);
        const Program program = build_path(*path, binding);
        CHECK(differing(program, f, tensors) == 0);
        if (binding.cols == 7 && binding.x != FormatId::fp16) require_truth(*path, f, tensors, program);
      }
    });
  }
}

TEST_CASE("a slip in any step of a modulation is found", "[modulation]") {
  for (const CastPath* path : paths()) {
    CAPTURE(path->name);
    const Binding binding = binding_of(*path, formats_taken(*path)[0], Optional::with, 12);
    const Tensors tensors = random_inputs(binding, Vectors::samples, 11);
    const Program program = build_path(*path, binding);
    int slips = 0;
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      const std::optional<Program> wrong = slip(program, i);
      if (!wrong) continue;
      const Operand first = program.nodes[i].operands[0];
      const Node& before = program.nodes[static_cast<std::size_t>(first.node)];
      if (before.kind == NodeKind::constant && before.constant == 0) continue;  // liger's offset 0
      ++slips;
      CAPTURE(program.nodes[i].names[0]);
      CHECK(differing(*wrong, formula_of(*path), tensors) > 0);
    }
    CHECK(slips > 0);
  }
}

TEST_CASE("the bits of a modulation under every profile lie near what it means", "[modulation]") {
  constexpr std::int64_t kCols = 40;
  for (const CastPath* path : paths())
    for (const FormatId x : formats_taken(*path)) {
      Binding binding = binding_of(*path, x, Optional::with, kCols);
      const Tensors tensors = random_inputs(binding, Vectors::samples, 5);
      const Formula f = formula_of(*path);
      std::vector<RowOf> rows;
      for (std::int64_t row = 0; row < 6; ++row) rows.push_back(formula_row(f, tensors, row));
      for (const std::string_view profile : path->profiles) {
        binding.profile = profile;
        CAPTURE(path->name, name_of(x), profile);
        const Tensors ideal = emulate(build_path(*path, binding), tensors, {{"eps", f.eps}});
        for (const auto& [name, got] : ideal) {
          std::int64_t far = 0;
          for (std::int64_t i = 0; i < got.size(); ++i) {
            const RowOf& row = rows[static_cast<std::size_t>(i / kCols)];
            const Interval& exact = (name == "residual" ? row.residual : row.y)[static_cast<std::size_t>(i % kCols)];
            // Eight roundings of terms below 32: |n| <= sqrt(39), factors <= 3, sums of 2 and less.
            const double bound = 8 * std::ldexp(32.0, -format_of(x).precision);
            if (!(std::fabs(got.value(i) - mpfr_get_d(exact.hi.get(), MPFR_RNDN)) <= bound)) ++far;
          }
          CAPTURE(name);
          CHECK(far == 0);
        }
      }
    }
}

TEST_CASE("what a modulation does not take is refused by name", "[modulation]") {
  const auto refusal = [](std::string_view name, Binding binding) -> std::string {
    try {
      static_cast<void>(build_path(path_named(name), binding));
    } catch (const ProgramError& e) {
      return e.what();
    }
    return "";
  };
  Binding binding{.x = FormatId::bf16, .formats = {}, .attributes = {}, .cols = 8, .profile = {}};
  CHECK_THAT(refusal("bfl.flux.modulate", binding), ContainsSubstring("needs the input 'scale'"));
  binding.formats["scale"] = FormatId::e4m3fn;
  binding.formats["shift"] = FormatId::bf16;
  CHECK_THAT(refusal("bfl.flux.modulate", binding), ContainsSubstring("scale is e4m3fn"));
  binding.formats["scale"] = FormatId::bf16;
  CHECK(refusal("bfl.flux.modulate", binding).empty());
  CHECK_THAT(refusal("diffusers.hunyuan_dit.modulate", binding), ContainsSubstring("has no input 'scale'"));
  binding.formats["residual"] = FormatId::fp16;
  CHECK_THAT(refusal("sglang.fused_scale_residual_layernorm_scale_shift", binding), ContainsSubstring("one format"));
}

TEST_CASE("norms of modulations refuse what makes no sense by name", "[modulation]") {
  const auto message = [](std::string_view norm, const Tensors& inputs, Attributes numbers = {}) -> std::string {
    try {
      find_norm(norm)->check({.inputs = &inputs, .numbers = std::move(numbers), .words = {}});
    } catch (const NormError& e) {
      return e.what();
    }
    return "";
  };
  const auto ones = [](Shape shape) { return filled(FormatId::bf16, std::move(shape), 1); };
  CHECK(message("modulate", {{"x", ones({2, 3, 4})}}) ==
        "modulate: there is no tensor scale and no tensor shift; it takes at least one.");
  CHECK(message("modulate", {{"x", ones({2, 4})}, {"scale", ones({4})}}, {{"scale_offset", 2}}) ==
        "modulate: scale_offset is 2 but must be 0 or 1.");
  CHECK(message("modulate", {{"x", ones({2, 4})}, {"shift", ones({4})}, {"scale_table", ones({4})}}) ==
        "modulate: scale_table is added to a tensor scale, and there is none.");
  CHECK(message("ada_layernorm", {{"x", ones({2, 4})}, {"scale", ones({4})}, {"gate", ones({4})}}) ==
        "ada_layernorm: gate is the factor of what is added to a tensor residual, and there is none.");
  CHECK(message("ada_rmsnorm", {{"x", ones({2, 3, 4})}, {"scale", ones({3})}}) ==
        "ada_rmsnorm: scale has shape 3 but must have 4 or 2x4 to fit x.");
  CHECK(message("ada_layernorm", {{"x", ones({2, 3, 4})}, {"scale", ones({2, 3, 4})}}).empty());
}

// ---- claims ----

TEST_CASE("a scale of 0 changes no number, a shift of +0 the sign of -0 only", "[modulation]") {
  for (const FormatId format : {FormatId::bf16, FormatId::fp16}) {
    const Tensor x = all_finite(format);
    const Tensor zero = filled(format, {256}, 0), minus_zero = filled(format, {256}, -0.0);
    for (const char* path : {"bfl.flux.modulate", "diffusers.wan.modulate", "flashinfer.fused_dit.modulate"}) {
      CAPTURE(path, name_of(format));
      const Changes plus = changes(x, run(path, {{"x", x}, {"scale", zero}, {"shift", zero}}));
      CHECK(plus.values == 0);
      CHECK(plus.signs_of_zero == 1);
      const Changes minus = changes(x, run(path, {{"x", x}, {"scale", zero}, {"shift", minus_zero}}));
      CHECK((minus.values == 0 && minus.signs_of_zero == 0));
    }
    const Changes no_shift = changes(x, run("diffusers.lumina.modulate", {{"x", x}, {"scale", zero}}));
    CHECK((no_shift.values == 0 && no_shift.signs_of_zero == 0));
    const Tensor one = filled(format, {256}, 1);
    const Changes film = changes(x, run("film.gamma", {{"x", x}, {"scale", one}, {"shift", minus_zero}}));
    CHECK((film.values == 0 && film.signs_of_zero == 0));
  }
}

TEST_CASE("a scale and shift of 0 leave an adaptive LayerNorm the bits of its norm", "[modulation]") {
  Random random{3};
  for (const FormatId format : kFloats) {
    const Tensor x = random_tensor(random, format, {16, 96}, -3, 3);
    const Tensor zero = filled(format, {96}, 0), minus_zero = filled(format, {96}, -0.0);
    // Shift alone of -0 is the norm itself, rounded.
    const Tensor norm = run("diffusers.hunyuan_dit.ada_layer_norm_shift", {{"x", x}, {"shift", minus_zero}});
    const Tensor eager =
        run("diffusers.ada_layer_norm_zero.fp32_layer_norm", {{"x", x}, {"scale", zero}, {"shift", minus_zero}});
    const Tensor fused = run("diffusers.wan.ada_layernorm", {{"x", x}, {"scale", zero}, {"shift", minus_zero}});
    CAPTURE(name_of(format));
    CHECK(eager.bytes == norm.bytes);
    CHECK(fused.bytes == norm.bytes);
  }
}

TEST_CASE("a gate of 0 starts as the identity where f is finite, up to the sign of -0", "[modulation]") {
  for (const FormatId format : {FormatId::bf16, FormatId::fp16}) {
    const Tensor x = all_finite(format);
    const Tensor gate = filled(format, {256}, 0);
    for (const char* path : {"bfl.flux.gated_residual", "diffusers.wan.gated_residual", "sglang.gated_residual",
                             "flashinfer.fused_dit.gated_residual"}) {
      CAPTURE(path, name_of(format));
      const Changes positive = changes(x, run(path, {{"x", x}, {"f", filled(format, x.shape, 3)}, {"gate", gate}}));
      CHECK(positive.values == 0);
      CHECK(positive.signs_of_zero == 1);  // -0 + +0 is +0
      const Changes negative = changes(x, run(path, {{"x", x}, {"f", filled(format, x.shape, -3)}, {"gate", gate}}));
      CHECK((negative.values == 0 && negative.signs_of_zero == 0));
      const Tensor spoiled = run(path, {{"x", x}, {"f", filled(format, x.shape, INFINITY)}, {"gate", gate}});
      for (std::int64_t i = 0; i < spoiled.size(); ++i) REQUIRE(is_nan_code(format, spoiled.code(i)));  // 0 Inf
    }
  }
}

// 1 + gamma is rounded before it is used: op by op the two forms have the same factors, and gamma's finer steps near 0
// are lost. In fp32 they are not.
TEST_CASE("op by op 1 + gamma is a gamma of the tensors' format", "[modulation]") {
  Random random{9};
  for (const FormatId format : {FormatId::bf16, FormatId::fp16}) {
    const Tensor x = random_tensor(random, format, {64, 256}, -3, 3);
    const Tensor distance = random_tensor(random, format, {256}, -12, 0);
    const Tensor shift = random_tensor(random, format, {256}, -3, 0);
    Tensor gamma = distance;
    int lost = 0;
    for (std::int64_t i = 0; i < gamma.size(); ++i) {
      gamma.set_code(i, encode(format, 1 + distance.value(i), Overflow::ieee));
      if (gamma.value(i) != 1 + distance.value(i)) ++lost;
    }
    CAPTURE(name_of(format), lost);
    CHECK(lost > 64);
    const Tensors by_distance{{"x", x}, {"scale", distance}, {"shift", shift}};
    const Tensor eager = run("film.one_plus_gamma", by_distance);
    CHECK(eager.bytes == run("film.gamma", {{"x", x}, {"scale", gamma}, {"shift", shift}}).bytes);
    CHECK(changes(eager, run("diffusers.wan.modulate", by_distance)).values > 1000);
  }
}

TEST_CASE("a clip of fp16 streams is a gap where it acts, and only there", "[modulation]") {
  const auto y = [](FormatId format, double x, double f) {
    return run("diffusers.qwen_image.gated_residual",
               {{"x", filled(format, {1, 4}, x)}, {"f", filled(format, {1, 4}, f)}, {"gate", filled(format, {4}, 1)}})
        .value(0);
  };
  CHECK(y(FormatId::fp16, 60000, 60000) == 65504);
  CHECK(y(FormatId::fp16, -60000, -60000) == -65504);
  CHECK(std::isinf(run("bfl.flux.gated_residual", {{"x", filled(FormatId::fp16, {1, 4}, 60000)},
                                                   {"f", filled(FormatId::fp16, {1, 4}, 60000)},
                                                   {"gate", filled(FormatId::fp16, {4}, 1)}})
                       .value(0)));
  CHECK(y(FormatId::bf16, 60000, 60000) > 65504);
  CHECK(y(FormatId::fp16, 2, 3) == 5);
}

}  // namespace norma::test
