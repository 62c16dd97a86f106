// SPDX-License-Identifier: Apache-2.0
#include "stores/packed/frame_cache.h"

#include <new>

namespace oxbow {

FrameCache::Content FrameCache::find(std::uint64_t frame) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto found = places_.find(frame);
  if (found == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->content;
}

void FrameCache::insert(std::uint64_t frame, Content content) noexcept {
  std::list<Entry> dropped;  // freed after the lock was given back
  const std::uint64_t bytes = content->size();
  if (bytes > limit_bytes_) return;
  const std::scoped_lock lock(mutex_);
  if (places_.contains(frame)) return;
  try {
    std::list<Entry> entry;
    entry.push_front({frame, std::move(content)});
    places_.emplace(frame, entry.begin());
    entries_.splice(entries_.begin(), entry);
  } catch (const std::bad_alloc&) {
    return;
  }
  bytes_ += bytes;
  while (bytes_ > limit_bytes_) {
    const auto last = std::prev(entries_.end());
    bytes_ -= last->content->size();
    places_.erase(last->frame);
    dropped.splice(dropped.begin(), entries_, last);
  }
}

std::uint64_t FrameCache::bytes() const noexcept {
  const std::scoped_lock lock(mutex_);
  return bytes_;
}

}  // namespace oxbow
