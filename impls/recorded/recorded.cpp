// Outputs made elsewhere.
#include "impls/recorded/recorded.hpp"

#include <utility>

namespace norma {

RecordedOutput::RecordedOutput(std::string name, std::string norm, Tensors outputs)
    : name_(std::move(name)), norm_(std::move(norm)), outputs_(std::move(outputs)) {}

Tensors RecordedOutput::run(const ImplCall& call) {
  const auto y = outputs_.find("y");
  if (y == outputs_.end()) {
    std::string held;
    for (const auto& [output, tensor] : outputs_) held += " " + output;
    throw ImplCrashed(name_ + " holds no output y" + (held.empty() ? std::string() : "; it holds:" + held));
  }
  const auto x = call.inputs->find("x");
  if (x != call.inputs->end() && x->second.shape != y->second.shape)
    throw ImplCrashed(name_ + " holds y of shape " + shape_text(y->second.shape) + ", but x is " +
                      shape_text(x->second.shape));
  return outputs_;
}

}  // namespace norma
