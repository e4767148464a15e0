// One copy of the plain loops, in the namespace NORMA_PLAIN_LEVEL; compiled with the flags of its level.
//
// Uses nothing of the standard library but builtins: an inline function of it, compiled for AVX-512 here, could be the
// one that the linker keeps for everybody.
#include "bench/reference/plain.hpp"

#pragma GCC diagnostic ignored "-Wconversion"  // double to float is what a plain loop does

// glibc's vector functions, as -ffast-math would call them; elsewhere a call an element.
#ifdef NORMA_PLAIN_VECTOR_LIBRARY
#define NORMA_VECTOR_CALL __attribute__((simd("notinbranch"), const))
#else
#define NORMA_VECTOR_CALL __attribute__((const))
#endif
extern "C" {
NORMA_VECTOR_CALL double exp(double) noexcept;
NORMA_VECTOR_CALL double erf(double) noexcept;
NORMA_VECTOR_CALL double tanh(double) noexcept;
}

namespace norma::bench::NORMA_PLAIN_LEVEL {

extern const PlainLoops kLoops;

namespace {

float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
uint32_t to_bits(float value) { return __builtin_bit_cast(uint32_t, value); }
double rsqrt(double v) { return 1 / __builtin_sqrt(v); }

// ---- formats ----

struct Fp32 {
  using Stored = float;
  static double load(float v) { return static_cast<double>(v); }
  static float store(double v) { return static_cast<float>(v); }
};

struct Bf16 {
  using Stored = uint16_t;
  static double load(uint16_t v) { return static_cast<double>(from_bits(static_cast<uint32_t>(v) << 16)); }
  static uint16_t store(double v) {
    const float f = static_cast<float>(v);
    const uint32_t bits = to_bits(f);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<uint16_t>(f == f ? rounded : 0x7fc0);
  }
};

struct E4m3fn {
  using Stored = uint8_t;
  static uint8_t store(double v) {
    const uint32_t bits = to_bits(static_cast<float>(v));
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t normal = ((magnitude + 0x7ffff + ((magnitude >> 20) & 1)) >> 20) - ((127 - 7) << 3);
    const uint32_t subnormal = to_bits(from_bits(magnitude) + 0x1p14f) - 0x46800000;  // 2^14's last place is 2^-9
    const uint32_t code = magnitude < 0x3c800000 ? subnormal : normal;
    return static_cast<uint8_t>((code < 0x7f ? code : 0x7f) | ((bits >> 24) & 0x80));
  }
};

// ---- norms ----

template <class In>
double sum(const typename In::Stored* x, size_t count) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < count; ++i) s += In::load(x[i]);
  return s;
}

template <class In>
double sum_of_squares(const typename In::Stored* x, size_t count, double centre) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < count; ++i) {
    const double d = In::load(x[i]) - centre;
    s += d * d;
  }
  return s;
}

template <class In>
double strict_sum(const typename In::Stored* x, size_t count) {
  double s = 0;
  for (size_t i = 0; i < count; ++i) s += In::load(x[i]);
  return s;
}

template <class In>
double strict_sum_of_squares(const typename In::Stored* x, size_t count, double centre) {
  double s = 0;
  for (size_t i = 0; i < count; ++i) {
    const double d = In::load(x[i]) - centre;
    s += d * d;
  }
  return s;
}

template <class In, class Out>
void scale_row(const typename In::Stored* __restrict x, const float* __restrict w, size_t count, double r,
               typename Out::Stored* __restrict y) {
  for (size_t i = 0; i < count; ++i) y[i] = Out::store(In::load(x[i]) * static_cast<double>(w[i]) * r);
}

template <class In, class Out>
void affine_row(const typename In::Stored* __restrict x, const float* __restrict w, const float* __restrict b,
                size_t count, double centre, double r, typename Out::Stored* __restrict y) {
  for (size_t i = 0; i < count; ++i)
    y[i] = Out::store((In::load(x[i]) - centre) * r * static_cast<double>(w[i]) + static_cast<double>(b[i]));
}

