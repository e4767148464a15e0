// The orders in which a Reduce adds.
#include "impls/emulate/orders.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "impls/emulate/accumulator.hpp"
#include "impls/emulate/torch_gradient_orders.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

using Index = std::ptrdiff_t;
__extension__ typedef unsigned __int128 UInt128;

/// One accumulation step: a plus term i, the square fused where the program contracts.
template <class Arithmetic, class Term>
struct Accumulator {
  using Value = typename Arithmetic::Value;
  Arithmetic arithmetic;
  bool contract;
  const Term* terms;

  Value start(Index i) const { return step(Value{0}, i); }
  Value step(Value a, Index i) const {
    const Value t = static_cast<Value>(terms[i]);
    return contract ? arithmetic.fma(t, t, a) : arithmetic.add(a, t);
  }
  Value plain(Value a, Index i) const { return arithmetic.add(a, value(i)); }
  Value value(Index i) const {
    const Value t = static_cast<Value>(terms[i]);
    return contract ? arithmetic.mul(t, t) : t;
  }
  Value add(Value a, Value b) const { return arithmetic.add(a, b); }
  Value sequential(Index from, Index to) const {
    Value a{0};
    for (Index i = from; i < to; ++i) a = step(a, i);
    return a;
  }
  Accumulator from(Index first) const { return {arithmetic, contract, terms + first}; }
  Accumulator<Fp32, Term> in_fp32(Index first) const { return {{}, contract, terms + first}; }
};

/// a + b of binary64 numbers, rounded to odd: any rounding to 51 bits or fewer is then right.
double odd_sum(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);  // exact: TwoSum
  if (error == 0 || (std::bit_cast<std::uint64_t>(sum) & 1) != 0) return sum;
  return std::nextafter(sum, error > 0 ? HUGE_VAL : -HUGE_VAL);
}

/// What is added is exact: a product of two fp32 numbers, as binary64 holds it.
struct FusedFp32 {
  using Value = float;
  Value add(Value a, Value b) const { return a + b; }
  Value round(double t) const { return static_cast<float>(t); }
};
struct FusedFp64 {
  using Value = double;
  Value add(Value a, Value b) const { return a + b; }
  Value round(double t) const { return t; }
};
struct FusedNarrow {
  using Value = double;
  FormatId format;
  Value add(Value a, Value b) const { return rounded_op(Op::add, a, b, 0, format, Overflow::ieee); }
  Value round(double t) const { return rounded_op(Op::cast, t, 0, 0, format, Overflow::ieee); }
};
template <class Arithmetic>
struct FusedTerms {
  using Value = typename Arithmetic::Value;
  Arithmetic arithmetic;
  const double* terms;

  Value start(Index i) const { return step(Value{0}, i); }
  Value step(Value a, Index i) const { return arithmetic.round(odd_sum(static_cast<double>(a), terms[i])); }
  Value plain(Value a, Index i) const { return add(a, value(i)); }
  Value value(Index i) const { return arithmetic.round(terms[i]); }
  Value add(Value a, Value b) const { return arithmetic.add(a, b); }
  Value sequential(Index from, Index to) const {
    Value a{0};
    for (Index i = from; i < to; ++i) a = step(a, i);
    return a;
  }
  FusedTerms from(Index first) const { return {arithmetic, terms + first}; }
  FusedTerms<FusedFp32> in_fp32(Index first) const { return {{}, terms + first}; }
};

template <class Acc>
typename Acc::Value pairwise(const Acc& acc, Index from, Index to, Index leaf) {
  if (to - from <= leaf) return acc.sequential(from, to);
  const Index middle = from + (to - from) / 2;
  return acc.add(pairwise(acc, from, middle, leaf), pairwise(acc, middle, to, leaf));
}

template <class Acc>
typename Acc::Value by_halves(const Acc& acc, std::vector<typename Acc::Value>& values) {
  for (std::size_t width = values.size() / 2; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) values[l] = acc.add(values[l], values[l + width]);
  return values[0];
}

