// The commands of norma: each file adds one to the program. No numerics here.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/support.hpp"

namespace norma::cli {

void add_check(CLI::App& app, Outcome& outcome);
void add_audit(CLI::App& app, Outcome& outcome);
void add_compare(CLI::App& app, Outcome& outcome);
void add_run(CLI::App& app, Outcome& outcome);
void add_eval(CLI::App& app, Outcome& outcome);
void add_explain(CLI::App& app, Outcome& outcome);
void add_gate(CLI::App& app, Outcome& outcome);
void add_accept(CLI::App& app, Outcome& outcome);
void add_report(CLI::App& app, Outcome& outcome);
void add_merge(CLI::App& app, Outcome& outcome);
void add_rejudge(CLI::App& app, Outcome& outcome);
void add_list(CLI::App& app, Outcome& outcome);

}  // namespace norma::cli
