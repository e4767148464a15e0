// The formulas of blocks of images, written from their definitions.
#include "reference/blocks/image_formulas.hpp"

namespace norma::blocks {

Value groupnorm(GraphBuilder& g, const std::string& name, Value x, std::int64_t groups, double eps,
                const std::optional<ChannelModulation>& modulation) {
  const std::int64_t channels = g.shape(x)[1];
  std::vector<std::pair<std::string, Value>> arguments{
      {"x", x}, {"weight", g.weight(name + ".weight", {channels})}, {"bias", g.weight(name + ".bias", {channels})}};
  if (modulation) arguments.insert(arguments.end(), {{"scale", modulation->scale}, {"shift", modulation->shift}});
  const std::string statistics =
      "m = mean fp64 x order=exact\n"
      "d = sub exact x, m\n"
      "v = mean fp64 square(d) order=exact\n"
      "r = rsqrt exact v + eps\n"
      "n = mul exact d, r\n";
  const std::string plain =
      "norm groupnorm\nview groups\n"
      "in x:T weight:fp64 bias:fp64 eps\n" +
      statistics + "out y = fma exact n, weight, bias\n";
  const std::string modulated =
      "norm ada_groupnorm\nview groups\n"
      "in x:T weight:fp64 bias:fp64 scale:fp64[channels] shift:fp64[channels] eps\n" +
      statistics +
      "w = fma exact n, weight, bias\n"
      "out y = fma exact w, 1 + scale, shift\n";
  return formula(g, name, modulation ? modulated : plain, std::move(arguments),
                 {{"eps", eps}, {"groups", static_cast<double>(groups)}});
}

Value add_to_channels(GraphBuilder& g, const std::string& name, Value x, Value embedding) {
  return formula(g, name,
                 "norm add\nview channels\n"
                 "in x:T embedding:fp64[channels]\n"
                 "out y = add exact x, embedding\n",
                 {{"x", x}, {"embedding", embedding}});
}

Value convolution(GraphBuilder& g, const std::string& name, Value x, std::int64_t out, std::int64_t side) {
  const Value weight = g.weight(name + ".weight", {out, g.shape(x)[1], side, side}),
              bias = g.weight(name + ".bias", {out});
  return g.convolution(name, {.padding = {side / 2, side / 2}}, x, weight, bias);
}

ImageChannels image_channels(std::string_view block, const BlockCall& call, std::size_t rank, std::int64_t groups) {
  if (call.x.size() != rank)
    throw ProgramError(std::string(block) + " needs x of shape " +
                       (rank == 5 ? "[batch, channels, frames, height, width]" : "[batch, channels, height, width]") +
                       ", got " + shape_text(call.x));
  const auto given = call.numbers.find("channels_out");
  const bool same = given == call.numbers.end() || given->second == 0;
  const ImageChannels channels{.in = call.x[1], .out = same ? call.x[1] : whole(call, "channels_out")};
  for (const std::int64_t count : {channels.in, channels.out})
    if (groups != 0 && count % groups != 0)
      throw ProgramError("groups=" + std::to_string(groups) + " must divide the " + std::to_string(count) +
                         " channels of " + std::string(block));
  return channels;
}

}  // namespace norma::blocks
