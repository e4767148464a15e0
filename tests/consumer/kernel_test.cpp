// What a kernel author writes: a kernel, and tests that judge its output with norma. The second half checks
// that a wrong kernel is told what is wrong with it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <norma/verify.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using Catch::Matchers::ContainsSubstring;

namespace {

using bf16 = std::uint16_t;

float widen(bf16 v) { return std::bit_cast<float>(static_cast<std::uint32_t>(v) << 16); }
bf16 narrow(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct Rows {
  std::int64_t rows, cols;
  std::vector<bf16> x, weight, y;
};

/// y = w x / sqrt(mean(x^2) + eps), one rounding at the end.
Rows run_kernel(float eps, double fault = 1.0) {
  Rows r{.rows = 4, .cols = 256, .x = {}, .weight = {}, .y = {}};
  std::uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return narrow(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-30f);
  };
  for (std::int64_t i = 0; i < r.rows * r.cols; ++i) r.x.push_back(next());
  for (std::int64_t i = 0; i < r.cols; ++i) r.weight.push_back(next());
  for (std::int64_t row = 0; row < r.rows; ++row) {
    const bf16* x = r.x.data() + row * r.cols;
    double sum = 0;
    for (std::int64_t i = 0; i < r.cols; ++i) sum += static_cast<double>(widen(x[i])) * widen(x[i]);
    const double root = 1 / std::sqrt(sum / static_cast<double>(r.cols) + static_cast<double>(eps));
    for (std::int64_t i = 0; i < r.cols; ++i)
      r.y.push_back(narrow(static_cast<float>(fault * widen(x[i]) * root * widen(r.weight[static_cast<std::size_t>(i)]))));
  }
  return r;
}

norma::VerifyCall call_on(const Rows& r) {
  return {
      .inputs = {{"x", norma::view(norma::FormatId::bf16, {r.rows, r.cols}, r.x.data())},
                 {"weight", norma::view(norma::FormatId::bf16, {r.cols}, r.weight.data())}},
      .outputs = {{"y", norma::view(norma::FormatId::bf16, {r.rows, r.cols}, r.y.data())}},
      .eps = 1e-6,
  };
}

}  // namespace

TEST_CASE("my kernel is as exact as I say") {
  const Rows r = run_kernel(1e-6f);
  const norma::Verification v = norma::verify("rmsnorm", {
      .inputs = {{"x", norma::view(norma::FormatId::bf16, {r.rows, r.cols}, r.x.data())},
                 {"weight", norma::view(norma::FormatId::bf16, {r.cols}, r.weight.data())}},
      .outputs = {{"y", norma::view(norma::FormatId::bf16, {r.rows, r.cols}, r.y.data())}},
      .eps = 1e-6,
      .limits = {"max_ulp<=0.51"},
  });
  REQUIRE(v);
  CHECK(v.verdict == "pass");
  CHECK(v.measures.at("max_ulp") <= 0.51);
}

TEST_CASE("a wrong kernel is told what is wrong, in the order got, want, exact, error, bound, repro") {
  norma::VerifyCall call = call_on(run_kernel(1e-6f, 1.02));
  call.limits = {"max_ulp<=0.51"};
  const norma::Verification v = norma::verify("rmsnorm", call);
  REQUIRE_FALSE(v);
  CHECK(v.verdict == "fail");
  std::ostringstream printed;
  printed << v;
  CHECK(printed.str() == v.text);
  std::size_t at = 0;
  for (const char* fact : {"norma: fail  rmsnorm bf16 4x256", "why     max_ulp is ", "at      y[", "got     0x",
                           "want    0x", "exact   ", "error   ", "count   ", "bound   max_ulp<=0.51  does not hold",
                           "repro   (with NORMA_KEEP=FOLDER", "norma check rmsnorm --in FILE --set eps=1e-6 --limit 'max_ulp<=0.51'"}) {
    INFO(v.text << "\nlooking for: " << fact);
    const std::size_t found = v.text.find(fact, at);
    REQUIRE(found != std::string::npos);
    at = found;
  }
}

TEST_CASE("a path is held bit for bit, and tells the casts from the kernel") {
  norma::VerifyCall call = call_on(run_kernel(1e-6f));
  call.path = "bfl.flux.rmsnorm";  // rounds before the weight; this kernel does not
  const norma::Verification v = norma::verify("rmsnorm", call);
  REQUIRE_FALSE(v);
  CHECK_THAT(v.text, ContainsSubstring("path=bfl.flux.rmsnorm") && ContainsSubstring("(the path's ideal)") &&
                         ContainsSubstring(" by the path, ") && ContainsSubstring("bound   differing<=0"));
  call.limits = {"implementation_max<=2"};
  CHECK(norma::verify("rmsnorm", call));
}

TEST_CASE("the tensors of a failed check can be kept") {
  const auto folder = std::filesystem::temp_directory_path() / "norma-consumer-test";
  std::filesystem::remove_all(folder);
  norma::VerifyCall call = call_on(run_kernel(1e-6f, 1.02));
  call.limits = {"max_ulp<=0.51"};
  call.keep = folder.string();
  const norma::Verification v = norma::verify("rmsnorm", call);
  CHECK_THAT(v.text, ContainsSubstring("--in " + folder.string() + "/rmsnorm-") && ContainsSubstring(".in.safetensors --got "));
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 2);
  std::filesystem::remove_all(folder);
}

TEST_CASE("NaN never passes, and a check that could not fail is vacuous") {
  Rows r = run_kernel(1e-6f);
  r.y[17] = 0x7fc0;
  norma::VerifyCall call = call_on(r);
  call.limits = {"max_ulp<=1e30"};
  CHECK_FALSE(norma::verify("rmsnorm", call));
  call = call_on(run_kernel(1e-6f));
  call.limits = {"max_ulp<=1e30"};
  CHECK(norma::verify("rmsnorm", call).verdict == "vacuous");
}

TEST_CASE("a call that makes no sense is refused in a sentence") {
  norma::VerifyCall call = call_on(run_kernel(1e-6f));
  CHECK_THROWS_WITH(norma::verify("rmsnorm", call), ContainsSubstring("a check needs a criterion"));
  call.limits = {"max_ulps<=1"};
  CHECK_THROWS_WITH(norma::verify("rmsnorm", call), ContainsSubstring("unknown measure 'max_ulps'"));
  call.limits = {"max_ulp<=1"};
  CHECK_THROWS_WITH(norma::verify("rmsmorn", call), ContainsSubstring("unknown norm 'rmsmorn'; known: rmsnorm"));
  call.path = "no.such.path";
  CHECK_THROWS_WITH(norma::verify("rmsnorm", call), ContainsSubstring("unknown path 'no.such.path'"));
  call.path = "";
  call.set["epz"] = "1";
  CHECK_THROWS_WITH(norma::verify("rmsnorm", call), ContainsSubstring("no attribute 'epz'"));
  call.set.clear();
  call.outputs.at("y") = norma::Tensor::zeros(norma::FormatId::bf16, {2, 2});
  CHECK_THROWS_AS(norma::verify("rmsnorm", call), std::invalid_argument);
}
