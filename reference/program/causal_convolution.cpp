#include "reference/program/causal_convolution.hpp"

#include <vector>

#include "reference/formats/tensor.hpp"

namespace norma {

GraphBuilder::Value causal_convolution(GraphBuilder& g, const std::string& name, const ConvolutionSite& what,
                                       GraphBuilder::Value x, GraphBuilder::Value weight, GraphBuilder::Value bias) {
  const Shape xs = g.shape(x), ws = g.shape(weight);
  if (xs.size() != 5 || ws.size() != 5 || xs[2] != ws[1] || what.groups != 1)
    throw ProgramError("site " + name + ": x is " + shape_text(xs) + " and weight is " + shape_text(ws) +
                       "; they must be [B, T, C, H, W] and [O, C, kt, kh, kw], in one group");
  const std::int64_t batch = xs[0], frames = xs[1], channels = xs[2], seen = ws[2];
  GraphBuilder::Value image = x, kernel = weight;
  if (seen > 1) {
    const GraphBuilder::Value padded = g.pad(name + ".padded", x, 1, seen - 1, 0);
    std::vector<GraphBuilder::Value> parts;
    for (std::int64_t k = 0; k < seen; ++k)
      parts.push_back(g.slice(name + ".frame" + std::to_string(k), padded, 1, k, frames));
    image = g.concat(name + ".seen", 2, parts);
    kernel = g.permute(name + ".weight.frames", weight, {0, 2, 1, 3, 4});
  }
  image = g.reshape(name + ".images", image, {batch * frames, seen * channels, xs[3], xs[4]});
  kernel = g.reshape(name + ".weight.image", kernel, {ws[0], seen * channels, ws[3], ws[4]});
  const GraphBuilder::Value y = g.convolution(name, what, image, kernel, bias);
  const Shape ys = g.shape(y);
  return g.reshape(name + ".frames", y, {batch, frames, ys[1], ys[2], ys[3]});
}

}  // namespace norma
