// Reading what a norm is called with. Every refusal is one sentence that begins with the norm's name.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "reference/norms/norm.hpp"

namespace norma {

/// A call as its norm reads it; all errors are NormError.
class CallReader {
 public:
  CallReader(std::string_view norm, const NormCall& call) : norm_(norm), call_(call) {}

  [[noreturn]] void refuse(const std::string& rest) const;  ///< "NORM: rest"

  /// x: at least one axis, at least one element.
  const Tensor& x() const;
  /// Null if there is none.
  const Tensor* find(std::string_view name) const;
  /// The same, of x's shape.
  const Tensor* like_x(std::string_view name) const;
  /// The same, of one value for each of `count`, however its axes are written.
  const Tensor* vector(std::string_view name, std::int64_t count) const;

  /// A choice; the first one if nothing is said.
  std::string_view word(std::string_view name, std::span<const std::string_view> known) const;
  EpsPlace eps_place(std::span<const std::string_view> known) const;
  double eps(double fallback) const;
  double finite(std::string_view name, double fallback) const;

  /// A number; `fits` tells whether it lies in the domain that `rule` names.
  template <typename Fits>
  double number(std::string_view name, double fallback, std::string_view rule, Fits fits) const {
    const auto found = call_.numbers.find(name);
    const double value = found == call_.numbers.end() ? fallback : found->second;
    if (!fits(value)) refuse_number(name, value, rule);
    return value;
  }

  /// `offset` plus one value for each column, [cols], or one vector for each sample (x's first axis), [samples, cols]
  /// or [samples, 1, ..., cols].
  Parameter columns(std::string_view name, double offset = 0) const;
  /// The same; a tensor of x's shape too.
  Parameter columns_or_elements(std::string_view name) const;

 private:
  [[noreturn]] void refuse_number(std::string_view name, double value, std::string_view rule) const;

  std::string_view norm_;
  const NormCall& call_;
};

/// x as samples of channels of positions: [N, C, ...].
struct Channels {
  std::int64_t samples = 0, channels = 0, spatial = 0;
};
Channels channels_of(const CallReader& reader);

/// All tensors are of formats that the fast tiers take: at most 24 significant bits.
bool is_narrow(const RowNorm& norm);
/// The problem itself, or none where a tensor is wider.
std::optional<RowNorm> fast_problem(const RowNorm& norm);

std::string number_text(double value);

}  // namespace norma
