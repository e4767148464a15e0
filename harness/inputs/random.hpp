// Random numbers with the same bits on every machine: a counter-based generator, uniforms, normals.
#pragma once

#include <cstdint>
#include <string_view>

namespace norma {

/// One stream per tensor: seed plus the FNV-1a-64 hash of the tensor's name, so tensors of a case
/// differ.
std::uint64_t stream_key(std::uint64_t seed, std::string_view tensor);

/// What a draw belongs to; draws of different kinds at one number are independent.
enum class DrawKind : std::uint32_t { element = 0, row = 1, column_block = 2 };

/// Two uniforms in (0, 1): odd multiples of 2^-53, from Philox4x32-10 at counter (number, kind).
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11; Random123's
/// implementation.
struct Uniforms {
  double first;
  double second;
};
Uniforms draw(std::uint64_t key, DrawKind kind, std::uint64_t number);

/// The standard normal quantile for u in (0, 1): Wichura's AS 241 (PPND16), relative error about
/// 1e-16 before rounding. Only + - * / and sqrt in binary64, so its bits are the same wherever
/// these are IEEE's.
double normal_quantile(double u);

/// -log(u) for u in (0, 1); relative error below 2^-50. Same operations only.
double minus_log(double u);

}  // namespace norma
