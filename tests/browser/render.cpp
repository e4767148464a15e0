// Writes the page of a run.jsonl, for the browser test: render RUN.jsonl PAGE.html
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "reports/views/page.hpp"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: render RUN.jsonl PAGE.html\n";
    return 2;
  }
  std::ifstream in(argv[1]);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  std::ofstream(argv[2], std::ios::binary) << norma::render_page(lines);
}
