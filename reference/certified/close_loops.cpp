// The loops of close_loops.inc for each instruction set (docs/decisions/0007-vector-loops.md).
#include "reference/certified/close_loops.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "reference/certified/vector_level.hpp"
#include "reference/formats/convert.hpp"

// No iteration of such a loop reads what another one writes.
#if defined(__clang__)
#define NORMA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define NORMA_INDEPENDENT _Pragma("GCC ivdep")
#else
#define NORMA_INDEPENDENT
#endif

namespace norma {

namespace {

constexpr std::uint32_t kNaNBits = 0x7fc0'0000;

/// Bits of what numbers beyond binary32's range become.
struct Beyond {
  std::uint32_t finite, infinite;
};

struct Loops {
  DoubleDouble (*sum_pairs)(ConstPairs, std::size_t);
  DoubleDouble (*sum_squares)(ConstPairs, std::size_t);
  void (*add_exactly)(const double*, const double*, Pairs, std::size_t);
  void (*subtract_centre)(Pairs, std::size_t, double, DoubleDouble);
  void (*multiply)(Pairs, ConstPairs, std::size_t);
  void (*multiply_one)(Pairs, DoubleDouble, std::size_t);
  Extent (*extent)(ConstPairs, std::size_t);
  void (*add_bias)(ConstPairs, ConstPairs, const double*, CloseBounds, CloseOutput, std::size_t);
  void (*bracket)(ConstPairs, ConstPairs, ConstPairs, ConstPairs, const RationalRoot&, double*, double*, std::size_t);
  void (*bracket_plain)(ConstPairs, const double*, const double*, const RationalRoot&, double*, double*, std::size_t);
  double (*sum_of_sides)(const double*, std::size_t);
  void (*sides_of)(const double*, const double*, double*, std::size_t);
  void (*round_to_odd)(const double*, const double*, double*, std::size_t);
  void (*widen)(const float*, double*, std::size_t);
  void (*narrow_to_odd)(const double*, float*, std::size_t);
  void (*narrow)(const double*, float*, std::size_t, Beyond);
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

namespace baseline {
#include "reference/certified/close_loops.inc"
}  // namespace baseline

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#include "reference/certified/close_loops.inc"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#include "reference/certified/close_loops.inc"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

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

void bracket_plain(ConstPairs a, const double* weight, const double* bias, const RationalRoot& root, double* value,
                   double* side, std::size_t count) {
  loops().bracket_plain(a, weight, bias, root, value, side, count);
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

void store_odd(FormatId format, Overflow overflow, const double* odd, std::byte* stored, std::size_t count) {
  std::array<float, kCloseBlock> singles;
  if (count > kCloseBlock) throw std::logic_error("more values than a block holds");
  if (format == FormatId::tf32) {
    encode_row(format, odd, stored, count, overflow);
  } else if (format == FormatId::fp32) {
    const auto code = [&](double v) { return static_cast<std::uint32_t>(encode(format, v, overflow)); };
    const Beyond beyond{code(0x1p128), code(kInfinity)};
    loops().narrow(odd, singles.data(), count, beyond);
    std::memcpy(stored, singles.data(), count * sizeof(float));
  } else {
    loops().narrow_to_odd(odd, singles.data(), count);
    encode_row(format, singles.data(), stored, count, overflow);
  }
}

}  // namespace norma
