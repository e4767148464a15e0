// The loops of the double-double tier, for several vector widths.
#include "reference/certified/close_loops.hpp"

#include <bit>
#include <cmath>
#include <limits>

// x86-64-v3 and -v4 have FMA, which "avx2" alone does not let the compiler use.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(NORMA_NO_CLONES)
#define NORMA_FMA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NORMA_FMA_CLONES
#endif

namespace norma {

namespace {

constexpr std::size_t kLanes = 32;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Finite and not zero: what double-double arithmetic is for.
inline bool ordinary(double v) { return std::fabs(v) < kInfinity && v != 0; }

inline DoubleDouble tree(double* h, double* l) {
  for (std::size_t width = kLanes / 2; width > 0; width /= 2)
    for (std::size_t k = 0; k < width; ++k) {
      const DoubleDouble s = add(DoubleDouble{h[k], l[k]}, DoubleDouble{h[k + width], l[k + width]});
      h[k] = s.h;
      l[k] = s.l;
    }
  return {h[0], l[0]};
}

inline double value_of(std::uint64_t bits) { return std::bit_cast<double>(bits); }
inline std::uint64_t bits_of(double value) { return std::bit_cast<std::uint64_t>(value); }

// |v| less its last bit set is 0 or a double; the difference is that bit.
inline double last_bit(double v) {
  const std::uint64_t bits = bits_of(std::fabs(v));
  const std::uint64_t fraction = bits & 0x000f'ffff'ffff'ffff;
  const double rest = value_of(bits - (fraction & (0 - fraction)));
  const double bit = fraction == 0 ? std::fabs(v) : std::fabs(v) - rest;
  return v == 0 ? kInfinity : bit;
}

}  // namespace

NORMA_FMA_CLONES
DoubleDouble sum_pairs(ConstPairs a, std::size_t count) {
  double s[kLanes] = {}, c[kLanes] = {};
  for (std::size_t i = 0; i < count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) {
      const DoubleDouble t = two_sum(s[k], a.h[i + k]);
      s[k] = t.h;
      c[k] += t.l + a.l[i + k];
    }
  for (std::size_t k = 0; k < kLanes; ++k) {
    const DoubleDouble t = two_sum(s[k], c[k]);
    s[k] = t.h;
    c[k] = t.l;
  }
  return tree(s, c);
}

NORMA_FMA_CLONES
DoubleDouble sum_squares(ConstPairs a, std::size_t count) {
  double s[kLanes] = {}, c[kLanes] = {};
  for (std::size_t i = 0; i < count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) {
      const double h = a.h[i + k];
      const double p = h * h;
      const double low = std::fma(2 * h, a.l[i + k], std::fma(h, h, -p));
      const DoubleDouble t = two_sum(s[k], p);
      s[k] = t.h;
      c[k] += t.l + low;
    }
  for (std::size_t k = 0; k < kLanes; ++k) {
    const DoubleDouble t = two_sum(s[k], c[k]);
    s[k] = t.h;
    c[k] = t.l;
  }
  return tree(s, c);
}

NORMA_FMA_CLONES
void add_exactly(const double* high, const double* low, Pairs a, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble t = two_sum(high[i], low[i]);
    a.h[i] = t.h;
    a.l[i] = ordinary(t.h) ? t.l : 0.0;
  }
}

NORMA_FMA_CLONES
void subtract_centre(Pairs a, std::size_t count, double factor, DoubleDouble centre) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble x = mul(DoubleDouble{a.h[i], a.l[i]}, factor);
    const DoubleDouble d = sub(x, centre);
    const double plain = factor * a.h[i] - centre.h;
    a.h[i] = ordinary(d.h) ? d.h : plain;
    a.l[i] = ordinary(d.h) ? d.l : 0.0;
  }
}

NORMA_FMA_CLONES
void multiply(Pairs a, ConstPairs b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble p = mul(DoubleDouble{a.h[i], a.l[i]}, DoubleDouble{b.h[i], b.l[i]});
    const double plain = a.h[i] * b.h[i];
    a.h[i] = ordinary(plain) ? p.h : plain;
    a.l[i] = ordinary(plain) ? p.l : 0.0;
  }
}

NORMA_FMA_CLONES
void multiply(Pairs a, DoubleDouble b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble p = mul(DoubleDouble{a.h[i], a.l[i]}, b);
    const double plain = a.h[i] * b.h;
    a.h[i] = ordinary(plain) ? p.h : plain;
    a.l[i] = ordinary(plain) ? p.l : 0.0;
  }
}

NORMA_FMA_CLONES
Extent extent(ConstPairs a, std::size_t count) {
  double largest[kLanes] = {}, bit[kLanes];
  double odd[kLanes] = {};  // NaN once there was one: x - x is 0 or NaN
  for (double& b : bit) b = kInfinity;
  const auto visit = [&](std::size_t i, std::size_t k) {
    const double h = std::fabs(a.h[i]);
    largest[k] = h > largest[k] ? h : largest[k];
    odd[k] += h == h ? 0.0 : h;
    const double b0 = last_bit(a.h[i]), b1 = last_bit(a.l[i]);
    const double least = b0 < b1 ? b0 : b1;
    bit[k] = least < bit[k] ? least : bit[k];
  };
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) visit(i + k, k);
  for (; i < count; ++i) visit(i, 0);
  Extent e{0, kInfinity};
  double any = 0;
  for (std::size_t k = 0; k < kLanes; ++k) {
    e.largest = largest[k] > e.largest ? largest[k] : e.largest;
    e.last_bit = bit[k] < e.last_bit ? bit[k] : e.last_bit;
    any += odd[k];
  }
  e.largest += any;
  return e;
}

