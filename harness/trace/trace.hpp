// A block site by site: what error enters, what the site adds, what leaves.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reference/certified/blocks/real_graph.hpp"
#include "reference/program/graph.hpp"

namespace norma {

/// An error e of a tensor beside its truth t. NaN where no element could be compared.
struct ErrorFigures {
  double relative_l2 = 0;           ///< |e| / |t|, Euclidean
  double rms_ulp = 0, max_ulp = 0;  ///< in ulp of the tensor's format at t
  std::int64_t worst = -1;          ///< where max_ulp is
  double gain = 0;                  ///< (e . t) / (t . t): the part of e that makes t larger
  /// Share of |e|, 0..1, that all rows have in common, as their mean tells it; none for one row.
  std::optional<double> coherent;
};

struct SiteTrace {
  std::string name;
  std::string kind;  ///< program, linear, attention, convolution
  std::string path;  ///< the cast path that its program is, if it is of the catalogue
  Shape shape;
  FormatId format = FormatId::fp32;
  std::int64_t elements = 0;
  double truth_norm = 0;
  /// |radii| / |truth|: how far the truth itself is open; infinite where it is not known.
  double uncertainty = 0;
  /// leaving = entering + added, element by element: the site's meaning on what it was really given, minus the truth;
  /// what it stored, minus that meaning.
  ErrorFigures entering, added, leaving;
  /// What was stored and the declared steps on the same operands, where it was recorded elsewhere.
  std::optional<std::int64_t> differing;
  std::int64_t nan = 0, infinite = 0;  ///< stored
  std::int64_t open = 0;     ///< elements whose truth is not known, or not a number: their figures are left out
  std::int64_t clipped = 0;  ///< stored at the format's largest number, where the truth lies beyond it
};

/// What a block of a stack hands on: entering is the error that it was given, carried through it; added is its own.
struct BlockStep {
  int block = 0;  ///< from 0
  std::string stream;
  SiteTrace figures;
  bool carried = false;  ///< an earlier block's truth was taken at its midpoints
};

struct BlockTrace {
  std::vector<SiteTrace> sites;  ///< in order; those that only move values are left out
  std::vector<BlockStep> steps;  ///< of a stack: block after block
  /// Outputs against the block's canonical formula: |its truth - the truth of the path's meaning| / |its truth|.
  double definition_gap = 0;
  Tensors outputs;
  RealTensors
      meant;  ///< the outputs as the path means them: its truth without a rounding; empty where that is not proved
};

/// A block's balls are carried into the next one while they are this narrow. Radii are worst cases and grow by 10^6 and
/// more a block, while a small error itself grows like the path's own: wider ones give way to their midpoints.
inline constexpr double kCarriedRadius = 0x1p-40;

struct TraceOptions {
  RealOptions real{};
  /// Of a stack: as stacked() was given them.
  std::span<const Stream> streams{};
  int blocks = 1;
  /// What an implementation stored, by site; sites that it does not have are emulated.
  const Tensors* recorded = nullptr;
  /// The block over the reals, for the definition gap; null: not asked.
  const Graph* canonical = nullptr;
  /// Called after each site that is traced.
  std::function<void(const SiteTrace&)> progress{};
};

/// Traces `path` (a graph with formats) on these tensors. Errors: ProgramError as check_inputs.
BlockTrace trace_block(const Graph& path, const Tensors& inputs, const TraceOptions& options);

/// The largest |canonical - meant| / |canonical| of the outputs, in their order.
double definition_gap(const Graph& canonical, const RealTensors& truths, const Graph& path, const RealTensors& meant);

/// The sites by the error they add, largest |added| relative to the truth first.
std::vector<const SiteTrace*> ranked(const BlockTrace& trace);
/// The first site whose leaving error exceeds `limit` (relative L2), or that stores a NaN or Inf; null: none.
const SiteTrace* first_beyond(const BlockTrace& trace, double limit);
/// The first site that stores a NaN or Inf, or clips; null: none.
const SiteTrace* first_special(const BlockTrace& trace);

}  // namespace norma
