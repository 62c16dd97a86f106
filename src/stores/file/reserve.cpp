// SPDX-License-Identifier: Apache-2.0
#include "stores/file/reserve.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace oxbow {
namespace {

constexpr std::uint64_t k_most_allowed_bytes = std::uint64_t{64} << 20;
constexpr std::uint64_t k_part_allowed = 4;  // of what is left
constexpr std::int64_t k_allowed_ms = 1000;

// Coarse: it costs no more than reading memory.
std::int64_t now_ms() noexcept {
  timespec now{};
  (void)::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

bool Reserve::allowed(std::uint64_t bytes) noexcept {
  const auto wanted = static_cast<std::int64_t>(bytes);
  if (allowance_.load(std::memory_order_relaxed) < wanted) return false;
  if (now_ms() >= allowed_until_.load(std::memory_order_relaxed)) return false;
  return allowance_.fetch_sub(wanted, std::memory_order_relaxed) >= wanted;
}

IoStatus Reserve::ask(std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (allowed(bytes)) return {};  // somebody else has asked meanwhile
  struct ::statvfs space{};
  if (::fstatvfs(fd_, &space) != 0) return IoStatus::error(errno);
  const std::uint64_t free = std::uint64_t{space.f_bavail} * std::uint64_t{space.f_frsize};
  if (free < keep_bytes_ || free - keep_bytes_ < bytes) {
    allowance_.store(0, std::memory_order_relaxed);
    return IoStatus::error(ENOSPC);
  }
  const std::uint64_t left = free - keep_bytes_ - bytes;
  allowance_.store(static_cast<std::int64_t>(std::min(left / k_part_allowed, k_most_allowed_bytes)),
                   std::memory_order_relaxed);
  allowed_until_.store(now_ms() + k_allowed_ms, std::memory_order_relaxed);
  return {};
}

}  // namespace oxbow
