// The loops of close_loops.inc for each instruction set (docs/decisions/0007-vector-loops.md).
#include "reference/certified/rows/close_loops.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "reference/certified/vector_level.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

/// How a format rounds: values of size 2^e are multiples of max(2^e, least) 2^(1 - precision), and adding 1.5 times
/// 2^53 of those rounds to them, to nearest even. Codes of magnitudes grow with the value, least having `hidden`.
struct Grid {
  double least, magic, largest;
  int shift;                                        ///< of binary64's bits, down to the format's
  std::uint64_t normal, subnormal;                  ///< taken from the bits: of r; of r + least
  std::uint64_t sign, nan, infinite, beyond, bare;  ///< bare: a code of 0 without a sign, or no code
};

struct Loops {
  DoubleDouble (*sum_pairs)(ConstPairs, std::size_t);
  DoubleDouble (*sum_squares)(ConstPairs, std::size_t);
  RowSums (*row_sums)(const float*, std::size_t);
  void (*add_exactly)(const double*, const double*, Pairs, std::size_t);
  void (*subtract_centre)(Pairs, std::size_t, double, DoubleDouble);
  void (*multiply)(Pairs, ConstPairs, std::size_t);
  void (*multiply_one)(Pairs, DoubleDouble, std::size_t);
  Extent (*extent)(ConstPairs, std::size_t);
  void (*add_bias)(ConstPairs, ConstPairs, const double*, CloseBounds, CloseOutput, std::size_t);
  void (*bracket)(ConstPairs, ConstPairs, ConstPairs, ConstPairs, const RationalRoot&, double*, double*, std::size_t);
  void (*odd_quotients)(const float*, const float*, const ExactLine&, double*, double*, std::size_t);
  void (*odd_quotients_biased)(const float*, const float*, const float*, const ExactLine&, double*, double*,
                               std::size_t);
  double (*sum_of_sides)(const double*, std::size_t);
  void (*sides_of)(const double*, const double*, double*, std::size_t);
  void (*round_to_odd)(const double*, const double*, double*, std::size_t);
  void (*widen)(const float*, double*, std::size_t);
  void (*round_codes)(const Grid&, const double*, std::uint32_t*, std::size_t);
};

constexpr std::size_t kLanes = 32;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Finite and not zero: what double-double arithmetic is for.
inline bool ordinary(double v) { return (std::fabs(v) < kInfinity) & (v != 0); }

// Without a branch, which && may be.
inline bool both(bool a, bool b) { return (static_cast<int>(a) & static_cast<int>(b)) != 0; }

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

#define NORMA_LOOPS "reference/certified/rows/close_loops.inc"
#include "reference/certified/each_level.inc"

constexpr const Loops* kLevels[] = {
    &baseline::kLoops,
#if defined(__x86_64__)
    &avx2::kLoops,
    &avx512::kLoops,
#endif
};

const Loops& loops() { return *kLevels[static_cast<std::size_t>(vector_level())]; }

}  // namespace

DoubleDouble sum_pairs(ConstPairs a, std::size_t count) { return loops().sum_pairs(a, count); }

DoubleDouble sum_squares(ConstPairs a, std::size_t count) { return loops().sum_squares(a, count); }

RowSums row_sums(const float* h, std::size_t count) { return loops().row_sums(h, count); }

void add_exactly(const double* high, const double* low, Pairs a, std::size_t count) {
  loops().add_exactly(high, low, a, count);
}

void subtract_centre(Pairs a, std::size_t count, double factor, DoubleDouble centre) {
  loops().subtract_centre(a, count, factor, centre);
}

void multiply(Pairs a, ConstPairs b, std::size_t count) { loops().multiply(a, b, count); }

void multiply(Pairs a, DoubleDouble b, std::size_t count) { loops().multiply_one(a, b, count); }

Extent extent(ConstPairs a, std::size_t count) { return loops().extent(a, count); }

