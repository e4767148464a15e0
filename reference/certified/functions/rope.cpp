// RoPE in three tiers. u = 2^-53.
#include "reference/certified/functions/rope.hpp"

#include <oneapi/tbb/combinable.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "reference/certified/double_double.hpp"
#include "reference/certified/functions/function_kernels.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/exact/real.hpp"

namespace norma {

namespace {

constexpr mpfr_prec_t kTableBits = 256;

// theta^(-2i/rotary), outward.
Interval frequency(const Rope& rope, std::int64_t i, mpfr_prec_t bits) {
  Interval log(rope.theta, bits);
  mpfr_log(log.lo.get(), log.lo.get(), MPFR_RNDD);
  mpfr_log(log.hi.get(), log.hi.get(), MPFR_RNDU);
  const Interval exponent =
      div(Interval(static_cast<double>(-2 * i), bits), Interval(static_cast<double>(rope.rotary), bits));
  Interval f = mul(exponent, log);
  mpfr_exp(f.lo.get(), f.lo.get(), MPFR_RNDD);
  mpfr_exp(f.hi.get(), f.hi.get(), MPFR_RNDU);
  return f;
}

// cos and sin at position times frequency: at the lower end, to nearest, and as wide as the angle is and the rounding:
// neither changes faster than its argument.
struct Turn {
  Interval cosine, sine;
};
Turn turn(std::int64_t position, const Interval& frequency) {
  const mpfr_prec_t bits = frequency.bits();
  Real p(bits);
  mpfr_set_si(p.get(), static_cast<long>(position), MPFR_RNDN);
  Interval at(bits);
  at.lo = p;
  at.hi = p;
  const Interval angle = mul(at, frequency);
  Turn t{Interval(bits), Interval(bits)};
  mpfr_sin_cos(t.sine.lo.get(), t.cosine.lo.get(), angle.lo.get(), MPFR_RNDN);
  Real width(bits);
  mpfr_sub(width.get(), angle.hi.get(), angle.lo.get(), MPFR_RNDU);
  Real rounding(bits);
  mpfr_set_ui_2exp(rounding.get(), 1, -bits, MPFR_RNDN);
  mpfr_add(width.get(), width.get(), rounding.get(), MPFR_RNDU);
  for (Interval* v : {&t.sine, &t.cosine}) {
    mpfr_add(v->hi.get(), v->lo.get(), width.get(), MPFR_RNDU);
    mpfr_sub(v->lo.get(), v->lo.get(), width.get(), MPFR_RNDD);
  }
  return t;
}

// One position's pairs, the high parts apart for the vector loop; each within kTableError of cos or sin, relative.
struct Angles {
  std::vector<double> cosine, sine, cosine_low, sine_low;
};

constexpr double kTableError = 0x1p-104;

class RopeProblem {
 public:
  explicit RopeProblem(const Rope& rope) : rope_(rope) {
    const auto fail = [](const std::string& text) { throw std::invalid_argument("rope: " + text); };
    if (rope.x == nullptr) fail("there is no tensor x; it is what is turned.");
    if (rope.rotary < 0 || rope.rotary % 2 != 0 || rope.rotary > rope.x->cols())
      fail("rotary is " + std::to_string(rope.rotary) + " but must be even and at most x's " +
           std::to_string(rope.x->cols()) + " columns.");
    if (rope.positions.empty()) fail("there are no positions; one at least is needed.");
    if (rope.rows_each < 1) fail("rows_each is " + std::to_string(rope.rows_each) + " but must be at least 1.");
    if (!(std::isfinite(rope.theta) && rope.theta >= 1)) fail("theta must be finite and at least 1.");
    if (format_of(rope.x->format).precision > 24) fail("x is fp64 but must be of a format up to fp32.");
    for (std::int64_t i = 0; i < half(); ++i) frequencies_.push_back(frequency(rope, i, kTableBits));
  }

  const Rope& rope() const { return rope_; }
  std::int64_t half() const { return rope_.rotary / 2; }
  std::int64_t position(std::int64_t row) const {
    return rope_.positions[static_cast<std::size_t>(row / rope_.rows_each) % rope_.positions.size()];
  }

