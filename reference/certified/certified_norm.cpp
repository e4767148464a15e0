// All tiers of a row norm as one truth.
#include "reference/certified/row_norm.hpp"

namespace norma {

bool has_fast_tiers(const RowNorm&) { return false; }

std::unique_ptr<TruthSource> certified_truth(const RowNorm&, std::unique_ptr<TruthSource> exact) { return exact; }

}  // namespace norma
