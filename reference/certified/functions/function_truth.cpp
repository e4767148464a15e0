// The truth of y = f(x): exact values, binary64, double-double, then MPFR until it tells.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <stdexcept>

#include "reference/certified/functions/function_kernels.hpp"
#include "reference/certified/functions/functions.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kExpOverflow = 709.79;  // e^x > 2^1024 from here on

// f(x) where x alone tells it to be a binary64 number, infinite or NaN. For other x, by Lindemann-Weierstrass, e^x is
// transcendental, and with it exp, tanh, sigmoid and silu: Ziv's loop ends. For erf and the gelus no proof is known.
std::optional<double> exact_value(Function f, double x) {
  if (std::isnan(x)) return x;
  const bool zero = x == 0, negative = std::signbit(x);
  if (!zero && std::isfinite(x)) return std::nullopt;
  switch (f) {
    case Function::exp: return zero ? 1.0 : negative ? 0.0 : kInfinity;
    case Function::sigmoid: return zero ? 0.5 : negative ? 0.0 : 1.0;
    case Function::tanh:
    case Function::erf: return zero ? x : negative ? -1.0 : 1.0;
    case Function::silu:
    case Function::gelu:
    case Function::gelu_tanh: return zero ? x : negative ? -0.0 : kInfinity;
  }
  std::abort();
}

bool is_positive(Function f) { return f == Function::exp || f == Function::sigmoid; }

// The least binary64 number that |f| stays strictly below for this x != 0, where f comes as close to it as one likes.
std::optional<double> strict_limit(Function f, double x) {
  switch (f) {
    case Function::exp: return std::nullopt;
    case Function::tanh:
    case Function::erf:
    case Function::sigmoid: return 1.0;
    case Function::silu:
    case Function::gelu:
    case Function::gelu_tanh: return x > 0 ? std::optional(x) : std::nullopt;
  }
  std::abort();
}

Enclosure exactly(double value) {
  return {.hi = value, .lo = 0, .radius = 0, .magnitude = std::fabs(value), .tier = Tier::binary64};
}

Enclosure enclose_value(Function f, double x) {
  if (const std::optional<double> value = exact_value(f, x)) return exactly(*value);
  const double sign = is_positive(f) || x > 0 ? 1.0 : -1.0;
  if (f == Function::exp && x >= kExpOverflow)
    return {.hi = kLargest, .lo = 0, .radius = kInfinity, .magnitude = kLargest, .tier = Tier::double_double};
  // 1 - tanh(700), 1 - erf(700), 1 - sigmoid(700) and what silu and the gelus miss of x: below 2^-1008.
  const bool vanishes = x < 0 && f != Function::tanh && f != Function::erf;
  if (f != Function::exp && std::fabs(x) > 700 && !vanishes) {
    const double limit = strict_limit(f, x).value_or(1);
    return {.hi = sign * limit, .lo = 0, .radius = 0x1p-1008 * limit, .magnitude = limit, .tier = Tier::double_double};
  }
  // x e^-|x| < 2^-1100 at -800 and falling.
  if (vanishes && x < -800)
    return {.hi = sign * 0.0, .lo = 0, .radius = 0x1p-1074, .magnitude = 0, .tier = Tier::double_double};
  if (std::fabs(x) <= 700) {
    const DoubleDouble y = evaluate(f, DoubleDouble{x, 0});
    const double magnitude = std::fabs(y.h);
    if (magnitude > 0x1p-899)
      return {.hi = y.h,
              .lo = y.l,
              .radius = function_bound_dd(f) * magnitude * (1 + 0x1p-50),
              .magnitude = magnitude,
              .tier = Tier::double_double};
  }
  Enclosure e = enclosure_of(evaluate(f, Interval(x, 160)));
  if (e.hi == 0) e.hi = std::copysign(0.0, sign);
  return e;
}

Comparison comparison(int sign) { return static_cast<Comparison>((sign > 0) - (sign < 0)); }

Comparison compare_value(Function f, double x, double m_hi, double m_lo) {
  constexpr mpfr_prec_t kMostBits = 4096;
  if (const std::optional<double> value = exact_value(f, x)) return compare(Interval(*value, 53), m_hi, m_lo);
  const int sign = is_positive(f) || x > 0 ? 1 : -1;
  const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
  if (m.sign() != sign) return comparison(sign);
  if (f == Function::exp && x > 712) return Comparison::greater;  // |m| <= 2^1024 (1 + 2^-53) < e^712
  if (const std::optional<double> limit = strict_limit(f, x); limit && order(abs(m), Dyadic(*limit)) >= 0)
    return comparison(-sign);
  for (mpfr_prec_t bits = 128; bits <= kMostBits; bits *= 2) {
    const Comparison answer = compare(evaluate(f, Interval(x, bits)), m_hi, m_lo);
    if (answer != Comparison::undecided) return answer;
  }
  return Comparison::undecided;
}

class FunctionTruth final : public TruthSource {
 public:
  FunctionTruth(Function f, const Tensor& x) : f_(f), x_(x) {}
  std::int64_t rows() const override { return x_.rows(); }
  std::int64_t cols() const override { return x_.cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return enclose_value(f_, value(row, col)); }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const auto count = static_cast<std::size_t>(cols());
    decode_values(x_, row * cols(), out.radius.first(count));
    const std::span<double> x = out.radius.first(count);
    evaluate(f_, x, out.mid.first(count));
    const double bound = function_bound(f_) * (1 + 0x1p-50);
    for (std::size_t i = 0; i < count; ++i) {
      const double v = x[i];
      if (v == 0 || !std::isfinite(v)) {
        out.mid[i] = *exact_value(f_, v);
        out.radius[i] = 0;
      } else if (std::isinf(out.mid[i])) {
        out.mid[i] = kLargest;
        out.radius[i] = kInfinity;
      } else {
        out.radius[i] = bound * std::fabs(out.mid[i]) + kFunctionFloor;
      }
      out.magnitude[i] = std::fabs(out.mid[i]);
    }
    return Tier::binary64;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const double x = value(row, col);
    if (std::isnan(x)) return Comparison::undecided;
    return compare_value(f_, x, m_hi, m_lo);
  }

 private:
  double value(std::int64_t row, std::int64_t col) const { return x_.value(row * x_.cols() + col); }
  Function f_;
  const Tensor& x_;
};

}  // namespace

std::unique_ptr<TruthSource> function_truth(Function f, const Tensor& x) {
  return std::make_unique<FunctionTruth>(f, x);
}

}  // namespace norma
