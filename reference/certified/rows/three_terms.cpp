// Sums of two or three exact terms, in binary64.
//
// Products of formats with at most 24 bits are exact, and nothing overflows or underflows: |terms| lie in [2^-298,
// 2^257]. With (uh, ul) = TwoSum(p, shift) and (th, tl) = TwoSum(x, uh), y = th + tl + ul exactly (Knuth).
//
// Rounding: RN_F(RO(th + RO(tl + ul))), RO to odd in 53 bits. Source: Boldo, Melquiond, "Emulation of FMA and correctly
// rounded sums: proved algorithms using rounding to odd", IEEE TC 57(4), 2008. For p <= 24 bits: RO keeps the order to
// every number of at most 52 bits, thus to F's numbers and midpoints c; the outer RO needs no more. The inner one: are
// z = tl + ul and v = RO(z) on the same side of c - th? If |th| < |uh| / 2 the sum x + uh is exact (Sterbenz), tl = 0
// and v = z. Otherwise ulp(th) >= ulp(uh) / 2, so |z| <= 3/2 ulp(th). Where |c - th| < 4 |z|, c - th is a multiple of
// ulp(th) (c's last bit stands far above th's) below 6 ulp(th), a number of three bits, and v is on z's side of it.
// Elsewhere |v| <= 2 |z| is too small to matter.
#include "reference/certified/rows/three_terms.hpp"

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "reference/certified/double_double.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr std::size_t kChunk = 1024;

/// The terms of one run of elements: x, f, factor, shift in binary64.
struct Chunk {
  std::array<double, kChunk> x, f, factor, shift;
};

/// th + tl + ul = y, exactly, where the inputs are finite. `ieee` is what binary64 arithmetic makes of the formula: y
/// where an input is not finite, and where it is a zero of either sign. It is finite exactly where y is.
struct Parts {
  std::array<double, kChunk> th, tl, ul, ieee;
};

NORMA_CLONES
void widen(const float* values, std::size_t count, double* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = values[i];
}

/// By way of binary32, which holds every value here and has the faster codec.
void load(const Tensor& t, std::int64_t from, std::size_t count, double* out) {
  const auto bytes = static_cast<std::size_t>(format_of(t.format).storage_bytes());
  std::array<float, kChunk> values;
  decode_row(t.format, t.bytes.data() + static_cast<std::size_t>(from) * bytes, values.data(), count);
  widen(values.data(), count, out);
}

void load(const Parameter& p, double neutral, std::int64_t row, std::int64_t col, std::size_t count, double* out) {
  if (p.tensor == nullptr) {
    std::fill_n(out, count, neutral);
  } else if (p.index.span == 1) {
    load(*p.tensor, p.index.at(row, col), count, out);
  } else {
    for (std::size_t i = 0; i < count; ++i)
      out[i] = p.tensor->value(p.index.at(row, col + static_cast<std::int64_t>(i)));
  }
}

void load(const ThreeTerms& terms, std::int64_t row, std::int64_t col, std::size_t count, Chunk& c) {
  load(*terms.x, row * terms.cols + col, count, c.x.data());
  if (terms.f != nullptr) load(*terms.f, row * terms.cols + col, count, c.f.data());
  load(terms.factor, 1, row, col, count, c.factor.data());
  load(terms.shift, -0.0, row, col, count, c.shift.data());
}

// y = x (1 + factor) + shift. RN(1 + factor) has the sign of 1 + factor and is 0 with it, and no product of it with x
// underflows: where the product is 0, and where something is infinite, binary64 gives what the formula does.
NORMA_CLONES
void split_modulation(const Chunk& c, std::size_t count, Parts& parts) {
  for (std::size_t i = 0; i < count; ++i) {
    const double x = c.x[i], t = c.shift[i];
    const DoubleDouble u = two_sum(x * c.factor[i], t);
    const DoubleDouble s = two_sum(x, u.h);
    const double product = x * (1 + c.factor[i]);
    parts.th[i] = s.h;
    parts.tl[i] = s.l;
    parts.ul[i] = u.l;
    parts.ieee[i] = product == 0 || !(std::fabs(product) < HUGE_VAL && std::fabs(t) < HUGE_VAL) ? product + t : s.h;
  }
}

