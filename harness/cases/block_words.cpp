// Blocks as a case line knows them.
#include "harness/cases/block_words.hpp"

#include <map>
#include <string>
#include <vector>

#include "reference/blocks/block.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "the block's tensors"}};
constexpr std::string_view kOutputs[] = {"y"};

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
