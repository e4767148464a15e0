// Numbers in cases, options and metadata: binary64, read as Python's float() would.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace norma {

/// "1e-6", "+.5", "1_000", "inf", "NaN", and hexadecimal "0x1p-20" (float.fromhex). Rounded to
/// nearest; beyond the range Inf, below it 0, as Python does. Nothing if the text is not a number.
/// Independent of the locale.
std::optional<double> parse_number(std::string_view text);

/// The shortest decimal text that reads back as `value`: "1e-6", "0.1", "inf", "nan".
std::string print_number(double value);

/// The same word, or two ways to write one number: 1e-6 and 0x1.0c6f7a0b5ed8dp-20.
bool same_value(std::string_view a, std::string_view b);

}  // namespace norma
