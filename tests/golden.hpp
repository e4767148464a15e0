// Text that people read, compared with the approved file under tests/golden.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

namespace norma::test {

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Fails if tests/golden/NAME is not `text`, and leaves the text where tests/approve.py finds it.
inline void check_golden(std::string_view name, const std::string& text) {
  const std::filesystem::path approved = std::filesystem::path(NORMA_SOURCE_DIR) / "tests/golden" / name;
  const std::filesystem::path received =
      std::filesystem::path(NORMA_BINARY).parent_path().parent_path() / "tests/received" / name;
  if (read_text(approved) == text) {
    std::filesystem::remove(received);
    return;
  }
  std::filesystem::create_directories(received.parent_path());
  std::ofstream(received, std::ios::binary) << text;
  FAIL_CHECK("differs from tests/golden/" << name << "; to see and accept the change: tests/approve.py [--write]\n"
                                          << text);
}

}  // namespace norma::test
