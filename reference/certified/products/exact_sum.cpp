// The exact sum of any binary64 numbers.
#include "reference/certified/products/exact_sum.hpp"

#include <bit>
#include <cmath>

namespace norma {

namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr std::int64_t kLowMask = 0xffff'ffff;

}  // namespace

void ExactSum::add(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto field = static_cast<int>((bits >> 52) & 0x7ff);
  const std::uint64_t fraction = bits & 0x000f'ffff'ffff'ffff;
  const std::uint64_t significand = field == 0 ? fraction : fraction | (std::uint64_t{1} << 52);
  const int position = field == 0 ? 0 : field - 1;
  const auto digit = static_cast<std::size_t>(position >> 5);
  const int offset = position & 31;
  const std::uint64_t low = significand << offset;  // its upper part is lost here and kept in high
  const std::uint64_t high = offset == 0 ? 0 : significand >> (64 - offset);
  const auto d0 = static_cast<std::int64_t>(low & 0xffff'ffff), d1 = static_cast<std::int64_t>(low >> 32);
  const auto d2 = static_cast<std::int64_t>(high);
  const std::int64_t sign = (bits >> 63) != 0 ? -1 : 1;
  digits_[digit] += sign * d0;
  digits_[digit + 1] += sign * d1;
  digits_[digit + 2] += sign * d2;
  if (++additions_ == (1 << 30)) carry();
}

// Every digit but the last into [0, 2^32); the last takes the sign.
void ExactSum::carry() {
  for (std::size_t i = 0; i + 1 < kDigits; ++i) {
    digits_[i + 1] += digits_[i] >> 32;
    digits_[i] &= kLowMask;
  }
  additions_ = 0;
}

int ExactSum::sign() const {
  ExactSum sum = *this;
  sum.carry();
  if (sum.digits_[kDigits - 1] < 0) return -1;
  for (const std::int64_t digit : sum.digits_)
    if (digit != 0) return 1;
  return 0;
}

double ExactSum::take() {
  ExactSum magnitude = *this;
  magnitude.carry();
  const bool negative = magnitude.digits_[kDigits - 1] < 0;
  if (negative) {
    for (std::int64_t& digit : magnitude.digits_) digit = -digit;
    magnitude.carry();
  }
  int top = kDigits - 1;
  while (top >= 0 && magnitude.digits_[static_cast<std::size_t>(top)] == 0) --top;
  if (top < 0) return 0;
  Wide leading = 0;
  for (int i = top; i > top - 3; --i)
    leading = (leading << 32) | (i < 0 ? Wide{0} : static_cast<Wide>(magnitude.digits_[static_cast<std::size_t>(i)]));
  int cut = 12;  // at least 65 bits
  while ((leading >> cut) >> 53 != 0) ++cut;
  const double value =
      std::ldexp(static_cast<double>(static_cast<std::uint64_t>(leading >> cut)), 32 * (top - 2) - 1074 + cut);
  const double taken = negative ? -value : value;
  add(-taken);
  return taken;
}

}  // namespace norma
