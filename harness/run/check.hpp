// The way data flows, for one case and one implementation: one function an arrow, in this order.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/judge/record.hpp"
#include "harness/run/contract.hpp"
#include "harness/run/session.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// One check to make. `value` is expanded (harness/inputs/inputs.hpp).
struct CheckJob {
  std::int64_t ordinal = 0;
  Case value;
  std::string impl;                 ///< as the command line writes it
  std::vector<Criterion> limits{};  ///< all must hold; none: what the contract asks for
  std::string no_worse_than{};      ///< a path whose max and rms error bound this output's
  std::string repro{};              ///< how to repeat it; empty: norma run CASE --impl IMPL
  std::shared_ptr<Implementation> instead{};  ///< called for the one that `impl` names
};

/// What formats, tensors and attributes a case binds a program to.
Binding binding_of(const Case& expanded, const Tensors& tensors);
/// The contract of a case: its path, else what the implementation declares, else none. CaseError or ProgramError
/// with one sentence if there is no such path or the code does not take these tensors.
std::optional<Contract> contract_of(const Case& expanded, const Tensors& tensors, Implementation* implementation);
/// What an implementation (as the command line writes it) makes of a case; a path is emulated under the case's profile if
/// it has that one. Throws ProgramError or ImplSkipped where it does not take such tensors, ImplCrashed.
Tensors made_by(Session& session, const Case& expanded, const std::string& impl);
/// Makes the check. A crash, a skip, an output of the wrong shape are records, not exceptions.
Record check(Session& session, const CheckJob& job);

/// "rmsnorm bf16 ... --impl path:X" as one would paste it.
std::string repro_line(const CheckJob& job);

/// measure_outputs with the session's truths.
std::vector<NamedMeasures> measure_outputs(Session& session, const Case& expanded, const std::optional<Contract>& contract,
                                           const std::vector<Tensors>& ideals, const Tensors& got, bool got_is_ideal);

}  // namespace norma
