// The pass over an output, a few rows at a time and these by runs that fit the caches.
#include "harness/metrics/pass.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "harness/metrics/accumulate.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

// Short rows are enclosed several at a time.
constexpr std::int64_t kBatchElements = 2048;
// Single enclosures cost several times their share of a row's.
constexpr std::int64_t kWholeRowShare = 16;

void decode_run(const Tensor& tensor, std::int64_t begin, double* values, std::size_t count) {
  const Format& f = format_of(tensor.format);
  const std::byte* stored = tensor.bytes.data() + begin * f.storage_bytes();
  if (tensor.format == FormatId::fp64) {
    std::memcpy(values, stored, count * sizeof(double));
  } else if (f.storage_shift() != 0) {
    decode_row(tensor.format, stored, values, count);
  } else {
    alignas(64) std::array<float, kRunElements> narrow;
    decode_row(tensor.format, stored, narrow.data(), count);
    std::copy_n(narrow.begin(), count, values);
  }
}

/// Elements with the ideal's bits (any NaN for NaN), with the bits of +0, and NaN or Inf. Codes are told apart by the
/// values they stand for, -0 and 0 by their signs.
struct Conforming {
  std::int64_t equal = 0, zeros = 0, nonfinite = 0;
};
NORMA_CLONES Conforming conforming(const double* __restrict got, const double* __restrict ideal, std::size_t count) {
  Conforming sums;
  for (std::size_t j = 0; j < count; ++j) {
    const auto g = std::bit_cast<std::uint64_t>(got[j]), i = std::bit_cast<std::uint64_t>(ideal[j]);
    const bool both_nan = (got[j] != got[j]) & (ideal[j] != ideal[j]);
    sums.equal += ((g == i) | both_nan) ? 1 : 0;
    sums.zeros += i == 0 ? 1 : 0;
    sums.nonfinite += std::fabs(ideal[j]) <= std::numeric_limits<double>::max() ? 0 : 1;
  }
  return sums;
}

NORMA_CLONES std::uint64_t sum_of(const std::uint64_t* states, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t j = 0; j < count; ++j) sum += states[j];
  return sum;
}

template <class Array>
void move_array(Array& values, const std::vector<std::int64_t>& index, std::int64_t begin) {
  for (std::size_t j = 0; j < index.size(); ++j) values[j] = values[static_cast<std::size_t>(index[j] - begin)];
}

}  // namespace

RowPass::RowPass(const MeasureJob& job)
    : job_(job), format_(settle_format(job.format)), cols_(job.truth.cols()), decided_(std::make_unique<Decided>()) {}

void RowPass::enclose(const TruthSource& truth, QuickRows& into, std::int64_t row_begin, std::int64_t row_end) {
  const auto cols = static_cast<std::size_t>(cols_);
  const std::size_t size = static_cast<std::size_t>(row_end - row_begin) * cols;
  for (std::vector<double>* values : {&into.mid, &into.radius, &into.magnitude}) values->resize(size);
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::size_t at = static_cast<std::size_t>(row - row_begin) * cols;
    const QuickRow out{.mid = std::span(into.mid).subspan(at, cols),
                       .radius = std::span(into.radius).subspan(at, cols),
                       .magnitude = std::span(into.magnitude).subspan(at, cols)};
    Tier& slowest = tiers_[static_cast<std::size_t>(row - row_begin)];
    slowest = std::max(slowest, truth.enclose_quick(row, out));
  }
}

/// The ideal that a row is held against: the first that it equals bit for bit, else the plain one.
void RowPass::choose_ideals(std::int64_t row_begin, std::int64_t row_end) {
  ideals_.clear();
  if (job_.ideals.empty()) return;
  const std::int64_t bytes = job_.format.storage_bytes();
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::int64_t begin = row * cols_, end = begin + cols_;
    const auto first_difference = [&](const Tensor& ideal) {
      const auto at = static_cast<std::size_t>(begin * bytes), size = static_cast<std::size_t>(cols_ * bytes);
      if (&ideal == &job_.got || std::memcmp(ideal.bytes.data() + at, job_.got.bytes.data() + at, size) == 0)
        return end;
      std::int64_t i = begin;
      while (i < end && same_bits(job_.format, ideal.code(i), job_.got.code(i))) ++i;
      return i;
    };
    const Tensor* chosen = &job_.ideals.front();
    std::int64_t difference = first_difference(*chosen);
    for (const Tensor& other : job_.ideals.subspan(1)) {
      if (difference == end) break;
      if (first_difference(other) == end) {
        chosen = &other;
        difference = end;
      }
    }
    if (difference < end && tally_.first_difference < 0) tally_.first_difference = difference;
    ideals_.push_back(chosen);
  }
}

