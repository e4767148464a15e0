// The orders in which torch's CPU kernels of gradients add. `acc` is an accumulator over the terms: step(a, i) adds
// term i, in one fused operation where the program contracts; plain(a, i) adds it rounded; value(i) is the rounded term
// alone. Each bit was compared with torch 2.15 (AVX2 kernels on an AVX-512 machine); sources: aten/src/ATen/cpu/vec/
// functional_base.h, functional_bfloat16.h and the kernels that call them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace norma {

/// Which elements of a row contract, of those that may.
enum class Fused : std::uint8_t { all, whole_loads, rest };

template <class Acc>
typename Acc::Value lanes_by_halves(const Acc& acc, std::vector<typename Acc::Value> lanes) {
  for (std::size_t width = lanes.size() / 2; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) lanes[l] = acc.add(lanes[l], lanes[l + width]);
  return lanes[0];
}

template <class Acc>
typename Acc::Value first_to_last(const Acc& acc, const std::vector<typename Acc::Value>& values,
                                  std::ptrdiff_t count) {
  typename Acc::Value total = values[0];
  for (std::ptrdiff_t i = 1; i < count; ++i) total = acc.add(total, values[static_cast<std::size_t>(i)]);
  return total;
}

/// vec::reduce_all, map_reduce_all, map2_ and map3_: `halves` accumulators of `lanes`, which begin as the first load;
/// the rest of the row goes to its lanes; the halves are added, then the lanes by halves. A row shorter than a load:
/// its second half is added to the first, then one after the other.
template <class Acc>
typename Acc::Value torch_reduce(const Acc& acc, std::ptrdiff_t n, std::ptrdiff_t lanes, std::ptrdiff_t halves,
                                 Fused fused) {
  using Value = typename Acc::Value;
  const std::ptrdiff_t width = lanes * halves, body = n / width * width;
  std::vector<Value> partial(static_cast<std::size_t>(width), Value{0});
  const auto add = [&](std::ptrdiff_t lane, std::ptrdiff_t i) {
    Value& p = partial[static_cast<std::size_t>(lane)];
    const bool contracts = fused == Fused::all || (fused == Fused::rest) == (i >= body);
    p = contracts ? acc.step(p, i) : acc.plain(p, i);
  };
  if (n == 0) return Value{0};
  if (n < width) {
    for (std::ptrdiff_t i = 0; i < std::min(n, lanes); ++i) partial[static_cast<std::size_t>(i)] = acc.value(i);
    for (std::ptrdiff_t i = lanes; i < n; ++i) add(i % lanes, i);
    return first_to_last(acc, partial, std::min(n, lanes));
  }
  for (std::ptrdiff_t i = 0; i < width; ++i) partial[static_cast<std::size_t>(i)] = acc.value(i);
  for (std::ptrdiff_t i = width; i < n; ++i) add(i % width, i);
  for (std::ptrdiff_t i = lanes; i < width; ++i) {
    Value& p = partial[static_cast<std::size_t>(i % lanes)];
    p = acc.add(p, partial[static_cast<std::size_t>(i)]);
  }
  partial.resize(static_cast<std::size_t>(lanes));
  return lanes_by_halves(acc, std::move(partial));
}

/// fp32 batch_norm over contiguous images: every image (run) by reduce_all in binary32, then the images one after the
/// other in the accumulator.
template <class Acc>
typename Acc::Value torch_images(const Acc& acc, std::ptrdiff_t n, std::ptrdiff_t lanes, std::ptrdiff_t run) {
  using Value = typename Acc::Value;
  Value total{0};
  for (std::ptrdiff_t from = 0; from < n; from += run)
    total = acc.add(
        total, static_cast<Value>(torch_reduce(acc.in_fp32(from), std::min(run, n - from), lanes, 1, Fused::rest)));
  return total;
}

/// group_norm, the channels of a group: whole loads to lanes, those in order, then the rest of the row: fours of it
/// without contraction (they are multiplied as vectors), the last one to three with it.
template <class Acc>
typename Acc::Value torch_norm_fours(const Acc& acc, std::ptrdiff_t n, std::ptrdiff_t lanes) {
  using Value = typename Acc::Value;
  std::vector<Value> partial(static_cast<std::size_t>(lanes), Value{0});
  const std::ptrdiff_t body = n / lanes * lanes, fours = body + (n - body) / 4 * 4;
  for (std::ptrdiff_t i = 0; i < body; ++i) {
    Value& p = partial[static_cast<std::size_t>(i % lanes)];
    p = acc.step(p, i);
  }
  Value total = first_to_last(acc, partial, lanes);
  for (std::ptrdiff_t i = body; i < fours; ++i) total = acc.plain(total, i);
  for (std::ptrdiff_t i = fours; i < n; ++i) total = acc.step(total, i);
  return total;
}

/// channels-last group_norm, the channels of a group: every vector of `lanes` by halves, the vectors one after the
/// other. halves = 1: the last vector is filled up with zeros. halves = 2: only whole loads of two vectors are taken
/// so, the rest of the row is added term by term.
template <class Acc>
typename Acc::Value torch_vectors(const Acc& acc, std::ptrdiff_t n, std::ptrdiff_t lanes, std::ptrdiff_t halves) {
  using Value = typename Acc::Value;
  const std::ptrdiff_t body = halves == 1 ? n : n / (2 * lanes) * (2 * lanes);
  Value total{0};
  for (std::ptrdiff_t from = 0; from < body; from += lanes) {
    std::vector<Value> vector(static_cast<std::size_t>(lanes), Value{0});
    for (std::ptrdiff_t i = from; i < std::min(body, from + lanes); ++i)
      vector[static_cast<std::size_t>(i - from)] = acc.value(i);
    total = acc.add(total, lanes_by_halves(acc, std::move(vector)));
  }
  for (std::ptrdiff_t i = body; i < n; ++i) total = acc.step(total, i);
  return total;
}

}  // namespace norma
