// SPDX-License-Identifier: Apache-2.0
#pragma once

// Packed layers for tests, made in memory, and stores that hold them.

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "formats/native/codec.h"
#include "formats/packed/codec.h"
#include "formats/packed/frame.h"
#include "formats/packed/writer.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"

namespace oxbow::testing {

// A packed layer and what it has to read as. Thread safety: a value.
struct PackedSample {
  packed::Header header{};
  std::vector<packed::RunRecord> runs;
  std::vector<std::byte> data;  // the clusters of data, one after the other
  std::vector<std::byte> file;
};

struct PackedShape {
  std::uint64_t size_bytes = (3 << 20) + 77;
  std::uint32_t cluster_shift = 12;
  std::uint32_t frame_shift = 16;
  int level = 1;
};

inline void fill_with_noise(std::mt19937_64& random, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::uint64_t number = random();
    const std::size_t length = std::min(out.size(), sizeof(number));
    std::memcpy(out.data(), &number, length);
    out = out.subspan(length);
  }
}

// Half of the clusters compress well, and the others not at all.
inline std::vector<std::byte> cluster_content(std::mt19937_64& random, std::uint64_t bytes) {
  std::vector<std::byte> content(bytes, static_cast<std::byte>(random()));
  if (random() % 2 == 0) fill_with_noise(random, content);
  return content;
}

// A test that cannot be set up ends with an exception.
inline void need(bool done, const char* what) {
  if (!done) throw std::runtime_error(what);
}

inline void pack_sample(PackedSample& sample, int level) {
  packed::Writer writer(sample.header, [&](std::span<const std::byte> bytes) -> Result<void> {
    sample.file.insert(sample.file.end(), bytes.begin(), bytes.end());
    return {};
  });
  need(writer.begin().has_value(), "the header");
  for (const packed::RunRecord& run : sample.runs) writer.add_run(run.first, run.count, run.kind);
  packed::Compressor compressor(level);
  std::vector<std::byte> stored;
  for (std::span<const std::byte> rest = sample.data; !rest.empty();) {
    const auto content =
        rest.first(std::min<std::size_t>(rest.size(), std::size_t{1} << sample.header.frame_shift));
    const packed::FrameRecord record = compressor.encode(content, stored);
    need(writer.add_frame(record, stored).has_value(), "a frame");
    rest = rest.subspan(content.size());
  }
  need(writer.finish().has_value(), "the index");
  need(writer.file_bytes() == sample.file.size(), "the length of the file");
}

// A layer without a base, of runs as chance has them.
inline PackedSample make_packed_sample(std::uint64_t seed, const PackedShape& shape) {
  std::mt19937_64 random(seed);
  PackedSample sample;
  packed::Header& header = sample.header;
  std::ranges::generate(header.uuid, [&] { return static_cast<std::uint8_t>(random()); });
  header.epoch = 3;
  header.created_ns = 1'767'225'600'000'000'000;
  header.size = shape.size_bytes;
  header.max_size = shape.size_bytes * 2;
  header.cluster_shift = shape.cluster_shift;
  header.frame_shift = shape.frame_shift;
  const std::uint64_t clusters = native::cluster_count(shape.size_bytes, shape.cluster_shift);
  for (std::uint64_t cluster = random() % 3; cluster < clusters;) {
    const std::uint64_t count = std::min(clusters - cluster, 1 + (random() % 40));
    const bool data = random() % 3 != 0;
    const bool joins = !sample.runs.empty() && sample.runs.back().first + sample.runs.back().count == cluster;
    const auto kind = data ? packed::RunKind::data : packed::RunKind::zero;
    if (!joins || sample.runs.back().kind != kind)
      sample.runs.push_back({cluster, count, kind, 0});
    else
      sample.runs.back().count += count;
    for (std::uint64_t i = 0; data && i < count; ++i) {
      const auto content = cluster_content(random, std::uint64_t{1} << shape.cluster_shift);
      sample.data.insert(sample.data.end(), content.begin(), content.end());
    }
    cluster += count + (random() % 2 == 0 ? 0 : random() % 30);
  }
  pack_sample(sample, shape.level);
  return sample;
}

// A store that holds these bytes.
inline std::shared_ptr<RamStore> store_of(Queue& queue, std::span<const std::byte> bytes) {
  auto store = RamStore::create({.size_bytes = bytes.size()});
  need(store.has_value(), "a store");
  need(write_blocking(queue, **store, 0, bytes).ok(), "its contents");
  return *store;
}

}  // namespace oxbow::testing
