// Large arrays of binary64 numbers.
#include "reference/certified/products/numbers.hpp"

#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace norma {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLine = 64;
constexpr std::size_t kKept = std::size_t{64} << 20;  // bytes

/// Large blocks that nobody uses, up to kKept bytes of them.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    for (const Block& block : free_) std::free(block.data);
  }

  /// A block of at least `bytes`, at most twice that; null if there is none. `bytes` becomes its size.
  void* take(std::size_t& bytes) {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < free_.size(); ++i) {
      if (free_[i].bytes < bytes || free_[i].bytes / 2 > bytes) continue;
      const Block found = std::exchange(free_[i], free_.back());
      free_.pop_back();
      total_ -= found.bytes;
      bytes = found.bytes;
      return found.data;
    }
    return nullptr;
  }

  void give(void* data, std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      if (total_ + bytes <= kKept) {
        free_.push_back({data, bytes});
        total_ += bytes;
        return;
      }
    }
    std::free(data);
  }

 private:
  struct Block {
    void* data;
    std::size_t bytes;
  };
  std::mutex mutex_;
  std::vector<Block> free_;
  std::size_t total_ = 0;
};

Pool& pool() {
  static Pool blocks;
  return blocks;
}

void* allocate(std::size_t& bytes) {
  const bool large = bytes >= kHugePage;
  const std::size_t unit = large ? kHugePage : kLine;
  bytes = (bytes + unit - 1) / unit * unit;
  if (large)
    if (void* kept = pool().take(bytes)) return kept;
  void* data = std::aligned_alloc(unit, bytes);
  if (data == nullptr) throw std::bad_alloc();
#ifdef __linux__
  if (large) madvise(data, bytes, MADV_HUGEPAGE);  // advice: it may be refused
#endif
  return data;
}

void release(void* data, std::size_t bytes) {
  if (bytes >= kHugePage)
    pool().give(data, bytes);
  else
    std::free(data);
}

}  // namespace

Numbers::Numbers(Numbers&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Numbers& Numbers::operator=(Numbers&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Numbers::~Numbers() { release(data_, bytes_); }

void Numbers::reserve(std::size_t count) {
  std::size_t bytes = count * sizeof(double);
  if (bytes <= bytes_) return;
  release(std::exchange(data_, nullptr), std::exchange(bytes_, 0));
  data_ = static_cast<double*>(allocate(bytes));
  bytes_ = bytes;
}

}  // namespace norma
