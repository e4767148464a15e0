// Arb's balls: itself a certified peer, of norms by its own dot product. Built only where Arb is installed.
#if __has_include(<flint/arb.h>)
#include <flint/arb.h>
#else
#include <arb.h>
#endif

#include <vector>

#include "bench/reference/slow.hpp"

namespace norma::bench {

namespace {

constexpr slong kBits = 113;

/// Balls that are cleared.
class Balls {
 public:
  explicit Balls(std::size_t count) : values_(count) {
    for (arb_struct& v : values_) arb_init(&v);
  }
  Balls(const Balls&) = delete;
  Balls& operator=(const Balls&) = delete;
  ~Balls() {
    for (arb_struct& v : values_) arb_clear(&v);
  }
  arb_ptr operator[](std::size_t i) { return &values_[i]; }

 private:
  std::vector<arb_struct> values_;
};

}  // namespace

void arb_norm(const SlowNorm& n) {
  const auto count = static_cast<slong>(n.cols);
  Balls x(n.cols), weight(n.cols), one(1), work(4);
  for (std::size_t i = 0; i < n.cols; ++i) arb_set_d(weight[i], n.weight[i]);
  const arb_ptr mean = work[0], s = work[1], r = work[2], t = work[3];
  for (std::size_t row = 0; row < n.rows; ++row) {
    float* y = n.y + row * n.cols;
    arb_zero(mean);
    for (std::size_t i = 0; i < n.cols; ++i) {
      arb_set_d(x[i], n.x[row * n.cols + i]);
      if (n.bias != nullptr) arb_add(mean, mean, x[i], kBits);
    }
    if (n.bias != nullptr) {
      arb_div_si(mean, mean, count, kBits);
      for (std::size_t i = 0; i < n.cols; ++i) arb_sub(x[i], x[i], mean, kBits);
    }
    arb_dot(s, nullptr, 0, x[0], 1, x[0], 1, count, kBits);
    arb_div_si(s, s, count, kBits);
    arb_set_d(t, n.eps);
    arb_add(s, s, t, kBits);
    arb_rsqrt(r, s, kBits);
    for (std::size_t i = 0; i < n.cols; ++i) {
      arb_mul(t, x[i], weight[i], kBits);
      arb_mul(t, t, r, kBits);
      if (n.bias != nullptr) {
        arb_set_d(s, n.bias[i]);
        arb_add(t, t, s, kBits);
      }
      y[i] = static_cast<float>(arf_get_d(arb_midref(t), ARF_RND_NEAR));
    }
  }
}

}  // namespace norma::bench
