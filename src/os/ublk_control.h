// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "os/ublk_abi.h"
#include "oxbow/error.h"

namespace oxbow::ublk {

// Carries commands to the driver. Thread safety: one thread at a time.
class ControlLink {
 public:
  ControlLink() noexcept = default;
  virtual ~ControlLink() = default;
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;
  ControlLink(ControlLink&&) = delete;
  ControlLink& operator=(ControlLink&&) = delete;

  // Blocks until the driver has answered: a negative errno value, else 0 or more. Without an answer within `patience`
  // it is -ETIME, and the driver goes on.
  [[nodiscard]] virtual int run(std::uint32_t operation, const ControlCommand& command,
                                std::chrono::milliseconds patience) noexcept = 0;
};

// Makes block devices whose requests are answered by programs, and takes them away. Commands block until the driver
// has done them, and some until requests of the device have been answered: so not on a thread that answers them.
// Errors name the device and what was asked. Thread safety: one thread at a time.
class Control {
 public:
  // /dev/ublk-control. The error says what this machine lacks: the driver, rights, or features that everything here
  // relies on (they came with Linux 6.5).
  [[nodiscard]] static Result<Control> open();
  // Through another link, for tests.
  explicit Control(std::unique_ptr<ControlLink> link) noexcept : link_(std::move(link)) {}

  // What the driver is able to do (k_user_copy and so on).
  [[nodiscard]] Result<std::uint64_t> features();
  // A new device; what the driver made of the wishes, which is what counts.
  [[nodiscard]] Result<DeviceInfo> add(const DeviceInfo& wishes);
  [[nodiscard]] Result<DeviceInfo> info(std::uint32_t device);
  [[nodiscard]] Result<void> set_parameters(std::uint32_t device, const Parameters& parameters);
  [[nodiscard]] Result<Parameters> parameters(std::uint32_t device);
  // The block device appears. Waits until all requests of all queues have been fetched.
  [[nodiscard]] Result<void> start(std::uint32_t device);
  // The block device is taken away, also when it is in use; what was written to its cache has to be synced before.
  // Fetches that wait end.
  [[nodiscard]] Result<void> stop(std::uint32_t device);
  // Stops it, and forgets it as soon as nobody has it open any more. /dev/ublkcN must have been closed.
  [[nodiscard]] Result<void> remove(std::uint32_t device);
  // One whose process is gone is taken over: between the two its requests are fetched anew, and the second waits for
  // that. The first waits at most `patience` for the end of that process.
  [[nodiscard]] Result<void> start_recovery(std::uint32_t device, std::chrono::milliseconds patience);
  [[nodiscard]] Result<void> end_recovery(std::uint32_t device);

 private:
  [[nodiscard]] int run(std::uint32_t operation, std::uint32_t device, std::span<std::byte> bytes,
                        bool with_path, std::uint64_t data, std::chrono::milliseconds patience = k_for_ever);
  [[nodiscard]] int run_on(std::uint32_t operation, std::uint32_t device, std::span<std::byte> bytes,
                           std::uint64_t data, std::chrono::milliseconds patience = k_for_ever);
  [[nodiscard]] Result<void> told(const char* what, std::uint32_t device, int answer) const;

  static constexpr std::chrono::milliseconds k_for_ever = std::chrono::milliseconds::max();

  std::unique_ptr<ControlLink> link_;
};

[[nodiscard]] std::string control_path();
[[nodiscard]] std::string character_path(std::uint32_t device);  // "/dev/ublkc0"
[[nodiscard]] std::string block_path(std::uint32_t device);      // "/dev/ublkb0"

}  // namespace oxbow::ublk
