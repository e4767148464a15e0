// Rows of values in and out of storage. Plain loops that vectorize; the exhaustive tests hold them to `encode`.
#include "reference/formats/convert.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr std::uint32_t kSignBit = 0x8000'0000;
constexpr std::uint32_t kInfinityBits = 0x7f80'0000;

/// yes ? a : b without a branch: chains of ?: become jumps, and a loop with jumps does not vectorize.
inline std::uint32_t select(bool yes, std::uint32_t a, std::uint32_t b) {
  return b ^ ((a ^ b) & (std::uint32_t{0} - static_cast<std::uint32_t>(yes)));
}

/// One rounding of binary32 to a format with binary32's exponent range (bf16, tf32): the discarded bits are
/// an integer, and so is the carry. Inf stays, an overflow becomes Inf, by the same carry.
template <int kDropped>
inline std::uint32_t round_bits_same_range(std::uint32_t bits) {
  constexpr std::uint32_t kMask = (std::uint32_t{1} << kDropped) - 1;
  const std::uint32_t odd = (bits >> kDropped) & 1;
  const std::uint32_t rounded = (bits + (kMask >> 1) + odd) & ~kMask;
  const bool nan = (bits & ~kSignBit) > kInfinityBits;
  return nan ? 0x7fc0'0000u : rounded;
}

/// What the magnitudes of an overflowing finite number and of Inf become.
struct Beyond {
  float finite;
  float infinite;
};

Beyond beyond_of(FormatId id, Overflow overflow) {
  const float ieee = format_of(id).has_infinity() ? std::numeric_limits<float>::infinity()
                                                  : std::numeric_limits<float>::quiet_NaN();
  const auto largest = static_cast<float>(max_finite(id));
  switch (overflow) {
    case Overflow::ieee: return {ieee, ieee};
    case Overflow::saturate_finite: return {largest, ieee};
    case Overflow::saturate: return {largest, largest};
    case Overflow::nan: break;
  }
  return {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::quiet_NaN()};
}

/// One rounding of binary32 to a narrower format, exponent unbounded above. With t = 2^max(e, emin) the
/// constant c = 1.5 * 2^(24-p) * t has quantum 2^(1-p) t, so h + c rounds h to the target's grid, once, ties to
/// even, and - c is exact (numerics note §3.3, test R3). |h| is cut at 2^(emax+2), far above the overflow
/// threshold, so that c stays finite. NaN passes every comparison as false and every sum as NaN.
template <FormatId kId>
inline float round_magnitude(float magnitude) {
  constexpr const Format& f = format_of(kId);
  if constexpr (f.emax == 127) {
    constexpr int kDropped = 24 - f.precision;
    return std::bit_cast<float>(round_bits_same_range<kDropped>(std::bit_cast<std::uint32_t>(magnitude)));
  } else {
    constexpr float kCut = std::bit_cast<float>(static_cast<std::uint32_t>(f.emax + 2 + 127) << 23);
    constexpr std::uint32_t kLeast = static_cast<std::uint32_t>(f.emin + 127) << 23;
    constexpr std::uint32_t kUp = (static_cast<std::uint32_t>(24 - f.precision) << 23) | 0x0040'0000;  // 1.5 * 2^(24-p)
    const float h = magnitude > kCut ? kCut : magnitude;
    const std::uint32_t exponent_bits = std::bit_cast<std::uint32_t>(h) & kInfinityBits;
    const std::uint32_t t_bits = exponent_bits < kLeast ? kLeast : exponent_bits;
    const float c = std::bit_cast<float>(t_bits + kUp);
    return (h + c) - c;
  }
}

