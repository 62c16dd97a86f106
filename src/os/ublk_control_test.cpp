// SPDX-License-Identifier: Apache-2.0
#include "os/ublk_control.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace oxbow::ublk {
namespace {

// A driver in memory, which writes down what it is told. Thread safety: one thread.
class FakeLink final : public ControlLink {
 public:
  struct Told {
    std::uint32_t operation;
    ControlCommand command;
    std::string bytes;
  };

  [[nodiscard]] int run(std::uint32_t operation, const ControlCommand& command,
                        std::chrono::milliseconds /*patience*/) noexcept override {
    auto* const bytes = std::bit_cast<char*>(command.address);
    if (operation == k_get_device_info) {
      DeviceInfo info{.flags = unprivileged ? k_unprivileged : 0};
      std::memcpy(bytes + command.path_length, &info, sizeof(info));
      if (!keep_questions) return answers.contains(operation) ? answers[operation] : 0;
    }
    told.push_back({operation, command, std::string(bytes, command.length)});
    if (operation == k_add_device) {
      DeviceInfo info;
      std::memcpy(&info, bytes, sizeof(info));
      info.device = 7;
      info.queues = 1;
      info.flags &= ~k_user_copy;
      std::memcpy(bytes, &info, sizeof(info));
    }
    auto& busy = busy_answers[operation];
    if (busy > 0) return --busy, -EBUSY;
    return answers.contains(operation) ? answers[operation] : 0;
  }

