// Numbers as text, in both directions.
#include "harness/cases/number.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <system_error>

namespace norma {

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex_digit(char c) { return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'f'); }

/// Removes the underscores Python allows between digits; nothing if one stands elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      plain += lower(text[i]);
      continue;
    }
    const bool between =
        i > 0 && i + 1 < text.size() && is_digit(text[i - 1]) && is_digit(text[i + 1]);
    if (!between) return std::nullopt;
  }
  return plain;
}

/// What a number outside binary64's range becomes: Inf if its leading digit stands above 1, else 0.
double beyond_range(std::string_view digits, char exponent_mark, int digit_weight) {
  long long place = 0;  // digits before the point, counted from the first that is not 0
  bool point = false;
  bool started = false;
  std::size_t i = 0;
  for (; i < digits.size() && digits[i] != exponent_mark; ++i) {
    if (digits[i] == '.') {
      point = true;
      continue;
    }
    started = started || digits[i] != '0';
    if (started && !point) ++place;
    if (!started && point) --place;
  }
  bool negative = false;
  long long exponent = 0;
  for (++i; i < digits.size(); ++i) {
    if (digits[i] == '-') negative = true;
    if (is_digit(digits[i]) && exponent < 1'000'000'000'000)
      exponent = 10 * exponent + (digits[i] - '0');
  }
  const long long leading = place * digit_weight + (negative ? -exponent : exponent);
  return leading > 0 ? std::numeric_limits<double>::infinity() : 0.0;
}

}  // namespace

std::optional<double> parse_number(std::string_view text) {
  double sign = 1;
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    sign = text.front() == '-' ? -1 : 1;
    text.remove_prefix(1);
  }
  const bool hex = text.size() > 2 && text[0] == '0' && lower(text[1]) == 'x';
  if (hex) text.remove_prefix(2);
  const auto plain = without_underscores(text);
  if (!plain || plain->empty()) return std::nullopt;
  if (!hex && (*plain == "inf" || *plain == "infinity"))
    return sign * std::numeric_limits<double>::infinity();
  if (!hex && *plain == "nan") return std::numeric_limits<double>::quiet_NaN();
  // from_chars would also take "nan(...)" and a second sign.
  const char first = plain->front();
  if (!(first == '.' || (hex ? is_hex_digit(first) : is_digit(first)))) return std::nullopt;
  double value = 0;
  const char* end = plain->data() + plain->size();
  const auto result = std::from_chars(plain->data(), end, value,
                                      hex ? std::chars_format::hex : std::chars_format::general);
  if (result.ptr != end || result.ec == std::errc::invalid_argument) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range)
    value = hex ? beyond_range(*plain, 'p', 4) : beyond_range(*plain, 'e', 1);
  return sign * value;
}

std::string print_number(double value) {
  if (std::isnan(value)) return "nan";
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, result.ptr);
  // 1e-06 is to_chars' habit; people write 1e-6.
  if (const auto e = text.find('e'); e != std::string::npos) {
    if (text[e + 1] == '+') text.erase(e + 1, 1);
    const std::size_t digits = text[e + 1] == '-' ? e + 2 : e + 1;
    while (text[digits] == '0' && digits + 1 < text.size()) text.erase(digits, 1);
  }
  return text;
}

bool same_value(std::string_view a, std::string_view b) {
  if (a == b) return true;
  const auto number = parse_number(a);
  return number.has_value() && number == parse_number(b);
}

}  // namespace norma