template <class Acc>
std::vector<typename Acc::Value> strided(const Acc& acc, Index n, Index threads, Index vec) {
  std::vector<typename Acc::Value> partial(static_cast<std::size_t>(threads), 0);
  for (Index base = 0; base < n; base += threads * vec)
    for (Index t = 0; t < threads; ++t)
      for (Index i = base + t * vec; i < std::min(n, base + (t + 1) * vec); ++i) {
        auto& p = partial[static_cast<std::size_t>(t)];
        p = acc.step(p, i);
      }
  return partial;
}

/// A shuffle tree over the 32 lanes of a warp; a butterfly and a shift-down give lane 0 the same bits, as
/// addition commutes.
template <class Acc>
typename Acc::Value block_tree(const Acc& acc, std::vector<typename Acc::Value> partial) {
  std::vector<typename Acc::Value> warps;
  for (std::size_t w = 0; w < partial.size(); w += 32) {
    std::vector<typename Acc::Value> lanes(partial.begin() + static_cast<Index>(w),
                                           partial.begin() + static_cast<Index>(std::min(partial.size(), w + 32)));
    warps.push_back(by_halves(acc, lanes));
  }
  return by_halves(acc, warps);
}

Index ceil_log2(Index x) {
  // torch's CeilLog2: 1 for x <= 2.
  return x <= 2 ? 1 : static_cast<Index>(std::bit_width(static_cast<std::size_t>(x - 1)));
}

/// torch's multi_row_sum: `Streams` interleaved cascades over q items of W lanes each, 4 levels deep.
/// Source: aten/src/ATen/native/cpu/SumKernel.cpp (v2.6.0), as modelled and measured bit for bit in the
/// survey of torch's CPU order (1.13 and 2.6; default, avx2, avx512).
template <class Acc, int kLanes, int kStreams, class AddItem>
void cascade(const Acc& acc, Index items, const AddItem& add_item,
             std::array<std::array<typename Acc::Value, kLanes>, kStreams>& result) {
  using Value = typename Acc::Value;
  constexpr int kLevels = 4;
  const Index power = std::max<Index>(4, ceil_log2(items) / kLevels);
  const Index block = Index{1} << power;
  std::array<std::array<std::array<Value, kLanes>, kStreams>, kLevels> level{};
  Index i = 0;
  while (i + block <= items) {
    for (Index j = 0; j < block; ++j, ++i)
      for (int k = 0; k < kStreams; ++k) add_item(level[0][static_cast<std::size_t>(k)], kStreams * i + k);
    for (std::size_t j = 1; j < kLevels; ++j) {
      for (std::size_t k = 0; k < kStreams; ++k)
        for (std::size_t l = 0; l < kLanes; ++l) {
          level[j][k][l] = acc.add(level[j][k][l], level[j - 1][k][l]);
          level[j - 1][k][l] = 0;
        }
      if ((i & ((block - 1) << (static_cast<Index>(j) * power))) != 0) break;
    }
  }
  for (; i < items; ++i)
    for (int k = 0; k < kStreams; ++k) add_item(level[0][static_cast<std::size_t>(k)], kStreams * i + k);
  for (std::size_t k = 0; k < kStreams; ++k)
    for (std::size_t l = 0; l < kLanes; ++l) {
      Value s = level[0][k][l];
      for (std::size_t j = 1; j < kLevels; ++j) s = acc.add(s, level[j][k][l]);
      result[k][l] = s;
    }
}

/// torch's row sum over n vectors of W lanes: 4 streams, leftovers into stream 0, streams 1..3 into stream 0.
template <class Acc, int kLanes, class AddItem>
std::array<typename Acc::Value, kLanes> row_of_vectors(const Acc& acc, Index vectors, const AddItem& add_item) {
  std::array<std::array<typename Acc::Value, kLanes>, 4> streams{};
  const Index quarter = vectors / 4;
  cascade<Acc, kLanes, 4>(acc, quarter, add_item, streams);
  for (Index i = 4 * quarter; i < vectors; ++i) add_item(streams[0], i);
  for (std::size_t k = 1; k < 4; ++k)
    for (std::size_t l = 0; l < kLanes; ++l) streams[0][l] = acc.add(streams[0][l], streams[k][l]);
  return streams[0];
}

