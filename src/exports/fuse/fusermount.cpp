// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/fusermount.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <vector>

namespace oxbow::fuse {
namespace {

constexpr auto k_program = "fusermount3";
constexpr int k_socket_in_child = 3;

// How a program is started: file actions and attributes. Thread safety: one thread.
class Start {
 public:
  Start() noexcept {
    ok_ = ::posix_spawn_file_actions_init(&actions_) == 0;
    if (ok_ && ::posix_spawnattr_init(&attributes_) != 0) {
      (void)::posix_spawn_file_actions_destroy(&actions_);
      ok_ = false;
    }
    if (!ok_) return;
    sigset_t none;
    sigemptyset(&none);
    // These fail only for attributes that were not initialised.
    (void)::posix_spawnattr_setsigmask(&attributes_, &none);
    (void)::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
  }
  ~Start() {
    if (!ok_) return;
    (void)::posix_spawn_file_actions_destroy(&actions_);
    (void)::posix_spawnattr_destroy(&attributes_);
  }
  Start(const Start&) = delete;
  Start& operator=(const Start&) = delete;
  Start(Start&&) = delete;
  Start& operator=(Start&&) = delete;

  void give(int fd, int as) noexcept {
    if (ok_ && fd >= 0) ok_ = ::posix_spawn_file_actions_adddup2(&actions_, fd, as) == 0;
  }
  // An errno value, or 0 and the process.
  [[nodiscard]] int run(const std::vector<std::string>& arguments,
                        const std::vector<std::string>& environment, pid_t& process) const {
    if (!ok_) return ENOMEM;
    const auto argv = pointers(arguments);
    const auto envp = pointers(environment);
    return ::posix_spawnp(&process, k_program, &actions_, &attributes_, argv.data(), envp.data());
  }

 private:
  static std::vector<char*> pointers(const std::vector<std::string>& all) {
    std::vector<char*> out;
    for (const std::string& each : all) out.push_back(const_cast<char*>(each.c_str()));
    out.push_back(nullptr);
    return out;
  }

  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  bool ok_ = false;
};

std::vector<std::string> environment_for(int socket) {
  constexpr std::string_view k_variable = "_FUSE_COMMFD=";
  std::vector<std::string> all;
  for (char** each = ::environ; *each != nullptr; ++each) {
    if (!std::string_view(*each).starts_with(k_variable)) all.emplace_back(*each);
  }
  if (socket >= 0) all.push_back(std::string(k_variable) + std::to_string(k_socket_in_child));
  return all;
}

// Until the end of it; the first kilobyte counts.
std::string read_words(int fd) {
  std::string text;
  std::array<char, 1024> part;
  while (true) {
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (text.size() < part.size()) text.append(part.data(), static_cast<std::size_t>(got));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// Runs it to its end; `socket`, if any, is its way to hand over a descriptor. The error is why it failed.
std::expected<void, std::string> run(std::vector<std::string> arguments, int socket) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return std::unexpected(std::strerror(errno));
  const UniqueFd words(pipe[0]);
  UniqueFd says(pipe[1]);
  Start start;
  start.give(says.get(), STDERR_FILENO);
  start.give(socket, k_socket_in_child);
  arguments.insert(arguments.begin(), k_program);
  pid_t process = 0;
  if (const int error = start.run(arguments, environment_for(socket), process); error != 0) {
    if (error == ENOENT) return std::unexpected("it takes fusermount3, which is not there (package fuse3)");
    return std::unexpected(std::string(k_program) + ": " + std::strerror(error));
  }
  says.reset();
  const std::string said = read_words(words.get());
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) return std::unexpected(std::string(k_program) + ": " + std::strerror(errno));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return std::unexpected(said.empty() ? std::string(k_program) + " failed" : said);
}

// The descriptor that came through the socket; invalid without one.
UniqueFd receive_descriptor(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  const cmsghdr* const header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return {};
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return UniqueFd(fd);
}

}  // namespace

Result<UniqueFd> fusermount(const std::string& path, const std::string& options) {
  constexpr auto k_what = "cannot show device as file";
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return std::unexpected(Error::from_errno(k_what, path, errno));
  const UniqueFd ours(sockets[0]);
  UniqueFd theirs(sockets[1]);
  if (auto ran = run({"-o", options, "--", path}, theirs.get()); !ran)
    return std::unexpected(Error(k_what, path, ran.error()));
  theirs.reset();
  UniqueFd fd = receive_descriptor(ours.get());
  if (!fd.valid()) return std::unexpected(Error(k_what, path, "fusermount3 handed over no descriptor"));
  return fd;
}

Result<void> fusermount_away(const std::string& path) {
  if (auto ran = run({"-u", "-z", "--", path}, -1); !ran)
    return std::unexpected(Error("cannot unmount", path, ran.error()));
  return {};
}

}  // namespace oxbow::fuse