  bool unprivileged = false;
  bool keep_questions = false;
  std::map<std::uint32_t, int> answers;
  std::map<std::uint32_t, int> busy_answers;
  std::vector<Told> told;
};

struct Driver {
  explicit Driver() : link(new FakeLink), control(std::unique_ptr<ControlLink>(link)) {}
  FakeLink* link;
  Control control;
};

// The numbers that the kernel's ublk_cmd.h has.
TEST(UblkControl, CommandsAreEncodedAsTheKernelHasThem) {
  EXPECT_EQ(k_add_device, 0xc0207504U);
  EXPECT_EQ(k_remove_device, 0xc0207505U);
  EXPECT_EQ(k_start_device, 0xc0207506U);
  EXPECT_EQ(k_stop_device, 0xc0207507U);
  EXPECT_EQ(k_set_parameters, 0xc0207508U);
  EXPECT_EQ(k_get_parameters, 0x80207509U);
  EXPECT_EQ(k_start_recovery, 0xc0207510U);
  EXPECT_EQ(k_end_recovery, 0xc0207511U);
  EXPECT_EQ(k_get_device_info, 0x80207512U);
  EXPECT_EQ(k_get_features, 0x80207513U);
  EXPECT_EQ(k_remove_device_async, 0x80207514U);
  EXPECT_EQ(k_fetch, 0xc0107520U);
  EXPECT_EQ(k_commit_and_fetch, 0xc0107521U);
}

TEST(UblkControl, DataOfRequestsLieWhereTheKernelHasThem) {
  EXPECT_EQ(data_at(0, 0), 0x80000000ULL);
  EXPECT_EQ(data_at(0, 1), 0x80000000ULL + (1ULL << 25U));
  EXPECT_EQ(data_at(3, 4095), 0x80000000ULL + (3ULL << 41U) + (4095ULL << 25U));
  EXPECT_EQ(descriptors_at(0, 4096), 0U);
  EXPECT_EQ(descriptors_at(2, 4096), 2 * 4096 * 24U);
}

TEST(UblkControl, WhatTheDriverMadeOfTheWishesCounts) {
  Driver driver;
  const auto info = driver.control.add(
      {.queues = 4, .depth = 128, .device = k_any_device, .flags = k_user_copy | k_user_recovery});
  ASSERT_TRUE(info) << info.error().text();
  EXPECT_EQ(info->device, 7U);
  EXPECT_EQ(info->queues, 1U);
  EXPECT_EQ(info->flags, k_user_recovery);
  ASSERT_EQ(driver.link->told.size(), 1U);
  EXPECT_EQ(driver.link->told[0].command.device, k_any_device);
  EXPECT_EQ(driver.link->told[0].command.queue, 0xffffU);
  EXPECT_EQ(driver.link->told[0].command.length, sizeof(DeviceInfo));
}

TEST(UblkControl, ParametersSayHowLongTheyAre) {
  Driver driver;
  ASSERT_TRUE(driver.control.set_parameters(3, {.kinds = k_basic, .sectors = 99}));
  ASSERT_EQ(driver.link->told.size(), 1U);
  const auto& told = driver.link->told[0];
  EXPECT_EQ(told.operation, k_set_parameters);
  EXPECT_EQ(told.command.device, 3U);
  EXPECT_EQ(told.command.path_length, 0U);
  Parameters parameters;
  ASSERT_EQ(told.bytes.size(), sizeof(parameters));
  std::memcpy(&parameters, told.bytes.data(), sizeof(parameters));
  EXPECT_EQ(parameters.length, 60U);
  EXPECT_EQ(parameters.sectors, 99U);
}

TEST(UblkControl, AnUnprivilegedDeviceIsNamedByItsPath) {
  Driver driver;
  driver.link->unprivileged = true;
  ASSERT_TRUE(driver.control.set_parameters(12, {.kinds = k_basic, .sectors = 99}));
  ASSERT_EQ(driver.link->told.size(), 1U);
  const auto& told = driver.link->told[0];
  const std::string path = "/dev/ublkc12";
  EXPECT_EQ(told.command.path_length, path.size());
  EXPECT_EQ(told.command.length, path.size() + sizeof(Parameters));
  EXPECT_TRUE(told.bytes.starts_with(path));
}

TEST(UblkControl, StartAndTheEndOfRecoverySayWhoServes) {
  Driver driver;
  ASSERT_TRUE(driver.control.start(1));
  ASSERT_TRUE(driver.control.end_recovery(1));
  ASSERT_EQ(driver.link->told.size(), 2U);
  EXPECT_EQ(driver.link->told[0].command.data, static_cast<std::uint64_t>(::getpid()));
  EXPECT_EQ(driver.link->told[1].command.data, static_cast<std::uint64_t>(::getpid()));
}

TEST(UblkControl, ErrorsAreSentences) {
  Driver driver;
  driver.link->answers = {{k_start_device, -EEXIST}, {k_stop_device, -EPERM}, {k_add_device, -ENOMEM}};
  EXPECT_EQ(driver.control.start(2).error().text(), "cannot start device: /dev/ublkb2: File exists");
  EXPECT_EQ(
      driver.control.stop(2).error().text(),
      "cannot stop device: /dev/ublkb2: Operation not permitted (it takes root, or an unprivileged device of "
      "one's own)");
  EXPECT_EQ(driver.control.add({.device = k_any_device}).error().text(),
            "cannot add device: /dev/ublk-control: Cannot allocate memory");
  driver.link->answers = {{k_get_device_info, -ENODEV}, {k_get_features, -EOPNOTSUPP}};
  EXPECT_EQ(driver.control.start(2).error().text(),
            "cannot start device: /dev/ublkb2: there is no such device");
  EXPECT_EQ(driver.control.features().error().text(),
            "cannot use ublk: /dev/ublk-control: this kernel's is older than that of Linux 6.5");
}

TEST(UblkControl, RemovingDoesNotWaitWhereTheDriverCan) {
  Driver driver;
  ASSERT_TRUE(driver.control.remove(4));
  ASSERT_EQ(driver.link->told.size(), 1U);
  EXPECT_EQ(driver.link->told[0].operation, k_remove_device_async);
  for (const int refusal : {-EOPNOTSUPP, -EINVAL}) {
    driver.link->told.clear();
    driver.link->answers = {{k_remove_device_async, refusal}};
    ASSERT_TRUE(driver.control.remove(4));
    ASSERT_EQ(driver.link->told.size(), 2U);
    EXPECT_EQ(driver.link->told[1].operation, k_remove_device);
  }
  // Somebody still has it open.
  driver.link->answers[k_remove_device] = -ETIME;
  EXPECT_TRUE(driver.control.remove(4));
}

TEST(UblkControl, TakingOverWaitsForTheEndOfTheOther) {
  Driver driver;
  driver.link->busy_answers[k_start_recovery] = 2;
  ASSERT_TRUE(driver.control.start_recovery(0, std::chrono::seconds(60)));
  EXPECT_EQ(driver.link->told.size(), 3U);
  driver.link->busy_answers[k_start_recovery] = 1 << 20;
  EXPECT_EQ(driver.control.start_recovery(0, std::chrono::milliseconds(30)).error().text(),
            "cannot take over device: /dev/ublkb0: Device or resource busy");
}

}  // namespace
}  // namespace oxbow::ublk
