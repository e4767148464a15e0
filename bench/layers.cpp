// norma_layers FILE: a real model's layers, one after the other. How far the stack of cast paths is from the truth
// after each layer, beside what the model's own code returned, and how the error grows.
//
// FILE: safetensors of python/capture/capture_smollm2_layers.py: the block's inputs, weights of layer k as "k.NAME",
// what was returned after it as "k.y"; metadata path, count, attributes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "harness/trace/growth.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/emulate/graph.hpp"
#include "reference/blocks/block.hpp"
#include "reference/certified/blocks/real_graph.hpp"

namespace {

using namespace norma;

auto values_of(const Tensor& t) {
  return [&t](std::int64_t i) { return Ball{t.value(i), 0, 0}; };
}
auto values_of(const RealTensor& t) {
  return [&t](std::int64_t i) { return t.at(i); };
}

/// |a - b| / |b| over all elements, and over the rows but the first: a model's first token may be far larger than all
/// others.
struct Distance {
  double whole = 0, rest = 0;
};

template <typename A, typename B>
Distance distance(const A& a, const B& b) {
  const auto left = values_of(a);
  const auto right = values_of(b);
  double squares = 0, norm = 0, first_squares = 0, first_norm = 0;
  for (std::int64_t i = 0; i < b.size(); ++i) {
    const Ball x = left(i), y = right(i);
    const double d = (x.h - y.h) + (x.l - y.l);
    squares += d * d, norm += y.h * y.h;
    if (i < b.shape.back()) first_squares += d * d, first_norm += y.h * y.h;
  }
  return {.whole = std::sqrt(squares / norm), .rest = std::sqrt((squares - first_squares) / (norm - first_norm))};
}

/// What one layer adds to what it is given: the path's error and the model's.
struct Added {
  double path = 0, model = 0;
};

void print_growth(const char* whose, const std::vector<double>& errors) {
  const Growth growth = growth_of(errors);
  fmt::print("{}: {:.3e} k (rms misfit {:.0f} %), {:.3e} sqrt(k) (rms misfit {:.0f} %), k^{:.2f}\n", whose,
             growth.linear.factor, 100 * growth.linear.misfit, growth.root.factor, 100 * growth.root.misfit,
             growth.exponent);
}

/// Of one layer: its output's balls, for values that are given exactly or as balls.
RealTensor evaluated(const Graph& layer, RealTensors values, const RealOptions& options) {
  for (const Site& site : layer.sites) {
    std::vector<RealTensor> arguments;
    for (const Argument& argument : site.arguments) arguments.push_back(values.at(argument.value));
    values[site.name()] = evaluate_site(site, arguments, options).front();
  }
  return values.at(layer.outputs.front());
}

/// A layer's place in the stack. Radii are worst cases: over two layers they grow by 10^8, over three they say nothing.
/// So each layer is certified for itself, from the midpoints of the last one's balls; two such stacks of different
/// precision tell how far that is from the truth.
struct Stack {
  Tensor path;         ///< what the cast paths give, one after the other
  RealTensor truth;    ///< by kCloseSlices
  RealTensor rougher;  ///< by kQuickSlices
  double radius = 0;   ///< of the last layer's balls, relative
  Added added{};       ///< by the last layer, on what the model gave it
};

class Model {
 public:
  Model(const std::string& file, int threads) : name_(file), file_(read_safetensors(file)), threads_(threads) {
    path_ = find_block_path(metadata("path"));
    if (path_ == nullptr) throw ProgramError(file + " names no path of the catalogue: " + metadata("path"));
    BlockCall call{.x = x().shape, .numbers = {}};
    const nlohmann::json attributes = nlohmann::json::parse(metadata("attributes"));
    for (const auto& [name, value] : attributes.items()) call.numbers[name] = value.get<double>();
    call = with_defaults(*find_block(path_->block), call);
    layer_ = path_->build({.x = call.x, .numbers = call.numbers, .format = x().format});
  }

  const BlockPath& path() const { return *path_; }
  const Tensor& x() const { return tensor("x"); }
  int count() const { return std::atoi(metadata("count").c_str()); }
  /// What the model's own code gave after layer k.
  const Tensor& returned(int k) const { return tensor(std::to_string(k) + ".y"); }

