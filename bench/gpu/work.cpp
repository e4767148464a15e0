// The kernels, formats and shapes.
#include "bench/gpu/work.hpp"

#include "impls/cuda/ada_layernorm_launch.hpp"
#include "impls/cuda/elementwise_launch.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/rmsnorm_launch.hpp"

namespace norma::bench {

namespace {

using namespace cuda;

LaunchOptions on(void* stream) {
  LaunchOptions options;
  options.stream = stream;
  return options;
}

const char* name_of_row(RowThreads row) { return row == RowThreads::warp ? ".warp_per_row" : ".block_per_row"; }

GpuWork rmsnorm(GpuWork w, RowThreads row) {
  w.kernel = std::string("cuda.rmsnorm") + name_of_row(row);
  w.norm = "rmsnorm";
  w.launch = [=](const Slot& s, void* stream) {
    RmsLaunch l;
    l.x = s.reads[0];
    l.weight = s.vectors;
    l.y = s.writes[0];
    l.format = w.format;
    l.rows = w.rows;
    l.cols = w.cols;
    l.eps = 1e-6f;
    l.row = row;
    launch_rmsnorm_on_gpu(l, on(stream));
  };
  return w;
}

GpuWork layernorm(GpuWork w, RowThreads row, Statistic statistic) {
  w.kernel =
      std::string("cuda.layernorm") + name_of_row(row) + (statistic == Statistic::welford ? ".welford" : ".two_pass");
  w.norm = "layernorm";
  w.vectors = 2;
  w.launch = [=](const Slot& s, void* stream) {
    LayerNormLaunch l;
    l.x = s.reads[0];
    l.weight = s.vectors;
    l.bias = s.vectors + w.vector_bytes();
    l.y = s.writes[0];
    l.format = w.format;
    l.rows = w.rows;
    l.cols = w.cols;
    l.eps = 1e-5f;
    l.statistic = statistic;
    l.row = row;
    launch_layernorm_on_gpu(l, on(stream));
  };
  return w;
}

/// y = x (1 + scale) + shift, with one scale and shift for all rows.
GpuWork modulate(GpuWork w) {
  w.kernel = "cuda.modulate.fused";
  w.norm = "modulate";
  w.vectors = 2;
  w.launch = [=](const Slot& s, void* stream) {
    ElementwiseLaunch l;
    l.x = s.reads[0];
    l.factor = {.values = s.vectors, .rows = w.rows};
    l.term = {.values = s.vectors + w.vector_bytes(), .rows = w.rows};
    l.y = s.writes[0];
    l.format = w.format;
    l.one_plus = true;
    l.rows = w.rows;
    l.cols = w.cols;
    launch_elementwise_on_gpu(l, on(stream));
  };
  return w;
}

/// LayerNorm(x) (1 + scale) + shift, with one scale and shift for all rows.
GpuWork ada_layernorm(GpuWork w, RowThreads row) {
  w.kernel = std::string("cuda.ada_layernorm") + name_of_row(row) + ".two_pass.fused";
  w.norm = "ada_layernorm";
  w.vectors = 2;
  w.launch = [=](const Slot& s, void* stream) {
    AdaLayerNormLaunch l;
    l.x = s.reads[0];
    l.scale = {.values = s.vectors, .rows = w.rows};
    l.shift = {.values = s.vectors + w.vector_bytes(), .rows = w.rows};
    l.y = s.writes[0];
    l.format = w.format;
    l.rows = w.rows;
    l.cols = w.cols;
    l.eps = 1e-6f;
    l.row = row;
    launch_ada_layernorm_on_gpu(l, on(stream));
  };
  return w;
}

/// y = x + gate f, with one gate for all rows.
GpuWork gated_residual(GpuWork w) {
  w.kernel = "cuda.gated_residual.fused";
  w.norm = "gated_residual";
  w.reads = 2;
  w.launch = [=](const Slot& s, void* stream) {
    ElementwiseLaunch l;
    l.x = s.reads[0];
    l.factor = {.values = s.vectors, .rows = w.rows};
    l.term = {.values = s.reads[1], .rows = 1};
    l.y = s.writes[0];
    l.format = w.format;
    l.rows = w.rows;
    l.cols = w.cols;
    launch_elementwise_on_gpu(l, on(stream));
  };
  return w;
}

}  // namespace

std::vector<GpuWork> gpu_work(bool quick) {
  const std::vector<FormatId> formats =
      quick ? std::vector{FormatId::bf16} : std::vector{FormatId::bf16, FormatId::fp16, FormatId::fp32};
  const std::vector<std::uint32_t> rows =
      quick ? std::vector<std::uint32_t>{8192} : std::vector<std::uint32_t>{8192, 65536};
  const std::vector<std::uint32_t> cols =
      quick ? std::vector<std::uint32_t>{1024, 4096} : std::vector<std::uint32_t>{128, 512, 1024, 2048, 4096, 8192};
  std::vector<GpuWork> all;
  for (const FormatId format : formats)
    for (const std::uint32_t r : rows)
      for (const std::uint32_t c : cols) {
        GpuWork shape;
        shape.format = format;
        shape.rows = r;
        shape.cols = c;
        for (const RowThreads row : {RowThreads::warp, RowThreads::block}) {
          all.push_back(rmsnorm(shape, row));
          for (const Statistic statistic : {Statistic::two_pass, Statistic::welford})
            all.push_back(layernorm(shape, row, statistic));
          all.push_back(ada_layernorm(shape, row));
        }
        all.push_back(modulate(shape));
        all.push_back(gated_residual(shape));
      }
  return all;
}

}  // namespace norma::bench
