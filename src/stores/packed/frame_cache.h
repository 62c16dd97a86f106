// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace oxbow {

// The clusters of frames that were read lately, up to a number of bytes; those that weren't used for longest go first.
// Thread safety: any thread.
class FrameCache {
 public:
  using Content = std::shared_ptr<const std::vector<std::byte>>;

  explicit FrameCache(std::uint64_t limit_bytes) noexcept : limit_bytes_(limit_bytes) {}

  // Null when it isn't there.
  [[nodiscard]] Content find(std::uint64_t frame) noexcept;
  // Keeps it if memory allows; what is larger than the limit is not kept.
  void insert(std::uint64_t frame, Content content) noexcept;
  [[nodiscard]] std::uint64_t bytes() const noexcept;

 private:
  struct Entry {
    std::uint64_t frame;
    Content content;
  };
  const std::uint64_t limit_bytes_;
  mutable std::mutex mutex_;
  // Guarded by mutex_: the most recently used first.
  std::list<Entry> entries_;
  std::unordered_map<std::uint64_t, std::list<Entry>::iterator> places_;
  std::uint64_t bytes_ = 0;
};

}  // namespace oxbow
