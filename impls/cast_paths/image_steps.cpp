// Sites of blocks of images as torch computes them.
#include "impls/cast_paths/image_steps.hpp"

#include <cmath>

#include "reference/formats/tensor.hpp"

namespace norma::blocks {

namespace {

ConvolutionSite site_of(const PathBuilder& p, std::int64_t side) {
  return {.padding = {side / 2, side / 2},
          .sum = {.order = ProductOrder::sequential},
          .rounding = {.format = FormatRef{p.format()}}};
}

}  // namespace

std::int64_t channels_out_of(const BlockBinding& binding, std::string_view path, std::size_t rank) {
  if (binding.x.size() != rank)
    throw ProgramError(std::string(path) + " needs x of shape " +
                       (rank == 5 ? "[batch, channels, frames, height, width]" : "[batch, channels, height, width]") +
                       ", got " + shape_text(binding.x));
  const auto given = binding.numbers.find("channels_out");
  if (given == binding.numbers.end() || given->second == 0) return binding.x[1];
  if (given->second != std::floor(given->second) || !(given->second >= 1) || given->second > 0x1p31)
    throw ProgramError(std::string(path) + " needs channels_out, a whole number");
  return static_cast<std::int64_t>(given->second);
}

Value convolution(PathBuilder& p, const std::string& name, Value x, std::int64_t out, std::int64_t side) {
  const Value weight = p.weight(name + ".weight", {out, p.g.shape(x)[1], side, side}),
              bias = p.weight(name + ".bias", {out});
  return p.g.convolution(name, site_of(p, side), x, weight, bias);
}

Value autocast_convolution(PathBuilder& p, const std::string& name, Value x, std::int64_t out, std::int64_t side) {
  const Value weight = p.g.weight(name + ".weight", {out, p.g.shape(x)[1], side, side}, FormatId::fp32);
  const Value bias = p.g.weight(name + ".bias", {out}, FormatId::fp32);
  const Value x_in_t = cast(p, name + ".x", x, p.format());
  const Value weight_in_t = cast(p, name + ".weight.T", weight, p.format());
  return p.g.convolution(name, site_of(p, side), x_in_t, weight_in_t, cast(p, name + ".bias.T", bias, p.format()));
}

Value group_norm(PathBuilder& p, const std::string& name, std::string_view path, Value x, FormatId parameters,
                 std::vector<std::pair<std::string, Value>> more) {
  const std::int64_t channels = p.g.shape(x)[1];
  std::vector<std::pair<std::string, Value>> arguments{{"x", x},
                                                       {"weight", p.g.weight(name + ".weight", {channels}, parameters)},
                                                       {"bias", p.g.weight(name + ".bias", {channels}, parameters)}};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Attributes& numbers = p.binding().numbers;
  return p.by_path(name, path, std::move(arguments), {{"eps", numbers.at("eps")}, {"groups", numbers.at("groups")}});
}

Value eager_add(PathBuilder& p, const std::string& name, Value x, Value other) {
  return p.by_text(name, "norm add\nin x:T other:T[rows,cols]\ns = add fp32 x, other\nout y = cast T s\n",
                   {{"x", x}, {"other", other}});
}

Value eager_add_to_channels(PathBuilder& p, const std::string& name, Value x, Value embedding) {
  return p.by_text(
      name, "norm add\nview channels\nin x:T embedding:T[channels]\ns = add fp32 x, embedding\nout y = cast T s\n",
      {{"x", x}, {"embedding", embedding}});
}

Value cast(PathBuilder& p, const std::string& name, Value x, FormatId format) {
  if (p.g.format(x) == format) return x;
  return p.by_text(name, "norm cast\nin x:T\nout y = cast " + std::string(name_of(format)) + " x\n", {{"x", x}});
}

}  // namespace norma::blocks
