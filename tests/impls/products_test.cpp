// Orders of products, bit for bit, against loops that are written term by term; stacks of blocks.
#include <catch2/catch_test_macros.hpp>

#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "impls/emulate/graph.hpp"
#include "impls/emulate/products.hpp"
#include "tests/impls/tensors.hpp"

using namespace norma;
using Integer = boost::multiprecision::cpp_int;

namespace {

std::vector<float> values(std::size_t count, FormatId format, std::uint64_t seed) {
  const Tensor t = ordinary(format, {static_cast<std::int64_t>(count)}, -9, 5, seed);
  std::vector<float> result;
  for (std::int64_t i = 0; i < t.size(); ++i) result.push_back(static_cast<float>(t.value(i)));
  return result;
}

float plain_sum(std::span<const float> a, std::span<const float> b, float start, bool contract) {
  float sum = start;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const float product = a[k] * b[k];
    sum = contract ? std::fma(a[k], b[k], sum) : sum + product;
  }
  return sum;
}

/// In units of 2^-400.
Integer fixed(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  const Integer digits = static_cast<std::int64_t>(std::ldexp(fraction, 53));
  return exponent - 53 + 400 >= 0 ? Integer(digits << (exponent - 53 + 400)) : Integer(digits >> -(exponent - 53 + 400));
}

Integer cut(const Integer& value, const Integer& unit) {
  return value < 0 ? Integer(-(-value / unit * unit)) : Integer(value / unit * unit);
}

/// Terms and accumulator cut off below 2^-25 of the largest's power of two; their sum cut off to 24 bits.
float tensor_core(float start, std::span<const float> a, std::span<const float> b) {
  std::vector<Integer> terms{fixed(static_cast<double>(start))};
  for (std::size_t k = 0; k < a.size(); ++k) terms.push_back(fixed(static_cast<double>(a[k]) * static_cast<double>(b[k])));
  Integer largest = 0, sum = 0;
  for (const Integer& term : terms) largest = abs(term) > largest ? Integer(abs(term)) : largest;
  if (largest == 0) return start;
  const Integer unit = Integer(1) << (msb(largest) - 25);
  for (const Integer& term : terms) sum += cut(term, unit);
  if (sum == 0) return 0;
  const unsigned top = msb(Integer(abs(sum)));
  if (top > 23) sum = cut(sum, Integer(1) << (top - 23));
  return static_cast<float>(std::ldexp(sum.convert_to<double>(), -400));
}

float expected(const ProductSum& sum, std::span<const float> a, std::span<const float> b, float start, bool started) {
  const std::size_t n = a.size();
  switch (sum.order) {
    case ProductOrder::sequential: return plain_sum(a, b, start, sum.contract);
    case ProductOrder::exact: {
      Integer total = fixed(static_cast<double>(start));
      for (std::size_t k = 0; k < n; ++k) total += fixed(static_cast<double>(a[k]) * static_cast<double>(b[k]));
      if (total == 0) return 0;
      const Integer size = abs(total);  // to nearest even, by hand
      const unsigned top = msb(size), drop = top > 23 ? top - 23 : 0;
      Integer kept = size >> drop;
      const Integer rest = size - (kept << drop), half = drop == 0 ? Integer(0) : Integer(1) << (drop - 1);
      if (drop > 0 && (rest > half || (rest == half && (kept & 1) != 0))) ++kept;
      const double magnitude = std::ldexp(kept.convert_to<double>(), static_cast<int>(drop) - 400);
      return static_cast<float>(total < 0 ? -magnitude : magnitude);
    }
    case ProductOrder::blocked:
    case ProductOrder::split: {
      const auto count = static_cast<std::size_t>(sum.count);
      const std::size_t block = sum.order == ProductOrder::blocked ? count : (n + count - 1) / count;
      if (block >= n) return plain_sum(a, b, start, sum.contract);
      float total = start;
      for (std::size_t k = 0; k < n; k += block) {
        const std::size_t length = std::min(block, n - k);
        const float part = plain_sum(a.subspan(k, length), b.subspan(k, length), 0, sum.contract);
        total = k == 0 && !started ? part : total + part;
      }
      return total;
    }
    case ProductOrder::tensor_core:
      for (std::size_t k = 0; k < n; k += static_cast<std::size_t>(sum.count))
        start = tensor_core(start, a.subspan(k, std::min(static_cast<std::size_t>(sum.count), n - k)),
                            b.subspan(k, std::min(static_cast<std::size_t>(sum.count), n - k)));
      return start;
  }
  return 0;
}

}  // namespace

