// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/holder.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "formats/native/codec.h"
#include "os/process_info.h"
#include "stores/blocking.h"

namespace oxbow {
namespace {

constexpr std::chrono::milliseconds k_patience{2000};
constexpr std::chrono::milliseconds k_pause{10};

template <std::size_t N>
void put(const std::string& text, std::array<char, N>& field) {
  std::ranges::copy(text.substr(0, N - 1), field.begin());
}

template <std::size_t N>
std::string get(const std::array<char, N>& field) {
  std::string text(field.data(), ::strnlen(field.data(), N));
  std::ranges::replace_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return text;
}

std::string describe(const native::Holder& holder) {
  constexpr std::int64_t k_ns_per_s = 1'000'000'000;
  const auto since = static_cast<std::time_t>(holder.started_ns / k_ns_per_s);
  return fmt::format("process {} on {} ({}), since {:%Y-%m-%d %H:%M:%S} UTC", holder.pid, get(holder.host),
                     get(holder.command), fmt::gmtime(since));
}

bool is_of_this_host(const native::Holder& holder) { return get(holder.host) == this_process().host; }

// What the layer's holder block says; nothing when it can't be read or is not valid.
std::optional<native::Holder> recorded_holder(Queue& queue, const std::string& path) {
  auto store = FileStore::open(path, {});
  const std::uint64_t at = native::geometry(1, native::k_smallest_cluster_shift).holder_offset;
  if (!store || (*store)->size() < at + native::k_holder_bytes) return std::nullopt;
  native::Holder holder{};
  const IoStatus read = read_struct(queue, **store, at, holder);
  if (!read.ok() || !native::valid(holder)) return std::nullopt;
  return holder;
}

}  // namespace

Result<void> write_holder(Queue& queue, Store& layer, std::uint64_t at) {
  const ProcessInfo self = this_process();
  native::Holder holder{};
  holder.magic = native::k_holder_magic;
  holder.pid = self.pid;
  holder.started_ns = now_ns();
  put(self.host, holder.host);
  put(self.command, holder.command);
  native::seal(holder);
  const IoStatus written = write_struct(queue, layer, at, holder);
  if (written.ok()) return {};
  return std::unexpected(Error::from_errno("cannot write holder", layer.describe(), written.error_number()));
}

Error in_use_error(Queue& queue, const std::string& path) {
  const auto refusal = [&](std::string why) { return Error("cannot open layer", path, std::move(why)); };
  const std::string unknown{k_in_use_reason};
  const auto holder = recorded_holder(queue, path);
  if (!holder) return refusal(unknown);
  // A reader holds the layer too, but only writers write themselves down.
  const bool runs = process_runs(holder->pid) && is_of_this_host(*holder);
  return refusal(runs ? "it is in use by " + describe(*holder)
                      : fmt::format("{}; last recorded holder: {}", unknown, describe(*holder)));
}

Result<std::shared_ptr<FileStore>> open_when_let_go(
    Queue& queue, const std::string& path, const std::function<Result<std::shared_ptr<FileStore>>()>& open) {
  const auto locked = [](const auto& store) { return !store && store.error().why() == k_in_use_reason; };
  const auto end = std::chrono::steady_clock::now() + k_patience;
  auto store = open();
  while (locked(store) && std::chrono::steady_clock::now() < end) {
    const auto holder = recorded_holder(queue, path);
    if (!holder || !is_of_this_host(*holder) || process_runs(holder->pid)) break;
    std::this_thread::sleep_for(k_pause);
    store = open();
  }
  if (locked(store)) return std::unexpected(in_use_error(queue, path));
  return store;
}

}  // namespace oxbow
