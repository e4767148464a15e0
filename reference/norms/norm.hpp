// The catalogue of norms: functions over the reals, straight from their formulas.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// A call outside a norm's domain; the message is one sentence that names the thing and what would be right.
struct NormError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a norm is applied to. `numbers` (eps, ...) are exact binary64 reals; `words` are choices
/// (eps_place=inside).
struct NormCall {
  const Tensors* inputs = nullptr;
  Attributes numbers;
  std::map<std::string, std::string, std::less<>> words;
};

struct NormInput {
  std::string_view name;
  /// Its shape beside x's: "rows,cols" x's own; "cols" [x's last axis]; "channels" [second axis]; "samples,cols" and
  /// "samples,channels" [first axis, that one], with ones or not; "pairs" [tokens, 1, last] beside
  /// x [..., tokens, heads, last], or what broadcasts to x; "" one value. "A|B": either; A if nothing is said.
  std::string_view axes;
  bool required;
  std::string_view meaning;
};

struct NormAttribute {
  std::string_view name;
  std::string_view fallback;  ///< as a case line writes it
  std::string_view choices;   ///< "a|b|c" for words, empty for numbers
  std::string_view meaning;
};

/// An output that a call has.
struct NormOutput {
  std::string_view name;
  Shape shape;
};

/// One norm: formula, source, inputs and attributes, and its truth.
struct NormDef {
  std::string_view name;
  std::string_view title;
  std::string_view formula;
  std::string_view source;
  std::span<const NormInput> inputs;
  std::span<const NormAttribute> attributes;
  std::span<const std::string_view> outputs;  ///< that exist for some call; the first is y, or dx
  /// Throws NormError if shapes, eps or formats do not fit (names them).
  void (*check)(const NormCall&);
  /// Truth of one output, by MPFR; rows x cols is a view of the output in memory order. The call's tensors must outlive
  /// it.
  std::unique_ptr<TruthSource> (*truth)(const NormCall&, std::string_view output);
  /// The tensors that an implementation of this call writes, y first. Call after `check`.
  std::vector<NormOutput> (*outputs_of)(const NormCall&);
  /// The output as a problem of reference/certified; empty where only `truth` can tell (quantized outputs, fp64).
  /// Null: for no output. Call after `check`.
  std::optional<RowNorm> (*row_norm)(const NormCall&, std::string_view output) = nullptr;
  /// Fast tiers of an output that is no RowNorm; null, function or result: there are none. Call after `check`.
  std::unique_ptr<TruthSource> (*fast)(const NormCall&, std::string_view output) = nullptr;
};

/// Which truth: all tiers, or MPFR alone.
enum class TruthKind { fast, mpfr };
inline constexpr std::array<std::string_view, 2> kTruthKinds{"fast", "mpfr"};

/// Truth of one output, of the kind asked for; `fast` is `truth` itself where there is no other.
std::unique_ptr<TruthSource> truth_of(const NormDef& norm, const NormCall& call, std::string_view output,
                                      TruthKind kind);

std::span<const NormDef* const> all_norms();
const NormDef* find_norm(std::string_view name);

}  // namespace norma
