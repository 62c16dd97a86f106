// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "os/fixed.h"

namespace oxbow {

using IovList = Fixed<iovec, 8>;

// The bytes that the list names.
[[nodiscard]] inline std::size_t iov_bytes(const IovList& iov) noexcept {
  std::size_t bytes = 0;
  for (const iovec& piece : iov) bytes += piece.iov_len;
  return bytes;
}

// Takes `bytes` that were moved (at most all) off the front of the list. Returns whether the list is used up.
[[nodiscard]] inline bool iov_consume(IovList& iov, std::size_t bytes) noexcept {
  std::size_t index = 0;
  while (index < iov.size() && bytes >= iov[index].iov_len) bytes -= iov[index++].iov_len;
  IovList rest;
  for (std::size_t i = index; i < iov.size(); ++i) {
    iovec piece = iov[i];
    if (i == index) {
      piece.iov_base = static_cast<char*>(piece.iov_base) + bytes;
      piece.iov_len -= bytes;
    }
    rest.push_back(piece);
  }
  iov = rest;
  return iov.empty();
}

// What a write carries, taken front to back: the bytes of a list, or zeros where there is none. The list is
// borrowed and stays as it is. Thread safety: one thread.
class Payload {
 public:
  explicit Payload(const IovList* iov) noexcept : iov_(iov) {}

  // The next `bytes`; no more than are left.
  void copy_to(std::byte* to, std::size_t bytes) noexcept {
    if (iov_ == nullptr) {
      std::memset(to, 0, bytes);
      return;
    }
    while (bytes > 0) {
      const iovec& from = (*iov_)[index_];
      const std::size_t piece = std::min(bytes, from.iov_len - used_);
      if (piece > 0) std::memcpy(to, static_cast<const std::byte*>(from.iov_base) + used_, piece);
      to += piece;
      bytes -= piece;
      used_ += piece;
      if (used_ == from.iov_len) {
        ++index_;
        used_ = 0;
      }
    }
  }

 private:
  const IovList* iov_;
  std::size_t index_ = 0;
  std::size_t used_ = 0;  // of the buffer at index_
};

}  // namespace oxbow
