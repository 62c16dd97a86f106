// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/cowloop/head.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "sim/chooser.h"
#include "sim/sim_disk.h"
#include "sim/sim_queue.h"
#include "sim/sim_store.h"

namespace oxbow::crash {

enum class CowfileJob : std::uint8_t { merge, merge_and_keep, repair, forced_repair };

// Thread safety: a value.
struct CowfileSceneShape {
  cowloop::Layout layout = cowloop::Layout::bytes_8;
  bool punches = true;
};

// A cowfile and its read-only file, both with known contents, and one job on them that is cut off at a step or meets
// an error. The seed determines all of it. Thread safety: none.
class CowfileScene {
 public:
  CowfileScene(CowfileJob job, const CowfileSceneShape& shape, std::uint64_t seed);

  // Steps that the job takes undisturbed, and calls of stores.
  struct Length {
    std::uint64_t steps;
    std::uint64_t calls;
  };
  [[nodiscard]] Length length();

  enum class End : std::uint8_t { kill, power_loss, power_loss_of_all };
  // The job is cut off at `step`, and what is found then is checked. What is wrong; nothing when all is well.
  [[nodiscard]] std::optional<std::string> cut_off(std::uint64_t step, End end);
  // Call number `call` fails: the job has to say so, and what is found then is checked.
  [[nodiscard]] std::optional<std::string> fail(std::uint64_t call, int error);

 private:
  struct Files {
    std::shared_ptr<sim::SimDisk> cowfile;
    std::shared_ptr<sim::SimDisk> base;
    [[nodiscard]] Files clone() const;
    void lose_power(sim::Random& random) const;
  };
  class Run;
  using Bytes = std::vector<std::byte>;

  [[nodiscard]] bool merges() const noexcept;
  [[nodiscard]] std::shared_ptr<sim::SimDisk> disk_of(const Bytes& bytes);
  [[nodiscard]] static Bytes bytes_of(const std::shared_ptr<sim::SimDisk>& disk);
  // What the pair reads as; nothing when oxbow would refuse it, but for a merge that isn't finished.
  [[nodiscard]] std::optional<Bytes> read(const Files& files, cowloop::Head& head, std::string& why);
  [[nodiscard]] std::optional<std::string> check(const Files& found);
  [[nodiscard]] std::optional<std::string> check_merge(const Files& found);
  [[nodiscard]] std::optional<std::string> check_repair(const Files& found);
  // Once more, now and then with a crash on the way, until that is done.
  [[nodiscard]] std::optional<std::string> again(const Files& found);
  [[nodiscard]] std::optional<std::string> check_done(const Files& files);

  const CowfileJob job_;
  const CowfileSceneShape shape_;
  sim::Random random_;
  sim::SectorPool pool_;
  sim::Trace trace_;
  Files files_;
  Bytes base_;
  Bytes content_;           // what the pair reads as
  std::uint64_t used_ = 0;  // blocks of the cowfile, when all is repaired
};

}  // namespace oxbow::crash
