// The catalogue: the paths of catalog.def in their order, and how any of them is built.
#include <algorithm>
#include <string>

#include "impls/cast_paths/catalog.hpp"

namespace norma {

namespace {

constexpr const CastPath* kPaths[] = {
#define NORMA_CAST_PATH(identifier) &cast_paths::identifier,
#include "impls/cast_paths/catalog.def"
#undef NORMA_CAST_PATH
};

bool holds(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (list.substr(0, comma) == word) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

std::string joined(std::span<const std::string_view> words) {
  std::string text;
  for (const std::string_view w : words) text += (text.empty() ? "" : ", ") + std::string(w);
  return text;
}

void check_inputs(const CastPath& path, const Binding& binding) {
  const std::string name(path.name);
  for (const auto& [tensor, format] : binding.formats)
    if (!holds(path.required, tensor) && !holds(path.optional, tensor)) {
      const std::string_view comma = path.required.empty() || path.optional.empty() ? "" : ",";
      throw ProgramError("path " + name + " has no input '" + tensor + "'; besides x it takes: " +
                         std::string(path.required) + std::string(comma) + std::string(path.optional));
    }
  std::string_view rest = path.required;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    if (!binding.has(rest.substr(0, comma)))
      throw ProgramError("path " + name + " needs the input '" + std::string(rest.substr(0, comma)) + "'");
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
}

}  // namespace

std::span<const CastPath* const> all_cast_paths() { return kPaths; }

const CastPath* find_cast_path(std::string_view name) {
  const auto* found = std::ranges::find(kPaths, name, [](const CastPath* p) { return p->name; });
  return found == std::end(kPaths) ? nullptr : *found;
}

const Profile& profile_of(const CastPath& path, const Binding& binding) {
  const std::string_view name = binding.profile.empty() ? path.profiles.front() : std::string_view(binding.profile);
  if (std::ranges::find(path.profiles, name) == path.profiles.end())
    throw ProgramError("path " + std::string(path.name) + " has no profile '" + std::string(name) +
                       "'; it has: " + joined(path.profiles));
  return *find_profile(name);
}

Program build_path(const CastPath& path, Binding binding) {
  binding.profile = profile_of(path, binding).name;
  check_inputs(path, binding);
  return path.build(binding);
}

}  // namespace norma
