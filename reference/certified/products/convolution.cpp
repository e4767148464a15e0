// A convolution as products: the weights of a group against the patches of some pixels, image by image.
#include "reference/certified/products/convolution.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "reference/certified/products/matmul_parts.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

using matmul::Block;
using matmul::Panel;
using matmul::Product;
using matmul::Range;

constexpr std::int64_t kBlockChannels = 512, kTruthChannels = 64;
constexpr std::int64_t kBlockPixels = 1024;
constexpr std::int64_t kPatchNumbers = 1 << 21;  // 16 MiB of patches

struct Geometry {
  std::int64_t images, channels, height, width;  // of x
  std::int64_t outputs, group_outputs, group_channels, kernel_height, kernel_width;
  std::int64_t out_height, out_width, pixels, depth;
  std::int64_t block_pixels, blocks;  // of an image
};

std::int64_t out_extent(std::int64_t extent, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                        std::int64_t dilation) {
  return (extent + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

Geometry geometry_of(const Convolution& p) {
  Geometry g{};
  const Shape& x = p.x->shape;
  const Shape& w = p.weight->shape;
  g.images = x[0], g.channels = x[1], g.height = x[2], g.width = x[3];
  g.outputs = w[0], g.group_outputs = w[0] / p.groups, g.group_channels = w[1];
  g.kernel_height = w[2], g.kernel_width = w[3];
  g.out_height = out_extent(g.height, g.kernel_height, p.stride[0], p.padding[0], p.dilation[0]);
  g.out_width = out_extent(g.width, g.kernel_width, p.stride[1], p.padding[1], p.dilation[1]);
  g.pixels = g.out_height * g.out_width;
  g.depth = g.group_channels * g.kernel_height * g.kernel_width;
  g.block_pixels = std::clamp<std::int64_t>(kPatchNumbers / std::max<std::int64_t>(g.depth, 1), 16, kBlockPixels);
  g.blocks = (g.pixels + g.block_pixels - 1) / g.block_pixels;
  return g;
}

/// The problem with its weights and biases in binary64.
class Prepared {
 public:
  Prepared(const Convolution& problem, int threads)
      : problem_(problem),
        geometry_(geometry_of(problem)),
        weights_(matmul::panel_of_rows(*problem.weight, geometry_.outputs, geometry_.depth, threads)) {
    if (problem.bias == nullptr) return;
    for (std::int64_t o = 0; o < geometry_.outputs; ++o) bias_.push_back(problem.bias->value(o));
  }

  const Geometry& geometry() const { return geometry_; }

  /// Patches of pixels [first, last) of one image for one group, a row a pixel.
  Panel patches(std::int64_t image, std::int64_t group, std::int64_t first, std::int64_t last) const;

  /// Output channels against the patches of their group.
  Product product(const Panel& patches) const { return {.a = &weights_, .b = &patches, .bias_of_a = bias_}; }

 private:
  Convolution problem_;
  Geometry geometry_;
  Panel weights_;
  std::vector<double> bias_;
};

Panel Prepared::patches(std::int64_t image, std::int64_t group, std::int64_t first, std::int64_t last) const {
  const Geometry& g = geometry_;
  const auto [stride_y, stride_x] = problem_.stride;
  const auto [padding_y, padding_x] = problem_.padding;
  const auto [dilation_y, dilation_x] = problem_.dilation;
  // Of each channel the image's rows that these pixels reach.
  const std::int64_t top = std::max<std::int64_t>(first / g.out_width * stride_y - padding_y, 0);
  const std::int64_t bottom =
      std::min((last - 1) / g.out_width * stride_y - padding_y + (g.kernel_height - 1) * dilation_y + 1, g.height);
  const std::int64_t strip = std::max<std::int64_t>(bottom - top, 0) * g.width;
  std::vector<float> values(static_cast<std::size_t>(g.group_channels * strip));
  const std::int64_t bytes = format_of(problem_.x->format).storage_bytes();
  for (std::int64_t c = 0; c < g.group_channels && strip > 0; ++c) {
    const std::int64_t at = ((image * g.channels + group * g.group_channels + c) * g.height + top) * g.width;
    decode_row(problem_.x->format, problem_.x->bytes.data() + at * bytes, values.data() + c * strip,
               static_cast<std::size_t>(strip));
  }
  Panel panel(last - first, g.depth);
  std::vector<float> patch(static_cast<std::size_t>(g.depth));
  for (std::int64_t pixel = first; pixel < last; ++pixel) {
    const std::int64_t y0 = pixel / g.out_width * stride_y - padding_y, x0 = pixel % g.out_width * stride_x - padding_x;
    float* out = patch.data();
    for (std::int64_t c = 0; c < g.group_channels; ++c)
      for (std::int64_t i = 0; i < g.kernel_height; ++i) {
        const std::int64_t y = y0 + i * dilation_y;
        const bool inside = y >= 0 && y < g.height;
        const float* row = values.data() + c * strip + (inside ? y - top : 0) * g.width;
        for (std::int64_t j = 0; j < g.kernel_width; ++j) {
          const std::int64_t x = x0 + j * dilation_x;
          *out++ = inside && x >= 0 && x < g.width ? row[x] : 0.0F;
        }
      }
    panel.set_row(pixel - first, patch.data());
  }
  return panel;
}

void require(const Convolution& problem) {
  if (std::string fault = convolution_fault(problem); !fault.empty()) throw std::invalid_argument(fault);
}

class ConvolutionTruth final : public TruthSource {
 public:
  ConvolutionTruth(const Convolution& problem, QuickProduct quick) : prepared_(problem, 1), quick_(quick) {}

  std::int64_t rows() const override { return geometry().images * geometry().outputs; }
  std::int64_t cols() const override { return geometry().pixels; }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Place at = place(row);
    const Panel patch = prepared_.patches(at.image, at.group, col, col + 1);
    return matmul::enclose(prepared_.product(patch), at.output, 0, matmul::Effort::close);
  }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const Place at = place(row);
    for_patches(at, [&](const Panel& patches, std::int64_t first) {
      const Product product = prepared_.product(patches);
      for (std::int64_t p = 0; p < patches.rows; ++p)
        out[static_cast<std::size_t>(first + p)] = matmul::enclose(product, at.output, p, matmul::Effort::close);
    });
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Place at = place(row);
    const Panel patch = prepared_.patches(at.image, at.group, col, col + 1);
    return matmul::compare(prepared_.product(patch), at.output, 0, m_hi, m_lo);
  }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const Place at = place(row);
    const Geometry& g = geometry();
    const std::int64_t in_group = at.output % g.group_outputs, piece = in_group / kTruthChannels;
    const std::int64_t pieces = (g.group_outputs + kTruthChannels - 1) / kTruthChannels;
    const std::int64_t index = (at.image * (g.outputs / g.group_outputs) + at.group) * pieces + piece;
    const std::int64_t first = at.group * g.group_outputs + piece * kTruthChannels;
    const std::int64_t last = std::min(first + kTruthChannels, (at.group + 1) * g.group_outputs);
    const auto block = blocks_.get(index, [&] { return channels(at, first, last); });
    const auto copy = [&](const Numbers& from, std::span<double> to) {
      std::copy_n(from.data() + (at.output - first) * g.pixels, g.pixels, to.begin());
    };
    copy(block->mid, out.mid);
    copy(block->radius, out.radius);
    copy(block->magnitude, out.magnitude);
    return Tier::binary64;
  }

 private:
  struct Place {
    std::int64_t image, output, group;
  };
  const Geometry& geometry() const { return prepared_.geometry(); }
  Place place(std::int64_t row) const {
    const std::int64_t output = row % geometry().outputs;
    return {row / geometry().outputs, output, output / geometry().group_outputs};
  }

  template <class Body>
  void for_patches(const Place& at, const Body& body) const {
    const Geometry& g = geometry();
    for (std::int64_t first = 0; first < g.pixels; first += g.block_pixels)
      body(prepared_.patches(at.image, at.group, first, std::min(first + g.block_pixels, g.pixels)), first);
  }

  /// All pixels of output channels [first, last).
  matmul::QuickBlock channels(const Place& at, std::int64_t first, std::int64_t last) const {
    const std::int64_t pixels = geometry().pixels;
    matmul::QuickBlock all;
    for (Numbers* values : {&all.mid, &all.radius, &all.magnitude})
      values->reserve(static_cast<std::size_t>((last - first) * pixels));
    for_patches(at, [&](const Panel& patches, std::int64_t pixel) {
      const matmul::QuickBlock part = quick_block(prepared_.product(patches), {first, last, 0, patches.rows}, quick_);
      const auto place_rows = [&](const Numbers& from, Numbers& to) {
        for (std::int64_t r = 0; r < last - first; ++r)
          std::copy_n(from.data() + r * patches.rows, patches.rows, to.data() + r * pixels + pixel);
      };
      place_rows(part.mid, all.mid);
      place_rows(part.radius, all.radius);
      place_rows(part.magnitude, all.magnitude);
    });
    return all;
  }

  Prepared prepared_;
  QuickProduct quick_;
  mutable matmul::QuickBlocks blocks_;
};

}  // namespace

