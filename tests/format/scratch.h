// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "device/device.h"
#include "os/queue.h"
#include "stores/file/file_store.h"

namespace oxbow::test {

// A directory of its own, removed with all it holds. Thread safety: none.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Scratch(Scratch&&) = delete;
  Scratch& operator=(Scratch&&) = delete;

  [[nodiscard]] std::string path(std::string_view name) const { return directory_ + "/" + std::string(name); }

 private:
  std::string directory_;
};

// Contents that say who wrote them and where: each sector repeats a text of 16 bytes, `who` (2 characters) and the
// sector's number. Bytes [offset, offset + length) of a device full of it.
[[nodiscard]] std::string content(std::string_view who, std::uint64_t offset, std::uint64_t length);

// A file of `bytes` that was last changed `mtime_ns` after 1970.
void make_file(const std::string& path, std::string_view bytes, std::int64_t mtime_ns);
[[nodiscard]] std::string read_file(const std::string& path);

// An empty file as a writable store.
[[nodiscard]] std::shared_ptr<FileStore> make_store(const std::string& path);
[[nodiscard]] std::string read_store(Queue& queue, Store& store, std::uint64_t at, std::uint64_t length);
void write_store(Queue& queue, Store& store, std::uint64_t at, std::span<const std::byte> bytes);

[[nodiscard]] std::string read_device(Queue& queue, Device& device, std::uint64_t at, std::uint64_t length);

}  // namespace oxbow::test
