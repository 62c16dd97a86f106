// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/chunks.h"

#include <span>
#include <utility>

#include "device/zeros.h"
#include "exports/nbd/protocol.h"

namespace oxbow::nbd {
namespace {

// Writes the bytes of one chunk's head, big-endian.
class Head {
 public:
  explicit Head(Chunk& chunk) noexcept : chunk_(chunk) { chunk_.head_bytes = 0; }

  template <typename T>
  Head& put(T value) noexcept {
    set(chunk_.head, chunk_.head_bytes, value);
    chunk_.head_bytes = static_cast<std::uint8_t>(chunk_.head_bytes + sizeof(value));
    return *this;
  }
  // The common beginning; `payload` counts everything behind it.
  Head& begin(ChunkType type, std::uint64_t cookie, std::uint32_t payload, Last last) noexcept {
    const std::uint16_t flags = last == Last::yes ? k_chunk_done : std::uint16_t{0};
    return put(k_structured_reply_magic).put(flags).put(std::to_underlying(type)).put(cookie).put(payload);
  }

 private:
  Chunk& chunk_;
};

Chunk& add(Reply& reply, std::size_t pieces, std::uint32_t data_bytes) noexcept {
  reply.chunks.push_back({});
  Chunk& chunk = reply.chunks.back();
  chunk.pieces = static_cast<std::uint8_t>(pieces);
  chunk.data_bytes = data_bytes;
  return chunk;
}

void count(Reply& reply, const Chunk& chunk) noexcept {
  reply.bytes += chunk.head_bytes + std::size_t{chunk.data_bytes};
}

std::uint32_t bytes_in(const ReadView& view) noexcept {
  std::size_t bytes = 0;
  for (const iovec& piece : view.pieces) bytes += piece.iov_len;
  return static_cast<std::uint32_t>(bytes);
}

// Pieces [first, first + count) of a view, all holes or all data.
struct Run {
  std::size_t count = 0;
  std::uint64_t bytes = 0;
  bool hole = false;
};

// The longest run from piece `first` on; zeros that are too few for a chunk of their own belong to the data.
Run next_run(const ReadView& view, std::size_t first) noexcept {
  Run run;
  std::size_t i = first;
  while (i < view.pieces.size()) {
    Run alike{.hole = is_hole(view.pieces[i])};
    while (i < view.pieces.size() && is_hole(view.pieces[i]) == alike.hole) {
      ++alike.count;
      alike.bytes += view.pieces[i++].iov_len;
    }
    const bool worth = alike.hole && alike.bytes >= k_hole_bytes;
    if (worth && run.count == 0) {
      alike.hole = true;
      return alike;
    }
    if (worth) break;
    run.count += alike.count;
    run.bytes += alike.bytes;
  }
  return run;
}

bool has_holes(const ReadView& view) noexcept {
  for (const iovec& piece : view.pieces) {
    if (is_hole(piece)) return true;
  }
  return false;
}

void drop_pieces(ReadView& view, std::size_t first, std::size_t count) noexcept {
  Fixed<iovec, decltype(view.pieces)::capacity()> kept;
  for (std::size_t i = 0; i < view.pieces.size(); ++i) {
    if (i < first || i >= first + count) kept.push_back(view.pieces[i]);
  }
  view.pieces = kept;
}

}  // namespace

ChunkType type_of(const Chunk& chunk) noexcept {
  const auto head = std::span(chunk.head).first(chunk.head_bytes);
  if (get<std::uint32_t>(head, 0) != k_structured_reply_magic) return ChunkType::none;
  return static_cast<ChunkType>(get<std::uint16_t>(head, 6));
}

std::uint64_t offset_of(const Chunk& chunk) noexcept {
  return get<std::uint64_t>(chunk.head, k_chunk_header_bytes);
}

void put_simple(Reply& reply, std::uint64_t cookie, std::uint32_t error) noexcept {
  Chunk& chunk = add(reply, reply.data.pieces.size(), bytes_in(reply.data));
  Head(chunk).put(k_simple_reply_magic).put(error).put(cookie);
  count(reply, chunk);
}

void put_data(Reply& reply, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              std::size_t pieces, Last last) noexcept {
  Chunk& chunk = add(reply, pieces, length);
  Head(chunk).begin(ChunkType::offset_data, cookie, length + 8, last).put(offset);
  count(reply, chunk);
}

void put_hole(Reply& reply, std::uint64_t cookie, Range hole, Last last) noexcept {
  Chunk& chunk = add(reply, 0, 0);
  Head(chunk)
      .begin(ChunkType::offset_hole, cookie, 12, last)
      .put(hole.offset)
      .put(static_cast<std::uint32_t>(hole.length));
  count(reply, chunk);
}

void put_block_status(Reply& reply, std::uint64_t cookie, std::uint32_t context, std::uint32_t length,
                      std::size_t pieces, Last last) noexcept {
  Chunk& chunk = add(reply, pieces, length);
  Head(chunk).begin(ChunkType::block_status, cookie, length + 4, last).put(context);
  count(reply, chunk);
}

void put_error(Reply& reply, std::uint64_t cookie, std::uint32_t error, std::string_view text) noexcept {
  const auto length = static_cast<std::uint32_t>(text.size());
  Chunk& chunk = add(reply, text.empty() ? 0 : 1, length);
  Head(chunk)
      .begin(ChunkType::error, cookie, 6 + length, Last::yes)
      .put(error)
      .put(static_cast<std::uint16_t>(length));
  // iovec has no const form; it is sent from.
  if (!text.empty()) reply.data.pieces.push_back({const_cast<char*>(text.data()), text.size()});
  count(reply, chunk);
}

void put_error_at(Reply& reply, std::uint64_t cookie, std::uint32_t error, std::uint64_t offset) noexcept {
  Chunk& chunk = add(reply, 0, 0);
  Head(chunk)
      .begin(ChunkType::error_offset, cookie, 14, Last::yes)
      .put(error)
      .put(std::uint16_t{0})
      .put(offset);
  count(reply, chunk);
}

void put_none(Reply& reply, std::uint64_t cookie) noexcept {
  Chunk& chunk = add(reply, 0, 0);
  Head(chunk).begin(ChunkType::none, cookie, 0, Last::yes);
  count(reply, chunk);
}

void put_content(Reply& reply, std::uint64_t cookie, std::uint64_t offset, bool fragment,
                 Last last) noexcept {
  const bool end_apart = last == Last::yes && reply.data.may_fault;
  const Last in_content = end_apart ? Last::no : last;
  if (!fragment || !has_holes(reply.data)) {
    put_data(reply, cookie, offset, bytes_in(reply.data), reply.data.pieces.size(), in_content);
  } else {
    // Room for one that takes all the rest, and for the end.
    std::size_t at = 0;
    while (at < reply.data.pieces.size()) {
      Run run = next_run(reply.data, at);
      if (reply.chunks.room() <= 2) {
        run = {};
        for (; at + run.count < reply.data.pieces.size(); ++run.count) {
          run.bytes += reply.data.pieces[at + run.count].iov_len;
        }
      }
      const bool ends = at + run.count == reply.data.pieces.size();
      const Last here = ends ? in_content : Last::no;
      if (run.hole) {
        put_hole(reply, cookie, {offset, run.bytes}, here);
        drop_pieces(reply.data, at, run.count);
      } else {
        put_data(reply, cookie, offset, static_cast<std::uint32_t>(run.bytes), run.count, here);
        at += run.count;
      }
      offset += run.bytes;
    }
  }
  if (end_apart) put_none(reply, cookie);
}

}  // namespace oxbow::nbd