/// halves = 1: fp32 rows. halves = 2: a load is 2 W 16-bit elements whose two halves are added first.
template <class Acc, int kLanes>
typename Acc::Value torch_row(const Acc& acc, Index n, int halves) {
  using Value = typename Acc::Value;
  const Index width = kLanes * halves;
  const auto add_lanes = [&](std::array<Value, kLanes>& into, Index vector) {
    const Index at = vector * width;
    if (halves == 1) {
      for (Index l = 0; l < kLanes; ++l) into[static_cast<std::size_t>(l)] = acc.step(into[static_cast<std::size_t>(l)], at + l);
    } else {
      for (Index l = 0; l < kLanes; ++l) {
        auto& value = into[static_cast<std::size_t>(l)];
        value = acc.add(value, acc.add(acc.start(at + l), acc.start(at + kLanes + l)));
      }
    }
  };
  if (n < width) {
    const auto single = [&](std::array<Value, 1>& into, Index i) { into[0] = acc.step(into[0], i); };
    return acc.add(Value{0}, row_of_vectors<Acc, 1>(acc, n, single)[0]);
  }
  const Index vectors = n / width;
  const auto lanes = row_of_vectors<Acc, kLanes>(acc, vectors, add_lanes);
  Value total = acc.sequential(vectors * width, n);
  for (const Value& lane : lanes) total = acc.add(total, lane);
  return acc.add(Value{0}, total);
}

template <class Acc>
typename Acc::Value torch_row(const Acc& acc, Index n, int lanes, int halves) {
  switch (lanes) {
    case 4: return torch_row<Acc, 4>(acc, n, halves);
    case 8: return torch_row<Acc, 8>(acc, n, halves);
    case 16: return torch_row<Acc, 16>(acc, n, halves);
    default: throw ProgramError("order torch_cpu(" + std::to_string(lanes) + "): torch has 4, 8 or 16 lanes");
  }
}

/// torch.linalg.vector_norm's sum of squares: one vector accumulator over loads of `halves` vectors, lanes in
/// order, then the tail.
template <class Acc>
typename Acc::Value torch_norm(const Acc& acc, Index n, Index lanes, Index halves) {
  std::vector<typename Acc::Value> partial(static_cast<std::size_t>(lanes), 0);
  const Index width = lanes * std::max<Index>(1, halves);
  const Index body = n - n % width;
  for (Index i = 0; i < body; ++i) {
    auto& p = partial[static_cast<std::size_t>(i % lanes)];
    p = acc.step(p, i);
  }
  auto total = partial[0];
  for (std::size_t l = 1; l < partial.size(); ++l) total = acc.add(total, partial[l]);
  for (Index i = body; i < n; ++i) total = acc.step(total, i);
  return total;
}

/// torch's ColumnwiseMoments: the channels of a group at one position are a run; its vectors of W lanes, the last one
/// filled up with zeros, are added to one accumulator (of 16-bit loads both halves first). Lanes by halves at the end.
/// Source: aten/src/ATen/native/cpu/group_norm_kernel.cpp (v2.6.0), bits compared with 2.15.
template <class Acc>
typename Acc::Value torch_columns(const Acc& acc, Index n, Index lanes, Index halves, Index run) {
  using Value = typename Acc::Value;
  std::vector<Value> partial(static_cast<std::size_t>(lanes), 0);
  const Index width = lanes * halves;
  for (Index from = 0; from < n; from += run)
    for (Index load = from; load < std::min(n, from + run); load += width)
      for (Index l = 0; l < lanes && load + l < std::min(n, from + run); ++l) {
        auto& p = partial[static_cast<std::size_t>(l)];
        const Index second = load + lanes + l;
        const bool pair = halves == 2 && second < std::min(n, from + run);
        p = pair ? acc.add(p, acc.step(acc.start(load + l), second)) : acc.step(p, load + l);
      }
  return by_halves(acc, partial);
}

