// Two implementations side by side.
#include "harness/audit/compare.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "reference/exact/decide.hpp"

namespace norma {

namespace {

/// The one with fewer significant bits; of equals, the one with the smaller range.
FormatId coarser(FormatId a, FormatId b) {
  const Format &f = format_of(a), &g = format_of(b);
  if (f.precision != g.precision) return f.precision < g.precision ? a : b;
  return f.emin >= g.emin ? a : b;
}

bool same_value(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

}  // namespace

// a and b are binary64 numbers, so (a + b) / 2 is a pair of them, exactly: y lies on a's side of it or on b's.
Comparison nearer(const Element& y, double a, double b) {
  if (a == b) return Comparison::equal;
  const double sum = a / 2 + b / 2, part = sum - a / 2;
  const double rest = (a / 2 - (sum - part)) + (b / 2 - part);
  const Comparison side = compare(y, sum, rest);
  if (side == Comparison::equal || side == Comparison::undecided) return side;
  return (side == Comparison::less) == (a < b) ? Comparison::less : Comparison::greater;
}

Distance distance(const TruthSource& truth, const Tensor& a, const Tensor& b) {
  Distance d;
  d.elements = a.size();
  d.unit = coarser(a.format, b.format);
  std::vector<Enclosure> row(static_cast<std::size_t>(truth.cols()));
  double apart = 0, size = 0;
  for (std::int64_t r = 0; r < truth.rows(); ++r) {
    truth.enclose_row(r, row);
    for (std::int64_t c = 0; c < truth.cols(); ++c) {
      const Enclosure& e = row[static_cast<std::size_t>(c)];
      const std::int64_t at = r * truth.cols() + c;
      const double va = a.value(at), vb = b.value(at);
      d.equal_values += same_value(va, vb) ? 1 : 0;
      if (!std::isfinite(va) || !std::isfinite(vb) || !std::isfinite(e.hi)) continue;
      ++d.compared;
      size += e.hi * e.hi;
      const Element y{truth, r, c, e};
      switch (nearer(y, va, vb)) {
        case Comparison::less: ++d.nearer_a; break;
        case Comparison::greater: ++d.nearer_b; break;
        case Comparison::equal: ++d.as_near; break;
        case Comparison::undecided: ++d.undecided; break;
      }
      if (va == vb) continue;
      apart += (va - vb) * (va - vb);
      const double ulp = std::fabs(va - vb) / ulp_of(d.unit, binade(y, d.unit).value_or(format_of(d.unit).emin));
      if (ulp > d.max_ulp) {
        d.max_ulp = ulp;
        d.max_at = {r, c};
        d.a_there = va;
        d.b_there = vb;
        d.truth_there = e.hi;
      }
    }
  }
  d.relative_l2 = apart == 0 ? 0 : std::sqrt(apart) / std::sqrt(size);
  return d;
}

std::vector<ComparedOutput> compare_outputs(Session& session, const Case& expanded, const Tensors& a,
                                            const Tensors& b) {
  std::vector<std::string> common;
  for (const auto& [name, tensor] : a)
    if (b.contains(name)) common.push_back(name);
  if (common.empty()) throw CaseError("the two have no output in common");
  const auto is_first = [](const std::string& name) { return name == "y" || name == "dx"; };
  std::stable_sort(common.begin(), common.end(),
                   [&](const std::string& x, const std::string& y) { return is_first(x) > is_first(y); });
  std::vector<ComparedOutput> result;
  for (const std::string& name : common) {
    const Tensor &left = a.at(name), &right = b.at(name);
    if (left.shape != right.shape)
      throw CaseError(fmt::format("the first writes {} of shape {}, the second of shape {}", name,
                                  shape_text(left.shape), shape_text(right.shape)));
    const auto truth = session.truth(expanded, name);
    result.push_back({.output = name,
                      .a = measure(*truth, nullptr, nullptr, left, Overflow::ieee),
                      .b = measure(*truth, nullptr, nullptr, right, Overflow::ieee),
                      .distance = distance(*truth, left, right)});
  }
  return result;
}

}  // namespace norma
