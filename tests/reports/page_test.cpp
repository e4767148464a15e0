// The page holds every record, nothing in it can break out of its script element, and it asks for nothing outside.
#include <catch2/catch_test_macros.hpp>

#include <sstream>
#include <string>
#include <vector>

#include "reports/views/page.hpp"
#include "tests/golden.hpp"

namespace {

using nlohmann::json;

std::vector<json> fixture() {
  std::istringstream in(norma::test::read_text(std::string(NORMA_SOURCE_DIR) + "/tests/golden/reports/run.jsonl"));
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

std::vector<json> details_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" class=\"block\">";
  std::vector<json> rows;
  for (std::size_t begin = page.find(open); begin != std::string::npos; begin = page.find(open, begin)) {
    begin += open.size();
    for (const json& row : json::parse(page.substr(begin, page.find("</script>", begin) - begin))) rows.push_back(row);
  }
  return rows;
}

json unpack(const json& value, const json& keys) {
  if (!value.is_array()) return value;
  if (value[0] == -1) {
    json list = json::array();
    for (std::size_t i = 1; i < value.size(); ++i) list.push_back(unpack(value[i], keys));
    return list;
  }
  json object = json::object();
  const json& names = keys[value[0].get<std::size_t>()];
  for (std::size_t i = 1; i < value.size(); ++i) object[names[i - 1].get<std::string>()] = unpack(value[i], keys);
  return object;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

}  // namespace

TEST_CASE("the page has a row for every record and output, and the case line comes back whole") {
  const std::vector<json> lines = fixture();
  const std::string page = norma::render_page(lines);
  const json rows = data_of(page)["rows"];
  std::size_t row = 0;
  for (const json& line : lines) {
    if (line["kind"] != "record") continue;
    const std::size_t outputs = std::max<std::size_t>(line["outputs"].size(), 1);
    for (std::size_t i = 0; i < outputs; ++i, ++row) {
      CHECK(rows["ordinal"][row] == line["ordinal"]);
      CHECK(rows["words"][rows["impl"][row].get<std::size_t>()] == line["impl"]);
      std::string text;
      for (const json& id : rows["case"][row])
        text += (text.empty() ? "" : " ") + rows["words"][id.get<std::size_t>()].get<std::string>();
      CHECK(text == line["case"].get<std::string>());
    }
  }
  CHECK(rows["ordinal"].size() == row);
}

TEST_CASE("the detail of a row is the record's own output") {
  const std::vector<json> lines = fixture();
  const std::string page = norma::render_page(lines);
  const json rows = data_of(page)["rows"];
  const std::vector<json> details = details_of(page);
  REQUIRE(details.size() == rows["ordinal"].size());
  for (std::size_t row = 0; row < details.size(); ++row) {
    json detail = unpack(details[row], rows["keys"]);
    const auto line = std::find_if(lines.begin(), lines.end(), [&](const json& l) {
      return l["kind"] == "record" && l["ordinal"] == rows["ordinal"][row];
    });
    REQUIRE(line != lines.end());
    CHECK(detail["reason"] == (*line)["reason"]);
    const std::string repro = detail["repro"].is_array()
                                  ? detail["repro"][0].get<std::string>() + (*line)["case"].get<std::string>() +
                                        detail["repro"][1].get<std::string>()
                                  : detail["repro"].get<std::string>();
    CHECK(repro == ((*line)["repro"]).get<std::string>());
    const std::string name = rows["words"][rows["output"][row].get<std::size_t>()];
    if (name.empty()) continue;
    const json& output = (*line)["outputs"][name];
    // Only the histogram is stored in another way.
    json& histogram = detail["output"]["ulp"]["histogram"];
    std::vector<json> counts(output["ulp"]["histogram"]["counts"].size(), 0);
    std::size_t bin = histogram["first"];
    for (const json& n : histogram["counts"]) counts[bin++] = n;
    histogram = {{"edges", rows["edges"][histogram["edges"].get<std::size_t>()]}, {"counts", counts}};
    CHECK(detail["output"] == output);
  }
}

TEST_CASE("text from a run cannot end its script element") {
  json record = fixture()[3];
  record["impl"] = "</script><!--<script>alert(1)</script>\u2028\u2029{{data}}";
  record["outputs"]["</script>"] = record["outputs"]["y"];
  const std::string page = norma::render_page(std::vector<json>{record});
  const std::string plain = norma::render_page(std::vector<json>{fixture()[3]});
  CHECK(count_of(page, "</script>") == count_of(plain, "</script>"));
  CHECK(count_of(page, "<!--") == count_of(plain, "<!--"));
  CHECK(page.find("alert(1)<") == std::string::npos);
  CHECK(page.find("\u2028") == std::string::npos);
  CHECK(data_of(page)["rows"]["words"].dump().find("{{data}}") != std::string::npos);
}

TEST_CASE("a page refers to nothing outside itself") {
  const std::string page = norma::render_page(fixture());
  CHECK(page.find("src=\"") == std::string::npos);
  CHECK(page.find("url(") == std::string::npos);
  CHECK(page.find("@import") == std::string::npos);
  CHECK(page.find("default-src 'none'") != std::string::npos);
  CHECK(page.find("Chart.js v") != std::string::npos);
}

TEST_CASE("the same lines give the same page, and no lines give a page too") {
  CHECK(norma::render_page(fixture()) == norma::render_page(fixture()));
  CHECK(data_of(norma::render_page({}))["rows"]["ordinal"].empty());
}

TEST_CASE("of very many rows the passing ones keep three worst elements") {
  const json record = fixture()[3];
  REQUIRE(record["verdict"] == "pass");
  REQUIRE(record["outputs"]["y"]["worst"].size() == 8);
  json slim = record;
  slim["outputs"]["y"]["ulp"].erase("histogram");
  std::vector<json> lines(20001, slim);
  const std::string page = norma::render_page(lines);
  const json rows = data_of(page)["rows"];
  CHECK(rows["worst"][0] == 8);
  CHECK(unpack(details_of(page)[0], rows["keys"])["output"]["worst"].size() == 3);
}
