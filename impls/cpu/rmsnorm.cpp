// A call of a native RMSNorm kernel: what it refuses, its rows, its tail, its program and its claim.
#include "impls/cpu/rmsnorm.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kUnit = 0x1p-24;                     // half an ulp of 1 in fp32
constexpr std::int64_t kMostColumns = 1 << 24;        // beyond it a column count need not be an fp32 number
constexpr double kHalfLeastFp32 = 0x1p-150;           // what one underflowing fp32 step loses at most

// Attributes of the norm that say something only where y is quantized.
constexpr std::string_view kUnused[] = {"quant_max", "scale_floor", "scale_cap"};

NORMA_CLONES void scale_row(float* x, float r, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) x[i] *= r;
}
NORMA_CLONES void multiply_row(float* n, const float* weight, std::size_t cols) {
  for (std::size_t i = 0; i < cols; ++i) n[i] *= weight[i];
}

std::vector<float> decoded(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  decode_row(tensor.format, tensor.bytes.data(), values.data(), values.size());
  return values;
}

/// The tensors of a call that these kernels take; ImplSkipped for any other call.
struct Operands {
  const Tensor& x;
  const Tensor* weight;
  double eps;
};

Operands operands_of(const ImplCall& call) {
  const auto x = call.inputs->find("x");
  if (x == call.inputs->end()) throw ImplSkipped("there is no tensor 'x'");
  const Tensor* weight = nullptr;
  for (const auto& [name, tensor] : *call.inputs) {
    if (name == "weight") weight = &tensor;
    else if (name != "x") throw ImplSkipped("this kernel takes no tensor '" + name + "', only x and weight");
  }
  const FormatId t = x->second.format;
  if (t == FormatId::fp64) throw ImplSkipped("x must fit fp32, got fp64");
  if (x->second.cols() < 1 || x->second.cols() > kMostColumns)
    throw ImplSkipped("cols must be 1 to 16777216 (2^24), got " + std::to_string(x->second.cols()));
  if (weight != nullptr && weight->format != FormatId::fp32 && weight->format != t)
    throw ImplSkipped("weight must be fp32 or x's format " + std::string(name_of(t)) + ", got " +
                      std::string(name_of(weight->format)));
  if (weight != nullptr && weight->size() != x->second.cols())
    throw ImplSkipped("weight must have " + std::to_string(x->second.cols()) + " values, got shape " +
                      shape_text(weight->shape));
  std::optional<double> eps;
  for (const auto& [name, value] : call.numbers) {
    if (name == "eps") eps = value;
    else if (std::ranges::find(kUnused, name) == std::end(kUnused) && value != 0)
      throw ImplSkipped("this kernel has no attribute '" + name + "' other than 0");
  }
  if (!eps) throw ImplSkipped("eps is not given");
  for (const auto& [name, word] : call.words) {
    if (name == "eps_place" && word == "inside") continue;
    if (name == "quant" && word == "none") continue;
    throw ImplSkipped("this kernel has no " + name + "=" + word + " (eps is inside the root, y is not quantized)");
  }
  return {x->second, weight, *eps};
}

/// What the values of a row can make happen: the extremes of its finite nonzero magnitudes.
struct Range {
  double least = std::numeric_limits<double>::infinity();
  double largest = 0;
  bool finite = true;
};

Range range_of(const float* values, std::size_t count) {
  Range range;
  for (std::size_t i = 0; i < count; ++i) {
    const double magnitude = std::fabs(static_cast<double>(values[i]));
    if (!std::isfinite(magnitude)) range.finite = false;
    else if (magnitude != 0) range.least = std::min(range.least, magnitude);
    range.largest = std::max(range.largest, std::isfinite(magnitude) ? magnitude : 0);
  }
  return range;
}

