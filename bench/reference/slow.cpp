// Wider arithmetics, each at its best in plain code: parameters converted once, nothing allocated in a loop.
#include "bench/reference/slow.hpp"

#include <mpfr.h>

#include <boost/multiprecision/mpfr.hpp>
#include <cmath>

#ifdef NORMA_BENCH_QUADMATH
#include <quadmath.h>
#endif

namespace norma::bench {

namespace {

template <class Real>
struct Numbers {
  std::vector<Real> weight, bias;
  explicit Numbers(const SlowNorm& n) : weight(n.weight, n.weight + n.cols) {
    if (n.bias != nullptr) bias.assign(n.bias, n.bias + n.cols);
  }
};

template <class Real>
Real root(const Real& v) {
  using std::sqrt;
  return sqrt(v);
}
#ifdef NORMA_BENCH_QUADMATH
__extension__ typedef __float128 Quad;
template <>
Quad root(const Quad& v) {
  return sqrtq(v);
}
#endif

template <class Real>
void norm_in(const SlowNorm& n) {
  const Numbers<Real> p(n);
  const Real eps(n.eps), count(static_cast<double>(n.cols)), one(1.0);
  Real mean(0.0), s, r, t;
  for (std::size_t row = 0; row < n.rows; ++row) {
    const double* x = n.x + row * n.cols;
    float* y = n.y + row * n.cols;
    if (n.bias != nullptr) {
      mean = 0.0;
      for (std::size_t i = 0; i < n.cols; ++i) mean += x[i];
      mean /= count;
    }
    s = 0.0;
    for (std::size_t i = 0; i < n.cols; ++i) {
      t = x[i];
      if (n.bias != nullptr) t -= mean;
      t *= t;
      s += t;
    }
    s /= count;
    s += eps;
    r = one / root(s);
    for (std::size_t i = 0; i < n.cols; ++i) {
      t = x[i];
      if (n.bias != nullptr) t -= mean;
      t *= p.weight[i];
      t *= r;
      if (n.bias != nullptr) t += p.bias[i];
      y[i] = static_cast<float>(t);
    }
  }
}

/// An MPFR variable of a fixed precision.
class Number {
 public:
  explicit Number(mpfr_prec_t bits) { mpfr_init2(value_, bits); }
  Number(const Number&) = delete;
  Number& operator=(const Number&) = delete;
  ~Number() { mpfr_clear(value_); }
  operator mpfr_ptr() { return value_; }

