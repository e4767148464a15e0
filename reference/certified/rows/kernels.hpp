// The vector loops of the binary64 tier, compiled for several instruction sets with identical results.
//
// Why identical: every lane is independent or the order of a sum is written in the loop; nothing is contracted; an FMA
// is used only where the product is exact, so that multiplying and adding give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "reference/certified/double_double.hpp"
#include "reference/certified/element.hpp"
#include "reference/formats/format.hpp"

namespace norma {

/// How a row of values lies in memory.
enum class Layout : std::uint8_t { bf16, fp16, fp32, fp64 };
inline constexpr std::size_t kLayouts = 4;
inline constexpr std::size_t kFormatCount = std::size(kFormats);

/// A sum runs over at most this many values at a time; longer ones are added pairwise by the caller.
inline constexpr std::size_t kSumBlock = 16384;
/// Additions that a term passes within a block: at most 16 in a run of 512 values (32 lanes), one a run, 5 of the
/// lanes' tree.
constexpr int sum_depth(std::size_t count) {
  const std::size_t steps = (count + 31) / 32;
  return static_cast<int>((steps < 16 ? steps : 16) + (steps + 15) / 16 + 5);
}

/// A loop over elements does at most kRun of them and tells by blocks of kBlock, one bit a block, where scalar code has
/// to look again.
inline constexpr std::size_t kBlock = 64;
inline constexpr std::size_t kRun = 64 * kBlock;

/// y = (h - centre) w r + b, h being `count` values at x, |y - value| <= of_product |q| + of_value |value| + absolute,
/// where q = (h - centre) w r.
struct ElementRun {
  const void* x;
  const double* weight;
  const double* bias;
  std::size_t count;
  double centre_hi, centre_lo, factor;
  double of_product, of_value, absolute;
};
/// `count` elements of it from the first-th on.
inline ElementRun part_of(const ElementRun& run, Layout layout, std::size_t first, std::size_t count) {
  const std::size_t bytes = layout == Layout::fp64 ? 8 : layout == Layout::fp32 ? 4 : 2;
  ElementRun part = run;
  part.x = static_cast<const std::byte*>(run.x) + first * bytes;
  part.weight += first;
  if (part.bias != nullptr) part.bias += first;
  part.count = count;
  return part;
}
enum class Affine : std::uint8_t { product, biased };

/// |y - value[i]| <= radius[i], or <= relative |value[i]| + absolute where radius is null.
struct EnclosedRun {
  const double* value;
  const double* radius;
  double relative, absolute;
  std::size_t count;
};

/// Sums of the errors of one run.
struct ScoreSums {
  double max, sum, sum_abs, sum_squares, bar;
  std::int64_t incorrect, near_half;
};

struct Kernels {
  /// Sum of h^2, of h, of h as two words, of ((h - centre_hi) - centre_lo)^2.
  double (*sum_squares[kLayouts])(const void* x, std::size_t count);
  double (*sum[kLayouts])(const void* x, std::size_t count);
  DoubleDouble (*sum_two[kLayouts])(const void* x, std::size_t count);
  double (*sum_deviations[kLayouts])(const void* x, std::size_t count, double centre_hi, double centre_lo);
  /// The largest magnitude's code and the least nonzero one's less 1 (all ones: there is none), as integers.
  void (*magnitudes[kLayouts])(const void* x, std::size_t count, std::uint64_t& largest, std::uint64_t& least);
  /// h = a + b rounded to binary64; false if a sum is not a binary64 number.
  bool (*add_rows)(const float* a, const float* b, std::size_t count, double* h);
  /// [layout][centred][affine]. Values; with a bias also radius and, if it is not null, magnitude |q| + |b|.
  void (*elements[kLayouts][2][2])(const ElementRun& run, double* value, double* radius, double* magnitude);
  /// [layout][centred][affine][format]: elements and round in one; null for those that have no loop of their own.
  /// Values that are not numbers give any code and may count as settled, and so may Inf in fp32 and bf16.
  std::uint64_t (*round_elements[kLayouts][2][2][kFormatCount])(const ElementRun& run, std::byte* stored);
  /// [format]. Codes to `stored`; tells of elements that are not settled, not finite, or beyond the largest number.
  std::uint64_t (*round[kFormatCount])(const EnclosedRun& run, std::byte* stored);
  /// [layout][centred][affine][layout of got, not fp64]. Adds the elements of the run that are scored here. The places
  /// of the others go to `open` (room for all, and one more); returns how many.
  std::size_t (*score[kLayouts][2][2][kLayouts - 1])(const ElementRun& run, const UlpRule& rule, const void* got,
                                                     ScoreSums& sums, std::uint32_t* open);
};

/// Those of vector_level().
const Kernels& kernels();

}  // namespace norma