// y = x factor + shift: two terms.
NORMA_CLONES
void split_scaling(const Chunk& c, std::size_t count, Parts& parts) {
  for (std::size_t i = 0; i < count; ++i) {
    const double product = c.x[i] * c.factor[i], t = c.shift[i];
    const DoubleDouble u = two_sum(product, t);
    parts.th[i] = u.h;
    parts.tl[i] = 0;
    parts.ul[i] = u.l;
    parts.ieee[i] = product == 0 || !(std::fabs(product) < HUGE_VAL && std::fabs(t) < HUGE_VAL) ? product + t : u.h;
  }
}

// y = x + factor f + shift; without a shift (-0) th is what IEEE arithmetic gives.
NORMA_CLONES
void split_sum(const Chunk& c, std::size_t count, Parts& parts) {
  for (std::size_t i = 0; i < count; ++i) {
    const DoubleDouble u = two_sum(c.factor[i] * c.f[i], c.shift[i]);
    const DoubleDouble s = two_sum(c.x[i], u.h);
    parts.th[i] = s.h;
    parts.tl[i] = s.l;
    parts.ul[i] = u.l;
    parts.ieee[i] = c.x[i] + u.h;
  }
}

void split(const ThreeTerms& terms, const Chunk& c, std::size_t count, Parts& parts) {
  if (terms.f != nullptr)
    split_sum(c, count, parts);
  else if (terms.one != 0)
    split_modulation(c, count, parts);
  else
    split_scaling(c, count, parts);
}

/// Where y = 0: its sign is IEEE's; a sum of other numbers that cancels is +0.
inline double signed_zero(double ieee) { return ieee == 0 ? ieee : 0.0; }

/// a + b rounded to odd: the neighbour towards what RN left off, where RN's result is even and there is something left.
inline double round_to_odd(double a, double b) {
  const DoubleDouble s = two_sum(a, b);
  const auto bits = std::bit_cast<std::int64_t>(s.h);
  const auto apart = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(s.h * s.l) >> 63);
  const std::int64_t step = s.l != 0 && (bits & 1) == 0 ? 1 - 2 * apart : 0;
  return std::bit_cast<double>(bits + step);
}

NORMA_CLONES
void round_parts(const Parts& parts, std::size_t count, double* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const double s = round_to_odd(parts.th[i], round_to_odd(parts.tl[i], parts.ul[i]));
    const double y = std::fabs(parts.ieee[i]) < HUGE_VAL ? s : parts.ieee[i];
    out[i] = y == 0 ? signed_zero(parts.ieee[i]) : y;
  }
}

/// y rounded to odd in binary32: what a format of at most 22 bits rounds as it would y, overflow and subnormal numbers
/// included (they end in the same place, or 16 bits further down).
NORMA_CLONES
void narrow_to_odd(const double* y, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto nearest = static_cast<float>(y[i]);
    const auto bits = std::bit_cast<std::int32_t>(nearest);
    const double rest = y[i] - static_cast<double>(nearest);
    // Below nearest in magnitude: towards zero; Inf, which is even, becomes the largest number if y is finite.
    const bool inward = (rest < 0) == (bits >= 0);
    const bool move = rest != 0 && rest == rest && (bits & 1) == 0;
    out[i] = std::bit_cast<float>(bits + (move ? (inward ? -1 : 1) : 0));
  }
}

NORMA_CLONES
void narrow(const double* y, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(y[i]);
}

void store(FormatId format, Overflow overflow, const double* y, std::size_t count, std::byte* stored) {
  std::array<float, kChunk> values;
  if (format_of(format).precision <= 22)
    narrow_to_odd(y, count, values.data());
  else if (format == FormatId::fp32 && overflow != Overflow::saturate_finite)
    narrow(y, count, values.data());  // where finite numbers become Inf, the policy says the same of both
  else
    return encode_row(format, y, stored, count, overflow);
  encode_row(format, values.data(), stored, count, overflow);
}

