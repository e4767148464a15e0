// The rotary embedding by tables and behind RMSNorm: both truths against MPFR from the formula, written a second time.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "reference/norms/norm.hpp"
#include "reference/norms/rope.hpp"
#include "tests/reference/mpfr_functions.hpp"

namespace norma {
namespace {

using testing::Number;
constexpr mpfr_prec_t kBits = 700;

Tensor random_tensor(std::mt19937_64& rng, FormatId format, const Shape& shape, bool special) {
  Tensor t = Tensor::zeros(format, shape);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double v =
        (static_cast<double>(rng() >> 11) * 0x1p-52 - 1) * std::ldexp(1.0, static_cast<int>(rng() % 9) - 4);
    const double odd[] = {0.0, -0.0, HUGE_VAL, std::nan(""), 1.0, -1.0};
    t.set_code(i, encode(format, special && rng() % 8 == 0 ? odd[rng() % 6] : v, Overflow::ieee));
  }
  return t;
}

struct Setting {
  std::string pairing;
  std::int64_t rotary;  ///< 0: all
  Shape x, table;
};
/// The table's row for a row of x, said once more: by counting x's axes.
std::int64_t table_row(const Setting& s, std::int64_t row) {
  std::int64_t at = 0, step = 1;
  for (std::size_t k = 1; k < s.x.size(); ++k) {
    const std::int64_t n = s.x[s.x.size() - 1 - k], i = row % n;
    row /= n;
    if (k >= s.table.size()) continue;
    const std::int64_t own = s.table[s.table.size() - 1 - k];
    at += own == 1 ? 0 : i * step;
    step *= own;
  }
  return at;
}

const Setting kSettings[] = {
    {"half", 0, {5, 16}, {5, 16}},
    {"interleaved", 0, {5, 16}, {8}},
    {"half", 8, {2, 3, 4, 20}, {3, 1, 4}},
    {"interleaved", 8, {2, 3, 4, 20}, {2, 1, 4, 8}},
    {"interleaved", 6, {2, 3, 4, 20}, {2, 3, 1, 3}},
    {"half", 0, {2, 2, 3, 2, 10}, {2, 1, 3, 1, 10}},
};

/// n cos - n' sin of column `col`, at kBits. NaN and Inf go through as in IEEE arithmetic.
void turned(Number& y, std::deque<Number>& n, const Setting& s, const Tensors& t, std::int64_t row, std::size_t col) {
  const std::size_t rotary = static_cast<std::size_t>(s.rotary == 0 ? s.x.back() : s.rotary);
  if (col >= rotary) {
    mpfr_set(y, n[col], MPFR_RNDN);
    return;
  }
  const bool neighbours = s.pairing == "interleaved";
  const std::size_t pair = neighbours ? col / 2 : col % (rotary / 2);
  const std::size_t first = neighbours ? 2 * pair : pair, second = neighbours ? first + 1 : first + rotary / 2;
  const auto width = static_cast<std::size_t>(s.table.back());
  const auto at =
      static_cast<std::int64_t>(static_cast<std::size_t>(table_row(s, row)) * width + (width == rotary ? col : pair));
  Number other(kBits);
  mpfr_mul_d(y, n[col], t.at("cos").value(at), MPFR_RNDN);
  mpfr_mul_d(other, n[col == first ? second : first], t.at("sin").value(at), MPFR_RNDN);
  if (col == first)
    mpfr_sub(y, y, other, MPFR_RNDN);
  else
    mpfr_add(y, y, other, MPFR_RNDN);
}

void check(const NormDef& norm, const Setting& s, const NormCall& call, bool normed, double eps, double offset,
           std::int64_t& compared) {
  norm.check(call);
  const Tensors& t = *call.inputs;
  const Tensor& x = t.at("x");
  const auto cols = static_cast<std::size_t>(x.cols());
  for (const TruthKind kind : {TruthKind::fast, TruthKind::mpfr}) {
    const auto truth = truth_of(norm, call, "y", kind);
    REQUIRE(truth->rows() * truth->cols() == x.size());
    std::vector<Enclosure> e(cols);
    for (std::int64_t row = 0; row < x.rows(); ++row) {
      truth->enclose_row(row, e);
      std::deque<Number> n;
      Number squares(0.0, kBits);
      for (std::size_t c = 0; c < cols; ++c) {
        n.emplace_back(x.value(row * x.cols() + static_cast<std::int64_t>(c)), kBits);
        Number q(kBits);
        mpfr_sqr(q, n.back(), MPFR_RNDN);
        mpfr_add(squares, squares, q, MPFR_RNDN);
      }
      if (normed) {
        mpfr_div_ui(squares, squares, cols, MPFR_RNDN);
        mpfr_add_d(squares, squares, eps, MPFR_RNDN);
        mpfr_sqrt(squares, squares, MPFR_RNDN);
        for (std::size_t c = 0; c < cols; ++c) {
          mpfr_div(n[c], n[c], squares, MPFR_RNDN);
          Number w(t.contains("weight") ? t.at("weight").value(static_cast<std::int64_t>(c)) : 1 - offset, kBits);
          mpfr_add_d(w, w, offset, MPFR_RNDN);
          mpfr_mul(n[c], n[c], w, MPFR_RNDN);
        }
      }
      Number y(kBits), d(kBits);
      for (std::size_t c = 0; c < cols; ++c) {
        turned(y, n, s, t, row, c);
        CAPTURE(norm.name, s.pairing, s.rotary, shape_text(s.x), shape_text(s.table), row, c, e[c].hi,
                mpfr_get_d(y, MPFR_RNDN));
        ++compared;
        if (mpfr_number_p(static_cast<mpfr_ptr>(y)) == 0) {
          const double want = mpfr_get_d(y, MPFR_RNDN);
          REQUIRE((std::isnan(want) ? std::isnan(e[c].hi) : e[c].hi == want));
          continue;
        }
        mpfr_sub_d(d, y, e[c].hi, MPFR_RNDN);
        mpfr_sub_d(d, d, e[c].lo, MPFR_RNDN);
        // 2^-600: what is left of 700 bits after sums of values within 2^9 of each other.
        const double distance = std::fabs(mpfr_get_d(d, MPFR_RNDA));
        REQUIRE(distance <= e[c].radius * (1 + 0x1p-50) + 0x1p-600);
        REQUIRE(e[c].radius <= 0x1p-80 * e[c].magnitude + 0x1p-1074);
        if (!normed) {
          const bool narrow = format_of(x.format).precision <= 24;  // then two binary64 numbers are all of y
          if (narrow && kind == TruthKind::fast) REQUIRE(e[c].radius == 0);
          if (e[c].hi == 0) REQUIRE(std::signbit(e[c].hi) == (mpfr_signbit(static_cast<mpfr_ptr>(y)) != 0));
        }
        for (const double step : {-0x1p-60, 0.0, 0x1p-60}) {
          mpfr_sub_d(d, y, e[c].hi, MPFR_RNDN);
          mpfr_sub_d(d, d, e[c].lo + step, MPFR_RNDN);
          if (std::fabs(mpfr_get_d(d, MPFR_RNDN)) < 0x1p-500) continue;
          const Comparison want = mpfr_sgn(static_cast<mpfr_ptr>(d)) > 0 ? Comparison::greater : Comparison::less;
          if (row == 0) REQUIRE(truth->compare(row, static_cast<std::int64_t>(c), e[c].hi, e[c].lo + step) == want);
        }
      }
    }
  }
}

Tensors tensors_of(std::mt19937_64& rng, const Setting& s, FormatId x, FormatId table, bool special) {
  return {{"x", random_tensor(rng, x, s.x, special)},
          {"cos", random_tensor(rng, table, s.table, special)},
          {"sin", random_tensor(rng, table, s.table, special)}};
}

}  // namespace

