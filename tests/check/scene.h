// SPDX-License-Identifier: Apache-2.0
#pragma once

// Layers on simulated disks, to be damaged, checked and repaired.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/native/codec.h"
#include "jobs/check_layer.h"
#include "oxbow/error.h"
#include "sim/sim_store.h"
#include "targets/cow/layer_head.h"

namespace oxbow::check {

// A structure of a layer's metadata, and where it is.
struct Structure {
  enum class What : std::uint8_t { superblock, holder, record, page } what;
  std::string name;  // as findings say it
  std::uint64_t at = 0;
  std::uint64_t length = 0;
  std::uint64_t page = 0;
  std::uint32_t slot = 0;  // or copy
};

// What an opening makes of a layer: everything that decides what its users read. Thread safety: a value.
struct Meaning {
  std::string refusal;  // why it can't be opened; nothing else counts then
  native::Superblock superblock{};
  std::uint64_t flush_number = 0;
  std::vector<std::uint32_t> last_pages;
  struct Page {
    bool damaged = false;
    std::array<native::LeafWords, native::k_leaves_per_page> leaves{};
    friend bool operator==(const Page&, const Page&) = default;
  };
  std::vector<Page> pages;
  [[nodiscard]] bool same_as(const Meaning& other) const;
};

// Disks with a layer of three state pages, one that was closed cleanly and one that was not. Each test damages copies
// of them. Thread safety: none.
class Scene {
 public:
  explicit Scene(std::uint64_t seed);

  using Disk = std::shared_ptr<sim::SimDisk>;
  [[nodiscard]] Disk clean() const { return std::make_shared<sim::SimDisk>(*clean_); }
  // Flushed, and then not closed.
  [[nodiscard]] Disk in_use() const { return std::make_shared<sim::SimDisk>(*in_use_); }
  // The same with records in its commit ring that are to be replayed.
  [[nodiscard]] Disk in_ring();
  [[nodiscard]] const std::vector<Structure>& structures() const noexcept { return structures_; }
  [[nodiscard]] const Structure& structure(const std::string& name) const;

  [[nodiscard]] std::shared_ptr<sim::SimStore> store(const Disk& disk);
  // What the check says, or why there is none.
  [[nodiscard]] Result<CheckReport> check(const Disk& disk);
  [[nodiscard]] Meaning meaning(const Disk& disk);
  // Opens it to write and closes it.
  [[nodiscard]] Result<void> recover(const std::shared_ptr<sim::SimStore>& store);
  // Reads `length` bytes of the device; nothing when they can't be read.
  [[nodiscard]] std::optional<std::string> read(const Disk& disk, std::uint64_t at, std::uint64_t length);

  static void put(sim::SimDisk& disk, std::uint64_t at, std::span<const std::byte> bytes);
  [[nodiscard]] static std::vector<std::byte> get(const sim::SimDisk& disk, Range range);
  // Makes the structure's checksum right again.
  void reseal(sim::SimDisk& disk, const Structure& structure) const;

  sim::SectorPool pool;
  sim::Trace trace;
  sim::Random random;
  sim::SimQueue queue;
  native::Superblock superblock{};  // of the clean one

 private:
  void write(Disk& disk, std::span<const std::pair<std::uint64_t, char>> writes, bool close);
  void list_structures();

  Disk clean_;
  Disk in_use_;
  std::vector<Structure> structures_;
};

// The first finding about `where`; null without one.
[[nodiscard]] const Finding* finding_about(const CheckReport& report, const std::string& where);
// All findings as text, for messages.
[[nodiscard]] std::string text_of(const Result<CheckReport>& report);

inline constexpr std::uint64_t k_page_span = native::k_clusters_per_page * 4096;
inline constexpr std::uint64_t k_size_bytes = (2 * k_page_span) + (1 << 20) + 512;

}  // namespace oxbow::check
