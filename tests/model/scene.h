// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/open_device.h"
#include "sim/chooser.h"

namespace oxbow::model {

// A directory that is removed with everything in it. Thread safety: none.
class Directory {
 public:
  Directory();
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  Directory(Directory&&) = delete;
  Directory& operator=(Directory&&) = delete;
  [[nodiscard]] std::string path(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

enum class PieceKind : std::uint8_t { layer, file, memory, zero };

// What a range of a device is: it decides what a discard does, and whether writes stay.
struct Piece {
  PieceKind kind;
  Range range;  // of the device
  // Of PieceKind::layer: where in the layer the range starts, and the layer.
  std::uint64_t at = 0;
  std::uint64_t cluster_bytes = 1;
  std::uint64_t layer_bytes = 0;
};

// Files, and the device that is opened from them. Thread safety: none.
class Scene {
 public:
  Scene() = default;
  virtual ~Scene() = default;
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;
  Scene(Scene&&) = delete;
  Scene& operator=(Scene&&) = delete;

  [[nodiscard]] virtual DeviceSpec spec() const = 0;
  [[nodiscard]] virtual std::vector<Piece> pieces() const = 0;
  // What the device reads as when it is opened for the first time.
  [[nodiscard]] virtual std::vector<std::byte> initial() const = 0;
  // Whether it can be closed and opened again.
  [[nodiscard]] virtual bool lasts() const { return true; }
  // While closed: puts a layer on top, as large or larger. Returns the device's new size, 0 when nothing was
  // done.
  [[nodiscard]] virtual std::uint64_t grow(Queue& /*queue*/) { return 0; }
  // That what must never be written is as it was; empty, or what is wrong.
  [[nodiscard]] virtual std::string verify() const { return {}; }
};

[[nodiscard]] std::unique_ptr<Scene> make_ram(sim::Random& random);
[[nodiscard]] std::unique_ptr<Scene> make_file(sim::Random& random);
// One layer over a raw base; grow() makes it a chain of up to five.
[[nodiscard]] std::unique_ptr<Scene> make_chain(sim::Random& random, Queue& queue);
// Lines of linear, zero and cow; several lines lead to the same layer and cut its clusters.
[[nodiscard]] std::unique_ptr<Scene> make_table(sim::Random& random, Queue& queue);

}  // namespace oxbow::model