TEST_CASE("the rotary embedding is the formula's, for every pairing, width and shape of tables") {
  std::mt19937_64 rng(1);
  std::int64_t compared = 0;
  for (const Setting& s : kSettings)
    for (const FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::fp64})
      for (const bool special : {false, true}) {
        const Tensors tensors = tensors_of(rng, s, format, format == FormatId::fp64 ? format : FormatId::fp32, special);
        check(rope, s,
              {.inputs = &tensors,
               .numbers = {{"rotary", static_cast<double>(s.rotary)}},
               .words = {{"pairing", s.pairing}}},
              false, 0, 0, compared);
      }
  CHECK(compared > 10'000);
}

TEST_CASE("the rotary embedding behind RMSNorm is the formula's") {
  std::mt19937_64 rng(2);
  std::int64_t compared = 0;
  for (const Setting& s : kSettings)
    for (const FormatId format : {FormatId::fp32, FormatId::bf16})
      for (const double offset : {0.0, 1.0}) {
        Tensors tensors = tensors_of(rng, s, format, FormatId::fp32, false);
        tensors["weight"] = random_tensor(rng, format, {s.x.back()}, false);
        check(rmsnorm_rope, s,
              {.inputs = &tensors,
               .numbers = {{"eps", 1e-6}, {"rotary", static_cast<double>(s.rotary)}, {"weight_offset", offset}},
               .words = {{"pairing", s.pairing}}},
              true, 1e-6, offset, compared);
      }
  CHECK(compared > 5'000);
}

TEST_CASE("what a rotary embedding cannot be called with is said in one sentence") {
  std::mt19937_64 rng(3);
  const auto refusal = [&](const Shape& x, const Shape& cos, double rotary) -> std::string {
    const Setting s{"half", 0, x, cos};
    const Tensors tensors = tensors_of(rng, s, FormatId::fp32, FormatId::fp32, false);
    try {
      rope.check({.inputs = &tensors, .numbers = {{"rotary", rotary}}, .words = {}});
    } catch (const NormError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(refusal({2, 7}, {7}, 0) == "rope: there are 7 rotary columns, but they must be even and at most the 7 of x.");
  CHECK(refusal({2, 8}, {8}, 10) == "rope: there are 10 rotary columns, but they must be even and at most the 8 of x.");
  CHECK(refusal({2, 8}, {8}, 3) == "rope: rotary is 3 but must be 0 or an even number of columns.");
  CHECK(
      refusal({2, 3, 8}, {2, 8}, 0) ==
      "rope: cos has shape 2x8 but must have a last axis of 8 or 4, and before it axes of x or of 1, beside x of shape "
      "2x3x8.");
  CHECK(refusal({2, 3, 8}, {3, 8}, 0).empty());
}

}  // namespace norma
