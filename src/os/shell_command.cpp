// SPDX-License-Identifier: Apache-2.0
#include "os/shell_command.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <vector>

namespace oxbow {
namespace {

// What the child starts with. Thread safety: one thread.
class Attributes {
 public:
  Attributes() noexcept {
    error_ = ::posix_spawnattr_init(&attributes_);
    if (error_ != 0) return;
    sigset_t none;
    sigset_t defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    // These three fail only for attributes that were not initialised.
    (void)::posix_spawnattr_setsigmask(&attributes_, &none);
    (void)::posix_spawnattr_setsigdefault(&attributes_, &defaults);
    (void)::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~Attributes() {
    if (error_ == 0) (void)::posix_spawnattr_destroy(&attributes_);
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  Attributes(Attributes&&) = delete;
  Attributes& operator=(Attributes&&) = delete;

  [[nodiscard]] int error() const noexcept { return error_; }
  [[nodiscard]] const posix_spawnattr_t* get() const noexcept { return &attributes_; }

 private:
  posix_spawnattr_t attributes_{};
  int error_ = 0;
};

std::vector<std::string> environment_with(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> all;
  for (char** each = ::environ; *each != nullptr; ++each) {
    const std::string_view entry = *each;
    if (!variables.contains(std::string(entry.substr(0, entry.find('='))))) all.emplace_back(entry);
  }
  for (const auto& [name, value] : variables) all.emplace_back(name).append("=").append(value);
  return all;
}

}  // namespace

Result<ShellCommand> ShellCommand::start(const std::string& command,
                                         const std::map<std::string, std::string>& variables) {
  std::vector<std::string> entries = environment_with(variables);
  std::vector<char*> environment;
  for (std::string& each : entries) environment.push_back(each.data());
  environment.push_back(nullptr);
  std::array<std::string, 4> words{"sh", "-c", "--", command};
  std::array<char*, 5> arguments{words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
  const Attributes attributes;
  int error = attributes.error();
  pid_t process = 0;
  if (error == 0) {
    error =
        ::posix_spawn(&process, "/bin/sh", nullptr, attributes.get(), arguments.data(), environment.data());
  }
  if (error != 0) return std::unexpected(Error::from_errno("cannot run command", command, error));
  return ShellCommand(process);
}

void ShellCommand::signal(int number) const noexcept {
  // Until status() has seen its end, the number is not given to another process.
  if (status_ < 0) (void)::kill(process_, number);
}

int ShellCommand::status() noexcept {
  int status = 0;
  if (status_ >= 0 || ::waitpid(process_, &status, WNOHANG) != process_) return status_;
  if (WIFEXITED(status)) status_ = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) status_ = 128 + WTERMSIG(status);
  return status_;
}

}  // namespace oxbow