/// torch's batch_norm over contiguous 16-bit images: the whole loads of 2 W elements of every image go to W lanes, one
/// vector after the other; what is left of the images to one accumulator. Then that accumulator plus the sum of the
/// lanes in order. Source: aten/src/ATen/native/cpu/batch_norm_kernel.cpp (v2.6.0), bits compared with 2.15.
template <class Acc>
typename Acc::Value torch_runs(const Acc& acc, Index n, Index lanes, Index run, Fused fused = Fused::all) {
  using Value = typename Acc::Value;
  std::vector<Value> partial(static_cast<std::size_t>(lanes), 0);
  Value rest{0};
  for (Index from = 0; from < n; from += run) {
    const Index to = std::min(n, from + run), body = from + (to - from) / (2 * lanes) * (2 * lanes);
    for (Index i = from; i < body; ++i) {
      auto& p = partial[static_cast<std::size_t>((i - from) % lanes)];
      p = acc.step(p, i);
    }
    for (Index i = body; i < to; ++i) rest = fused == Fused::all ? acc.step(rest, i) : acc.plain(rest, i);
  }
  Value total{0};
  for (const Value& p : partial) total = acc.add(total, p);
  return acc.add(rest, total);
}

template <class Acc>
typename Acc::Value torch_cpu_runs(const Acc& acc, Index n, int lanes, Index run) {
  typename Acc::Value total{0};
  for (Index from = 0; from < n; from += run)
    total = acc.add(total, torch_row(acc.from(from), std::min(run, n - from), lanes, 1));
  return total;
}

/// torch's sum over a strided dimension: columns in groups of four vectors of 8 (of fewer than 8 columns: of four) take
/// one cascade each, the columns left over the row's four streams. Source: aten/src/ATen/native/cpu/SumKernel.cpp
/// (v2.6.0), bits compared with 2.15.
template <class Acc>
typename Acc::Value torch_outer(const Acc& acc, Index n, bool one_cascade) {
  using Value = typename Acc::Value;
  const auto single = [&](std::array<Value, 1>& into, Index i) { into[0] = acc.step(into[0], i); };
  if (!one_cascade) return acc.add(Value{0}, row_of_vectors<Acc, 1>(acc, n, single)[0]);
  std::array<std::array<Value, 1>, 1> stream{};
  cascade<Acc, 1, 1>(acc, n, single, stream);
  return acc.add(Value{0}, stream[0][0]);
}

/// In the accumulator's format, every sum rounded to binary32 first: a 16-bit buffer that fp32 code adds to.
template <class Acc>
typename Acc::Value through_fp32(const Acc& acc, Index n) {
  const auto in_fp32 = acc.in_fp32(0);
  typename Acc::Value total{0};
  for (Index i = 0; i < n; ++i)
    total = acc.add(typename Acc::Value{0}, static_cast<typename Acc::Value>(in_fp32.step(static_cast<float>(total), i)));
  return total;
}

/// ONNX Runtime's vectors of a row on x86-64 with AVX2: one accumulator of W lanes for whole vectors, lanes by halves, then
/// the rest in order. Of a contracted sum the compiler squares whole groups of the rest first and adds them one by one.
/// Source: bits of 1.31.1, by inputs that show which terms were added before which.
template <class Acc>
typename Acc::Value ort_rows(const Acc& acc, Index n, Index lanes, Index group) {
  const Index body = n - n % lanes, squared = group > 0 ? n - (n - body) % group : body;
  std::vector<typename Acc::Value> partial = strided(acc, body, lanes, 1);
  auto total = by_halves(acc, partial);
  for (Index i = body; i < squared; ++i) total = acc.add(total, acc.start(i));
  for (Index i = squared; i < n; ++i) total = acc.step(total, i);
  return total;
}

