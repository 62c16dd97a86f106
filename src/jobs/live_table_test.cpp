// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "jobs/reopen_device.h"
#include "targets/fake_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr std::chrono::milliseconds k_limit(10'000);
constexpr std::uint64_t k_file_bytes = 8192;

std::string error_of(const Result<void>& result) { return result ? "" : result.error().text(); }
std::string nobody() { return {}; }

class LiveTableTest : public testing::Test {
 protected:
  LiveTableTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "oxbow-live-table-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    for (const char letter : k_letters) {
      std::ofstream file(path(letter), std::ios::binary);
      file << std::string(k_file_bytes, letter);
    }
  }
  ~LiveTableTest() override { std::filesystem::remove_all(folder_); }
  LiveTableTest(const LiveTableTest&) = delete;
  LiveTableTest& operator=(const LiveTableTest&) = delete;
  LiveTableTest(LiveTableTest&&) = delete;
  LiveTableTest& operator=(LiveTableTest&&) = delete;

  static constexpr std::string_view k_letters = "abc";
  [[nodiscard]] std::string path(char letter) const { return folder_ + "/" + letter; }
  [[nodiscard]] std::string table_of(char letter, unsigned sectors = 16) const {
    return "0 " + std::to_string(sectors) + " linear " + path(letter) + " 0\n";
  }
  OpenedDevice open(char letter) {
    auto opened = open_device(queue_, FileSpec{path(letter), 0, {}}, {.name = "d"});
    EXPECT_TRUE(opened) << opened.error().text();
    return std::move(*opened);
  }
  char letter_of(Device& device) {
    std::array<std::byte, 1> byte{};
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device.read(io, 0, byte); }).ok());
    return static_cast<char>(byte[0]);
  }
  // Whether another process could open it for writing.
  [[nodiscard]] bool locked(char letter) const {
    const int fd = ::open(path(letter).c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    const int got = ::fcntl(fd, F_OFD_SETLK, &lock);
    ::close(fd);
    return got != 0;
  }

  Queue queue_;
  std::string folder_;
};

// What a table in use, one that waits and a suspension come to, against a model.
TEST_F(LiveTableTest, AnyOrderOfCommandsComesToWhatItShould) {
  OpenedDevice opened = open('a');
  DeviceFiles files(opened, FileSpec{path('a'), 0, {}}, {.name = "d"});
  char used = 'a';
  char loaded = 0;
  bool suspended = false;
  const unsigned seed = 20'031;
  std::mt19937 dice(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (int step = 0; step < 300; ++step) {
    const char letter = k_letters[dice() % k_letters.size()];
    switch (dice() % 6) {
      case 0:
        EXPECT_EQ(error_of(files.suspend(queue_, k_limit)), "");
        suspended = true;
        break;
      case 1:
        EXPECT_EQ(error_of(files.load(queue_, table_of(letter), "t")), "");
        loaded = letter;
        break;
      case 2:
        EXPECT_EQ(error_of(files.load(queue_, table_of(letter, 17), "t")),
                  "cannot load table: t line 1: cannot make target linear: " + path(letter) +
                      ": File too small: 8704 bytes are needed from offset 0 on, it has 8192");
        break;
      case 3:
        EXPECT_EQ(error_of(files.unload(queue_)),
                  loaded == 0 ? "cannot unload table: d: none is loaded" : "");
        loaded = 0;
        break;
      default:
        EXPECT_EQ(error_of(files.resume(queue_, k_limit, nobody)), "");
        if (loaded != 0) used = std::exchange(loaded, 0);
        suspended = false;
    }
    EXPECT_EQ(files.standing().suspended_since.has_value(), suspended);
    EXPECT_EQ(files.standing().loaded != nullptr, loaded != 0);
    for (const char each : k_letters) EXPECT_EQ(locked(each), each == used || each == loaded) << each;
    if (!suspended) {
      EXPECT_EQ(letter_of(*opened.device), used) << "step " << step;
    }
  }
  files.stop(queue_);
  EXPECT_EQ(letter_of(*opened.device), used);
  EXPECT_EQ(error_of(files.suspend(queue_, k_limit)), "cannot suspend device: d: it is about to end");
}

TEST_F(LiveTableTest, ShrinkingAsksWhoHasItOpen) {
  OpenedDevice opened = open('a');
  DeviceFiles files(opened, FileSpec{path('a'), 0, {}}, {.name = "d"});
  const auto somebody = [] { return std::string("somebody has it open"); };
  ASSERT_EQ(error_of(files.load(queue_, table_of('b', 15), "t")), "");
  EXPECT_EQ(
      error_of(files.resume(queue_, k_limit, somebody)),
      "cannot resume device: d: Device or resource busy, and it is about to shrink: somebody has it open");
  EXPECT_EQ(letter_of(*opened.device), 'a') << "and requests go on";
  EXPECT_EQ(error_of(files.resume(queue_, k_limit, nobody)), "");
  EXPECT_EQ(opened.device->size(), 15 * 512U);
  EXPECT_EQ(letter_of(*opened.device), 'b');
}

TEST_F(LiveTableTest, WhatHasFailedIsNotMadeUpForByAnotherTable) {
  OpenedDevice opened;
  opened.stores = nullptr;
  const auto store = std::make_shared<FakeStore>(k_file_bytes);
  opened.device =
      std::make_unique<Device>(std::make_shared<LinearTarget>(store, "fake", Range{0, k_file_bytes}, true),
                               Device::Options{.name = "d"});
  DeviceFiles files(opened, FileSpec{path('a'), 0, {}}, {.name = "d"});
  EXPECT_EQ(error_of(files.suspend(queue_, k_limit)),
            "cannot suspend device: d: what was written could not be made durable: Input/output error");
  EXPECT_FALSE(files.standing().suspended_since);
  std::array<std::byte, 1> byte{};
  EXPECT_EQ(run_blocking(queue_, [&](Io& io) { return opened.device->read(io, 0, byte); }).error_number(),
            EIO)
      << "nothing is held";
  EXPECT_EQ(error_of(files.load(queue_, table_of('b'), "t")),
            "cannot load table: d: it has failed, and has to be served anew first");
}

}  // namespace
}  // namespace oxbow
