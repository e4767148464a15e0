// Blocks as a case line knows them.
#include "harness/cases/block_words.hpp"

#include <map>
#include <string>
#include <vector>

#include "impls/cast_paths/linear_plan.hpp"
#include "reference/blocks/block.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "the block's tensors"}};
constexpr std::string_view kOutputs[] = {"y"};

std::string_view linear_modes() {
  static const std::string all = [] {
    std::string text;
    for (const LinearMode& mode : all_linear_modes()) text.append(text.empty() ? "" : "|").append(mode.name);
    return text;
  }();
  return all;
}

struct Words {
  std::vector<NormAttribute> attributes;
  NormDef def;

  explicit Words(const BlockDef& block)
      : def{.name = block.name, .title = block.title, .formula = block.formula, .source = block.source, .inputs = kInputs,
            .attributes = {}, .outputs = kOutputs, .check = nullptr, .truth = nullptr, .outputs_of = nullptr} {
    for (const BlockAttribute& a : block.attributes)
      attributes.push_back({.name = a.name, .fallback = a.fallback, .choices = "", .meaning = a.meaning});
    if (!block.streams.empty())
      attributes.push_back({.name = "blocks", .fallback = "1", .choices = "",
                            .meaning = "blocks of this kind, one after the other; of block k the weights are k.NAME"});
    attributes.push_back({.name = "layout", .fallback = "norma", .choices = "norma|diffusers|bfl",
                          .meaning = "whose tensor names a file has"});
    // Without a value nothing is changed, and a case says nothing of it.
    const auto of_path = [&](std::string_view word, std::string_view choices, std::string_view meaning) {
      attributes.push_back({.name = word, .fallback = "", .choices = choices, .meaning = meaning});
    };
    of_path("linears", linear_modes(), "how the path's linear layers are computed, if not as it writes them");
    of_path("keep", kAnyText, "parts of the names of layers that linears= leaves as they are, joined by commas");
    of_path("keep_fp32", kAnyText, "the same of layers whose weights stay in fp32 and that compute in it");
    of_path("sums", kAnyText, "order of the linear layers' sums: exact, sequential, blocked(N), split(N), tensor_core(N)");
    of_path("bias", "epilogue|after|first", "where their bias is added");
    def.attributes = attributes;
  }
};

}  // namespace

const NormDef* find_block_words(std::string_view name) {
  static const auto all = [] {
    std::map<std::string, Words, std::less<>> words;
    for (const BlockDef* block : all_blocks()) words.try_emplace(std::string(block->name), *block);
    // What the definitions point to moved with them.
    for (auto& [known, word] : words) word.def.attributes = word.attributes;
    return words;
  }();
  const auto found = all.find(name);
  return found == all.end() ? nullptr : &found->second.def;
}

}  // namespace norma
