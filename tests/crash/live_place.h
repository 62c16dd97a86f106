// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "os/fd.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/live_choice.h"

namespace oxbow::crash {

// What tmpfs is to one layer: at most one file, which a kill leaves and a power loss doesn't. Thread safety: none.
class LivePlace : public std::enable_shared_from_this<LivePlace> {
 public:
  // Nobody who holds this one changes the other.
  [[nodiscard]] std::shared_ptr<LivePlace> clone() const;
  // Another boot, and nothing is left.
  void lose_power() noexcept;

  [[nodiscard]] native::Uuid boot_id() const noexcept;
  // Sets what the options for opening `layer` say of the live state, of which there is a new one, where none is
  // adopted, if `keep` says so. Answers whether its states are adopted; the error, that they are lost.
  [[nodiscard]] Result<bool> choose(Queue& queue, Store& layer, bool keep, CowTarget::Options& options);
  // Whether there is a file that is marked dead.
  [[nodiscard]] bool is_dead(const native::Superblock& superblock);

 private:
  [[nodiscard]] Result<LeftLive> find_left(const native::Superblock& superblock);
  [[nodiscard]] std::shared_ptr<LiveFile> create(const native::Superblock& superblock);
  [[nodiscard]] LiveIdentity identity(const native::Superblock& superblock) const noexcept;
  [[nodiscard]] Result<std::shared_ptr<LiveFile>> open(const native::Superblock& superblock);
  [[nodiscard]] LiveFile::Name name();

  UniqueFd file_;
  std::uint64_t boot_ = 1;
};

}  // namespace oxbow::crash
