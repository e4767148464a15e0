// Memory that both sides of a measurement share: inputs made once, outputs whose pages are there before the clock runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "reference/formats/tensor.hpp"

namespace norma::bench {

/// Elements of a problem that streams through memory, 3 * 2^24: bf16 in and fp32 out are 300 MB; and of one that stays
/// in the caches, 3 * 2^18: 4.7 MB.
inline constexpr std::int64_t kStream = std::int64_t{3} << 24, kHot = std::int64_t{3} << 18;

/// Bytes on large pages where the system gives them. `touched`: zeroed, so that the pages are there; else fresh from
/// the system.
class Pages {
 public:
  explicit Pages(std::size_t bytes, bool touched = true);
  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_;
};

/// mean + scale * N(0, 1), rounded once; drawn from a pool of 2^16 normal numbers in a random order. The same for the
/// same arguments.
Tensor normal_tensor(FormatId format, Shape shape, double mean, double scale, std::uint64_t seed, int threads = 1);

}  // namespace norma::bench
