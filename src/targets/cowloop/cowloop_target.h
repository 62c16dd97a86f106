// SPDX-License-Identifier: Apache-2.0
#pragma once

// A pair of cowloop: a read-only file, and a cowfile that has the blocks of 1 KiB that were modified.
//
// What has to hold, and where it is seen to:
//   - A block is published only after its bytes are in the cowfile: commit() comes after the move.
//   - Only a claim's holder makes a block present (plan()), and it looks again after claiming. No block ever becomes
//     absent again: a zero or discard leaves zeros, or a hole, in the cowfile. So a bitmap that is written in part is
//     one between the old and the new, and each of its bits says what is true.
//   - What lies at an absent block's place may be of an earlier life: a zero is moved like any data, and what covers a
//     block in part is completed from the read-only file.
//   - A bit is on the disk only when its block is: capture() copies the bits before the barrier that covers the
//     data, and they are written after it (docs/durability.md has the order).
//   - A head that calls the file clean is never there together with bits that it doesn't count: the mark (dirty,
//     and cowused all ones) is written before the first new block completes, so it is durable with that flush's
//     first barrier; the clean head is written after the flush that it speaks of.
//   - What is in the live file is what a killed process leaves: it has room for a state before anything is
//     promised, and it counts only while nothing has failed.

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/cowloop/head.h"
#include "oxbow/error.h"
#include "targets/cow/claims.h"
#include "targets/cow/page_table.h"
#include "targets/cow/state_map.h"
#include "targets/target.h"

namespace oxbow {

class Backing;
class LiveFile;

// A pair of cowloop as a target. Thread safety: as Target says.
class CowloopTarget final : public Target {
 public:
  struct Options {
    bool writable = false;
    cowloop::Uuid boot_id{};           // of this boot; zero: unknown
    cowloop::Uuid session_id{};        // by which the live file is known again; zero: there is none
    std::shared_ptr<LiveFile> live{};  // keeps the states when the process is killed; null: nothing does
    bool adopt = false;                // the live file has the states; when only reading, they are copied
    std::string without_live{};        // without a live file: why, for people
  };

  // Opens the pair. Refused: what is no cowfile, a packed one, one that was not closed cleanly by somebody who
  // didn't keep its bitmap in order, one that `base` isn't the read-only file of, one whose bitmap is known to
  // contradict its head. A writable opening gives the cowfile its full length, and else writes nothing. Errors
  // are sentences.
  [[nodiscard]] static Result<std::shared_ptr<CowloopTarget>> open(Queue& queue,
                                                                   std::shared_ptr<Store> cowfile,
                                                                   std::shared_ptr<Store> base,
                                                                   Options options);
  ~CowloopTarget() override;

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  [[nodiscard]] bool zeroes_fast(Range range, bool allocate) noexcept override;
  void commit(Plan& plan) noexcept override;
  void release(Plan& plan) noexcept override;
  [[nodiscard]] Progress wait(Io& io, std::uint64_t key) noexcept override;
  void prepare(Preparation& preparation) noexcept override;
  void fill(Preparation& preparation) noexcept override;
  void prepared(Preparation& preparation, IoStatus status) noexcept override;
  void capture(FlushPlan& plan) noexcept override;
  void flushed(const FlushPlan& plan, IoStatus status) noexcept override;
  void failed() noexcept override;
  [[nodiscard]] bool untidy() const noexcept override;
  [[nodiscard]] IoStatus tidy_up(Queue& queue) noexcept override;
  [[nodiscard]] IoStatus close(Queue& queue) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return head_.device_bytes(); }
  [[nodiscard]] bool writable() const noexcept override { return options_.writable; }
  // INFO is USED/TOTAL STATE, the first two in blocks.
  [[nodiscard]] TargetStatus status() const override;
  void describe(std::vector<ChainPart>& chain) const override;

  // As of the opening.
  [[nodiscard]] const cowloop::Head& head() const noexcept { return head_; }
  // The cowfile, and the read-only file.
  [[nodiscard]] const Store& store() const noexcept { return *cowfile_; }
  [[nodiscard]] const Store& base() const noexcept { return *base_; }
  // How many blocks are in the cowfile; nothing while that was not counted.
  [[nodiscard]] std::optional<std::uint64_t> used_blocks() const noexcept;
  // For statistics and tests.
  [[nodiscard]] const StateMap& states() const noexcept { return states_; }

 private:
  CowloopTarget(std::shared_ptr<Store> cowfile, std::shared_ptr<Store> base, Options options,
                const cowloop::Head& head);

  [[nodiscard]] std::uint64_t append_present(Range range, Extents& out) const noexcept;
  [[nodiscard]] Step ready_for_new(std::uint64_t page) const noexcept;
  [[nodiscard]] Step plan_edge(Range range, const Change& change, Plan& plan) noexcept;
  [[nodiscard]] Step plan_move(Range range, const Change& change, Plan& plan) noexcept;
  [[nodiscard]] std::uint64_t place(std::uint64_t offset) const noexcept {
    return head_.data_offset + offset;
  }

  [[nodiscard]] Result<void> check(Queue& queue, Store& base);
  [[nodiscard]] Result<void> take_states_over(Queue& queue);
  [[nodiscard]] Result<void> load_page_now(Queue& queue, std::uint64_t page);
  [[nodiscard]] IoStatus install(std::uint64_t page, std::span<const std::byte> bits) noexcept;
  [[nodiscard]] cowloop::Head marked_head() const noexcept;
  void capture_pages(FlushPlan& plan) noexcept;
  [[nodiscard]] IoStatus flush_all(Queue& queue) noexcept;
  [[nodiscard]] IoStatus leave_clean(Queue& queue) noexcept;

  std::shared_ptr<Store> cowfile_;
  std::shared_ptr<Store> base_;
  std::unique_ptr<Backing> backing_;
  Options options_;
  const cowloop::Head head_;  // as of the opening

  StateMap states_;
  PageTable pages_;
  Claims claims_;
  std::mutex load_mutex_;  // a page is installed once

  // From the mark to the next clean head: every new block needs it.
  std::atomic<bool> session_begun_{false};
  std::atomic<bool> dirty_;         // what the head in the file says
  std::atomic<bool> session_left_;  // Head::session_left, until the next clean head
  // Whether bits that were read can be relied on after a power loss: what a killed process wrote may be in the page
  // cache alone.
  std::atomic<bool> bits_durable_;
  std::atomic<std::uint64_t> used_{0};
  std::atomic<bool> used_known_{false};

  // Of the flush worker, and of closing.
  std::vector<std::uint32_t> in_flight_;
  bool base_synced_ = false;
  bool more_wanted_ = false;     // the flush in flight has further rounds
  std::uint64_t next_page_ = 0;  // then, of the page that the next one begins with
};

}  // namespace oxbow