template <class Acc>
typename Acc::Value sum_in(const Acc& acc, const Order& order, Index n, Index column = 0) {
  using Value = typename Acc::Value;
  const Index count = order.count;
  switch (order.kind) {
    case OrderKind::sequential: return acc.sequential(0, n);
    case OrderKind::pairwise: return pairwise(acc, 0, n, count);
    case OrderKind::lanes:
    case OrderKind::lanes_tree: {
      auto partial = strided(acc, n, count, 1);
      if (order.kind == OrderKind::lanes_tree) return by_halves(acc, partial);
      Value total = partial[0];
      for (std::size_t l = 1; l < partial.size(); ++l) total = acc.add(total, partial[l]);
      return total;
    }
    case OrderKind::blocked: {
      Value total{0};
      for (Index from = 0, to = order.vec > 0 ? order.vec : count; from < n; from = to, to += count)
        total = acc.add(total, acc.sequential(from, std::min(n, to)));
      return total;
    }
    case OrderKind::warp: {
      auto partial = strided(acc, n, count, order.vec);
      return by_halves(acc, partial);
    }
    case OrderKind::block: return block_tree(acc, strided(acc, n, count, order.vec));
    case OrderKind::torch_cpu: return torch_row(acc, n, order.count, 1);
    case OrderKind::torch_cpu_half: return torch_row(acc, n, order.count, 2);
    case OrderKind::torch_norm: return torch_norm(acc, n, count, order.vec);
    case OrderKind::torch_columns: return torch_columns(acc, n, count, 1, order.vec);
    case OrderKind::torch_columns_half: return torch_columns(acc, n, count, 2, order.vec);
    case OrderKind::torch_runs: return torch_runs(acc, n, count, order.vec);
    case OrderKind::torch_runs_loads: return torch_runs(acc, n, count, order.vec, Fused::whole_loads);
    case OrderKind::torch_reduce: return torch_reduce(acc, n, count, order.vec, Fused::all);
    case OrderKind::torch_reduce_rest: return torch_reduce(acc, n, count, order.vec, Fused::rest);
    case OrderKind::torch_images: return torch_images(acc, n, count, order.vec);
    case OrderKind::torch_cpu_runs: return torch_cpu_runs(acc, n, order.count, order.vec);
    case OrderKind::torch_norm_fours: return torch_norm_fours(acc, n, count);
    case OrderKind::torch_vectors: return torch_vectors(acc, n, count, order.vec);
    case OrderKind::torch_outer: return torch_outer(acc, n, column < (count < 8 ? count / 4 * 4 : count / 32 * 32));
    case OrderKind::through_fp32: return through_fp32(acc, n);
    case OrderKind::ort_rows: return ort_rows(acc, n, count, order.vec);
    case OrderKind::exact:
    case OrderKind::welford:
    case OrderKind::welford_mul:
    case OrderKind::welford_warp:
    case OrderKind::welford_block:
    case OrderKind::torch_moments:
    case OrderKind::torch_moments_fp16:
    case OrderKind::torch_moments_2_6:
    case OrderKind::torch_moments_2_6_fp16:
    case OrderKind::torch_cuda_moments:
    case OrderKind::apex_moments:
    case OrderKind::ort_moments: break;
  }
  throw ProgramError("order " + text_of(order) + " does not give a sum");
}

template <class Term>
double sum_terms(const Order& order, FormatId accumulator, bool contract, std::span<const Term> terms,
                 Index column = 0) {
  const auto n = static_cast<Index>(terms.size());
  if (order.kind == OrderKind::exact) {
    std::vector<double> exact(terms.begin(), terms.end());
    if (contract)
      for (double& t : exact) t *= t;
    return exact_sum(exact, accumulator, Overflow::ieee);
  }
  if (accumulator == FormatId::fp32)
    return static_cast<double>(sum_in(Accumulator<Fp32, Term>{{}, contract, terms.data()}, order, n, column));
  if (accumulator == FormatId::fp64)
    return sum_in(Accumulator<Fp64, Term>{{}, contract, terms.data()}, order, n, column);
  return sum_in(Accumulator<Narrow, Term>{{accumulator}, contract, terms.data()}, order, n, column);
}

// The order that real audits spend their time in: torch_row of 8 lanes in fp32, written so that a step is one vector
// addition and four independent sums hide its latency. Floor: a load and an addition (and a multiplication) for 8
// terms, two of each a cycle: 0.02 ns an element at 3 GHz.
typedef float Lanes8 __attribute__((vector_size(32)));

