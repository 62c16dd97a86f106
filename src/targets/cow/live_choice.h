// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a layer's states are taken from when it is opened, and where they are kept from then on.
//
//   the superblock says            the live file that it names       the states are
//   clean                          –                                 on the disk; what is left over is removed
//   in use, in another boot        gone with that boot               on the disk
//   in use, in this boot, none     –                                 on the disk
//   in use, in this boot           of that session                   in the live file: adopted
//                                  dead, or of no session yet        on the disk
//                                  missing, of something else, …     lost: refused, unless they are to be discarded

#include <functional>
#include <memory>
#include <string>

#include "formats/native/layout.h"
#include "os/file_identity.h"
#include "oxbow/error.h"
#include "targets/cow/live_file.h"

namespace oxbow {

// Where the live states of layers are kept that are opened for writing. Thread safety: a value.
struct LiveSettings {
  std::string directory;  // absolute, on tmpfs, of this user alone; empty: there is none
  std::string why_none;   // then, or when `keep` is false: the reason, for people
  bool keep = false;      // whether states are kept there
  bool discard = false;   // live states that can't be used are given up
};

// The live state that a layer was left with. Thread safety: a value.
struct LeftLive {
  bool adopt = false;              // its states count
  std::shared_ptr<LiveFile> file;  // it is this layer's; null: there is none
};
using OpenLive = std::function<Result<std::shared_ptr<LiveFile>>(const std::string& path)>;
// Of a layer with that superblock, which nobody else has open for writing. The error says why states are lost.
[[nodiscard]] Result<LeftLive> find_left_live(const native::Superblock& superblock,
                                              const native::Uuid& boot_id, const OpenLive& open);

// The same by name, of the layer at `path`; the error is a whole sentence that says what to do about it. With
// `discard` it is no error.
[[nodiscard]] Result<LeftLive> find_left_live(const std::string& path, const native::Superblock& superblock,
                                              const FileIdentity& file, bool discard);

// Whether the states in the file, of so many clusters, don't contradict each other.
[[nodiscard]] bool has_sound_states(std::uint64_t clusters, const std::shared_ptr<LiveFile>& file);
// The sentence for who opens `path`: `what` begins it, `why` is what is wrong with the live state.
[[nodiscard]] Error live_state_unusable(std::string what, const std::string& path, const Error& why);
// Whether the error is one of those.
[[nodiscard]] bool is_live_state_unusable(const Error& error);

// What an opening for writing keeps its states in. Thread safety: a value.
struct LiveChoice {
  native::Uuid boot_id{};
  std::shared_ptr<LiveFile> live;     // null: nothing
  bool adopt = false;                 // it has the states
  std::shared_ptr<LiveFile> retired;  // to be removed when it counts no more
  std::string why_none;               // without `live`: the reason, for people
};
[[nodiscard]] LiveChoice choose_live(const LiveSettings& settings, const native::Superblock& superblock,
                                     const FileIdentity& file, LeftLive left);

}  // namespace oxbow
