// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/live_choice.h"

#include <fmt/format.h>

#include <cstring>
#include <new>

#include "formats/native/codec.h"
#include "os/boot_id.h"
#include "targets/cow/state_map.h"

namespace oxbow {
namespace {

constexpr std::string_view k_way_out = "; to give up what was written since the last flush: --discard-live";

constexpr native::Uuid k_unknown{};

std::string live_path(const native::Superblock& superblock) {
  return {superblock.live_path.data(), ::strnlen(superblock.live_path.data(), superblock.live_path.size())};
}

LiveIdentity identity_of(const native::Superblock& superblock, const FileIdentity& file) {
  return {.uuid = superblock.uuid, .device = file.dev, .inode = file.inode, .boot_id = boot_id()};
}

}  // namespace

bool has_sound_states(std::uint64_t clusters, const std::shared_ptr<LiveFile>& file) {
  try {
    return StateMap(clusters, file).adopt();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

Error live_state_unusable(std::string what, const std::string& path, const Error& why) {
  return {std::move(what), path,
          fmt::format("it was not closed cleanly, and the live state that has its last writes can't be used "
                      "({}: {}){}",
                      why.where(), why.why(), k_way_out)};
}

bool is_live_state_unusable(const Error& error) { return error.why().ends_with(k_way_out); }

Result<LeftLive> find_left_live(const native::Superblock& superblock, const native::Uuid& boot_id,
                                const OpenLive& open) {
  const std::string path = live_path(superblock);
  if (superblock.state != native::LayerState::in_use || path.empty()) return LeftLive{};
  if (superblock.boot_id != boot_id && boot_id != k_unknown) return LeftLive{};
  auto file = open(path);
  if (!file) return std::unexpected(file.error());
  const auto refuse = [&](std::string why) {
    return std::unexpected(Error("cannot use live state", path, std::move(why)));
  };
  switch ((*file)->standing(superblock.epoch)) {
    case LiveFile::Standing::nothing:
    case LiveFile::Standing::dead:
      return LeftLive{.adopt = false, .file = std::move(*file)};
    case LiveFile::Standing::states:
      break;
    case LiveFile::Standing::other:
      return refuse("it is of another session of the layer");
  }
  const std::uint64_t clusters = native::cluster_count(superblock.size, superblock.cluster_shift);
  if (!has_sound_states(clusters, *file)) return refuse("it is damaged: its states contradict each other");
  return LeftLive{.adopt = true, .file = std::move(*file)};
}

Result<LeftLive> find_left_live(const std::string& path, const native::Superblock& superblock,
                                const FileIdentity& file, bool discard) {
  const LiveIdentity identity = identity_of(superblock, file);
  auto left = find_left_live(superblock, identity.boot_id,
                             [&](const std::string& live) { return LiveFile::open(live, identity); });
  if (left) return left;
  if (discard) return LeftLive{};
  return std::unexpected(live_state_unusable("cannot open layer", path, left.error()));
}

LiveChoice choose_live(const LiveSettings& settings, const native::Superblock& superblock,
                       const FileIdentity& file, LeftLive left) {
  const LiveIdentity identity = identity_of(superblock, file);
  LiveChoice choice{.boot_id = identity.boot_id};
  if (left.adopt) {
    choice.live = std::move(left.file);
    choice.adopt = true;
    return choice;
  }
  choice.retired = std::move(left.file);
  const std::string path = fmt::format("{}/{}-{:x}-{}.live", settings.directory,
                                       native::to_text(identity.uuid), identity.device, identity.inode);
  if (!settings.keep || settings.directory.empty()) {
    choice.why_none = settings.why_none;
    if (settings.directory.empty() || choice.retired != nullptr) return choice;
    // What a process left that was killed before it changed anything.
    if (auto over = LiveFile::open(path, identity)) choice.retired = std::move(*over);
    return choice;
  }
  if (path.size() >= superblock.live_path.size()) {
    choice.why_none =
        fmt::format("{}: the path is longer than {} bytes", path, superblock.live_path.size() - 1);
  } else if (identity.boot_id == k_unknown) {
    choice.why_none = "the kernel doesn't tell which boot this is";
  } else if (auto made = LiveFile::create(path, identity)) {
    choice.live = std::move(*made);
  } else {
    choice.why_none = made.error().text();
  }
  // The new one may have taken its name.
  if (choice.retired != nullptr && choice.live != nullptr && choice.retired->path() == choice.live->path()) {
    choice.retired = nullptr;
  }
  return choice;
}

}  // namespace oxbow
