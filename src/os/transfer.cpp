// SPDX-License-Identifier: Apache-2.0
#include "os/transfer.h"

#include <algorithm>
#include <array>

namespace oxbow {
namespace {

alignas(4096) constexpr std::array<std::byte, 128U << 10> k_zeros{};

// A const buffer for a call that only reads from it but takes iovec.
void* unconst(const std::byte* bytes) noexcept { return const_cast<std::byte*>(bytes); }  // NOLINT

using Transfer = ssize_t (*)(int, const iovec*, int, off_t, int);

IoStatus move_all(Transfer transfer, int fd, std::uint64_t at, IovList& iov, int rwf) noexcept {
  while (iov_bytes(iov) != 0) {
    const ssize_t moved =
        transfer(fd, iov.begin(), static_cast<int>(iov.size()), static_cast<off_t>(at), rwf);
    if (moved < 0) {
      if (errno == EINTR) continue;
      return IoStatus::error(errno);
    }
    if (moved == 0) return IoStatus::error(EIO);
    at += static_cast<std::uint64_t>(moved);
    (void)iov_consume(iov, static_cast<std::size_t>(moved));
  }
  return {};
}

}  // namespace

Moved read_at(int fd, std::uint64_t at, std::span<std::byte> out, int rwf) noexcept {
  IovList iov;
  iov.push_back({out.data(), out.size()});
  const IoStatus status = read_all(fd, at, iov, rwf);
  return {out.size() - iov_bytes(iov), status};
}

IoStatus read_all(int fd, std::uint64_t at, IovList& iov, int rwf) noexcept {
  return move_all(::preadv2, fd, at, iov, rwf);
}

IoStatus write_all(int fd, std::uint64_t at, IovList& iov, int rwf) noexcept {
  return move_all(::pwritev2, fd, at, iov, rwf);
}

IoStatus write_all(int fd, std::uint64_t at, std::span<const std::byte> bytes, int rwf) noexcept {
  IovList iov;
  iov.push_back({unconst(bytes.data()), bytes.size()});
  return write_all(fd, at, iov, rwf);
}

IoStatus write_zeros(int fd, Range range) noexcept {
  while (!range.empty()) {
    IovList iov;
    std::uint64_t chunk = 0;
    while (!iov.full() && chunk < range.length) {
      const std::uint64_t piece = std::min<std::uint64_t>(k_zeros.size(), range.length - chunk);
      iov.push_back({unconst(k_zeros.data()), piece});
      chunk += piece;
    }
    const IoStatus status = write_all(fd, range.offset, iov);
    if (!status.ok()) return status;
    range = range.without_prefix(chunk);
  }
  return {};
}

}  // namespace oxbow