  /// One layer further.
  void advance(Stack& stack, int k) const {
    Tensors inputs = inputs_of(k);
    inputs["x"] = k == 0 ? x() : returned(k - 1);
    const auto none = [](const std::string&) { return false; };
    const std::string& y = layer_.outputs.front();
    RealTensors real;
    for (const auto& [name, tensor] : inputs) real[name] = exactly(tensor);
    const RealTensor alone = evaluated(layer_, real, {.threads = threads_});
    stack.added = {.path = distance(emulate_graph(layer_, inputs, {.threads = threads_}, none).at(y), alone).whole,
                   .model = distance(returned(k), alone).whole};
    if (k > 0) inputs["x"] = std::move(stack.path);
    stack.path = emulate_graph(layer_, inputs, {.threads = threads_}, none).at(y);
    if (k > 0) real["x"] = std::move(stack.rougher);
    stack.rougher = midpoints(evaluated(layer_, real, {.threads = threads_}));
    if (k > 0) real["x"] = std::move(stack.truth);
    stack.truth = evaluated(layer_, real, {.slices = kCloseSlices, .threads = threads_});
    double radii = 0, norm = 0;
    for (std::int64_t i = 0; i < stack.truth.size(); ++i) {
      const Ball ball = stack.truth.at(i);
      radii += ball.r * ball.r, norm += ball.h * ball.h;
    }
    stack.radius = std::sqrt(radii / norm);
    stack.truth = midpoints(stack.truth);
  }

 private:
  const std::string& metadata(const std::string& key) const {
    const auto found = file_.metadata.find(key);
    if (found == file_.metadata.end()) throw ProgramError(name_ + " has no metadata '" + key + "'" + kMadeBy);
    return found->second;
  }
  const Tensor& tensor(const std::string& name) const {
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) throw ProgramError(name_ + " has no tensor '" + name + "'" + kMadeBy);
    return found->second;
  }
  Tensors inputs_of(int k) const {
    Tensors inputs;
    for (const GraphInput& input : layer_.inputs)
      if (const std::string& name = input.value.name; name != "x")
        inputs[name] = tensor(input.weight ? std::to_string(k) + "." + name : name);
    return inputs;
  }

  static constexpr const char* kMadeBy = "; python/capture/capture_smollm2_layers.py writes such files";
  std::string name_;
  TensorFile file_;
  int threads_;
  const BlockPath* path_ = nullptr;
  Graph layer_;
};

int run(const std::string& file, int layers, int threads) {
  const Model model(file, threads);
  const int count = layers > 0 ? std::min(layers, model.count()) : model.count();
  fmt::print("{} {} {}, {} layers\n", model.path().name, name_of(model.x().format), shape_text(model.x().shape), count);
  fmt::print(
      "|error| / |truth| after each layer; rest: of all rows but the first; adds: the layer alone, on what the model\n"
      "gave it; radius: of the layer alone; open: between the truth and one of less precision\n");
  fmt::print("{:>5} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6} {:>8} {:>8}\n", "layer", "|truth|",
             "path", "model", "path-model", "path rest", "model rest", "path adds", "model adds", "bits", "radius",
             "open");
  Stack stack;
  std::vector<double> own, theirs, own_rest, their_rest;
  for (int k = 0; k < count; ++k) {
    model.advance(stack, k);
    const Tensor& returned = model.returned(k);
    const Distance path = distance(stack.path, stack.truth), actual = distance(returned, stack.truth);
    double norm = 0;
    std::int64_t differing = 0;
    for (std::int64_t i = 0; i < returned.size(); ++i) {
      norm += stack.truth.at(i).h * stack.truth.at(i).h;
      differing += stack.path.code(i) != returned.code(i) ? 1 : 0;
    }
    fmt::print(
        "{:>5} {:>9.4g} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>5.1f}% {:>8.0e} "
        "{:>8.0e}\n",
        k + 1, std::sqrt(norm), path.whole, actual.whole, distance(stack.path, returned).whole, path.rest, actual.rest,
        stack.added.path, stack.added.model,
        100 * static_cast<double>(differing) / static_cast<double>(returned.size()), stack.radius,
        distance(stack.rougher, stack.truth).whole);
    own.push_back(path.whole), theirs.push_back(actual.whole);
    own_rest.push_back(path.rest), their_rest.push_back(actual.rest);
  }
  if (count < 2) return 0;
  print_growth("path", own);
  print_growth("model", theirs);
  print_growth("path, rest", own_rest);
  print_growth("model, rest", their_rest);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    fmt::print(stderr, "usage: norma_layers FILE [LAYERS [THREADS]]\n");
    return 2;
  }
  try {
    return run(argv[1], argc > 2 ? std::atoi(argv[2]) : 0, argc > 3 ? std::max(1, std::atoi(argv[3])) : 1);
  } catch (const std::exception& error) {
    fmt::print(stderr, "norma_layers: {}\n", error.what());
    return 2;
  }
}
