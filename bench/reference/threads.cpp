// Two threads against one; and what memory gains, which bounds a streamed norm.
#include <fmt/core.h>

#include <thread>

#include "bench/reference/norm_work.hpp"
#include "bench/reference/reference.hpp"

namespace norma::bench {

namespace {

/// `work` on both halves of `words`, the second half by a thread of its own if there are two.
template <class Work>
void in_parts(std::size_t words, int threads, Work work) {
  if (threads == 1) return work(0, words);
  std::jthread other([&] { work(words / 2, words - words / 2); });
  work(0, words / 2);
}

/// Reading 100 MB and writing as much, as a norm bf16 to bf16 does; and reading alone.
void bandwidth(const Bench& bench, Shared& shared) {
  const auto* from = reinterpret_cast<const std::uint64_t*>(shared.stream(FormatId::bf16).bytes.data());
  auto* to = reinterpret_cast<std::uint64_t*>(shared.output());
  constexpr std::size_t kWords = static_cast<std::size_t>(kStream) * 2 / sizeof(std::uint64_t);
  const auto copy = [&](int threads) {
    return timed([=] {
      in_parts(kWords, threads,
               [=](std::size_t first, std::size_t count) { plain_loops().copy(from + first, to + first, count); });
      return 0;
    });
  };
  const auto read = [&](int threads) {
    return timed([=] {
      std::uint64_t total = 0;
      in_parts(kWords, threads, [&](std::size_t first, std::size_t count) {
        const std::uint64_t part = plain_loops().read(from + first, count);
        __atomic_fetch_add(&total, part, __ATOMIC_RELAXED);
      });
      return total;
    });
  };
  constexpr double kBytes = static_cast<double>(kWords) * 8e-9;
  for (const bool writes : {true, false}) {
    const std::string name = writes ? "threads.memory.copy" : "threads.memory.read";
    if (!bench.wants(name)) continue;
    const auto side = [&](int threads) { return writes ? copy(threads) : read(threads); };
    side(1)();
    const double alone = std::min(side(1)(), side(1)());
    bench.report(measure_ratio(
        {.name = name,
         .peer = "the same on 1 thread",
         .work = fmt::format("{:.0f} MB {} on 2 threads; one moves {:.1f} GB/s", 1e3 * kBytes * (writes ? 2 : 1),
                             writes ? "read and written in equal parts" : "read", kBytes * (writes ? 2 : 1) / alone)},
        side(2), side(1), bench.pairs(15)));
  }
}

}  // namespace

bool bench_threads(const Bench& bench, Shared& shared) {
  if (bench.threads < 2) {
    bench.say("left out what two threads gain: there is one");
    return true;
  }
  for (const bool stream : {false, true}) {
    for (const char* norm : {"rmsnorm", "layernorm"}) {
      const std::string name = fmt::format("threads.{}.bf16-fp32.{}", norm, stream ? "stream" : "hot");
      if (!bench.wants(name) || (bench.quick && stream)) continue;
      const NormShape shape{.norm = norm, .rows = (stream ? kStream : kHot) / 3072, .cols = 3072};
      const Tensor hot = stream ? Tensor{} : normal_tensor(shape.in, {shape.rows, shape.cols}, 0, 1, 1);
      const NormWork work(shape, stream ? shared.stream(shape.in) : hot);
      const auto on = [&](int threads) {
        return timed([&, threads] {
          TierCounts tiers;
          for (int i = 0; i < (stream ? 1 : 16); ++i)
            tiers += round_rows(work.problem(), work.exact(), shape.out, Overflow::ieee, shared.output(), threads);
          return tiers;
        });
      };
      bench.report(measure_ratio({.name = name,
                                  .peer = "the same on 1 thread",
                                  .work = fmt::format("{} on 2 threads", shape.text()),
                                  .goal = stream ? std::nullopt : std::optional(1 / 1.8)},
                                 on(2), on(1), bench.pairs(stream ? 9 : 25)));
    }
  }
  bandwidth(bench, shared);
  return true;
}

}  // namespace norma::bench