NORMA_FMA_CLONES
void add_bias(ConstPairs q, ConstPairs bias, const double* spread, CloseBounds bounds, CloseOutput out,
              std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble x{q.h[i], q.l[i]}, b{bias.h[i], bias.l[i]};
    const DoubleDouble y = add(x, b);
    const double plain = x.h + b.h;
    const bool sum = ordinary(x.h) && ordinary(b.h);
    const bool finite = std::fabs(plain) < kInfinity;
    const double flip = x.h < 0 ? -1.0 : 1.0, flop = b.h < 0 ? -1.0 : 1.0;
    const DoubleDouble m = add(DoubleDouble{flip * x.h, flip * x.l}, DoubleDouble{flop * b.h, flop * b.l});
    const double both = std::fabs(x.h) + std::fabs(b.h);
    out.hi[i] = sum ? (y.h != 0 ? y.h : 0.0) : plain;
    // One of the terms is zero: the other one is y.
    out.lo[i] = sum ? y.l : finite ? x.l + b.l : 0.0;
    const double rounding = sum ? 0x1.9p-105 * std::fabs(y.h) : 0.0;  // 3 u^2, 13 u^3 of add
    const double radius = std::fabs(x.h) * bounds.relative + spread[i] * bounds.absolute + rounding;
    out.radius[i] = finite ? radius * (1 + 0x1p-40) : 0.0;
    out.magnitude[i] = sum ? m.h : both;
  }
}

NORMA_FMA_CLONES
void bracket(ConstPairs a, ConstPairs weight, ConstPairs scale, ConstPairs bias, const RationalRoot& root,
             double* value, double* side, std::size_t count) {
  const double t = root.root, numerator = root.numerator, deviation = 1.01 * root.deviation;
  const double root_side = root.side, integral = numerator == 1 ? 0.0 : 1.0;
  for (std::size_t i = 0; i < count; ++i) {
    // `loose` gathers what must be zero for each step to be exact.
    double loose = std::fabs(a.l[i]) + std::fabs(weight.l[i]) + std::fabs(scale.l[i]) + std::fabs(bias.l[i]);
    const double w = weight.h[i] * scale.h[i];
    loose += std::fabs(std::fma(weight.h[i], scale.h[i], -w));
    const double p = w * a.h[i];
    const double p_low = std::fma(w, a.h[i], -p);
    loose += integral * std::fabs(p_low);
    const double pn = p * numerator;
    const double pn_low = std::fma(p, numerator, -pn) + p_low;  // one of them is zero
    // slope numerator + bias T = s + e + f, s the nearest number
    const DoubleDouble bt = two_prod(bias.h[i], t);
    const DoubleDouble head = two_sum(pn, bt.h);
    const DoubleDouble low = two_sum(pn_low, bt.l);
    loose += std::fabs(low.l);
    const DoubleDouble tail = two_sum(head.l, low.h);
    const DoubleDouble s = two_sum(head.h, tail.h);
    // (s + e + f) - q T, exactly: q = RN(s / T) leaves a remainder that is a number, and so does a neighbour of it.
    const double q0 = s.h / t;
    const DoubleDouble rest0 = two_sum(std::fma(-q0, t, s.h), s.l);
    const double q = q0 + (rest0.h + (rest0.l + tail.l)) / t;
    const DoubleDouble rest = two_sum(std::fma(-q, t, s.h), s.l);
    const DoubleDouble last = two_sum(rest.l, tail.l);
    loose += std::fabs(last.l);
    const double remainder = rest.h + last.h;
    // y - q = (remainder - pn e) / T, |e| <= deviation
    const double shift = -root_side * pn;
    const double sign = remainder != 0 ? remainder : shift;
    const bool clear = remainder == 0 || std::fabs(remainder) > deviation * std::fabs(pn);
    const bool zero = q == 0 && sign != 0 && pn != 0;  // there is no side of zero
    const double plain = pn + bias.h[i];               // p = 0: y = b, with the sign of IEEE's sum
    const bool known = loose == 0 && clear && !zero && std::fabs(q) < kInfinity;
    value[i] = pn == 0 ? plain : q;
    const double direction = sign > 0 ? 1.0 : sign < 0 ? -1.0 : 0.0;
    side[i] = !known ? std::numeric_limits<double>::quiet_NaN() : pn == 0 ? 0.0 : direction;
  }
}

NORMA_FMA_CLONES
void round_to_odd(const double* near, const double* side, double* odd, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const double n = near[i];
    const std::uint64_t bits = bits_of(n);
    // Away from zero where the side has n's sign.
    const double outward = n < 0 ? -side[i] : side[i];
    const bool even = (bits & 1) == 0 && n != 0 && std::fabs(n) < kInfinity;
    const std::uint64_t step = even && outward > 0 ? 1 : even && outward < 0 ? ~std::uint64_t{0} : 0;
    odd[i] = value_of(bits + step);
  }
}

}  // namespace norma
