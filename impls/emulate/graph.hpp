// Bit-exact evaluation of a block: what each site of a graph stores.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "impls/emulate/emulate.hpp"
#include "reference/program/graph.hpp"

namespace norma {

/// What a site stores, one tensor a result, for arguments in the site's order, in the graph's formats.
/// Errors: ProgramError where the site gives real numbers (no format), or its order is none that products have.
std::vector<Tensor> emulate_site(const Site& site, const std::vector<const Tensor*>& arguments,
                                 const EmulateOptions& options = {});

/// Every value of the graph by name; of those that no `keep` names, none after its last use (all, if there is no `keep`).
Tensors emulate_graph(const Graph& graph, const Tensors& inputs, const EmulateOptions& options = {},
                      const std::function<bool(const std::string&)>& keep = {});

}  // namespace norma
