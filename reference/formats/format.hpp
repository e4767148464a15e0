// What a number format is: one row, and the codec derived from it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace norma {

enum class FormatId : std::uint8_t {
#define NORMA_FORMAT(name, ...) name,
#include "reference/formats/formats.def"
#undef NORMA_FORMAT
};

/// Which encodings are not numbers.
enum class Specials : std::uint8_t {
  ieee,           ///< exponent field all ones: Inf, NaN
  finite_nan,     ///< no Inf; all ones is NaN (OCP E4M3)
  unsigned_zero,  ///< no Inf, no -0; the code of -0 is the one NaN
  finite_only,    ///< no Inf, no NaN (OCP E2M1); NaN becomes the largest number, as CUDA's conversion has it
};

/// What a value that rounds beyond the largest finite number becomes.
///
///   policy            finite overflow   Inf                  who does so
///   ieee              Inf, else NaN     Inf, else NaN        IEEE 754; torch e4m3fn up to 2.11; ml_dtypes
///   saturate_finite   largest finite    Inf, else NaN        ONNX Cast saturate=1 to the FNUZ formats
///   saturate          largest finite    largest finite       CUDA __NV_SATFINITE; torch e4m3fn from 2.12
///                                                            (measured on 2.15, Inf included)
///   nan               NaN               NaN                  kernels that mark every overflow
enum class Overflow : std::uint8_t { ieee, saturate_finite, saturate, nan };

struct Format {
  FormatId id;
  std::string_view name;
  int code_bits;
  int precision;  ///< significand bits with the hidden one
  int emin, emax;
  Specials specials;
  int storage_bits;
  std::string_view safetensors;  ///< dtype name there; empty: travels as raw bytes plus metadata
  std::string_view title;

  constexpr int mantissa_bits() const { return precision - 1; }
  constexpr int storage_bytes() const { return storage_bits / 8; }
  constexpr int storage_shift() const { return storage_bits > 8 ? storage_bits - code_bits : 0; }
  constexpr std::uint64_t sign_code() const { return std::uint64_t{1} << (code_bits - 1); }
  constexpr std::uint64_t magnitude_mask() const { return sign_code() - 1; }
  constexpr std::uint64_t exponent_mask() const {
    return magnitude_mask() & ~((std::uint64_t{1} << mantissa_bits()) - 1);
  }
  constexpr bool has_infinity() const { return specials == Specials::ieee; }
  constexpr bool has_nan() const { return specials != Specials::finite_only; }
  constexpr bool has_negative_zero() const { return specials != Specials::unsigned_zero; }
  constexpr std::uint64_t infinity_code() const { return exponent_mask(); }
  constexpr std::uint64_t nan_code() const {
    switch (specials) {
      case Specials::ieee: return exponent_mask() | (std::uint64_t{1} << (mantissa_bits() - 1));
      case Specials::finite_nan: return magnitude_mask();
      case Specials::unsigned_zero: return sign_code();
      case Specials::finite_only: return magnitude_mask();
    }
    return 0;
  }
  constexpr std::uint64_t max_finite_code() const {
    switch (specials) {
      case Specials::ieee: return exponent_mask() - 1;
      case Specials::finite_nan: return magnitude_mask() - 1;
      case Specials::unsigned_zero:
      case Specials::finite_only: return magnitude_mask();
    }
    return 0;
  }
};

