// What an implementation is: anything that takes bits in and gives bits out.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// One call, as an implementation sees it: tensors in their real formats, numbers (eps, ...) exactly, words
/// (eps_place=inside, ...), and the path and profile the case names (empty: none).
struct ImplCall {
  std::string norm;
  const Tensors* inputs = nullptr;
  Attributes numbers;
  std::map<std::string, std::string, std::less<>> words;
  std::string path;
  std::string profile;
};

/// It crashed, hung, or wrote nothing: the run goes on and its record says so.
struct ImplCrashed : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// It refuses this call in its own words: the record is a skip with that reason.
struct ImplSkipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The contract an implementation declares: the cast path and the profile under which its bits equal that
/// path's ideal. `claim_ulp`: its own bound on |got - exact| in ulp of the output, for the call; none: no claim.
struct Declaration {
  std::string path;
  std::string profile;
  std::optional<double> claim_ulp;
};

class Implementation {
 public:
  virtual ~Implementation() = default;
  virtual std::string name() const = 0;
  virtual std::string title() const = 0;
  virtual bool accepts_norm(std::string_view norm) const = 0;
  virtual Declaration declares(const ImplCall& call) const = 0;
  /// The contract written out, where it is no path of the catalogue: conformance is then judged against this
  /// program's ideal. None: what `declares` names. Throws ImplSkipped as `run` does.
  virtual std::optional<Program> declared_program(const ImplCall&) const { return std::nullopt; }
  /// Outputs by name (y, residual, scale). Throws ImplSkipped or ImplCrashed. Thread-safe.
  virtual Tensors run(const ImplCall& call) = 0;
};

}  // namespace norma
