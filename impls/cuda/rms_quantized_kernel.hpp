// RMSNorm of rows with quantized output. A maximum is exact in any order, so that of a row goes by the tree of its sum; that
// of a block of columns by the neighbouring lanes which have it.
#pragma once

#include "impls/cuda/quantize_device.hpp"
#include "impls/cuda/rms_quantized_launch.hpp"
#include "impls/cuda/rmsnorm_kernel.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct RmsQuantizedArguments {
  RmsArguments<T, W> norm;
  std::uint8_t* codes;
  const float* scale;
  void* scales;
  QuantizedRow row;
  float quant_max, scale_floor, scale_cap, global_scale;
};

/// What threads of a row do together.
struct WarpPerRow {
  NORMA_DEVICE float sum(float v) const { return warp_sum(v); }
  NORMA_DEVICE float largest(float v) const { return over_warp(v, [](float a, float b) { return larger(a, b); }); }
};
struct BlockPerRow {
  NORMA_DEVICE float sum(float v) const { return block_sum(v, shared_memory<float>()); }
  NORMA_DEVICE float largest(float v) const {
    return over_block(v, shared_memory<float>(), [](float a, float b) { return larger(a, b); });
  }
};

template <class T>
struct QuantizedValue {
  NORMA_DEVICE float operator()(float x, float w) const {
    float z = mul(x, r);
    if (row == QuantizedRow::rounded_twice) z = rounded_to<T>(z);
    if (weighted) z = mul(z, w);
    return row == QuantizedRow::fp32 ? z : rounded_to<T>(z);
  }
  float r;
  bool weighted;
  QuantizedRow row;
};

/// Bytes of E8M0 rounded up, as TransformerEngine's quantize_mxfp8 makes them.
struct Mxfp8 {
  NORMA_DEVICE Mxfp8(float amax, float) : byte(e8m0_up(mul(amax, div(1.0f, 448.0f)))) {
    inverse = byte == 0 ? 0.0f : div(1.0f, float_of(byte << 23));
  }
  unsigned byte;
  float inverse;
};
/// S = e4m3(min(amax * (global / 6), FLT_MAX)), as TransformerEngine's quantize_transpose_nvfp4 makes it.
struct Nvfp4 {
  static constexpr float kMost = 0x1.fffffep127f;
  NORMA_DEVICE Nvfp4(float amax, float global)
      : byte(store<E4m3>(smaller(mul(amax, mul(global, div(1.0f, 6.0f))), kMost))) {
    inverse = smaller(div(1.0f, mul(load<E4m3>(static_cast<std::uint8_t>(byte)), div(1.0f, global))), kMost);
  }
  unsigned byte;
  float inverse;
};

template <unsigned kCount>
NORMA_DEVICE void store_fp4(std::uint8_t* to, const float (&values)[kCount]) {
  Pack<E4m3, kCount / 2> pack;
  NORMA_UNROLL
  for (unsigned i = 0; i < kCount / 2; ++i)
    pack.v[i] = static_cast<std::uint8_t>(to_e2m1(values[2 * i]) | to_e2m1(values[2 * i + 1]) << 4);
  *reinterpret_cast<Pack<E4m3, kCount / 2>*>(to) = pack;
}

template <Quant kQuant>
inline constexpr unsigned kBlockOf = block_of(kQuant);

template <Quant kQuant, class T, class W>
NORMA_DEVICE void quantize_blocks(const RmsQuantizedArguments<T, W>& arguments, const RowPart<T>& part, std::size_t from,
                                  const QuantizedValue<T>& z) {
  constexpr unsigned kBlock = kBlockOf<kQuant>, kLanes = kBlock / kVector<T>;
  const typename W::Stored* const weight = arguments.norm.weight;
  part.with_warp([&](unsigned first, bool inside, const float (&values)[kVector<T>]) {
    float q[kVector<T>] = {};
    float amax = 0;
    if (inside) {
      float w[kVector<T>] = {};
      if (weight != nullptr) RowPart<T>::template take_parameters<W>(weight + first, w);
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; ++i) {
        q[i] = z(values[i], w[i]);
        amax = larger(amax, magnitude(q[i]));
      }
    }
    for (unsigned mask = 1; mask < kLanes; mask *= 2) amax = larger(amax, shuffle_xor(amax, mask));
    if (!inside) return;
    unsigned byte;
    float inverse;
    if constexpr (kQuant == Quant::mxfp8) {
      const Mxfp8 scale(amax, 1.0f);
      byte = scale.byte, inverse = scale.inverse;
    } else {
      const Nvfp4 scale(amax, arguments.global_scale);
      byte = scale.byte, inverse = scale.inverse;
    }
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i) q[i] = mul(q[i], inverse);
    if constexpr (kQuant == Quant::mxfp8) store_columns<E4m3>(arguments.codes + from + first, q);
    else store_fp4(arguments.codes + (from + first) / 2, q);
    if (first % kBlock == 0)
      static_cast<std::uint8_t*>(arguments.scales)[(from + first) / kBlock] = static_cast<std::uint8_t>(byte);
  });
}

