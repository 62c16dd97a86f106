// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "formats/cowloop/head.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/file/file_store.h"

namespace oxbow::cowloop {

enum class FileKind : std::uint8_t {
  other,    // or what can't be opened or read: whoever opens it says why
  cowfile,  // packed or not
  gzip,     // a packed cowfile, compressed
};
// What the file begins like. Nothing is locked.
[[nodiscard]] FileKind kind_of_file(Queue& queue, const std::string& path);

enum class Use : std::uint8_t {
  look,   // nothing is locked: somebody may have it open
  read,   // nobody writes meanwhile
  write,  // nobody else has it
};
// A cowfile that is open, and its head. Thread safety: as its store.
struct OpenedCowfile {
  std::shared_ptr<FileStore> store;
  Head head;
};
// Opens a cowfile in whatever state. Errors begin with `what`.
[[nodiscard]] Result<OpenedCowfile> open_cowfile(Queue& queue, const std::string& what,
                                                 const std::string& path, Use use);

// Opens a cowfile that is clean, not packed, and as its head says, to be read; any other is refused.
[[nodiscard]] Result<OpenedCowfile> open_sound_cowfile(Queue& queue, const std::string& what,
                                                       const std::string& path);

// Opens the read-only file of a pair: to be read, or to be merged into.
[[nodiscard]] Result<std::shared_ptr<FileStore>> open_base(const std::string& what, const std::string& path,
                                                           Use use);
// Refuses a pair of which both are the same file.
[[nodiscard]] Result<void> check_distinct(const std::string& what, const FileStore& cowfile,
                                          const FileStore& base);

// What the file has of the bytes from `at` on; zeros behind its end. Blocking.
[[nodiscard]] IoStatus read_or_zeros(Queue& queue, Store& file, std::uint64_t at, std::span<std::byte> out);

[[nodiscard]] bool all_zero(std::span<const std::byte> bytes) noexcept;

}  // namespace oxbow::cowloop
