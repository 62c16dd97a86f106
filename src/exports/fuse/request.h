// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "device/device.h"
#include "exports/fuse/fuse3.h"
#include "exports/fuse/seek.h"
#include "os/buffer_pool.h"
#include "os/io.h"

namespace oxbow::fuse {

class Worker;

enum class Operation : std::uint8_t { read, write, change, flush, seek };

// One request of the kernel, from when it was received until it is answered. Thread safety: belongs to the worker's
// thread.
struct Request : Io {
  Request(Queue& on_queue, Complete on_complete, Worker& its_owner) noexcept
      : Io(on_queue, on_complete), owner(&its_owner) {}

  Worker* owner;
  fuse_req_t kernel = nullptr;
  Operation operation = Operation::read;
  Range range;    // of a seek: where it still has to look
  Buffer buffer;  // a read's data; what a write's data was received in
  SeekFor seek_for = SeekFor::data;
  Extents extents;
  std::uint64_t arrived_ns = 0;  // by the steady clock
};

// Requests, made when first needed and kept for reuse. Thread safety: belongs to the worker's thread.
class RequestPool {
 public:
  // An empty one; null when memory is short.
  [[nodiscard]] Request* take(Queue& queue, Io::Complete complete, Worker& owner) noexcept {
    if (!free_.empty()) {
      Request* const request = free_.back();
      free_.pop_back();
      return request;
    }
    try {
      all_.push_back(std::make_unique<Request>(queue, complete, owner));
      free_.reserve(all_.size());  // so that giving it back can't fail
      return all_.back().get();
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }

  void give_back(Request& request) noexcept {
    request.kernel = nullptr;
    request.buffer = {};
    request.iov.clear();
    request.impatient = false;
    free_.push_back(&request);
  }

 private:
  std::vector<std::unique_ptr<Request>> all_;
  std::vector<Request*> free_;
};

}  // namespace oxbow::fuse
