// SPDX-License-Identifier: Apache-2.0
#include "control/registry.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "control/test_served.h"

namespace oxbow::control {
namespace {

// A process that has registered `name` and is killed at the end of the test, or earlier.
class OtherProcess {
 public:
  OtherProcess(const std::string& directory, const std::string& name) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) ADD_FAILURE();
    pid_ = ::fork();
    if (pid_ == 0) {
      const auto made = Registration::make(directory, {name});
      const char answer = made ? 'y' : 'n';
      (void)!::write(ready[1], &answer, 1);
      for (;;) ::pause();
    }
    char answer = 0;
    EXPECT_EQ(::read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherProcess() { kill(); }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;
  OtherProcess(OtherProcess&&) = delete;
  OtherProcess& operator=(OtherProcess&&) = delete;
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST(Registry, AProcessIsThereWhileItsObjectIs) {
  const ScratchDirectory directory;
  {
    const auto made = Registration::make(directory.path(), {"one", "two"});
    ASSERT_TRUE(made) << made.error().text();
    struct stat socket{};
    ASSERT_EQ(::stat(made->record().socket.c_str(), &socket), 0);
    EXPECT_TRUE(S_ISSOCK(socket.st_mode));
    EXPECT_EQ(socket.st_mode & 0777U, 0600U);
    const auto listed = list_records(directory.path());
    ASSERT_TRUE(listed) << listed.error().text();
    ASSERT_EQ(listed->size(), 1U);
    EXPECT_EQ(listed->front().pid, static_cast<std::uint64_t>(::getpid()));
    EXPECT_EQ(listed->front().socket, made->record().socket);
    EXPECT_THAT(listed->front().names, testing::ElementsAre("one", "two"));
    EXPECT_NE(listed->front().command, "");
  }
  EXPECT_EQ(directory.files(), 0U);
}

TEST(Registry, TheUmaskDoesNotWidenTheSocket) {
  const ScratchDirectory directory;
  const mode_t before = ::umask(0);
  const auto made = Registration::make(directory.path(), {"one"});
  ::umask(before);
  ASSERT_TRUE(made) << made.error().text();
  struct stat socket{};
  ASSERT_EQ(::stat(made->record().socket.c_str(), &socket), 0);
  EXPECT_EQ(socket.st_mode & 0777U, 0600U);
}

TEST(Registry, ANameHasOneHolder) {
  const ScratchDirectory directory;
  OtherProcess other(directory.path(), "disk");
  const auto refused = Registration::make(directory.path(), {"more", "disk"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(),
              testing::StartsWith(
                  fmt::format("cannot serve device: disk: process {} serves a device of that name in {} (",
                              other.pid(), directory.path())));
  EXPECT_TRUE(Registration::make(directory.path(), {"more"}));
  other.kill();
  EXPECT_TRUE(Registration::make(directory.path(), {"more", "disk"}));
}

TEST(Registry, NamesMayComeLater) {
  constexpr std::chrono::milliseconds patience(1000);
  const ScratchDirectory directory;
  {
    auto made = Registration::make(directory.path(), {"one"});
    ASSERT_TRUE(made) << made.error().text();
    const auto other = Registration::make(directory.path(), {"other"});
    ASSERT_TRUE(other) << other.error().text();
    ASSERT_TRUE(made->add("two", patience));
    EXPECT_THAT(made->record().names, testing::ElementsAre("one", "two"));
    for (const char* taken : {"one", "two", "other"}) {
      const auto again = made->add(taken, patience);
      ASSERT_FALSE(again);
      EXPECT_THAT(again.error().text(),
                  testing::StartsWith(std::string("cannot serve device: ") + taken + ": process "));
    }
    const auto refused = Registration::make(directory.path(), {"two"});
    ASSERT_FALSE(refused);
    const auto listed = list_records(directory.path());
    ASSERT_TRUE(listed) << listed.error().text();
    ASSERT_EQ(listed->size(), 2U);
    EXPECT_EQ(listed->front().names.size() + listed->back().names.size(), 3U);
    const UniqueFd lock(::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
    EXPECT_EQ(made->add("three", std::chrono::milliseconds(20)).error().text(),
              "cannot serve device: three: another process has kept " + directory.path() + " locked");
  }
  EXPECT_EQ(directory.files(), 0U);
}

TEST(Registry, TwoDevicesOfOneProcessHaveTwoNames) {
  const ScratchDirectory directory;
  const auto refused = Registration::make(directory.path(), {"a", "b", "a"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(), "cannot serve device: a: two devices have that name");
  EXPECT_EQ(directory.files(), 0U);
}

TEST(Registry, WhatADeadProcessLeftIsRemovedByTheNextLook) {
  const ScratchDirectory directory;
  OtherProcess other(directory.path(), "disk");
  const auto alive = Registration::make(directory.path(), {"mine"});
  ASSERT_TRUE(alive);
  EXPECT_EQ(directory.files(), 4U);
  other.kill();
  const auto listed = list_records(directory.path());
  ASSERT_TRUE(listed);
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_THAT(listed->front().names, testing::ElementsAre("mine"));
  EXPECT_EQ(directory.files(), 2U);
}

TEST(Registry, ALookNeverWaitsForTheDirectory) {
  const ScratchDirectory directory;
  OtherProcess other(directory.path(), "disk");
  other.kill();
  const UniqueFd lock(::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
  const auto listed = list_records(directory.path());
  ASSERT_TRUE(listed);
  EXPECT_TRUE(listed->empty());
  EXPECT_EQ(directory.files(), 2U);  // who holds the lock may be about to use them
  const auto refused = Registration::make(directory.path(), {"x"}, std::chrono::milliseconds(30));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(), "cannot make control socket: " + directory.path() +
                                        ": another process has kept the directory locked");
}

TEST(Registry, WhatAHalfMadeRegistrationLeftIsRemoved) {
  const ScratchDirectory directory;
  for (const char* name : {"4000000.new", "4000000.control"}) {
    const UniqueFd file(
        ::open((directory.path() + "/" + name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.valid());
  }
  ASSERT_TRUE(list_records(directory.path()));
  EXPECT_EQ(directory.files(), 0U);
}

TEST(Registry, OtherFilesAreLeftAlone) {
  const ScratchDirectory directory;
  for (const char* name : {"disk.sock", "notes.lock", "x.new", ".lock"}) {
    const UniqueFd file(
        ::open((directory.path() + "/" + name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.valid());
  }
  ASSERT_TRUE(list_records(directory.path()));
  EXPECT_EQ(directory.files(), 4U);
}

TEST(Registry, TwoProcessesWithOneNumberGetAlong) {
  const ScratchDirectory directory;
  const auto first = Registration::make(directory.path(), {"a"});
  const auto second = Registration::make(directory.path(), {"b"});
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->record().socket, fmt::format("{}/{}-2.control", directory.path(), ::getpid()));
  EXPECT_EQ(list_records(directory.path())->size(), 2U);
}

TEST(Registry, ManyAtATimeForOneNameHaveOneWinner) {
  const ScratchDirectory directory;
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  std::vector<Registration> kept;
  std::mutex mutex;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      auto made = Registration::make(directory.path(), {"disk"});
      if (!made) return;
      ++won;
      const std::lock_guard lock(mutex);
      kept.push_back(std::move(*made));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won.load(), 1);
}

TEST(Registry, TheDirectoryIsTheUsersAlone) {
  const ScratchDirectory directory;
  ASSERT_EQ(::chmod(directory.path().c_str(), 0770), 0);
  const auto refused = Registration::make(directory.path(), {"a"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(), "cannot use run directory: " + directory.path() +
                                        ": others can write to it; chmod go-w takes that away");
  EXPECT_FALSE(list_records(directory.path()));
  if (::geteuid() != 0) GTEST_SKIP() << "the rest needs root: a directory of another user";
  ASSERT_EQ(::chmod(directory.path().c_str(), 0700), 0);
  ASSERT_EQ(::chown(directory.path().c_str(), 12345, 12345), 0);
  const auto others = Registration::make(directory.path(), {"a"});
  ASSERT_FALSE(others);
  EXPECT_EQ(others.error().text(),
            "cannot use run directory: " + directory.path() + ": it belongs to another user (uid 12345)");
}

TEST(Registry, AMissingDirectoryHasNobody) {
  const auto listed = list_records("/nonexistent/oxbow");
  ASSERT_TRUE(listed);
  EXPECT_TRUE(listed->empty());
}

TEST(Registry, APathThatIsTooLongForASocket) {
  const ScratchDirectory directory;
  const std::string deep = directory.path() + "/" + std::string(120, 'd');
  ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
  const auto refused = Registration::make(deep, {"a"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), testing::EndsWith(".control: a socket's path has at most 107 bytes"));
  EXPECT_TRUE(std::filesystem::is_empty(deep));
}

}  // namespace
}  // namespace oxbow::control