template <class T, class W, Quant kQuant, class Row>
NORMA_DEVICE void rms_quantized_row(const RmsQuantizedArguments<T, W>& arguments, unsigned row, unsigned index,
                                    unsigned threads, const Row& all) {
  const RmsArguments<T, W>& a = arguments.norm;
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  const RowPart<T> part(a.x + from, a.cols, a.aligned, index, threads);
  const float sum = all.sum(part.fold(0.0f, [](float s, float v) { return fma(v, v, s); }));
  const QuantizedValue<T> z{.r = rms_root(sum, a.cols, a.eps, a.approximate_root),
                            .weighted = a.weight != nullptr,
                            .row = arguments.row};
  if constexpr (kQuant == Quant::mxfp8 || kQuant == Quant::nvfp4) {
    quantize_blocks<kQuant>(arguments, part, from, z);
  } else {
    const typename W::Stored* const parameters[1] = {a.weight};
    std::uint8_t* const codes = arguments.codes + from;
    if constexpr (kQuant == Quant::fixed) {
      const float inverse = div(1.0f, *arguments.scale);
      part.template write<W, E4m3>(codes, parameters, [&](float v, const float (&p)[1]) { return mul(z(v, p[0]), inverse); });
    } else {
      float amax = 0;
      part.template visit<W>(parameters, [&](float v, const float (&p)[1]) { amax = larger(amax, magnitude(z(v, p[0]))); });
      const float scale =
          larger(div(smaller(all.largest(amax), arguments.scale_cap), arguments.quant_max), arguments.scale_floor);
      if (index == 0) static_cast<float*>(arguments.scales)[row] = scale;
      part.template write<W, E4m3>(codes, parameters, [&](float v, const float (&p)[1]) { return div(z(v, p[0]), scale); });
    }
  }
}

template <class T, class W, Quant kQuant>
NORMA_KERNEL void rms_quantized_warp_per_row(const RmsQuantizedArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.norm.rows) return;
  rms_quantized_row<T, W, kQuant>(a, row, thread_index() % kWarp, kWarp, WarpPerRow{});
}

template <class T, class W, Quant kQuant>
NORMA_KERNEL_OF(kMostRowThreads) void rms_quantized_block_per_row(const RmsQuantizedArguments<T, W> a) {
  rms_quantized_row<T, W, kQuant>(a, block_index(), thread_index(), block_threads(), BlockPerRow{});
}

template <class T, class W, Quant kQuant>
void start_rms_quantized(const RmsQuantizedLaunch& l, const LaunchOptions& options) {
  const RmsQuantizedArguments<T, W> arguments{.norm = rms_arguments<T, W>(l.norm),
                                              .codes = reinterpret_cast<std::uint8_t*>(l.norm.y),
                                              .scale = reinterpret_cast<const float*>(l.scale),
                                              .scales = l.scales,
                                              .row = l.row,
                                              .quant_max = l.quant_max,
                                              .scale_floor = l.scale_floor,
                                              .scale_cap = l.scale_cap,
                                              .global_scale = l.global_scale};
  if (l.norm.row == RowThreads::warp)
    start<rms_quantized_warp_per_row<T, W, kQuant>>(rms_shape(l.norm), options, arguments);
  else
    start<rms_quantized_block_per_row<T, W, kQuant>>(rms_shape(l.norm), options, arguments);
}

template <class T, class W>
void start_rms_quantized(const RmsQuantizedLaunch& l, const LaunchOptions& options) {
  switch (l.quant) {
    case Quant::fixed: return start_rms_quantized<T, W, Quant::fixed>(l, options);
    case Quant::per_token: return start_rms_quantized<T, W, Quant::per_token>(l, options);
    case Quant::mxfp8: return start_rms_quantized<T, W, Quant::mxfp8>(l, options);
    case Quant::nvfp4: return start_rms_quantized<T, W, Quant::nvfp4>(l, options);
  }
}

template <class T>
void start_rms_quantized(const RmsQuantizedLaunch& l, const LaunchOptions& options) {
  if (l.norm.weight_fp32) start_rms_quantized<T, Fp32>(l, options);
  else start_rms_quantized<T, T>(l, options);
}

inline void start_rms_quantized(const RmsQuantizedLaunch& l, const LaunchOptions& options) {
  switch (l.norm.format) {
    case FormatId::bf16: return start_rms_quantized<Bf16>(l, options);
    case FormatId::fp16: return start_rms_quantized<Fp16>(l, options);
    default: return start_rms_quantized<Fp32, Fp32>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE
