// SPDX-License-Identifier: Apache-2.0
#include "check/scene.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "device/device.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/holder.h"
#include "targets/cow/layer_file.h"

namespace oxbow::check {

using native::SlotState;
using sim::SimDisk;
using sim::SimStore;

Scene::Scene(std::uint64_t seed) : random(seed), queue(random, trace) {
  clean_ = std::make_shared<SimDisk>(pool, 0);
  LayerDescription description{.size_bytes = k_size_bytes, .max_size_bytes = k_size_bytes, .salt = 0x5a17};
  description.uuid[3] = 9;
  EXPECT_TRUE(format_layer(queue, *store(clean_), description));
  // Page 0 and 1 in both slots, page 2 in one. The last flush of the first session writes page 1.
  write(clean_,
        std::array<std::pair<std::uint64_t, char>, 3>{{{0, 'a'}, {k_page_span, 'b'}, {2 * k_page_span, 'c'}}},
        true);
  write(clean_, std::array<std::pair<std::uint64_t, char>, 2>{{{8192, 'd'}, {k_page_span + 8192, 'e'}}},
        true);
  in_use_ = clean();
  write(in_use_, std::array<std::pair<std::uint64_t, char>, 1>{{{16384, 'f'}}}, false);
  const auto head = read_layer_head(queue, *store(clean_));
  EXPECT_TRUE(head);
  if (head) superblock = head->superblock;
  list_structures();
}

void Scene::write(Disk& disk, std::span<const std::pair<std::uint64_t, char>> writes, bool close) {
  const auto layer = store(disk);
  auto target = CowTarget::open(queue, layer, nullptr, {.writable = true});
  ASSERT_TRUE(target) << target.error().text();
  ASSERT_TRUE(write_holder(queue, *layer, (*target)->superblock().holder_offset));
  Device device(*target, {.name = "scene"}, queue);
  for (const auto& [at, letter] : writes) {
    const std::vector<std::byte> data(4096, static_cast<std::byte>(letter));
    ASSERT_TRUE(
        run_blocking(queue, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); }).ok());
    ASSERT_TRUE(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok());
  }
  if (close) {
    ASSERT_TRUE(device.close(queue).ok());
  }
  disk = std::make_shared<SimDisk>(*disk);
  disk->forget_submitter();
}

Scene::Disk Scene::in_ring() {
  const Disk disk = clean();
  const auto layer = store(disk);
  CowTarget::Options options{.writable = true, .ring = layer};
  options.ring_growth = {
      .small_flushes = 1, .first_bytes = 64 << 10, .step_bytes = 16 << 10, .most_bytes = 128 << 10};
  auto target = CowTarget::open(queue, layer, nullptr, options);
  EXPECT_TRUE(target) << target.error().text();
  Device device(*target, {.name = "scene"}, queue);
  for (std::uint64_t i = 0; i < 8; ++i) {
    const std::vector<std::byte> data(4096, static_cast<std::byte>('1' + i));
    const std::uint64_t at = (100 + i) * 4096;
    EXPECT_TRUE(
        run_blocking(queue, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); }).ok());
    EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok());
    queue.drain();
  }
  auto cut = std::make_shared<SimDisk>(*disk);
  cut->forget_submitter();
  return cut;
}

void Scene::list_structures() {
  using What = Structure::What;
  const native::Superblock& s = superblock;
  for (std::uint32_t i = 0; i < 2; ++i) {
    structures_.push_back({What::superblock, fmt::format("superblock copy {}", i), i * native::k_apart_bytes,
                           native::k_superblock_bytes, 0, i});
    structures_.push_back(
        {What::record, fmt::format("flush record {}", i), s.record_offset[i], native::k_record_bytes, 0, i});
    for (std::uint64_t page = 0; page < s.page_count; ++page) {
      structures_.push_back({What::page, fmt::format("state page {} slot {}", page, i),
                             s.slot_offset[i] + page * native::k_page_bytes, native::k_page_bytes, page, i});
    }
  }
  structures_.push_back({What::holder, "holder", s.holder_offset, native::k_holder_bytes});
}

const Structure& Scene::structure(const std::string& name) const {
  const auto found = std::ranges::find(structures_, name, &Structure::name);
  EXPECT_NE(found, structures_.end()) << name;
  return *found;
}

std::shared_ptr<SimStore> Scene::store(const Disk& disk) {
  return std::make_shared<SimStore>(queue, disk, SimStore::Options{.name = "work.oxb", .pending_percent = 0});
}