template <bool kSquare>
[[gnu::always_inline]] inline void add_vector(Lanes8& sum, const float* terms, Index vector) {
  Lanes8 t;
  std::memcpy(&t, terms + 8 * vector, sizeof t);
  if constexpr (kSquare) t *= t;  // rounded by itself: nothing is contracted
  sum += t;
}

template <bool kSquare>
[[gnu::always_inline]] inline float torch_row_8(const float* terms, Index n) {
  constexpr int kLevels = 4;
  const Index vectors = n / 8, items = vectors / 4;
  const Index power = std::max<Index>(4, ceil_log2(items) / kLevels);
  const Index block = Index{1} << power;
  Lanes8 level[kLevels][4] = {};
  Index i = 0;
  for (bool last = false; !last;) {
    const Index to = std::min(i + block, items);
    last = to < i + block;
    Lanes8 a = level[0][0], b = level[0][1], c = level[0][2], d = level[0][3];
    for (; i < to; ++i) {
      add_vector<kSquare>(a, terms, 4 * i);
      add_vector<kSquare>(b, terms, 4 * i + 1);
      add_vector<kSquare>(c, terms, 4 * i + 2);
      add_vector<kSquare>(d, terms, 4 * i + 3);
    }
    level[0][0] = a, level[0][1] = b, level[0][2] = c, level[0][3] = d;
    if (last) break;
    for (int j = 1; j < kLevels; ++j) {
      for (int k = 0; k < 4; ++k) {
        level[j][k] += level[j - 1][k];
        level[j - 1][k] = Lanes8{};
      }
      if ((i & ((block - 1) << (j * power))) != 0) break;
    }
  }
  Lanes8 stream[4];
  for (int k = 0; k < 4; ++k) {
    stream[k] = level[0][k];
    for (int j = 1; j < kLevels; ++j) stream[k] += level[j][k];
  }
  for (Index v = 4 * items; v < vectors; ++v) add_vector<kSquare>(stream[0], terms, v);
  for (int k = 1; k < 4; ++k) stream[0] += stream[k];
  float total = 0;
  for (Index t = 8 * vectors; t < n; ++t) total += kSquare ? terms[t] * terms[t] : terms[t];
  for (int l = 0; l < 8; ++l) total += stream[0][l];
  return 0.0f + total;
}

NORMA_CLONES float torch_sum_8(const float* terms, Index n) { return torch_row_8<false>(terms, n); }
NORMA_CLONES float torch_square_sum_8(const float* terms, Index n) { return torch_row_8<true>(terms, n); }

/// Fewer than 8 terms are summed in another order.
bool is_torch_8(const Order& order, std::size_t terms) {
  return order.kind == OrderKind::torch_cpu && order.count == 8 && terms >= 8;
}

}  // namespace

double ordered_sum(const Order& order, FormatId accumulator, bool contract, std::span<const float> terms) {
  if (is_torch_8(order, terms.size()) && accumulator == FormatId::fp32 && !contract)
    return static_cast<double>(torch_sum_8(terms.data(), static_cast<Index>(terms.size())));
  return sum_terms(order, accumulator, contract, terms);
}

double fp32_square_sum(const Order& order, std::span<const float> values, std::vector<float>& scratch) {
  if (is_torch_8(order, values.size()))
    return static_cast<double>(torch_square_sum_8(values.data(), static_cast<Index>(values.size())));
  scratch.resize(values.size());
  fp32_op(Op::square, values.data(), nullptr, nullptr, scratch.data(), values.size());
  return ordered_sum(order, FormatId::fp32, false, scratch);
}

double ordered_sum(const Order& order, FormatId accumulator, bool contract, std::span<const double> terms) {
  return sum_terms(order, accumulator, contract, terms);
}

double fused_sum(const Order& order, FormatId accumulator, std::span<const double> terms) {
  const auto n = static_cast<Index>(terms.size());
  if (order.kind == OrderKind::exact) return exact_sum(terms, accumulator, Overflow::ieee);
  if (accumulator == FormatId::fp32)
    return static_cast<double>(sum_in(FusedTerms<FusedFp32>{{}, terms.data()}, order, n));
  if (accumulator == FormatId::fp64) return sum_in(FusedTerms<FusedFp64>{{}, terms.data()}, order, n);
  return sum_in(FusedTerms<FusedNarrow>{{accumulator}, terms.data()}, order, n);
}

