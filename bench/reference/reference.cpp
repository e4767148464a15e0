// The certified reference against what people use now.
#include "bench/reference/reference.hpp"

#include <fmt/core.h>

#include "bench/reference/plain.hpp"

namespace norma::bench {

const Tensor& Shared::stream(FormatId format) {
  std::optional<Tensor>& tensor = format == FormatId::bf16 ? bf16_ : fp32_;
  if (!tensor) tensor = normal_tensor(format, {kStream}, 0, 1, 1, threads_);
  return *tensor;
}

std::byte* Shared::output() {
  if (!output_) output_.emplace(static_cast<std::size_t>(kStream) * sizeof(float));
  return output_->data();
}

bool bench_reference(const Bench& bench) {
  const PlainLoops& plain = plain_loops();
  bench.say(fmt::format("the plain binary64 peer runs as {}{}", plain.level,
                        plain.vector_library ? ", with the C library's vector functions" : ""));
#ifndef NORMA_BENCH_QUADMATH
  bench.say("left out what is measured against __float128: this compiler has no libquadmath");
#endif
#ifndef NORMA_BENCH_ARB
  bench.say("left out what is measured against Arb: libflint-arb-dev (libflint-dev) was not there at build time");
#endif
  Shared shared(bench.threads);
  bool right = bench_norms(bench, shared);
  right = bench_scores(bench, shared) && right;
  right = bench_peers(bench, shared) && right;
  right = bench_cliffs(bench) && right;
  right = bench_threads(bench, shared) && right;
  right = bench_functions(bench) && right;
  right = bench_matmul(bench) && right;
  right = bench_programs(bench) && right;
  right = bench_memory(bench) && right;
  return right;
}

}  // namespace norma::bench
