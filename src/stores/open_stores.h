// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "stores/file/file_store.h"

namespace oxbow {

// The files that this process has open, so that there is one store, one descriptor and one I/O mode per file,
// however often and by whatever name it is mentioned. Holds no store alive. Thread safety: any thread.
class OpenStores {
 public:
  // Opens `path`, or answers the store that is open already. An opening that the existing store doesn't
  // satisfy is refused: another I/O mode, writing where it is read-only, or another lock than it holds
  // (LockMode::none fits any).
  [[nodiscard]] Result<std::shared_ptr<FileStore>> open_file(const std::string& path,
                                                             const FileOptions& options);
  // Lets others read what this process has locked for itself: exclusive locks become shared ones, without a gap.
  [[nodiscard]] Result<void> share_locks();

 private:
  using Key = std::tuple<bool, std::uint64_t, std::uint64_t>;  // block device, device, inode
  [[nodiscard]] std::shared_ptr<FileStore> find(const Key& key);

  std::mutex mutex_;
  std::map<Key, std::weak_ptr<FileStore>> stores_;  // guarded by mutex_
};

}  // namespace oxbow
