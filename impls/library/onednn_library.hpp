// oneDNN, loaded when first needed: one forward normalization on its CPU engine.
#pragma once

#include <optional>
#include <string>

#include "reference/formats/tensor.hpp"

namespace norma {

enum class OneDnnKind { layer, rms, batch, group };

/// One call of a normalization primitive. Parameters and statistics are fp32, a value a channel (a column for layer
/// and rms); null: none.
struct OneDnnCall {
  OneDnnKind kind = OneDnnKind::layer;
  const Tensor* x = nullptr;  ///< in plain row-major order
  Shape dims;                 ///< x's sides as oneDNN gets them
  float eps = 0;
  std::int64_t groups = 1;  ///< group
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;
  const Tensor* mean = nullptr;  ///< batch, in evaluation: both or none
  const Tensor* variance = nullptr;
};

/// Whether the library is there.
struct OneDnnState {
  std::string version;  ///< "2.6.3"; empty: it is not there
  std::string missing;  ///< why not, as a clause: "norma was built without dnnl.h (apt-get install libdnnl-dev)"
};
const OneDnnState& onednn_state();

/// The library has this primitive: group normalization came with 3.3, the flag for RMSNorm with 3.9.
bool onednn_has(OneDnnKind kind);

/// The library's name of the kernel that it would take: "simple_layer_normalization:any". None: it refuses the call.
std::optional<std::string> onednn_kernel(const OneDnnCall& call);

/// y, in x's format, by one thread. ImplSkipped with the library's status for a call that it does not take.
Tensor onednn_run(const OneDnnCall& call);

}  // namespace norma
