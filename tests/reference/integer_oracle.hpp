// Row norms by integers alone (GMP): where a number lies to y, decided without a root and without rounding.
//
// All inputs are dyadic. With k_j 2^g the elements of a group of D, K = sum k, and N_j = D k_j - K (moments; k = D) or
// k_j (squares; k = 1) or k_j - m (given; k = 1), the total S = sum N^2 / k^2, and
//
//   y - b = X / (sqrt(Q) + E),  X = w s N n,  Q = n sum N^2 + (n k)^2 eps   for eps inside the root of S / n, E = 0,
//
// so that y < m is X - (m - b) E < (m - b) sqrt(Q): two signs and one comparison of squares.
#pragma once

#include <gmp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"

namespace norma::test {

/// z 2^e, exactly.
class Number {
 public:
  Number() { mpz_init(z_); }
  explicit Number(double v) : Number() { set(v); }
  Number(const Number& o) : e_(o.e_) { mpz_init_set(z_, o.z_); }
  Number(Number&& o) noexcept : Number() { swap(o); }
  Number& operator=(const Number& o) {
    mpz_set(z_, o.z_);
    e_ = o.e_;
    return *this;
  }
  Number& operator=(Number&& o) noexcept {
    swap(o);
    return *this;
  }
  ~Number() { mpz_clear(z_); }
  void swap(Number& o) noexcept {
    mpz_swap(z_, o.z_);
    std::swap(e_, o.e_);
  }

  void set(double v) {
    if (v == 0) {
      mpz_set_ui(z_, 0);
      e_ = 0;
      return;
    }
    int exponent = 0;
    mpz_set_d(z_, std::ldexp(std::frexp(v, &exponent), 53));
    e_ = exponent - 53;
    trim();
  }
  int sign() const { return mpz_sgn(z_); }
  void trim() {
    if (sign() == 0) return;
    const mp_bitcnt_t zeros = mpz_scan1(z_, 0);
    if (zeros == 0) return;
    mpz_tdiv_q_2exp(z_, z_, zeros);
    e_ += static_cast<long>(zeros);
  }
  void add(const Number& b, int factor = 1) {
    if (b.sign() == 0) return;
    if (sign() == 0) e_ = b.e_;
    thread_local Number t;
    if (b.e_ >= e_) {
      mpz_mul_2exp(t.z_, b.z_, static_cast<mp_bitcnt_t>(b.e_ - e_));
      factor > 0 ? mpz_add(z_, z_, t.z_) : mpz_sub(z_, z_, t.z_);
    } else {
      mpz_mul_2exp(z_, z_, static_cast<mp_bitcnt_t>(e_ - b.e_));
      e_ = b.e_;
      factor > 0 ? mpz_add(z_, z_, b.z_) : mpz_sub(z_, z_, b.z_);
    }
  }
  void multiply(const Number& b) {
    mpz_mul(z_, z_, b.z_);
    e_ += b.e_;
  }
  void square() {
    mpz_mul(z_, z_, z_);
    e_ *= 2;
  }
  /// Sign of |this| - |b|.
  int compare_magnitude(const Number& b) const {
    if (sign() == 0 || b.sign() == 0) return (sign() != 0) - (b.sign() != 0);
    const long top = static_cast<long>(mpz_sizeinbase(z_, 2)) + e_,
               other = static_cast<long>(mpz_sizeinbase(b.z_, 2)) + b.e_;
    if (top != other) return top > other ? 1 : -1;
    thread_local Number t;
    if (e_ >= b.e_) {
      mpz_mul_2exp(t.z_, z_, static_cast<mp_bitcnt_t>(e_ - b.e_));
      return clamp(mpz_cmpabs(t.z_, b.z_));
    }
    mpz_mul_2exp(t.z_, b.z_, static_cast<mp_bitcnt_t>(b.e_ - e_));
    return clamp(mpz_cmpabs(z_, t.z_));
  }
  /// floor(log2 |this|) + 1
  long top() const { return static_cast<long>(mpz_sizeinbase(z_, 2)) + e_; }

