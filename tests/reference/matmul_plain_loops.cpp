// The loops of the certified product once more, compiled for one vector width only and under another name.
#define NORMA_NO_CLONES
#define matmul matmul_plain
#include "reference/certified/products/matmul_loops.cpp"  // NOLINT(bugprone-suspicious-include)
#undef matmul

#include "tests/reference/matmul_plain_loops.hpp"

namespace norma::test {

void plain_take_row(const float* x, std::size_t count, double* values, double* facts) {
  const matmul_plain::RowFacts f = matmul_plain::take_row(x, count, values);
  facts[0] = f.largest, facts[1] = f.smallest_bit, facts[2] = f.squares;
}

void plain_dot(std::span<const double> a, std::span<const double> b, double* words) {
  const matmul_plain::Dot d = matmul_plain::dot(a, b);
  words[0] = d.value.h, words[1] = d.value.l, words[2] = d.magnitude.h, words[3] = d.magnitude.l, words[4] = d.error;
}

}  // namespace norma::test
