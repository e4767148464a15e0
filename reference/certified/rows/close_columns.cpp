// Gathers columns, then decodes them as rows are.
#include "reference/certified/rows/close_columns.hpp"

#include <cstring>

#include "reference/formats/convert.hpp"

namespace norma {

namespace {

template <std::size_t kBytes, class Index>
void copy_elements(const std::byte* from, std::size_t count, Index index, std::byte* to) {
  for (std::size_t i = 0; i < count; ++i)
    std::memcpy(to + i * kBytes, from + static_cast<std::size_t>(index(i)) * kBytes, kBytes);
}

/// decode(stored elements, count) with the elements at index(0), index(1), ... side by side.
template <class Index, class Decode>
void gather(const Tensor& t, std::size_t count, Index index, Decode decode) {
  alignas(64) std::array<std::byte, kCloseBlock * 4> packed;
  const std::byte* const from = t.bytes.data();
  switch (format_of(t.format).storage_bytes()) {
    case 1: copy_elements<1>(from, count, index, packed.data()); break;
    case 2: copy_elements<2>(from, count, index, packed.data()); break;
    default: copy_elements<4>(from, count, index, packed.data()); break;
  }
  decode(packed.data());
}

void decode(FormatId format, const std::byte* stored, double* out, std::size_t count) {
  load_row(format, stored, out, count);
}
void decode(FormatId format, const std::byte* stored, float* out, std::size_t count) {
  decode_row(format, stored, out, count);
}

}  // namespace

template <class Number>
void load_values(const Tensor& t, std::int64_t first, const ColumnList& columns, Number* out) {
  const auto read = [&](const std::byte* stored) { decode(t.format, stored, out, columns.count); };
  if (columns.list != nullptr)
    return gather(
        t, columns.count, [&](std::size_t i) { return first + columns.list[i]; }, read);
  const auto bytes = static_cast<std::size_t>(format_of(t.format).storage_bytes());
  read(t.bytes.data() + static_cast<std::size_t>(first + columns.first) * bytes);
}
template void load_values(const Tensor&, std::int64_t, const ColumnList&, double*);
template void load_values(const Tensor&, std::int64_t, const ColumnList&, float*);

const float* floats_at(const Tensor& t, std::int64_t first, const ColumnList& columns, float* spare) {
  if (t.format == FormatId::fp32 && columns.list == nullptr)
    return reinterpret_cast<const float*>(t.bytes.data()) + first + columns.first;
  load_values(t, first, columns, spare);
  return spare;
}

template <class Number>
void load_values(const Parameter& p, Number neutral, std::int64_t row, const ColumnList& columns, Number* out) {
  const std::size_t count = columns.count;
  const ParameterIndex& index = p.index;
  if (p.tensor == nullptr) {
    std::fill_n(out, count, neutral);
  } else if (index.span == 1) {
    load_values(*p.tensor, index.at(row, 0), columns, out);
  } else if (columns.list != nullptr) {
    gather(
        *p.tensor, count, [&](std::size_t i) { return index.at(row, columns.list[i]); },
        [&](const std::byte* stored) { decode(p.tensor->format, stored, out, count); });
  } else {
    for (std::size_t i = 0; i < count;) {
      const std::int64_t col = columns.at(i);
      const auto run = std::min(count - i, static_cast<std::size_t>(index.span - col % index.span));
      std::fill_n(out + i, run, static_cast<Number>(p.tensor->value(index.at(row, col))));
      i += run;
    }
  }
}
template void load_values(const Parameter&, double, std::int64_t, const ColumnList&, double*);
template void load_values(const Parameter&, float, std::int64_t, const ColumnList&, float*);

void load_elements(const RowNorm& norm, std::int64_t row, const ColumnList& columns, Pairs out, double* spare) {
  load_values(*norm.x, row * norm.cols, columns, out.h);
  if (norm.residual == nullptr) {
    std::fill_n(out.l, columns.count, 0.0);
    return;
  }
  load_values(*norm.residual, row * norm.cols, columns, spare);
  add_exactly(out.h, spare, out, columns.count);
}

void load_parameter(const Parameter& p, double neutral, std::int64_t row, const ColumnList& columns, Pairs out,
                    double* spare) {
  std::fill_n(out.l, columns.count, 0.0);
  load_values(p, neutral, row, columns, out.h);
  if (p.tensor == nullptr || p.offset == 0) return;
  std::fill_n(spare, columns.count, p.offset);
  add_exactly(out.h, spare, out, columns.count);
}

}  // namespace norma