template <class In, class Out>
void affine_channel(const typename In::Stored* __restrict x, size_t count, double centre, double factor, double bias,
                    typename Out::Stored* __restrict y) {
  for (size_t i = 0; i < count; ++i) y[i] = Out::store((In::load(x[i]) - centre) * factor + bias);
}

template <class In, class Out>
struct Norm {
  const PlainNorm& n;

  const typename In::Stored* x(size_t row) const { return static_cast<const typename In::Stored*>(n.x) + row * n.cols; }
  typename Out::Stored* y(size_t row) const { return static_cast<typename Out::Stored*>(n.y) + row * n.cols; }

  void rms(double (*squares)(const typename In::Stored*, size_t, double)) const {
    for (size_t row = 0; row < n.rows; ++row) {
      const double s = squares(x(row), n.cols, 0);
      scale_row<In, Out>(x(row), n.weight, n.cols, rsqrt(s / static_cast<double>(n.cols) + n.eps), y(row));
    }
  }

  void layer(double (*total)(const typename In::Stored*, size_t),
             double (*squares)(const typename In::Stored*, size_t, double)) const {
    const auto count = static_cast<double>(n.cols);
    for (size_t row = 0; row < n.rows; ++row) {
      const double mean = total(x(row), n.cols) / count;
      const double s = squares(x(row), n.cols, mean);
      affine_row<In, Out>(x(row), n.weight, n.bias, n.cols, mean, rsqrt(s / count + n.eps), y(row));
    }
  }

  void group() const {
    const auto count = static_cast<double>(n.cols);
    const size_t channels = n.cols / n.span;
    for (size_t row = 0; row < n.rows; ++row) {
      const double mean = sum<In>(x(row), n.cols) / count;
      const double r = rsqrt(sum_of_squares<In>(x(row), n.cols, mean) / count + n.eps);
      const size_t first = row % n.period * channels;
      for (size_t c = 0; c < channels; ++c)
        affine_channel<In, Out>(x(row) + c * n.span, n.span, mean, r * static_cast<double>(n.weight[first + c]),
                                static_cast<double>(n.bias[first + c]), y(row) + c * n.span);
    }
  }

  void batch() const {
    const auto count = static_cast<double>(n.rows / n.period * n.cols);
    for (size_t c = 0; c < n.period; ++c) {
      double total = 0, s = 0;
      for (size_t row = c; row < n.rows; row += n.period) total += sum<In>(x(row), n.cols);
      const double mean = total / count;
      for (size_t row = c; row < n.rows; row += n.period) s += sum_of_squares<In>(x(row), n.cols, mean);
      const double factor = rsqrt(s / count + n.eps) * static_cast<double>(n.weight[c]);
      for (size_t row = c; row < n.rows; row += n.period)
        affine_channel<In, Out>(x(row), n.cols, mean, factor, static_cast<double>(n.bias[c]), y(row));
    }
  }

  void affine() const {
    for (size_t row = 0; row < n.rows; ++row) {
      const size_t c = row % n.period;
      const double factor = rsqrt(static_cast<double>(n.variance[c]) + n.eps) * static_cast<double>(n.weight[c]);
      affine_channel<In, Out>(x(row), n.cols, static_cast<double>(n.mean[c]), factor, static_cast<double>(n.bias[c]),
                              y(row));
    }
  }

  void run() const {
    switch (n.kind) {
      case PlainKind::rms: return rms(sum_of_squares<In>);
      case PlainKind::layer: return layer(sum<In>, sum_of_squares<In>);
      case PlainKind::group: return group();
      case PlainKind::batch: return batch();
      case PlainKind::affine: return affine();
      case PlainKind::strict_rms: return rms(strict_sum_of_squares<In>);
      case PlainKind::strict_layer: return layer(strict_sum<In>, strict_sum_of_squares<In>);
    }
  }
};

template <class In>
void norm_from(const PlainNorm& n) {
  switch (n.out) {
    case PlainFormat::fp32: return Norm<In, Fp32>{n}.run();
    case PlainFormat::bf16: return Norm<In, Bf16>{n}.run();
    case PlainFormat::e4m3fn: return Norm<In, E4m3fn>{n}.run();
  }
}