template <FormatId kId>
inline float round_one(float value, Beyond beyond) {
  constexpr const Format& f = format_of(kId);
  constexpr float kMax = static_cast<float>(max_finite(kId));
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const float magnitude = std::bit_cast<float>(bits & ~kSignBit);
  float rounded = round_magnitude<kId>(magnitude);
  const float replacement = magnitude == std::numeric_limits<float>::infinity() ? beyond.infinite : beyond.finite;
  rounded = rounded > kMax ? replacement : rounded;
  std::uint32_t sign = bits & kSignBit;
  if constexpr (!f.has_negative_zero()) sign = rounded == 0.0f ? 0 : sign;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) | sign);
}

/// The code of a binary32 value, rounded once: an integer carry for normal numbers, the hardware's own addition for
/// subnormal ones (2^(emin+24-p) has the subnormals' quantum, so the sum's low bits are the code).
template <FormatId kId>
inline std::uint32_t magnitude_code(std::uint32_t magnitude) {
  constexpr const Format& f = format_of(kId);
  constexpr int kDropped = 24 - f.precision;
  const std::uint32_t odd = (magnitude >> kDropped) & 1;
  const std::uint32_t rounded = (magnitude + ((std::uint32_t{1} << (kDropped - 1)) - 1) + odd) >> kDropped;
  if constexpr (f.emin == -126) {
    return rounded;
  } else {
    constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(f.emin - 1 + 127) << f.mantissa_bits();
    constexpr std::uint32_t kLeast = static_cast<std::uint32_t>(f.emin + 127) << 23;
    constexpr std::uint32_t kQuantum = static_cast<std::uint32_t>(f.emin - f.mantissa_bits() + 23 + 127) << 23;
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + std::bit_cast<float>(kQuantum)) - kQuantum;
    return select(magnitude < kLeast, subnormal, rounded - kRebias);
  }
}

/// What `beyond_of` says, as codes without a sign.
struct BeyondCodes {
  std::uint32_t finite;
  std::uint32_t infinite;
};

template <FormatId kId>
BeyondCodes beyond_codes_of(Overflow overflow) {
  const Beyond b = beyond_of(kId, overflow);
  const auto code = [](float v) { return static_cast<std::uint32_t>(encode(kId, static_cast<double>(v), Overflow::ieee)); };
  return {code(b.finite), code(b.infinite)};
}

template <FormatId kId>
inline std::uint32_t encode_one(float value, BeyondCodes beyond) {
  constexpr const Format& f = format_of(kId);
  constexpr auto kMax = static_cast<std::uint32_t>(f.max_finite_code());
  constexpr auto kNaN = static_cast<std::uint32_t>(f.nan_code());
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & ~kSignBit;
  std::uint32_t code = magnitude_code<kId>(magnitude);
  code = select(code > kMax, select(magnitude == kInfinityBits, beyond.infinite, beyond.finite), code);
  code = select(magnitude > kInfinityBits, kNaN, code);
  std::uint32_t sign = (bits & kSignBit) >> (32 - f.code_bits);
  sign = select(code == kNaN, 0, sign);  // the canonical NaN is positive
  if constexpr (!f.has_negative_zero()) sign = select(code == 0, 0, sign);
  return code | sign;
}

template <FormatId kId>
struct Storage;
template <FormatId kId>
  requires(format_of(kId).storage_bits == 8)
struct Storage<kId> { using Type = std::uint8_t; };
template <FormatId kId>
  requires(format_of(kId).storage_bits == 16)
struct Storage<kId> { using Type = std::uint16_t; };

// One clone of each loop a format; a macro because a template cannot carry target_clones.
#define NORMA_ROW_LOOPS(F)                                                                                 \
  NORMA_CLONES void round_##F(const float* values, float* rounded, std::size_t count, Beyond beyond) {     \
    NORMA_INDEPENDENT /* apart or the same */                                                              \
    for (std::size_t i = 0; i < count; ++i) rounded[i] = round_one<FormatId::F>(values[i], beyond);        \
  }                                                                                                        \
  NORMA_CLONES void encode_##F(const float* values, Storage<FormatId::F>::Type* __restrict stored,         \
                               std::size_t count, BeyondCodes beyond) {                                    \
    for (std::size_t i = 0; i < count; ++i)                                                                \
      stored[i] = static_cast<Storage<FormatId::F>::Type>(encode_one<FormatId::F>(values[i], beyond));     \
  }

