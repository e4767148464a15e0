// norma: how far is this normalization, as it is really computed, from the mathematics?
#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/commands.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/judge/baseline.hpp"
#include "harness/run/context.hpp"
#include "reference/formats/environment.hpp"

namespace {

constexpr int kBadUsage = 2;

int refuse(const std::string& sentence) {
  fmt::print(stderr, "norma: {}\n", sentence);
  return kBadUsage;
}

/// The first word where a command should stand, if it is none; empty: it is one, or an option.
std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  std::string known;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == argv[1]) return "";
    known += " " + command->get_name();
  }
  return fmt::format("unknown command '{}'; known:{}", argv[1], known);
}

/// What was printed has left, or the exit code says that it did not.
int flushed(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  return refuse(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace norma;
  if (const std::string fault = floating_point_fault(); !fault.empty()) return refuse(fault);
  cli::catch_interrupts();

  CLI::App app("norma: how exact is this normalization, as it is really computed? Every element is judged twice:\n"
               "against the mathematics (a certified enclosure) and against the bits of its declared cast path.\n"
               "Exit codes: 0 all pass, 1 a check or gate failed, 2 bad usage or input, 3 an implementation crashed,\n"
               "130 interrupted.",
               "norma");
  app.set_version_flag("--version", fmt::format("norma {} ({})", norma_version(), norma_commit()));
  app.require_subcommand(1);
  cli::Outcome outcome;
  outcome.command_line.assign(argv + 1, argv + argc);
  cli::add_check(app, outcome);
  cli::add_audit(app, outcome);
  cli::add_compare(app, outcome);
  cli::add_run(app, outcome);
  cli::add_eval(app, outcome);
  cli::add_explain(app, outcome);
  cli::add_gate(app, outcome);
  cli::add_accept(app, outcome);
  cli::add_report(app, outcome);
  cli::add_merge(app, outcome);
  cli::add_rejudge(app, outcome);
  cli::add_list(app, outcome);
  if (const std::string word = unknown_command(app, argc, argv); !word.empty()) return refuse(word);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return flushed(app.exit(e));
    return refuse(fmt::format("{} ('norma --help', 'norma COMMAND --help')", e.what()));
  } catch (const cli::UsageError& e) {
    return refuse(e.what());
  } catch (const CaseError& e) {
    return refuse(e.what());
  } catch (const ProgramError& e) {
    return refuse(e.what());
  } catch (const NormError& e) {
    return refuse(e.what());
  } catch (const SafetensorsError& e) {
    return refuse(e.what());
  } catch (const CriterionError& e) {
    return refuse(e.what());
  } catch (const GateError& e) {
    return refuse(e.what());
  } catch (const RunError& e) {
    return refuse(e.what());
  } catch (const ImplSkipped& e) {
    return refuse(e.what());
  } catch (const ImplCrashed& e) {
    fmt::print(stderr, "norma: {}\n", e.what());
    return 3;
  } catch (const std::invalid_argument& e) {
    return refuse(e.what());
  } catch (const std::bad_alloc&) {
    return refuse("out of memory; use fewer rows or smaller --jobs");
  } catch (const std::system_error& e) {
    return refuse(e.what());  // standard output that cannot be written, among others
  } catch (const nlohmann::json::exception& e) {
    return refuse(fmt::format("a file or argument holds what JSON cannot: {}", e.what()));
  }
  return flushed(outcome.exit_code);
}