 private:
  static int clamp(int v) { return (v > 0) - (v < 0); }
  mpz_t z_;
  long e_ = 0;
};

/// One row of a problem with finite inputs.
class IntegerRow {
 public:
  IntegerRow(const RowNorm& norm, std::int64_t row) : norm_(norm), row_(row) {
    const std::int64_t group = row % norm.groups;
    Number sum, squares, h;
    std::int64_t elements = 0;
    if (norm.statistics != Statistics::given) {
      for (std::int64_t r = group; r < norm.rows; r += norm.groups)
        for (std::int64_t j = 0; j < norm.cols; ++j, ++elements) {
          element(r, j, h);
          if (norm.statistics == Statistics::moments) sum.add(h);
          h.square();
          squares.add(h);
        }
    }
    factor_ = Number(1.0);
    Number total;  // sum N^2
    switch (norm.statistics) {
      case Statistics::squares: total = squares; break;
      case Statistics::moments: {
        // sum (D h - H)^2 = D (D sum h^2 - H^2)
        factor_ = Number(static_cast<double>(elements));
        centre_ = sum;
        total = squares;
        total.multiply(factor_);
        sum.square();
        total.add(sum, -1);
        total.multiply(factor_);
        break;
      }
      case Statistics::given:
        if (norm.mean != nullptr) centre_ = Number(norm.mean->value(group));
        total = Number(norm.variance->value(group));
        break;
    }
    find_root(total);
  }

  bool undefined() const { return undefined_; }

  /// Moves to a column.
  void at(std::int64_t col) {
    Number h;
    element(row_, col, h);
    Number n = h;
    n.multiply(factor_);
    n.add(centre_, -1);
    double sign = difference_sign(col, h, n);
    x_ = n;
    sign *= parameter(norm_.weight, col, x_);
    sign *= parameter(norm_.scale, col, x_);
    zero_sign_ = sign;
    x_.multiply(numerator_);
    x_.trim();
    bias_ = norm_.bias.tensor == nullptr ? -0.0 : norm_.bias.tensor->value(norm_.bias.index.at(row_, col));
    bias_number_.set(bias_);
  }

  /// Sign of y - (the sum of the terms).
  int compare(std::initializer_list<double> terms) {
    c_.set(0);
    for (double t : terms) {
      t_.set(t);
      c_.add(t_);
    }
    c_.add(bias_number_, -1);
    u_ = x_;
    if (plus_.sign() != 0) {
      t_ = c_;
      t_.multiply(plus_);
      u_.add(t_, -1);
    }
    if (square_.sign() == 0) return u_.sign();  // the root is E alone, or y = b + X / 1 for E
    if (u_.sign() != c_.sign()) return u_.sign() > c_.sign() ? 1 : -1;
    if (u_.sign() == 0) return 0;
    const int sign = u_.sign();
    // |u|^2 against c^2 Q, by their sizes first
    const long left = 2 * u_.top(), right = 2 * c_.top() + square_.top();
    if (left - 2 > right) return sign;
    if (left < right - 3) return -sign;
    u_.square();
    c_.square();
    c_.multiply(square_);
    return sign * u_.compare_magnitude(c_);
  }

  /// y where it is zero or b because a factor is zero: with the sign of IEEE arithmetic. NaN: no factor is zero.
  double plain() const { return x_.sign() == 0 ? std::copysign(0.0, zero_sign_) + bias_ : std::nan(""); }

 private:
  void element(std::int64_t row, std::int64_t col, Number& h) const {
    h.set(norm_.x->value(row * norm_.cols + col));
    if (norm_.residual != nullptr) h.add(Number(norm_.residual->value(row * norm_.cols + col)));
  }

  // The sign of h - centre, of a zero too: IEEE's, where a mean of zero is +0.
  double difference_sign(std::int64_t col, const Number& h, const Number& n) const {
    if (n.sign() != 0) return n.sign();
    const std::int64_t i = row_ * norm_.cols + col;
    double z = norm_.x->value(i);
    if (norm_.residual != nullptr) z = h.sign() == 0 ? z + norm_.residual->value(i) : 1.0;
    if (norm_.statistics == Statistics::given && norm_.mean != nullptr) z -= norm_.mean->value(row_ % norm_.groups);
    if (norm_.statistics == Statistics::moments && h.sign() != 0) z = 0;
    return std::copysign(1.0, z);
  }

  // Multiplies `product` by the parameter and returns its sign.
  double parameter(const Parameter& p, std::int64_t col, Number& product) const {
    if (p.tensor == nullptr) return 1;
    const double t = p.tensor->value(p.index.at(row_, col));
    Number w(t);
    w.add(Number(p.offset));
    product.multiply(w);
    if (w.sign() != 0) return w.sign();
    return std::copysign(1.0, p.offset == 0 ? t : t + p.offset);
  }

