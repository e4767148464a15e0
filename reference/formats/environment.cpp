// Start-up checks of floating-point arithmetic. Every operand is volatile, so that the machine answers and not
// the compiler.
#include "reference/formats/environment.hpp"

#include <bit>
#include <cfenv>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>

namespace norma {

namespace {

/// 1 + ulp/2 and 1 + 3/4 ulp come down and up, and so do their negatives: only to-nearest-even does all four.
bool rounds_to_nearest() {
  volatile float one = 1, half_ulp = 0x1p-24f, three_quarters = 0x1.8p-24f;
  return std::fegetround() == FE_TONEAREST && one + half_ulp == 1.0f && one + three_quarters == 0x1.000002p0f &&
         -one - half_ulp == -1.0f && -one - three_quarters == -0x1.000002p0f;
}

/// Looked at as bits: where operands are flushed, a comparison with 0 would not see the difference.
bool keeps_subnormal_results() {
  volatile float small = 0x1p-126f, half = 0.5f;
  volatile double tiny = 0x1p-1022, half_double = 0.5;
  volatile float result = small * half;
  volatile double result_double = tiny * half_double;
  const float kept = result;
  const double kept_double = result_double;
  return std::bit_cast<std::uint32_t>(kept) != 0 && std::bit_cast<std::uint64_t>(kept_double) != 0;
}

bool keeps_subnormal_operands() {
  volatile float subnormal = 0x1p-149f, scale = 0x1p100f;
  volatile double subnormal_double = 0x1p-1074, scale_double = 0x1p1000;
  volatile float result = subnormal * scale;
  volatile double result_double = subnormal_double * scale_double;
  return result == 0x1p-49f && result_double == 0x1p-74;
}

/// (1 + e)(1 - e) - 1 is 0 if the product is rounded and -e^2 if it is fused.
bool contracts() {
  volatile double a = 1 + 0x1p-30, b = 1 - 0x1p-30, c = -1;
  volatile float af = 1 + 0x1p-13f, bf = 1 - 0x1p-13f, cf = -1;
  const double x = a, y = b, z = c;
  const float xf = af, yf = bf, zf = cf;
  volatile double result = x * y + z;
  volatile float result_float = xf * yf + zf;
  return result != 0 || result_float != 0;
}

/// Knuth's TwoSum: a build that reassociates simplifies the rest to 0. Nor may 2^53 + 1 survive in (a + b) - a.
bool two_sum_works() {
  volatile double big = 1, small = 0x1p-60;
  const double a = big, b = small;
  const double s = a + b;
  const double bb = s - a;
  volatile double rest = (a - (s - bb)) + (b - bb);
  volatile float big_float = 1, small_float = 0x1p-30f;
  const float af = big_float, bf = small_float;
  const float sf = af + bf;
  const float bbf = sf - af;
  volatile float rest_float = (af - (sf - bbf)) + (bf - bbf);
  volatile double large = 0x1p53;
  const double c = large;
  return rest == 0x1p-60 && rest_float == 0x1p-30f && (c + a) - c == 0;
}

bool honours_nan_and_infinity() {
  volatile double zero = 0;
  const double nan = zero / zero;
  const double infinity = 1 / zero;
  return nan != nan && infinity > std::numeric_limits<double>::max() && -infinity < infinity;
}

bool divides_and_roots_correctly() {
  volatile float one = 1, three = 3, two = 2;
  volatile double one_double = 1, three_double = 3, two_double = 2;
  return one / three == 0x1.555556p-2f && std::sqrt(static_cast<float>(two)) == 0x1.6a09e6p0f &&
         one_double / three_double == 0x1.5555555555555p-2 &&
         std::sqrt(static_cast<double>(two_double)) == 0x1.6a09e667f3bcdp0;
}

}  // namespace

std::string floating_point_fault() {
  if (FLT_EVAL_METHOD != 0)
    return "arithmetic keeps excess precision (x87); build for SSE2: -msse2 -mfpmath=sse";
  if (!rounds_to_nearest())
    return "the rounding mode is not to nearest; something in this process called fesetround";
  if (!keeps_subnormal_results())
    return "subnormal results are flushed to zero (FTZ is set); a library or -ffast-math at link time did so";
  if (!keeps_subnormal_operands())
    return "subnormal operands are taken as zero (DAZ is set); a library or -ffast-math at link time did so";
  if (contracts()) return "a*b+c is contracted to a fused multiply-add; build with -ffp-contract=off";
  if (!two_sum_works()) return "sums are reassociated (TwoSum lost its rest); build without -ffast-math";
  if (!honours_nan_and_infinity()) return "NaN and Inf are not honoured; build without -ffinite-math-only";
  if (!divides_and_roots_correctly())
    return "division or square root is not correctly rounded; build without -ffast-math";
  return {};
}

#if defined(__x86_64__)

std::string cpu_extensions() {
  std::string text = "x86-64";
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) text += " sse4.2";
  if (__builtin_cpu_supports("avx")) text += " avx";
  if (__builtin_cpu_supports("avx2")) text += " avx2";
  if (__builtin_cpu_supports("fma")) text += " fma";
  if (__builtin_cpu_supports("avx512f")) text += " avx512f";
  if (__builtin_cpu_supports("avx512bw")) text += " avx512bw";
  if (__builtin_cpu_supports("avx512vnni")) text += " avx512vnni";
  if (__builtin_cpu_supports("avx512bf16")) text += " avx512bf16";
  return text;
}

#elif defined(__aarch64__)

std::string cpu_extensions() { return "aarch64 neon"; }

#else

std::string cpu_extensions() { return "generic"; }

#endif

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (colon != std::string::npos && line.starts_with("model name")) return line.substr(colon + 2);
  }
  return cpu_extensions();
}

}  // namespace norma
