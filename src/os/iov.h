// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>

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

}  // namespace oxbow
