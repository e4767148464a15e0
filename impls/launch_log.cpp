// Which kernels an implementation really started.
#include "impls/launch_log.hpp"

namespace norma {

namespace {

thread_local LaunchLog* current_log = nullptr;
thread_local StartedKernel last;

}  // namespace

std::string text_of(const StartedKernel& started) {
  return started.kernel + " (grid " + std::to_string(started.grid) + ", block " + std::to_string(started.block) + ", " +
         std::to_string(started.shared_bytes) + " shared bytes)";
}

LaunchLog::LaunchLog() : outer_(current_log) { current_log = this; }
LaunchLog::~LaunchLog() { current_log = outer_; }

void note_started(StartedKernel kernel) {
  last = kernel;
  if (current_log != nullptr) current_log->started_.push_back(std::move(kernel));
}

const StartedKernel& last_started() { return last; }

}  // namespace norma
