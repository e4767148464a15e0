// The start-up check must notice what it was made for; wrong compiler flags were tried by hand.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cfenv>
#include <string>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "reference/formats/environment.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("arithmetic here is what the bounds assume", "[environment]") {
  CHECK(floating_point_fault().empty());
  CHECK_FALSE(cpu_model().empty());
  CHECK_FALSE(cpu_extensions().empty());
}

TEST_CASE("every other rounding mode is noticed", "[environment]") {
  for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    const std::string fault = floating_point_fault();
    std::fesetround(FE_TONEAREST);
    CHECK_THAT(fault, ContainsSubstring("rounding mode is not to nearest"));
  }
}

#if defined(__SSE2__)
TEST_CASE("flushed subnormals are noticed", "[environment]") {
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  const auto fault_with = [](unsigned bits) {
    const unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | bits);
    std::string fault = floating_point_fault();
    _mm_setcsr(saved);
    return fault;
  };
  CHECK_THAT(fault_with(kFlushToZero), ContainsSubstring("FTZ is set"));
  CHECK_THAT(fault_with(kDenormalsAreZero), ContainsSubstring("DAZ is set"));
}
#endif
