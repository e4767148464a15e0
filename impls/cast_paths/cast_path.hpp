// The catalogue of cast paths: programs transcribed from real code, every rounding in its place, cited.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "reference/program/builder.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// Where a path was read. `evidence` is "read" (in the source itself), "quoted" (in a copy elsewhere) or
/// "inferred".
struct PathSource {
  std::string_view project;
  std::string_view file;
  std::string_view commit;
  std::string_view evidence;
};

/// What a path leaves to the place where it runs: the order of sums, how a reciprocal root is taken, where a
/// product and a sum contract. A path names the profiles it can run under; the first is its default.
struct Profile {
  std::string_view name;
  std::string_view title;
  Order sum;       ///< of fp32 terms along a contiguous row
  Order sum_half;  ///< of 16-bit terms (torch adds the halves of a double-width load first)
  bool contract_squares;  ///< sum += x*x is one fused multiply-add
  enum class Root : std::uint8_t { sqrt_then_reciprocal, correct, within_2_ulp } root;
};
const Profile* find_profile(std::string_view name);
std::span<const Profile> all_profiles();

struct CaseDefault {
  std::string_view key;    ///< an attribute of the norm, as a case line names it
  std::string_view value;
};

/// One cast path. The classes are the words of the catalogue's table (facts, §f of the survey): they say
/// what the program does and are checked against it by the tests where a machine can.
struct CastPath {
  std::string_view name;    ///< project.module.norm[.variant]
  std::string_view title;
  std::string_view norm;    ///< rmsnorm, ...
  PathSource source;
  std::string_view eps_default;    ///< as a case line writes it; what the code uses when nothing is said
  std::string_view eps_place;      ///< inside | sum | outside | max | l2max | none
  std::string_view eps_class;      ///< exact | fp32 | rounded to T | finfo(T) | finfo(fp32) | hard-coded
  std::string_view root;           ///< rsqrt | 1/sqrt | x/sqrt | pow(-0.5) | rsqrt(var+mean^2) | ...
  std::string_view tail;           ///< A..J of the survey: where the weight meets the cast
  std::string_view residual;       ///< "" | unrounded | rounded | fp32 for fp16 only
  std::string_view required;       ///< inputs besides x that must be present, comma separated
  std::string_view optional;       ///< inputs that may be present
  std::span<const CaseDefault> norm_attributes;  ///< what the canonical norm is called with (weight_offset=1)
  /// Named definition gaps between the erasure and that canonical norm; empty: the erasure is canonical.
  std::span<const std::string_view> gaps;
  std::span<const std::string_view> profiles;
  /// Throws ProgramError with one sentence if the binding is not one that the code accepts.
  Program (*build)(const Binding& binding);
};

/// All paths in the catalogue's order.
std::span<const CastPath* const> all_cast_paths();
const CastPath* find_cast_path(std::string_view name);
/// The formats of the outputs follow from the program; this builds it under its default profile if none is named.
Program build_path(const CastPath& path, Binding binding);
/// The profile a binding names, else the path's default. ProgramError naming the path's profiles otherwise.
const Profile& profile_of(const CastPath& path, const Binding& binding);

}  // namespace norma
