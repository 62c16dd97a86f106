// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

// What a writer did to a device, line by line in a file, and what each sector may hold after a power loss.
//
// The lines, each written before the next step is taken:
//   size SECTORS             the device; its base holds fill() of request 0, and zeros where base_is_hole()
//   + ID KIND FIRST COUNT F  request ID is about to be sent; KIND is w(rite), z(ero), n(o hole) or t(rim) of COUNT
//                            sectors from FIRST, or f(lush); F is 1 with FUA
//   - ID ERRNO               its answer was received; 0 is success
//   mark N                   all answers above were there before mark N
//   marked N                 nothing below was sent before mark N
namespace oxbow::vm {

inline constexpr std::size_t k_sector = 512;

struct Request {
  std::uint64_t id = 0;  // from 1
  char kind = 'f';
  std::uint64_t first = 0;  // in sectors
  std::uint64_t count = 0;
  bool fua = false;
};

// The 512 bytes that request `id` writes to that sector; `into` is that long.
void fill(std::span<std::byte> into, std::uint64_t sector, std::uint64_t id) noexcept;

// Whether the base has zeros in that sector instead of fill() of request 0.
[[nodiscard]] constexpr bool base_is_hole(std::uint64_t sector) noexcept { return sector / 1024 % 4 == 2; }

// Writes the lines. Thread safety: none.
class TraceWriter {
 public:
  // Throws std::runtime_error when the file cannot be made.
  TraceWriter(const std::string& path, std::uint64_t sectors);

  void sent(const Request& request);
  void answered(std::uint64_t id, int error);
  void mark(std::uint64_t number);
  void marked(std::uint64_t number);

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

// What the lines say about each sector. Thread safety: none.
class Trace {
 public:
  // What was durable at the line "mark `durable`", and what may have been sent until "marked `possible`"; 0 stands
  // for nothing as `durable`, for the end of the file as `possible`. Throws std::runtime_error on a bad line, and when
  // a change or flush that was sent after a flush had failed was answered with success.
  Trace(const std::string& path, std::uint64_t durable, std::uint64_t possible);

  [[nodiscard]] std::uint64_t sectors() const noexcept { return sectors_.size(); }
  // Sectors that must be at a newer value than the base's.
  [[nodiscard]] std::uint64_t promised() const noexcept;
  // What is wrong with `content`, which begins at sector `first`: one sentence each.
  [[nodiscard]] std::vector<std::string> judge(std::span<const std::byte> content, std::uint64_t first) const;

 private:
  static constexpr std::uint64_t k_zeros = ~std::uint64_t{0};
  struct Sector {
    std::vector<std::uint64_t> values;  // request ids, 0 for the base, k_zeros; oldest first
    std::vector<std::uint64_t> writers;
    std::size_t floor = 0;  // the oldest value that may still be there
  };

  void resize(std::uint64_t sectors);
  void sent(const Request& request);
  void answered(std::uint64_t id, int error, bool promise);
  void make_durable(const Request& request);

  std::vector<Sector> sectors_;
  std::map<std::uint64_t, Request> in_flight_;
  std::unordered_map<std::uint64_t, std::vector<Request>>
      covers_;                       // by flush: what was complete when it was sent
  std::vector<Request> complete_;    // since what is durable
  std::uint64_t failed_before_ = 0;  // requests with a greater id were sent after a flush had failed
  std::uint64_t newest_ = 0;
};

}  // namespace oxbow::vm
