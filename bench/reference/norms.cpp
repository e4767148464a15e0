// The norms, correctly rounded and certified, against plain vectorized binary64; and their scores.
#include <fmt/core.h>

#include <cmath>
#include <cstring>

#include "bench/reference/norm_work.hpp"
#include "bench/reference/reference.hpp"
#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

struct Pair {
  FormatId in, out;
};
constexpr Pair kPairs[] = {{FormatId::bf16, FormatId::fp32},
                           {FormatId::bf16, FormatId::bf16},
                           {FormatId::bf16, FormatId::e4m3fn},
                           {FormatId::fp32, FormatId::fp32}};

struct Line {
  NormShape shape;
  std::string width;  ///< what tells lines of a norm apart: "3072"
  bool stream = false;
  bool quick = false;
};

double goal_of(const Line& line) {
  const bool rms = line.shape.norm == "rmsnorm";
  if (line.stream) return rms ? 1.25 : 1.4;
  return rms ? 1.4 : 1.8;
}

std::vector<Line> lines() {
  std::vector<Line> all;
  for (const bool stream : {true, false}) {
    const std::int64_t size = stream ? kStream : kHot;
    for (const Pair& pair : kPairs) {
      const bool fp32 = pair.out == FormatId::fp32;
      for (const char* norm : {"rmsnorm", "layernorm"})
        for (const std::int64_t cols : {128, 3072, 16384})
          all.push_back({.shape = {.norm = norm, .in = pair.in, .out = pair.out, .rows = size / cols, .cols = cols},
                         .width = std::to_string(cols),
                         .stream = stream,
                         .quick = cols == 3072 && (fp32 || !stream)});
      // [N, 384, 32, 32] in 32 groups; [N, 64, 64, 48].
      all.push_back({.shape = {.norm = "groupnorm",
                               .in = pair.in,
                               .out = pair.out,
                               .rows = size / 12288,
                               .cols = 12288,
                               .span = 1024,
                               .period = 32},
                     .width = "12288",
                     .stream = stream,
                     .quick = fp32 && !stream});
      for (const char* norm : {"batchnorm", "batchnorm_eval"})
        all.push_back(
            {.shape = {.norm = norm, .in = pair.in, .out = pair.out, .rows = size / 3072, .cols = 3072, .period = 64},
             .width = "3072",
             .stream = stream,
             .quick = fp32 && !stream});
    }
  }
  return all;
}

/// Share of elements that both sides gave the same code.
double share_equal(FormatId format, const std::byte* a, const std::byte* b, std::int64_t count) {
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  std::int64_t equal = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * width;
    equal += std::memcmp(a + at, b + at, width) == 0 ? 1 : 0;
  }
  return static_cast<double>(equal) / static_cast<double>(count);
}

/// What binary64 misses by its own errors and its second rounding: 10^-5 of ordinary elements; LayerNorm in fp32, where
/// sums cancel, more.
constexpr double kLeastShare = 0.999;

bool measure_line(const Bench& bench, Shared& shared, const Line& line) {
  const std::string name = fmt::format("norm.{}.{}.{}-{}.{}", line.shape.norm, line.width, name_of(line.shape.in),
                                       name_of(line.shape.out), line.stream ? "stream" : "hot");
  if (!bench.wants(name) || (bench.quick && !line.quick)) return true;
  const Tensor hot = line.stream ? Tensor{} : normal_tensor(line.shape.in, {line.shape.rows, line.shape.cols}, 0, 1, 1);
  const NormWork work(line.shape, line.stream ? shared.stream(line.shape.in) : hot);
  const int passes = line.stream ? 1 : 8;
  std::byte* y = shared.output();
  const TierCounts tiers = work.round(y);
  nlohmann::ordered_json result =
      measure_ratio({.name = name,
                     .peer = "plain float64",
                     .work = fmt::format("{} on 1 thread, {} of {} elements above binary64", line.shape.text(),
                                         tiers.double_double + tiers.exact, line.shape.size()),
                     .goal = goal_of(line),
                     .our_elements = static_cast<double>(line.shape.size() * passes),
                     .peer_elements = static_cast<double>(line.shape.size() * passes),
                     .alone = true},
                    time_certified(work, y, passes), time_plain(work, y, passes), bench.pairs(line.stream ? 9 : 25));
  bench.report(result);
  // The plain loops' output is in y after an odd number of runs or not; made anew for the comparison.
  const std::int64_t compared = std::min(line.shape.size(), kHot);
  std::vector<std::byte> plain(static_cast<std::size_t>(line.shape.size()) *
                               static_cast<std::size_t>(format_of(line.shape.out).storage_bytes()));
  plain_loops().norm(work.plain(plain.data()));
  work.round(y);
  const double share = share_equal(line.shape.out, y, plain.data(), compared);
  if (share >= kLeastShare && tiers.undecided == 0) return true;
  bench.say(fmt::format("{}: {:.6f} of the elements are equal on both sides, {} undecided: not the same work", name,
                        share, tiers.undecided));
  return false;
}

}  // namespace

