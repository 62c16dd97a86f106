// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "oxbow/error.h"

namespace oxbow {
class Device;
class Log;
}  // namespace oxbow

namespace oxbow::fuse {

// Shows a device as a regular file, by FUSE (oxbow-fuse(7)). Thread safety: one thread makes, stops and destroys it.
class FileExport {
 public:
  struct Options {
    bool read_only = false;  // refuses changes, whatever the device allows
    Log* log = nullptr;      // borrowed; null: silent
    // close(2) of a descriptor that was open for writing makes durable what was written. Only for files that this
    // process never opens itself: killed, it would wait for its own answer.
    bool flush_at_close = true;
    // The descriptor that answers the kernel gets a larger number than this one.
    int above = -1;
  };

  // At `path`, which is made or covered. The device is borrowed until stop() has returned. Refused is one of the files
  // that the device itself is made of.
  [[nodiscard]] static Result<std::unique_ptr<FileExport>> start(Device& device, const std::string& path,
                                                                 const Options& options);
  ~FileExport();  // stops
  FileExport(const FileExport&) = delete;
  FileExport& operator=(const FileExport&) = delete;
  FileExport(FileExport&&) = delete;
  FileExport& operator=(FileExport&&) = delete;

  // Takes the file away, also when it is in use, answers what was received and ends: whoever has it open gets errors
  // from now on. The error is why it is still there, then without anybody to answer.
  [[nodiscard]] Result<void> stop();

  // How many times the file is open now. From any thread, until stop() is called.
  [[nodiscard]] std::uint64_t opens() const noexcept;
  // "file:///PATH"
  [[nodiscard]] const std::string& uri() const noexcept { return uri_; }

 private:
  struct Parts;
  explicit FileExport(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;  // null once stopped
  std::string uri_;
};

}  // namespace oxbow::fuse
