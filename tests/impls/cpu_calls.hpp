// Calls that the native kernels are tested with: tensors of every format, and for each kernel what its norm takes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "impls/cpu/cpu.hpp"
#include "reference/formats/convert.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/tensors.hpp"

namespace norma {

inline constexpr FormatId kStorage[] = {FormatId::fp32,   FormatId::tf32, FormatId::bf16,     FormatId::fp16,
                                        FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz};

inline Implementation& kernel_named(std::string_view name) {
  for (Implementation* kernel : cpu_implementations())
    if (kernel->name() == name) return *kernel;
  throw std::logic_error("there is no kernel " + std::string(name));
}

inline const NormDef& norm_of(const Implementation& kernel) {
  for (const NormDef* norm : all_norms())
    if (kernel.accepts_norm(norm->name)) return *norm;
  throw std::logic_error(kernel.name() + " computes no norm");
}

inline bool over_channels(const NormDef& norm) {
  return std::ranges::any_of(norm.inputs, [](const NormInput& i) { return i.axes.starts_with("channels"); });
}

/// A call that owns its tensors. Attributes are the norm's fallbacks, 2 groups, and what the kernel insists on.
struct KernelCall {
  Tensors inputs;
  ImplCall call;

  KernelCall(const Implementation& kernel, Tensors tensors, double eps = 1e-6) : inputs(std::move(tensors)) {
    const NormDef& norm = norm_of(kernel);
    call.norm = norm.name;
    for (const NormAttribute& a : norm.attributes) {
      if (a.choices.empty())
        call.numbers[std::string(a.name)] = std::stod(std::string(a.fallback));
      else
        call.words[std::string(a.name)] = a.fallback;
    }
    if (call.numbers.contains("eps")) call.numbers["eps"] = eps;
    if (call.numbers.contains("groups")) call.numbers["groups"] = 2;
    if (kernel.name().find("batchnorm.eval") != std::string::npos) call.words["statistics"] = "running";
    call.inputs = &inputs;
  }
  KernelCall(const KernelCall& other) : inputs(other.inputs), call(other.call) { call.inputs = &inputs; }
  KernelCall& operator=(const KernelCall&) = delete;
  ~KernelCall() = default;

  NormCall norm_call() const { return {.inputs = &inputs, .numbers = call.numbers, .words = call.words}; }
};

inline Shape shape_beside(const NormInput& input, const Shape& x) {
  if (input.axes.starts_with("channels")) return {x[1]};
  if (input.axes.starts_with("cols")) return {x.back()};
  return x;
}

/// The tensors beside x that a kernel takes.
inline bool takes(const Implementation& kernel, std::string_view tensor) {
  const std::string name = kernel.name();
  const auto is = [&](std::string_view norm) { return name.starts_with("cpu." + std::string(norm) + "."); };
  if (is("modulate")) return tensor == "scale" || tensor == "shift";
  if (is("gated_residual")) return tensor == "f" || tensor == "gate";
  if (tensor.starts_with("running_")) return is("instancenorm") || is("batchnorm");
  return tensor == "weight" || tensor == "bias";
}

/// x alone or with what its norm requires; with every other tensor in x's format; in fp32 (not where the kernel takes
/// one format only).
inline std::vector<KernelCall> calls_on(const Implementation& kernel, const Tensor& x, std::uint64_t seed,
                                        double eps = 1e-6) {
  const NormDef& norm = norm_of(kernel);
  const bool eval = kernel.name().find("batchnorm.eval") != std::string::npos;
  const bool eager = kernel.name().ends_with(".eager");
  std::vector<KernelCall> calls;
  for (int kind = 0; kind < (x.format == FormatId::fp32 || eager ? 2 : 3); ++kind) {
    Tensors tensors{{"x", x}};
    std::uint64_t s = seed;
    for (const NormInput& input : norm.inputs) {
      if (input.name == "x" || !takes(kernel, input.name)) continue;
      const bool running = input.name.starts_with("running");
      if (kind == 0 && !input.required && !(eval && running)) continue;
      const FormatId format = kind == 2 && input.name != "f" ? FormatId::fp32 : x.format;
      Tensor t = ordinary(format, shape_beside(input, x.shape), -2, 2, ++s);
      if (input.name == "running_var")
        for (std::int64_t i = 0; i < t.size(); ++i)
          t.set_code(i, encode(format, std::fabs(t.value(i)), Overflow::saturate));
      tensors.emplace(input.name, std::move(t));
    }
    calls.emplace_back(kernel, std::move(tensors), eps);
  }
  return calls;
}

/// Where x stands for a kernel of rows of `cols` values: rows of a matrix, or [N, C, ...] with groups, channels and
/// batches of as many values, give or take.
inline Shape shape_for(const Implementation& kernel, std::int64_t cols) {
  const NormDef& norm = norm_of(kernel);
  if (!over_channels(norm)) return {3, cols};
  if (norm.name == "groupnorm") return {2, 4, (cols + 1) / 2};
  if (norm.name == "instancenorm") return {2, 3, std::max<std::int64_t>(cols, 2)};
  return {3, 2, (cols + 3) / 3};
}

}  // namespace norma
