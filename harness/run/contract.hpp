// What an output is held to: a cast path's ideal, the meaning of its code, the canonical norm; and the measuring.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/judge/criteria.hpp"
#include "reference/norms/norm.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// The program that an output is held to, and where it comes from.
struct Contract {
  Program program;
  std::string path;       ///< a catalogue name, file:my.path, or the implementation's own
  std::string profile;
  bool canonical = true;  ///< its erasure is declared to be the canonical norm
  bool named = false;     ///< the case or the implementation asks for its bits
};

/// A path of the catalogue as a contract. ProgramError if its code does not take what is bound.
Contract contract_from_catalogue(std::string_view path, const Binding& binding);

/// Outputs that the contract allows: the plain one first, then one for every value of an open choice. The plain one alone
/// where choices meet: there `measure_outputs` asks for the range (decision 0015).
std::vector<Tensors> ideals_of(const Contract& contract, const Tensors& tensors, const Attributes& attributes,
                               int threads = 1);

/// Where the truths of an output come from, by its name: made anew, or shared between checks.
struct Truths {
  std::function<std::shared_ptr<const TruthSource>(const std::string& output)> canonical;
  std::function<std::shared_ptr<const TruthSource>(const std::string& output)> erasure;
};

struct OutputOptions {
  Overflow overflow = Overflow::ieee;  ///< of outputs without a contract; a contract's steps say their own
  bool got_is_ideal = false;
  int threads = 1;
};

/// Measures every output, y first. A quantized y (call.words: quant) is measured twice: its codes against the
/// scale rule, and as "dequantized" times its scale against the norm.
/// Errors: std::invalid_argument or NormError, one sentence, for an output that the norm does not have or whose
/// shape does not fit.
std::vector<NamedMeasures> measure_outputs(const Truths& truths, const NormCall& call,
                                           const std::optional<Contract>& contract,
                                           const std::vector<Tensors>& ideals, const Tensors& got,
                                           const OutputOptions& options);

}  // namespace norma
