// SPDX-License-Identifier: Apache-2.0
#pragma once

// The stream of a packed cowfile, as it lies in a file or out of gzip.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/cowloop/gzip.h"
#include "formats/cowloop/head.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Thread safety: none.
class PackedSource {
 public:
  PackedSource() = default;
  virtual ~PackedSource() = default;
  PackedSource(const PackedSource&) = delete;
  PackedSource& operator=(const PackedSource&) = delete;
  PackedSource(PackedSource&&) = delete;
  PackedSource& operator=(PackedSource&&) = delete;

  // The next bytes, fewer than `out` has only at the end. Blocks.
  [[nodiscard]] virtual Result<std::size_t> read(std::span<std::byte> out) = 0;
  // How many of the next `limit` bytes are known to be zeros without being read, counted from the next on.
  [[nodiscard]] virtual std::uint64_t zeros(std::uint64_t limit) = 0;
  // Leaves that many of them out.
  virtual void skip_zeros(std::uint64_t bytes) = 0;
};

// Behind the last block a file may have more, which was left of what stood there before it. Thread safety: none.
class PlainSource final : public PackedSource {
 public:
  PlainSource(Queue& queue, std::string what, std::shared_ptr<Store> file)
      : queue_(queue), what_(std::move(what)), file_(std::move(file)) {}

  [[nodiscard]] Result<std::size_t> read(std::span<std::byte> out) override;
  [[nodiscard]] std::uint64_t zeros(std::uint64_t limit) override;
  void skip_zeros(std::uint64_t bytes) override { at_ += bytes; }

 private:
  Queue& queue_;
  std::string what_;
  std::shared_ptr<Store> file_;
  std::uint64_t at_ = 0;
};

// What follows the first gzip member is left out. Thread safety: none.
class GzipSource final : public PackedSource {
 public:
  GzipSource(Queue& queue, std::string what, std::shared_ptr<Store> file);

  [[nodiscard]] Result<std::size_t> read(std::span<std::byte> out) override;
  [[nodiscard]] std::uint64_t zeros(std::uint64_t /*limit*/) override { return 0; }
  void skip_zeros(std::uint64_t /*bytes*/) override {}

 private:
  [[nodiscard]] Result<bool> load();

  Queue& queue_;
  std::string what_;
  std::shared_ptr<Store> file_;
  Inflater inflater_;
  std::vector<std::byte> buffer_;
  std::span<const std::byte> input_;  // of the buffer, not taken yet
  std::uint64_t at_ = 0;              // in the file, behind the buffer
  bool ended_ = false;
};

// Reads all of `out`; `part` names what it belongs to, for the error about a stream that ends too early, and `at` is
// where in the stream it lies.
[[nodiscard]] Result<void> read_whole(const std::string& what, const std::string& path, PackedSource& source,
                                      std::span<std::byte> out, const char* part, std::uint64_t at);

// The head of a packed cowfile, of whatever form, which is what a source begins with: the fields of the wider layout
// are taken from it. Refused: one that isn't packed, or dirty.
[[nodiscard]] Result<Head> read_packed_head(const std::string& what, const std::string& path,
                                            PackedSource& source);

// The same of a block that holds it.
[[nodiscard]] Result<Head> packed_head(const std::string& what, const std::string& path,
                                       std::span<const std::byte, k_block_bytes> block);

// How a stream is laid out. Thread safety: a value.
struct StreamShape {
  Form form = Form::padded;
  Layout layout = Layout::bytes_8;  // counts where there is no padding

  [[nodiscard]] std::uint64_t head_bytes() const noexcept {
    return form == Form::padded ? k_block_bytes : fields_bytes(layout);
  }
};
// Goes through a whole compressed stream, writes nothing, and tells its shape: by its length, since nothing else does.
// Refused: what read_packed_head() refuses, damaged gzip, and a stream that is longer or shorter than its head says;
// the first byte too many ends it.
[[nodiscard]] Result<StreamShape> shape_of(const std::string& what, const std::string& path,
                                           GzipSource& source);

}  // namespace oxbow::cowloop
