// Blocks of two streams as the real classes ran them, site by site (python/capture/capture_blocks_flux.py).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "reference/blocks/block.hpp"

namespace norma::test {

/// tests/golden/captures/NAME.safetensors
TensorFile captured(std::string_view name);

/// A recorded call with its block over the reals and the path that claims to be it.
struct GoldenBlock {
  FormatId format = FormatId::fp32;
  BlockCall call;
  Graph canonical, path;
  Tensors inputs;
  Tensors recorded;  ///< by site
};
/// `call`: BLOCK.FORMAT as the file names it.
GoldenBlock golden_block(const TensorFile& file, const std::string& call, std::string_view path);

/// A site on the operands that were recorded, beside the result that was.
struct SiteCount {
  std::string name;
  bool program = false;
  std::int64_t elements = 0;
  std::int64_t differing = 0;  ///< of programs: from the declared steps
  /// Of programs: from every result that the steps allow. Of products: beyond the bound for any order of summation.
  std::int64_t refused = 0;
  double widest = 0;          ///< of products: the largest error, as a share of its bound
  std::int64_t infinite = 0;  ///< of products: elements whose bound says nothing
};
/// Every site that computes, in order; nothing else is recorded.
std::vector<SiteCount> site_counts(const GoldenBlock& golden);

/// Of both outputs the larger relative error, Euclidean.
struct WholeErrors {
  double path = 0;            ///< emulated against the truth
  double recorded = 0;        ///< recorded against the truth
  double implementation = 0;  ///< recorded against emulated
  double gap = 0;             ///< what the path means against the truth
};
WholeErrors whole_errors(const GoldenBlock& golden);

/// Sums, for reports.
struct Totals {
  int programs = 0, products = 0;
  std::int64_t program_elements = 0, product_elements = 0, differing = 0, refused = 0, infinite = 0;
  double widest = 0;
};
Totals totals(const std::vector<SiteCount>& counts);
/// No site is refused, and none differs whose steps leave no choice; the sums are in the report.
void check_recorded(const TensorFile& file, const std::string& call, std::string_view path, int programs, int products);

}  // namespace norma::test
