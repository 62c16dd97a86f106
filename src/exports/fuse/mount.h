// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::fuse {

// Makes sure that nothing is mounted at `path`, absolute and without links: what killed processes left there is taken
// away. Fails when something else is, or something that lives.
[[nodiscard]] Result<void> clear_place(const std::string& path);

// A FUSE mount whose root is a regular file: it covers a file, or one that was made for it. Thread safety: one thread
// at a time.
class Mount {
 public:
  // Mounts at `path`. What a killed process left mounted there is taken away first. Refused are links, whatever is no
  // regular file, and places where something lives already. Root mounts itself, others by fusermount3.
  [[nodiscard]] static Result<Mount> make(const std::string& path, bool read_only);
  Mount(Mount&& other) noexcept;
  Mount& operator=(Mount&&) = delete;
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();  // takes it away

  // Absolute and without links.
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // The descriptor that answers the kernel's requests; once only.
  [[nodiscard]] UniqueFd take_descriptor() noexcept { return std::move(fuse_); }

  // Takes it away, also when it is in use: who has the file open goes on until the descriptor is closed. Does nothing
  // where it is gone already.
  [[nodiscard]] Result<void> take_away();

 private:
  explicit Mount(std::string path) noexcept : path_(std::move(path)) {}
  [[nodiscard]] Result<UniqueFd> open_place();
  [[nodiscard]] Result<void> mount(int place, bool read_only);
  void remove_made_file() noexcept;

  std::string path_;
  std::string device_;  // of the mount, as MountEntry has it; empty when there is none
  UniqueFd fuse_;
  std::optional<struct ::stat> made_;  // the file that was made for it
};

}  // namespace oxbow::fuse
