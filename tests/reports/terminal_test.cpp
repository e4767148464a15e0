// The terminal's table and failure text, as approved.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "reports/views/terminal.hpp"
#include "tests/golden.hpp"

namespace {

using nlohmann::json;
using norma::render_table;
using norma::TerminalOptions;

std::vector<json> fixture() {
  std::istringstream in(norma::test::read_text(std::string(NORMA_SOURCE_DIR) + "/tests/golden/reports/run.jsonl"));
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

std::size_t longest_line(const std::string& text) {
  std::istringstream in(text);
  std::size_t longest = 0;
  for (std::string line; std::getline(in, line) && !line.empty();)
    longest = std::max(longest, static_cast<std::size_t>(std::count_if(line.begin(), line.end(), [](char c) {
                         return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
                       })));
  return longest;
}

}  // namespace

TEST_CASE("the table is as approved") {
  norma::test::check_golden("reports/table.txt", render_table(fixture(), TerminalOptions{.width = 160}));
  norma::test::check_golden("reports/table_narrow.txt",
                            render_table(fixture(), TerminalOptions{.width = 80, .limit = 4}));
}

TEST_CASE("a failure is told as approved") {
  std::string text;
  for (const json& line : fixture())
    if (line["kind"] == "record" && line["verdict"] != "pass" && line["reason"] != "no criterion")
      text += norma::render_failure(line) + "\n";
  norma::test::check_golden("reports/failures.txt", text);
}

TEST_CASE("the table fits the terminal down to 72 columns") {
  for (const std::size_t width : {72u, 80u, 100u, 120u, 200u}) {
    CAPTURE(width);
    CHECK(longest_line(render_table(fixture(), TerminalOptions{.width = width})) <= width);
  }
}

TEST_CASE("colour only if asked, and it changes nothing but colour") {
  const std::string plain = render_table(fixture(), {});
  std::string coloured = render_table(fixture(), TerminalOptions{.colour = true});
  CHECK(plain.find('\033') == std::string::npos);
  CHECK(coloured.find("\033[31mfail") != std::string::npos);
  for (std::size_t at = coloured.find('\033'); at != std::string::npos; at = coloured.find('\033'))
    coloured.erase(at, coloured.find('m', at) - at + 1);
  CHECK(coloured == plain);
}

TEST_CASE("a maximum above one half is never shown as 0.5000, nor an incomplete share as 100") {
  std::vector<json> lines{fixture()[3]};
  json& y = lines[0]["outputs"]["y"];
  y["ulp"]["max"] = 0.5 + 1.0 / 65536;
  y["rounding"]["correct"] = y["counts"]["compared"].get<int>() - 1;
  const std::string table = render_table(lines, TerminalOptions{.width = 200});
  CHECK(table.find("0.5001") != std::string::npos);
  CHECK(table.find("99.99") != std::string::npos);
}

TEST_CASE("a record that was measured without a criterion is not called a skip, a real skip is") {
  const std::string table = render_table(fixture(), TerminalOptions{.width = 200});
  CHECK(table.find("measured  rmsnorm    hf.llama.rmsnorm") != std::string::npos);
  CHECK(table.find(", 1 skip, ") != std::string::npos);
  CHECK(table.find("1 measured without a criterion") != std::string::npos);
  CHECK(table.find("sha256") == std::string::npos);
}

TEST_CASE("the order given is kept if asked") {
  const std::string table = render_table(fixture(), TerminalOptions{.width = 160, .order = norma::TableOrder::given});
  CHECK(table.find("torch.nn.rmsnorm") < table.find("crashed"));
  const std::string worst = render_table(fixture(), TerminalOptions{.width = 160});
  CHECK(worst.find("crashed") < worst.find("torch.nn.rmsnorm"));
}
