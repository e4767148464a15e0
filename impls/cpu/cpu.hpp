// The native CPU kernels: real loops, not emulations. Their bits equal the ideal of the program they declare.
#pragma once

#include <span>

#include "impls/implementation.hpp"

namespace norma {

/// In the order of the list in cpu.cpp, which is the catalogue.
std::span<Implementation* const> cpu_implementations();

}  // namespace norma
