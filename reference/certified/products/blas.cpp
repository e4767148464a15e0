// OpenBLAS, loaded when first needed.
//
// It is not linked, for two reasons: it reads OPENBLAS_CORETYPE when it is initialised, which linking puts before main;
// and a program without it must still run. Debian 12's 0.3.21 takes CPUs with AVX-512 that it does not know for
// "Prescott" (SSE3, an eighth of the speed; OpenBLAS issue 4268, fallback mended in 0.3.25). So we name the kernel by
// the CPU's features, unless the user did. Products run on one thread of the library; callers share out blocks.
#include "reference/certified/products/blas.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "reference/formats/clones.hpp"

namespace norma {

namespace {

// ---- which kernel ----

/// Vector width of a kernel's family, by the names that openblas_get_corename() gives. 0: not told by the name.
int kernel_width(std::string_view core) {
  for (const std::string_view name : {"SKYLAKEX", "COOPERLAKE", "SAPPHIRERAPIDS"})
    if (core == name) return 512;
  for (const std::string_view name : {"HASWELL", "ZEN", "EXCAVATOR"})
    if (core == name) return 256;
  for (const std::string_view name : {"SANDYBRIDGE", "BULLDOZER", "PILEDRIVER", "STEAMROLLER"})
    if (core == name) return 255;  // 256 bits wide without AVX2
  for (const std::string_view name :
       {"PRESCOTT", "CORE2", "PENRYN", "DUNNINGTON", "NEHALEM", "ATOM", "KATMAI", "BANIAS", "COPPERMINE", "NORTHWOOD",
        "ATHLON", "OPTERON", "OPTERON_SSE3", "BARCELONA", "BOBCAT", "NANO"})
    if (core == name) return 128;
  return 0;
}

struct Suited {
  const char* core;  ///< as OPENBLAS_CORETYPE takes it; null: the library chooses
  int width;
  const char* feature;
};

Suited suited_kernel() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return {"SkylakeX", 512, "AVX-512"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"Haswell", 256, "AVX2"};
#endif
  return {nullptr, 0, ""};
}

/// An environment variable with a value for a while; one that the user set stays.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) {
    if (value == nullptr || std::getenv(name) != nullptr) return;
    set_ = setenv(name, value, 0) == 0;
  }
  ~Setting() {
    if (set_) unsetenv(name_);
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
  bool set_ = false;
};

// ---- the library ----

// cblas.h: CblasRowMajor 101, CblasNoTrans 111, CblasTrans 112; int is the interface's index type in Debian's build.
using CblasDgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double* a,
                            int lda, const double* b, int ldb, double beta, double* c, int ldc);

struct Library {
  CblasDgemm dgemm = nullptr;
  std::string description;
};

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

/// "OpenBLAS 0.3.21 NO_LAPACK ... MAX_THREADS=64" -> "0.3.21"
std::string version_in(std::string_view config) {
  const std::size_t start = config.find_first_of("0123456789");
  if (start == std::string_view::npos) return "of unknown version";
  return std::string(config.substr(start, config.find(' ', start) - start));
}

Library load() {
  if (const char* wish = std::getenv("NORMA_BLAS"); wish != nullptr && std::string_view(wish) == "own")
    return {nullptr, "own loop (NORMA_BLAS=own)"};
  const Suited suited = suited_kernel();
  void* handle = nullptr;
  {
    // The library reads both while it is loaded. Programs started later do not inherit them.
    const Setting core("OPENBLAS_CORETYPE", suited.core);
    const Setting threads("OPENBLAS_NUM_THREADS", "1");
    for (const char* name : {"libopenblas.so.0", "libopenblas.so"}) {
      handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) break;
    }
#ifdef NORMA_OPENBLAS_PATH
    if (handle == nullptr) handle = dlopen(NORMA_OPENBLAS_PATH, RTLD_NOW | RTLD_LOCAL);
#endif
  }
  if (handle == nullptr) return {nullptr, "own loop (no OpenBLAS here: apt-get install libopenblas0-pthread)"};
  const auto dgemm = symbol<CblasDgemm>(handle, "cblas_dgemm");
  const auto config = symbol<char* (*)()>(handle, "openblas_get_config");
  const auto core_name = symbol<char* (*)()>(handle, "openblas_get_corename");
  const auto set_threads = symbol<void (*)(int)>(handle, "openblas_set_num_threads");
  if (dgemm == nullptr || config == nullptr || core_name == nullptr || set_threads == nullptr)
    return {nullptr, "own loop (the OpenBLAS here lacks cblas_dgemm or openblas_get_config)"};
  const std::string_view configured = config();
  if (configured.find("USE64BITINT") != std::string_view::npos)
    return {nullptr, "own loop (the OpenBLAS here takes 64-bit indices; libopenblas0-pthread takes 32-bit ones)"};
  set_threads(1);
  const std::string core = core_name();
  std::string description = "OpenBLAS " + version_in(configured) + " " + core;
  std::string upper = core;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  if (const int width = kernel_width(upper); width != 0 && width < suited.width)
    description += std::string(" (slower than this CPU allows, which has ") + suited.feature +
                   ": set OPENBLAS_CORETYPE=" + suited.core + ")";
  return {dgemm, std::move(description)};
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

