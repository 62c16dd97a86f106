// SPDX-License-Identifier: Apache-2.0
#pragma once

// A writable layer over a base that is never touched.
//
// What has to hold, and where it is seen to:
//   - A cluster is published only after its bytes are in the layer's file: commit() comes after the move.
//   - Only a claim's holder changes a cluster's state (plan()), and it reads the state again after claiming.
//   - A zero cluster is wholly written by its next partial write, so what lies at its place never shows:
//     plan() fills in zeros.
//   - So overwrites of present data need no claim; what a racing discard punches was overlapped anyway. But
//     they wait while somebody else has one: a claim ends after the new state was noted for the flush, and a
//     write that relied on a state before that could be flushed without it.
//   - A cluster's state is on disk only when its data is: capture() copies the words before the barrier that
//     covers record and data, pages are written after it (docs/durability.md has the order).
//   - What is in the live file is what a killed process leaves: it has room for a state before anything is promised,
//     and it counts only while nothing has failed (cow_live.cpp).
//   - No page is written in an epoch that isn't durable in the superblock: every change needs the session
//     first.
//   - A ring record holds what was moved and published since the last flush, as it is at one moment: capture() claims
//     the clusters and finds none of them being overwritten, or else flushes fully.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/native/layout.h"
#include "oxbow/error.h"
#include "targets/cow/backing.h"
#include "targets/cow/change_log.h"
#include "targets/cow/claims.h"
#include "targets/cow/commit_ring.h"
#include "targets/cow/layer_head.h"
#include "targets/cow/overwrites.h"
#include "targets/cow/page_table.h"
#include "targets/cow/state_map.h"
#include "targets/target.h"

namespace oxbow {

class LiveFile;
// Why a layer can't be opened read-only: reading it right would take writing to it first.
inline constexpr std::string_view k_needs_recovery_reason =
    "it was not closed cleanly, and what its commit ring holds has to be recovered first";

// A native layer as a target. Thread safety: as Target says.
class CowTarget final : public Target {
 public:
  struct Options {
    bool writable = false;
    native::Uuid boot_id{};               // of this boot; zero: unknown
    std::shared_ptr<LiveFile> live{};     // keeps the states when the process is killed; null: nothing does
    bool adopt = false;                   // the live file has the states, and what the disk says is older
    std::shared_ptr<LiveFile> retired{};  // one that counts no more when the session has begun
    std::string without_live{};           // without a live file: why, for people
    bool merging = false;                 // a merge may open a layer whose merge was begun; nobody else
    std::shared_ptr<Store> ring{};        // writes durably to the layer's file, past its cache; null: none
    CommitRing::Growth ring_growth{};
  };

  // Opens the layer in `layer` over `base` (null when the layer has none). Whether the base is the right one
  // is the caller's business. A writable opening after an unclean end reads the pages of the last flush; it
  // writes nothing. Errors are sentences.
  [[nodiscard]] static Result<std::shared_ptr<CowTarget>> open(Queue& queue, std::shared_ptr<Store> layer,
                                                               std::shared_ptr<Target> base, Options options);

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
  void seal(FlushPlan& plan) noexcept override;
  [[nodiscard]] Step chore() noexcept override;
  void flushed(const FlushPlan& plan, IoStatus status) noexcept override;
  void failed() noexcept override;
  [[nodiscard]] IoStatus close(Queue& queue) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] bool writable() const noexcept override { return options_.writable; }
  // INFO is ALLOCATED/SIZE CLUSTER in sectors; ALLOCATED is what the layer's file takes.
  [[nodiscard]] TargetStatus status() const override;
  void describe(std::vector<ChainPart>& chain) const override;

  // As of the opening.
  [[nodiscard]] const native::Superblock& superblock() const noexcept { return head_.superblock; }
  // The layer's file.
  [[nodiscard]] const Store& store() const noexcept { return *layer_; }
  // For statistics and tests.
  [[nodiscard]] const StateMap& states() const noexcept { return states_; }
  [[nodiscard]] const CommitRing& ring() const noexcept { return ring_; }

 private:
  CowTarget(std::shared_ptr<Store> layer, std::shared_ptr<Target> base, Options options, LayerHead head);

  [[nodiscard]] Step ready_to_change(std::uint64_t page) const noexcept;
  [[nodiscard]] Step plan_data(Range range, const Change& change, Plan& plan) noexcept;
  [[nodiscard]] Step plan_edge(Range range, const Change& change, Plan& plan) noexcept;
  [[nodiscard]] Step plan_punch(Range range, Plan& plan) noexcept;
  // Claims up to `limit` clusters from `cluster` on and keeps the claim of those that still are `wanted`
  // afterwards. Returns how many.
  [[nodiscard]] std::uint64_t end_of(std::uint64_t cluster) const noexcept;
  [[nodiscard]] std::uint64_t place(std::uint64_t offset) const noexcept { return data_offset_ + offset; }

