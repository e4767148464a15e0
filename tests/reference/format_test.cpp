// The codec on every pattern, and every binary32 number into every narrower format, against witnesses that
// share nothing with it.
#include "reference/formats/format.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "reference/formats/convert.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if NORMA_HAVE_CUDA_HEADERS
#include <cuda_fp8.h>
#endif

using namespace norma;

namespace {

constexpr FormatId kNarrow[] = {FormatId::tf32,   FormatId::bf16, FormatId::fp16,     FormatId::e4m3fn,
                                FormatId::e5m2,   FormatId::e4m3fnuz, FormatId::e5m2fnuz};
constexpr std::size_t kBlock = std::size_t{1} << 16;

/// Calls f(thread, block, values, stored) for all 2^32 binary32 patterns in blocks of 2^16, on every core.
template <class F>
void for_all_fp32(FormatId id, Overflow overflow, const F& f) {
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      std::vector<float> values(kBlock);
      std::vector<std::byte> stored(kBlock * static_cast<std::size_t>(format_of(id).storage_bytes()));
      for (std::uint64_t block = t; block < kBlock; block += threads) {
        for (std::size_t i = 0; i < kBlock; ++i)
          values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(block * kBlock + i));
        encode_row(id, values.data(), stored.data(), kBlock, overflow);
        f(t, block, values, stored);
      }
    });
  for (std::thread& t : pool) t.join();
}

/// Rounding as arithmetic on the grid in binary64: no step of the codec's is shared. With q the quantum at v,
/// the sum (v + c) - c with c = 1.5 * 2^52 * q rounds v to a multiple of q, ties to even. Inf and NaN pass.
inline double grid_round(int precision, int emin, double v) {
  const auto field = static_cast<std::int64_t>((std::bit_cast<std::uint64_t>(v) >> 52) & 0x7ff);
  const std::int64_t base = std::max<std::int64_t>(field, emin + 1023);
  const double c = std::bit_cast<double>((static_cast<std::uint64_t>(base + 53 - precision) << 52) | (std::uint64_t{1} << 51));
  const double rounded = (v + c) - c;
  return field == 0x7ff ? v : rounded;
}

/// The largest finite value, from the format's definition in words.
double largest_by_definition(const Format& f) {
  // OCP OFP8 table 1 and the FNUZ paper (arXiv 2206.02915): 448, 57344, 240, 57344; IEEE: (2 - 2^(1-p)) 2^emax.
  if (f.name == "e4m3fn") return 448;
  if (f.name == "e5m2" || f.name == "e5m2fnuz") return 57344;
  if (f.name == "e4m3fnuz") return 240;
  return std::ldexp(2 - std::ldexp(1.0, 1 - f.precision), f.emax);
}

/// NaNs need no mapping: the codec gives every NaN as the format's one pattern, up to its sign.
template <class Word>
std::uint64_t digest_of(const Word* codes, std::uint64_t first, FormatId id) {
  const auto nan = static_cast<std::uint64_t>(format_of(id).nan_code());
  const auto magnitude = static_cast<std::uint64_t>(format_of(id).magnitude_mask());
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    std::uint64_t code = codes[i];
    if (format_of(id).specials != Specials::unsigned_zero) code = (code & magnitude) == nan ? nan : code;
    sum += (code + 1) * (2 * (first + i) + 1);
  }
  return sum;
}

}  // namespace

TEST_CASE("every pattern of every format of at most 19 bits decodes and encodes to itself") {
  for (const FormatId id : kNarrow) {
    const Format& f = format_of(id);
    std::uint64_t wrong = 0;
    for (std::uint64_t code = 0; code <= (f.sign_code() | f.magnitude_mask()); ++code) {
      const double value = decode(id, code);
      const std::uint64_t expected = value != value ? f.nan_code() : code;
      for (const Overflow overflow : {Overflow::ieee, Overflow::saturate_finite})
        wrong += encode(id, value, overflow) != expected ? 1 : 0;
    }
    CAPTURE(f.name);
    CHECK(wrong == 0);
  }
}

TEST_CASE("the limits of every format are those of its definition") {
  for (const Format& f : all_formats()) {
    CAPTURE(f.name);
    CHECK(max_finite(f.id) == largest_by_definition(f));
    CHECK(min_normal(f.id) == std::ldexp(1.0, f.emin));
    CHECK(min_subnormal(f.id) == std::ldexp(1.0, f.emin - f.precision + 1));
    CHECK(is_nan_code(f.id, f.nan_code()) == f.has_nan());
  }
  CHECK(decode(FormatId::e4m3fnuz, 0x7f) == 240);
  CHECK(encode(FormatId::e4m3fnuz, -0.0, Overflow::ieee) == 0);
  CHECK(encode(FormatId::e4m3fn, -0.0, Overflow::ieee) == 0x80);
}