inline constexpr Format kFormats[] = {
#define NORMA_FORMAT(name, code, prec, emin, emax, specials, storage, safetensors, title) \
  {FormatId::name, #name, code, prec, emin, emax, Specials::specials, storage, safetensors, title},
#include "reference/formats/formats.def"
#undef NORMA_FORMAT
};

constexpr const Format& format_of(FormatId id) { return kFormats[static_cast<std::size_t>(id)]; }
constexpr std::span<const Format> all_formats() { return kFormats; }
constexpr std::string_view name_of(FormatId id) { return format_of(id).name; }
std::optional<FormatId> find_format(std::string_view name);
std::optional<FormatId> find_safetensors_format(std::string_view dtype);

std::string_view name_of(Overflow overflow);
std::optional<Overflow> find_overflow(std::string_view name);

/// True if every value of `narrow` is a value of `wide`.
constexpr bool contains(FormatId wide, FormatId narrow) {
  const Format& w = format_of(wide);
  const Format& n = format_of(narrow);
  return w.precision >= n.precision && w.emax >= n.emax &&
         w.emin - w.precision <= n.emin - n.precision;
}

/// The value of a code, exactly (every format here fits in binary64). NaN and Inf as themselves.
constexpr double decode(FormatId id, std::uint64_t code) {
  const Format& f = format_of(id);
  if (id == FormatId::fp64) return std::bit_cast<double>(code);
  const bool negative = (code & f.sign_code()) != 0;
  const std::uint64_t magnitude = code & f.magnitude_mask();
  const double sign = negative ? -1.0 : 1.0;
  switch (f.specials) {
    case Specials::ieee:
      if (magnitude > f.infinity_code()) return std::numeric_limits<double>::quiet_NaN();
      if (magnitude == f.infinity_code()) return sign * std::numeric_limits<double>::infinity();
      break;
    case Specials::finite_nan:
      if (magnitude == f.nan_code()) return std::numeric_limits<double>::quiet_NaN();
      break;
    case Specials::unsigned_zero:
      if (code == f.nan_code()) return std::numeric_limits<double>::quiet_NaN();
      break;
    case Specials::finite_only: break;
  }
  const int field = static_cast<int>(magnitude >> f.mantissa_bits());
  const std::uint64_t hidden = std::uint64_t{1} << f.mantissa_bits();
  const std::uint64_t significand = (magnitude & (hidden - 1)) | (field == 0 ? 0 : hidden);
  const int exponent = (field == 0 ? 1 : field) - 1 + f.emin - f.mantissa_bits();
  // Both factors are exact and so is the product: at most 24 bits, exponent above -1022.
  const double scale = std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
  return sign * static_cast<double>(significand) * scale;
}

/// What a magnitude beyond the largest finite number becomes, or Inf where `infinite`; `sign` is the sign bit in its
/// place (0 for a positive one).
constexpr std::uint64_t beyond_code(const Format& f, Overflow overflow, std::uint64_t sign, bool infinite) {
  if (!f.has_nan()) return sign | f.max_finite_code();
  const std::uint64_t beyond = f.has_infinity() ? (sign | f.infinity_code()) : f.nan_code();
  switch (overflow) {
    case Overflow::ieee: return beyond;
    case Overflow::saturate_finite: return infinite ? beyond : (sign | f.max_finite_code());
    case Overflow::saturate: return sign | f.max_finite_code();
    case Overflow::nan: return f.nan_code();
  }
  return beyond;
}

/// The code of `value` rounded once to nearest, ties to even, with an exponent range unbounded above;
/// what then exceeds the largest finite number is treated by `overflow`. NaN gives the canonical NaN,
/// positive. -0 becomes 0 where the format has no -0.
///
/// Source: IEEE 754-2019 §4.3.1, §7.4; OCP OFP8 rev. 1.0 §5.2 (round first, then compare with the maximum).
constexpr std::uint64_t encode(FormatId id, double value, Overflow overflow) {
  const Format& f = format_of(id);
  const auto bits = std::bit_cast<std::uint64_t>(value);
  const bool negative = (bits >> 63) != 0;
  const std::uint64_t magnitude_bits = bits & 0x7fff'ffff'ffff'ffff;
  const std::uint64_t sign = negative ? f.sign_code() : 0;
  if (magnitude_bits > 0x7ff0'0000'0000'0000) return f.nan_code();
  if (magnitude_bits == 0x7ff0'0000'0000'0000) return beyond_code(f, overflow, sign, true);
  if (id == FormatId::fp64) return bits;
  // value = significand * 2^exponent, an integer significand below 2^53.
  const int field = static_cast<int>(magnitude_bits >> 52);
  const std::uint64_t fraction = magnitude_bits & 0x000f'ffff'ffff'ffff;
  const std::uint64_t significand = field == 0 ? fraction : (fraction | (std::uint64_t{1} << 52));
  const int exponent = (field == 0 ? 1 : field) - 1075;
  // Values below 2^-1022 lie under half the least subnormal of every narrower format: they round to 0.
  const int binade = field == 0 ? -1023 : field - 1023;
  const int base = binade > f.emin ? binade : f.emin;
  const int shift = base - f.mantissa_bits() - exponent;  // the quantum's exponent less ours; > 0 here
  std::uint64_t rounded = 0;
  if (shift <= 54) {
    const std::uint64_t half = std::uint64_t{1} << (shift - 1);
    const std::uint64_t rest = significand & ((half << 1) - 1);
    rounded = significand >> shift;
    if (rest > half || (rest == half && (rounded & 1) != 0)) ++rounded;
  }
  // Adding, not or-ing, lets a rounding carry move into the exponent field; a subnormal has base = emin.
  const std::uint64_t magnitude =
      (static_cast<std::uint64_t>(base - f.emin) << f.mantissa_bits()) + rounded;
  if (magnitude > f.max_finite_code()) return beyond_code(f, overflow, sign, false);
  if (magnitude == 0 && !f.has_negative_zero()) return 0;
  return sign | magnitude;
}

/// Largest finite value, smallest normal, smallest subnormal.
constexpr double max_finite(FormatId id) { return decode(id, format_of(id).max_finite_code()); }
constexpr double min_normal(FormatId id) {
  return decode(id, std::uint64_t{1} << format_of(id).mantissa_bits());
}
constexpr double min_subnormal(FormatId id) { return decode(id, 1); }

constexpr bool is_nan_code(FormatId id, std::uint64_t code) {
  const double v = decode(id, code);
  return v != v;
}

/// A code as hexadecimal digits, as wide as the format: "0x3f80".
std::string hex_code(FormatId id, std::uint64_t code);

}  // namespace norma
