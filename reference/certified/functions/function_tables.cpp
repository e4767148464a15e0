// Correctly rounded functions: tables of all results for inputs of at most 16 bits, else rows in three tiers.
#include <oneapi/tbb/combinable.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "reference/certified/functions/function_kernels.hpp"
#include "reference/certified/functions/functions.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/share_out.hpp"

namespace norma {

namespace {

constexpr std::size_t kChunk = 2048;  // 16 KiB of arguments or midpoints: both stay in the first cache

std::size_t bytes_of(FormatId format) { return static_cast<std::size_t>(format_of(format).storage_bytes()); }

struct Task {
  Function f;
  const Tensor& x;
  const TruthSource& truth;
  FormatId format;
  Overflow overflow;
};

// Elements begin .. begin + count - 1 (count <= kChunk) to `stored`. `settled`, if any, takes each element's tier.
void round_chunk(const Task& task, std::int64_t begin, std::size_t count, std::byte* stored, TierCounts& tiers,
                 std::uint8_t* settled) {
  thread_local std::vector<double> values(kChunk);
  thread_local std::vector<std::uint32_t> open;
  const std::span<double> mid = std::span(values).first(count);
  open.clear();
  decode_values(task.x, begin, mid);
  evaluate(task.f, mid, mid);
  if (task.f == Function::exp) {
    // A finite e^x beyond binary64 is no infinity.
    for (std::size_t i = 0; i < count; ++i)
      if (std::isinf(mid[i]) && std::isfinite(task.x.value(begin + static_cast<std::int64_t>(i))))
        mid[i] = std::numeric_limits<double>::max();
  }
  if (task.format == FormatId::fp64) {
    for (std::size_t i = 0; i < count; ++i) open.push_back(static_cast<std::uint32_t>(i));
  } else {
    // The floor of 2^-1000 moves no code: what is below it rounds to a zero whose sign mid has. The margin covers a mid
    // that is zero though f(x) is not, by the same argument.
    round_enclosed(task.format, task.overflow, mid, function_bound(task.f), stored, open);
  }
  tiers.binary64 += static_cast<std::int64_t>(count - open.size());
  const std::int64_t cols = task.x.cols();
  const Format& f = format_of(task.format);
  const auto bytes = static_cast<std::size_t>(f.storage_bytes());
  for (const std::uint32_t i : open) {
    const std::int64_t element = begin + i;
    TierCounts one;
    const std::uint64_t code = round_open(task.truth, element / cols, element % cols, task.format, task.overflow, one);
    const std::uint64_t word = code << f.storage_shift();
    std::memcpy(stored + i * bytes, &word, bytes);
    tiers += one;
    if (settled != nullptr)
      settled[i] = static_cast<std::uint8_t>(one.double_double != 0 ? 1
                                             : one.exact != 0       ? 2
                                             : one.undecided != 0   ? 3
                                                                    : 0);
  }
}

void for_chunks(std::int64_t count, int threads, const auto& body) {
  const std::int64_t chunks = (count + static_cast<std::int64_t>(kChunk) - 1) / static_cast<std::int64_t>(kChunk);
  const auto one = [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * static_cast<std::int64_t>(kChunk);
    body(begin, static_cast<std::size_t>(std::min<std::int64_t>(kChunk, count - begin)));
  };
  share_out(chunks, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t chunk = first; chunk < last; ++chunk) one(chunk);
  });
}

// ---- tables ----

struct Table {
  std::vector<std::byte> codes;       // of every input code, in storage layout
  std::vector<std::uint8_t> settled;  // by which tier: 0, 1, 2 as Tier, 3 undecided
};

