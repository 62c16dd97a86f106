// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "formats/native/live_layout.h"
#include "os/fd.h"
#include "os/mapping.h"
#include "oxbow/error.h"
#include "oxbow/io_status.h"

namespace oxbow {

// Which layer's live state it is, and of which boot.
struct LiveIdentity {
  native::Uuid uuid{};
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  native::Uuid boot_id{};
};

// A file in memory with the live state of a layer that is being served: it stays when the process is killed, and the
// next one goes on with it. It says nothing until the first session on it has begun, and nothing any more once it is
// marked dead. Errors say why a file is not the layer's. Thread safety: the marks and grow_arena() from any thread, the
// latter one at a time; the rest belongs to the thread that opens and closes the layer.
class LiveFile {
 public:
  // Makes a new one at `path`, on tmpfs, in the place of whatever has that name.
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> create(const std::string& path,
                                                                const LiveIdentity& identity);
  // Opens the one at `path`, which is not believed: it has to be this user's own regular file on tmpfs that nobody else
  // may use, no link, whole, and of this very layer and boot.
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> open(const std::string& path,
                                                              const LiveIdentity& identity);
  // The same with a file in memory, of memfd_create(2). A layer records the name; `remove` is how to remove it.
  struct Name {
    std::string text;
    std::function<void()> remove{};
  };
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> create_in_memory(UniqueFd fd, Name name,
                                                                          const LiveIdentity& identity);
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> open_in_memory(UniqueFd fd, Name name,
                                                                        const LiveIdentity& identity);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // The session of `epoch` is about to be written to the superblock, and then has begun: the states count from then on.
  void begin_session(std::uint64_t epoch) noexcept;
  void session_begun(std::uint64_t epoch) noexcept;
  // From now on the disk counts. Call it before anybody is told of what failed.
  void mark_dead() noexcept;

  enum class Standing : std::uint8_t {
    states,   // it has the states of a layer with that epoch
    nothing,  // no session has begun on it: what is on the disk is all there is
    dead,     // what is on the disk counts
    other,    // it is of another session of the layer
  };
  // What it means for a layer whose superblock says `epoch`.
  [[nodiscard]] Standing standing(std::uint64_t epoch) const noexcept;

  // Maps `bytes`, a multiple of native::k_live_page_bytes, for live pages. Before the arena is used; only the first
  // arena_bytes() of it may be touched.
  [[nodiscard]] IoStatus map_arena(std::uint64_t bytes) noexcept;
  [[nodiscard]] std::byte* arena() const noexcept { return arena_.data(); }
  [[nodiscard]] std::uint64_t arena_bytes() const noexcept { return arena_bytes_; }
  // Gives at least one more page memory of its own, zeroed. Fails with ENOMEM where there is none, or at the mapping's
  // end.
  [[nodiscard]] IoStatus grow_arena() noexcept;

  // Removes its name, if it still is this file's.
  void remove() noexcept;

 private:
  LiveFile(UniqueFd fd, std::string path) noexcept : fd_(std::move(fd)), path_(std::move(path)) {}
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> make(UniqueFd fd, std::string path,
                                                              const LiveIdentity& identity);
  [[nodiscard]] static Result<std::shared_ptr<LiveFile>> take(UniqueFd fd, std::string path,
                                                              const LiveIdentity& identity);
  [[nodiscard]] native::LiveHeader& header() const noexcept {
    return *reinterpret_cast<native::LiveHeader*>(header_.data());
  }

  UniqueFd fd_;
  std::string path_;
  std::function<void()> remove_;  // of a file in memory
  Mapping header_;
  Mapping arena_;
  std::uint64_t arena_bytes_ = 0;  // that have memory of their own
};

}  // namespace oxbow
