// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a pair's states are taken from when it is opened, and where they are kept from then on. A cowfile has no room
// for a path: its live file is found by the cowfile's device and inode in the directory of live files, and is the
// right one if it has the session that the head names.

#include <cstdint>
#include <memory>
#include <string>

#include "formats/cowloop/head.h"
#include "os/file_identity.h"
#include "oxbow/error.h"
#include "targets/cow/live_choice.h"

namespace oxbow::cowloop {

// A live file is of the session whose number the head has; there is no other in it.
inline constexpr std::uint64_t k_live_epoch = 1;

// The live state that the cowfile at `path` was left with: LeftLive has what it means. Nobody else has the file open
// for writing. The error is a whole sentence that says what to do about it; with settings.discard it is none.
[[nodiscard]] Result<LeftLive> find_left_live(const std::string& path, const Head& head,
                                              const FileIdentity& file, const LiveSettings& settings);

// What an opening for writing keeps its states in. Thread safety: a value.
struct LiveChoice {
  Uuid boot_id{};
  Uuid session_id{};               // zero: there is no live file
  std::shared_ptr<LiveFile> live;  // null: nothing
  bool adopt = false;              // it has the states
  std::string why_none;            // without `live`: the reason, for people
};
[[nodiscard]] LiveChoice choose_live(const Head& head, const FileIdentity& file, const LiveSettings& settings,
                                     LeftLive left);

// The decisions alone, for a file that is opened by `open`: a head names what is left of this boot, and it counts.
[[nodiscard]] bool names_live(const Head& head, const Uuid& boot_id) noexcept;
[[nodiscard]] Result<LeftLive> judge_left_live(const Head& head, Result<std::shared_ptr<LiveFile>> file);

}  // namespace oxbow::cowloop
