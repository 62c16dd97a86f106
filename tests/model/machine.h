// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "model/scene.h"

namespace oxbow::model {

// Does the same random things to a device and to a plain array of bytes, and compares. Failures are GoogleTest's.
// Thread safety: none; the device's flushes run on a thread of its own.
class Machine {
 public:
  Machine(Scene& scene, sim::Random& random, Queue& queue);

  // One random operation. Returns false when something was wrong.
  [[nodiscard]] bool step();
  // Compares everything, closes, and looks at what must not have been written.
  [[nodiscard]] bool finish();

 private:
  void open();
  void close();
  void reopen();
  void write();
  void receive();
  void zero();
  void discard();
  void flush();
  void read(Range range);
  void extents();
  void view();
  void refuse();
  void forget_zeros();
  void zero_or_same(Range range);

  [[nodiscard]] Range draw_range();
  [[nodiscard]] Durability draw_durability();
  void fill_random(std::span<std::byte> out);
  void put(std::uint64_t at, std::span<const std::byte> bytes);
  void compare(std::uint64_t at, std::span<const std::byte> bytes, const char* by);
  void note(const char* what, Range range);
  void expect_ok(IoStatus status);

  Scene& scene_;
  sim::Random& random_;
  Queue& queue_;
  OpenedDevice opened_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> model_;
  std::deque<std::string> recent_;
  std::vector<std::byte> buffer_;
  bool sound_ = true;
};

}  // namespace oxbow::model
