// Shapes as text.
#include "reference/formats/tensor.hpp"

namespace norma {

std::string shape_text(const Shape& shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i == 0 ? "" : "x") + std::to_string(shape[i]);
  return text;
}

}  // namespace norma
