// The functions in double-double. u = 2^-53; relative errors unless said otherwise; operations by double_double.hpp.
#include <array>
#include <cmath>
#include <cstdlib>

#include "reference/certified/functions/functions.hpp"
#include "reference/certified/functions/normal_tail.hpp"

namespace norma {

namespace {

DoubleDouble pair_of(const Interval& value) {
  const Enclosure e = enclosure_of(value);
  return {e.hi, e.lo};
}

DoubleDouble ratio(double p, double q) { return div(DoubleDouble{p, 0}, q); }

// ---- constants, from MPFR: each within 2^-106 of what it stands for ----

constexpr int kSteps = 64;  // e^x = 2^(k/64) e^r

struct ExpTable {
  std::array<DoubleDouble, kSteps> powers;  // 2^(j/64)
  // ln2/64 = c1 + c2 + c3: 36 bits, 36 bits, and a binary64 number for the rest: k c1 and k c2 are exact for |k| <
  // 2^17.
  double c1, c2, c3;
};

const ExpTable& exp_table() {
  static const ExpTable table = [] {
    constexpr mpfr_prec_t kBits = 256;
    ExpTable t{};
    for (int j = 0; j < kSteps; ++j) {
      Interval power(static_cast<double>(j) / kSteps, kBits);
      mpfr_exp2(power.lo.get(), power.lo.get(), MPFR_RNDD);
      mpfr_exp2(power.hi.get(), power.hi.get(), MPFR_RNDU);
      t.powers[static_cast<std::size_t>(j)] = pair_of(power);
    }
    Real rest(kBits), part(36);
    mpfr_const_log2(rest.get(), MPFR_RNDN);
    mpfr_div_ui(rest.get(), rest.get(), kSteps, MPFR_RNDN);
    for (double* c : {&t.c1, &t.c2}) {
      mpfr_set(part.get(), rest.get(), MPFR_RNDN);
      mpfr_sub(rest.get(), rest.get(), part.get(), MPFR_RNDN);
      *c = mpfr_get_d(part.get(), MPFR_RNDN);
    }
    t.c3 = mpfr_get_d(rest.get(), MPFR_RNDN);
    return t;
  }();
  return table;
}

struct Constants {
  DoubleDouble two_over_root_pi, root_two;
  DoubleDouble linear, cubic;  // of gelu_tanh: 2 sqrt(2/pi) and 0.044715 times that
};

const Constants& constants() {
  static const Constants values = [] {
    constexpr mpfr_prec_t kBits = 256;
    Interval pi(kBits);
    mpfr_const_pi(pi.lo.get(), MPFR_RNDD);
    mpfr_const_pi(pi.hi.get(), MPFR_RNDU);
    const Interval linear = sqrt(div(Interval(8.0, kBits), pi));
    return Constants{.two_over_root_pi = pair_of(sqrt(div(Interval(4.0, kBits), pi))),
                     .root_two = pair_of(sqrt(Interval(2.0, kBits))),
                     .linear = pair_of(linear),
                     .cubic = pair_of(mul(linear, Interval(0x1.6e4e26d4801f7p-5, kBits)))};
  }();
  return values;
}

// 1/n! as pairs, 3u^2 each (18! < 2^53).
template <int kFirst, int kLast>
const std::array<DoubleDouble, kLast - kFirst + 1>& reciprocal_factorials() {
  static const auto values = [] {
    std::array<DoubleDouble, kLast - kFirst + 1> v{};
    double factorial = 1;
    for (int n = 1; n <= kLast; ++n) {
      factorial *= n;
      if (n >= kFirst) v[static_cast<std::size_t>(n - kFirst)] = ratio(1, factorial);
    }
    return v;
  }();
  return values;
}

// ---- e^r - 1 ----

// r + r^2/2 + ... + r^kLast/kLast!, terms from kSingle on in binary64. What is rounded last is r + r^2 s: 3u^2, beside
// the error of r^2 s, which is r/2 of the whole times 5u^2 (r^2) + 5u^2 (product) + 4u^2 (s) and less. The binary64
// terms are below 2^-57 r, so that their 2u count as 2^-109; what is left out is below 2^-109 r. In all 2^-104.
template <int kSingle, int kLast>
DoubleDouble expm1_series(DoubleDouble r) {
  const auto& c = reciprocal_factorials<2, kLast>();
  double tail = c[kLast - 2].h;
  for (int n = kLast - 1; n >= kSingle; --n) tail = c[static_cast<std::size_t>(n - 2)].h + r.h * tail;
  DoubleDouble s = add(c[kSingle - 3], r.h * tail);
  for (int n = kSingle - 2; n >= 2; --n) s = add(c[static_cast<std::size_t>(n - 2)], mul(s, r));
  return add(r, mul(mul(r, r), s));
}

// For 0 <= y < 1/2: e^(y/16) - 1 by its series, then p <- p (2 + p) four times, each 7u^2 and at most 1.25 of p's error
// before: 40u^2.
DoubleDouble expm1_small(DoubleDouble y) {
  DoubleDouble p = expm1_series<9, 16>(scale(y, 0x1p-4));  // r < 2^-5: r^8/9! < 2^-58, r^16/17! < 2^-128
  for (int i = 0; i < 4; ++i) p = mul(p, add(p, 2.0));
  return p;
}

// ---- the functions ----

// x = k ln2/64 + r. x.h - k c1 is exact: both are multiples of 2^-60, the difference is below 2^-7. k c2 is exact and
// so is the sum as a pair; x.l and k c3 are added one by one, 2u^2 2^-7 absolute each, and k c3 < 2^-61 is rounded
// by 2^-114. |r| < 0.0055: 2^-109 absolute. 1 + p: 2u^2; the power of two 2^-106, its product 5u^2. In all < 9u^2.
DoubleDouble exp_of(DoubleDouble x) {
  const ExpTable& t = exp_table();
  const double k = std::nearbyint(x.h * 0x1.71547652b82fep+6);  // 64/ln2
  DoubleDouble r = two_sum(x.h - k * t.c1, -(k * t.c2));
  r = add(add(r, x.l), -(k * t.c3));
  const DoubleDouble p = expm1_series<7, 12>(r);  // r^6/7! < 2^-57, r^12/13! < 2^-122
  const auto whole = static_cast<int>(k);
  const DoubleDouble power = t.powers[static_cast<std::size_t>(whole & (kSteps - 1))];
  return scale(mul(add(p, 1.0), power), std::ldexp(1.0, whole >> 6));
}

// 1 / (1 + e^-w): e^-w, 2u^2 and 9.8u^2; w's own error counts whole.
DoubleDouble over_one_plus_exp(DoubleDouble x, DoubleDouble minus_w) { return div(x, add(exp_of(minus_w), 1.0)); }

DoubleDouble tanh_of(DoubleDouble x) {
  const bool negative = std::signbit(x.h);
  const DoubleDouble a = negative ? neg(x) : x;
  DoubleDouble y;
  if (a.h < 0.25) {
    const DoubleDouble p = expm1_small(scale(a, 2));  // p / (p + 2): 40u^2 + 2u^2 + 9.8u^2
    y = div(p, add(p, 2.0));
  } else if (a.h < 40) {
    // 1 - 2/(e^2a + 1): what is subtracted has 22u^2 and is at most 0.76, against 0.24 left: 75u^2.
    y = add(neg(div(DoubleDouble{2, 0}, add(exp_of(scale(a, 2)), 1.0))), 1.0);
  } else {
    y = {1, 0};  // 1 - tanh < 2 e^-80 < 2^-114
  }
  return negative ? neg(y) : y;
}

// m(t): terms from kPairs on are below 2^-54 of the whole. a_0 2^-106, sum 3u^2, 9u^2/32 and less of the next term,
// truncation 2^-108.
DoubleDouble tail_of(DoubleDouble t) {
  const std::size_t index = TailTable::index(t.h);
  const TailTable::Piece& piece = tail_table().pieces[index];
  const DoubleDouble d = add(t, -TailTable::centre(index));
  double rest = piece.rest.back();
  for (std::size_t n = piece.rest.size() - 1; n-- > 0;) rest = piece.rest[n] + d.h * rest;
  DoubleDouble s = add(piece.a.back(), d.h * rest);
  for (std::size_t n = piece.a.size() - 1; n-- > 0;) s = add(piece.a[n], mul(s, d));
  return s;
}

// Phi(-t) = e^(-t^2/2) m(t), 0 <= t <= 37: t^2/2 <= 685 is known to 5u^2 of itself, which the exponential turns into
// 3425u^2; 14u^2 beside it.
DoubleDouble normal_tail(DoubleDouble t) { return mul(exp_of(scale(mul(t, t), -0.5)), tail_of(t)); }

// Below 1/2: x 2/sqrt(pi) sum of (-x^2)^n / (n! (2n + 1)), alternating: the term left out, n = 22, bounds the rest and
// is below 2^-118. 5u^2 for x^2, 5u^2 and 3u^2 a step on terms that shrink by x^2/3 <= 1/12, two more products: 25u^2.
// From 1/2: 1 - 2 Phi(-x sqrt 2): 5u^2 x^2 + 20u^2 times erfc/erf <= 0.93, 2u^2: 24u^2, above 1 less.
DoubleDouble erf_of(DoubleDouble x) {
  const bool negative = std::signbit(x.h);
  const DoubleDouble a = negative ? neg(x) : x;
  DoubleDouble y;
  if (a.h < 0.5) {
    constexpr int kTerms = 22;
    static const auto coefficients = [] {
      std::array<DoubleDouble, kTerms> c{};
      DoubleDouble reciprocal{1, 0};  // 1/n!
      for (int n = 0; n < kTerms; ++n) {
        if (n > 0) reciprocal = div(reciprocal, static_cast<double>(n));  // 3u^2 a step; term n is below 12^-n
        const DoubleDouble value = div(reciprocal, static_cast<double>(2 * n + 1));
        c[static_cast<std::size_t>(n)] = n % 2 == 0 ? value : neg(value);
      }
      return c;
    }();
    const DoubleDouble q = mul(a, a);
    DoubleDouble s = coefficients[kTerms - 1];
    for (std::size_t n = kTerms - 1; n-- > 0;) s = add(coefficients[n], mul(s, q));
    y = mul(mul(a, constants().two_over_root_pi), s);
  } else if (a.h < 9) {
    const DoubleDouble tail = mul(exp_of(neg(mul(a, a))), tail_of(mul(a, constants().root_two)));
    y = add(scale(tail, -2), 1.0);
  } else {
    y = {1, 0};  // erfc(9) < 2^-120
  }
  return negative ? neg(y) : y;
}

DoubleDouble gelu_of(DoubleDouble x) {
  const bool negative = std::signbit(x.h);
  const DoubleDouble t = negative ? neg(x) : x;
  if (t.h > 37) return negative ? DoubleDouble{-0.0, 0} : x;  // Phi(-37) < 2^-990
  const DoubleDouble tail = normal_tail(t);
  return mul(x, negative ? tail : add(neg(tail), 1.0));
}

// x / (1 + e^-w), w = x (2 sqrt(2/pi) + 0.08943 sqrt(2/pi) x^2) to 18u^2 of itself: the exponential makes 18u^2 |w| of
// it.
DoubleDouble gelu_tanh_of(DoubleDouble x) {
  const Constants& c = constants();
  if (x.h > 40) return x;  // 1 - sigma(w) < e^-4500
  if (x.h < -40) return {-0.0, 0};
  const DoubleDouble w = mul(x, add(c.linear, mul(c.cubic, mul(x, x))));
  if (w.h < -700) return {-0.0, 0};
  return over_one_plus_exp(x, neg(w));
}

}  // namespace

DoubleDouble evaluate(Function f, DoubleDouble x) {
  switch (f) {
    case Function::exp: return exp_of(x);
    case Function::tanh: return tanh_of(x);
    case Function::erf: return erf_of(x);
    case Function::sigmoid: return over_one_plus_exp({1, 0}, neg(x));
    case Function::silu: return over_one_plus_exp(x, neg(x));
    case Function::gelu: return gelu_of(x);
    case Function::gelu_tanh: return gelu_tanh_of(x);
  }
  std::abort();
}

double function_bound_dd(Function f) {
  switch (f) {
    case Function::exp: return 0x1p-102;      // 9u^2 + 2^-109
    case Function::tanh: return 0x1p-99;      // 75u^2
    case Function::erf: return 0x1p-101;      // 25u^2
    case Function::sigmoid: return 0x1p-101;  // 9u^2 + 2^-109 + 12u^2
    case Function::silu: return 0x1p-101;
    case Function::gelu: return 0x1p-94;       // 3450u^2
    case Function::gelu_tanh: return 0x1p-92;  // 18 * 700 u^2 + 21u^2
  }
  std::abort();
}

}  // namespace norma
