// The emulator against eager torch, which computes the same bits on the same cores.
#include <fmt/core.h>

#include <fstream>

#include "bench/bench.hpp"
#include "bench/ratio.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/run/check.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma::bench {

namespace {

void write_bytes(const std::string& path, const Tensor& tensor) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  if (!file) throw std::runtime_error("cannot write " + path);
}

Tensor read_bytes(const std::string& path, const Tensor& like) {
  Tensor tensor = Tensor::zeros(like.format, like.shape);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  if (!file) throw std::runtime_error("cannot read " + path);
  return tensor;
}

double share_equal(const Tensor& a, const Tensor& b) {
  std::int64_t equal = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) equal += a.code(i) == b.code(i) ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

bool bench_format(const Bench& bench, FormatId format) {
  constexpr int kRows = 4096, kCols = 3072;
  const std::string_view name = name_of(format);
  const Case expanded = expand_defaults(parse_case(
      fmt::format("rmsnorm {} {}x{} path=transformers.llama.rmsnorm profile=torch_cpu eps=1e-6", name, kRows, kCols)));
  const Tensors inputs = make_inputs(expanded, bench.threads);
  const CaseAttributes attributes = attributes_of(expanded);
  const Program program = contract_of(expanded, inputs, nullptr)->program;
  const auto emulated = [&] {
    return emulate(program, inputs, attributes.numbers, {.nudge_ulp = 0, .threads = bench.threads});
  };

  const auto file = [&](std::string_view tensor) { return fmt::format("{}/{}.{}", bench.folder, tensor, name); };
  write_bytes(file("x"), inputs.at("x"));
  write_bytes(file("weight"), inputs.at("weight"));
  bench.torch->prepare(fmt::format("rmsnorm threads={} format={} rows={} cols={} eps=1e-6 x={} weight={} y={}",
                                   bench.threads, name, kRows, kCols, file("x"), file("weight"), file("y")));
  const Tensor ours = emulated().at("y");
  const double equal = share_equal(ours, read_bytes(file("y"), ours));

  bench.report(measure_ratio(
      {.name = fmt::format("emulate.{}", name),
       .peer = bench.torch->name() + " eager",
       .work = fmt::format("transformers.llama.rmsnorm {} {}x{} on {} threads, equal bits {:.6f}", name, kRows, kCols,
                           bench.threads, equal),
       .goal = format == FormatId::bf16 ? std::optional(0.5) : std::nullopt},
      timed(emulated), [&] { return bench.torch->run(); }, bench.pairs(24)));
  if (equal == 1) return true;
  bench.say(fmt::format("emulate.{} and {} agree on {:.6f} of the bits only: they did not do the same work", name,
                        bench.torch->name(), equal));
  return false;
}

}  // namespace

bool bench_emulate(const Bench& bench) {
  if (bench.torch == nullptr) return true;
  bool right = true;
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32})
    right = bench_format(bench, format) && right;
  return right;
}

}  // namespace norma::bench
