// The factor of a norm, exactly.
#include "reference/exact/root.hpp"

#include <cstdlib>

namespace norma {

namespace {

int sign_of(int value) { return (value > 0) - (value < 0); }

// |a| r against |c|, both nonzero.
int compare_magnitudes(const Root& root, const Dyadic& a, const Dyadic& c) {
  const Dyadic& s = root.total;
  const Dyadic& n = root.count;
  const Dyadic eps(root.eps);
  const Dyadic a2 = square(a), c2 = square(c);
  switch (root.place) {
    case EpsPlace::inside: return order(n * a2, c2 * (s + n * eps));
    case EpsPlace::sum: return order(a2, c2 * (s + eps));
    case EpsPlace::none: return order(n * a2, c2 * s);
    case EpsPlace::outside: {
      // |a| > |c| (sqrt(S/n) + eps): the root alone on one side
      const Dyadic q = abs(a) - abs(c) * eps;
      if (q.sign() < 0) return -1;
      return order(n * square(q), c2 * s);
    }
    case EpsPlace::max:
      if (order(s, n * square(eps)) >= 0) return order(n * a2, c2 * s);
      return order(abs(a), abs(c) * eps);
    case EpsPlace::l2max:
      if (order(s, square(eps)) >= 0) return order(n * a2, c2 * s);
      return order(n * a2, c2 * square(eps));
  }
  std::abort();
}

}  // namespace

Interval enclose(const Root& root, mpfr_prec_t bits) {
  const Interval total(root.total, bits);
  const Interval count(root.count, bits);
  const Interval eps(root.eps, bits);
  const Interval one(1.0, bits);
  const Interval mean = div(total, count);
  switch (root.place) {
    case EpsPlace::inside: return rsqrt(add(mean, eps));
    case EpsPlace::sum: return rsqrt(add(total, eps));
    case EpsPlace::outside: return div(one, add(sqrt(mean), eps));
    case EpsPlace::max: return div(one, max(sqrt(mean), eps));
    case EpsPlace::l2max: return div(sqrt(count), max(sqrt(total), eps));
    case EpsPlace::none: return rsqrt(mean);
  }
  std::abort();
}

int compare(const Root& root, const Dyadic& a, const Dyadic& c) {
  const int a_sign = a.sign(), c_sign = c.sign();
  if (a_sign != c_sign) return sign_of(a_sign - c_sign);
  if (a_sign == 0) return 0;
  return a_sign * compare_magnitudes(root, a, c);
}

}  // namespace norma