TEST_CASE("a product has the bits of its declared order, and orders differ", "[products]") {
  const std::vector<ProductSum> orders{{.order = ProductOrder::exact},
                                       {.order = ProductOrder::sequential},
                                       {.order = ProductOrder::sequential, .contract = false},
                                       {.order = ProductOrder::blocked, .count = 16},
                                       {.order = ProductOrder::blocked, .count = 16, .contract = false},
                                       {.order = ProductOrder::split, .count = 3},
                                       {.order = ProductOrder::tensor_core, .count = 16},
                                       {.order = ProductOrder::tensor_core, .count = 4}};
  for (const FormatId format : {FormatId::bf16, FormatId::fp32})
    for (const std::size_t depth : {1U, 7U, 16U, 100U, 333U})
      for (const bool started : {false, true}) {
        const std::size_t rows = 6, cols = 35;  // neither a multiple of what is taken at a time
        const auto a = values(rows * depth, format, depth), b = values(cols * depth, format, depth + 1);
        const auto start = started ? values(cols, format, depth + 2) : std::vector<float>{};
        std::vector<std::vector<float>> all;
        for (const ProductSum& sum : orders) {
          const ProductCall call{.rows = static_cast<std::int64_t>(rows), .cols = static_cast<std::int64_t>(cols),
                                 .depth = static_cast<std::int64_t>(depth), .a = a.data(), .b = b.data(), .start = start};
          const std::vector<float> got = ordered_product(sum, call);
          std::int64_t wrong = 0;
          for (std::size_t i = 0; i < rows; ++i)
            for (std::size_t j = 0; j < cols; ++j) {
              const float want = expected(sum, std::span(a).subspan(i * depth, depth), std::span(b).subspan(j * depth, depth),
                                          started ? start[j] : 0.0f, started);
              if (got[i * cols + j] != want) ++wrong;
            }
          CAPTURE(text_of(sum), sum.contract, depth, started, name_of(format));
          CHECK(wrong == 0);
          all.push_back(got);
        }
        if (depth == 333 && format == FormatId::fp32)
          for (std::size_t k = 1; k < all.size(); ++k) CHECK(all[k] != all[k - 1]);
      }
  CHECK_THROWS_AS(ordered_product({.order = ProductOrder::blocked, .count = 0}, {}), ProgramError);
  CHECK_THROWS_AS(ordered_product({.order = ProductOrder::sequential, .accumulator = FormatId::fp16}, {}), ProgramError);
}

TEST_CASE("a stack of blocks is one after the other, each with its own weights", "[products]") {
  GraphBuilder g("two");
  const auto x = g.input("x", {3, 8}, FormatId::fp32), w = g.weight("w", {8, 8}, FormatId::fp32),
             v = g.input("v", {8}, FormatId::fp32);
  g.output(g.linear("y", {.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{FormatId::fp32}}}, x, w, v));
  const Graph one = g.finish();
  const Stream streams[] = {{"y", "x"}};
  const Graph three = stacked(one, streams, 3);
  Tensors inputs{{"x", ordinary(FormatId::fp32, {3, 8}, -2, 2, 1)}, {"v", ordinary(FormatId::fp32, {8}, -2, 2, 2)}};
  for (int k = 0; k < 3; ++k)
    inputs[std::to_string(k) + ".w"] = ordinary(FormatId::fp32, {8, 8}, -3, 0, static_cast<std::uint64_t>(k) + 3);
  Tensor stream = inputs.at("x");
  for (int k = 0; k < 3; ++k)
    stream = emulate_graph(one, {{"x", stream}, {"v", inputs.at("v")}, {"w", inputs.at(std::to_string(k) + ".w")}}).at("y");
  CHECK(three.outputs == std::vector<std::string>{"y"});
  CHECK(three.inputs.size() == 5);
  CHECK(emulate_graph(three, inputs).at("y").bytes == stream.bytes);
  const Stream wrong[] = {{"z", "x"}};
  CHECK_THROWS_AS(stacked(one, wrong, 2), ProgramError);
}