NORMA_ROW_LOOPS(bf16)
NORMA_ROW_LOOPS(fp16)
NORMA_ROW_LOOPS(e4m3fn)
NORMA_ROW_LOOPS(e5m2)
NORMA_ROW_LOOPS(e4m3fnuz)
NORMA_ROW_LOOPS(e5m2fnuz)
#undef NORMA_ROW_LOOPS

NORMA_CLONES void round_tf32(const float* values, float* rounded, std::size_t count, Beyond beyond) {
  NORMA_INDEPENDENT  // apart or the same
  for (std::size_t i = 0; i < count; ++i) rounded[i] = round_one<FormatId::tf32>(values[i], beyond);
}

/// Where an overflow becomes Inf the carry alone does it.
NORMA_CLONES void round_bf16_ieee(const float* values, float* rounded, std::size_t count) {
  NORMA_INDEPENDENT  // apart or the same
  for (std::size_t i = 0; i < count; ++i)
    rounded[i] = std::bit_cast<float>(round_bits_same_range<16>(std::bit_cast<std::uint32_t>(values[i])));
}

/// round_one where all that overflows becomes Inf: nothing has to be cut, as one comparison replaces what is large.
NORMA_CLONES void round_fp16_ieee(const float* values, float* rounded, std::size_t count) {
  constexpr float kOverflow = 65520;
  constexpr std::uint32_t kLeast = 113u << 23, kUp = (13u << 23) | 0x0040'0000;
  NORMA_INDEPENDENT  // apart or the same
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]);
    const float h = std::bit_cast<float>(bits & ~kSignBit);
    const std::uint32_t exponent_bits = bits & kInfinityBits;
    const float c = std::bit_cast<float>((exponent_bits < kLeast ? kLeast : exponent_bits) + kUp);
    const float sum = (h + c) - c;
    const float magnitude = h >= kOverflow ? std::numeric_limits<float>::infinity() : sum;
    rounded[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | (bits & kSignBit));
  }
}

NORMA_CLONES void encode_bf16_ieee(const float* values, std::uint16_t* __restrict stored, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    stored[i] = static_cast<std::uint16_t>(round_bits_same_range<16>(std::bit_cast<std::uint32_t>(values[i])) >> 16);
}

NORMA_CLONES void store_fp16(const float* values, std::uint16_t* __restrict stored, std::size_t count) {
  constexpr std::uint32_t kRebias = 112 << 10, kLeast = 113 << 23;
  constexpr float kQuantum = 0.5f;  // its ulp is the least subnormal, 2^-24
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t magnitude = bits & ~kSignBit;
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + kQuantum);
    const std::uint32_t finite = select(magnitude < kLeast, subnormal, (magnitude >> 13) - kRebias);
    const std::uint32_t code = select(magnitude == kInfinityBits, 0x7c00, finite) | (bits >> 16 & 0x8000);
    stored[i] = static_cast<std::uint16_t>(select(magnitude > kInfinityBits, 0x7e00, code));
  }
}

NORMA_CLONES void store_bf16(const float* values, std::uint16_t* __restrict stored, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]);
    stored[i] = (bits & ~kSignBit) > kInfinityBits ? std::uint16_t{0x7fc0} : static_cast<std::uint16_t>(bits >> 16);
  }
}

NORMA_CLONES void decode_bf16(const std::uint16_t* stored, float* values, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(stored[i]) << 16);
}

NORMA_CLONES void decode_fp16(const std::uint16_t* stored, float* values, std::size_t count) {
  constexpr float kSubnormalUnit = 0x1p-24f;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t code = stored[i];
    const std::uint32_t magnitude = code & 0x7fff;
    const std::uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00 ? 0x7000'0000u : 0x3800'0000u);
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * kSubnormalUnit);
    values[i] = std::bit_cast<float>(((code & 0x8000) << 16) | (magnitude < 0x400 ? subnormal : normal));
  }
}