const Tensor* RowPass::ideal_of(std::int64_t index) const {
  return ideals_.empty() ? nullptr : ideals_[static_cast<std::size_t>((index - batch_begin_) / cols_)];
}

void RowPass::measure(TaskSums& sums, std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t rows = std::max<std::int64_t>(1, kBatchElements / std::max<std::int64_t>(1, cols_));
  const auto run = static_cast<std::int64_t>(kRunElements);
  for (std::int64_t begin = row_begin; begin < row_end; begin += rows) {
    const std::int64_t end = std::min(row_end, begin + rows);
    batch_begin_ = begin * cols_;
    tiers_.assign(static_cast<std::size_t>(end - begin), Tier::binary64);
    enclose(job_.truth, truth_, begin, end);
    if (job_.erasure != nullptr) enclose(*job_.erasure, erasure_, begin, end);
    choose_ideals(begin, end);
    for (std::int64_t i = batch_begin_; i < end * cols_; i += run) measure_run(sums, i, std::min(end * cols_, i + run));
  }
}

void RowPass::measure_run(TaskSums& sums, std::int64_t begin, std::int64_t end) {
  const auto count = static_cast<std::size_t>(end - begin);
  run_begin_ = begin;
  decode_run(job_.got, begin, got_.data(), count);
  settle_run(count);
  for (std::int64_t i = begin; i < end;) {
    const std::int64_t row = row_of(i), next = std::min(end, (row + 1) * cols_);
    decide_open({.row = row, .begin = i, .end = next});
    i = next;
  }
  const std::uint64_t states = sum_of(decided_->state.data(), count);
  tally_.counts.compared += state_count(states, settled_field);
  tally_.correct += state_count(states, correct_field);
  tally_.faithful += state_count(states, faithful_field);
  tally_.counts.underflow += state_count(states, underflow_field);
  tally_.counts.subnormal += state_count(states, subnormal_field);
  compare_with_ideal(count);
  move_together(count, state_count(states, settled_field));
  keep_candidates();
  accumulate(tally_, sums, job_,
             {.decided = *decided_,
              .index = index_,
              .has_definition = job_.erasure != nullptr,
              .has_implementation = !job_.ideals.empty() && &job_.ideals.front() != &job_.got});
}

/// What the quick enclosures tell.
void RowPass::settle_run(std::size_t count) {
  const auto at = static_cast<std::size_t>(run_begin_ - batch_begin_);
  // 2-norms of values near binary64's limits are scaled element by element.
  if (job_.scale != 0) {
    std::fill_n(decided_->state.begin(), count, 0);
    return;
  }
  settle(format_, truth_.from(at), got_.data(), count, *decided_);
  if (job_.erasure != nullptr)
    settle_definition(truth_.from(at), erasure_.from(at), count, *decided_);
  else
    std::fill_n(decided_->definition.begin(), count, 0.0);
}

/// What they leave open.
void RowPass::decide_open(const Segment& segment) {
  const Tier tier = tiers_[static_cast<std::size_t>(segment.row - row_of(batch_begin_))];
  const auto first = static_cast<std::size_t>(segment.begin - run_begin_);
  const std::int64_t size = segment.end - segment.begin;
  const auto settled = [&] {
    return state_count(sum_of(decided_->state.data() + first, static_cast<std::size_t>(size)), settled_field);
  };
  const std::int64_t open = size - settled();
  tally_.tiers.settle(tier, size - open);
  if (open == 0) return;
  // Of a truth that is all MPFR a single enclosure costs what a row does.
  const bool whole = open * kWholeRowShare > size || tier == Tier::exact;
  for (std::int64_t i = segment.begin; i < segment.end; ++i) {
    const auto at = static_cast<std::size_t>(i - run_begin_), quick_at = static_cast<std::size_t>(i - batch_begin_);
    if (decided_->state[at] != 0) continue;
    const Tensor* ideal = ideal_of(i);
    const ElementQuery element{.row = segment.row,
                               .col = i - segment.row * cols_,
                               .index = i,
                               .code = job_.got.code(i),
                               .got = got_[at],
                               .ideal = ideal == nullptr ? std::nullopt : std::optional(ideal->code(i))};
    if (count_special(tally_, job_, element, truth_.mid[quick_at], truth_.radius[quick_at])) {
      tally_.tiers.settle(tier);
      continue;
    }
    const Enclosure truth = closer(job_.truth, closer_truth_, segment.row, element.col, whole);
    if (job_.erasure == nullptr) {
      decide_element(tally_, job_, element, truth, nullptr, *decided_, at);
    } else {
      const Enclosure erasure = closer(*job_.erasure, closer_erasure_, segment.row, element.col, whole);
      decide_element(tally_, job_, element, truth, &erasure, *decided_, at);
    }
  }
}

