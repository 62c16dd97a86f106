// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "exports/kernel_device.h"
#include "exports/ublk/continuity.h"
#include "exports/ublk/queue_thread.h"
#include "os/fd.h"
#include "os/ublk_control.h"
#include "oxbow/error.h"

namespace oxbow {
class Device;
class Log;
}  // namespace oxbow

namespace oxbow::ublk {

// A device as a block device of the kernel's ublk driver (oxbow-ublk(7)). Thread safety: as KernelDevice.
class UblkExport final : public KernelDevice {
 public:
  struct Options {
    std::string name;           // what the device is served as
    std::string run_directory;  // with the name, what it is found again by when this process is killed
    bool read_only = false;     // refuses changes, whatever the device allows
    unsigned queues = 0;        // each with a thread; 0: as many as there are cores, up to four
    Log* log = nullptr;         // borrowed; null: silent
  };

  // Whether the kernel has the driver, and lets this process use it; the error says why not.
  [[nodiscard]] static Result<void> available();

  // The device is borrowed until stop() has returned. The block device that a killed process left of the same name is
  // taken over where that is safe. Where what it had is lost, it is stopped, so that all its requests fail; where this
  // is another device, it goes on waiting; and the error says so.
  [[nodiscard]] static Result<std::unique_ptr<UblkExport>> start(Device& device, const Options& options);
  ~UblkExport() override;
  UblkExport(const UblkExport&) = delete;
  UblkExport& operator=(const UblkExport&) = delete;
  UblkExport(UblkExport&&) = delete;
  UblkExport& operator=(UblkExport&&) = delete;

  [[nodiscard]] const std::string& path() const noexcept override { return path_; }
  [[nodiscard]] std::string fixed_size() const override;
  [[nodiscard]] Result<void> grow() override;
  [[nodiscard]] Result<void> stop(UniqueFd claim) override;

  // Whether it was taken over from a process that was killed.
  [[nodiscard]] bool taken_over() const noexcept { return taken_over_; }

 private:
  UblkExport(Device& device, Options options, Control control);
  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> make();
  [[nodiscard]] Result<void> take_over(const DeviceInfo& left);
  [[nodiscard]] Judgement judge_left(const DeviceInfo& left);
  [[nodiscard]] Result<void> open_character();
  [[nodiscard]] Result<void> start_threads();
  [[nodiscard]] Result<void> note(bool recovering);
  [[nodiscard]] Result<void> sync_block_device(const UniqueFd& claim) const;
  void find_partitions();
  void give_up() noexcept;
  [[nodiscard]] std::array<Result<void>, 2> take_away(UniqueFd claim);
  void log(LogLevel level, const std::string& line) const;

  Device& device_;
  const Options options_;
  Control control_;
  std::uint64_t features_ = 0;
  DeviceInfo info_;
  std::string path_;
  UniqueFd character_;
  std::vector<std::unique_ptr<QueueThread>> threads_;
  bool added_ = false;  // there is a device to be removed
  bool taken_over_ = false;
};

}  // namespace oxbow::ublk
