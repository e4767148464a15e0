// What a truth does that has only one way to enclose.
#include "reference/exact/enclosure.hpp"

#include <algorithm>
#include <cmath>

namespace norma {

Enclosure TruthSource::enclose(std::int64_t row, std::int64_t col) const {
  std::vector<Enclosure> all(static_cast<std::size_t>(cols()));
  enclose_row(row, all);
  return all[static_cast<std::size_t>(col)];
}

Tier TruthSource::enclose_quick(std::int64_t row, const QuickRow& out) const {
  std::vector<Enclosure> all(static_cast<std::size_t>(cols()));
  enclose_row(row, all);
  return quick_from(all, out);
}

Tier quick_from(std::span<const Enclosure> enclosures, const QuickRow& out) {
  Tier slowest = Tier::binary64;
  for (std::size_t j = 0; j < enclosures.size(); ++j) {
    const Enclosure& e = enclosures[j];
    slowest = std::max(slowest, e.tier);
    out.mid[j] = e.hi;
    // |y - hi| <= radius + |lo|, the sum rounded up.
    out.radius[j] = std::isfinite(e.hi) ? (e.radius + std::fabs(e.lo)) * (1 + 0x1p-52) : 0;
    out.magnitude[j] = e.magnitude;
  }
  return slowest;
}

}  // namespace norma
