// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "exports/kernel_device.h"

namespace oxbow {
class Device;
class Log;
}  // namespace oxbow

namespace oxbow::loop {

// A device as /dev/loopN, over a file that shows it by FUSE (oxbow-loop(7)). Thread safety: as KernelDevice.
class LoopExport final : public KernelDevice {
 public:
  struct Options {
    bool read_only = false;  // refuses changes, whatever the device allows
    Log* log = nullptr;      // borrowed; null: silent
  };

  // `file` is where the file goes, which others have no need of. The device is borrowed until stop() has returned;
  // it is read meanwhile, in search of partitions.
  [[nodiscard]] static Result<std::unique_ptr<LoopExport>> start(Device& device, const std::string& file,
                                                                 const Options& options);
  ~LoopExport() override;
  LoopExport(const LoopExport&) = delete;
  LoopExport& operator=(const LoopExport&) = delete;
  LoopExport(LoopExport&&) = delete;
  LoopExport& operator=(LoopExport&&) = delete;

  [[nodiscard]] const std::string& path() const noexcept override;
  [[nodiscard]] std::string fixed_size() const override { return {}; }
  [[nodiscard]] Result<void> grow() override;
  [[nodiscard]] Result<void> stop(UniqueFd claim) override;

 private:
  struct Parts;
  explicit LoopExport(std::unique_ptr<Parts> parts) noexcept;

  std::unique_ptr<Parts> parts_;
};

}  // namespace oxbow::loop
