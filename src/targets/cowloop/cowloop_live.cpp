// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/cowloop_live.h"

#include <fmt/format.h>

#include <utility>

#include "os/boot_id.h"
#include "os/process_info.h"

namespace oxbow::cowloop {
namespace {

constexpr Uuid k_none{};

std::string live_path(const LiveSettings& settings, const FileIdentity& file) {
  return fmt::format("{}/cowloop-{:x}-{:x}.live", settings.directory, file.dev, file.inode);
}

LiveIdentity identity_of(const Uuid& session_id, const FileIdentity& file) {
  return {.uuid = session_id, .device = file.dev, .inode = file.inode, .boot_id = boot_id()};
}

}  // namespace

bool names_live(const Head& head, const Uuid& boot_id) noexcept {
  return head.kept_in_order() && head.session_id != k_none && (head.boot_id == boot_id || boot_id == k_none);
}

Result<LeftLive> judge_left_live(const Head& head, Result<std::shared_ptr<LiveFile>> file) {
  if (!file) return std::unexpected(file.error());
  if ((*file)->standing(k_live_epoch) != LiveFile::Standing::states)
    return LeftLive{.adopt = false, .file = std::move(*file)};
  if (has_sound_states(head.base_blocks, *file)) return LeftLive{.adopt = true, .file = std::move(*file)};
  return std::unexpected(
      Error("cannot use live state", (*file)->path(), "it is damaged: its states contradict each other"));
}

Result<LeftLive> find_left_live(const std::string& path, const Head& head, const FileIdentity& file,
                                const LiveSettings& settings) {
  if (settings.discard || !names_live(head, boot_id())) return LeftLive{};
  const std::string live = live_path(settings, file);
  auto left = settings.directory.empty()
                  ? std::unexpected(Error("cannot use live state", path, settings.why_none))
                  : judge_left_live(head, LiveFile::open(live, identity_of(head.session_id, file)));
  if (left) return left;
  return std::unexpected(live_state_unusable("cannot open cowfile", path, left.error()));
}

LiveChoice choose_live(const Head& head, const FileIdentity& file, const LiveSettings& settings,
                       LeftLive left) {
  LiveChoice choice{.boot_id = boot_id()};
  // The same number where it goes on or begins again: the head may stay as it is until the next mark.
  if (names_live(head, choice.boot_id)) choice.session_id = head.session_id;
  if (left.adopt) {
    choice.live = std::move(left.file);
    choice.adopt = true;
    return choice;
  }
  if (!settings.keep || settings.directory.empty()) {
    choice.why_none = settings.why_none;
  } else if (choice.boot_id == k_none) {
    choice.why_none = "the kernel doesn't tell which boot this is";
  } else if (choice.session_id == k_none &&
             !fill_random(std::as_writable_bytes(std::span(choice.session_id)))) {
    choice.why_none = "the kernel has no random numbers to give";
  } else if (auto made = LiveFile::create(live_path(settings, file), identity_of(choice.session_id, file))) {
    choice.live = std::move(*made);
  } else {
    choice.why_none = made.error().text();
  }
  if (choice.live == nullptr) choice.session_id = {};
  return choice;
}

}  // namespace oxbow::cowloop
