// norma: how far is this normalization, as it is really computed, from the mathematics?
#include <CLI/CLI.hpp>
#include <fmt/core.h>

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
  cli::add_run(app, outcome);
  cli::add_eval(app, outcome);
  cli::add_explain(app, outcome);
  cli::add_gate(app, outcome);
  cli::add_accept(app, outcome);
  cli::add_report(app, outcome);
  cli::add_merge(app, outcome);
  cli::add_list(app, outcome);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
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
  }
  return outcome.exit_code;
}
