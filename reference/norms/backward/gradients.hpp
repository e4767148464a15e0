// What the backward of a norm gives: dx, and sums over the elements that share a parameter.
//
//   y = w s (h - centre) r [+ bias],   w = weight.offset + weight, s = scale.offset + scale          (row_norm.hpp)
//   g = dy w s,   mean(g) = sum g / n for moments, 0 for squares
//   dx = r (g - mean(g)) + r' (h - centre) sum g (h - centre),   r' the derivative of r by S / 2
//      = r (g - mean(g)) - r^3 (h - centre) (sum g (h - centre)) / count          (eps inside)
//
// for dS/dh = 2 (h - centre), and sum (h - centre) = 0 takes the centre's own derivative out of S.
// With given statistics r is a constant and dx = g r.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/norm.hpp"

namespace norma {

/// out[place] = sum dy (factor.offset + factor) [(h - centre) r], over the elements that `index` sends to the place.
struct GradientSum {
  std::string_view name;
  Shape shape{};
  ParameterIndex index{};
  bool normalized = false;  ///< the bracket is there
  Parameter factor{};
  std::int64_t size() const { return element_count(shape); }
};

/// Special: what needs statistics (dx, normalized sums) is NaN as soon as one of the numbers that it depends on is not
///          finite, or r is 0/0; plain sums and products go by IEEE rules.
/// Zeros:   +0; those of products by IEEE rules.
/// At eps:  where max takes over (the length is eps) r is taken as 1 / length, whose derivative torch's clamp_min has
///          too; a length of 0 beside eps leaves dx = r (g - mean(g)), the derivative there.
struct Gradients {
  RowNorm forward;  ///< without residual and bias
  const Tensor* dy = nullptr;
  std::vector<GradientSum> sums{};
};

/// Calls visit(row, first, last) for the runs of columns whose elements belong to the places [begin, end), which lie in
/// one period of the index, row after row.
template <class Visit>
void for_each_run(const ParameterIndex& index, std::int64_t rows, std::int64_t cols, std::int64_t begin,
                  std::int64_t end, const Visit& visit) {
  const std::int64_t each = index.per_row == 0 ? cols / index.span : index.per_row;
  const std::int64_t first = begin % each * index.span, last = first + (end - begin) * index.span;
  const std::int64_t step = index.rows_each * index.period;
  for (std::int64_t base = begin / each * index.rows_each; base < rows; base += step)
    for (std::int64_t row = base; row < std::min(rows, base + index.rows_each); ++row) visit(row, first, last);
}

/// dx by dyadic arithmetic; every comparison is decided. Statistics::given: by affine.hpp.
std::unique_ptr<TruthSource> exact_dx(const Gradients& gradients);
/// A normalized sum: enclosures of what the groups add, of up to 4096 bits; ties are decided but for eps_place=outside
/// beside more than one root.
std::unique_ptr<TruthSource> exact_normalized_sum(const Gradients& gradients, const GradientSum& sum);

/// The same with double-double arithmetic before; null where a tensor is too wide for it.
std::unique_ptr<TruthSource> fast_dx(const Gradients& gradients);
std::unique_ptr<TruthSource> fast_normalized_sum(const Gradients& gradients, const GradientSum& sum);

/// A plain sum over a view of rows x cols: exact in both kinds, and always decided.
std::unique_ptr<TruthSource> plain_sum(const Tensor& dy, std::int64_t rows, std::int64_t cols, const GradientSum& sum,
                                       TruthKind kind);

/// dy, of x's shape.
const Tensor* read_dy(const CallReader& reader);

/// Truth of one output of these gradients: dx, or a sum by its name.
std::unique_ptr<TruthSource> gradient_truth(std::string_view norm, const Gradients& gradients, std::string_view output,
                                            TruthKind kind);
std::vector<NormOutput> gradient_outputs(const Gradients& gradients);

/// The functions of a NormDef whose calls `read` turns into gradients.
template <Gradients (*read)(const NormCall&), const std::string_view& name>
struct GradientNorm {
  static void check(const NormCall& call) { static_cast<void>(read(call)); }
  static std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
    return gradient_truth(name, read(call), output, TruthKind::mpfr);
  }
  static std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
    return gradient_truth(name, read(call), output, TruthKind::fast);
  }
  static std::vector<NormOutput> outputs_of(const NormCall& call) { return gradient_outputs(read(call)); }
};

}  // namespace norma
