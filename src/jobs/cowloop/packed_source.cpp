// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/packed_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "stores/blocking.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_input_bytes = 64 << 10;
constexpr std::uint64_t k_drain_bytes = 256 << 10;

}  // namespace

Result<std::size_t> PlainSource::read(std::span<std::byte> out) {
  const std::uint64_t left = file_->size() - std::min(at_, file_->size());
  out = out.first(std::min<std::uint64_t>(out.size(), left));
  if (out.empty()) return 0;
  if (const IoStatus read = read_blocking(queue_, *file_, at_, out); !read.ok())
    return std::unexpected(Error::from_errno(what_, file_->describe(), read.error_number()));
  at_ += out.size();
  return out.size();
}

std::uint64_t PlainSource::zeros(std::uint64_t limit) {
  limit = std::min(limit, file_->size() - std::min(at_, file_->size()));
  std::uint64_t found = 0;
  while (found < limit) {
    Extents extents;
    (void)file_->extents({at_ + found, limit - found}, extents);
    for (const Extent& extent : extents) {
      if (extent.kind != Kind::zero) return found;
      found += extent.length;
    }
  }
  return std::min(found, limit);
}

GzipSource::GzipSource(Queue& queue, std::string what, std::shared_ptr<Store> file)
    : queue_(queue), what_(std::move(what)), file_(std::move(file)) {}

// More input. False at the file's end.
Result<bool> GzipSource::load() {
  buffer_.resize(std::min(k_input_bytes, file_->size() - at_));
  if (const IoStatus read = read_blocking(queue_, *file_, at_, buffer_); !read.ok())
    return std::unexpected(Error::from_errno(what_, file_->describe(), read.error_number()));
  at_ += buffer_.size();
  input_ = buffer_;
  return !buffer_.empty();
}

Result<std::size_t> GzipSource::read(std::span<std::byte> out) {
  std::size_t filled = 0;
  while (filled < out.size() && !ended_) {
    if (input_.empty()) {
      const auto loaded = load();
      if (!loaded) return std::unexpected(loaded.error());
      if (!*loaded)
        return std::unexpected(
            Error(what_, file_->describe(),
                  fmt::format("its gzip data ends at byte {}, in the middle of a stream", at_)));
    }
    const auto step = inflater_.step(input_, out.subspan(filled));
    if (!step) return std::unexpected(Error(what_, file_->describe(), step.error()));
    input_ = input_.subspan(step->taken);
    filled += step->given;
    ended_ = step->ended;
  }
  return filled;
}

Result<void> read_whole(const std::string& what, const std::string& path, PackedSource& source,
                        std::span<std::byte> out, const char* part, std::uint64_t at) {
  const auto read = source.read(out);
  if (!read) return std::unexpected(read.error());
  if (*read == out.size()) return {};
  return std::unexpected(Error(
      what, path, fmt::format("it ends at byte {} of the packed stream, inside its {}", at + *read, part)));
}

Result<Head> read_packed_head(const std::string& what, const std::string& path, PackedSource& source) {
  std::array<std::byte, k_block_bytes> block{};
  const auto fields = std::span(block).first(fields_bytes(Layout::bytes_8));
  if (auto read = read_whole(what, path, source, fields, "head", 0); !read)
    return std::unexpected(read.error());
  return packed_head(what, path, block);
}

Result<Head> packed_head(const std::string& what, const std::string& path,
                         std::span<const std::byte, k_block_bytes> block) {
  const auto head = parse(block);
  const auto refuse = [&](std::string why) { return std::unexpected(Error(what, path, std::move(why))); };
  if (!head) return refuse(head.error().text);
  if (!head->packed) return refuse("it is not packed: its flags lack 0x0002");
  if (head->dirty) return refuse("it is dirty, which a packed file never is: its flags have 0x0001");
  if (head->merging) return refuse("it says that it is being merged, which a packed file never is");
  return *head;
}

Result<StreamShape> shape_of(const std::string& what, const std::string& path, GzipSource& source) {
  const auto head = read_packed_head(what, path, source);
  if (!head) return std::unexpected(head.error());
  const std::uint64_t blocks = head->used_blocks * k_block_bytes;
  const std::uint64_t gapless = fields_bytes(head->layout) + head->map_bytes + blocks;
  const std::uint64_t padded = head->data_offset + blocks;
  std::vector<std::byte> buffer(k_drain_bytes);
  std::uint64_t length = fields_bytes(Layout::bytes_8);
  while (length <= padded) {
    const auto read = source.read(std::span(buffer).first(std::min(k_drain_bytes, padded + 1 - length)));
    if (!read) return std::unexpected(read.error());
    if (*read == 0) break;
    length += *read;
  }
  if (length == gapless) return StreamShape{Form::gapless, head->layout};
  if (length == padded || (blocks == 0 && length == k_bitmap_at + head->map_bytes))
    return StreamShape{Form::padded, head->layout};
  return std::unexpected(
      Error(what, path,
            fmt::format(
                "its gzip data holds {}{} bytes, and with mapsize {} and cowused {} it has to hold {}, or {} "
                "with padding",
                length > padded ? "more than " : "", std::min(length, padded), head->map_bytes,
                head->used_blocks, gapless, padded)));
}

}  // namespace oxbow::cowloop
