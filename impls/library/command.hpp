// cmd:"python kernel.py": any program in any language as an implementation, in a process of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "impls/implementation.hpp"

namespace norma {

/// How tensors reach the other process. Passed in, because files are not known at this level.
struct CommandFiles {
  /// Writes tensors in eval's layout, formats that safetensors lacks included.
  std::function<void(const std::string& path, const Tensors& tensors)> write;
  /// Reads them back; throws std::exception with a sentence if the file is missing or malformed.
  std::function<Tensors(const std::string& path)> read;
};

/// A command that is started once, by /bin/sh -c, in a process group of its own. For each call it gets one line
/// of JSON on its standard input,
///
///   {"norm":"rmsnorm","in":"/tmp/norma-x/in.safetensors","out":"/tmp/norma-x/out.safetensors","eps":1e-06}
///
/// with every number and word of the call beside norm, in and out (path and profile where the case names them),
/// writes its outputs to `out` by name, and answers one line on its standard output:
///
///   ok                      the outputs are in `out`
///   error TEXT              ImplCrashed with TEXT; the process lives on
///   error unsupported TEXT  ImplSkipped: it does not do such a call
///
/// Its standard error is its own; the last line is quoted when it fails. A time-out, an exit, another answer or
/// an `out` that cannot be read is ImplCrashed, the whole process group is killed, and the next call starts it
/// afresh. Calls wait for one another. Destruction closes its input, waits a second, and kills what is left.
class CommandImplementation final : public Implementation {
 public:
  CommandImplementation(std::string command, CommandFiles files, double timeout_s = 60);
  ~CommandImplementation() override;
  CommandImplementation(const CommandImplementation&) = delete;
  CommandImplementation& operator=(const CommandImplementation&) = delete;

  std::string name() const override;  ///< cmd:COMMAND
  std::string title() const override { return "an external command"; }
  bool accepts_norm(std::string_view) const override { return true; }
  Declaration declares(const ImplCall&) const override { return {}; }
  Tensors run(const ImplCall& call) override;

 private:
  class Process;
  std::unique_ptr<Process> process_;
  std::string command_;
};

}  // namespace norma
