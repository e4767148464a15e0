// What the GPU's speed is measured on: kernels of the catalogue on rows of models' lengths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "reference/formats/format.hpp"

namespace norma::bench {

/// Memory of one launch on the GPU: row tensors read, row tensors written, and vectors of one row each.
struct Slot {
  std::vector<const std::byte*> reads;
  std::vector<std::byte*> writes;
  const std::byte* vectors = nullptr;  ///< one after the other, each of `cols` values
};

struct GpuWork {
  std::string kernel, norm;
  FormatId format = FormatId::bf16;
  std::uint32_t rows = 0, cols = 0;
  int reads = 1, writes = 1, vectors = 1;
  /// Starts the kernel on a cudaStream_t.
  std::function<void(const Slot&, void* stream)> launch;

  std::size_t tensor_bytes() const { return std::size_t{rows} * vector_bytes(); }
  std::size_t vector_bytes() const {
    return std::size_t{cols} * static_cast<std::size_t>(format_of(format).storage_bytes());
  }
  /// What a launch must move at least: every row tensor once, every vector once (it stays in the cache).
  std::size_t bytes() const {
    return static_cast<std::size_t>(reads + writes) * tensor_bytes() +
           static_cast<std::size_t>(vectors) * vector_bytes();
  }
};

/// `quick`: a few.
std::vector<GpuWork> gpu_work(bool quick);

}  // namespace norma::bench
