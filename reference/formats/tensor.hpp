// A tensor as bits: a format, a shape, the stored bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "reference/formats/format.hpp"

namespace norma {

using Shape = std::vector<std::int64_t>;

inline std::int64_t element_count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// Row-major bits. `bytes` holds element_count(shape) stored values, little-endian.
struct Tensor {
  FormatId format = FormatId::fp32;
  Shape shape;
  std::vector<std::byte> bytes;

  static Tensor zeros(FormatId format, Shape shape) {
    Tensor t{.format = format, .shape = std::move(shape), .bytes = {}};
    t.bytes.resize(static_cast<std::size_t>(element_count(t.shape) * format_of(format).storage_bytes()));
    return t;
  }

  std::int64_t size() const { return element_count(shape); }
  std::int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  std::int64_t rows() const { return cols() == 0 ? 0 : size() / cols(); }

  std::uint64_t code(std::int64_t i) const {
    const Format& f = format_of(format);
    const auto n = static_cast<std::size_t>(f.storage_bytes());
    std::uint64_t stored = 0;
    std::memcpy(&stored, bytes.data() + static_cast<std::size_t>(i) * n, n);
    return stored >> f.storage_shift();
  }
  void set_code(std::int64_t i, std::uint64_t code) {
    const Format& f = format_of(format);
    const auto n = static_cast<std::size_t>(f.storage_bytes());
    const std::uint64_t stored = code << f.storage_shift();
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * n, &stored, n);
  }
  double value(std::int64_t i) const { return decode(format, code(i)); }
};

/// Tensors and exact scalar attributes (eps, ...) by name: what a norm is applied to, what it returns.
using Tensors = std::map<std::string, Tensor, std::less<>>;
using Attributes = std::map<std::string, double, std::less<>>;

/// "4x3072"; "scalar" for no axes.
std::string shape_text(const Shape& shape);

}  // namespace norma
