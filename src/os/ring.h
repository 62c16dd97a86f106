// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>

#include "os/io.h"

namespace oxbow {

// An io_uring for reads, writes and data syncs of descriptors. Short transfers are continued here, so that an
// operation ends with everything moved or with an error: EIO for a read past the end of the file.
// The source of the interface is io_uring(7). Thread safety: belongs to the thread of its queue.
class Ring {
 public:
  // A ring whose completions make `event_fd` readable; null where the kernel refuses one.
  [[nodiscard]] static std::unique_ptr<Ring> open(int event_fd) noexcept;
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  Ring(Ring&&) = delete;
  Ring& operator=(Ring&&) = delete;

  // Both move the bytes of io.iov (consumed by it) at byte `at` of `fd`. `rwf` are RWF_ flags as for
  // pwritev2(2). Always pending; the entry reaches the kernel with the next submit() at the latest.
  Progress read(Io& io, int fd, std::uint64_t at, int rwf = 0) noexcept;
  Progress write(Io& io, int fd, std::uint64_t at, int rwf = 0) noexcept;
  Progress data_sync(Io& io, int fd) noexcept;

  // Tells the kernel of all prepared entries. Returns false when it took only some for want of resources:
  // then try again soon, since the completions that are waited for may be those of the rest.
  bool submit() noexcept;
  // Runs the completions that have arrived. Returns whether any did.
  bool reap() noexcept;

 private:
  Ring() noexcept = default;
  void prepare(Io& io) noexcept;
  void finished(Io& io, int result) noexcept;

  ::io_uring ring_{};
  Io* waiting_ = nullptr;  // prepared when the submission queue had no room, oldest first
  Io** waiting_tail_ = &waiting_;
  unsigned unsubmitted_ = 0;
};

}  // namespace oxbow
