// Bit-exact evaluation of a program: the ideal of a cast path.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

struct EmulateOptions {
  /// Added, in ulps, to the correctly rounded result of every step that is only accurate `within_ulp`; each
  /// step clamps it to its own bound. The ideal of a path with such a step is the set over all nudges.
  int nudge_ulp = 0;
  int threads = 1;
};

/// The outputs of `program`, all its stages, on these tensors, bit for bit. Shapes: x [..., cols]; weight, bias [cols];
/// residual like x; scale []. Outputs have x's shape, or x's shape without the last axis (layout.hpp: output_shape).
/// NaN results are the canonical NaN of their format. Errors: ProgramError naming the tensor that is missing
/// or does not fit.
Tensors emulate(const Program& program, const Tensors& inputs, const Attributes& attributes,
                const EmulateOptions& options = {});

/// The largest within_ulp of the steps of all stages; 0: the ideal is one set of bits.
int choice_ulp(const Program& program);

/// Every value of one row of a stage, decoded, by node and port; per-column values have `cols` entries, others one.
struct RowTrace {
  std::vector<std::vector<std::vector<double>>> values;  ///< [node][port][column]
};
RowTrace trace_row(const Program& program, const Tensors& inputs, const Attributes& attributes,
                   std::int64_t row, const EmulateOptions& options = {}, std::optional<std::size_t> stage = {});

}  // namespace norma
