// norma rejudge: outputs that were kept where they were made, judged again from their bits.
#include <fmt/core.h>

#include "cli/commands.hpp"
#include "harness/run/kept.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::vector<std::string> files;
};

int rejudge(const Options& options) {
  Session session(TruthKind::fast);
  int differ = 0, failing = 0, stale = 0, agree = 0;
  for (const std::string& file : options.files) {
    const std::vector<KeptOutput> all = read_kept(file);
    if (all.empty()) throw UsageError(fmt::format("'{}' holds no outputs", file));
    for (const KeptOutput& kept : all) {
      const Rejudged again = judge_again(session, kept);
      if (again.kind == Again::agrees) ++agree;
      if (again.kind == Again::agrees && kept.verdict != "pass") {
        ++failing;
        fmt::print("{}: did not pass where it was made, nor here: {} with '{}'; {}\n", kept.verdict, kept.impl,
                   kept.case_line, again.record.verdict.reason);
      }
      if (again.kind == Again::differs) ++differ;
      if (again.kind == Again::stale) ++stale;
      if (again.kind != Again::agrees)
        fmt::print("{}: {}\n", again.kind == Again::stale ? "stale" : "differs", again.reason);
    }
  }
  fmt::print("{} outputs judged again: {} agree, {} differ, {} stale\n", agree + differ + stale, agree, differ, stale);
  return differ > 0 || failing > 0 ? 1 : 0;
}

}  // namespace

void add_rejudge(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("rejudge", "judge outputs again that norma run --outputs kept, here or elsewhere");
  command->add_option("FILE", options->files, "files of norma run --outputs")->required()->type_name("");
  command->callback([options, &outcome] { outcome.exit_code = rejudge(*options); });
}

}  // namespace norma::cli