/// |x (one + factor)| + |shift|, or |x| + |factor f| + |shift|; to binary64's nearest, give or take two roundings.
NORMA_CLONES
void magnitudes(const Chunk& c, const ThreeTerms& terms, std::size_t count, double* out) {
  const bool modulation = terms.f == nullptr;
  const double one = modulation ? terms.one : 0;
  const double* addend = modulation ? nullptr : c.x.data();
  const double* other = modulation ? c.x.data() : c.f.data();
  for (std::size_t i = 0; i < count; ++i) out[i] = std::fabs((one + c.factor[i]) * other[i]) + std::fabs(c.shift[i]);
  if (addend == nullptr) return;
  for (std::size_t i = 0; i < count; ++i) out[i] += std::fabs(addend[i]);
}

// y = h + l + d, (h, l) = TwoSum(th, v), v = RN(tl + ul), |d| <= u |v|.
NORMA_CLONES
void quick(const Parts& parts, std::size_t count, double* mid, double* radius) {
  for (std::size_t i = 0; i < count; ++i) {
    const double v = parts.tl[i] + parts.ul[i];
    const DoubleDouble s = two_sum(parts.th[i], v);
    const double r = (std::fabs(s.l) + 0x1p-53 * std::fabs(v)) * (1 + 0x1p-50);
    const bool finite = std::fabs(parts.ieee[i]) < HUGE_VAL;
    const double y = finite ? s.h : parts.ieee[i];
    mid[i] = y == 0 ? signed_zero(parts.ieee[i]) : y;
    radius[i] = finite ? r : 0;
  }
}

/// y as a pair and what it leaves. All sums are exact, so |y - (h + m)| = |l|; and l is the error of sums of errors: at
/// most 4u^2 of the terms' magnitude.
Enclosure close(double th, double tl, double ul, double ieee) {
  if (!std::isfinite(ieee))
    return {.hi = ieee, .lo = 0, .radius = 0, .magnitude = std::fabs(ieee), .tier = Tier::binary64};
  const DoubleDouble low = two_sum(tl, ul);
  const DoubleDouble top = two_sum(th, low.h);
  const DoubleDouble rest = two_sum(top.l, low.l);
  const DoubleDouble y = two_sum(top.h, rest.h);
  if (y.h == 0)
    return {
        .hi = rest.l == 0 ? signed_zero(ieee) : rest.l, .lo = 0, .radius = 0, .magnitude = 0, .tier = Tier::binary64};
  return {.hi = y.h, .lo = y.l, .radius = std::fabs(rest.l), .magnitude = 0, .tier = Tier::binary64};
}

/// The sign of the sum of finite numbers, by an expansion that grows by one component each. Source: Shewchuk, "Adaptive
/// precision floating-point arithmetic", 1997, theorem 10: the components do not overlap and grow, so the last one that
/// is not 0 has the sign.
template <std::size_t N>
int sign_of_sum(const std::array<double, N>& numbers) {
  std::array<double, N> parts{};
  for (std::size_t n = 0; n < N; ++n) {
    double q = numbers[n];
    for (std::size_t i = 0; i < n; ++i) {
      const DoubleDouble s = two_sum(q, parts[i]);
      q = s.h;
      parts[i] = s.l;
    }
    parts[n] = q;
  }
  for (std::size_t i = N; i-- > 0;)
    if (parts[i] != 0) return parts[i] > 0 ? 1 : -1;
  return 0;
}

class ThreeTermsTruth final : public TruthSource {
 public:
  explicit ThreeTermsTruth(const ThreeTerms& terms) : terms_(terms) {}

