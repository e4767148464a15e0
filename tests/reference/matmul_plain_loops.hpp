// The loops of the certified product at one vector width: what every other width must give.
#pragma once

#include <cstddef>
#include <span>

namespace norma::test {

void plain_take_row(const float* x, std::size_t count, double* values, double* facts);
void plain_dot(std::span<const double> a, std::span<const double> b, double* words);

}  // namespace norma::test
