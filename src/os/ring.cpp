// SPDX-License-Identifier: Apache-2.0
#include "os/ring.h"

#include <new>

#include "os/iov.h"

namespace oxbow {
namespace {

constexpr unsigned k_entries = 256;

}  // namespace

std::unique_ptr<Ring> Ring::open(int event_fd) noexcept {
  std::unique_ptr<Ring> ring(new (std::nothrow) Ring);
  if (ring == nullptr) return nullptr;
  if (::io_uring_queue_init(k_entries, &ring->ring_, 0) != 0) {
    ring->ring_.ring_fd = -1;
    return nullptr;
  }
  if (::io_uring_register_eventfd(&ring->ring_, event_fd) != 0) return nullptr;
  return ring;
}

Ring::~Ring() {
  if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
}

Progress Ring::read(Io& io, int fd, std::uint64_t at, int rwf) noexcept {
  io.opcode = IORING_OP_READV;
  io.fd = fd;
  io.at = at;
  io.flags = rwf;
  prepare(io);
  return Progress::pending();
}

Progress Ring::write(Io& io, int fd, std::uint64_t at, int rwf) noexcept {
  io.opcode = IORING_OP_WRITEV;
  io.fd = fd;
  io.at = at;
  io.flags = rwf;
  prepare(io);
  return Progress::pending();
}

Progress Ring::data_sync(Io& io, int fd) noexcept {
  io.opcode = IORING_OP_FSYNC;
  io.fd = fd;
  io.flags = 0;
  prepare(io);
  return Progress::pending();
}

void Ring::prepare(Io& io) noexcept {
  ::io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    (void)submit();  // whatever it can't take now waits in the list
    sqe = ::io_uring_get_sqe(&ring_);
  }
  if (sqe == nullptr) {
    io.next = nullptr;
    *waiting_tail_ = &io;
    waiting_tail_ = &io.next;
    return;
  }
  if (io.opcode == IORING_OP_FSYNC) {
    ::io_uring_prep_fsync(sqe, io.fd, IORING_FSYNC_DATASYNC);
  } else if (io.opcode == IORING_OP_READV) {
    ::io_uring_prep_readv2(sqe, io.fd, io.iov.begin(), static_cast<unsigned>(io.iov.size()), io.at, io.flags);
  } else {
    ::io_uring_prep_writev2(sqe, io.fd, io.iov.begin(), static_cast<unsigned>(io.iov.size()), io.at,
                            io.flags);
  }
  ::io_uring_sqe_set_data(sqe, &io);
  ++unsubmitted_;
}

bool Ring::submit() noexcept {
  while (unsubmitted_ > 0) {
    const int submitted = ::io_uring_submit(&ring_);
    if (submitted == -EINTR) continue;
    if (submitted <= 0) return false;
    unsubmitted_ -= static_cast<unsigned>(submitted);
  }
  return true;
}

bool Ring::reap() noexcept {
  bool any = false;
  ::io_uring_cqe* cqe = nullptr;
  while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
    Io& io = *static_cast<Io*>(::io_uring_cqe_get_data(cqe));
    const int result = cqe->res;
    ::io_uring_cqe_seen(&ring_, cqe);
    finished(io, result);
    any = true;
  }
  while (waiting_ != nullptr && ::io_uring_sq_space_left(&ring_) > 0) {
    Io& io = *waiting_;
    waiting_ = io.next;
    if (waiting_ == nullptr) waiting_tail_ = &waiting_;
    prepare(io);
  }
  return any;
}

void Ring::finished(Io& io, int result) noexcept {
  const bool asked_not_to_wait = (io.flags & RWF_NOWAIT) != 0;
  if (result == -EINTR || (result == -EAGAIN && !asked_not_to_wait)) {
    prepare(io);
    return;
  }
  if (result < 0) {
    io.status = IoStatus::error(-result);
  } else if (io.opcode == IORING_OP_FSYNC || iov_consume(io.iov, static_cast<std::size_t>(result))) {
    io.status = {};
  } else if (result == 0) {
    io.status = IoStatus::error(EIO);
  } else {
    io.at += static_cast<std::uint64_t>(result);
    prepare(io);
    return;
  }
  io.complete(io);
}

}  // namespace oxbow
