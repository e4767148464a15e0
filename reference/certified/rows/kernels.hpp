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
/// where q = (h - centre) w r. round_elements takes centre_hi alone.
struct ElementRun {
  const void* x;
  const double* weight;
  const double* bias;
  std::size_t count;
  double centre_hi, centre_lo, factor;
  double of_product, of_value, absolute;
  // What round_elements takes beside.
  const double* bias_size = nullptr;  ///< the largest |bias| of each kBlock elements
  double constant_bias = 0;
  bool finite = true;  ///< every h is
};
/// `count` elements of it from the first-th on.
inline ElementRun part_of(const ElementRun& run, Layout layout, std::size_t first, std::size_t count) {
  const std::size_t bytes = layout == Layout::fp64 ? 8 : layout == Layout::fp32 ? 4 : 2;
  ElementRun part = run;
  part.x = static_cast<const std::byte*>(run.x) + first * bytes;
  if (part.weight != nullptr) part.weight += first;
  if (part.bias != nullptr) part.bias += first;
  if (part.bias_size != nullptr) part.bias_size += first / kBlock;
  part.count = count;
  return part;
}
/// constant: weight is 1, and 0 or constant_bias the bias; round_elements alone has them.
enum class Affine : std::uint8_t { product, biased, constant, constant_biased };
inline constexpr std::size_t kAffines = 4;

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

/// Codes of magnitudes, as integers: the largest, the least nonzero one less 1 (all ones: there is none), the bits that
/// any has.
struct Magnitudes {
  std::uint64_t largest = 0, least = ~std::uint64_t{0}, bits = 0;
};

struct Kernels {
  double (*sum_squares[kLayouts])(const void* x, std::size_t count);
  /// Sums of d = RN(h - centre) and of d^2.
  void (*moments[kLayouts])(const void* x, std::size_t count, double centre, double* sums);
  DoubleDouble (*sum_two[kLayouts])(const void* x, std::size_t count);
  void (*magnitudes[kLayouts])(const void* x, std::size_t count, Magnitudes& all);
  /// h = a + b rounded to binary64; false if a sum is not a binary64 number.
  bool (*add_rows)(const float* a, const float* b, std::size_t count, double* h);
  /// [layout][centred][affine]. Values; with a bias also radius and, if it is not null, magnitude |q| + |b|.
  void (*elements[kLayouts][2][2])(const ElementRun& run, double* value, double* radius, double* magnitude);
  /// [layout][centred][affine][format]: elements and round in one; null for those that have no loop of their own.
  /// Inf in fp32 and bf16 may count as settled.
  std::uint64_t (*round_elements[kLayouts][2][kAffines][kFormatCount])(const ElementRun& run, std::byte* stored);
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