TEST_CASE("overflow follows its named policy at the threshold") {
  const double inf = std::numeric_limits<double>::infinity();
  const auto e4 = [](double v, Overflow o) { return encode(FormatId::e4m3fn, v, o); };
  for (const Overflow o : {Overflow::ieee, Overflow::saturate_finite, Overflow::saturate, Overflow::nan})
    CHECK(e4(464, o) == 0x7e);  // a tie, to even: 448
  const double above = std::nextafter(464.0, 1e9);
  CHECK(e4(above, Overflow::ieee) == 0x7f);
  CHECK(e4(above, Overflow::saturate_finite) == 0x7e);
  CHECK(e4(-above, Overflow::saturate) == 0xfe);
  CHECK(e4(above, Overflow::nan) == 0x7f);
  CHECK(e4(inf, Overflow::saturate_finite) == 0x7f);
  CHECK(e4(inf, Overflow::saturate) == 0x7e);
  CHECK(encode(FormatId::fp16, 65520, Overflow::ieee) == 0x7c00);
  CHECK(encode(FormatId::fp16, std::nextafter(65520.0, 0), Overflow::ieee) == 0x7bff);
  CHECK(encode(FormatId::e5m2, 61440, Overflow::ieee) == 0x7c);
  CHECK(encode(FormatId::e5m2, inf, Overflow::saturate) == 0x7b);
  CHECK(encode(FormatId::fp16, 0x1p-25, Overflow::ieee) == 0);
  CHECK(encode(FormatId::fp16, std::nextafter(0x1p-25, 1), Overflow::ieee) == 1);
}

TEST_CASE("a double goes to a narrow format in one rounding, not through float") {
  // 1 + 2^-8 + 2^-40: in float a tie (to even: 1), directly above the tie.
  CHECK(encode(FormatId::bf16, 1 + 0x1p-8 + 0x1p-40, Overflow::ieee) == 0x3f81);
  CHECK(encode(FormatId::fp16, 1 + 0x1p-11 + 0x1p-40, Overflow::ieee) == 0x3c01);
}

