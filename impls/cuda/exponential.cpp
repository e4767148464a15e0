// The steps of exp_by_steps (functions.hpp).
#include "impls/cuda/exponential.hpp"

#include <string>

namespace norma::cuda {

namespace {

constexpr double kLn2 = 0x1.62e42fefa39efp-1;

/// 2^k of an integer k, which the kernel writes as bits: e^(k ln 2) with ln 2 in binary64 is 2^k up to 2^-45 of itself
/// for |k| <= 75, and fp32 rounds that to 2^k.
Operand power_of_two(Builder& b, const std::string& name, Operand k) {
  const Operand ln2 = b.constant(name + "_ln2", kLn2);
  return b.map(name, Op::exp, kFp32, {b.mul(name + "_log", kFp64, k, ln2)});
}

Operand steps(Builder& b, Operand x) {
  const auto constant = [&](const char* name, double value) { return b.constant(name, value); };
  const Operand low = b.map("exp_low", Op::max, kFp32, {x, constant("least", -104)});
  const Operand c = b.map("exp_x", Op::min, kFp32, {low, constant("most", 89)});
  const Operand round = constant("to_integer", 0x1.8p23);
  const Operand log2e = constant("log2_e", 0x1.715476p+0);
  const Operand n = b.sub("n", kFp32, b.map("n_shifted", Op::fma, kFp32, {c, log2e, round}), round);
  const Operand first_ln2 = constant("minus_ln2", -0x1.62e4p-1);
  Operand r = b.map("r_first", Op::fma, kFp32, {n, first_ln2, c});
  const Operand rest_ln2 = constant("minus_ln2_rest", -0x1.7f7d1cp-20);
  r = b.map("r", Op::fma, kFp32, {n, rest_ln2, r});
  constexpr double kTaylor[] = {0x1.6c16c2p-10, 0x1.111112p-7, 0x1.555556p-5, 0x1.555556p-3, 0.5, 1, 1};
  Operand p = constant("c7", 0x1.a01a02p-13);
  for (int k = 6; k >= 0; --k) {
    const Operand coefficient = b.constant("c" + std::to_string(k), kTaylor[6 - k]);
    p = b.map("p" + std::to_string(k), Op::fma, kFp32, {p, r, coefficient});
  }
  const Operand half = constant("half_n", 0.5);
  const Operand first = b.sub("n1", kFp32, b.map("n1_shifted", Op::fma, kFp32, {n, half, round}), round);
  const Operand rest = b.sub("n2", kFp32, n, first);
  const Operand scaled = b.mul("e_scaled", kFp32, p, power_of_two(b, "two_n1", first));
  return b.mul("e", kFp32, scaled, power_of_two(b, "two_n2", rest));
}

}  // namespace

Operand exponential(Builder& b, Exponential kind, Operand x) {
  if (kind == Exponential::steps) return steps(b, x);
  return b.map("e", Op::exp, Rounding{.format = kFp32, .within_ulp = kLibraryUlp}, {x});
}

}  // namespace norma::cuda