  // Where a column's pair stands, and which of its two it is. Empty: not turned.
  struct Place {
    std::int64_t pair, first, second;
    bool is_second;
  };
  std::optional<Place> place(std::int64_t col) const {
    if (col >= rope_.rotary) return std::nullopt;
    if (rope_.pairing == RopePairing::half) {
      const std::int64_t i = col % half();
      return Place{i, i, i + half(), col >= half()};
    }
    return Place{col / 2, col / 2 * 2, col / 2 * 2 + 1, col % 2 != 0};
  }

  const Angles& angles(std::int64_t position) const {
    {
      const std::lock_guard lock(mutex_);
      const auto found = known_.find(position);
      if (found != known_.end()) return found->second;
    }
    Angles a;
    for (const Interval& f : frequencies_) {
      const Turn t = turn(position, f);
      push(t.cosine, a.cosine, a.cosine_low);
      push(t.sine, a.sine, a.sine_low);
    }
    const std::lock_guard lock(mutex_);
    return known_.emplace(position, std::move(a)).first->second;  // nodes stay where they are
  }

  void decode(std::int64_t row, std::span<double> out) const { decode_values(*rope_.x, row * rope_.x->cols(), out); }

  // x in mid on entry. |y - mid| <= radius: table, product and sum u each: 3u (|x1 c| + |x2 s|) and second order; sizes
  // go to radius first. Exact where the products are zero.
  void enclose(std::int64_t row, std::span<double> mid, std::span<double> radius, std::span<double> magnitude) const {
    std::fill(radius.begin(), radius.end(), 0.0);
    std::transform(mid.begin(), mid.end(), magnitude.begin(), [](double v) { return std::fabs(v); });
    const std::int64_t at = position(row);
    if (at == 0) return;
    const Angles& angle = angles(at);
    const auto n = static_cast<std::size_t>(half());
    thread_local std::vector<double> memory;
    memory.resize(6 * n);
    double* const a = memory.data();
    double* const b = a + n;
    const bool interleaved = rope_.pairing == RopePairing::interleaved;
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = mid[interleaved ? 2 * i : i];
      b[i] = mid[interleaved ? 2 * i + 1 : i + n];
    }
    function_kernels().rotate(
        {a, b, angle.cosine.data(), angle.sine.data(), a + 2 * n, a + 3 * n, a + 4 * n, a + 5 * n}, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (const std::size_t second : {std::size_t{0}, std::size_t{1}}) {
        const std::size_t j = interleaved ? 2 * i + second : i + second * n;
        mid[j] = a[(2 + second) * n + i];
        magnitude[j] = a[(4 + second) * n + i];
        const bool known = !std::isfinite(mid[j]) || (a[i] == 0 && b[i] == 0);
        radius[j] =
            known ? 0 : magnitude[j] * (3.001 * kUnitRoundoff) + 0x1p-1000;  // the floor: products that underflow
      }
    }
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const {
    const auto p = place(col);
    const std::int64_t at = position(row);
    if (!p || at == 0) return exactly(value(row, col));
    const double x1 = value(row, p->first), x2 = value(row, p->second);
    const Angles& angle = angles(at);
    const auto i = static_cast<std::size_t>(p->pair);
    const DoubleDouble c{angle.cosine[i], angle.cosine_low[i]}, s{angle.sine[i], angle.sine_low[i]};
    const double plain = p->is_second ? x1 * s.h + x2 * c.h : x1 * c.h - x2 * s.h;
    if (!std::isfinite(plain) || (x1 == 0 && x2 == 0)) return exactly(plain);
    const DoubleDouble first = mul(p->is_second ? s : c, x1);
    const DoubleDouble second = mul(p->is_second ? c : s, x2);
    const DoubleDouble y = p->is_second ? add(first, second) : sub(first, second);
    // Table 2^-104, products 2u^2, sum 3u^2 of what is at most the sum of the terms.
    const double size = std::fabs(first.h) + std::fabs(second.h);
    if (size < 0x1p-900) {
      Enclosure e = enclosure_of(by_mpfr(*p, at, x1, x2, kTableBits));
      e.magnitude = size;
      return e;
    }
    return {.hi = y.h,
            .lo = y.l,
            .radius = (kTableError + 0x1.5p-104) * size * (1 + 0x1p-20),
            .magnitude = size,
            .tier = Tier::double_double};
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const {
    const auto p = place(col);
    const std::int64_t at = position(row);
    const double x1 = value(row, p ? p->first : col), x2 = value(row, p ? p->second : col);
    if (!p || at == 0) {
      const double v = value(row, col);
      return std::isfinite(v) ? norma::compare(Interval(v, 53), m_hi, m_lo) : Comparison::undecided;
    }
    if (!std::isfinite(x1) || !std::isfinite(x2)) return Comparison::undecided;
    if (x1 == 0 && x2 == 0) return norma::compare(Interval(0.0, 53), m_hi, m_lo);
    for (const mpfr_prec_t bits : {256, 512, 1024, 2048, 4096}) {
      const Comparison answer = norma::compare(by_mpfr(*p, at, x1, x2, bits), m_hi, m_lo);
      if (answer != Comparison::undecided) return answer;
    }
    return Comparison::undecided;
  }

 private:
  double value(std::int64_t row, std::int64_t col) const { return rope_.x->value(row * rope_.x->cols() + col); }

  Interval by_mpfr(const Place& p, std::int64_t at, double x1, double x2, mpfr_prec_t bits) const {
    const auto i = static_cast<std::size_t>(p.pair);
    const Turn t = turn(at, bits == kTableBits ? frequencies_[i] : frequency(rope_, p.pair, bits));
    const Interval first = mul(Interval(x1, bits), p.is_second ? t.sine : t.cosine);
    const Interval second = mul(Interval(x2, bits), p.is_second ? t.cosine : t.sine);
    return p.is_second ? add(first, second) : sub(first, second);
  }

  static Enclosure exactly(double v) {
    return {.hi = v, .lo = 0, .radius = 0, .magnitude = std::fabs(v), .tier = Tier::binary64};
  }

  static void push(const Interval& v, std::vector<double>& high, std::vector<double>& low) {
    const Enclosure e = enclosure_of(v);
    if (!(e.radius <= kTableError * std::fabs(e.hi))) throw std::logic_error("rope: a cosine or sine is not known");
    high.push_back(e.hi);
    low.push_back(e.lo);
  }

  Rope rope_;
  std::vector<Interval> frequencies_;
  mutable std::mutex mutex_;
  mutable std::map<std::int64_t, Angles> known_;
};

class RopeTruth final : public TruthSource {
 public:
  explicit RopeTruth(const Rope& rope) : problem_(rope) {}
  std::int64_t rows() const override { return problem_.rope().x->rows(); }
  std::int64_t cols() const override { return problem_.rope().x->cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = problem_.enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return problem_.enclose(row, col); }
  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    problem_.decode(row, out.mid);
    problem_.enclose(row, out.mid, out.radius, out.magnitude);
    return Tier::binary64;
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return problem_.compare(row, col, m_hi, m_lo);
  }
  const RopeProblem& problem() const { return problem_; }