void add_bias(ConstPairs q, ConstPairs bias, const double* spread, CloseBounds bounds, CloseOutput out,
              std::size_t count) {
  loops().add_bias(q, bias, spread, bounds, out, count);
}

void bracket(ConstPairs a, ConstPairs weight, ConstPairs scale, ConstPairs bias, const RationalRoot& root,
             double* value, double* side, std::size_t count) {
  loops().bracket(a, weight, scale, bias, root, value, side, count);
}

void odd_quotients(const float* h, const float* weight, const float* bias, const ExactLine& line, double* odd,
                   double* side, std::size_t count) {
  if (bias == nullptr)
    loops().odd_quotients(h, weight, line, odd, side, count);
  else
    loops().odd_quotients_biased(h, weight, bias, line, odd, side, count);
}

bool all_known(const double* side, std::size_t count) { return !std::isnan(loops().sum_of_sides(side, count)); }

void sides_of(const double* low, const double* radius, double* side, std::size_t count) {
  loops().sides_of(low, radius, side, count);
}

void round_to_odd(const double* near, const double* side, double* odd, std::size_t count) {
  loops().round_to_odd(near, side, odd, count);
}

void load_row(FormatId format, const std::byte* stored, double* values, std::size_t count) {
  std::array<float, kCloseBlock> singles;
  for (std::size_t done = 0; done < count; done += kCloseBlock) {
    const std::size_t some = std::min(kCloseBlock, count - done);
    decode_row(format, stored + done * static_cast<std::size_t>(format_of(format).storage_bytes()), singles.data(),
               some);
    loops().widen(singles.data(), values + done, some);
  }
}

namespace {

Grid grid_of(const Format& f, Overflow overflow) {
  const std::uint64_t undefined = f.has_infinity() ? f.infinity_code() : f.nan_code();
  Grid g{.least = std::ldexp(1.0, f.emin),
         .magic = 1.5 * std::ldexp(1.0, 53 - f.precision),
         .largest = max_finite(f.id),
         .shift = 53 - f.precision,
         .normal = static_cast<std::uint64_t>(f.emin + 1022) << f.mantissa_bits(),
         .subnormal = static_cast<std::uint64_t>(f.emin + 1023) << f.mantissa_bits(),
         .sign = f.sign_code(),
         // Where NaN becomes a number it is told from that number by a bit that its byte does not hold.
         .nan = f.has_nan() ? f.nan_code() : f.nan_code() | 0x100,
         .infinite = undefined,
         .beyond = undefined,
         .bare = f.has_negative_zero() ? ~std::uint64_t{0} : 0};
  switch (overflow) {
    case Overflow::ieee: break;
    case Overflow::saturate_finite: g.beyond = f.max_finite_code(); break;
    case Overflow::saturate: g.infinite = g.beyond = f.max_finite_code(); break;
    case Overflow::nan: g.infinite = g.beyond = f.nan_code(); break;
  }
  return g;
}

template <class Word>
void pack(const std::uint32_t* codes, int shift, std::byte* stored, std::size_t count) {
  std::array<Word, kCloseBlock> words;
  for (std::size_t i = 0; i < count; ++i) words[i] = static_cast<Word>(codes[i] << shift);
  std::memcpy(stored, words.data(), count * sizeof(Word));
}

}  // namespace

void store_odd(FormatId format, Overflow overflow, const double* odd, std::byte* stored, std::size_t count) {
  if (count > kCloseBlock) throw std::logic_error("more values than a block holds");
  const Format& f = format_of(format);
  std::array<std::uint32_t, kCloseBlock> codes;
  loops().round_codes(grid_of(f, overflow), odd, codes.data(), count);
  switch (f.storage_bytes()) {
    case 1: pack<std::uint8_t>(codes.data(), f.storage_shift(), stored, count); break;
    case 2: pack<std::uint16_t>(codes.data(), f.storage_shift(), stored, count); break;
    default: pack<std::uint32_t>(codes.data(), f.storage_shift(), stored, count); break;
  }
}

}  // namespace norma
