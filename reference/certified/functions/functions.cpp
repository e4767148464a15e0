// The functions in binary64: names, bounds, rows.
#include "reference/certified/functions/functions.hpp"

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "reference/certified/functions/function_kernels.hpp"

namespace norma {

namespace {

constexpr std::array<std::string_view, kFunctions> kNames{"exp", "tanh", "erf", "sigmoid", "silu", "gelu", "gelu_tanh"};

}  // namespace

std::span<const std::string_view> function_names() { return kNames; }

// Relative, u = 2^-53. Two proofs stand behind each: for every binary64 x the Gappa scripts in proofs/ with the steps
// below; for the 2^32 binary32 x the nightly sweep against the double-double tier (tests/reference/functions_test.cpp).
//
//   e                 proofs/exp_*.gappa                                                        2u
//   sigmoid, silu     1 + e^-x: u beside e's 2u; the quotient: u                                4u
//   gelu_tanh         the same; w is known to 2^-73 of itself, |w| <= 708, to e 2^-10 u         4.01u
//   tanh              proofs/tanh*.gappa, q / (q + 2)                                           7.6u
//   m                 tail_test.cpp 0.53u, proofs/tail_*.gappa 24u and 2u                       26.6u
//   gelu              e m: 29.6u; its complement, at least 1/2: u; the product: u               31.7u
//   erf               sqrt 2 |x|: 2u to m; e m, at most 0.93 of what is left: 29.5u; u          30.5u
//     below 1/2       13 terms that fall by x^2/3: less than 1.2u each way; two products        4u
double function_bound(Function f) {
  switch (f) {
    case Function::exp: return 2 * kUnitRoundoff;
    case Function::sigmoid:
    case Function::silu: return 4.01 * kUnitRoundoff;
    case Function::gelu_tanh: return 4.02 * kUnitRoundoff;
    case Function::tanh: return 8 * kUnitRoundoff;
    case Function::gelu:
    case Function::erf: return 32 * kUnitRoundoff;
  }
  std::abort();
}

void evaluate(Function f, std::span<const double> x, std::span<double> mid) {
  if (x.size() != mid.size()) throw std::logic_error("evaluate: as many midpoints as arguments are needed");
  function_kernels().rows[static_cast<std::size_t>(f)](x.data(), mid.data(), x.size());
}

}  // namespace norma