void norm(const PlainNorm& n) { n.in == PlainFormat::bf16 ? norm_from<Bf16>(n) : norm_from<Fp32>(n); }

// ---- scoring ----

/// The error of one row's elements: 2^23 / 2^e of y = x w r by its exponent field.
template <class In>
void score_row(const typename In::Stored* x, const float* w, const float* got, size_t count, double r, double& most,
               double& all) {
  double largest = 0, total = 0;
#pragma omp simd reduction(+ : total) reduction(max : largest)
  for (size_t i = 0; i < count; ++i) {
    const double y = In::load(x[i]) * static_cast<double>(w[i]) * r;
    const double difference = static_cast<double>(got[i]) - y;
    const uint64_t field = __builtin_bit_cast(uint64_t, y) & 0x7ff0000000000000;
    const double error = __builtin_fabs(difference * __builtin_bit_cast(double, ((2046ull + 23) << 52) - field));
    total += error;
    largest = largest < error ? error : largest;
  }
  all += total;
  most = most < largest ? largest : most;
}

template <class In>
PlainScore score_from(const PlainNorm& n) {
  PlainScore score;
  double all = 0;
  for (size_t row = 0; row < n.rows; ++row) {
    const auto* x = static_cast<const typename In::Stored*>(n.x) + row * n.cols;
    const auto* got = static_cast<const float*>(n.y) + row * n.cols;
    const double r = rsqrt(sum_of_squares<In>(x, n.cols, 0) / static_cast<double>(n.cols) + n.eps);
    score_row<In>(x, n.weight, got, n.cols, r, score.max, all);
  }
  score.mean_abs = all / static_cast<double>(n.rows * n.cols);
  return score;
}

PlainScore score_rms(const PlainNorm& n) {
  return n.in == PlainFormat::bf16 ? score_from<Bf16>(n) : score_from<Fp32>(n);
}

// ---- functions ----

void function(PlainFunction f, const float* __restrict x, float* __restrict y, size_t count) {
  const auto each = [&](auto of) {
    for (size_t i = 0; i < count; ++i) y[i] = static_cast<float>(of(static_cast<double>(x[i])));
  };
  switch (f) {
    case PlainFunction::exp: return each([](double v) { return exp(v); });
    case PlainFunction::silu: return each([](double v) { return v / (1 + exp(-v)); });
    case PlainFunction::gelu: return each([](double v) { return 0.5 * v * (1 + erf(0.70710678118654752440 * v)); });
    case PlainFunction::gelu_tanh:
      return each([](double v) { return 0.5 * v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v))); });
  }
}

void softmax(const float* x, float* y, size_t rows, size_t cols, double* __restrict row) {
  for (size_t r = 0; r < rows; ++r) {
    const float* __restrict from = x + r * cols;
    float* __restrict to = y + r * cols;
    float largest = from[0];
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < cols; ++i) largest = from[i] > largest ? from[i] : largest;
    const auto shift = static_cast<double>(largest);
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < cols; ++i) {
      row[i] = exp(static_cast<double>(from[i]) - shift);
      total += row[i];
    }
    const double factor = 1 / total;
    for (size_t i = 0; i < cols; ++i) to[i] = static_cast<float>(row[i] * factor);
  }
}

// ---- memory ----

void copy(const uint64_t* __restrict from, uint64_t* __restrict to, size_t words) {
  for (size_t i = 0; i < words; ++i) to[i] = from[i] + 1;
}

uint64_t read(const uint64_t* from, size_t words) {
  uint64_t total = 0;
  for (size_t i = 0; i < words; ++i) total += from[i];
  return total;
}

constexpr bool kVectorLibrary =
#ifdef NORMA_PLAIN_VECTOR_LIBRARY
    true;
#else
    false;
#endif

}  // namespace

constinit const PlainLoops kLoops{.level = NORMA_PLAIN_NAME,
                                  .vector_library = kVectorLibrary,
                                  .norm = norm,
                                  .score_rms = score_rms,
                                  .function = function,
                                  .softmax = softmax,
                                  .copy = copy,
                                  .read = read};

}  // namespace norma::bench::NORMA_PLAIN_LEVEL