double column_sum(const Order& order, FormatId accumulator, std::span<const double> terms, std::int64_t column) {
  return sum_terms(order, accumulator, false, terms, column);
}

double exact_sum(std::span<const double> terms, FormatId target, Overflow overflow) {
  // A fixed-point number of 32-bit limbs from 2^-1088 up; a limb holds a signed 64-bit partial, so 2^31 terms
  // can be added before a carry is due.
  constexpr int kLowest = -1088;
  std::array<std::int64_t, 70> limbs{};
  double special = 0;
  for (const double t : terms) {
    if (!std::isfinite(t)) {
      special += t;
      continue;
    }
    if (t == 0) continue;
    int exponent = 0;
    const double fraction = std::frexp(t, &exponent);
    const auto significand = static_cast<std::int64_t>(std::ldexp(std::fabs(fraction), 53));
    const int bit = exponent - 53 - kLowest;
    const auto limb = static_cast<std::size_t>(bit / 32);
    const int shift = bit % 32;
    const UInt128 wide = static_cast<UInt128>(significand) << shift;
    const std::int64_t sign = t < 0 ? -1 : 1;
    limbs[limb] += sign * static_cast<std::int64_t>(static_cast<std::uint64_t>(wide) & 0xffff'ffffu);
    limbs[limb + 1] += sign * static_cast<std::int64_t>(static_cast<std::uint64_t>(wide >> 32) & 0xffff'ffffu);
    limbs[limb + 2] += sign * static_cast<std::int64_t>(static_cast<std::uint64_t>(wide >> 64));
  }
  if (special != 0) return special;  // Inf or NaN
  std::int64_t carry = 0;
  for (std::int64_t& limb : limbs) {
    limb += carry;
    carry = limb >> 32;
    limb &= 0xffff'ffff;
  }
  const bool negative = carry < 0;
  if (negative) {  // two's complement to magnitude
    std::int64_t borrow = 1;
    for (std::int64_t& limb : limbs) {
      limb = (~limb & 0xffff'ffff) + borrow;
      borrow = limb >> 32;
      limb &= 0xffff'ffff;
    }
  }
  std::size_t top = limbs.size();
  while (top > 0 && limbs[top - 1] == 0) --top;
  if (top == 0) return 0.0;
  // The top 96 bits as two integers, everything below as one sticky bit.
  const auto at = [&](std::size_t i) { return i < limbs.size() ? static_cast<std::uint64_t>(limbs[i]) : 0; };
  UInt128 head = 0;
  for (std::size_t k = 0; k < 3; ++k) head = (head << 32) | (top >= 1 + k ? at(top - 1 - k) : 0);
  bool sticky = false;
  for (std::size_t i = 0; i + 3 < top; ++i) sticky = sticky || limbs[i] != 0;
  int base = static_cast<int>(top - 3) * 32 + kLowest;  // top < 3: the zero limbs below stand for nothing
  int drop = 0;
  while ((head >> drop) >= (static_cast<UInt128>(1) << 56)) ++drop;
  const UInt128 rest = head & ((static_cast<UInt128>(1) << drop) - 1);
  auto kept = static_cast<std::uint64_t>(head >> drop);
  if (rest != 0 || sticky) kept |= 1;  // 56 bits to odd: any rounding to 53 bits or fewer is then right
  base += drop;
  if (target == FormatId::fp64) {
    // The conversion rounds once; ldexp is exact, as a sum of binary64 numbers is a multiple of 2^-1074.
    const double even = std::ldexp(static_cast<double>(kept), base);
    return negative ? -even : even;
  }
  while (kept >> 53 != 0) {
    kept = (kept >> 1) | (kept & 1);
    ++base;
  }
  const double odd = std::ldexp(static_cast<double>(kept), base);
  return decode(target, encode(target, negative ? -odd : odd, overflow));
}

}  // namespace norma
