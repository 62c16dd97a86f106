// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder: structured replies as a strict client reads them.

#include <map>
#include <optional>
#include <stdexcept>
#include <string>

#include "exports/nbd/chunks.h"
#include "exports/nbd/test_session.h"

namespace oxbow::nbd {

// What the protocol demands of the server: the test fails without it.
inline void demand(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("a reply against the protocol: ") + what);
}

// One chunk as it came.
struct ReceivedChunk {
  ChunkType type{};
  bool done = false;
  std::uint64_t cookie = 0;
  Bytes payload;

  [[nodiscard]] bool is_error() const { return (std::to_underlying(type) & 0x8000U) != 0; }
};

// What all chunks of one request came to.
struct ReceivedReply {
  std::vector<ReceivedChunk> chunks;
  std::map<std::uint64_t, Bytes> content;  // by offset; holes as zeros
  std::size_t data_chunks = 0;
  std::size_t hole_chunks = 0;
  std::uint32_t error = 0;
  std::string text;
  std::optional<std::uint64_t> error_offset;
  // By context: pairs of length and flags.
  std::map<std::uint32_t, std::vector<std::pair<std::uint32_t, std::uint32_t>>> status;

  // Of a read without an error: all of it; empty where there are gaps.
  [[nodiscard]] Bytes data(std::uint64_t offset, std::size_t length) const {
    Bytes all;
    for (const auto& [at, bytes] : content) {
      if (at != offset + all.size()) return {};
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all.size() == length ? all : Bytes{};
  }
};

// The next chunk; nothing at the end of the connection.
inline std::optional<ReceivedChunk> receive_chunk(const RawClient& client) {
  const Bytes head = client.receive(k_chunk_header_bytes);
  if (head.size() < k_chunk_header_bytes) return std::nullopt;
  demand(get<std::uint32_t>(head, 0) == k_structured_reply_magic, "the magic of a chunk");
  const auto flags = get<std::uint16_t>(head, 4);
  demand((flags & ~unsigned{k_chunk_done}) == 0, "no flag but DONE");
  ReceivedChunk chunk{static_cast<ChunkType>(get<std::uint16_t>(head, 6)),
                      flags == k_chunk_done,
                      get<std::uint64_t>(head, 8),
                      {}};
  const auto length = get<std::uint32_t>(head, 16);
  demand(length <= k_max_payload_bytes + 8, "the length of a chunk");
  chunk.payload = client.receive(length);
  if (chunk.payload.size() < length) return std::nullopt;
  return chunk;
}

inline void take_error(const ReceivedChunk& chunk, ReceivedReply& reply) {
  demand(chunk.payload.size() >= 6U, "the length of an error");
  const std::size_t text = get<std::uint16_t>(chunk.payload, 4);
  const bool placed = chunk.type == ChunkType::error_offset;
  demand(chunk.payload.size() == 6 + text + (placed ? 8 : 0), "the length of an error");
  demand(reply.error == 0U, "one error chunk is enough");
  reply.error = get<std::uint32_t>(chunk.payload, 0);
  demand(reply.error != 0U, "an error is not 0");
  reply.text.assign(reinterpret_cast<const char*>(chunk.payload.data()) + 6, text);
  if (placed) reply.error_offset = get<std::uint64_t>(chunk.payload, 6 + text);
}

inline void take_chunk(const ReceivedChunk& chunk, ReceivedReply& reply) {
  reply.chunks.push_back(chunk);
  if (chunk.is_error()) return take_error(chunk, reply);
  if (chunk.type == ChunkType::none) {
    demand(chunk.payload.empty(), "NONE has no payload");
    demand(chunk.done, "NONE is always the last");
    return;
  }
  if (chunk.type == ChunkType::block_status) {
    demand(chunk.payload.size() >= 12U, "at least one descriptor");
    demand(chunk.payload.size() % 8 == 4U, "whole descriptors");
    const auto context = get<std::uint32_t>(chunk.payload, 0);
    demand(!reply.status.contains(context), "every context once");
    for (std::size_t at = 4; at < chunk.payload.size(); at += 8) {
      reply.status[context].emplace_back(get<std::uint32_t>(chunk.payload, at),
                                         get<std::uint32_t>(chunk.payload, at + 4));
    }
    return;
  }
  demand(chunk.payload.size() >= 9U, "at least one byte of content");
  const auto offset = get<std::uint64_t>(chunk.payload, 0);
  Bytes bytes(chunk.payload.begin() + 8, chunk.payload.end());
  if (chunk.type == ChunkType::offset_hole) {
    demand(bytes.size() == 4U, "the length of a hole chunk");
    const auto length = get<std::uint32_t>(bytes, 0);
    demand(length != 0U, "a hole is not empty");
    bytes.assign(length, std::byte{0});
    ++reply.hole_chunks;
  } else {
    demand(chunk.type == ChunkType::offset_data, "the type of a chunk");
    ++reply.data_chunks;
  }
  const auto after = reply.content.lower_bound(offset);
  if (after != reply.content.end()) {
    demand(offset + bytes.size() <= after->first, "overlap");
  }
  if (after != reply.content.begin()) {
    const auto before = std::prev(after);
    demand(before->first + before->second.size() <= offset, "overlap");
  }
  reply.content[offset] = std::move(bytes);
}

// All chunks of the request, which has to be the only one in flight.
inline ReceivedReply receive_reply(const RawClient& client, std::uint64_t cookie) {
  ReceivedReply reply;
  while (true) {
    const auto chunk = receive_chunk(client);
    if (!chunk) throw std::runtime_error("the connection ended within a reply");
    demand(chunk->cookie == cookie, "the cookie");
    take_chunk(*chunk, reply);
    if (chunk->done) return reply;
  }
}

// Sends one request and reads its structured reply.
inline ReceivedReply ask(const Session& session, Command command, std::uint64_t cookie, std::uint64_t offset,
                         std::uint32_t length, unsigned flags = 0) {
  demand(session.client.send(request(command, cookie, offset, length, static_cast<std::uint16_t>(flags))),
         "the connection ended");
  ReceivedReply reply = receive_reply(session.client, cookie);
  const std::uint64_t failed_at = reply.error_offset.value_or(offset);
  demand(failed_at >= offset && failed_at - offset < std::max(length, 1U),
         "an error lies within the request");
  return reply;
}

}  // namespace oxbow::nbd