std::string convolution_fault(const Convolution& p) {
  if (p.x == nullptr || p.weight == nullptr) return "convolution needs two tensors, x and weight.";
  for (const auto& [name, tensor] : {std::pair("x", p.x), {"weight", p.weight}, {"bias", p.bias}})
    if (tensor != nullptr && tensor->format == FormatId::fp64)
      return std::string("convolution takes formats up to fp32, but ") + name + " is fp64.";
  const std::string x = shape_text(p.x->shape), weight = shape_text(p.weight->shape);
  if (p.x->shape.size() != 4) return "convolution needs an x of shape [N, C, H, W], but it is " + x + ".";
  if (p.weight->shape.size() != 4)
    return "convolution needs a weight of shape [O, C / groups, kh, kw], but it is " + weight + ".";
  if (p.groups < 1 || p.weight->shape[0] % p.groups != 0 || p.weight->shape[1] * p.groups != p.x->shape[1])
    return "convolution: x is " + x + " and groups is " + std::to_string(p.groups) +
           ", so weight needs C / groups channels and a number of outputs that groups divides, but it is " + weight +
           ".";
  for (const int axis : {0, 1}) {
    const auto at = static_cast<std::size_t>(axis);
    const std::string where = axis == 0 ? " along H" : " along W";
    if (p.stride[at] < 1) return "convolution needs a stride of at least 1" + where + ".";
    if (p.dilation[at] < 1) return "convolution needs a dilation of at least 1" + where + ".";
    if (p.padding[at] < 0) return "convolution needs a padding of at least 0" + where + ".";
    const std::int64_t kernel = p.weight->shape[2 + at];
    if (kernel < 1) return "convolution needs a kernel of at least 1" + where + ", but weight is " + weight + ".";
    if (p.x->shape[2 + at] + 2 * p.padding[at] < p.dilation[at] * (kernel - 1) + 1)
      return "convolution: the kernel of weight " + weight + " reaches beyond the padded x " + x + where + ".";
  }
  if (p.bias != nullptr && p.bias->size() != p.weight->shape[0])
    return "convolution: weight is " + weight + ", so bias needs " + std::to_string(p.weight->shape[0]) +
           " elements, but it is " + shape_text(p.bias->shape) + ".";
  return {};
}