/// The claim for one row, in ulp of y; none where a step may overflow, or underflow by more than is bounded here.
///
/// W roundings to fp32 (units u = 2^-24) lie between the exact y and the value p that the last cast rounds:
/// |p - y| <= d |y| with d = W u / (1 - W u), by the counting lemma (numerics note §3), so |p - y| <= e ulp(y)
/// with e = d 2^P, because |y| < 2^P ulp(y), P the precision of T. If p lies in y's binade or below, the cast
/// adds at most 1/2 ulp(y); in the binade above, 1 ulp(y). But there p is at most e ulp(y) above the binade's
/// edge, so that for e <= 1 it rounds to the edge itself, which lies between y and p. Hence in all
/// e + 1/2 for e <= 1, else e + 1.
///
/// Tail A rounds n = x r to T before. That is 2^-P |y|, one ulp(y), more in e; where n may be subnormal in T
/// it is an absolute 2^(emin - P), times |w|, and ulp(y) >= 2^(emin - P + 1): |w| / 2 if that is more. An fp32
/// step that may underflow loses 2^-150. Later roundings scale these by at most 1 + d.
std::optional<double> row_claim(const RmsStatistic& statistic, RmsTail tail, FormatId t, std::size_t cols,
                                double eps, const Range& x, const std::optional<Range>& w) {
  const Format& f = format_of(t);
  const double n_cols = static_cast<double>(cols);
  const double w_largest = w ? w->largest : 1;
  // mean(x^2) + eps lies between these two.
  const double root_low = std::max(eps, x.largest * x.largest / n_cols);
  const double root_high = x.largest * x.largest + eps;
  const double limit = statistic.accumulator == FormatId::fp32 ? 0x1p127 : 0x1p250;
  if (!(eps >= 0) || !(root_low >= 0x1p-250) || !(n_cols * root_high <= limit)) return std::nullopt;
  if (!(std::sqrt(n_cols) * 1.001 * std::max(1.0, w_largest) <= max_finite(t))) return std::nullopt;

  // Squares and mean that underflow, and an eps that fp32 holds as a subnormal, move the sum under the root.
  const double lost = statistic.accumulator == FormatId::fp32 ? 3 * kHalfLeastFp32 / root_low : 0;
  if (!(lost <= 0x1p-24)) return std::nullopt;

  double roundings = statistic.weight(t, cols) + lost / kUnit + 1;  // ... and x r
  if (w) roundings += 1;
  const bool last_is_fp32 = t == FormatId::fp32;  // then the last fp32 step is itself the last rounding
  if (last_is_fp32) roundings -= 1;
  if (!(roundings * kUnit <= 0x1p-4)) return std::nullopt;

  const double precision = std::ldexp(1.0, f.precision);
  const double least_ulp = std::ldexp(1.0, f.emin - f.precision + 1);
  const double n_low = x.least / std::sqrt(root_high) * 0.999;  // of the nonzero ones
  const double d = roundings * kUnit / (1 - roundings * kUnit);
  double lost_ulp = 0;
  if (n_low < 0x1p-126 && !(last_is_fp32 && !w)) lost_ulp += kHalfLeastFp32 * w_largest / least_ulp;
  if (w && !last_is_fp32) lost_ulp += kHalfLeastFp32 / least_ulp;
  if (w && tail == RmsTail::before_weight && !last_is_fp32)
    lost_ulp += n_low < min_normal(t) ? std::max(1.0, w_largest / 2) : 1.0;
  const double e = d * precision + lost_ulp * (1 + d);
  // The slack covers the roundings of this function itself.
  return (e + (e <= 1 ? 0.5 : 1.0)) * (1 + 0x1p-20);
}

class RmsNorm final : public Implementation {
 public:
  RmsNorm(const RmsStatistic& statistic, RmsTail tail) : statistic_(statistic), tail_(tail) {}

  std::string name() const override {
    std::string name = "cpu.rmsnorm." + std::string(statistic_.name);
    switch (tail_) {
      case RmsTail::once: break;
      case RmsTail::before_weight: name += ".cast_before_weight"; break;
    }
    return name;
  }
  std::string title() const override {
    std::string title(statistic_.title);
    switch (tail_) {
      case RmsTail::once: return title + "; y = rT((x r) w)";
      case RmsTail::before_weight: return title + "; y = rT(rT(x r) w)";
    }
    return title;
  }
  bool accepts_norm(std::string_view norm) const override { return norm == "rmsnorm"; }

