// Intervals of one stage for the next, made once a row and precision.
#include "reference/exact/passed_value.hpp"

#include <utility>

namespace norma {

PassedValue::PassedValue(std::shared_ptr<const RowEvaluator> from, Operand value)
    : from_(std::move(from)), value_(value) {
  shape_.shape = output_shape(from_->placed_, from_->axes(value), from_->placed_.x);
}

const PassedValue::Level& PassedValue::level(mpfr_prec_t bits) const {
  const std::lock_guard lock(mutex_);
  auto& level = levels_[bits];
  if (!level) level = std::make_unique<Level>(from_->axes(value_).has(Axis::rows) ? from_->rows() : 1, bits);
  return *level;
}

const Interval& PassedValue::at(const Level& level, std::int64_t element) const {
  const Layout::Place place = from_->place_of(value_, element);
  const std::vector<Interval>& values = row(level, place.row).values;
  return values[values.size() == 1 ? 0 : static_cast<std::size_t>(place.col)];
}

std::optional<Algebraic> PassedValue::algebraic(std::int64_t element, mpfr_prec_t bits, RootNames& names) const {
  const Layout::Place place = from_->place_of(value_, element);
  const Row& known = row(level(bits), place.row);
  const RowValues values = from_->evaluate_column(value_, place.row, place.col, bits, &known.shared);
  return from_->algebraic_of(values, value_, place.col, names);
}

const PassedValue::Row& PassedValue::row(const Level& level, std::int64_t index) const {
  Row& row = level.rows[static_cast<std::size_t>(index)];
  std::call_once(row.made, [&] {
    RowValues values = from_->evaluate(value_, index, level.bits);
    row.values = values.of(value_);
    row.shared = from_->shared_part(std::move(values));
  });
  return row;
}

}  // namespace norma
