// How far the polynomial of function_loops.inc's tail_value is from (t + 5) m(t): a proof by Taylor models.
//
// On each piece of tail_table(), d = t - c, |d| <= w: m is its Taylor polynomial within the table's truncation. The
// polynomial's argument is z = z_c + (1 - z_c) s with s = d/(t + 5) = (d/T) - (d/T)^2 + ..., T = c + 5. Everything is
// expanded in d to kTerms terms; what is cut off is bounded by |d| <= w and kept beside. Then the difference is at most
// the sum of its coefficients' sizes times w^n and what was cut off. 113-bit arithmetic: its roundings are below 2^-90.
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch_test_macros.hpp>

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "reference/certified/functions/normal_tail.hpp"

namespace norma {
namespace {

using Quad = boost::multiprecision::cpp_bin_float_quad;

// c[0] + c[1] d + ... within `cut` for |d| <= w.
struct Model {
  static constexpr std::size_t kTerms = 14;
  std::array<Quad, kTerms> c{};
  Quad cut = 0;
};

Quad size(const Model& a, const Quad& w) {
  Quad sum = a.cut, power = 1;
  for (const Quad& c : a.c) {
    sum += abs(c) * power;
    power *= w;
  }
  return sum;
}

Model add(Model a, const Model& b, const Quad& factor) {
  for (std::size_t n = 0; n < Model::kTerms; ++n) a.c[n] += factor * b.c[n];
  a.cut += abs(factor) * b.cut;
  return a;
}

Model mul(const Model& a, const Model& b, const Quad& w) {
  Model r;
  r.cut = a.cut * size(b, w) + b.cut * size(a, w);
  std::array<Quad, 2 * Model::kTerms> power{};
  power[0] = 1;
  for (std::size_t n = 1; n < power.size(); ++n) power[n] = power[n - 1] * w;
  for (std::size_t i = 0; i < Model::kTerms; ++i)
    for (std::size_t j = 0; j < Model::kTerms; ++j) {
      const Quad product = a.c[i] * b.c[j];
      if (i + j < Model::kTerms)
        r.c[i + j] += product;
      else
        r.cut += abs(product) * power[i + j];
    }
  return r;
}

Model constant(const Quad& v) {
  Model m;
  m.c[0] = v;
  return m;
}

// The coefficients as the loops have them, lowest first: even and odd ones stand in two runs, highest first.
std::vector<double> coefficients() {
  std::ifstream file(std::string(NORMA_SOURCE_DIR) + "/reference/certified/functions/function_loops.inc");
  std::vector<double> even, odd;
  std::string line;
  while (std::getline(file, line)) {
    for (auto& [name, run] : {std::pair<std::string, std::vector<double>&>{" even = ", even}, {" odd = ", odd}}) {
      const std::size_t at = line.find(name);
      if (at != std::string::npos) run.insert(run.begin(), std::strtod(line.c_str() + at + name.size(), nullptr));
    }
  }
  REQUIRE(even.size() == 12);
  REQUIRE(odd.size() == 12);
  std::vector<double> all;
  for (std::size_t i = 0; i < even.size(); ++i) {
    all.push_back(even[i]);
    all.push_back(odd[i]);
  }
  return all;
}

TEST_CASE("the polynomial of the normal tail is within 2^-53.9 of it") {
  const std::vector<double> p = coefficients();
  const TailTable& table = tail_table();
  Quad worst = 0;
  for (std::size_t i = 0; i < table.pieces.size() && TailTable::centre(i) < 38; ++i) {
    const Quad c = TailTable::centre(i), w = Quad(TailTable::half_width(i)) * (1 + Quad(0x1p-30)), top = c + 5;
    // (t + 5) m(t)
    Model m;
    Quad left = 0, power = 1;
    for (std::size_t n = 0; n < TailTable::kTerms; ++n) {
      const Quad a = n < TailTable::kPairs ? Quad(table.pieces[i].a[n].h) + Quad(table.pieces[i].a[n].l)
                                           : Quad(table.pieces[i].rest[n - TailTable::kPairs]);
      if (n < Model::kTerms)
        m.c[n] = a;
      else
        m.cut += abs(a) * power;
      left += abs(a) * power * (n < TailTable::kPairs ? 0x1p-104 : 0x1p-52);  // coefficients are rounded
      power *= w;
    }
    m.cut += left + 2 * Quad(table.truncation) * m.c[0];
    Model shifted = constant(top);
    shifted.c[1] = 1;
    const Model target = mul(shifted, m, w);
    // z
    Model z;
    const Quad zc = (c - 5) / top;
    z.c[0] = zc;
    Quad term = (1 - zc) / top;
    for (std::size_t n = 1; n < Model::kTerms; ++n) {
      z.c[n] = term;
      term = -term / top;
    }
    z.cut = abs(term) * pow(w, static_cast<int>(Model::kTerms)) / (1 - w / top);
    Model value = constant(p.back());
    for (std::size_t n = p.size() - 1; n-- > 0;) value = add(constant(p[n]), mul(value, z, w), 1);
    const Quad missed = size(add(value, target, -1), w) / (2 * target.c[0] - size(target, w));
    if (missed > worst) worst = missed;
  }
  const double bits = std::log2(static_cast<double>(worst));
  INFO("2^" << bits);
  CHECK(bits < -53.9);
  CHECK(bits > -56);
}

}  // namespace
}  // namespace norma
