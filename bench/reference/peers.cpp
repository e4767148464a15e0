// The norms against wider arithmetics in this process, and torch, numpy and mpmath in theirs.
#include <fmt/core.h>

#include <cmath>
#include <fstream>

#include "bench/reference/norm_work.hpp"
#include "bench/reference/reference.hpp"

namespace norma::bench {

namespace {

/// Seconds a slow peer gets in one run.
constexpr double kSlowRun = 0.02;

bool close(const std::vector<float>& a, const std::byte* b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    float other;
    std::memcpy(&other, b + i * sizeof(float), sizeof(float));
    if (!(std::fabs(a[i] - other) <= 1e-6f * std::fabs(other) + 1e-6f)) return false;
  }
  return true;
}

bool against_slow(const Bench& bench, Shared& shared, const std::string& norm, bool stream) {
  const NormShape shape{.norm = norm, .rows = (stream ? kStream : kHot) / 3072, .cols = 3072};
  const Tensor hot = stream ? Tensor{} : normal_tensor(shape.in, {shape.rows, shape.cols}, 0, 1, 1);
  const Tensor& x = stream ? shared.stream(shape.in) : hot;
  const NormWork work(shape, x);
  bool right = true;
  for (const SlowPeer& peer : slow_peers()) {
    const std::string name = fmt::format("peer.{}.{}.{}", peer.key, norm, stream ? "stream" : "hot");
    const bool mpfr = peer.key == "mpfr113";
    if (!bench.wants(name) || ((stream || bench.quick) && !mpfr) || (stream && bench.quick)) continue;
    std::optional<double> goal;
    if (mpfr) goal = stream && norm == "rmsnorm" ? 1.0 / 160 : 1.0 / 200;
    const auto rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(peer.rate * kSlowRun / 3072));
    SlowRows slow(work, x, std::min(rows, shape.rows));
    const int passes = stream ? 1 : 8;
    const auto run_slow = timed_alone([&] {
      peer.run(slow.norm);
      return 0;
    });
    bench.report(
        measure_ratio({.name = name,
                       .peer = peer.name,
                       .work = fmt::format("{} on 1 thread; the peer does {} rows", shape.text(), slow.norm.rows),
                       .goal = goal,
                       .our_elements = static_cast<double>(shape.size() * passes),
                       .peer_elements = static_cast<double>(slow.x.size()),
                       .alone = true},
                      time_certified(work, shared.output(), passes), run_slow, bench.pairs(9)));
    work.round(shared.output());
    if (!close(slow.y, shared.output())) {
      bench.say(name + ": the results differ by more than 10^-6: not the same work");
      right = false;
    }
  }
  return right;
}

/// The same bits in another order of sums, and vectors that are not used: the loop as -O3 leaves it.
void against_strict(const Bench& bench, Shared& shared, const std::string& norm) {
  const std::string name = fmt::format("peer.strict_float64.{}.hot", norm);
  if (!bench.wants(name) || bench.quick) return;
  const NormShape shape{.norm = norm, .rows = kHot / 3072, .cols = 3072};
  const Tensor x = normal_tensor(shape.in, {shape.rows, shape.cols}, 0, 1, 1);
  const NormWork work(shape, x);
  PlainNorm strict = work.plain(shared.output());
  strict.kind = norm == "rmsnorm" ? PlainKind::strict_rms : PlainKind::strict_layer;
  const auto run_strict = timed_alone([&] {
    for (int i = 0; i < 8; ++i) plain_loops().norm(strict);
    return 0;
  });
  bench.report(measure_ratio({.name = name,
                              .peer = "float64, sums in order",
                              .work = fmt::format("{} on 1 thread", shape.text()),
                              .our_elements = static_cast<double>(shape.size() * 8),
                              .peer_elements = static_cast<double>(shape.size() * 8),
                              .alone = true},
                             time_certified(work, shared.output(), 8), run_strict, bench.pairs(15)));
}

std::string write_bytes(const Bench& bench, const std::string& name, const Tensor& tensor) {
  const std::string path = fmt::format("{}/{}", bench.folder, name);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  if (!file) throw std::runtime_error("cannot write " + path);
  return path;
}

