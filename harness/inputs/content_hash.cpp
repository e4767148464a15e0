// SHA-256 by Nettle, which takes the CPU's SHA instructions where it has them.
#include "harness/inputs/content_hash.hpp"

#include <array>
#include <cstdint>

#include <fmt/ranges.h>

namespace norma {

Sha256::Sha256() { sha256_init(&state_); }

void Sha256::add(std::span<const std::byte> bytes) {
  sha256_update(&state_, bytes.size(), reinterpret_cast<const std::uint8_t*>(bytes.data()));
}

std::string Sha256::hex() const {
  sha256_ctx state = state_;  // taking the digest resets what it is taken from
  std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest{};
  sha256_digest(&state, digest.size(), digest.data());
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.hex();
}

}  // namespace norma
