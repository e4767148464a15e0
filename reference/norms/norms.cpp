// The catalogue of norms.
#include <array>

#include "reference/norms/norm.hpp"
#include "reference/norms/rmsnorm.hpp"

namespace norma {

namespace {
constexpr std::array<const NormDef*, 1> kNorms{&rmsnorm};
}

std::span<const NormDef* const> all_norms() { return kNorms; }

const NormDef* find_norm(std::string_view name) {
  for (const NormDef* norm : kNorms)
    if (norm->name == name) return norm;
  return nullptr;
}

}  // namespace norma
