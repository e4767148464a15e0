// Where the values of a program's rows and columns stand in its tensors.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// The element of a tensor that (row, col) reads:
///   (r % set) * per_row + (r / set / sets_each) * per_set + (c / run) * per_run + (c % run) * step,
///   r = (row / rows_each) % period, c = col % columns
/// that is, a row is runs of `run` elements that are `step` apart; step 0: one value for a whole run. Rows come in sets.
/// `columns` is a multiple of `run`.
struct Stride {
  std::int64_t rows_each = 1;
  std::int64_t period = std::numeric_limits<std::int64_t>::max();
  std::int64_t per_row = 0;
  std::int64_t set = std::numeric_limits<std::int64_t>::max();
  std::int64_t sets_each = 1;
  std::int64_t per_set = 0;
  std::int64_t run = std::numeric_limits<std::int64_t>::max();
  std::int64_t per_run = 0;
  std::int64_t step = 0;
  std::int64_t columns = std::numeric_limits<std::int64_t>::max();
  std::int64_t at(std::int64_t row, std::int64_t col) const {
    const std::int64_t r = (row / rows_each) % period;
    const std::int64_t c = col % columns;
    return (r % set) * per_row + (r / set / sets_each) * per_set + (c / run) * per_run + (c % run) * step;
  }
};

/// A program's rows and columns, and what its view makes of x = [samples, channels, positions...], or, where columns are
/// seen as rows, of x = [samples, positions..., channels].
struct Layout {
  View view;
  std::int64_t rows = 1, cols = 1;
  std::int64_t samples = 1, channels = 1, positions = 1;
  std::int64_t groups = 1;  ///< rows of one sample; 1 for a batch
  std::int64_t runs = 1;    ///< rows that one row of x makes: view blocks
  Stride elements;          ///< of x, and of every tensor like it

  /// x's elements in memory order are rows of `block` elements each. Each of those lies in one row of the program; not
  /// where columns are seen as rows: there it is a row of x, with one element in each of `channels` rows.
  std::int64_t block = 1;
  bool columns_are_rows() const { return view.kind == ViewKind::columns || view.kind == ViewKind::tokens; }
  struct Place {
    std::int64_t row = 0, col = 0;
  };
  /// Where element `at` of that order stands in the program.
  Place place_of(std::int64_t at) const;

  /// The columns that are pairs.
  std::int64_t rotary() const { return view.rotary == 0 ? cols : view.rotary; }
  struct Partner {
    std::int64_t col = 0;
    bool first = false;  ///< of the two, the column that has this partner
  };
  /// The other column of a pair; of a rotary column only.
  Partner partner_of(std::int64_t col) const;
};

/// A program as its tensors make it: axes are rows and cols only, since a value of each channel varies with one of them
/// or with both, and one of each column that is given for every sample varies with both.
struct PlacedProgram {
  Program program;
  Layout layout;
  Shape x;  ///< the shape that settled the layout
  std::vector<const Tensor*> tensors;  ///< by node; null where the node is no input
  std::vector<Stride> strides;         ///< by node, of inputs
};

/// Shapes: x (or, if there is none, the first input of rows and columns) settles the layout. Inputs of rows and columns
/// have its size. `cols`: [cols], or one vector a sample, [samples, ones..., cols], or a tensor of x's shape. `channels`:
/// [channels], or [samples, channels, ones...]. `rows`: a value for each row. Of view tokens, `cols` also one for each of
/// x's rows. `pairs`: [..., rotary / 2], a value a pair, or [..., rotary]; its other axes broadcast to x's from the right,
/// as numpy's do ([tokens, 1, 64] beside x [batch, tokens, heads, 128]).
/// One stage: of the stages before it nothing is asked. Only shapes are read.
/// Errors: ProgramError naming the tensor that is missing or does not fit, or the attribute groups.
/// Lives:  the tensors must outlive it.
PlacedProgram place(Program program, const Tensors& inputs, const Attributes& attributes);

/// Tensors where they are.
using TensorRefs = std::map<std::string, const Tensor*, std::less<>>;
PlacedProgram place(Program program, const TensorRefs& inputs, const Attributes& attributes);
TensorRefs refs_to(const Tensors& tensors);
/// What one stage of a program reads: of `made`, by name, what earlier stages gave, else of `given`. A program without
/// stages sees all that is given. ProgramError for a tensor that is in neither.
TensorRefs inputs_of_stage(const Program& program, std::size_t stage, const Tensors& given, const TensorRefs& made);

/// The shape of an output of a placed program; x's own for one with rows and columns.
Shape output_shape(const PlacedProgram& placed, Axes axes, const Shape& x);

}  // namespace norma