bool bench_norms(const Bench& bench, Shared& shared) {
  bool right = true;
  for (const Line& line : lines()) right = measure_line(bench, shared, line) && right;
  return right;
}

bool bench_scores(const Bench& bench, Shared& shared) {
  bool right = true;
  for (const FormatId in : {FormatId::bf16, FormatId::fp32}) {
    for (const bool stream : {true, false}) {
      for (const char* norm : {"rmsnorm", "layernorm"}) {
        const std::string name = fmt::format("score.{}.3072.{}-fp32.{}", norm, name_of(in), stream ? "stream" : "hot");
        if (!bench.wants(name) || (bench.quick && (stream || in == FormatId::fp32))) continue;
        const std::int64_t rows = (stream ? kStream : kHot) / 3072;
        const NormShape shape{.norm = norm, .in = in, .out = FormatId::fp32, .rows = rows, .cols = 3072};
        const Tensor hot = stream ? Tensor{} : normal_tensor(in, {rows, 3072}, 0, 1, 1);
        const NormWork work(shape, stream ? shared.stream(in) : hot);
        Tensor got = Tensor::zeros(FormatId::fp32, {rows, 3072});
        plain_loops().norm(work.plain(got.bytes.data()));
        const int passes = stream ? 1 : 8;
        const auto score = timed_alone([&] {
          RowScore s;
          for (int i = 0; i < passes; ++i) s = score_rows(work.problem(), work.exact(), got, 1);
          return s;
        });
        const RowScore found = score_rows(work.problem(), work.exact(), got, 1);
        const double elements = static_cast<double>(shape.size() * passes);
        bench.report(measure_ratio({.name = name,
                                    .peer = "plain float64 norm",
                                    .work = fmt::format("{} and an output scored on 1 thread, bar 2^{:.1f} ulp; the "
                                                        "peer makes the norm and writes it",
                                                        shape.text(), std::log2(found.bar)),
                                    .goal = 1.25,
                                    .our_elements = elements,
                                    .peer_elements = elements,
                                    .alone = true},
                                   score, time_plain(work, shared.output(), passes), bench.pairs(stream ? 9 : 25)));
        if (std::string_view(norm) != "rmsnorm") continue;
        const auto plain_score = timed_alone([norm = work.plain(got.bytes.data()), passes] {
          PlainScore s;
          for (int i = 0; i < passes; ++i) s = plain_loops().score_rms(norm);
          return s;
        });
        bench.report(measure_ratio(
            {.name = name + ".plain_score",
             .peer = "plain float64 scoring",
             .work = fmt::format("{} and an output scored on 1 thread; the peer has no bar", shape.text()),
             .our_elements = elements,
             .peer_elements = elements,
             .alone = true},
            score, plain_score, bench.pairs(stream ? 9 : 25)));
        const PlainScore plain = plain_loops().score_rms(work.plain(got.bytes.data()));
        if (std::fabs(plain.max - found.max) < 1e-3 && std::fabs(plain.mean_abs - found.mean_abs) < 1e-3) continue;
        bench.say(fmt::format("{}: largest and mean error are {}, {} and {}, {}: not the same work", name, found.max,
                              found.mean_abs, plain.max, plain.mean_abs));
        right = false;
      }
    }
  }
  return right;
}

}  // namespace norma::bench
