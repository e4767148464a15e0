// Elementary functions with certified errors: binary64 rows, double-double, MPFR.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "reference/certified/double_double.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/exact/real.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// gelu: x Phi(x) by erf. gelu_tanh: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, with 0.044715 the binary64
/// number next to it (0x1.6e4e26d4801f7p-5) and the real sqrt(2/pi). silu: x sigmoid(x).
enum class Function : std::uint8_t { exp, tanh, erf, sigmoid, silu, gelu, gelu_tanh };
std::span<const std::string_view> function_names();

/// f(x[i]) ~ mid[i] in binary64: |f(x) - mid| <= function_bound(f) |mid| + kFunctionFloor, for every binary64 x. NaN
/// for NaN; the limits at +-Inf; Inf for results beyond binary64's range. mid has f(x)'s sign, and mid may be x. Same
/// bits at every vector width. For the proofs see functions.cpp.
void evaluate(Function f, std::span<const double> x, std::span<double> mid);
double function_bound(Function f);
inline constexpr double kFunctionFloor = 0x1p-1000;

/// f(x) for finite x with |x| <= 700: |f(x) - (h + l)| <= function_bound_dd(f) |f(x)|, where |f(x)| >= 2^-900;
/// smaller results may be 0.
DoubleDouble evaluate(Function f, DoubleDouble x);
double function_bound_dd(Function f);

/// f of an interval, outward-rounded (MPFR). At -Inf silu and the gelus are -0. e^x beyond MPFR's range: unknown.
Interval evaluate(Function f, const Interval& x);

/// The truth of y = f(x), elementwise over any tensor, which must outlive it; view rows x cols as x. Tiers: binary64,
/// double-double, then MPFR to 4096 bits, where `undecided` is answered. f(x) = 0 and other exact values are known.
std::unique_ptr<TruthSource> function_truth(Function f, const Tensor& x);

/// Correctly rounded f(x) for every element: tables for formats of at most 16 bits (built once, thread-safe), else the
/// tiers. Counts as round_rows does; a table's entries count as the tier that settled them when it was built.
struct RoundedFunction {
  Tensor y;
  TierCounts tiers;
};
RoundedFunction round_function(Function f, const Tensor& x, FormatId format, Overflow overflow, int threads = 1);

}  // namespace norma