/// 8-bit formats are a table of 256 values.
template <FormatId kId, class Value>
void decode_table(const std::byte* stored, Value* values, std::size_t count) {
  static const auto table = [] {
    std::vector<Value> t(256);
    for (std::size_t code = 0; code < 256; ++code) t[code] = static_cast<Value>(decode(kId, code));
    return t;
  }();
  for (std::size_t i = 0; i < count; ++i) values[i] = table[static_cast<std::size_t>(stored[i])];
}

std::uint64_t load(const Format& f, const std::byte* stored, std::size_t i) {
  const auto n = static_cast<std::size_t>(f.storage_bytes());
  std::uint64_t word = 0;
  std::memcpy(&word, stored + i * n, n);
  return word >> f.storage_shift();
}

void store(const Format& f, std::byte* stored, std::size_t i, std::uint64_t code) {
  const auto n = static_cast<std::size_t>(f.storage_bytes());
  code <<= f.storage_shift();
  std::memcpy(stored + i * n, &code, n);
}

// Rows reach the vector loops as typed storage; tensors allocate with operator new, aligned for every type.
template <class Word>
Word* as_words(std::byte* bytes) { return reinterpret_cast<Word*>(bytes); }
template <class Word>
const Word* as_words(const std::byte* bytes) { return reinterpret_cast<const Word*>(bytes); }

NORMA_CLONES void widen(const float* from, double* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const double v = static_cast<double>(from[i]);
    to[i] = v == v ? v : std::numeric_limits<double>::quiet_NaN();  // decode's
  }
}

}  // namespace

void decode_row(FormatId format, const std::byte* stored, float* values, std::size_t count) {
  switch (format) {
    case FormatId::fp64: throw std::logic_error("fp64 values do not fit binary32");
    case FormatId::fp32:
    case FormatId::tf32: std::memcpy(values, stored, count * sizeof(float)); return;
    case FormatId::bf16: decode_bf16(as_words<std::uint16_t>(stored), values, count); return;
    case FormatId::fp16: decode_fp16(as_words<std::uint16_t>(stored), values, count); return;
    case FormatId::e4m3fn: decode_table<FormatId::e4m3fn>(stored, values, count); return;
    case FormatId::e5m2: decode_table<FormatId::e5m2>(stored, values, count); return;
    case FormatId::e4m3fnuz: decode_table<FormatId::e4m3fnuz>(stored, values, count); return;
    case FormatId::e5m2fnuz: decode_table<FormatId::e5m2fnuz>(stored, values, count); return;
    case FormatId::e2m1: decode_table<FormatId::e2m1>(stored, values, count); return;
  }
}

void decode_row(FormatId format, const std::byte* stored, double* values, std::size_t count) {
  if (format == FormatId::fp64) {
    std::memcpy(values, stored, count * sizeof(double));
    return;
  }
  if (format == FormatId::tf32) {  // bits beyond the code are not looked at
    for (std::size_t i = 0; i < count; ++i) values[i] = decode(format, load(format_of(format), stored, i));
    return;
  }
  // The values of the others are binary32 numbers.
  constexpr std::size_t kBlock = 1024;
  std::array<float, kBlock> block;
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t size = std::min(kBlock, count - at);
    decode_row(format, stored + at * width, block.data(), size);
    widen(block.data(), values + at, size);
  }
}