/// A Python peer that makes the same output from the same bits; both write to fresh memory, on large pages.
void against_python(const Bench& bench, Peer* peer, const std::string& name, const NormShape& shape, int threads,
                    std::optional<double> goal, std::int64_t peer_rows, bool quick) {
  if (peer == nullptr || !bench.wants(name) || (bench.quick && !quick)) return;
  const Tensor x = normal_tensor(shape.in, {shape.rows, shape.cols}, 0, 1, 1, bench.threads);
  const NormWork work(shape, x);
  std::string job = fmt::format(
      "norm64 threads={} format={} out={} norm={} rows={} cols={} eps={} x={} weight={} bias={}", threads,
      name_of(shape.in), name_of(shape.out), shape.norm, peer_rows, shape.cols, shape.eps, write_bytes(bench, "x", x),
      write_bytes(bench, "weight", work.weight()), write_bytes(bench, "bias", work.bias()));
  if (shape.norm == "groupnorm") {
    // x is [N, C, HW]: rows of `cols` are groups here, channels there.
    job = fmt::format(
        "norm64 threads={} format={} out={} norm={} rows={} cols={} channels={} groups={} eps={} x={} "
        "weight={} bias={}",
        threads, name_of(shape.in), name_of(shape.out), shape.norm, shape.rows * (shape.cols / shape.span), shape.span,
        shape.period * (shape.cols / shape.span), shape.period, shape.eps, bench.folder + "/x",
        bench.folder + "/weight", bench.folder + "/bias");
  } else if (shape.norm == "batchnorm") {
    job += fmt::format(" channels={}", shape.period);
  }
  try {
    peer->prepare(job);
  } catch (const PeerError& e) {
    bench.say(fmt::format("left out {}: {}", name, e.what()));
    return;
  }
  const std::size_t bytes =
      static_cast<std::size_t>(shape.size()) * static_cast<std::size_t>(format_of(shape.out).storage_bytes());
  const auto ours = timed([&] {
    Pages y(bytes, false);
    round_rows(work.problem(), work.exact(), shape.out, Overflow::ieee, y.data(), threads);
    return y;
  });
  bench.report(measure_ratio(
      {.name = name,
       .peer = peer->name() + (peer == bench.mpmath ? " 113 bits" : " float64"),
       .work = fmt::format("{} on {} thread{}{}", shape.text(), threads, threads == 1 ? "" : "s",
                           peer_rows == shape.rows ? "" : fmt::format("; the peer does {} rows", peer_rows)),
       .goal = goal,
       .our_elements = static_cast<double>(shape.size()),
       .peer_elements = static_cast<double>(peer_rows * shape.cols)},
      ours, [&] { return peer->run(); }, bench.pairs(12)));
}

}  // namespace

bool bench_peers(const Bench& bench, Shared& shared) {
  bool right = true;
  for (const bool stream : {true, false})
    for (const char* norm : {"rmsnorm", "layernorm"}) right = against_slow(bench, shared, norm, stream) && right;
  for (const char* norm : {"rmsnorm", "layernorm"}) against_strict(bench, shared, norm);

  for (const auto& [in, out] : {std::pair(FormatId::bf16, FormatId::bf16), std::pair(FormatId::fp32, FormatId::fp32)}) {
    const NormShape shapes[] = {
        {.norm = "rmsnorm", .in = in, .out = out, .rows = 4096, .cols = 3072},
        {.norm = "layernorm", .in = in, .out = out, .rows = 4096, .cols = 3072},
        {.norm = "groupnorm", .in = in, .out = out, .rows = 1024, .cols = 12288, .span = 1024, .period = 32},
        {.norm = "batchnorm", .in = in, .out = out, .rows = 4096, .cols = 3072, .period = 64},
    };
    for (const NormShape& shape : shapes) {
      for (const int threads : {1, bench.threads}) {
        if (threads == 1 && bench.threads > 1 && bench.quick) continue;
        against_python(bench, bench.torch,
                       fmt::format("peer.torch64.{}.{}-{}.threads{}", shape.norm, name_of(in), name_of(out), threads),
                       shape, threads, 1.0, shape.rows, out == FormatId::bf16 && shape.norm != "batchnorm");
        if (bench.threads == 1) break;
      }
    }
  }
  for (const char* norm : {"rmsnorm", "layernorm"}) {
    const NormShape shape{.norm = norm, .in = FormatId::fp32, .out = FormatId::fp32, .rows = 4096, .cols = 3072};
    against_python(bench, bench.numpy, fmt::format("peer.numpy64.{}", norm), shape, 1, std::nullopt, shape.rows, false);
    against_python(bench, bench.mpmath, fmt::format("peer.mpmath113.{}", norm), shape, 1, std::nullopt, 2, false);
  }
  return right;
}

}  // namespace norma::bench