  // y - b = w s N n / (sqrt(Q) + E)
  void find_root(const Number& total) {
    const Number n(norm_.count), eps(norm_.eps);
    Number k_eps = factor_;  // k eps
    k_eps.multiply(eps);
    Number k_squared = factor_;
    k_squared.square();
    numerator_ = n;
    square_ = total;
    square_.multiply(n);  // n sum N^2
    switch (norm_.eps_place) {
      case EpsPlace::inside: {
        Number e = k_squared;
        e.multiply(eps);
        e.multiply(n);
        e.multiply(n);
        square_.add(e);
        break;
      }
      case EpsPlace::sum: {
        numerator_ = Number(1.0);
        square_ = total;
        Number e = k_squared;
        e.multiply(eps);
        square_.add(e);
        break;
      }
      case EpsPlace::none: break;
      case EpsPlace::outside:
        plus_ = k_eps;
        plus_.multiply(n);
        break;
      case EpsPlace::max: {  // sum N^2 / k^2 / n against eps^2
        Number e = k_eps;
        e.square();
        e.multiply(n);
        if (total.compare_magnitude(e) < 0) {
          numerator_ = Number(1.0);
          square_ = k_eps;
          square_.square();
        }
        break;
      }
      case EpsPlace::l2max: {  // n / max(sqrt(n total), sqrt(n) k eps)
        Number e = k_eps;
        e.square();
        if (total.compare_magnitude(e) < 0) {
          square_ = e;
          square_.multiply(n);
        }
        break;
      }
    }
    square_.trim();
    undefined_ = square_.sign() < 0 || (square_.sign() == 0 && plus_.sign() == 0);
  }

  const RowNorm& norm_;
  std::int64_t row_;
  Number factor_, centre_, numerator_, square_, plus_;
  bool undefined_ = false;
  Number x_, bias_number_, c_, u_, t_;
  double bias_ = -0.0, zero_sign_ = 1;
};

/// What is wrong with `code` as y rounded to nearest even; empty: nothing. `y` stands at a column.
inline const char* rounding_fault(IntegerRow& y, FormatId format, Overflow overflow, std::uint64_t code) {
  const Format& f = format_of(format);
  if (y.undefined()) return is_nan_code(format, code) ? nullptr : "not NaN where y is undefined";
  const double plain = y.plain();
  const int sign = y.compare({0.0});
  const bool negative = sign < 0 || (sign == 0 && plain == 0 && std::signbit(plain));
  const double s = negative ? -1 : 1;
  const double top = max_finite(format), step = top - decode(format, f.max_finite_code() - 1);
  const int beyond = static_cast<int>(s) * y.compare({s * top, s * step / 2});
  const bool overflows = beyond > 0 || (beyond == 0 && (f.max_finite_code() & 1) != 0);
  if (overflows) {
    std::uint64_t right = f.max_finite_code() | (negative ? f.sign_code() : 0);
    if (overflow == Overflow::ieee)
      right = f.has_infinity() ? f.infinity_code() | (negative ? f.sign_code() : 0) : f.nan_code();
    const bool nan = is_nan_code(format, right);
    return code == right || (nan && is_nan_code(format, code)) ? nullptr : "not what lies beyond the range";
  }
  const double value = decode(format, code);
  if (!std::isfinite(value)) return "not finite";
  if (std::signbit(value) != negative && (value != 0 || f.has_negative_zero())) return "the wrong sign";
  const std::uint64_t magnitude = code & f.magnitude_mask();
  const bool even = (code & 1) == 0;
  const double above = magnitude == f.max_finite_code() ? step : decode(format, magnitude + 1) - std::fabs(value);
  const int up = static_cast<int>(s) * y.compare({value, s * above / 2});
  if (up > 0 || (up == 0 && !even)) return "too close to zero";
  if (magnitude == 0) return nullptr;
  const double below = std::fabs(value) - decode(format, magnitude - 1);
  const int down = static_cast<int>(s) * y.compare({value, -s * below / 2});
  if (down < 0 || (down == 0 && !even)) return "too far from zero";
  return nullptr;
}

/// What is wrong with |y - (hi + lo)| <= radius. An infinite radius says nothing.
inline const char* enclosure_fault(IntegerRow& y, double hi, double lo, double radius) {
  if (std::isfinite(hi) && std::isinf(radius)) return nullptr;
  if (y.undefined()) return std::isnan(hi) ? nullptr : "not NaN where y is undefined";
  if (!std::isfinite(hi) || std::isnan(radius)) return "not finite";
  if (radius == 0 && hi == 0 && y.plain() == 0 && std::signbit(hi) != std::signbit(y.plain())) return "a zero's sign";
  if (y.compare({hi, lo, radius}) > 0) return "y above the enclosure";
  if (y.compare({hi, lo, -radius}) < 0) return "y below the enclosure";
  return nullptr;
}

}  // namespace norma::test
