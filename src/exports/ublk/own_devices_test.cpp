// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/own_devices.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

namespace oxbow::ublk {
namespace {

// A run directory of its own. Thread safety: one thread.
class UblkOwnDevices : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "oxbow-ublk-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

// Nothing is known of any device.
class EmptyLink final : public ControlLink {
 public:
  [[nodiscard]] int run(std::uint32_t /*operation*/, const ControlCommand& /*command*/,
                        std::chrono::milliseconds /*patience*/) noexcept override {
    return -ENODEV;
  }
};

TEST_F(UblkOwnDevices, AreMarkedByDirectoryAndName) {
  EXPECT_EQ(mark_of("/run/oxbow", "a"), mark_of("/run/oxbow", "a"));
  EXPECT_NE(mark_of("/run/oxbow", "a"), mark_of("/run/oxbow", "b"));
  EXPECT_NE(mark_of("/run/oxbow", "a"), mark_of("/run/user/1/oxbow", "a"));
  EXPECT_EQ(mark_of("/run/oxbow", "a") >> 24U, mark_of("/run/oxbow", "b") >> 24U);
  // Written down in devices that outlive a program: it may not change.
  EXPECT_EQ(mark_of("/run/oxbow", "disk"), 0x6f78e229e56040a4U);
}

TEST_F(UblkOwnDevices, NotesAreReadAsTheyWereWritten) {
  EXPECT_FALSE(read_note(folder_, 3));
  ASSERT_TRUE(write_note(folder_, 3, {.name = "disk", .sources = {"0 9 zero", "9 9 raw 1:2"}}));
  const auto note = read_note(folder_, 3);
  ASSERT_TRUE(note);
  EXPECT_EQ(note->name, "disk");
  EXPECT_FALSE(note->recovering);
  EXPECT_EQ(note->sources, (std::vector<std::string>{"0 9 zero", "9 9 raw 1:2"}));
  ASSERT_TRUE(write_note(folder_, 3, {.name = "disk", .recovering = true}));
  EXPECT_TRUE(read_note(folder_, 3)->recovering);
  EXPECT_TRUE(read_note(folder_, 3)->sources.empty());
  remove_note(folder_, 3);
  EXPECT_FALSE(read_note(folder_, 3));
}

TEST_F(UblkOwnDevices, ABrokenNoteIsNone) {
  for (const char* const text : {"", "disk\n", "disk\nelse\n"}) {
    std::ofstream(folder_ + "/ublk0.note") << text;
    EXPECT_FALSE(read_note(folder_, 0)) << text;
  }
}

TEST_F(UblkOwnDevices, ANoteOfADeviceThatIsGoneGoes) {
  ASSERT_TRUE(write_note(folder_, 4'000'000'000U, {.name = "disk"}));
  std::ofstream(folder_ + "/ublkx.note") << "of somebody else";
  Control control(std::make_unique<EmptyLink>());
  const auto waiting = clean_up(control, folder_, "");
  ASSERT_TRUE(waiting) << waiting.error().text();
  EXPECT_TRUE(waiting->empty());
  EXPECT_FALSE(read_note(folder_, 4'000'000'000U));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/ublkx.note"));
}

TEST_F(UblkOwnDevices, OneAtATimeHasTheLock) {
  auto first = lock_devices(folder_, false);
  ASSERT_TRUE(first && *first);
  const auto second = lock_devices(folder_, false);
  ASSERT_TRUE(second);
  EXPECT_FALSE(*second);
  first->reset();
  const auto third = lock_devices(folder_, true);
  EXPECT_TRUE(third && *third);
}

}  // namespace
}  // namespace oxbow::ublk
