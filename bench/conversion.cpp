// fp32 to narrow storage against memcpy of as many bytes, and against torch's .to().
#include <fmt/core.h>

#include <cstring>
#include <fstream>

#include "bench/bench.hpp"
#include "bench/ratio.hpp"
#include "harness/inputs/inputs.hpp"
#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

/// Floor: a value is read (4 bytes) and a code written (1 or 2), 5 or 6 bytes an element that memory has to move;
/// memcpy of half of those bytes moves as many. In the second cache, where rows are converted, 16 lanes of AVX-512
/// do the some 15 integer operations of a rounding in 8 cycles: 0.2 ns an element.
constexpr std::size_t kRow = 3072, kRows = 4096;

struct Buffers {
  std::vector<float> values;
  std::vector<std::byte> stored;
};

Buffers make_buffers(int threads) {
  const Tensors inputs = make_inputs(parse_case(fmt::format("rmsnorm fp32 {}x{}", kRows, kRow)), threads);
  Buffers b{.values = std::vector<float>(kRows * kRow), .stored = std::vector<std::byte>(kRows * kRow * 4)};
  std::memcpy(b.values.data(), inputs.at("x").bytes.data(), b.values.size() * sizeof(float));
  return b;
}

/// One row that stays in the first caches, again and again: what the arithmetic costs.
void in_cache(const Bench& bench, Buffers& b, FormatId format) {
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  const std::size_t bytes = kRow * (sizeof(float) + width) / 2;
  constexpr int kTimes = 2000;
  std::vector<std::byte> copy(bytes);
  const auto encode = [&] {
    for (int i = 0; i < kTimes; ++i) encode_row(format, b.values.data(), b.stored.data(), kRow, Overflow::ieee);
    return 0;
  };
  const auto memcpy_row = [&] {
    for (int i = 0; i < kTimes; ++i) {
      std::memcpy(copy.data(), b.values.data(), bytes);
      asm volatile("" : : "r"(copy.data()) : "memory");  // the copy is used
    }
    return 0;
  };
  bench.report(
      measure_ratio({.name = fmt::format("encode.{}.row", name_of(format)),
                     .peer = "memcpy",
                     .work = fmt::format("{} rows of {} fp32 values, always the same, to {} on 1 thread; memcpy "
                                         "moves as many bytes",
                                         kTimes, kRow, name_of(format))},
                    timed(encode), timed(memcpy_row), bench.pairs(40)));
}

/// A tensor larger than the caches.
void in_memory(const Bench& bench, Buffers& b, FormatId format) {
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  const std::size_t bytes = kRows * kRow * (sizeof(float) + width) / 2;
  std::vector<std::byte> copy(bytes);
  const auto encode = [&] {
    for (std::size_t row = 0; row < kRows; ++row)
      encode_row(format, b.values.data() + row * kRow, b.stored.data() + row * kRow * width, kRow, Overflow::ieee);
    return 0;
  };
  const auto memcpy_all = [&] {
    std::memcpy(copy.data(), b.values.data(), bytes);
    asm volatile("" : : "r"(copy.data()) : "memory");
    return 0;
  };
  bench.report(measure_ratio(
      {.name = fmt::format("encode.{}.tensor", name_of(format)),
       .peer = "memcpy",
       .work = fmt::format("{}x{} fp32 to {} on 1 thread; memcpy moves as many bytes", kRows, kRow, name_of(format))},
      timed(encode), timed(memcpy_all), bench.pairs(24)));
}

/// torch's own conversion of the same tensor; a version without the format is no peer.
void against_torch(const Bench& bench, Buffers& b, FormatId format) {
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  const std::string file = bench.folder + "/values";
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(b.values.data()),
             static_cast<std::streamsize>(b.values.size() * sizeof(float)));
  try {
    bench.torch->prepare(
        fmt::format("convert threads=1 format={} count={} x={}", name_of(format), b.values.size(), file));
  } catch (const PeerError& e) {
    bench.say(fmt::format("left out encode.{}.torch: {}", name_of(format), e.what()));
    return;
  }
  const auto encode = [&] {
    for (std::size_t row = 0; row < kRows; ++row)
      encode_row(format, b.values.data() + row * kRow, b.stored.data() + row * kRow * width, kRow, Overflow::ieee);
    return 0;
  };
  bench.report(measure_ratio(
      {.name = fmt::format("encode.{}.torch", name_of(format)),
       .peer = bench.torch->name() + " .to()",
       .work = fmt::format("{}x{} fp32 to {} on 1 thread", kRows, kRow, name_of(format))},
      timed(encode), [&] { return bench.torch->run(); }, bench.pairs(24)));
}

}  // namespace

bool bench_conversion(const Bench& bench) {
  Buffers b = make_buffers(bench.threads);
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
    in_cache(bench, b, format);
    in_memory(bench, b, format);
    if (bench.torch != nullptr) against_torch(bench, b, format);
  }
  return true;
}

}  // namespace norma::bench
