// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "exports/kernel_device.h"
#include "oxbow/error.h"

namespace oxbow {
class Target;
}

namespace oxbow::control {

// What shows one device as block devices of the kernel's, and how they are taken away. Thread safety: any thread that
// serves nothing; one waits for another.
class KernelDevices {
 public:
  explicit KernelDevices(std::string name) noexcept : name_(std::move(name)) {}

  void add(std::unique_ptr<KernelDevice> device);

  [[nodiscard]] std::vector<std::string> paths() const;
  // Who uses them: "/dev/loop0: mounted at /mnt"; empty: nobody.
  [[nodiscard]] std::string users() const;

  // Why the device can't get another size; empty when it can.
  [[nodiscard]] std::string fixed_size() const;
  // Tells the kernel that the device has another size or content now: what the kernel keeps of it is forgotten.
  [[nodiscard]] Result<void> changed() const;
  // Refuses what of the device, or is to be, lies on one of its own block devices: requests would wait for themselves.
  [[nodiscard]] Result<void> check_below(const Target& target) const;

  // Takes them away, and returns when what was written by them is durable. While one is in use it is refused, unless
  // `force`: who uses it gets errors from then on.
  [[nodiscard]] Result<void> detach(bool force);
  // As detach() by force; every error is handed to `failed`.
  void stop(const std::function<void(const Error&)>& failed);

 private:
  const std::string name_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<KernelDevice>> devices_;
};

}  // namespace oxbow::control