std::atomic<Blas> chosen{Blas::automatic};

// ---- our own ----

constexpr std::int64_t kRows = 4, kCols = 16;  // of the tile whose sums stay in registers
constexpr std::int64_t kDepth = 256;           // of a packed panel of B: 32 KiB

/// sums[r][j] += sum over k of a[r][k] panel[k][j]; every lane by itself, so the same bits at every vector width.
NORMA_CLONES void add_tile(const double* a0, const double* a1, const double* a2, const double* a3,
                           const double* __restrict panel, std::int64_t depth, double* __restrict sums) {
  double s0[kCols], s1[kCols], s2[kCols], s3[kCols];
  for (int j = 0; j < kCols; ++j) s0[j] = sums[j], s1[j] = sums[kCols + j];
  for (int j = 0; j < kCols; ++j) s2[j] = sums[2 * kCols + j], s3[j] = sums[3 * kCols + j];
  for (std::int64_t k = 0; k < depth; ++k) {
    const double x0 = a0[k], x1 = a1[k], x2 = a2[k], x3 = a3[k];
    const double* b = panel + k * kCols;
    for (int j = 0; j < kCols; ++j) {
      s0[j] += x0 * b[j];
      s1[j] += x1 * b[j];
      s2[j] += x2 * b[j];
      s3[j] += x3 * b[j];
    }
  }
  for (int j = 0; j < kCols; ++j) sums[j] = s0[j], sums[kCols + j] = s1[j];
  for (int j = 0; j < kCols; ++j) sums[2 * kCols + j] = s2[j], sums[3 * kCols + j] = s3[j];
}

}  // namespace

void plain_dgemm(const Gemm& g) {
  if (!g.accumulate)
    for (std::int64_t i = 0; i < g.m; ++i) std::fill_n(g.c + i * g.ldc, g.n, 0.0);
  std::vector<double> panel(static_cast<std::size_t>(kDepth * kCols));
  double sums[kRows * kCols];
  for (std::int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
    const std::int64_t depth = std::min(kDepth, g.k - k0);
    for (std::int64_t j0 = 0; j0 < g.n; j0 += kCols) {
      const std::int64_t cols = std::min(kCols, g.n - j0);
      std::fill(panel.begin(), panel.end(), 0.0);
      for (std::int64_t j = 0; j < cols; ++j)
        for (std::int64_t k = 0; k < depth; ++k)
          panel[static_cast<std::size_t>(k * kCols + j)] = g.b[(j0 + j) * g.ldb + k0 + k];
      for (std::int64_t i0 = 0; i0 < g.m; i0 += kRows) {
        const std::int64_t rows = std::min(kRows, g.m - i0);
        const double* row[kRows];
        // Rows beyond the last repeat it; their sums are dropped.
        for (std::int64_t r = 0; r < kRows; ++r) row[r] = g.a + std::min(i0 + r, g.m - 1) * g.lda + k0;
        for (std::int64_t r = 0; r < kRows; ++r)
          for (std::int64_t j = 0; j < kCols; ++j)
            sums[r * kCols + j] = r < rows && j < cols ? g.c[(i0 + r) * g.ldc + j0 + j] : 0.0;
        add_tile(row[0], row[1], row[2], row[3], panel.data(), depth, sums);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t j = 0; j < cols; ++j) g.c[(i0 + r) * g.ldc + j0 + j] = sums[r * kCols + j];
      }
    }
  }
}

void dgemm(const Gemm& g) {
  if (g.m == 0 || g.n == 0) return;
  constexpr std::int64_t kMost = 0x7fff'ffff;  // what the library's 32-bit indices hold
  const bool fits = std::max({g.m, g.n, g.k, g.lda, g.ldb, g.ldc}) <= kMost;
  if (g.k == 0 || !fits || chosen.load(std::memory_order_relaxed) == Blas::own || library().dgemm == nullptr)
    return plain_dgemm(g);
  const auto index = [](std::int64_t i) { return static_cast<int>(i); };
  library().dgemm(101, 111, 112, index(g.m), index(g.n), index(g.k), 1.0, g.a, index(g.lda), g.b, index(g.ldb),
                  g.accumulate ? 1.0 : 0.0, g.c, index(g.ldc));
}

std::string blas_description() {
  return chosen.load(std::memory_order_relaxed) == Blas::own ? "own loop" : library().description;
}

void choose_blas(Blas which) { chosen.store(which, std::memory_order_relaxed); }

}  // namespace norma
