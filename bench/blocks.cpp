// A block at a real model's size: its certified truth against the same operations in float64, which certify nothing.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "bench/bench.hpp"
#include "bench/ratio.hpp"
#include "harness/cases/block_graphs.hpp"
#include "harness/inputs/block_inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/run/block_check.hpp"
#include "harness/run/check.hpp"
#include "reference/blocks/block.hpp"
#include "reference/certified/blocks/real_graph.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/certified/share_out.hpp"

namespace norma::bench {

namespace {

constexpr const char* kCase =
    "flux_double_block bf16 1x256x3072 heads=24 text=64 eps=1e-6 path=diffusers.flux.double_block";

/// 16-bit inputs that both sides read; the graph over the reals.
struct Work {
  Case expanded;
  Tensors inputs;
  Graph graph;

  explicit Work(int threads)
      : expanded(expand_block_defaults(parse_case(kCase))),
        inputs(make_block_inputs(expanded, threads)),
        graph(find_block(expanded.norm)->build(block_call(expanded))) {}

  RealTensors truth(int threads) const {
    return evaluate_graph(graph, inputs, {.slices = kQuickSlices, .threads = threads},
                          [](const std::string&) { return false; });
  }
};

/// What torch's float64 and the truth must agree to, relative to the norm: binary64's sums are off by 10^-15.
constexpr double kAgreement = 1e-12;

struct Distances {
  double torch = 0, radius = 0;  ///< of torch's values and of the radii, both over the norm
  std::int64_t undecided = 0;    ///< elements whose ball does not decide their rounding to bf16
};

Distances distances(const RealTensor& truth, const std::string& path) {
  std::vector<double> got(static_cast<std::size_t>(truth.size()));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(got.data()), static_cast<std::streamsize>(got.size() * sizeof(double)));
  if (!file) throw std::runtime_error("cannot read " + path);
  double errors = 0, radii = 0, squares = 0;
  Distances d;
  for (std::int64_t i = 0; i < truth.size(); ++i) {
    const Ball b = truth.at(i);
    const double e = (got[static_cast<std::size_t>(i)] - b.h) - b.l;
    errors += e * e, radii += b.r * b.r, squares += b.h * b.h;
    // |b| is 128 to 256 ulps of bf16; midpoints are at 127.75 and halfway between whole numbers.
    const double ulp = std::ldexp(1.0, std::ilogb(b.h) - 7), place = std::fabs(b.h) / ulp;
    const double to_midpoint = std::min(std::fabs(place - 0.5 - std::round(place - 0.5)), place - 127.75) * ulp;
    if (!(b.r + std::fabs(b.l) < to_midpoint)) ++d.undecided;
  }
  d.torch = std::sqrt(errors / squares), d.radius = std::sqrt(radii / squares);
  return d;
}

/// Two products of every linear layer by the library below: what slices of 16-bit weights cost at least.
double products(const Graph& graph, int threads) {
  constexpr std::int64_t kSlab = 128;
  struct Size {
    std::int64_t rows, outputs, depth;
  };
  std::vector<Size> sizes;
  std::int64_t most_left = 0, most_depth = 0;
  for (const Site& site : graph.sites) {
    if (!std::holds_alternative<LinearSite>(site.what)) continue;
    const Shape weight = graph.find(site.find("weight")->value)->shape;
    const std::int64_t rows = element_count(site.results[0].shape) / weight[0];
    sizes.push_back({rows, weight[0], weight[1]});
    most_left = std::max(most_left, rows * weight[1]), most_depth = std::max(most_depth, weight[1]);
  }
  const std::vector<double> left(static_cast<std::size_t>(most_left), 0.75);
  const std::vector<double> right(static_cast<std::size_t>(kSlab * most_depth), 1.25);
  const double start = seconds_now();
  for (const Size& s : sizes)
    share_out((s.outputs + kSlab - 1) / kSlab, 1, threads, [&](std::int64_t first, std::int64_t last) {
      std::vector<double> c(static_cast<std::size_t>(s.rows * kSlab));
      for (std::int64_t slab = first; slab < last; ++slab)
        for (int twice = 0; twice < 2; ++twice)
          dgemm({.m = s.rows,
                 .n = std::min(kSlab, s.outputs - slab * kSlab),
                 .k = s.depth,
                 .a = left.data(),
                 .lda = s.depth,
                 .b = right.data(),
                 .ldb = s.depth,
                 .c = c.data(),
                 .ldc = kSlab});
    });
  return seconds_now() - start;
}

}  // namespace

bool bench_blocks(const Bench& bench) {
  // Weights of 0.7 GB, in float64 2.7 GB: not for a quick look.
  if (bench.torch == nullptr || bench.quick) return true;
  const Work work(bench.threads);
  const std::string file = bench.folder + "/block.safetensors";
  write_safetensors(file, work.inputs);
  bench.torch->prepare(
      fmt::format("flux_double64 threads={} format=bf16 heads=24 eps=1e-6 file={} out_img={}/img out_txt={}/txt",
                  bench.threads, file, bench.folder, bench.folder));
  const auto torch = [&] { return bench.torch->run(); };
  const std::string peer = bench.torch->name() + " float64";
  bool right = true;
  {
    const RealTensors truth = work.truth(bench.threads);
    std::string close;
    for (const std::string stream : {"img", "txt"}) {
      const Distances d = distances(truth.at(stream + ".out"), bench.folder + "/" + stream);
      close += fmt::format(", {}: radius {:.1e}, torch {:.1e} of the norm, {} undecided in bf16", stream, d.radius,
                           d.torch, d.undecided);
      if (d.torch <= kAgreement) continue;
      bench.say(fmt::format("blocks.flux_double: {} of {} and truth differ by {:.1e} of the norm: not the same block",
                            stream, bench.torch->name(), d.torch));
      right = false;
    }
    bench.report(measure_ratio(
        {.name = "blocks.flux_double.truth",
         .peer = peer,
         .work = fmt::format("bf16 256 + 64 tokens of 3072, 24 heads, {} threads{}", bench.threads, close),
         .goal = 3},
        timed([&] { return work.truth(bench.threads); }), torch, bench.pairs(8)));
  }
  bench.report(measure_ratio(
      {.name = "blocks.flux_double.products",
       .peer = peer,
       .work = "its linear layers only, two products each, " + blas_description()},
      [&] { return products(work.graph, bench.threads); }, torch, bench.pairs(8)));
  const CheckJob job{.value = work.expanded, .impl = "path:diffusers.flux.double_block"};
  const auto whole = [&] {
    Session session;
    return check_block(session, job);
  };
  bench.report(ratio_line({.name = "blocks.flux_double.check",
                           .peer = peer,
                           .work = "inputs, path, two truths at every site, trace and verdict, once"},
                          {timed(whole)() / torch()}));
  return right;
}

}  // namespace norma::bench
