// What each pixel of a convolution sees, as rows of a matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/certified/share_out.hpp"
#include "reference/program/graph.hpp"

namespace norma {

/// Pixels of a result, counted image by image.
struct Pixels {
  std::int64_t begin = 0, end = 0;
  std::int64_t count() const { return end - begin; }
};

/// Rows of patches, [pixels, C kh kw] of one group's channels, from x [N, channels, H, W]; 0 beyond the image.
inline std::vector<double> patches_of(const std::vector<double>& x, const ConvolutionSite& site, const Shape& xs,
                                      const Shape& ws, const Shape& ys, std::int64_t group, Pixels pixels,
                                      int threads) {
  const std::int64_t channels = ws[1], positions = ys[2] * ys[3], depth = channels * ws[2] * ws[3];
  std::vector<double> patches(static_cast<std::size_t>(pixels.count() * depth));
  share_out(pixels.count(), 64, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t at = first; at < last; ++at) {
      const std::int64_t n = (pixels.begin + at) / positions, p = (pixels.begin + at) % positions;
      const std::int64_t top = p / ys[3] * site.stride[0] - site.padding[0],
                         left = p % ys[3] * site.stride[1] - site.padding[1];
      double* patch = patches.data() + at * depth;
      for (std::int64_t c = 0; c < channels; ++c) {
        const double* image = x.data() + (n * xs[1] + group * channels + c) * xs[2] * xs[3];
        for (std::int64_t i = 0; i < ws[2]; ++i)
          for (std::int64_t j = 0; j < ws[3]; ++j, ++patch) {
            const std::int64_t row = top + i * site.dilation[0], col = left + j * site.dilation[1];
            if (row >= 0 && row < xs[2] && col >= 0 && col < xs[3]) *patch = image[row * xs[3] + col];
          }
      }
    }
  });
  return patches;
}

}  // namespace norma
