// Blocks over the reals: what every site of a graph gives, as balls.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "reference/certified/products/ball_matmul.hpp"
#include "reference/program/graph.hpp"

namespace norma {

/// A tensor of real numbers: exactly those of a tensor, or balls.
struct RealTensor {
  Shape shape;
  std::shared_ptr<const Tensor> exact{};
  std::shared_ptr<const BallTensor> balls{};

  std::int64_t size() const { return element_count(shape); }
  Ball at(std::int64_t i) const;
};
/// The numbers of a tensor of the caller's, which must outlive it.
RealTensor exactly(const Tensor& tensor);

/// Balls without their radii: no proof goes further.
RealTensor midpoints(const RealTensor& x);

struct RealOptions {
  int slices = kQuickSlices;  ///< of products (ball_matmul.hpp)
  int threads = 1;
};

/// What a site means, its roundings ignored, for arguments in the site's order. One for each result.
///
/// A radius covers what the arguments' balls allow and what was rounded here; where it is infinite nothing is known
/// (arguments that are not finite; a root or quotient of a ball around 0; beyond 2^+-400).
std::vector<RealTensor> evaluate_site(const Site& site, const std::vector<RealTensor>& arguments, const RealOptions& options);

/// Every value of a graph, by name; of sites before the last that uses it only those that `keep` names are kept (all, if
/// there is no `keep`). Errors: ProgramError naming an input that is missing or has another shape.
using RealTensors = std::map<std::string, RealTensor, std::less<>>;
RealTensors evaluate_graph(const Graph& graph, const Tensors& inputs, const RealOptions& options,
                           const std::function<bool(const std::string&)>& keep = {});

/// Throws ProgramError naming the first input that is missing, has another shape, or (`formats`) another format, or that
/// the block does not have.
void check_inputs(const Graph& graph, const Tensors& inputs, bool formats);

}  // namespace norma
