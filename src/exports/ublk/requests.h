// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "exports/ublk/asked.h"
#include "os/buffer_pool.h"
#include "os/io.h"

namespace oxbow::ublk {

// One queue's way to the kernel. Requests are known by their tags, below the queue's depth.
// Thread safety: belongs to the queue's thread.
class Channel {
 public:
  Channel() noexcept = default;
  virtual ~Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  Channel(Channel&&) = delete;
  Channel& operator=(Channel&&) = delete;

  // Of a request that has arrived and is not answered.
  [[nodiscard]] virtual RequestDescriptor descriptor(unsigned tag) const noexcept = 0;
  // Where the kernel has put the data of a write, and takes those of a read from, when it is answered. Empty where data
  // are copied by the two below.
  [[nodiscard]] virtual std::span<std::byte> memory(unsigned tag) noexcept = 0;
  // Copies the data of a write, all of it, or those of a read; false when that fails.
  [[nodiscard]] virtual bool receive(unsigned tag, std::span<std::byte> to) noexcept = 0;
  [[nodiscard]] virtual bool send(unsigned tag, std::span<const iovec> pieces) noexcept = 0;
  // The request is done: bytes, or a negative errno value. The tag is the kernel's again.
  virtual void answer(unsigned tag, int result) noexcept = 0;
};

class Requests;

// One request of the kernel. Thread safety: belongs to the queue's thread.
struct Request : Io {
  Request(Queue& on_queue, Complete on_complete, Requests& its_owner, unsigned its_tag) noexcept
      : Io(on_queue, on_complete), owner(&its_owner), tag(its_tag) {}

  Requests* owner;
  unsigned tag;
  Asked asked;
  Buffer buffer;
  std::uint64_t arrived_ns = 0;  // by the steady clock
};

// Carries the requests of one queue out on a device. Nothing is allocated while they arrive, but for buffers beyond
// those that are kept. Thread safety: belongs to the queue's thread.
class Requests {
 public:
  struct Options {
    unsigned depth = 1;
    std::size_t most_bytes = 4096;  // of the data of a request
    bool read_only = false;         // refuses changes, whatever the device allows
  };

  // Everything is borrowed as long as this.
  Requests(Device& device, Queue& queue, Channel& channel, const Options& options);

  // Keeps buffers, touched, with which some requests get on when there is no more memory.
  void keep_buffers() noexcept;
  // The request with that tag has arrived.
  void begin(unsigned tag) noexcept;
  // How many have not been answered.
  [[nodiscard]] std::size_t open() const noexcept { return open_; }

 private:
  void carry_out(Request& request) noexcept;
  void read(Request& request) noexcept;
  void write(Request& request) noexcept;
  [[nodiscard]] bool read_from_view(Request& request) noexcept;
  [[nodiscard]] bool write_into_memory(Request& request) noexcept;
  [[nodiscard]] bool take_buffer(Request& request) noexcept;
  static void completed(Io& io) noexcept;
  void submitted(Request& request, Progress progress) noexcept;
  void finished(Request& request, IoStatus status) noexcept;
  void answer(Request& request, int result) noexcept;
  void go_on() noexcept;

  Device& device_;
  Queue& queue_;
  Channel& channel_;
  const Options options_;
  std::vector<std::unique_ptr<Request>> requests_;  // by tag
  std::vector<unsigned> waiting_;                   // for a buffer, in order
  std::size_t in_flight_ = 0;
  std::size_t open_ = 0;
  bool going_on_ = false;
};

}  // namespace oxbow::ublk