void encode_row(FormatId format, const float* values, std::byte* stored, std::size_t count, Overflow overflow) {
  switch (format) {
    case FormatId::fp64: {
      for (std::size_t i = 0; i < count; ++i)
        store(format_of(format), stored, i, encode(format, static_cast<double>(values[i]), overflow));
      return;
    }
    case FormatId::fp32:
      if (overflow == Overflow::ieee) {
        std::memcpy(stored, values, count * sizeof(float));
        return;
      }
      [[fallthrough]];
    case FormatId::e2m1:
    case FormatId::tf32:
      for (std::size_t i = 0; i < count; ++i)
        store(format_of(format), stored, i, encode(format, static_cast<double>(values[i]), overflow));
      return;
    case FormatId::bf16:
      if (overflow == Overflow::ieee) encode_bf16_ieee(values, as_words<std::uint16_t>(stored), count);
      else encode_bf16(values, as_words<std::uint16_t>(stored), count, beyond_codes_of<FormatId::bf16>(overflow));
      return;
    case FormatId::fp16: encode_fp16(values, as_words<std::uint16_t>(stored), count, beyond_codes_of<FormatId::fp16>(overflow)); return;
    case FormatId::e4m3fn: encode_e4m3fn(values, as_words<std::uint8_t>(stored), count, beyond_codes_of<FormatId::e4m3fn>(overflow)); return;
    case FormatId::e5m2: encode_e5m2(values, as_words<std::uint8_t>(stored), count, beyond_codes_of<FormatId::e5m2>(overflow)); return;
    case FormatId::e4m3fnuz: encode_e4m3fnuz(values, as_words<std::uint8_t>(stored), count, beyond_codes_of<FormatId::e4m3fnuz>(overflow)); return;
    case FormatId::e5m2fnuz: encode_e5m2fnuz(values, as_words<std::uint8_t>(stored), count, beyond_codes_of<FormatId::e5m2fnuz>(overflow)); return;
  }
}

void encode_row(FormatId format, const double* values, std::byte* stored, std::size_t count, Overflow overflow) {
  const Format& f = format_of(format);
  for (std::size_t i = 0; i < count; ++i) store(f, stored, i, encode(format, values[i], overflow));
}

void store_row(FormatId format, const float* values, std::byte* stored, std::size_t count) {
  if (format == FormatId::bf16) store_bf16(values, as_words<std::uint16_t>(stored), count);
  else if (format == FormatId::fp16) store_fp16(values, as_words<std::uint16_t>(stored), count);
  else encode_row(format, values, stored, count, Overflow::ieee);
}

void round_row(FormatId format, const float* values, float* rounded, std::size_t count, Overflow overflow) {
  const auto copy = [&] {
    if (rounded != values) std::memcpy(rounded, values, count * sizeof(float));
  };
  switch (format) {
    case FormatId::fp64: copy(); return;
    case FormatId::fp32:
      if (overflow == Overflow::ieee) {
        copy();
        return;
      }
      [[fallthrough]];
    case FormatId::e2m1:
      for (std::size_t i = 0; i < count; ++i)
        rounded[i] = static_cast<float>(decode(format, encode(format, static_cast<double>(values[i]), overflow)));
      return;
    case FormatId::bf16:
      if (overflow == Overflow::ieee) round_bf16_ieee(values, rounded, count);
      else round_bf16(values, rounded, count, beyond_of(format, overflow));
      return;
    case FormatId::tf32: round_tf32(values, rounded, count, beyond_of(format, overflow)); return;
    case FormatId::fp16:
      if (overflow == Overflow::ieee) round_fp16_ieee(values, rounded, count);
      else round_fp16(values, rounded, count, beyond_of(format, overflow));
      return;
    case FormatId::e4m3fn: round_e4m3fn(values, rounded, count, beyond_of(format, overflow)); return;
    case FormatId::e5m2: round_e5m2(values, rounded, count, beyond_of(format, overflow)); return;
    case FormatId::e4m3fnuz: round_e4m3fnuz(values, rounded, count, beyond_of(format, overflow)); return;
    case FormatId::e5m2fnuz: round_e5m2fnuz(values, rounded, count, beyond_of(format, overflow)); return;
  }
}

void round_row(FormatId format, float* values, std::size_t count, Overflow overflow) {
  round_row(format, values, values, count, overflow);
}

}  // namespace norma
