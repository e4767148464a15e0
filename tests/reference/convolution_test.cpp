// The certified convolution against direct sums of exact integers.
#include "reference/certified/products/convolution.hpp"

#include <tbb/global_control.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/reference/exact_integer.hpp"
#include "tests/reference/rational.hpp"

using namespace norma;
using norma::test::Integer;
using norma::test::Random;

namespace {

/// What a problem's tensors hold.
enum class Content { plain, wide, ties };

double entry(Content content, FormatId format, Random& random) {
  if (content == Content::ties) return random.between(-3, 3);
  if (content == Content::plain)
    return decode(format, encode(format, static_cast<double>(random.between(-1000, 1000)) / 300, Overflow::saturate));
  while (true) {
    const double v = decode(format, random.next() & (2 * format_of(format).sign_code() - 1));
    if (std::isfinite(v)) return v;
  }
}

Tensor filled(FormatId format, Shape shape, Content content, Random& random) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, test::code_of(format, entry(content, format, random)));
  return t;
}

/// y[n][o][p] straight from the definition, in units of 2^-298.
Integer direct(const Convolution& c, const std::vector<Integer>& x, const std::vector<Integer>& w, std::int64_t n,
               std::int64_t o, std::int64_t oy, std::int64_t ox) {
  const Shape& xs = c.x->shape;
  const Shape& ws = c.weight->shape;
  const std::int64_t group = o / (ws[0] / c.groups);
  Integer sum;
  for (std::int64_t k = 0; k < ws[1]; ++k)
    for (std::int64_t i = 0; i < ws[2]; ++i)
      for (std::int64_t j = 0; j < ws[3]; ++j) {
        const std::int64_t y = oy * c.stride[0] - c.padding[0] + i * c.dilation[0];
        const std::int64_t z = ox * c.stride[1] - c.padding[1] + j * c.dilation[1];
        if (y < 0 || z < 0 || y >= xs[2] || z >= xs[3]) continue;
        const std::int64_t of_x = ((n * xs[1] + group * ws[1] + k) * xs[2] + y) * xs[3] + z;
        const std::int64_t of_w = ((o * ws[1] + k) * ws[2] + i) * ws[3] + j;
        mpz_addmul(sum.get(), x[static_cast<std::size_t>(of_x)].get(), w[static_cast<std::size_t>(of_w)].get());
      }
  if (c.bias != nullptr) {
    const Integer bias = test::scaled_integer(c.bias->value(o), 298);
    mpz_add(sum.get(), sum.get(), bias.get());
  }
  return sum;
}

std::vector<Integer> integers(const Tensor& t) {
  std::vector<Integer> values;
  for (std::int64_t i = 0; i < t.size(); ++i) values.push_back(test::scaled_integer(t.value(i), 149));
  return values;
}

std::int64_t check(const Convolution& problem, QuickProduct quick, FormatId format) {
  const std::vector<Integer> x = integers(*problem.x), w = integers(*problem.weight);
  const Shape shape = convolution_shape(problem);
  const auto truth = convolution_truth(problem, quick);
  const RoundedRows rounded = round_convolution(problem, format, Overflow::ieee);
  REQUIRE(rounded.y.shape == shape);
  REQUIRE(truth->rows() == shape[0] * shape[1]);
  REQUIRE(truth->cols() == shape[2] * shape[3]);
  const auto cols = static_cast<std::size_t>(truth->cols());
  std::vector<double> mid(cols), radius(cols), magnitude(cols);
  std::vector<Enclosure> close(cols);
  std::int64_t wrong = 0, outside = 0, misjudged = 0;
  for (std::int64_t row = 0; row < truth->rows(); ++row) {
    truth->enclose_quick(row, {mid, radius, magnitude});
    if (row % 5 == 0) truth->enclose_row(row, close);
    for (std::int64_t col = 0; col < truth->cols(); ++col) {
      const auto at = static_cast<std::size_t>(col);
      const Integer y = direct(problem, x, w, row / shape[1], row % shape[1], col / shape[3], col % shape[3]);
      if (rounded.y.code(row * truth->cols() + col) != test::rounded_code(y, 298, format, Overflow::ieee)) ++wrong;
      if (test::distance_exceeds(y, 298, {mid[at]}, radius[at])) ++outside;
      if (row % 5 != 0) continue;
      const Enclosure& e = close[at];
      if (test::distance_exceeds(y, 298, {e.hi, e.lo}, e.radius)) ++outside;
      if (col % 7 != 0) continue;
      if (truth->enclose(row, col).hi != e.hi) ++outside;
      if (static_cast<int>(truth->compare(row, col, e.hi, e.lo)) != test::sign_of_difference(y, 298, {e.hi, e.lo}))
        ++misjudged;
    }
  }
  CHECK(wrong == 0);
  CHECK(outside == 0);
  CHECK(misjudged == 0);
  CHECK(rounded.tiers.undecided == 0);
  CHECK(rounded.tiers.binary64 + rounded.tiers.double_double + rounded.tiers.exact == rounded.y.size());
  return rounded.y.size();
}

}  // namespace

