// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "crash/shape.h"
#include "crash/stack.h"
#include "oxbow/error.h"

namespace oxbow::crash {

// What changes a layer as a whole.
enum class Job : std::uint8_t { reset, grow, merge };
[[nodiscard]] std::string_view name_of(Job job) noexcept;

// One process that changes the top layer of a chain as a whole, as the commands do: everything that a kill ends.
// Thread safety: none.
class JobRun {
 public:
  // All are borrowed; the disks are used as they are.
  JobRun(sim::Chooser& chooser, sim::Trace& trace, const Shape& shape, const Disks& disks,
         unsigned pending_percent);
  ~JobRun();
  JobRun(const JobRun&) = delete;
  JobRun& operator=(const JobRun&) = delete;
  JobRun(JobRun&&) = delete;
  JobRun& operator=(JobRun&&) = delete;

  [[nodiscard]] Result<void> reset();
  // Opens the layer as serving does and closes it before, so that it is clean.
  [[nodiscard]] Result<void> grow(std::uint64_t size_bytes);
  // The same; or resumes.
  [[nodiscard]] Result<void> merge();

  // Told of every store call before it has any effect, with its number from 0 on.
  std::function<void(std::uint64_t)> on_call;
  // Asked at every store call: an errno value makes it fail.
  std::function<int(std::uint64_t)> fault;

  void kill() noexcept;
  [[nodiscard]] sim::SimQueue& queue() noexcept { return queue_; }
  // What the last call was, for people.
  [[nodiscard]] const std::string& last_call() const noexcept { return last_call_; }

 private:
  [[nodiscard]] Result<std::shared_ptr<CowTarget>> open_layer(std::size_t number, CowTarget::Options options);
  [[nodiscard]] Result<std::shared_ptr<Target>> below(std::size_t number);
  [[nodiscard]] Result<void> clean_top();
  [[nodiscard]] sim::SimStore& top() noexcept { return *stores_.back(); }

  const Disks disks_;
  sim::SimQueue queue_;
  std::shared_ptr<sim::SimStore> base_;
  std::vector<std::shared_ptr<sim::SimStore>> stores_;  // of the layers
  std::uint64_t calls_ = 0;
  std::string last_call_;
};

// What the top layer's superblock says.
[[nodiscard]] Result<native::Superblock> superblock_of(const std::shared_ptr<sim::SimDisk>& disk);

}  // namespace oxbow::crash
