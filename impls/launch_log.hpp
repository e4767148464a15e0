// Which kernels an implementation really started, and in which shape.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace norma {

/// A kernel that was started: its name in the source, blocks of the grid, threads of a block, bytes of dynamic shared
/// memory of a block.
struct StartedKernel {
  std::string kernel;
  unsigned grid = 0, block = 0;
  std::size_t shared_bytes = 0;
  friend bool operator==(const StartedKernel&, const StartedKernel&) = default;
};
/// "rmsnorm_warp_per_row (grid 8, block 128, 0 shared bytes)"
std::string text_of(const StartedKernel& started);

/// Collects what its thread starts while it lives; the innermost one does.
class LaunchLog {
 public:
  LaunchLog();
  ~LaunchLog();
  LaunchLog(const LaunchLog&) = delete;
  LaunchLog& operator=(const LaunchLog&) = delete;
  const std::vector<StartedKernel>& started() const { return started_; }

 private:
  friend void note_started(StartedKernel kernel);
  LaunchLog* outer_;
  std::vector<StartedKernel> started_;
};

/// Where kernels are started: tells the thread's log, if there is one.
void note_started(StartedKernel kernel);
/// What this thread started last.
const StartedKernel& last_started();

/// "rms" from the text of a function with one template argument kKernel = ns::rms<T>, as gcc, clang and nvcc write it.
constexpr std::string_view kernel_name_in(std::string_view function) {
  constexpr std::string_view kBefore = "kKernel = ";
  const auto from = function.find(kBefore);
  if (from == std::string_view::npos) return {};
  std::string_view name = function.substr(from + kBefore.size());
  name = name.substr(0, name.find_first_of("<;](,"));
  if (const auto colon = name.rfind(':'); colon != std::string_view::npos) name.remove_prefix(colon + 1);
  while (!name.empty() && (name.front() == '&' || name.front() == ' ')) name.remove_prefix(1);
  return name;
}

}  // namespace norma
