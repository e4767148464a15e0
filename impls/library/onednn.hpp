// oneDNN's normalizations on a CPU, in process: a library under audit.
#pragma once

#include <span>

#include "impls/implementation.hpp"

namespace norma {

/// onednn.layernorm, onednn.rmsnorm, onednn.batchnorm, onednn.groupnorm. They are listed where the library is missing
/// or too old as well; there each call is refused with the reason, and the title says it.
std::span<Implementation* const> onednn_implementations();

}  // namespace norma
