// Reading what a norm is called with.
#include "reference/norms/call.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace norma {

namespace {

/// [samples, cols], with any number of ones between them.
bool is_per_sample(const Tensor& t, const Tensor& x) {
  return t.shape.size() >= 2 && x.shape.size() >= 2 && t.shape.front() == x.shape.front() && t.cols() == x.cols() &&
         t.size() == t.shape.front() * t.cols();
}

Parameter per_column(const Tensor* t, double offset) { return {.tensor = t, .offset = offset, .index = {}}; }

Parameter per_sample(const Tensor* t, const Tensor& x, double offset) {
  const std::int64_t samples = x.shape.front();
  return {.tensor = t,
          .offset = offset,
          .index = {.rows_each = x.rows() / samples, .period = samples, .per_row = x.cols(), .span = 1}};
}

Parameter per_element(const Tensor* t, const Tensor& x) {
  return {.tensor = t, .offset = 0, .index = {.rows_each = 1, .period = x.rows(), .per_row = x.cols(), .span = 1}};
}

}  // namespace

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

void CallReader::refuse(const std::string& rest) const { throw NormError(std::string(norm_) + ": " + rest); }

void CallReader::refuse_number(std::string_view name, double value, std::string_view rule) const {
  refuse(std::string(name) + " is " + number_text(value) + " but must be " + std::string(rule) + ".");
}

const Tensor& CallReader::x() const {
  const Tensor* x = find("x");
  if (x == nullptr) refuse("there is no tensor x; it is what is normalized.");
  if (x->shape.empty() || x->size() == 0)
    refuse("x has shape " + shape_text(x->shape) + " but must have at least one row and column.");
  return *x;
}

const Tensor* CallReader::find(std::string_view name) const {
  const auto found = call_.inputs->find(name);
  return found == call_.inputs->end() ? nullptr : &found->second;
}

const Tensor* CallReader::like_x(std::string_view name) const {
  const Tensor* t = find(name);
  if (t != nullptr && t->shape != x().shape)
    refuse(std::string(name) + " has shape " + shape_text(t->shape) + " but must have x's, " + shape_text(x().shape) +
           ".");
  return t;
}

const Tensor* CallReader::vector(std::string_view name, std::int64_t count) const {
  const Tensor* t = find(name);
  if (t != nullptr && t->size() != count)
    refuse(std::string(name) + " has shape " + shape_text(t->shape) + " but must have " + shape_text({count}) +
           " to fit x.");
  return t;
}

std::string_view CallReader::word(std::string_view name, std::span<const std::string_view> known) const {
  const auto found = call_.words.find(name);
  if (found == call_.words.end()) return known.front();
  const auto choice = std::find(known.begin(), known.end(), found->second);
  if (choice != known.end()) return *choice;
  std::string list;
  for (std::string_view each : known) list += (list.empty() ? "" : ", ") + std::string(each);
  refuse(std::string(name) + "=" + found->second + " is not one of " + list + ".");
}

EpsPlace CallReader::eps_place(std::span<const std::string_view> known) const {
  return static_cast<EpsPlace>(std::find(kEpsPlaces.begin(), kEpsPlaces.end(), word("eps_place", known)) -
                               kEpsPlaces.begin());
}

double CallReader::eps(double fallback) const {
  return number("eps", fallback, "finite and not negative", [](double v) { return std::isfinite(v) && v >= 0; });
}

double CallReader::finite(std::string_view name, double fallback) const {
  return number(name, fallback, "finite", [](double v) { return std::isfinite(v); });
}

Parameter CallReader::columns(std::string_view name, double offset) const {
  const Tensor* t = find(name);
  if (t == nullptr) return {};
  if (t->size() == x().cols()) return per_column(t, offset);
  if (is_per_sample(*t, x())) return per_sample(t, x(), offset);
  std::string right = shape_text({x().cols()});
  if (x().shape.size() >= 2) right += " or " + shape_text({x().shape.front(), x().cols()});
  refuse(std::string(name) + " has shape " + shape_text(t->shape) + " but must have " + right + " to fit x.");
}

Parameter CallReader::columns_or_elements(std::string_view name) const {
  const Tensor* t = find(name);
  if (t != nullptr && t->shape == x().shape) return per_element(t, x());
  return columns(name);
}

Channels channels_of(const CallReader& reader) {
  const Tensor& x = reader.x();
  if (x.shape.size() < 2)
    reader.refuse("x has shape " + shape_text(x.shape) + " but must have samples and channels, [N, C, ...].");
  return {.samples = x.shape[0], .channels = x.shape[1], .spatial = x.size() / (x.shape[0] * x.shape[1])};
}

bool is_narrow(const RowNorm& norm) {
  const Tensor* tensors[] = {
      norm.x, norm.residual, norm.mean, norm.variance, norm.weight.tensor, norm.scale.tensor, norm.bias.tensor};
  return std::all_of(std::begin(tensors), std::end(tensors),
                     [](const Tensor* t) { return t == nullptr || format_of(t->format).precision <= 24; });
}

std::optional<RowNorm> fast_problem(const RowNorm& norm) {
  return is_narrow(norm) ? std::optional(norm) : std::nullopt;
}

}  // namespace norma