  std::int64_t rows() const override { return terms_.rows; }
  std::int64_t cols() const override { return terms_.cols; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::array<double, kChunk> magnitude;
    for_each_chunk(row, [&](std::size_t at, std::size_t count, const Chunk& c, const Parts& p) {
      magnitudes(c, terms_, count, magnitude.data());
      for (std::size_t i = 0; i < count; ++i) {
        out[at + i] = close(p.th[i], p.tl[i], p.ul[i], p.ieee[i]);
        out[at + i].magnitude = magnitude[i];
      }
    });
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    Chunk c;
    Parts p;
    load(terms_, row, col, 1, c);
    split(terms_, c, 1, p);
    Enclosure e = close(p.th[0], p.tl[0], p.ul[0], p.ieee[0]);
    magnitudes(c, terms_, 1, &e.magnitude);
    return e;
  }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    for_each_chunk(row, [&](std::size_t at, std::size_t count, const Chunk& c, const Parts& p) {
      quick(p, count, out.mid.data() + at, out.radius.data() + at);
      magnitudes(c, terms_, count, out.magnitude.data() + at);
    });
    return Tier::binary64;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    Chunk c;
    Parts p;
    load(terms_, row, col, 1, c);
    split(terms_, c, 1, p);
    if (!std::isfinite(p.ieee[0])) return Comparison::undecided;
    double scale = 1;
    if (std::fabs(m_hi) > 0x1p900 || std::fabs(m_lo) > 0x1p900) {
      // |y| < 2^260: m decides, unless it cancels; then both its parts are large and nothing is lost by scaling.
      scale = 0x1p-100;
      const double m = m_hi * scale + m_lo * scale;
      if (std::fabs(m) > 0x1p400) return m > 0 ? Comparison::less : Comparison::greater;
    }
    return static_cast<Comparison>(
        sign_of_sum<5>({p.th[0] * scale, p.tl[0] * scale, p.ul[0] * scale, -m_hi * scale, -m_lo * scale}));
  }

 private:
  template <typename Visit>
  void for_each_chunk(std::int64_t row, Visit&& visit) const {
    Chunk c;
    Parts p;
    const auto cols = static_cast<std::size_t>(terms_.cols);
    for (std::size_t at = 0; at < cols; at += kChunk) {
      const std::size_t count = std::min(kChunk, cols - at);
      load(terms_, row, static_cast<std::int64_t>(at), count, c);
      split(terms_, c, count, p);
      visit(at, count, c, p);
    }
  }

  ThreeTerms terms_;
};

}  // namespace

bool has_fast_tiers(const ThreeTerms& terms) {
  for (const Tensor* t : {terms.x, terms.f, terms.factor.tensor, terms.shift.tensor})
    if (t != nullptr && !contains(FormatId::fp32, t->format)) return false;
  return true;
}

std::unique_ptr<TruthSource> three_terms_truth(const ThreeTerms& terms) {
  if (!has_fast_tiers(terms)) throw std::logic_error("a tensor is wider than fp32");
  return std::make_unique<ThreeTermsTruth>(terms);
}

RoundedRows round_rows(const ThreeTerms& terms, FormatId format, Overflow overflow, int threads) {
  if (!has_fast_tiers(terms) || format == FormatId::fp64) throw std::logic_error("a format is wider than fp32");
  RoundedRows rounded{.y = Tensor::zeros(format, {terms.rows, terms.cols}), .tiers = {}};
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  const auto cols = static_cast<std::size_t>(terms.cols);
  oneapi::tbb::task_arena arena(std::max(threads, 1));
  arena.execute([&] {
    oneapi::tbb::parallel_for(std::int64_t{0}, terms.rows, [&](std::int64_t row) {
      Chunk c;
      Parts p;
      std::array<double, kChunk> y;
      for (std::size_t at = 0; at < cols; at += kChunk) {
        const std::size_t count = std::min(kChunk, cols - at);
        load(terms, row, static_cast<std::int64_t>(at), count, c);
        split(terms, c, count, p);
        round_parts(p, count, y.data());
        store(format, overflow, y.data(), count,
              rounded.y.bytes.data() + (static_cast<std::size_t>(row) * cols + at) * bytes);
      }
    });
  });
  rounded.tiers.binary64 = terms.rows * terms.cols;
  return rounded;
}

}  // namespace norma