 private:
  RopeProblem problem_;
};

}  // namespace

std::unique_ptr<TruthSource> rope_truth(const Rope& rope) { return std::make_unique<RopeTruth>(rope); }

RoundedRows round_rope(const Rope& rope, FormatId format, Overflow overflow, int threads) {
  const RopeTruth truth(rope);
  RoundedRows result{.y = Tensor::zeros(format, rope.x->shape), .tiers = {}};
  const auto cols = static_cast<std::size_t>(truth.cols());
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  tbb::combinable<TierCounts> counts;
  const auto one = [&](std::int64_t row) {
    thread_local std::vector<double> memory;
    thread_local std::vector<std::uint32_t> open;
    memory.resize(3 * cols);
    open.clear();
    const std::span<double> all(memory);
    const auto mid = all.first(cols), radius = all.subspan(cols, cols);
    truth.problem().decode(row, mid);
    truth.problem().enclose(row, mid, radius, all.subspan(2 * cols, cols));
    std::byte* const stored = result.y.bytes.data() + static_cast<std::size_t>(row) * cols * bytes;
    if (format == FormatId::fp64)
      for (std::size_t j = 0; j < cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
    else
      round_enclosed(format, overflow, mid, radius, stored, open);
    TierCounts& tiers = counts.local();
    tiers.binary64 += static_cast<std::int64_t>(cols - open.size());
    for (const std::uint32_t j : open) {
      const std::uint64_t word = round_open(truth, row, j, format, overflow, tiers)
                                 << format_of(format).storage_shift();
      std::memcpy(stored + j * bytes, &word, bytes);
    }
  };
  share_out(truth.rows(), 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) one(row);
  });
  counts.combine_each([&](const TierCounts& tiers) { result.tiers += tiers; });
  return result;
}

}  // namespace norma
