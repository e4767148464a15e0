// The hash that identifies file contents: SHA-256, so that it can be checked with any tool.
#pragma once

#include <nettle/sha2.h>

#include <cstddef>
#include <span>
#include <string>

namespace norma {

class Sha256 {
 public:
  Sha256();
  void add(std::span<const std::byte> bytes);
  /// 64 hexadecimal digits of everything added.
  std::string hex() const;

 private:
  sha256_ctx state_;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace norma
