// The first pass over a run of elements: settles in binary64 all that a record needs of an element, or leaves it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "reference/formats/format.hpp"

namespace norma {

/// Elements of a run.
inline constexpr std::size_t kRunElements = 512;
using RunArray = std::array<double, kRunElements>;

/// What is known of each element of a run, by arrays; all numbers are decided.
struct Decided {
  alignas(64) RunArray error;                       ///< (got - y) / ulp(y) on the grid, an integer
  alignas(64) RunArray unit;                        ///< ulp(y), a power of two
  alignas(64) RunArray per_unit;                    ///< 1 / unit; infinite for the ulps of fp64's smallest numbers
  alignas(64) RunArray shrink;                      ///< ulp(y) / ulp(|q| + |b|), a power of two, at most 1
  alignas(64) RunArray value;                       ///< y from the decided error
  alignas(64) RunArray difference;                  ///< got - y, likewise
  alignas(64) RunArray definition, implementation;  ///< parts of the error, integers; 0 where there is no such part
  /// 0: left open. kSettled, and one count in each field that applies.
  alignas(64) std::array<std::uint64_t, kRunElements> state;
};

/// The fields of a state, wide enough to be summed over a run.
enum StateField : std::uint8_t {
  settled_field = 0,
  correct_field = 12,
  faithful_field = 24,
  underflow_field = 36,
  subnormal_field = 48
};
constexpr std::uint64_t state_bit(StateField field) { return std::uint64_t{1} << field; }
constexpr std::int64_t state_count(std::uint64_t sum, StateField field) {
  return static_cast<std::int64_t>((sum >> field) & 0xfff);
}

/// One run of a truth's quick enclosures.
struct QuickRun {
  const double *mid, *radius, *magnitude;
};

struct SettleFormat {
  double least_normal, ulp_of_one, largest;
};
SettleFormat settle_format(const Format& format);

/// Fills all but definition and implementation for the elements that it settles; their number.
std::size_t settle(const SettleFormat& format, const QuickRun& truth, const double* got, std::size_t count,
                   Decided& decided);
/// Settles the definition's part of the elements settled so far, or leaves them open after all; how many are left
/// settled.
std::size_t settle_definition(const QuickRun& truth, const QuickRun& erasure, std::size_t count, Decided& decided);
/// The implementation's part of the settled elements: (got - ideal) / ulp(y), exact. NaN where binary64 does not tell
/// or the ideal is not finite; true if there is none of those.
bool split_implementation(const double* got, const double* ideal, std::size_t count, Decided& decided);

}  // namespace norma
