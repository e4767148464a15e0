// Names of formats and overflow policies.
#include "reference/formats/format.hpp"

#include <array>
#include <cstdio>

namespace norma {

namespace {
constexpr std::array<std::string_view, 4> kOverflowNames{"ieee", "saturate_finite", "saturate", "nan"};
}

std::optional<FormatId> find_format(std::string_view name) {
  for (const Format& f : kFormats)
    if (f.name == name) return f.id;
  return std::nullopt;
}

std::optional<FormatId> find_safetensors_format(std::string_view dtype) {
  for (const Format& f : kFormats)
    if (!f.safetensors.empty() && f.safetensors == dtype) return f.id;
  return std::nullopt;
}

std::string_view name_of(Overflow overflow) {
  return kOverflowNames[static_cast<std::size_t>(overflow)];
}

std::optional<Overflow> find_overflow(std::string_view name) {
  for (std::size_t i = 0; i < kOverflowNames.size(); ++i)
    if (kOverflowNames[i] == name) return static_cast<Overflow>(i);
  return std::nullopt;
}

std::string hex_code(FormatId id, std::uint64_t code) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%0*llx", (format_of(id).code_bits + 3) / 4,
                static_cast<unsigned long long>(code));
  return text;
}

}  // namespace norma