TEST_CASE("every element of a convolution is rounded correctly and enclosed") {
  struct Layout {
    Shape x, weight;
    std::array<std::int64_t, 2> stride, padding, dilation;
    std::int64_t groups;
  };
  const Layout layouts[] = {
      {{2, 3, 17, 19}, {8, 3, 3, 3}, {1, 1}, {1, 1}, {1, 1}, 1},   // as most networks have it
      {{1, 8, 40, 41}, {6, 8, 1, 1}, {1, 1}, {0, 0}, {1, 1}, 1},   // pointwise
      {{1, 3, 32, 32}, {10, 3, 4, 4}, {4, 4}, {0, 0}, {1, 1}, 1},  // patch embedding
      {{2, 6, 15, 14}, {6, 1, 3, 3}, {1, 1}, {1, 1}, {1, 1}, 6},   // depthwise
      {{1, 4, 23, 11}, {6, 2, 5, 2}, {3, 2}, {4, 1}, {2, 3}, 2},   // nothing symmetric
      {{1, 2, 3, 4}, {70, 2, 3, 3}, {1, 1}, {3, 3}, {1, 1}, 1},    // more padding than image
      {{3, 2, 1, 50}, {3, 2, 1, 7}, {1, 2}, {0, 3}, {1, 1}, 1},    // one row
  };
  const FormatId formats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn};
  Random random{17};
  std::int64_t elements = 0;
  for (const Content content : {Content::plain, Content::wide, Content::ties})
    for (const Layout& l : layouts)
      for (const FormatId in : formats) {
        const Tensor x = filled(in, l.x, content, random), weight = filled(in, l.weight, content, random);
        const Tensor bias = filled(formats[random.below(4)], {l.weight[0]}, content, random);
        Convolution problem{.x = &x,
                            .weight = &weight,
                            .stride = l.stride,
                            .padding = l.padding,
                            .dilation = l.dilation,
                            .groups = l.groups};
        if (random.below(2) == 0) problem.bias = &bias;
        INFO(shape_text(l.x) << " by " << shape_text(l.weight) << " in " << name_of(in));
        elements += check(problem, random.below(3) == 0 ? QuickProduct::split : QuickProduct::product,
                          formats[random.below(4)]);
      }
  CHECK(elements > 200'000);
}

TEST_CASE("a convolution is the same for any number of threads, and over many blocks of pixels") {
  Random random{23};
  const Tensor x = filled(FormatId::fp32, {2, 4, 50, 60}, Content::plain, random);
  const Tensor weight = filled(FormatId::fp32, {6, 2, 3, 3}, Content::plain, random);
  const Convolution problem{.x = &x, .weight = &weight, .padding = {1, 1}, .groups = 2};
  check(problem, QuickProduct::product, FormatId::bf16);
  const tbb::global_control workers(tbb::global_control::max_allowed_parallelism, 4);
  const RoundedRows one = round_convolution(problem, FormatId::fp32, Overflow::ieee, 1);
  for (const int threads : {2, 4}) {
    const RoundedRows more = round_convolution(problem, FormatId::fp32, Overflow::ieee, threads);
    CHECK(more.y.bytes == one.y.bytes);
    CHECK(more.tiers == one.tiers);
  }
}

TEST_CASE("what is not finite spoils the pixels that see it, and no others") {
  const double infinity = std::numeric_limits<double>::infinity();
  Tensor x = Tensor::zeros(FormatId::fp32, {1, 1, 5, 5});
  for (std::int64_t i = 0; i < 25; ++i) x.set_code(i, test::code_of(FormatId::fp32, 1));
  x.set_code(12, test::code_of(FormatId::fp32, infinity));
  const Tensor ones = test::tensor(FormatId::fp32, {1, 1, 2, 2}, {1, 1, 1, 1});
  const auto truth = convolution_truth({.x = &x, .weight = &ones});
  for (std::int64_t p = 0; p < 16; ++p) {
    const std::int64_t row = p / 4, col = p % 4;
    const bool sees = (row == 1 || row == 2) && (col == 1 || col == 2);
    CHECK(truth->enclose(0, p).hi == (sees ? infinity : 4.0));
  }
  // The 0 beyond the image is a number: times an infinite weight it is NaN.
  const Tensor weight = test::tensor(FormatId::fp32, {1, 1, 1, 3}, {infinity, 1, 1});
  const Tensor two = test::tensor(FormatId::fp32, {1, 1, 1, 3}, {1, 2, 3});
  const RoundedRows y =
      round_convolution({.x = &two, .weight = &weight, .padding = {0, 1}}, FormatId::fp32, Overflow::ieee);
  CHECK(std::isnan(y.y.value(0)));
  CHECK(y.y.value(1) == infinity);
  CHECK(y.y.value(2) == infinity);
}

TEST_CASE("a convolution that does not fit is refused with its shapes") {
  const Tensor x = Tensor::zeros(FormatId::bf16, {1, 4, 8, 8}), w = Tensor::zeros(FormatId::bf16, {6, 4, 3, 3});
  const Tensor big = Tensor::zeros(FormatId::bf16, {6, 4, 9, 3}), flat = Tensor::zeros(FormatId::bf16, {4, 8});
  CHECK(convolution_fault({.x = &x, .weight = &w}).empty());
  CHECK(convolution_fault({.x = &flat, .weight = &w}) ==
        "convolution needs an x of shape [N, C, H, W], but it is 4x8.");
  CHECK(convolution_fault({.x = &x, .weight = &w, .groups = 2}) ==
        "convolution: x is 1x4x8x8 and groups is 2, so weight needs C / groups channels and a number of outputs that "
        "groups divides, but it is 6x4x3x3.");
  CHECK(convolution_fault({.x = &x, .weight = &big}) ==
        "convolution: the kernel of weight 6x4x9x3 reaches beyond the padded x 1x4x8x8 along H.");
  CHECK(convolution_fault({.x = &x, .weight = &w, .stride = {1, 0}}) ==
        "convolution needs a stride of at least 1 along W.");
  CHECK_THROWS_AS(round_convolution({.x = &x, .weight = &big}, FormatId::fp32, Overflow::ieee), std::invalid_argument);
}
