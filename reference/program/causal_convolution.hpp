// Convolutions of moving images that look back only: each frame's and those before it, as channels of one image.
#pragma once

#include <string>

#include "reference/program/graph.hpp"

namespace norma {

/// y[b, t, o, p] = sum over k, c, i, j of x[b, t + k - (kt - 1), c, p + (i, j)] weight[o, c, k, i, j] + bias[o], frames
/// before the first are 0; `what`: stride, padding and dilation of the image, one group. x [B, T, C, H, W], weight
/// [O, C, kt, kh, kw], result [B, T, O, OH, OW].
///
/// The site `name` is the convolution of [B T, kt C, H, W], channels frame by frame; all others move values.
/// Errors: ProgramError naming the site and what does not fit.
GraphBuilder::Value causal_convolution(GraphBuilder& g, const std::string& name, const ConvolutionSite& what,
                                       GraphBuilder::Value x, GraphBuilder::Value weight, GraphBuilder::Value bias);

}  // namespace norma
