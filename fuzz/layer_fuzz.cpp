// SPDX-License-Identifier: Apache-2.0
// Layers with damaged metadata. The input changes bytes of a sound layer's superblocks, records, state pages and ring
// records; checksums are made right again where its first byte says so, so that the checks behind them are reached.
// Whatever is opened has to answer every read and change with bytes or an error; the check and the repair have to
// come to an end, and the repair leaves nothing that a second one mends.

#include <cstdlib>
#include <cstring>
#include <vector>

#include "device/device.h"
#include "formats/native/codec.h"
#include "jobs/check_layer.h"
#include "jobs/repair_layer.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"

namespace {

using namespace oxbow;

constexpr std::uint64_t k_size_bytes = std::uint64_t{1} << 20;
constexpr std::size_t k_ring_edit_bytes = 4096;

template <typename T>
void edit(Queue& queue, Store& store, std::uint64_t at, std::span<const std::uint8_t> edits,
          const auto& reseal) {
  T object;
  const auto bytes = std::as_writable_bytes(std::span(&object, 1));
  if (!run_blocking(queue, [&](Io& io) { return store.read(io, at, bytes, ReadMode::may_wait); }).ok())
    std::abort();
  for (; edits.size() >= 3; edits = edits.subspan(3)) {
    const std::size_t offset = (edits[0] | static_cast<std::size_t>(edits[1]) << 8U) % bytes.size();
    bytes[offset] = static_cast<std::byte>(edits[2]);
  }
  reseal(object);
  const IoStatus written = run_blocking(queue, [&](Io& io) {
    io.iov.push_back({bytes.data(), bytes.size()});
    return store.write(io, at, WriteMode::cached);
  });
  if (!written.ok()) std::abort();
}

// The first record of the ring: its head, its entries and the beginning of its data, wherever it ends.
void edit_ring(Queue& queue, Store& store, const native::Superblock& superblock,
               std::span<const std::uint8_t> edits, bool reseal) {
  std::vector<std::byte> record(k_ring_edit_bytes);
  const auto read_all = [&] {
    if (!read_blocking(queue, store, superblock.ring_offset, record).ok()) std::abort();
  };
  read_all();
  for (; edits.size() >= 3; edits = edits.subspan(3)) {
    const std::size_t offset = (edits[0] | static_cast<std::size_t>(edits[1]) << 8U) % record.size();
    record[offset] = static_cast<std::byte>(edits[2]);
  }
  if (!write_blocking(queue, store, superblock.ring_offset, record).ok()) std::abort();
  const std::uint64_t length = native::ring_record_bytes(native::ring_head(record), superblock.ring_length);
  if (!reseal || length == 0) return;
  record.resize(length);
  read_all();
  native::seal_ring_record(record, superblock.salt);
  if (!write_blocking(queue, store, superblock.ring_offset, record).ok()) std::abort();
}

// One page of states and one flush, so that there is something to damage; with records in the ring when asked for.
std::shared_ptr<RamStore> sound_layer(Queue& queue, native::Superblock& superblock, bool ring) {
  LayerDescription description{.size_bytes = k_size_bytes, .max_size_bytes = k_size_bytes, .salt = 5};
  const auto described = describe_layer(description);
  if (!described) std::abort();
  auto store = RamStore::create({.size_bytes = native::file_bytes(*described)});
  if (!store || !format_layer(queue, **store, description)) std::abort();
  CowTarget::Options options{.writable = true};
  if (ring) {
    options.ring = *store;
    options.ring_growth = {.first_bytes = 64 << 10, .step_bytes = 16 << 10, .most_bytes = 128 << 10};
  }
  auto target = CowTarget::open(queue, *store, nullptr, options);
  if (!target) std::abort();
  Device device(*target, {.name = "fuzz"}, queue);
  const std::vector<std::byte> data(9000, std::byte{3});
  for (const std::uint64_t at :
       {std::uint64_t{100}, std::uint64_t{500'000}, std::uint64_t{200'000}, std::uint64_t{300'000}}) {
    if (!run_blocking(queue, [&](Io& io) {
           return device.write(io, at, data, Durability::when_completed);
         }).ok()) {
      std::abort();
    }
  }
  superblock = *described;
  return *store;
}

// Errors are fine; what counts is that every request ends.
void use(Queue& queue, const std::shared_ptr<RamStore>& store) {
  auto target = CowTarget::open(queue, store, nullptr, {.writable = true});
  if (!target || (*target)->size() > (std::uint64_t{1} << 30)) return;
  Device device(*target, {.name = "fuzz"}, queue);
  std::vector<std::byte> buffer(std::min<std::uint64_t>(device.size(), 100'000));
  (void)run_blocking(queue, [&](Io& io) { return device.read(io, 0, buffer); });
  (void)run_blocking(queue, [&](Io& io) { return device.write(io, 50, buffer, Durability::with_flush); });
  (void)run_blocking(
      queue, [&](Io& io) { return device.discard(io, {0, device.size() / 2}, Durability::when_completed); });
  (void)device.close(queue);
}

// What was mended stays mended.
void mend(Queue& queue, const std::shared_ptr<RamStore>& store) {
  if (!check_layer(queue, *store)) return;
  RepairOptions options;
  options.recover = [&]() -> Result<void> {
    auto target = CowTarget::open(queue, store, nullptr, {.writable = true});
    if (!target) return std::unexpected(target.error());
    if (const IoStatus closed = (*target)->close(queue); !closed.ok())
      return std::unexpected(Error::from_errno("cannot close", "fuzz", closed.error_number()));
    return {};
  };
  const auto first = repair_layer(queue, *store, options);
  if (!first || !first->sound()) return;
  const auto second = repair_layer(queue, *store, options);
  if (!second || !second->sound() || !second->steps.empty()) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  Queue queue;
  native::Superblock superblock;
  const unsigned what = data[1] % 4;
  const auto store = sound_layer(queue, superblock, what == 3);
  const bool reseal = (data[0] & 1U) != 0;
  const bool repair = (data[0] & 4U) != 0;
  const std::uint32_t twin = data[0] >> 1U & 1U;
  const std::span<const std::uint8_t> edits(data + 2, size - 2);
  switch (what) {
    case 0:
      edit<native::Superblock>(queue, *store, twin * native::k_apart_bytes, edits,
                               [&](native::Superblock& each) {
                                 if (reseal) native::seal(each);
                               });
      break;
    case 1:
      edit<native::FlushRecord>(queue, *store, superblock.record_offset[twin], edits,
                                [&](native::FlushRecord& each) {
                                  if (reseal) native::seal(each, superblock.salt);
                                });
      break;
    case 3:
      edit_ring(queue, *store, superblock, edits, reseal);
      break;
    default:
      edit<native::StatePage>(queue, *store, superblock.slot_offset[twin], edits,
                              [&](native::StatePage& each) {
                                if (reseal) native::seal(each, superblock.salt);
                              });
  }
  if (repair) mend(queue, store);
  use(queue, store);
  return 0;
}
