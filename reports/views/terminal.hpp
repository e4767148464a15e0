// What a terminal shows of a run: a table of records, and one failure in full.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

namespace norma {

enum class TableOrder { given, worst_first };

struct TerminalOptions {
  bool colour = false;      ///< the caller decides, by isatty and NO_COLOR
  std::size_t width = 120;  ///< columns of the terminal; names are cut and the least needed columns dropped
  std::size_t limit = 0;    ///< rows shown, 0: all; the rest is counted
  TableOrder order = TableOrder::worst_first;
};

/// One line a record and output, the unit and the definition of ulp below. Lines of other kinds are passed over.
/// A maximum is rounded up and a share down, so that 0.5000 and 100 mean just that.
std::string render_table(std::span<const nlohmann::json> records, const TerminalOptions& options);

/// Got, want, exact, error, bound, repro, aligned, one fact a line, for the worst element of a record; for a
/// record without one (skip, crashed) the reason and the repro line.
std::string render_failure(const nlohmann::json& record, const TerminalOptions& options = {});

}  // namespace norma
