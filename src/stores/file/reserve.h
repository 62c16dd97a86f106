// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "oxbow/io_status.h"

namespace oxbow {

// Space that is to stay free on the file system of a file. The kernel isn't asked for each write: an answer allows so
// many bytes, for a second at most; the fewer are left, the smaller the part of them that it allows. What is in
// flight, and what others take meanwhile, may go below. Thread safety: any thread.
class Reserve {
 public:
  // `fd` is borrowed. 0 bytes keep nothing.
  Reserve(int fd, std::uint64_t keep_bytes) noexcept : fd_(fd), keep_bytes_(keep_bytes) {}

  // Whether so many bytes may be taken: ENOSPC when less would be free afterwards than is to be kept; another
  // error where that can't be found out.
  [[nodiscard]] IoStatus take(std::uint64_t bytes) noexcept {
    if (keep_bytes_ == 0) return {};
    if (allowed(bytes)) return {};
    return ask(bytes);
  }

 private:
  [[nodiscard]] bool allowed(std::uint64_t bytes) noexcept;
  [[nodiscard]] IoStatus ask(std::uint64_t bytes) noexcept;

  const int fd_;
  const std::uint64_t keep_bytes_;
  std::mutex mutex_;                            // of those who ask
  std::atomic<std::int64_t> allowance_{0};      // bytes
  std::atomic<std::int64_t> allowed_until_{0};  // by the steady clock, in ms
};

}  // namespace oxbow
