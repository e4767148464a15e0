// cmd:"python kernel.py": one line of JSON to a child process, one line back.
#include "impls/library/command.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>

extern char** environ;

namespace norma {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLongestAnswer = 64 * 1024;
constexpr std::size_t kErrorTail = 4 * 1024;  // of standard error, enough for its last line
constexpr std::chrono::seconds kGrace{1};     // between a closed pipe and a kill

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

void stop_blocking(const Descriptor& d) { ::fcntl(d.get(), F_SETFL, ::fcntl(d.get(), F_GETFL) | O_NONBLOCK); }

/// A dead child must be an error of write, not the end of this process. A handler that somebody set stays.
void ignore_broken_pipes() {
  struct sigaction action {};
  if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, nullptr);
  }
}

/// A private folder for the two files, removed with everything in it.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "norma-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::system_error(errno, std::generic_category(), pattern);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string describe_status(int status) {
  const auto signal_text = [](int number) {
    return "signal " + std::to_string(number) + " (" + ::strsignal(number) + ")";
  };
  if (WIFSIGNALED(status)) return "was killed by " + signal_text(WTERMSIG(status));
  const int code = WEXITSTATUS(status);
  if (code > 128 && code < 128 + 65) return "ended with " + signal_text(code - 128);  // the shell's convention
  if (code == 127) return "could not be started (the shell said 127)";
  return "exited with status " + std::to_string(code);
}

std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  const auto at = text.find_last_of('\n');
  return std::string(at == std::string_view::npos ? text : text.substr(at + 1));
}

