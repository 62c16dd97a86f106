// SPDX-License-Identifier: Apache-2.0
// Structure changes: requests wait, those in flight and views are waited for, none is lost.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "device/device.h"
#include "device/statistics.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = 1 << 20;

std::shared_ptr<Target> ram(std::uint64_t size_bytes) {
  auto store = RamStore::create({.size_bytes = size_bytes});
  EXPECT_TRUE(store);
  return std::make_shared<LinearTarget>(std::move(*store), "ram", Range{0, size_bytes}, true);
}

IoStatus write(Queue& queue, Device& device, std::uint64_t at, char letter) {
  std::array<std::byte, 512> data{};
  data.fill(static_cast<std::byte>(letter));
  return run_blocking(queue, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); });
}

char letter_at(Queue& queue, Device& device, std::uint64_t at) {
  std::array<std::byte, 1> byte{};
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return device.read(io, at, byte); }).ok());
  return static_cast<char>(byte[0]);
}

TEST(DeviceSuspend, RequestsWaitAndFindTheNewTarget) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  ASSERT_TRUE(write(queue, device, 0, 'a').ok());
  device.suspend(queue);
  std::atomic<int> ended{0};
  std::array<IoStatus, 4> results;
  std::vector<std::jthread> clients;
  const auto ask = [&](std::size_t which, auto request) {
    clients.emplace_back([&, which, request] {
      Queue own;
      results[which] = run_blocking(own, request);
      ended.fetch_add(1);
    });
  };
  std::array<std::byte, 512> out{};
  const std::array<std::byte, 512> data{};
  ask(0, [&](Io& io) { return device.read(io, k_size_bytes, out); });
  ask(1, [&](Io& io) { return device.write(io, 0, data, Durability::when_completed); });
  ask(2, [&](Io& io) { return device.flush(io); });
  ask(3, [&](Io& io) { return device.zero(io, {0, 512}, false, Durability::with_flush); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ended.load(), 0);
  const auto before = device.replace(ram(2 * k_size_bytes), false);
  EXPECT_EQ(before->size(), k_size_bytes);
  EXPECT_EQ(device.size(), 2 * k_size_bytes);
  device.resume();
  clients.clear();
  for (const IoStatus& each : results) EXPECT_TRUE(each.ok()) << each.error_number();
  EXPECT_EQ(letter_at(queue, device, 0), '\0') << "what was written belongs to the old target";
}

