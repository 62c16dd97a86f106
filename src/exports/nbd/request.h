// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "device/device.h"
#include "exports/nbd/chunks.h"
#include "exports/nbd/protocol.h"
#include "os/buffer_pool.h"
#include "os/io.h"

namespace oxbow::nbd {

struct Slab;
class Transmission;

// One request from its header to the last byte of its reply; or a chunk of a write's payload, which has no
// reply of its own. Lives in a RequestPool. Thread safety: belongs to the connection's thread.
struct Request : Io {
  Request(Queue& on_queue, Complete on_complete, Transmission& its_owner) noexcept
      : Io(on_queue, on_complete), owner(&its_owner) {}

  Transmission* owner;
  RequestHeader header;
  std::size_t charged = 0;  // bytes counted against the connection's limit

  Buffer buffer;         // a read's data, a chunk's payload
  Slab* slab = nullptr;  // what a write's payload is in, pinned

  std::uint64_t arrived_ns = 0;  // by the steady clock, when the batch that it is in was received
  bool failed = false;           // is answered with an error

  Request* parent = nullptr;  // of a chunk: the write
  unsigned parts = 0;      // of a write in chunks: chunks in the device, and one for the payload on its way
  IoStatus outcome;        // of a write in chunks: the first error
  bool abandoned = false;  // of a write in chunks: its payload did not come, nobody wants a reply

  Reply reply;
  Range left;          // of a read that is answered in parts: what comes after `reply`
  bool begun = false;  // of such a read: a part of its reply was queued
  Request* next_reply = nullptr;
};

// A connection's requests: made when first needed, kept for reuse. Thread safety: belongs to the connection's
// thread.
class RequestPool {
 public:
  explicit RequestPool(std::size_t limit) {
    all_.reserve(limit);
    free_.reserve(limit);
  }

  // Those that were made, in use or not.
  [[nodiscard]] std::span<const std::unique_ptr<Request>> all() const noexcept { return all_; }
  [[nodiscard]] std::size_t used() const noexcept { return all_.size() - free_.size(); }

  // An empty request; null when memory is short. At most `limit` at a time.
  [[nodiscard]] Request* take(Queue& queue, Io::Complete complete, Transmission& owner) noexcept {
    if (free_.empty()) {
      std::unique_ptr<Request> made(new (std::nothrow) Request(queue, complete, owner));
      if (made == nullptr) return nullptr;
      all_.push_back(std::move(made));
      return all_.back().get();
    }
    Request* request = free_.back();
    free_.pop_back();
    return request;
  }

  void give_back(Request& request) noexcept {
    request.buffer = {};
    request.reply.clear();
    request.iov.clear();
    request.impatient = false;
    request.charged = 0;
    request.left = {};
    request.begun = false;
    request.failed = false;
    request.parent = nullptr;
    request.parts = 0;
    request.outcome = {};
    request.abandoned = false;
    free_.push_back(&request);
  }

 private:
  std::vector<std::unique_ptr<Request>> all_;
  std::vector<Request*> free_;
};

}  // namespace oxbow::nbd
