// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/export.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <iterator>
#include <mutex>
#include <utility>

#include "device/device.h"
#include "exports/nbd/protocol.h"

namespace oxbow::nbd {
namespace {

// Why an export cannot be offered; empty when it can.
std::string why_not(const Export& each) {
  if (each.name.size() > k_max_string_bytes || each.description.size() > k_max_string_bytes) {
    return "its name or description is longer than 4096 bytes";
  }
  if (each.name.find('\0') != std::string::npos) return "its name contains a zero byte";
  const std::uint32_t preferred = each.preferred_block_bytes;
  if (!std::has_single_bit(preferred) || preferred < 512 || preferred > k_max_payload_bytes) {
    return "the preferred block size has to be a power of two from 512 bytes to 32 MiB";
  }
  return {};
}

std::string shown(const std::string& name) { return name.empty() ? "(no name)" : name.substr(0, 64); }

}  // namespace

bool Export::writable() const noexcept { return !read_only && device->writable(); }

std::uint16_t Export::transmission_flags(bool structured_replies) const noexcept {
  namespace flag = transmission_flag;
  const unsigned flags = flag::k_has_flags | flag::k_send_flush | flag::k_send_fua | flag::k_send_trim |
                         flag::k_send_write_zeroes | flag::k_can_multi_conn | flag::k_send_cache |
                         flag::k_send_fast_zero | (structured_replies ? flag::k_send_df : 0U) |
                         (writable() ? 0U : flag::k_read_only);
  return static_cast<std::uint16_t>(flags);
}

Result<Exports> Exports::make(std::vector<Export> exports) {
  constexpr auto k_what = "cannot offer export";
  if (exports.empty()) return std::unexpected(Error("cannot serve NBD", "exports", "there is none to offer"));
  for (std::size_t i = 0; i < exports.size(); ++i) {
    const Export& each = exports[i];
    if (std::string why = why_not(each); !why.empty()) {
      return std::unexpected(Error(k_what, shown(each.name), std::move(why)));
    }
    const auto same_name = [&](const Export& other) { return other.name == each.name; };
    if (std::any_of(exports.begin(), exports.begin() + static_cast<std::ptrdiff_t>(i), same_name)) {
      return std::unexpected(Error(k_what, shown(each.name), "another export has the same name"));
    }
  }
  return Exports(std::move(exports));
}

struct Exports::State {
  mutable std::mutex mutex;
  std::deque<Export> exports;  // guarded by mutex; those that are there stay as they are
  Maker maker;
};

Exports::Exports(std::vector<Export> exports) : state_(std::make_shared<State>()) {
  std::ranges::move(exports, std::back_inserter(state_->exports));
}

void Exports::make_on_demand(Maker maker) { state_->maker = std::move(maker); }

const Export* Exports::find_locked(std::string_view name) const noexcept {
  const auto found = std::ranges::find(state_->exports, name, &Export::name);
  if (found != state_->exports.end()) return &*found;
  return name.empty() ? &state_->exports.front() : nullptr;
}

const Export* Exports::find(std::string_view name) const noexcept {
  const std::scoped_lock lock(state_->mutex);
  return find_locked(name);
}

std::expected<const Export*, std::string> Exports::find_or_make(std::string_view name) const {
  const std::scoped_lock lock(state_->mutex);
  if (const Export* const found = find_locked(name)) return found;
  if (!state_->maker) return std::unexpected(std::string());
  auto made = state_->maker(name);
  if (!made) return std::unexpected(std::move(made.error()));
  return &state_->exports.emplace_back(std::move(*made));
}

std::vector<const Export*> Exports::all() const {
  const std::scoped_lock lock(state_->mutex);
  std::vector<const Export*> all;
  for (const Export& each : state_->exports) all.push_back(&each);
  return all;
}

}  // namespace oxbow::nbd
