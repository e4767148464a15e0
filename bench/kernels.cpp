// The native kernels against torch's own CPU kernels of the same norm, tensors and storage, one thread each.
#include <fmt/core.h>

#include <fstream>

#include "bench/bench.hpp"
#include "bench/ratio.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/run/session.hpp"

namespace norma::bench {

namespace {

/// The case says the tensors, the kernels do the same work on them, the peer's job is its norm.
struct Work {
  std::string text;
  std::vector<std::string> kernels;
};

const std::vector<Work> kWork{
    {"layernorm {} 4096x1024 weight.input=weight_normal bias.input=small_normal",
     {"layernorm.two_pass", "layernorm.welford", "layernorm.one_pass", "layernorm.two_pass_double"}},
    {"groupnorm {} 8x128x64x64 weight.input=weight_normal bias.input=small_normal",
     {"groupnorm.two_pass", "groupnorm.two_pass.alpha_beta", "groupnorm.channels_last.two_pass"}},
    {"batchnorm {} 8x128x64x64 weight.input=weight_normal bias.input=small_normal", {"batchnorm.train.two_pass"}},
    {"batchnorm {} 8x128x64x64 statistics=running weight.input=weight_normal bias.input=small_normal "
     "running_mean.input=small_normal running_var.input=variance_uniform",
     {"batchnorm.eval", "batchnorm.eval.alpha_beta"}},
    {"modulate {} 4x1024x1024 shift.input=small_normal scale.shape=4x1x1024 shift.shape=4x1x1024",
     {"modulate.eager", "modulate.fused"}},
    {"gated_residual {} 4x1024x1024 gate.shape=4x1x1024", {"gated_residual.eager", "gated_residual.fused"}},
};

std::string peer_job(const Bench& bench, const Case& expanded, const Tensors& inputs) {
  const CaseAttributes attributes = attributes_of(expanded);
  std::string job = fmt::format("kernel threads=1 format={} norm={}", name_of(expanded.format), expanded.norm);
  for (const auto& [name, value] : attributes.numbers) job += fmt::format(" {}={}", name, value);
  for (const auto& [name, word] : attributes.words) job += fmt::format(" {}={}", name, word);
  for (const auto& [name, tensor] : inputs) {
    const std::string file = fmt::format("{}/kernel.{}", bench.folder, name);
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
    job += fmt::format(" tensor.{}={}:{}", name, shape_text(tensor.shape), file);
  }
  return job;
}

void bench_work(const Bench& bench, const Work& work, FormatId format) {
  const Case expanded = expand_defaults(parse_case(fmt::format(fmt::runtime(work.text), name_of(format))));
  const Tensors inputs = make_inputs(expanded, bench.threads);
  const CaseAttributes attributes = attributes_of(expanded);
  const ImplCall call{.norm = expanded.norm,
                      .inputs = &inputs,
                      .numbers = attributes.numbers,
                      .words = attributes.words,
                      .path = "",
                      .profile = ""};
  bench.torch->prepare(peer_job(bench, expanded, inputs));
  for (const std::string& name : work.kernels)
    for (Implementation* kernel : builtin_implementations()) {
      if (kernel->name() != "cpu." + name) continue;
      bench.report(measure_ratio(
          {.name = fmt::format("kernel.{}.{}", name, name_of(format)),
           .peer = bench.torch->name(),
           .work =
               fmt::format("{} {} {} on 1 thread", expanded.norm, name_of(format), shape_text(inputs.at("x").shape))},
          timed([&] { return kernel->run(call); }), [&] { return bench.torch->run(); }, bench.pairs(12)));
    }
}

}  // namespace

bool bench_kernels(const Bench& bench) {
  if (bench.torch == nullptr) return true;
  for (const Work& work : kWork)
    for (const FormatId format : {FormatId::fp32, FormatId::bf16})
      if (!bench.quick || format == FormatId::bf16) bench_work(bench, work, format);
  return true;
}

}  // namespace norma::bench
