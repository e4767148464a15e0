// What a run's figures mean, and where they were made.
#include "harness/run/context.hpp"

#include <fmt/core.h>
#include <mpfr.h>
#include <oneapi/tbb/version.h>
#include <sys/utsname.h>
#include <boost/version.hpp>

#include "harness/run/runner.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/environment.hpp"

#ifndef NORMA_VERSION
#define NORMA_VERSION "unknown"
#endif
#ifndef NORMA_COMMIT
#define NORMA_COMMIT "unknown"
#endif
#ifndef NORMA_FLAGS
#define NORMA_FLAGS ""
#endif

namespace norma {

std::string norma_version() { return NORMA_VERSION; }
std::string norma_commit() { return NORMA_COMMIT; }

nlohmann::ordered_json machine_facts() {
  utsname os{};
  uname(&os);
#if defined(__clang__)
  const std::string compiler = fmt::format("clang {}", __clang_version__);
#else
  const std::string compiler = fmt::format("gcc {}", __VERSION__);
#endif
  return {{"compiler", compiler},
          {"platform",
           {{"cpu", cpu_model()}, {"isa", cpu_extensions()}, {"os", fmt::format("{} {}", os.sysname, os.release)}}},
          {"libraries",
           {{"mpfr", mpfr_get_version()},
            {"boost", fmt::format("{}.{}.{}", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
            {"tbb", fmt::format("{}.{}", TBB_VERSION_MAJOR, TBB_VERSION_MINOR)}}}};
}

nlohmann::ordered_json gpu_facts() {
  const cuda::SideDescription d = cuda::describe(cuda::SideKind::gpu);
  nlohmann::ordered_json facts;
  for (const auto& [name, value] : {std::pair("device", d.device), {"capability", d.capability}, {"driver", d.driver},
                                    {"runtime", d.runtime}, {"compiler", d.compiler}, {"flags", d.flags}, {"code", d.code},
                                    {"problem", d.problem}})
    if (!value.empty()) facts[name] = value;
  return facts;
}

nlohmann::ordered_json run_context(std::size_t total, TruthKind truth, const RunOptions& options) {
  nlohmann::ordered_json shaken = machine_facts();
  shaken["commit"] = norma_commit();
  shaken["command"] = options.command;
  shaken["jobs"] = options.jobs;
  shaken["shard"] = fmt::format("{}/{}", options.shard.index, options.shard.count);
  return {{"schema", kSchemaVersion},
          {"kind", "context"},
          {"norma", {{"version", norma_version()}}},
          {"flags", NORMA_FLAGS},
          {"truth", kTruthKinds[static_cast<std::size_t>(truth)]},
          {"units",
           {{"ulp", "|got - exact| / ulp_F(exact), exact never rounded first; at most 0.5 if correctly rounded"},
            {"grid",
             "each ulp error is the exact value rounded to 2^-16 ulp, decided; means and squares are integer sums"}}},
          {"total", total},
          {"volatile", std::move(shaken)}};
}

}  // namespace norma
