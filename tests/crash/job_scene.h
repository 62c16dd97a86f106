// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crash/job_run.h"
#include "crash/shape.h"
#include "crash/stack.h"
#include "sim/chooser.h"

namespace oxbow::crash {

// Small enough for every byte of it to be sampled.
struct JobSceneShape {
  bool layer_below = false;      // the layer is over another layer, else over a raw base
  std::uint64_t base_short = 0;  // so many bytes is the base shorter than the layer
  bool clean = true;             // the layer was closed cleanly before
  bool punches = true;
};

// A layer over a base, both with known contents, and one job on it that is cut off at a step or meets an error. The
// seed determines all of it. Thread safety: none.
class JobScene {
 public:
  JobScene(Job job, const JobSceneShape& shape, std::uint64_t seed);

  // Steps that the job takes undisturbed, and calls of stores.
  struct Length {
    std::uint64_t steps;
    std::uint64_t calls;
  };
  [[nodiscard]] Length length();

  enum class End : std::uint8_t { kill, power_loss, power_loss_of_all };
  // The job is cut off at `step`, and what is found then is checked. What is wrong; nothing when all is well.
  [[nodiscard]] std::optional<std::string> cut_off(std::uint64_t step, End end);
  // Call number `call` fails: the job has to say so, and what is found then, at once and after a power loss, is
  // checked.
  [[nodiscard]] std::optional<std::string> fail(std::uint64_t call, int error);

  // The disks before the job; for cases of their own.
  [[nodiscard]] Disks& disks() noexcept { return disks_; }

 private:
  [[nodiscard]] Result<void> run(JobRun& run) const;
  [[nodiscard]] std::optional<std::string> check(const Disks& found);
  [[nodiscard]] std::optional<std::string> check_reset(const Disks& found,
                                                       const native::Superblock& superblock);
  [[nodiscard]] std::optional<std::string> check_grown(const Disks& found,
                                                       const native::Superblock& superblock);
  [[nodiscard]] std::optional<std::string> check_merged(const Disks& found,
                                                        const native::Superblock& superblock);
  [[nodiscard]] std::optional<std::string> resume(const Disks& found);
  [[nodiscard]] std::optional<std::string> check_base_fits(const Disks& found);
  [[nodiscard]] std::optional<std::string> check_usable(const Disks& found);
  [[nodiscard]] std::optional<std::string> expect(const Disks& found, const std::vector<std::byte>& content,
                                                  const char* what);
  // What a device over the disks reads as; nothing when it can't be read.
  [[nodiscard]] std::optional<std::vector<std::byte>> read(const Disks& disks, std::string& why);
  void write_randomly(const Disks& disks, bool close);
  void make_layer();

  const Job job_;
  const JobSceneShape wanted_;
  sim::Random random_;
  sim::SectorPool pool_;
  sim::Trace trace_;
  Shape shape_;
  Disks disks_;
  Disks below_;  // without the layer
  std::uint64_t grown_ = 0;
  std::vector<std::byte> base_;     // what shows when the layer has no changes; as long as its device
  std::vector<std::byte> content_;  // what the layer's device reads as
  native::Superblock superblock_{};
};

}  // namespace oxbow::crash
