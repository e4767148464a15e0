// The functions in binary64: names, bounds, rows.
#include "reference/certified/functions.hpp"

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "reference/certified/function_kernels.hpp"

namespace norma {

namespace {

constexpr std::array<std::string_view, kFunctions> kNames{"exp", "tanh", "erf", "sigmoid", "silu", "gelu", "gelu_tanh"};

}  // namespace

std::span<const std::string_view> function_names() { return kNames; }

// Relative, u = 2^-53. exp, its p and tanh's quotient: proofs/exp.gappa, proofs/tanh.gappa; m: proofs/tail.gappa.
double function_bound(Function f) {
  switch (f) {
    case Function::exp: return 2 * kUnitRoundoff;
    // 1 + e and the quotient: u each, beside e's 2u.
    case Function::sigmoid: return 4.01 * kUnitRoundoff;
    case Function::silu: return 4.01 * kUnitRoundoff;
    case Function::gelu_tanh: return 4.1 * kUnitRoundoff;
    case Function::tanh: return 6 * kUnitRoundoff;
    case Function::gelu: return 8 * kUnitRoundoff;
    case Function::erf: return 8 * kUnitRoundoff;
  }
  std::abort();
}

void evaluate(Function f, std::span<const double> x, std::span<double> mid) {
  if (x.size() != mid.size()) throw std::logic_error("evaluate: as many midpoints as arguments are needed");
  function_kernels().rows[static_cast<std::size_t>(f)](x.data(), mid.data(), x.size());
}

}  // namespace norma
