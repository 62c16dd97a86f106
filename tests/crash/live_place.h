// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "os/fd.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/live_choice.h"
#include "targets/cowloop/cowloop_target.h"

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
  // The same of a pair's `cowfile`.
  [[nodiscard]] Result<void> choose(Queue& queue, Store& cowfile, bool keep, CowloopTarget::Options& options);
  // Whether there is a file that is marked dead.
  [[nodiscard]] bool is_dead(const native::Superblock& superblock);
  [[nodiscard]] bool is_dead() const;

 private:
  [[nodiscard]] Result<LeftLive> find_left(const native::Superblock& superblock);
  [[nodiscard]] std::shared_ptr<LiveFile> create(const native::Uuid& uuid);
  [[nodiscard]] LiveIdentity identity(const native::Uuid& uuid) const noexcept;
  [[nodiscard]] Result<std::shared_ptr<LiveFile>> open(const native::Uuid& uuid);
  [[nodiscard]] LiveFile::Name name();

  UniqueFd file_;
  std::uint64_t boot_ = 1;
  std::uint64_t sessions_ = 0;  // of pairs
};

}  // namespace oxbow::crash
