// What transcriptions of gradients share: sums of products, saved statistics, records of the catalogue.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "impls/cast_paths/channel_steps.hpp"

namespace norma {

/// The sum of a c along a row. `fused`: where the order contracts, a product and its sum are one fused operation; the
/// products are then kept exact (those of two fp32 values in binary64 are).
Operand product_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand a, Operand c, Order order,
                    bool fused);
/// The sum of exact products that an earlier stage passed in binary64, fused.
Operand fused_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand products, Order order);
Operand value_sum(Builder& b, const std::string& name, FormatRef accumulator, Operand of, Order order);

/// a c - d and c - a d in fp32, fused.
Operand fused_product_minus(Builder& b, const std::string& name, Operand a, Operand c, Operand d);
Operand fused_minus_product(Builder& b, const std::string& name, Operand c, Operand a, Operand d);
/// a b c ... from left to right in fp32, named name_1, name_2, ..., the last one `name`.
Operand product_of(Builder& b, const std::string& name, std::initializer_list<Operand> factors);

/// ((value) to T): the output `name` in `format`.
void put_out(Builder& b, const std::string& name, FormatRef format, Operand value);

/// dy has x's format; weight (and bias) x's too, or fp32 beside 16-bit x.
enum class Mixed : std::uint8_t { taken, refused };
void require_gradient_formats(const Binding& binding, std::string_view code, Mixed mixed);

/// torch's sum over the rows of a matrix of `columns` columns on a CPU.
Order torch_outer_order(std::int64_t columns);

/// A record of the catalogue with what gradients have in common left out.
struct GradientPath {
  std::string_view name, title, norm;
  PathSource source;
  std::string_view eps_default = "1e-5";
  std::string_view eps_place = "inside";
  std::string_view eps_class = "fp32";
  std::string_view root = "1/sqrt";
  std::string_view tail = "B";
  std::string_view required = "dy";
  std::string_view optional = "weight";
  std::span<const CaseDefault> norm_attributes = {};
  std::span<const std::string_view> gaps = {};
  std::span<const std::string_view> profiles;
  Program (*build)(const Binding& binding);
};
constexpr CastPath gradient_path(const GradientPath& path) {
  return {.name = path.name,
          .title = path.title,
          .norm = path.norm,
          .source = path.source,
          .eps_default = path.eps_default,
          .eps_place = path.eps_place,
          .eps_class = path.eps_class,
          .root = path.root,
          .tail = path.tail,
          .residual = "",
          .required = path.required,
          .optional = path.optional,
          .norm_attributes = path.norm_attributes,
          .gaps = path.gaps,
          .profiles = path.profiles,
          .build = path.build};
}

inline constexpr View kColumns{.kind = ViewKind::columns};

}  // namespace norma