Enclosure RowPass::closer(const TruthSource& truth, CloserRow& held, std::int64_t row, std::int64_t col, bool whole) {
  if (held.row != row) {
    if (!whole) return truth.enclose(row, col);
    held.enclosures.resize(static_cast<std::size_t>(cols_));
    truth.enclose_row(row, held.enclosures);
    held.row = row;
  }
  return held.enclosures[static_cast<std::size_t>(col)];
}

void RowPass::compare_with_ideal(std::size_t count) {
  Decided& d = *decided_;
  any_differs_ = false;
  if (ideals_.empty()) {
    if (job_.erasure != nullptr) std::fill_n(d.implementation.begin(), count, 0.0);
    return;
  }
  if (ideals_.front() == &job_.got) {
    ideal_ = got_;
    std::fill_n(d.implementation.begin(), count, 0.0);
  } else {
    const auto end = run_begin_ + static_cast<std::int64_t>(count);
    for (std::int64_t i = run_begin_; i < end;) {
      const std::int64_t next = std::min(end, (row_of(i) + 1) * cols_);
      decode_run(*ideal_of(i), i, ideal_.data() + (i - run_begin_), static_cast<std::size_t>(next - i));
      i = next;
    }
    if (!split_implementation(got_.data(), ideal_.data(), count, d)) {
      for (std::size_t j = 0; j < count; ++j) {
        if (d.state[j] != 0 && std::isnan(d.implementation[j]) && std::isfinite(ideal_[j]))
          d.implementation[j] = static_cast<double>(implementation_part(got_[j], ideal_[j], d.unit[j]));
      }
    }
  }
  const Conforming sums = conforming(got_.data(), ideal_.data(), count);
  any_differs_ = sums.equal < static_cast<std::int64_t>(count);
  tally_.equal += sums.equal;
  tally_.zeros_equal += sums.zeros;
  tally_.ideal_nonfinite += sums.nonfinite;
}

/// The scored elements to the front of the arrays.
void RowPass::move_together(std::size_t count, std::int64_t scored) {
  Decided& d = *decided_;
  index_.resize(count);
  std::iota(index_.begin(), index_.end(), run_begin_);
  if (scored == static_cast<std::int64_t>(count)) return;
  std::erase_if(index_, [&](std::int64_t i) { return d.state[static_cast<std::size_t>(i - run_begin_)] == 0; });
  for (RunArray* values : {&d.error, &d.unit, &d.per_unit, &d.shrink, &d.value, &d.difference, &d.definition,
                           &d.implementation, &got_, &ideal_})
    move_array(*values, index_, run_begin_);
}

Candidate RowPass::candidate_at(std::size_t j) const {
  const Decided& d = *decided_;
  const auto error = static_cast<std::int64_t>(d.error[j]);
  Candidate candidate{.key = error < 0 ? -error : error, .index = index_[j], .error = error};
  if (const Tensor* ideal = ideal_of(candidate.index)) candidate.ideal = ideal->code(candidate.index);
  if (!std::isnan(d.definition[j]) && !(candidate.ideal && std::isnan(d.implementation[j]))) {
    const auto definition = static_cast<std::int64_t>(d.definition[j]);
    const auto implementation = candidate.ideal ? static_cast<std::int64_t>(d.implementation[j]) : 0;
    candidate.split =
        Split{.definition = definition, .path = error - definition - implementation, .implementation = implementation};
  }
  return candidate;
}

void RowPass::keep_candidates() {
  const auto is_worse = [&](double error) { return std::fabs(error) > static_cast<double>(tally_.least_worst_key()); };
  const Decided& d = *decided_;
  const std::span<const double> errors = std::span(d.error).first(index_.size());
  for (std::size_t j = 0; j < index_.size() && (j > 0 || is_worse(largest_magnitude(errors))); ++j) {
    if (is_worse(errors[j])) tally_.keep(candidate_at(j));
  }
  if (!any_differs_) return;
  for (std::size_t j = 0; j < index_.size(); ++j) {
    if (std::bit_cast<std::uint64_t>(got_[j]) == std::bit_cast<std::uint64_t>(ideal_[j])) continue;
    // As a negation: a distance that is NaN is infinite.
    if (!(std::fabs(d.implementation[j]) <= static_cast<double>(tally_.furthest_distance())))
      tally_.keep_furthest(candidate_at(j));
  }
}

}  // namespace norma
