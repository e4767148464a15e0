// Whole rows of values in and out of storage, and rounding in place: the codec at the speed of memory.
#pragma once

#include <cstddef>

#include "reference/formats/format.hpp"

namespace norma {

/// Stored values to binary32 or binary64; exact. The binary32 form refuses fp64 (std::logic_error).
void decode_row(FormatId format, const std::byte* stored, float* values, std::size_t count);
void decode_row(FormatId format, const std::byte* stored, double* values, std::size_t count);

/// Values to storage, each rounded once to nearest even; same result as `encode` on every value.
void encode_row(FormatId format, const float* values, std::byte* stored, std::size_t count, Overflow overflow);
void encode_row(FormatId format, const double* values, std::byte* stored, std::size_t count, Overflow overflow);

/// The same for values that `format` holds already (NaN becomes the canonical one).
void store_row(FormatId format, const float* values, std::byte* stored, std::size_t count);

/// Rounds binary32 values to `format`, decode(encode(v)): to `rounded`, which is `values` or apart from it, or where
/// they stand.
void round_row(FormatId format, const float* values, float* rounded, std::size_t count, Overflow overflow);
void round_row(FormatId format, float* values, std::size_t count, Overflow overflow);

}  // namespace norma