Table make_table(Function f, FormatId from, FormatId to, Overflow overflow) {
  const std::int64_t count = std::int64_t{1} << format_of(from).code_bits;
  Tensor all = Tensor::zeros(from, {count});
  for (std::int64_t i = 0; i < count; ++i) all.set_code(i, static_cast<std::uint64_t>(i));
  const std::unique_ptr<TruthSource> truth = function_truth(f, all);
  Table table;
  table.codes.resize(static_cast<std::size_t>(count) * bytes_of(to));
  table.settled.resize(static_cast<std::size_t>(count));
  TierCounts tiers;
  const Task task{f, all, *truth, to, overflow};
  for_chunks(count, 1, [&](std::int64_t begin, std::size_t n) {
    const auto at = static_cast<std::size_t>(begin);
    round_chunk(task, begin, n, table.codes.data() + at * bytes_of(to), tiers, table.settled.data() + at);
  });
  return table;
}

const Table& table_of(Function f, FormatId from, FormatId to, Overflow overflow) {
  struct Slot {
    std::once_flag once;
    Table table;
  };
  static std::mutex mutex;
  static std::map<std::tuple<Function, FormatId, FormatId, Overflow>, Slot> slots;  // nodes stay where they are
  Slot* slot = nullptr;
  {
    const std::lock_guard lock(mutex);
    slot = &slots[{f, from, to, overflow}];
  }
  std::call_once(slot->once, [&] { slot->table = make_table(f, from, to, overflow); });
  return slot->table;
}

template <typename In, typename Out>
void look_up(const Table& table, const std::byte* from, std::byte* to, std::size_t count, TierCounts& tiers) {
  std::array<std::int64_t, 4> counts{};
  std::array<std::uint8_t, kChunk> settled;
  for (std::size_t i = 0; i < count; ++i) {
    In code{};
    std::memcpy(&code, from + i * sizeof(In), sizeof(In));
    std::memcpy(to + i * sizeof(Out), table.codes.data() + code * sizeof(Out), sizeof(Out));
    settled[i] = table.settled[code];
  }
  for (std::uint8_t tier = 1; tier < 4; ++tier)
    counts[tier] = std::count(settled.begin(), settled.begin() + static_cast<std::ptrdiff_t>(count), tier);
  tiers.binary64 += static_cast<std::int64_t>(count) - counts[1] - counts[2] - counts[3];
  tiers.double_double += counts[1];
  tiers.exact += counts[2];
  tiers.undecided += counts[3];
}

template <typename In>
void look_up(const Table& table, const std::byte* from, std::byte* to, std::size_t out_bytes, std::size_t count,
             TierCounts& tiers) {
  switch (out_bytes) {
    case 1: return look_up<In, std::uint8_t>(table, from, to, count, tiers);
    case 2: return look_up<In, std::uint16_t>(table, from, to, count, tiers);
    case 4: return look_up<In, std::uint32_t>(table, from, to, count, tiers);
    default: return look_up<In, std::uint64_t>(table, from, to, count, tiers);
  }
}

}  // namespace

RoundedFunction round_function(Function f, const Tensor& x, FormatId format, Overflow overflow, int threads) {
  RoundedFunction result{.y = Tensor::zeros(format, x.shape), .tiers = {}};
  tbb::combinable<TierCounts> counts;
  const std::size_t in_bytes = bytes_of(x.format), out_bytes = bytes_of(format);
  std::byte* const out = result.y.bytes.data();
  if (in_bytes <= 2) {
    const Table& table = table_of(f, x.format, format, overflow);
    for_chunks(x.size(), threads, [&](std::int64_t begin, std::size_t count) {
      const auto at = static_cast<std::size_t>(begin);
      const std::byte* const from = x.bytes.data() + at * in_bytes;
      if (in_bytes == 1)
        look_up<std::uint8_t>(table, from, out + at * out_bytes, out_bytes, count, counts.local());
      else
        look_up<std::uint16_t>(table, from, out + at * out_bytes, out_bytes, count, counts.local());
    });
  } else {
    const std::unique_ptr<TruthSource> truth = function_truth(f, x);
    const Task task{f, x, *truth, format, overflow};
    for_chunks(x.size(), threads, [&](std::int64_t begin, std::size_t count) {
      round_chunk(task, begin, count, out + static_cast<std::size_t>(begin) * out_bytes, counts.local(), nullptr);
    });
  }
  counts.combine_each([&](const TierCounts& tiers) { result.tiers += tiers; });
  return result;
}

}  // namespace norma