// What is being received into the device's memory would be lost with the memory.
TEST(DeviceSuspend, WaitsForAPayloadThatIsReceivedIntoMemory) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  const std::vector<std::byte> page(4096, std::byte{'a'});
  ASSERT_TRUE(
      run_blocking(queue, [&](Io& io) { return device.write(io, 0, page, Durability::with_flush); }).ok());
  DirectWrite direct = device.direct(queue, {0, 512});
  ASSERT_EQ(direct.memory.size(), 512U);
  std::atomic<bool> suspended{false};
  std::jthread control([&] {
    Queue own;
    device.suspend(own);
    suspended = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(suspended.load());
  EXPECT_TRUE(device.direct(queue, {512, 512}).memory.empty()) << "no new one begins";
  direct.memory[0] = std::byte{'b'};
  device.received(queue, {0, 512});
  direct = {};
  control.join();
  EXPECT_TRUE(suspended.load());
  device.resume();
  EXPECT_EQ(letter_at(queue, device, 0), 'b');
}

TEST(DeviceSuspend, WaitsForAViewToBeGivenBack) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  ASSERT_TRUE(write(queue, device, 0, 'a').ok());
  ReadView view;
  ASSERT_TRUE(device.view(queue, {0, 512}, view));
  std::atomic<bool> suspended{false};
  std::jthread control([&] {
    Queue own;
    device.suspend(own);
    suspended.store(true);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(suspended.load());
  ReadView late;
  while (device.view(queue, {0, 512}, late)) late.clear();  // until the gate is closed
  EXPECT_EQ(static_cast<char>(*static_cast<std::byte*>(view.pieces[0].iov_base)), 'a');
  view.clear();
  control.join();
  EXPECT_TRUE(suspended.load());
  device.resume();
  EXPECT_TRUE(device.view(queue, {0, 512}, late));
}

TEST(DeviceSuspend, GivesUpAndLetsEverythingGoOn) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  ASSERT_TRUE(write(queue, device, 0, 'a').ok());
  ReadView view;
  ASSERT_TRUE(device.view(queue, {0, 512}, view));
  Queue control;
  int asked = 0;
  IoStatus late = IoStatus::error(EBUSY);
  std::jthread waiting;
  EXPECT_FALSE(device.suspend_unless(control, [&] {
    // The gate is closed now.
    if (++asked == 1) {
      waiting = std::jthread([&] {
        Queue own;
        late = write(own, device, 512, 'b');
      });
    }
    return asked == 3;
  }));
  EXPECT_EQ(asked, 3);
  waiting.join();
  EXPECT_TRUE(late.ok());
  view.clear();
  EXPECT_TRUE(device.suspend_unless(control, [] { return true; })) << "nothing is in flight";
  device.resume();
  EXPECT_EQ(letter_at(queue, device, 512), 'b');
}

TEST(DeviceSuspend, AFlushHasNothingToWaitForOnceItIsSettled) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  ASSERT_TRUE(write(queue, device, 0, 'a').ok());
  device.suspend(queue);
  const auto rounds = [&] { return device.statistics()[Counter::flush_rounds]; };
  ASSERT_TRUE(device.settle(queue).ok());
  const auto settled = rounds();
  EXPECT_EQ(settled, 1U);
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok());
  EXPECT_EQ(rounds(), settled);
  device.resume();
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok());
  EXPECT_EQ(rounds(), settled + 1);
  device.suspend(queue);  // not settled again: it waits
  IoStatus late = IoStatus::error(EBUSY);
  std::atomic<bool> ended{false};
  std::jthread client([&] {
    Queue own;
    late = run_blocking(own, [&](Io& io) { return device.flush(io); });
    ended.store(true);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(ended.load());
  device.resume();
  client.join();
  EXPECT_TRUE(late.ok());
}

TEST(DeviceSuspend, AFailureIsForgottenWithItsTarget) {
  Device device(ram(k_size_bytes), {.name = "d"});
  Queue queue;
  ASSERT_TRUE(device.close(queue).ok());
  EXPECT_EQ(write(queue, device, 0, 'x').error_number(), EIO);
  device.suspend(queue);
  (void)device.replace(ram(k_size_bytes), false);
  device.resume();
  EXPECT_TRUE(write(queue, device, 0, 'x').ok());
  device.suspend(queue);
  (void)device.replace(ram(k_size_bytes), true);
  device.resume();
  EXPECT_EQ(write(queue, device, 0, 'x').error_number(), EPERM);
}

TEST(DeviceSuspend, NothingIsLostOrFailsUnderLoad) {
  constexpr int k_clients = 3;
  constexpr int k_rounds = 200;
  const std::shared_ptr<Target> target = ram(k_size_bytes);
  Device device(target, {.name = "d"});
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::jthread> clients;
  for (int client = 0; client < k_clients; ++client) {
    clients.emplace_back([&, client] {
      Queue queue;
      for (unsigned i = 0; !stop.load(); ++i) {
        const std::uint64_t at = (static_cast<std::uint64_t>(client) * 128 + i % 128) * 512;
        const char letter = static_cast<char>('a' + i % 26);
        if (!write(queue, device, at, letter).ok()) ++failures;
        if (letter_at(queue, device, at) != letter) ++failures;
        if (i % 16 == 0 && !run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok()) ++failures;
      }
    });
  }
  Queue queue;
  for (int round = 0; round < k_rounds; ++round) {
    device.suspend(queue);
    (void)device.replace(target, false);
    device.resume();
  }
  stop.store(true);
  clients.clear();
  EXPECT_EQ(failures.load(), 0);
}

}  // namespace
}  // namespace oxbow