std::string shortened(const std::string& text) {
  constexpr std::size_t kMost = 200;
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

std::string seconds_text(double seconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g s", seconds);
  return text.data();
}

std::string request_line(const ImplCall& call, const std::string& in, const std::string& out) {
  nlohmann::ordered_json line;
  line["norm"] = call.norm;
  line["in"] = in;
  line["out"] = out;
  for (const auto& [name, value] : call.numbers) {
    // JSON has no infinities; Python and others read these words as numbers.
    if (std::isfinite(value)) line[name] = value;
    else line[name] = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  for (const auto& [name, word] : call.words) line[name] = word;
  if (!call.path.empty()) line["path"] = call.path;
  if (!call.profile.empty()) line["profile"] = call.profile;
  return line.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

/// The child and its pipes; `mutex` is held for the whole of a call.
class CommandImplementation::Process {
 public:
  Process(std::string command, CommandFiles files, double timeout_s)
      : command_(std::move(command)), files_(std::move(files)), timeout_s_(timeout_s) {
    ignore_broken_pipes();
  }
  ~Process() {
    const std::lock_guard lock(mutex_);
    end_politely();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  Tensors run(const ImplCall& call) {
    const std::lock_guard lock(mutex_);
    const std::string in = folder_.file("in.safetensors");
    const std::string out = folder_.file("out.safetensors");
    std::error_code ignored;
    std::filesystem::remove(out, ignored);  // what the last call wrote must not pass for this one's
    files_.write(in, *call.inputs);
    if (pid_ <= 0) start();
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double>(timeout_s_));
    const std::string answer = exchange(request_line(call, in, out), deadline);
    if (answer.starts_with("error")) {
      std::string text = answer.substr(5);
      text.erase(0, text.find_first_not_of(" :\t"));
      if (text.starts_with("unsupported")) throw ImplSkipped("the command answered: " + shortened(text));
      throw ImplCrashed("the command answered an error: " + (text.empty() ? "(no text)" : shortened(text)));
    }
    if (answer != "ok")
      fail("answered '" + shortened(answer) +
           "' instead of 'ok' or 'error TEXT' (whatever else it prints belongs on standard error)");
    Tensors outputs;
    try {
      outputs = files_.read(out);
    } catch (const std::exception& e) {
      fail(std::filesystem::exists(out) ? "answered ok, but its outputs cannot be read: " + std::string(e.what())
                                        : "answered ok, but wrote nothing to " + out);
    }
    const std::string first = call.norm.ends_with("_backward") ? "dx" : "y";
    if (!outputs.contains(first)) fail("answered ok, but its outputs have no tensor " + first);
    return outputs;
  }

 private:
  void start() {
    Pipe in = make_pipe();
    Pipe out = make_pipe();
    Pipe err = make_pipe();
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.read.get(), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out.write.get(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err.write.get(), STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    sigset_t none, broken_pipe;
    sigemptyset(&none);
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &broken_pipe);
    posix_spawnattr_setpgroup(&attributes, 0);  // a group of its own: Ctrl-C is ours, and a kill reaches all of it
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::string shell = "sh", option = "-c";
    std::array<char*, 4> arguments{shell.data(), option.data(), command_.data(), nullptr};
    pid_t pid = 0;
    const int error = posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) throw ImplCrashed("the command could not be started: " + std::string(std::strerror(error)));
    pid_ = pid;
    to_ = std::move(in.write);
    from_ = std::move(out.read);
    errors_ = std::move(err.read);
    stop_blocking(to_);
    stop_blocking(from_);
    stop_blocking(errors_);
    answered_.clear();
    error_tail_.clear();
  }

  /// Sends a line and waits for one; everything the child says on standard error meanwhile is drained.
  std::string exchange(const std::string& request, Clock::time_point deadline) {
    if (!answered_.empty())
      fail("wrote '" + shortened(last_line(answered_)) + "' on standard output without being asked");
    std::size_t sent = 0;
    for (;;) {
      if (const auto end = answered_.find('\n'); end != std::string::npos) {
        std::string answer = answered_.substr(0, end);
        answered_.erase(0, end + 1);
        while (!answer.empty() && (answer.back() == '\r' || answer.back() == ' ')) answer.pop_back();
        return answer;
      }
      if (answered_.size() > kLongestAnswer) fail("answered more than 64 KiB without an end of line");
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) fail("gave no answer within " + seconds_text(timeout_s_));
      std::array<pollfd, 3> wait{pollfd{from_.get(), POLLIN, 0}, pollfd{errors_.get(), POLLIN, 0},
                                 pollfd{sent < request.size() ? to_.get() : -1, POLLOUT, 0}};
      const int ready = ::poll(wait.data(), wait.size(), static_cast<int>(std::min<long long>(left, 1000)));
      if (ready < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
      if (ready <= 0) continue;
      if (wait[1].revents != 0) drain_errors();
      if (wait[0].revents != 0) {
        std::array<char, 4096> piece{};
        const ssize_t got = ::read(from_.get(), piece.data(), piece.size());
        if (got > 0) answered_.append(piece.data(), static_cast<std::size_t>(got));
        else if (got == 0) fail_ended();
      } else if ((wait[2].revents & (POLLERR | POLLHUP)) != 0) {
        fail_ended();
      } else if (wait[2].revents != 0) {
        const ssize_t put = ::write(to_.get(), request.data() + sent, request.size() - sent);
        if (put > 0) sent += static_cast<std::size_t>(put);
        else if (put < 0 && errno == EPIPE) fail_ended();
      }
    }
  }

  void drain_errors() {
    if (errors_.get() < 0) return;
    std::array<char, 4096> piece{};
    for (;;) {
      const ssize_t got = ::read(errors_.get(), piece.data(), piece.size());
      if (got == 0) errors_.close();  // poll skips a closed one
      if (got <= 0) return;
      error_tail_.append(piece.data(), static_cast<std::size_t>(got));
      if (error_tail_.size() > kErrorTail) error_tail_.erase(0, error_tail_.size() - kErrorTail);
    }
  }

  /// The child closed its output: by ending, or while it lives on.
  [[noreturn]] void fail_ended() {
    if (!ends_within(kGrace)) fail("closed its standard output before it answered");
    drain_errors();
    fail(describe_status(kill_group()) + " before it answered");
  }

  /// Every failure ends the process: after it nobody knows which answer belongs to which call.
  [[noreturn]] void fail(const std::string& what) {
    kill_group();
    drain_errors();
    std::string sentence = "the command " + what;
    const std::string said = last_line(error_tail_);
    if (!said.empty()) sentence += "; its last words: " + shortened(said);
    to_.close();
    from_.close();
    errors_.close();
    throw ImplCrashed(sentence);
  }

  /// Leaves the child unreaped, so that its number stays its own until the group is killed.
  bool ends_within(std::chrono::milliseconds most) const {
    const auto until = Clock::now() + most;
    for (;;) {
      siginfo_t info{};
      if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_)
        return true;
      if (Clock::now() >= until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  /// Ends the child, unless it has ended, with all it started in its group; its status.
  int kill_group() {
    int status = 0;
    if (pid_ <= 0) return status;
    ::kill(-pid_, SIGKILL);
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

  void end_politely() {
    if (pid_ <= 0) return;
    to_.close();
    // A child that is still writing would wait for a reader: from here nobody reads.
    from_.close();
    errors_.close();
    ends_within(kGrace);
    kill_group();
  }

  std::mutex mutex_;
  std::string command_;
  CommandFiles files_;
  double timeout_s_;
  Folder folder_;
  pid_t pid_ = -1;
  Descriptor to_, from_, errors_;
  std::string answered_;
  std::string error_tail_;
};

CommandImplementation::CommandImplementation(std::string command, CommandFiles files, double timeout_s)
    : process_(std::make_unique<Process>(command, std::move(files), timeout_s)), command_(std::move(command)) {}

CommandImplementation::~CommandImplementation() = default;

std::string CommandImplementation::name() const { return "cmd:" + command_; }

Tensors CommandImplementation::run(const ImplCall& call) { return process_->run(call); }

}  // namespace norma