namespace {
/// How many of the 2^32 binary32 numbers the codec and the grid disagree on.
std::uint64_t differing_from_grid(FormatId id) {
  const Format& f = format_of(id);
  const double largest = largest_by_definition(f);
  const double beyond = f.has_infinity() ? HUGE_VAL : std::nan("");
  std::vector<std::uint64_t> wrong(std::max(1u, std::thread::hardware_concurrency()), 0);
  std::vector<std::vector<float>> decoded(wrong.size(), std::vector<float>(kBlock));
  for_all_fp32(id, Overflow::ieee,
               [&](unsigned t, std::uint64_t, const std::vector<float>& values, const std::vector<std::byte>& stored) {
                 float* got = decoded[t].data();
                 decode_row(id, stored.data(), got, kBlock);
                 std::uint64_t count = 0;
                 for (std::size_t i = 0; i < kBlock; ++i) {
                   const double v = static_cast<double>(values[i]);
                   double expected = grid_round(f.precision, f.emin, v);
                   expected = std::fabs(expected) > largest ? std::copysign(beyond, v) : expected;
                   expected = expected == 0 ? (f.has_negative_zero() ? std::copysign(0.0, v) : 0.0) : expected;
                   const auto want = std::bit_cast<std::uint32_t>(static_cast<float>(expected));
                   const auto have = std::bit_cast<std::uint32_t>(got[i]);
                   const bool both_nan = (want & 0x7fff'ffff) > 0x7f80'0000 && (have & 0x7fff'ffff) > 0x7f80'0000;
                   count += (want == have || both_nan) ? 0 : 1;
                 }
                 wrong[t] += count;
               });
  std::uint64_t total = 0;
  for (const auto w : wrong) total += w;
  return total;
}
}  // namespace

TEST_CASE("all 2^32 binary32 numbers round to tf32 as arithmetic on the grid does", "[exhaustive]") {
  CHECK(differing_from_grid(FormatId::tf32) == 0);  // ml_dtypes has no tf32
}

TEST_CASE("all 2^32 binary32 numbers round as arithmetic on the grid does", "[exhaustive][nightly]") {
  const FormatId id = GENERATE(FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz,
                               FormatId::e5m2fnuz);
  CAPTURE(name_of(id));
  CHECK(differing_from_grid(id) == 0);
}

TEST_CASE("all 2^32 binary32 numbers round as ml_dtypes rounds them", "[exhaustive]") {
  std::ifstream file(NORMA_SOURCE_DIR "/tests/golden/ml_dtypes_digests.json");
  const auto digests = nlohmann::json::parse(file);
  const FormatId id = GENERATE(FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz,
                               FormatId::e5m2fnuz);
  CAPTURE(name_of(id));
  const auto& digest = digests.at("formats").at(std::string(name_of(id)));
  // digest = sum of (code + 1) (2 i + 1) mod 2^64 over a block of 2^24 patterns i; NaNs as one pattern.
  std::vector<std::uint64_t> sums(256 * 256, 0);
  for_all_fp32(id, Overflow::ieee,
               [&](unsigned, std::uint64_t block, const std::vector<float>&, const std::vector<std::byte>& stored) {
                 const std::uint64_t first = block * kBlock;
                 sums[block] = stored.size() == kBlock
                                   ? digest_of(reinterpret_cast<const std::uint8_t*>(stored.data()), first, id)
                                   : digest_of(reinterpret_cast<const std::uint16_t*>(stored.data()), first, id);
               });
  for (std::size_t b = 0; b < 256; ++b) {
    std::uint64_t sum = 0;
    for (std::size_t k = 0; k < 256; ++k) sum += sums[b * 256 + k];
    const auto recorded = std::stoull(digest["blocks"][b].get<std::string>(), nullptr, 16);
    CAPTURE(b);
    REQUIRE(sum == recorded);
  }
}

TEST_CASE("rows decode to binary64 as single values do, NaN included") {
  for (const Format& f : all_formats()) {
    if (f.id == FormatId::fp64) continue;
    CAPTURE(f.name);
    const auto width = static_cast<std::size_t>(f.storage_bytes());
    // All codes of up to 19 bits; of fp32 every 4093rd.
    const std::uint64_t step = f.id == FormatId::fp32 ? 4093 : 1;
    const std::size_t n = static_cast<std::size_t>(((std::uint64_t{1} << f.code_bits) - 1) / step + 1);
    std::vector<std::byte> stored(n * width);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t word = (i * step) << f.storage_shift();
      std::memcpy(stored.data() + i * width, &word, width);
    }
    std::vector<double> values(n);
    decode_row(f.id, stored.data(), values.data(), n);
    std::uint64_t wrong = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double one = decode(f.id, i * step);
      wrong += std::bit_cast<std::uint64_t>(values[i]) != std::bit_cast<std::uint64_t>(one) ? 1 : 0;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("rows decode and round as single values do") {
  for (const Format& f : all_formats()) {
    if (f.id == FormatId::fp64 || f.id == FormatId::fp32) continue;
    CAPTURE(f.name);
    const std::size_t n = std::size_t{1} << f.code_bits;
    const auto width = static_cast<std::size_t>(f.storage_bytes());
    std::vector<std::byte> stored(n * width);
    std::vector<float> values(n);
    for (std::size_t c = 0; c < n; ++c) {
      const std::uint64_t word = static_cast<std::uint64_t>(c) << f.storage_shift();
      std::memcpy(stored.data() + c * width, &word, width);
    }
    decode_row(f.id, stored.data(), values.data(), n);
    std::uint64_t wrong = 0;
    for (std::size_t c = 0; c < n; ++c) {
      const double one = decode(f.id, c);
      const double row = static_cast<double>(values[c]);
      wrong += (one != one ? row == row : row != one || std::signbit(row) != std::signbit(one)) ? 1 : 0;
    }
    CHECK(wrong == 0);
    // Between two neighbours, at the middle and just beside it, under every policy.
    std::vector<float> probes;
    for (std::size_t c = 0; c + 1 < f.sign_code(); ++c) {
      const auto a = static_cast<float>(decode(f.id, c));
      const auto b = static_cast<float>(decode(f.id, c + 1));
      const float middle = a + (b - a) / 2;
      for (const float p : {middle, std::nextafterf(middle, 0), std::nextafterf(middle, HUGE_VALF)}) {
        probes.push_back(p);
        probes.push_back(-p);
      }
      if (f.code_bits > 16) c += 40;
    }
    for (const float p : {HUGE_VALF, -HUGE_VALF, std::nanf(""), 1e30f, -1e30f, 0x1p-149f}) probes.push_back(p);
    for (const Overflow o : {Overflow::ieee, Overflow::saturate_finite, Overflow::saturate, Overflow::nan}) {
      std::vector<float> rounded = probes;
      round_row(f.id, rounded.data(), rounded.size(), o);
      for (std::size_t i = 0; i < probes.size(); ++i) {
        const double one = decode(f.id, encode(f.id, static_cast<double>(probes[i]), o));
        const double row = static_cast<double>(rounded[i]);
        wrong += (one != one ? row == row : row != one || std::signbit(row) != std::signbit(one)) ? 1 : 0;
      }
    }
    CHECK(wrong == 0);
  }
}

#if defined(__x86_64__)
namespace {
__attribute__((target("avx,f16c"))) std::uint64_t differing_from_cpu(const float* values, const std::uint16_t* codes) {
  std::uint64_t wrong = 0;
  for (std::size_t i = 0; i < kBlock; i += 8) {
    alignas(16) std::uint16_t cpu[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(cpu),
                    _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
    for (std::size_t k = 0; k < 8; ++k) {
      const bool both_nan = (cpu[k] & 0x7fff) > 0x7c00 && (codes[i + k] & 0x7fff) > 0x7c00;
      wrong += (cpu[k] == codes[i + k] || both_nan) ? 0 : 1;
    }
  }
  return wrong;
}
}  // namespace

TEST_CASE("all 2^32 binary32 numbers round to fp16 as the CPU's own conversion does", "[exhaustive]") {
  if (!__builtin_cpu_supports("f16c")) SKIP("this CPU has no fp16 conversion (F16C)");
  std::vector<std::uint64_t> wrong(std::max(1u, std::thread::hardware_concurrency()), 0);
  for_all_fp32(FormatId::fp16, Overflow::ieee,
               [&](unsigned t, std::uint64_t, const std::vector<float>& values, const std::vector<std::byte>& stored) {
                 wrong[t] += differing_from_cpu(values.data(), reinterpret_cast<const std::uint16_t*>(stored.data()));
               });
  std::uint64_t total = 0;
  for (const auto w : wrong) total += w;
  CHECK(total == 0);
}
#endif

#if NORMA_HAVE_CUDA_HEADERS
namespace {
struct CudaRow {
  FormatId id;
  __nv_fp8_interpretation_t kind;
  __nv_saturation_t saturation;
  Overflow overflow;
};
constexpr CudaRow kCudaRows[] = {{FormatId::e4m3fn, __NV_E4M3, __NV_SATFINITE, Overflow::saturate},
                                 {FormatId::e4m3fn, __NV_E4M3, __NV_NOSAT, Overflow::ieee},
                                 {FormatId::e5m2, __NV_E5M2, __NV_SATFINITE, Overflow::saturate},
                                 {FormatId::e5m2, __NV_E5M2, __NV_NOSAT, Overflow::ieee}};

/// Of every `stride`-th binary32 pattern, how many CUDA's host conversion rounds to another code.
std::uint64_t differing_from_cuda(const CudaRow& row, std::uint64_t stride) {
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < (std::uint64_t{1} << 32); i += stride) {
    const float v = std::bit_cast<float>(static_cast<std::uint32_t>(i));
    const auto cuda = static_cast<std::uint64_t>(__nv_cvt_float_to_fp8(v, row.saturation, row.kind));
    const std::uint64_t ours = encode(row.id, static_cast<double>(v), row.overflow);
    wrong += is_nan_code(row.id, cuda) ? (is_nan_code(row.id, ours) ? 0 : 1) : (cuda == ours ? 0 : 1);
  }
  return wrong;
}
}  // namespace

TEST_CASE("binary32 numbers round to fp8 as CUDA's host conversions do, saturating or not") {
  // Every 251st pattern, a prime, so that all low bits occur; all of them nightly.
  for (const CudaRow& row : kCudaRows) {
    CAPTURE(name_of(row.id), name_of(row.overflow));
    CHECK(differing_from_cuda(row, 251) == 0);
  }
}

TEST_CASE("all 2^32 binary32 numbers round to fp8 as CUDA's host conversions do", "[exhaustive][nightly]") {
  for (const CudaRow& row : kCudaRows) {
    CAPTURE(name_of(row.id), name_of(row.overflow));
    CHECK(differing_from_cuda(row, 1) == 0);
  }
}
#endif
