// A block's path against what the real classes passed on, site by site (python/capture/capture_blocks.py).
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "harness/trace/trace.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "reference/blocks/block.hpp"

namespace norma::test {

/// One call of a file.
struct RecordedBlock {
  const BlockPath* path = nullptr;
  BlockCall call;
  FormatId format = FormatId::fp32;  ///< T: the call's own word, else that of the block's first input
  Graph graph;                       ///< of the path
  Tensors inputs;                    ///< weights among them
  Tensors sites;                     ///< what was recorded, by result
};
/// A call that names its path; the weights have the block's own names.
RecordedBlock recorded_block(const TensorFile& file, const std::string& call);
/// A call BLOCK.FORMAT of one of diffusers' classes, beside a path that claims to be it. The weights have diffusers'
/// names and may be in a narrower format, which holds them exactly.
RecordedBlock recorded_block(const TensorFile& file, const std::string& call, std::string_view path);
/// The block over the reals.
Graph canonical_graph(const RecordedBlock& block);

/// tests/golden/captures/NAME.safetensors
TensorFile captured(std::string_view name);
/// tests/golden/captures/blocks_NAME.FORMAT.safetensors
TensorFile recorded_blocks(std::string_view name, std::string_view format);

/// One result of a site on the operands that were recorded, beside the result that was.
struct SiteCheck {
  std::string name, kind;
  FormatId format = FormatId::fp32;  ///< of what is stored
  /// An attention of 16 keys or more, whose exponentials torch takes as vectors, to 2^-19 or so.
  bool many_keys = false;
  bool choices = false;  ///< of programs: the steps allow other results than the declared
  std::int64_t elements = 0;
  std::int64_t differing = 0;  ///< from the declared steps; every NaN is one value
  /// Elements that the site's meaning refuses: of programs, those that differ from every result that the steps allow;
  /// of products, those beyond the bound for any order of summation, or without a finite one.
  std::int64_t refused = 0;
  double largest_share = 0;  ///< of products: the most that an element uses of its bound
};
/// Every result of every site that computes, in order; nothing else is recorded. Sites that only move values take them
/// from what was recorded.
std::vector<SiteCheck> check_sites(const RecordedBlock& block);
/// By name, those of which some element is refused.
std::set<std::string> refused_sites(const RecordedBlock& block);

struct SiteCounts {
  int programs = 0, products = 0;
  std::int64_t chosen = 0;  ///< in 16 bits: elements, of one program whose steps leave a choice, with another result
};
/// No site is refused, and there are so many. Result: check_sites.
std::vector<SiteCheck> require_sites_as_recorded(const RecordedBlock& block, SiteCounts counts);

/// The whole block from its inputs, emulated and recorded: at every site what leaves is what entered and what was
/// added, and both outputs are as near to the truth as their format lets a block be.
void require_errors_apart(const RecordedBlock& block);

/// Of all outputs the largest relative error, Euclidean.
struct WholeErrors {
  double path = 0;            ///< emulated against the truth
  double recorded = 0;        ///< recorded against the truth
  double implementation = 0;  ///< recorded against emulated
  double gap = 0;             ///< what the path means against the truth
};
WholeErrors whole_errors(const RecordedBlock& block);

/// Of the blocks of two streams: sites as recorded, of the programs none with other bits but an activation, and an
/// error of the whole of few units.
void require_streams_as_recorded(const RecordedBlock& block, SiteCounts counts);

/// Whether some site is refused if the block is built with another attribute, two tensors are exchanged (inputs or
/// sites), or the bits of one recorded element are changed: to the next number at a program, by a tenth of the largest
/// at a product.
bool refused_with_another_attribute(RecordedBlock block, const std::string& attribute, double value);
bool refused_with_exchanged(RecordedBlock block, const std::string& one, const std::string& other);
bool refused_with_a_code_changed(RecordedBlock block, const std::string& site);

}  // namespace norma::test
