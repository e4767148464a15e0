// A case's words -> BlockCall -> graph, stacked where several blocks are asked for.
#include "harness/cases/block_graphs.hpp"

#include <fmt/core.h>

#include "harness/cases/number.hpp"
#include "impls/cast_paths/linear_plan.hpp"

namespace norma {

namespace {

const BlockDef& block_of(const Case& c) { return *find_block(c.norm); }

template <class Work>
auto as_case_error(const Work& work) {
  try {
    return work();
  } catch (const ProgramError& e) {
    throw CaseError(e.what());
  }
}

Graph single_path_graph(const Case& c, const BlockPath& path) {
  const BlockCall call = block_call(c);
  const Graph graph =
      path.build({.x = call.x, .numbers = call.numbers, .format = c.format, .profile = std::string(c.get("profile"))});
  return with_linears(graph, linear_plan(attributes_of(c).words));
}

Graph as_often_as_asked(const Case& c, const Graph& one) {
  const int count = block_count(c);
  return count == 1 ? one : stacked(one, streams_of(block_of(c)), count);
}

}  // namespace

int block_count(const Case& c) {
  const std::string_view text = c.get("blocks");
  if (text.empty()) return 1;
  const double count = parse_number(text).value_or(0);
  if (!(count >= 1 && count <= 4096) || count != static_cast<int>(count))
    throw CaseError(fmt::format("blocks={} is not a whole number from 1 to 4096", text));
  if (count > 1 && block_of(c).streams.empty())
    throw CaseError(fmt::format("blocks={}: {} hands nothing on to a further one", text, c.norm));
  return static_cast<int>(count);
}

BlockCall block_call(const Case& c) {
  BlockCall call{.x = c.shape.value_or(Shape{}), .numbers = attributes_of(c).numbers};
  call.numbers.erase("blocks");
  return as_case_error([&] { return with_defaults(block_of(c), std::move(call)); });
}

Graph single_graph(const Case& c) {
  Graph block =
      as_case_error([&] { return block_of(c).build(block_call(c)); });  // which refuses sizes that do not fit together
  as_case_error(
      [&] { return linear_plan(attributes_of(c).words); });  // which refuses words, of a case without a path too
  if (const BlockPath* path = find_block_path(c.get("path")))
    return as_case_error([&] { return single_path_graph(c, *path); });
  return block;
}

Graph canonical_graph(const Case& c) {
  return as_case_error([&] { return as_often_as_asked(c, block_of(c).build(block_call(c))); });
}

Graph path_graph(const Case& c, const BlockPath& path) { return as_often_as_asked(c, single_path_graph(c, path)); }

Graph declared_graph(const Case& c) {
  return as_case_error([&] { return as_often_as_asked(c, single_graph(c)); });
}

}  // namespace norma
