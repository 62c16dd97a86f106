// SPDX-License-Identifier: Apache-2.0
#pragma once

// The gzip stream around a packed cowfile. No I/O: bytes in, bytes out.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "oxbow/error.h"

struct z_stream_s;  // NOLINT(readability-identifier-naming): zlib's name

namespace oxbow::cowloop {

// Whether a file that begins so may be gzip.
[[nodiscard]] bool has_gzip_magic(std::span<const std::byte> start) noexcept;

// Decompresses one gzip member with bounded memory, whatever it is fed. Thread safety: none.
class Inflater {
 public:
  // Throws std::bad_alloc when memory is short.
  Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  Inflater(Inflater&&) = delete;
  Inflater& operator=(Inflater&&) = delete;
  ~Inflater();

  struct Step {
    std::size_t taken = 0;  // of `in`
    std::size_t given = 0;  // of `out`
    bool ended = false;     // the member is complete, and its checksum and length are right
  };
  // As much as fits; either all of `in` is taken or all of `out` is full, unless it ended. The error is the end of a
  // sentence. Not to be called after it ended.
  [[nodiscard]] std::expected<Step, std::string> step(std::span<const std::byte> in,
                                                      std::span<std::byte> out);

 private:
  std::unique_ptr<z_stream_s> stream_;
};

// Compresses into one gzip member, with the same settings as cowpack -z. Thread safety: none.
class Deflater {
 public:
  using Append = std::function<Result<void>(std::span<const std::byte>)>;
  // Throws std::bad_alloc when memory is short.
  explicit Deflater(Append append);
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;
  Deflater(Deflater&&) = delete;
  Deflater& operator=(Deflater&&) = delete;
  ~Deflater();

  [[nodiscard]] Result<void> add(std::span<const std::byte> bytes) { return run(bytes, false); }
  // Nothing can be added any more.
  [[nodiscard]] Result<void> finish() { return run({}, true); }

 private:
  [[nodiscard]] Result<void> run(std::span<const std::byte> bytes, bool end);

  Append append_;
  std::unique_ptr<z_stream_s> stream_;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace oxbow::cowloop
