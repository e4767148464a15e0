// The generic evaluator of programs, and all figures of an output, with and without the fast tiers.
#include <fmt/core.h>

#include <functional>

#include "bench/ratio.hpp"
#include "bench/reference/reference.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/metrics/measures.hpp"
#include "harness/run/check.hpp"
#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma::bench {

namespace {

/// A case at hand: its tensors, contract and ideal output.
struct Ready {
  Case expanded;
  Tensors inputs;
  Contract contract;
  Tensor got;
};

Ready ready(const std::string& line, int threads) {
  Ready r{.expanded = expand_defaults(parse_case(line)), .inputs = {}, .contract = {}, .got = {}};
  r.inputs = make_inputs(r.expanded, threads);
  r.contract = *contract_of(r.expanded, r.inputs, nullptr);
  r.got = ideals_of(r.contract, r.inputs, attributes_of(r.expanded).numbers).front().at("y");
  return r;
}

void enclose_rows(const TruthSource& truth, std::int64_t rows, std::vector<Enclosure>& row) {
  for (std::int64_t r = 0; r < rows; ++r) truth.enclose_row(r, row);
}

/// Erasures of cast paths: every element enclosed to 2^-80, against MPFR.
void programs(const Bench& bench) {
  struct Line {
    const char* name;
    const char* text;
    std::int64_t slow_rows;
  };
  constexpr std::int64_t kRows = 256;
  const Line lines[] = {
      {"program.llama_rmsnorm", "rmsnorm bf16 256x3072 path=transformers.llama.rmsnorm profile=torch_cpu eps=1e-6", 2},
      {"program.gemma_rmsnorm", "rmsnorm bf16 256x3072 path=transformers.gemma.rmsnorm eps=1e-6", 2},
  };
  for (const Line& line : lines) {
    if (!bench.wants(line.name) || (bench.quick && &line != lines)) continue;
    try {
      const Ready r = ready(line.text, bench.threads);
      const Attributes numbers = attributes_of(r.expanded).numbers;
      const auto fast = certified_program_truth(r.contract.program, r.inputs, numbers, "y");
      const auto slow = program_truth(r.contract.program, r.inputs, numbers, "y");
      std::vector<Enclosure> row(static_cast<std::size_t>(fast->cols()));
      const auto run = [&](const TruthSource& truth, std::int64_t rows) {
        return timed_alone([&, rows] {
          enclose_rows(truth, rows, row);
          return 0;
        });
      };
      const auto cols = static_cast<double>(fast->cols());
      bench.report(measure_ratio({.name = line.name,
                                  .peer = "the same program in MPFR",
                                  .work = fmt::format("{} on 1 thread: every element enclosed; the peer does {} rows",
                                                      line.text, line.slow_rows),
                                  .our_elements = static_cast<double>(kRows) * cols,
                                  .peer_elements = static_cast<double>(line.slow_rows) * cols,
                                  .alone = true},
                                 run(*fast, kRows), run(*slow, line.slow_rows), bench.pairs(8)));
    } catch (const std::exception& e) {
      bench.say(fmt::format("left out {}: {}", line.name, e.what()));
    }
  }
}

/// All figures of an output, errors rounded to 2^-16 ulp and decided: by all tiers, and by MPFR alone.
void measures(const Bench& bench) {
  for (const char* format : {"bf16", "fp32"}) {
    const std::string name = fmt::format("measure.rmsnorm.{}", format);
    if (!bench.wants(name) || (bench.quick && std::string_view(format) != "bf16")) continue;
    constexpr std::int64_t kRows = 256, kSlowRows = 8;
    const auto line = [&](std::int64_t rows) {
      return fmt::format("rmsnorm {} {}x3072 path=transformers.llama.rmsnorm profile=torch_cpu eps=1e-6", format, rows);
    };
    const Ready all = ready(line(kRows), bench.threads), few = ready(line(kSlowRows), bench.threads);
    const auto side = [](const Ready& r, TruthKind kind) {
      return timed_alone([&r, kind] {
        const NormCall call = norm_call(r.expanded, r.inputs);
        const auto truth = truth_of(norm_of(r.expanded), call, "y", kind);
        return measure(*truth, nullptr, &r.got, r.got, Overflow::ieee);
      });
    };
    const auto elements = [](std::int64_t rows) { return static_cast<double>(rows) * 3072; };
    bench.report(measure_ratio(
        {.name = name,
         .peer = "the same figures from MPFR",
         .work = fmt::format("{} on 1 thread, ideal at hand; the peer does {} rows", line(kRows), kSlowRows),
         .our_elements = elements(kRows),
         .peer_elements = elements(kSlowRows),
         .alone = true},
        side(all, TruthKind::fast), side(few, TruthKind::mpfr), bench.pairs(8)));
  }
}

}  // namespace

bool bench_programs(const Bench& bench) {
  programs(bench);
  measures(bench);
  return true;
}

}  // namespace norma::bench
