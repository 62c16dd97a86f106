// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include "control/served.h"
#include "device/device.h"
#include "jobs/open_device.h"
#include "os/queue.h"

namespace oxbow::control {

// A run directory of a test's own. Thread safety: none.
class ScratchDirectory {
 public:
  ScratchDirectory() : path_((std::filesystem::temp_directory_path() / "oxbow-control-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error(path_);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ScratchDirectory(ScratchDirectory&&) = delete;
  ScratchDirectory& operator=(ScratchDirectory&&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
};

// A RAM disk that is served by nobody else. Thread safety: none.
class ServedRam {
 public:
  explicit ServedRam(std::string name, std::uint64_t size_bytes = 1 << 20) {
    Queue queue;
    auto opened = open_device(queue, RamSpec{size_bytes}, {.name = name});
    if (!opened) throw std::runtime_error(opened.error().text());
    opened_ = std::move(*opened);
    served.devices.push_back({.name = name, .source = "--ram 1M", .device = opened_.device.get()});
  }
  Served served;
  [[nodiscard]] Device& device() { return *opened_.device; }

 private:
  OpenedDevice opened_;
};

}  // namespace oxbow::control
