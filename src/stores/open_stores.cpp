// SPDX-License-Identifier: Apache-2.0
#include "stores/open_stores.h"

namespace oxbow {
namespace {

// Why `store` can't serve this opening too; null when it can.
const char* conflict(const FileStore& store, const FileOptions& options) noexcept {
  if (store.direct() && !options.direct)
    return "this process has it open with direct I/O already; use one I/O mode";
  if (!store.direct() && options.direct)
    return "this process has it open without direct I/O already; use one I/O mode";
  if (options.writable && !store.writable()) return "this process has it open for reading only already";
  if (options.lock == LockMode::none || options.lock == store.lock_mode()) return nullptr;
  switch (store.lock_mode()) {
    case LockMode::exclusive:
      return "this process has it open for writing already";
    case LockMode::shared:
      return "this process has it open as a base, which must not change, already";
    case LockMode::none:
      break;
  }
  return "this process has it open without a lock already";
}

}  // namespace

std::shared_ptr<FileStore> OpenStores::find(const Key& key) {
  const auto found = stores_.find(key);
  return found == stores_.end() ? nullptr : found->second.lock();
}

Result<std::shared_ptr<FileStore>> OpenStores::open_file(const std::string& path,
                                                         const FileOptions& options) {
  const auto key_of = [](const FileIdentity& identity) -> Key {
    return {identity.block_device, identity.dev, identity.inode};
  };
  const std::scoped_lock lock(mutex_);
  std::erase_if(stores_, [](const auto& entry) { return entry.second.expired(); });
  if (const auto named = identify_path(path.c_str())) {
    if (std::shared_ptr<FileStore> store = find(key_of(*named))) {
      if (const char* why = conflict(*store, options))
        return std::unexpected(Error("cannot open file", path, why));
      return store;
    }
  }
  Result<std::shared_ptr<FileStore>> opened = FileStore::open(path, options);
  if (!opened) return opened;
  // The name may have come to mean another file since it was looked up.
  const Key key = key_of((*opened)->identity());
  if (find(key) != nullptr)
    return std::unexpected(Error("cannot open file", path, "it was replaced while it was opened"));
  stores_[key] = *opened;
  return opened;
}

Result<void> OpenStores::share_locks() {
  const std::scoped_lock lock(mutex_);
  for (const auto& [key, known] : stores_) {
    const std::shared_ptr<FileStore> store = known.lock();
    if (store == nullptr || store->lock_mode() != LockMode::exclusive) continue;
    if (auto shared = store->lock_shared(); !shared) return shared;
  }
  return {};
}

}  // namespace oxbow
