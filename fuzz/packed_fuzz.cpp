// SPDX-License-Identifier: Apache-2.0
// Packed layers that are damaged or made to deceive. The input either is a whole file, or changes bytes of a sound
// one's header, frames, index and trailer; checksums are made right again where its first byte says so, so that the
// checks behind them are reached. Whatever is opened has to answer every read with bytes or an error, and never with
// more memory than it may take.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "device/device.h"
#include "formats/native/codec.h"
#include "formats/packed/codec.h"
#include "formats/packed/frame.h"
#include "formats/packed/writer.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"
#include "targets/packed/packed_target.h"

namespace {

using namespace oxbow;

constexpr std::uint64_t k_clusters = 40;
using Bytes = std::vector<std::byte>;

// Three frames, one of them raw, and five runs.
Bytes sound_file() {
  packed::Header header{};
  header.epoch = 1;
  header.size = (k_clusters * 4096) - 100;
  header.max_size = header.size;
  header.cluster_shift = 12;
  header.frame_shift = packed::k_smallest_frame_shift;
  Bytes file;
  packed::Writer writer(header, [&](std::span<const std::byte> bytes) -> Result<void> {
    file.insert(file.end(), bytes.begin(), bytes.end());
    return {};
  });
  if (!writer.begin()) std::abort();
  writer.add_run(0, 5, packed::RunKind::data);
  writer.add_run(5, 2, packed::RunKind::zero);
  writer.add_run(8, 20, packed::RunKind::data);
  writer.add_run(30, 1, packed::RunKind::zero);
  writer.add_run(31, 9, packed::RunKind::data);
  std::uint64_t left = 34 * 4096;
  for (const int level : {1, 0, 3}) {
    Bytes content(std::min<std::uint64_t>(left, 65536));
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i / 512 * 7);
    left -= content.size();
    packed::Compressor compressor(level);
    Bytes stored;
    const packed::FrameRecord record = compressor.encode(content, stored);
    if (!writer.add_frame(record, stored)) std::abort();
  }
  if (!writer.finish()) std::abort();
  return file;
}

template <typename T>
bool load(const Bytes& file, std::uint64_t at, T& out) {
  if (!Range{at, sizeof(T)}.fits(file.size())) return false;
  std::memcpy(&out, file.data() + at, sizeof(T));
  return true;
}

template <typename T>
void put(Bytes& file, std::uint64_t at, const T& object) {
  std::memcpy(file.data() + at, &object, sizeof(T));
}

// Frames, index, header and trailer, in this order, as far as they are where they should be.
void fix_checksums(Bytes& file) {
  packed::Header header;
  packed::Trailer trailer;
  if (file.size() < packed::k_header_bytes + packed::k_trailer_bytes || !load(file, 0, header)) return;
  const std::uint64_t at = file.size() - packed::k_trailer_bytes;
  if (!load(file, at, trailer)) return;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(trailer.frame_count, 100); ++i) {
    packed::FrameRecord record;
    const std::uint64_t place = trailer.index_offset + (i * sizeof(record));
    if (place < trailer.index_offset || !load(file, place, record)) break;
    if (!Range{record.offset, record.length}.fits(file.size())) continue;
    record.stored_crc = native::crc32c(std::span(file).subspan(record.offset, record.length));
    put(file, place, record);
  }
  packed::seal(header);
  put(file, 0, header);
  trailer.header_crc = header.crc;
  if (trailer.index_offset < at)
    trailer.index_crc =
        native::crc32c(std::span(file).subspan(trailer.index_offset, at - trailer.index_offset));
  packed::seal(trailer);
  put(file, at, trailer);
}

// Errors are fine; what counts is that every request ends, and that nothing is read beyond what there is.
void use(const Bytes& file) {
  if (file.empty()) return;
  Queue queue;
  auto store = RamStore::create({.size_bytes = file.size()});
  if (!store || !write_blocking(queue, **store, 0, file).ok()) std::abort();
  auto opened = PackedStore::open(queue, *store, 1 << 20);
  if (!opened) return;
  auto target = std::make_shared<PackedTarget>(*opened, nullptr);
  Device device(target, {.name = "fuzz", .read_only = true}, queue);
  Bytes buffer(std::min<std::uint64_t>(device.size(), 300'000));
  (void)run_blocking(queue, [&](Io& io) { return device.read(io, 0, buffer); });
  (void)run_blocking(queue, [&](Io& io) { return device.read(io, device.size() - buffer.size(), buffer); });
  for (std::uint64_t at = 0, steps = 0; at < device.size() && steps < 1000; ++steps) {
    Extents extents;
    if (!run_blocking(queue, [&](Io& io) {
           return device.extents(io, {at, device.size() - at}, extents);
         }).ok())
      std::abort();
    for (const Extent& extent : extents) {
      const bool inside =
          extent.kind != Kind::data || Range{extent.at, extent.length}.fits((*opened)->size());
      if (!inside || extent.length == 0) std::abort();
      at += extent.length;
    }
  }
  if (!device.close(queue).ok()) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const bool whole = (data[0] & 2U) != 0;
  const bool fix = (data[0] & 1U) != 0;
  std::span<const std::uint8_t> input(data + 1, size - 1);
  Bytes file;
  if (whole) {
    file.resize(input.size());
    std::ranges::transform(input, file.begin(),
                           [](std::uint8_t byte) { return static_cast<std::byte>(byte); });
  } else {
    static const Bytes k_sound = sound_file();
    file = k_sound;
    // Places count from both ends: the index and the trailer are at the file's.
    for (; input.size() >= 4; input = input.subspan(4)) {
      const std::size_t distance = (input[1] | static_cast<std::size_t>(input[2]) << 8U) % file.size();
      const std::size_t at = (input[0] & 1U) != 0 ? file.size() - 1 - distance : distance;
      file[at] = static_cast<std::byte>(input[3]);
    }
    if (!input.empty() && input[0] < 100) file.resize(file.size() - input[0]);
  }
  if (fix) fix_checksums(file);
  use(file);
  return 0;
}
