// Mean and variance in one pass: Welford's update per lane or thread, Chan's merges between them, each as a library
// writes it. <a*b+c> below is one fused operation where the program contracts, else two roundings.
#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "impls/emulate/accumulator.hpp"
#include "impls/emulate/orders.hpp"

namespace norma {

namespace {

using Index = std::ptrdiff_t;

/// Count, mean and sum of squared deviations.
template <class V>
struct Running {
  V count{0}, mean{0}, m2{0};
};

enum class Step : std::uint8_t { division, reciprocal };  // d / k, or d * RN(1/k)

template <class A>
struct Welford {
  using V = typename A::Value;
  using R = Running<V>;
  A arithmetic;
  bool contract;

  V multiply_add(V a, V b, V c, bool fused) const {
    return fused ? arithmetic.fma(a, b, c) : arithmetic.add(arithmetic.mul(a, b), c);
  }
  V multiply_add(V a, V b, V c) const { return multiply_add(a, b, c, contract); }

  /// A count as the arithmetic holds it: exact but in formats of few bits.
  V held(V count) const { return arithmetic.add(count, V{0}); }

  /// `fused` says how m2's product and sum are taken, `contract` how the mean's are.
  void push(R& r, V x, Step step, bool fused) const {
    r.count += 1;
    const V d = arithmetic.add(x, -r.mean);
    r.mean = step == Step::division ? arithmetic.add(r.mean, arithmetic.div(d, held(r.count)))
                                    : multiply_add(d, arithmetic.div(V{1}, held(r.count)), r.mean);
    r.m2 = multiply_add(d, arithmetic.add(x, -r.mean), r.m2, fused);
  }
  void push(R& r, V x, Step step) const { push(r, x, step, contract); }