Result<CheckReport> Scene::check(const Disk& disk) { return check_layer(queue, *store(disk)); }

Meaning Scene::meaning(const Disk& disk) {
  const auto layer = store(disk);
  const auto head = read_layer_head(queue, *layer);
  if (!head) return {.refusal = head.error().text()};
  Meaning meaning{.refusal = {},
                  .superblock = head->superblock,
                  .flush_number = head->flush_number,
                  .last_pages = head->last_pages};
  meaning.superblock.copy = 0;
  meaning.superblock.crc = 0;
  meaning.pages.resize(head->superblock.page_count);
  for (std::uint64_t page = 0; page < head->superblock.page_count; ++page) {
    std::array<native::StatePage, 2> slots{};
    for (std::uint32_t slot = 0; slot < 2; ++slot) {
      const auto bytes = get(*disk, {head->superblock.slot_offset[slot] + page * native::k_page_bytes, 4096});
      std::memcpy(&slots[slot], bytes.data(), sizeof(slots[slot]));
    }
    const PageContent content = choose_page(slots[0], slots[1], page, *head);
    meaning.pages[page].damaged = content.damaged;
    if (!content.empty) meaning.pages[page].leaves = content.page.leaves;
  }
  return meaning;
}

bool Meaning::same_as(const Meaning& other) const {
  return refusal == other.refusal && std::memcmp(&superblock, &other.superblock, sizeof(superblock)) == 0 &&
         flush_number == other.flush_number && last_pages == other.last_pages && pages == other.pages;
}

Result<void> Scene::recover(const std::shared_ptr<SimStore>& layer) {
  auto target = CowTarget::open(queue, layer, nullptr, {.writable = true});
  if (!target) return std::unexpected(target.error());
  const IoStatus closed = (*target)->close(queue);
  if (closed.ok()) return {};
  return std::unexpected(Error::from_errno("cannot close", layer->describe(), closed.error_number()));
}

std::optional<std::string> Scene::read(const Disk& disk, std::uint64_t at, std::uint64_t length) {
  auto target = CowTarget::open(queue, store(disk), nullptr, {.writable = false});
  if (!target) return std::nullopt;
  Device device(*target, {.name = "scene", .read_only = true}, queue);
  std::string out(length, '?');
  const IoStatus status = run_blocking(
      queue, [&](Io& io) { return device.read(io, at, std::as_writable_bytes(std::span(out))); });
  return status.ok() ? std::optional(out) : std::nullopt;
}

void Scene::put(SimDisk& disk, std::uint64_t at, std::span<const std::byte> bytes) {
  const sim::OperationId operation = disk.begin();
  disk.put(operation, at, bytes);
  disk.complete(operation);
  disk.make_durable(operation, {at, bytes.size()});
}

std::vector<std::byte> Scene::get(const SimDisk& disk, Range range) {
  std::vector<std::byte> bytes(range.length);
  disk.read(range, bytes);
  return bytes;
}

void Scene::reseal(SimDisk& disk, const Structure& structure) const {
  auto bytes = get(disk, {structure.at, structure.length});
  const auto sealed = [&]<typename T>(T object, const auto&... salt) {
    std::memcpy(&object, bytes.data(), sizeof(object));
    native::seal(object, salt...);
    std::memcpy(bytes.data(), &object, sizeof(object));
  };
  switch (structure.what) {
    case Structure::What::superblock:
      sealed(native::Superblock{});
      break;
    case Structure::What::holder:
      sealed(native::Holder{});
      break;
    case Structure::What::record:
      sealed(native::FlushRecord{}, superblock.salt);
      break;
    case Structure::What::page:
      sealed(native::StatePage{}, superblock.salt);
      break;
  }
  put(disk, structure.at, bytes);
}

const Finding* finding_about(const CheckReport& report, const std::string& where) {
  const auto found = std::ranges::find(report.findings, where, &Finding::where);
  return found == report.findings.end() ? nullptr : &*found;
}

std::string text_of(const Result<CheckReport>& report) {
  if (!report) return report.error().text();
  std::string out = report->unusable ? report->unusable->text() + "\n" : "";
  for (const Finding& each : report->findings) {
    out += fmt::format("{}: {}: {}\n", name_of(each.gravity), each.where, each.why);
  }
  return out;
}

}  // namespace oxbow::check