  void prepare_page(Preparation& preparation, std::uint64_t page) noexcept;
  void prepare_room(Preparation& preparation, std::uint64_t page) noexcept;
  void prepare_session(Preparation& preparation) noexcept;
  void prepare_ring(Preparation& preparation) noexcept;
  void ring_prepared(const Preparation& preparation, IoStatus status) noexcept;
  [[nodiscard]] IoStatus page_read(const Preparation& preparation, std::uint64_t page) noexcept;
  [[nodiscard]] IoStatus install(std::uint64_t page, const PageContent& content) noexcept;
  [[nodiscard]] Result<void> settle(Queue& queue);
  [[nodiscard]] Result<void> load_last_pages(Queue& queue);
  // Reads a page now, and answers its ring_seq: 0 when it was never written.
  [[nodiscard]] Result<std::uint64_t> load_page(Queue& queue, std::uint64_t page);
  [[nodiscard]] Result<void> adopt_live(Queue& queue);
  void session_begins() noexcept;
  void live_counts() noexcept;

  // Of the ring: cow_append.cpp and cow_replay.cpp.
  [[nodiscard]] bool capture_append(ChangeLog::Ranges& changes, FlushPlan& plan) noexcept;
  [[nodiscard]] bool hold(const ChangeLog::Ranges& changes) noexcept;
  void let_go() noexcept;
  [[nodiscard]] bool describe(const ChangeLog::Ranges& changes) noexcept;
  void compose_record(FlushPlan& plan, Buffer record) noexcept;
  [[nodiscard]] Result<void> recover_ring(Queue& queue);
  [[nodiscard]] Result<bool> is_alive(Queue& queue, std::span<const std::byte> record);
  [[nodiscard]] Result<void> pass_ring(Queue& queue);
  [[nodiscard]] Result<void> replay_ring(Queue& queue);
  [[nodiscard]] Result<void> replay(Queue& queue, std::span<const std::byte> record);
  [[nodiscard]] Result<void> replay(Queue& queue, const native::RingEntry& entry,
                                    std::span<const std::byte> data);
  [[nodiscard]] IoStatus begin_session_now(Queue& queue) noexcept;
  [[nodiscard]] IoStatus allocate_slots(Queue& queue, std::uint64_t page) noexcept;

  void capture_all(FlushPlan& plan) noexcept;
  void capture_pages(FlushPlan& plan) noexcept;
  [[nodiscard]] IoStatus flush_all(Queue& queue) noexcept;
  [[nodiscard]] native::FlushRecord next_record() noexcept;
  void compose(std::span<std::byte> pages, std::span<std::byte> record, FlushPlan& plan) noexcept;
  [[nodiscard]] IoStatus recover(Queue& queue) noexcept;
  [[nodiscard]] IoStatus leave_clean(Queue& queue) noexcept;
  [[nodiscard]] native::Superblock session_superblock() const noexcept;
  [[nodiscard]] std::uint64_t epoch() const noexcept { return head_.superblock.epoch + 1; }

  std::shared_ptr<Store> layer_;
  Backing backing_;
  Options options_;
  const LayerHead head_;  // as of the opening
  std::uint64_t size_;
  std::uint64_t data_offset_;
  std::uint32_t shift_;
  std::uint64_t cluster_bytes_;

  StateMap states_;
  PageTable pages_;
  Claims claims_;
  Overwrites overwrites_;
  ChangeLog log_;
  std::mutex load_mutex_;  // a page is installed once

  // The writable session, of the epoch after the one that was opened: begun by the first change.
  std::atomic<bool> session_begun_{false};

  // Of the flush worker, and of opening and closing.
  std::vector<std::uint32_t> in_flight_;
  std::vector<std::uint32_t> torn_;  // pages that the session's first record has to name
  std::uint32_t newest_record_slot_;
  std::uint64_t flush_number_;
  bool base_synced_ = false;
  CommitRing ring_;
  enum class Flushing : std::uint8_t { nothing, record, all } flushing_ = Flushing::nothing;
  bool all_wanted_ = true;       // the next flush has to be a full one
  bool would_fit_ = false;       // what the full flush in flight writes would have fitted into a record
  bool more_wanted_ = false;     // it has further rounds
  std::uint64_t next_page_ = 0;  // where the next of them goes on
  // The append in flight, or that is being composed.
  struct Append {
    std::span<std::byte> record;  // in the FlushPlan's memory
    Fixed<native::RingEntry, native::k_ring_entries> entries;
    std::uint64_t data_bytes = 0;
    Fixed<ClusterRun, native::k_ring_entries> held;
  } append_;
  std::unordered_map<std::uint64_t, std::uint64_t> replay_from_;  // ring_seq of the pages loaded for a replay
};

}  // namespace oxbow