 private:
  mpfr_t value_;
};

void norm_in_mpfr(const SlowNorm& n, mpfr_prec_t bits) {
  constexpr auto kNear = MPFR_RNDN;
  Number mean(bits), s(bits), r(bits), t(bits);
  std::vector<mpfr_t> weight(n.cols);
  for (std::size_t i = 0; i < n.cols; ++i) {
    mpfr_init2(weight[i], bits);
    mpfr_set_d(weight[i], n.weight[i], kNear);
  }
  for (std::size_t row = 0; row < n.rows; ++row) {
    const double* x = n.x + row * n.cols;
    float* y = n.y + row * n.cols;
    mpfr_set_zero(mean, 1);
    if (n.bias != nullptr) {
      for (std::size_t i = 0; i < n.cols; ++i) mpfr_add_d(mean, mean, x[i], kNear);
      mpfr_div_ui(mean, mean, n.cols, kNear);
    }
    mpfr_set_zero(s, 1);
    for (std::size_t i = 0; i < n.cols; ++i) {
      mpfr_set_d(t, x[i], kNear);
      if (n.bias != nullptr) mpfr_sub(t, t, mean, kNear);
      mpfr_sqr(t, t, kNear);
      mpfr_add(s, s, t, kNear);
    }
    mpfr_div_ui(s, s, n.cols, kNear);
    mpfr_add_d(s, s, n.eps, kNear);
    mpfr_rec_sqrt(r, s, kNear);
    for (std::size_t i = 0; i < n.cols; ++i) {
      mpfr_set_d(t, x[i], kNear);
      if (n.bias != nullptr) mpfr_sub(t, t, mean, kNear);
      mpfr_mul(t, t, weight[i], kNear);
      mpfr_mul(t, t, r, kNear);
      if (n.bias != nullptr) mpfr_add_d(t, t, n.bias[i], kNear);
      y[i] = mpfr_get_flt(t, kNear);
    }
  }
  for (mpfr_t& w : weight) mpfr_clear(w);
}

}  // namespace

std::vector<SlowPeer> slow_peers() {
  std::vector<SlowPeer> peers{
      {"long_double", "long double", norm_in<long double>, 3e8},
      {"mpfr113", "naive MPFR, 113 bits", [](const SlowNorm& n) { norm_in_mpfr(n, 113); }, 6e6},
      {"mpfr256", "naive MPFR, 256 bits", [](const SlowNorm& n) { norm_in_mpfr(n, 256); }, 4e6},
      {"boost50", "Boost mpfr_float_50", norm_in<boost::multiprecision::mpfr_float_50>, 5e6},
  };
#ifdef NORMA_BENCH_QUADMATH
  peers.push_back({"float128", "__float128", norm_in<Quad>, 8e6});
#endif
#ifdef NORMA_BENCH_ARB
  peers.push_back({"arb", "Arb balls, 113 bits", arb_norm, 1e7});
#endif
  return peers;
}

void mpfr_dots(const double* a, const double* b, std::size_t n, std::size_t k, std::size_t count, float* c) {
  Number s(113), t(113);
  for (std::size_t at = 0; at < count; ++at) {
    const double* row = a + at / n * k;
    const double* column = b + at % n * k;
    mpfr_set_zero(s, 1);
    for (std::size_t i = 0; i < k; ++i) {
      mpfr_set_d(t, row[i], MPFR_RNDN);
      mpfr_mul_d(t, t, column[i], MPFR_RNDN);
      mpfr_add(s, s, t, MPFR_RNDN);
    }
    c[at] = mpfr_get_flt(s, MPFR_RNDN);
  }
}

void mpfr_function(const std::string& f, const float* x, float* y, std::size_t count) {
  constexpr auto kNear = MPFR_RNDN;
  Number v(113), t(113), c(113);
  if (f == "gelu") {
    mpfr_set_d(c, 0.5, kNear);
    mpfr_sqrt(c, c, kNear);
  } else if (f == "gelu_tanh") {
    mpfr_const_pi(c, kNear);
    mpfr_ui_div(c, 2, c, kNear);
    mpfr_sqrt(c, c, kNear);
  }
  for (std::size_t i = 0; i < count; ++i) {
    mpfr_set_flt(v, x[i], kNear);
    if (f == "exp") {
      mpfr_exp(v, v, kNear);
    } else if (f == "silu") {
      mpfr_neg(t, v, kNear);
      mpfr_exp(t, t, kNear);
      mpfr_add_ui(t, t, 1, kNear);
      mpfr_div(v, v, t, kNear);
    } else if (f == "gelu") {
      mpfr_mul(t, v, c, kNear);
      mpfr_erf(t, t, kNear);
      mpfr_add_ui(t, t, 1, kNear);
      mpfr_mul(v, v, t, kNear);
      mpfr_div_2ui(v, v, 1, kNear);
    } else {
      mpfr_sqr(t, v, kNear);
      mpfr_mul(t, t, v, kNear);
      mpfr_mul_d(t, t, 0.044715, kNear);
      mpfr_add(t, t, v, kNear);
      mpfr_mul(t, t, c, kNear);
      mpfr_tanh(t, t, kNear);
      mpfr_add_ui(t, t, 1, kNear);
      mpfr_mul(v, v, t, kNear);
      mpfr_div_2ui(v, v, 1, kNear);
    }
    y[i] = mpfr_get_flt(v, kNear);
  }
}

void mpfr_softmax(const float* x, float* y, std::size_t rows, std::size_t cols) {
  constexpr auto kNear = MPFR_RNDN;
  Number s(113), largest(113), t(113);
  std::vector<mpfr_t> e(cols);
  for (mpfr_t& v : e) mpfr_init2(v, 113);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* from = x + row * cols;
    float most = from[0];
    for (std::size_t i = 1; i < cols; ++i) most = std::fmax(most, from[i]);
    mpfr_set_flt(largest, most, kNear);
    mpfr_set_zero(s, 1);
    for (std::size_t i = 0; i < cols; ++i) {
      mpfr_set_flt(t, from[i], kNear);
      mpfr_sub(t, t, largest, kNear);
      mpfr_exp(e[i], t, kNear);
      mpfr_add(s, s, e[i], kNear);
    }
    for (std::size_t i = 0; i < cols; ++i) {
      mpfr_div(t, e[i], s, kNear);
      y[row * cols + i] = mpfr_get_flt(t, kNear);
    }
  }
  for (mpfr_t& v : e) mpfr_clear(v);
}

}  // namespace norma::bench
