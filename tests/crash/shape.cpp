// SPDX-License-Identifier: Apache-2.0
#include "crash/shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/native/layout.h"

namespace oxbow::crash {
namespace {

using sim::Chooser;

constexpr std::uint64_t k_cluster = 4096;
constexpr std::uint64_t k_page_span = native::k_clusters_per_page * k_cluster;

void add_window(Shape& shape, std::uint64_t from, std::uint64_t to) {
  const std::uint64_t end = std::min(to, shape.layers.front().size_bytes);
  if (from < end) shape.windows.push_back({from, end - from});
}

// The state words of the clusters of a page lie in its eight sectors: 7 leaves in the first, 8 in each other. Requests
// go to where they meet, so that a torn page is neither the old nor the new one.
void draw_medium(Chooser& chooser, Shape& shape) {
  constexpr std::uint64_t k_first = 7 * native::k_clusters_per_leaf;
  constexpr std::uint64_t k_next = 8 * native::k_clusters_per_leaf;
  const std::uint64_t size =
      (k_first + chooser.between(1, 3) * k_next) * k_cluster + chooser.between(1, 40) * k_sector_bytes;
  shape.layers.push_back({size, 12, chooser.chance(80)});
  add_window(shape, 0, 2 * k_cluster);
  for (std::uint64_t border = k_first; border * k_cluster < size; border += k_next) {
    add_window(shape, (border - 1) * k_cluster, (border + 2) * k_cluster);
  }
  shape.base_bytes = chooser.chance(50) ? size : chooser.below(size / k_sector_bytes + 1) * k_sector_bytes;
}

// Several state pages: requests go to where they meet, and into their middle.
void draw_large(Chooser& chooser, Shape& shape) {
  const std::uint64_t pages = chooser.between(2, 3);
  const std::uint64_t size = pages * k_page_span + chooser.between(1, 40) * k_sector_bytes;
  shape.layers.push_back({size, 12, chooser.chance(80)});
  for (std::uint64_t page = 1; page <= pages; ++page) {
    add_window(shape, page * k_page_span - chooser.between(1, 2) * k_cluster,
               page * k_page_span + chooser.between(1, 2) * k_cluster);
    const std::uint64_t middle = page * k_page_span - k_page_span / 2;
    add_window(shape, middle, middle + 2 * k_cluster);
  }
  add_window(shape, 0, 2 * k_cluster);
  const Range& window = shape.windows[chooser.below(shape.windows.size())];
  const std::uint64_t inside = window.offset + chooser.below(window.length / k_sector_bytes) * k_sector_bytes;
  shape.base_bytes = chooser.chance(50) ? size : inside;
}

void draw_small(Chooser& chooser, Shape& shape) {
  const std::uint64_t clusters = chooser.between(1, chooser.chance(25) ? 3 : chooser.chance(70) ? 12 : 64);
  std::uint64_t size = clusters * k_cluster;
  if (chooser.chance(50)) size -= chooser.between(1, 7) * k_sector_bytes;
  const std::uint32_t shift = chooser.chance(75) ? 12 : chooser.chance(80) ? 13 : 16;
  shape.layers.push_back({size, shift, chooser.chance(80)});
  shape.base_bytes = size;
  if (chooser.chance(60)) shape.base_bytes = chooser.below(size / k_sector_bytes + 1) * k_sector_bytes;
  if (clusters <= 12) return add_window(shape, 0, size);
  add_window(shape, 0, 4 * k_cluster);
  const std::uint64_t border = shape.base_bytes / k_cluster * k_cluster;
  add_window(shape, border - std::min(border, 2 * k_cluster), border + 2 * k_cluster);
  add_window(shape, size - 3 * k_cluster, size);
}

}  // namespace

Shape draw_shape(Chooser& chooser) {
  Shape shape;
  shape.base_durable = chooser.chance(70);
  shape.pending_percent = chooser.chance(20) ? 100 : static_cast<unsigned>(chooser.between(10, 90));
  shape.ring = chooser.chance(75);
  shape.depth = static_cast<unsigned>(chooser.chance(25) ? 1 : chooser.between(2, 6));
  const std::uint64_t kind = chooser.below(100);
  if (kind < 20) {
    draw_large(chooser, shape);
  } else if (kind < 40) {
    draw_medium(chooser, shape);
  } else {
    draw_small(chooser, shape);
  }
  while (shape.layers.size() < 3 && chooser.chance(40)) {
    LayerShape next = shape.layers.back();
    if (chooser.chance(30)) next.size_bytes += chooser.between(1, 20) * k_sector_bytes;
    if (chooser.chance(20)) next.cluster_shift = next.cluster_shift == 12 ? 13 : 12;
    shape.layers.push_back(next);
  }
  shape.live = chooser.chance(80);
  return shape;
}

// A page of the bitmap has 32,768 blocks of 1 KiB, and each of its sectors 4,096: requests go to where they meet.
Shape draw_pair(Chooser& chooser) {
  constexpr std::uint64_t k_block = 1024;
  constexpr std::uint64_t k_sector_span = 4096 * k_block;
  constexpr std::uint64_t k_map_page_span = 8 * k_sector_span;
  Shape shape;
  shape.pair = true;
  shape.narrow = chooser.chance(40);
  shape.pending_percent = chooser.chance(20) ? 100 : static_cast<unsigned>(chooser.between(10, 90));
  shape.depth = static_cast<unsigned>(chooser.chance(25) ? 1 : chooser.between(2, 6));
  shape.live = chooser.chance(70);
  const bool large = chooser.chance(30);
  std::uint64_t blocks = chooser.between(1, chooser.chance(30) ? 3 : 48);
  if (large) blocks = chooser.between(1, 2) * k_map_page_span / k_block + chooser.between(1, 5000);
  shape.layers.push_back({blocks * k_block, 10, chooser.chance(80)});
  shape.base_bytes = blocks * k_block + (chooser.chance(40) ? k_sector_bytes : 0);
  if (!large) {
    add_window(shape, 0, blocks * k_block);
    return shape;
  }
  add_window(shape, 0, 4 * k_block);
  add_window(shape, k_sector_span - 2 * k_block, k_sector_span + 3 * k_block);
  add_window(shape, k_map_page_span - 3 * k_block, k_map_page_span + 2 * k_block);
  add_window(shape, (blocks - 2) * k_block, blocks * k_block);
  return shape;
}

std::string Shape::text() const {
  std::string text =
      fmt::format("base {} bytes{}, {}% pending, {} in flight, {}live state, layers", base_bytes,
                  base_durable ? "" : " (not durable)", pending_percent, depth, live ? "" : "no ");
  for (const LayerShape& layer : layers) {
    text += fmt::format(" [{} bytes, {} KiB clusters{}]", layer.size_bytes,
                        (1U << layer.cluster_shift) / 1024, layer.punches ? "" : ", no holes");
  }
  if (!ring) text += ", no ring";
  if (pair) text += narrow ? ", a pair of 32 bits" : ", a pair";
  text += ", windows";
  for (const Range& window : windows) text += fmt::format(" {:#x}+{:#x}", window.offset, window.length);
  return text;
}

}  // namespace oxbow::crash