  Declaration declares(const ImplCall& call) const override {
    const Operands in = operands_of(call);
    const auto cols = static_cast<std::size_t>(in.x.cols());
    const std::vector<float> x = decoded(in.x);
    std::optional<Range> w;
    if (in.weight != nullptr) {
      const std::vector<float> weight = decoded(*in.weight);
      w = range_of(weight.data(), weight.size());
      if (!w->finite) return {};
    }
    std::optional<double> claim;
    for (std::size_t at = 0; at < x.size(); at += cols) {
      const Range row = range_of(x.data() + at, cols);
      if (!row.finite) continue;                        // its outputs are 0 or NaN, exactly
      if (row.largest == 0 && in.eps == 0) continue;  // 0/0 has no truth to be far from
      const auto of_row = row_claim(statistic_, tail_, in.x.format, cols, in.eps, row, w);
      if (!of_row) return {};
      claim = std::max(claim.value_or(0), *of_row);
    }
    return {.path = {}, .profile = {}, .claim_ulp = claim};
  }

  std::optional<Program> declared_program(const ImplCall& call) const override {
    const Operands in = operands_of(call);
    Binding binding{.x = in.x.format, .formats = {}, .attributes = call.numbers, .cols = in.x.cols(), .profile = {}};
    if (in.weight != nullptr) binding.formats.emplace("weight", in.weight->format);
    Builder b("rmsnorm", binding);
    const FormatRef t = b.x_format();
    const bool fp32 = t.id == FormatId::fp32;
    const Operand x = b.input("x");
    const Operand weight = in.weight != nullptr ? b.input("weight") : Operand{};
    const Operand r = statistic_.declare(b, x, b.attribute("eps"));
    const std::string last = fp32 ? "y" : "y_f32";  // a cast from fp32 to fp32 is no step
    Operand value;
    if (in.weight == nullptr) {
      value = b.mul(last, kFp32, x, r);
    } else {
      Operand n = b.mul("n", kFp32, x, r);
      if (tail_ == RmsTail::before_weight && !fp32) n = b.cast("n_T", t, n);
      value = b.mul(last, kFp32, n, weight);
    }
    b.output("y", fp32 ? value : b.cast("y", t, value));
    return b.finish();
  }

  Tensors run(const ImplCall& call) override {
    const Operands in = operands_of(call);
    const FormatId t = in.x.format;
    const auto cols = static_cast<std::size_t>(in.x.cols());
    const std::size_t row_bytes = cols * static_cast<std::size_t>(format_of(t).storage_bytes());
    const std::vector<float> weight = in.weight != nullptr ? decoded(*in.weight) : std::vector<float>();
    Tensor y = Tensor::zeros(t, in.x.shape);
    std::vector<float> row(cols);
    for (std::size_t at = 0; at < y.bytes.size(); at += row_bytes) {
      decode_row(t, in.x.bytes.data() + at, row.data(), cols);
      scale_row(row.data(), statistic_.reciprocal_root(row.data(), cols, in.eps), cols);
      if (in.weight != nullptr) {
        if (tail_ == RmsTail::before_weight) round_row(t, row.data(), cols, Overflow::ieee);
        multiply_row(row.data(), weight.data(), cols);
      }
      encode_row(t, row.data(), y.bytes.data() + at, cols, Overflow::ieee);
    }
    Tensors outputs;
    outputs.emplace("y", std::move(y));
    return outputs;
  }

 private:
  const RmsStatistic& statistic_;
  RmsTail tail_;
};

}  // namespace

std::unique_ptr<Implementation> make_rmsnorm(const RmsStatistic& statistic, RmsTail tail) {
  return std::make_unique<RmsNorm>(statistic, tail);
}

}  // namespace norma