Shape convolution_shape(const Convolution& problem) {
  require(problem);
  const Geometry g = geometry_of(problem);
  return {g.images, g.outputs, g.out_height, g.out_width};
}

std::unique_ptr<TruthSource> convolution_truth(const Convolution& problem, QuickProduct quick) {
  require(problem);
  return std::make_unique<ConvolutionTruth>(problem, quick);
}

RoundedRows round_convolution(const Convolution& problem, FormatId format, Overflow overflow, int threads) {
  require(problem);
  const Prepared prepared(problem, threads);
  const Geometry& g = prepared.geometry();
  RoundedRows result{.y = Tensor::zeros(format, convolution_shape(problem)), .tiers = {}};
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  const std::size_t row_bytes = static_cast<std::size_t>(g.pixels) * bytes;
  const auto round_one = [&](std::int64_t index, Block& block, TierCounts& tiers) {
    const std::int64_t pixel = index % g.blocks * g.block_pixels;
    const std::int64_t group = index / g.blocks % problem.groups, image = index / g.blocks / problem.groups;
    const Panel patches = prepared.patches(image, group, pixel, std::min(pixel + g.block_pixels, g.pixels));
    const Product product = prepared.product(patches);
    const std::int64_t end = (group + 1) * g.group_outputs;
    for (std::int64_t o = group * g.group_outputs; o < end; o += kBlockChannels) {
      std::byte* first = result.y.bytes.data() + static_cast<std::size_t>(image * g.outputs + o) * row_bytes +
                         static_cast<std::size_t>(pixel) * bytes;
      matmul::round_block(product, {o, std::min(o + kBlockChannels, end), 0, patches.rows}, format, overflow, first,
                          row_bytes, block, tiers);
    }
  };
  matmul::for_blocks(g.images * problem.groups * g.blocks, threads, round_one, result.tiers);
  return result;
}

}  // namespace norma
