// Shared memory of the measurements.
#include "bench/reference/buffers.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <numbers>
#include <thread>
#include <vector>

#include "reference/formats/convert.hpp"

namespace norma::bench {

namespace {

/// Steele, Lea, Flood: splitmix64.
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e37'79b9'7f4a'7c15;
  z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
  z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
  return z ^ (z >> 31);
}

/// Box and Muller.
std::vector<double> pool_of_normals() {
  std::vector<double> pool(std::size_t{1} << 16);
  std::uint64_t state = 20;
  const auto uniform = [&] { return (static_cast<double>(next(state) >> 11) + 0.5) * 0x1p-53; };
  for (std::size_t i = 0; i < pool.size(); i += 2) {
    const double radius = std::sqrt(-2 * std::log(uniform())), angle = 2 * std::numbers::pi * uniform();
    pool[i] = radius * std::cos(angle);
    pool[i + 1] = radius * std::sin(angle);
  }
  return pool;
}

}  // namespace

void Pages::Free::operator()(std::byte* data) const { std::free(data); }

Pages::Pages(std::size_t bytes, bool touched) : size_(bytes) {
  constexpr std::size_t kPage = std::size_t{1} << 21;
  const std::size_t whole = (bytes + kPage - 1) / kPage * kPage;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, whole)));
  if (!data_) throw std::bad_alloc();
  ::madvise(data_.get(), whole, MADV_HUGEPAGE);  // refused: small pages
  if (touched) std::fill_n(data_.get(), whole, std::byte{0});
}

Tensor normal_tensor(FormatId format, Shape shape, double mean, double scale, std::uint64_t seed, int threads) {
  static const std::vector<double> pool = pool_of_normals();
  Tensor t{.format = format, .shape = std::move(shape), .bytes = {}};
  const auto width = static_cast<std::size_t>(format_of(format).storage_bytes());
  const auto count = static_cast<std::size_t>(t.size());
  t.bytes.reserve(count * width);
  if (count * width >= std::size_t{1} << 24) {
    // Inputs of either side on large pages; the part of the vector between its ends.
    constexpr std::uintptr_t kPage = 1 << 21;
    const auto from = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + kPage - 1) / kPage * kPage;
    const auto to = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + count * width) / kPage * kPage;
    ::madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
  }
  t.bytes.resize(count * width);
  constexpr std::size_t kBlock = 4096;
  const auto fill = [&](std::size_t first, std::size_t step) {
    std::vector<double> values(kBlock);
    for (std::size_t at = first * kBlock; at < count; at += step * kBlock) {
      std::uint64_t state = seed * 0x1'0000'0001 + at;
      for (double& v : values) v = mean + scale * pool[next(state) >> 48];
      encode_row(format, values.data(), t.bytes.data() + at * width, std::min(kBlock, count - at), Overflow::ieee);
    }
  };
  std::vector<std::jthread> workers;
  for (int i = 1; i < threads; ++i)
    workers.emplace_back(fill, static_cast<std::size_t>(i), static_cast<std::size_t>(threads));
  fill(0, static_cast<std::size_t>(std::max(threads, 1)));
  return t;
}

}  // namespace norma::bench
