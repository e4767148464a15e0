// Large arrays of binary64 numbers: not initialised, in huge pages where the system has them, kept for the next
// product.
//
// A first touch of 4 KiB costs the system about 2 us: for 32 MiB 18 ms (2 ms in pages of 2 MiB, where it finds some).
// That is most of the time that a product of 1024^3 takes beyond its multiplications.
#pragma once

#include <cstddef>

namespace norma {

class Numbers {
 public:
  Numbers() = default;
  explicit Numbers(std::size_t count) { reserve(count); }
  Numbers(Numbers&& other) noexcept;
  Numbers& operator=(Numbers&& other) noexcept;
  ~Numbers();

  /// At least `count` numbers; what they were is lost if there were fewer.
  void reserve(std::size_t count);

  double* data() { return data_; }
  const double* data() const { return data_; }
  double& operator[](std::size_t i) { return data_[i]; }
  double operator[](std::size_t i) const { return data_[i]; }

 private:
  double* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace norma