  /// torch's AddMoments. Source: aten/src/ATen/native/cpu/moments_utils.h, v2.6.0.
  void merge(R& a, const R& b) const {
    const V n = a.count + b.count;
    const V c = n == 0 ? V{0} : arithmetic.div(held(b.count), held(n));
    const V d = arithmetic.add(b.mean, -a.mean);
    a.mean = multiply_add(c, d, a.mean);
    a.m2 = arithmetic.add(a.m2, multiply_add(arithmetic.mul(arithmetic.mul(d, d), c), held(a.count), b.m2));
    a.count = n;
  }
  /// torch's AddMomentsVec by 2.15, of whole vectors: the mean's product is a value of its own. Measured: of the 9
  /// candidate forms only this one gives 2.15's bits, with FMA and without.
  void merge_vector(R& a, const R& b) const {
    const V n = a.count + b.count;
    const V c = n == 0 ? V{0} : arithmetic.div(b.count, n);
    const V d = arithmetic.add(b.mean, -a.mean);
    const V sum = arithmetic.add(a.m2, b.m2);
    const V step = arithmetic.mul(c, d);
    const V weighted = arithmetic.mul(d, a.count);
    a.mean = arithmetic.add(a.mean, step);
    a.m2 = multiply_add(weighted, step, sum);
    a.count = n;
  }
  /// torch's cuWelfordCombine (aten/src/ATen/native/cuda/layer_norm_kernel.cu, 0005c538); b is the other lane's.
  void merge_weighted_by_reciprocal(R& a, const R& b) const {
    const V n = b.count + a.count;
    if (!(n > 0)) return;  // two empty lanes
    const V d = arithmetic.add(a.mean, -b.mean);
    const V c = arithmetic.div(V{1}, n);
    const V of_b = arithmetic.mul(b.count, c), of_a = arithmetic.mul(a.count, c);
    const V sum = arithmetic.add(b.m2, a.m2);
    a.mean = multiply_add(of_b, b.mean, arithmetic.mul(of_a, a.mean));
    a.m2 = multiply_add(arithmetic.mul(arithmetic.mul(d, d), b.count), of_a, sum);
    a.count = n;
  }
  /// apex's cuChanOnlineSum (csrc/layer_norm_cuda_kernel.cu).
  void merge_weighted(R& a, const R& b) const {
    const V n = a.count + b.count;
    if (!(n > 0)) return;
    const V d = arithmetic.add(b.mean, -a.mean);
    const V of_a = arithmetic.div(a.count, n), of_b = arithmetic.div(b.count, n);
    const V sum = arithmetic.add(a.m2, b.m2);
    a.mean = multiply_add(of_a, a.mean, arithmetic.mul(of_b, b.mean));
    a.m2 = multiply_add(arithmetic.mul(arithmetic.mul(arithmetic.mul(d, d), of_a), of_b), n, sum);
    a.count = n;
  }
  /// torch's WelfordOps::combine (aten/src/ATen/native/SharedReduceOps.h, v2.6.0).
  void merge_welford_ops(R& a, const R& b) const {
    if (b.count == 0) return;
    if (a.count == 0) {
      a = b;
      return;
    }
    const V d = arithmetic.add(b.mean, -a.mean);
    const V n = a.count + b.count;
    const V of_b = arithmetic.div(b.count, n);
    const V sum = arithmetic.add(a.m2, b.m2);
    a.mean = multiply_add(d, of_b, a.mean);
    a.m2 = multiply_add(arithmetic.mul(arithmetic.mul(d, d), a.count), of_b, sum);
    a.count = n;
  }
};

Index ceil_log2(Index x) {
  // torch's CeilLog2: 1 for x <= 2.
  return x <= 2 ? 1 : static_cast<Index>(std::bit_width(static_cast<std::size_t>(x - 1)));
}

struct TorchForm {
  bool merge_2_6;   ///< vectors are merged as scalars are
  bool fused_tail;  ///< the scalar tail's m2 contracts with the rest
};

/// torch's RowwiseMoments: chunks of 16 loads, each load `halves` vectors of `lanes`; chunks merged like the carries of
/// a binary counter; then the lanes, after the scalar tail.
template <class A>
Running<typename A::Value> torch_moments(const Welford<A>& w, Index lanes, Index halves, TorchForm form,
                                         std::span<const double> terms) {
  using V = typename A::Value;
  using Lanes = std::vector<Running<V>>;
  const auto n = static_cast<Index>(terms.size());
  const auto W = static_cast<std::size_t>(lanes);
  const Index width = lanes * halves;
  const Index vectors = n / width;
  const Index chunks = (vectors + 15) / 16;
  const auto depth = static_cast<std::size_t>(ceil_log2(chunks));
  std::vector<Lanes> stack(depth, Lanes(W));
  const auto merge_lanes = [&](Lanes& into, const Lanes& from) {
    for (std::size_t l = 0; l < W; ++l) form.merge_2_6 ? w.merge(into[l], from[l]) : w.merge_vector(into[l], from[l]);
  };
  for (Index i = 0; i < chunks; ++i) {
    std::vector<Lanes> part(static_cast<std::size_t>(halves), Lanes(W));
    const Index to = std::min<Index>(16, vectors - 16 * i);
    for (Index j = 0; j < to; ++j)
      for (std::size_t h = 0; h < part.size(); ++h)
        for (std::size_t l = 0; l < W; ++l) {
          const Index at = (16 * i + j) * width + static_cast<Index>(h) * lanes + static_cast<Index>(l);
          w.push(part[h][l], static_cast<V>(terms[static_cast<std::size_t>(at)]), Step::reciprocal);
        }
    for (const Lanes& p : part) merge_lanes(stack[0], p);
    Index mask = i + 1;
    for (std::size_t j = 1; j < depth && (mask & 1) == 0; ++j, mask /= 2) {
      merge_lanes(stack[j], stack[j - 1]);
      stack[j - 1].assign(W, {});
    }
  }
  for (std::size_t j = 1; j < depth; ++j) merge_lanes(stack[0], stack[j]);
  Running<V> total;
  for (Index i = vectors * width; i < n; ++i)
    w.push(total, static_cast<V>(terms[static_cast<std::size_t>(i)]), Step::division, w.contract && form.fused_tail);
  for (const Running<V>& lane : stack[0]) w.merge(total, lane);
  return total;
}

template <class A>
std::vector<Running<typename A::Value>> by_threads(const Welford<A>& w, const Order& order, Step step,
                                                   std::span<const double> terms) {
  using V = typename A::Value;
  const auto n = static_cast<Index>(terms.size());
  std::vector<Running<V>> partial(static_cast<std::size_t>(order.count));
  for (Index base = 0; base < n; base += Index{order.count} * order.vec)
    for (Index t = 0; t < order.count; ++t)
      for (Index i = base + t * order.vec; i < std::min(n, base + (t + 1) * order.vec); ++i)
        w.push(partial[static_cast<std::size_t>(t)], static_cast<V>(terms[static_cast<std::size_t>(i)]), step);
  return partial;
}

template <class R, class Merge>
R by_halves(std::span<R> values, const Merge& merge) {
  for (std::size_t width = values.size() / 2; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) merge(values[l], values[l + width]);
  return values[0];
}

/// ((0,1),(2,3)), ...: what lane 0 sees when each lane in turn reads the one 1, 2, 4, ... further.
template <class R, class Merge>
R by_neighbours(std::span<R> values, const Merge& merge) {
  for (std::size_t step = 1; step < values.size(); step *= 2)
    for (std::size_t l = 0; l + step < values.size(); l += 2 * step) merge(values[l], values[l + step]);
  return values[0];
}

enum class LaneTree : std::uint8_t { halves, neighbours };

/// The lanes of each warp of 32, then the warps by halves.
template <class R, class Merge>
R over_block(std::vector<R> threads, LaneTree tree, const Merge& merge) {
  std::vector<R> warps;
  for (std::size_t at = 0; at < threads.size(); at += 32) {
    const std::span<R> lanes(threads.data() + at, std::min<std::size_t>(32, threads.size() - at));
    warps.push_back(tree == LaneTree::halves ? by_halves(lanes, merge) : by_neighbours(lanes, merge));
  }
  return by_halves(std::span<R>(warps), merge);
}

template <class A>
Moments moments_in(const Welford<A>& w, const Order& order, std::span<const double> terms) {
  using V = typename A::Value;
  using R = Running<V>;
  R total;
  switch (order.kind) {
    case OrderKind::welford:
      for (const double t : terms) w.push(total, static_cast<V>(t), Step::division);
      break;
    case OrderKind::welford_mul:
      for (const double t : terms) w.push(total, static_cast<V>(t), Step::reciprocal);
      break;
    case OrderKind::welford_warp: {
      auto threads = by_threads(w, order, Step::reciprocal, terms);
      total = by_halves(std::span<R>(threads), [&w](R& a, const R& b) { w.merge(a, b); });
      break;
    }
    case OrderKind::welford_block:
      total = over_block(by_threads(w, order, Step::division, terms), LaneTree::halves,
                         [&w](R& a, const R& b) { w.merge_welford_ops(a, b); });
      break;
    case OrderKind::torch_cuda_moments:
      total = over_block(by_threads(w, order, Step::reciprocal, terms), LaneTree::halves,
                         [&w](R& a, const R& b) { w.merge_weighted_by_reciprocal(a, b); });
      break;
    case OrderKind::apex_moments:
    case OrderKind::ort_moments:
      total = over_block(by_threads(w, order, Step::division, terms),
                         order.kind == OrderKind::apex_moments ? LaneTree::neighbours : LaneTree::halves,
                         [&w](R& a, const R& b) { w.merge_weighted(a, b); });
      break;
    case OrderKind::torch_moments:
    case OrderKind::torch_moments_fp16:
    case OrderKind::torch_moments_2_6:
    case OrderKind::torch_moments_2_6_fp16: {
      const bool old = order.kind == OrderKind::torch_moments_2_6 || order.kind == OrderKind::torch_moments_2_6_fp16;
      const bool fp16 = order.kind == OrderKind::torch_moments_fp16 || order.kind == OrderKind::torch_moments_2_6_fp16;
      total = torch_moments(w, order.count, order.vec, {.merge_2_6 = old, .fused_tail = fp16}, terms);
      break;
    }
    default: throw ProgramError("order " + text_of(order) + " does not give moments");
  }
  const auto n = static_cast<V>(terms.size());
  return {static_cast<double>(total.mean), static_cast<double>(w.arithmetic.div(total.m2, w.held(n)))};
}

}  // namespace

Moments ordered_moments(const Order& order, FormatId accumulator, bool contract, std::span<const double> terms) {
  if (accumulator == FormatId::fp32) return moments_in(Welford<Fp32>{{}, contract}, order, terms);
  if (accumulator == FormatId::fp64) return moments_in(Welford<Fp64>{{}, contract}, order, terms);
  return moments_in(Welford<Narrow>{{accumulator}, contract}, order, terms);
}

}  // namespace norma
