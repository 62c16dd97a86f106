// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words of the NBD protocol and their bytes (big-endian), as doc/proto.md of the NBD project defines them.
// No I/O and no policy here.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "oxbow/io_status.h"

namespace oxbow::nbd {

inline constexpr std::uint64_t k_init_magic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t k_option_magic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t k_option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t k_request_magic = 0x25609513;
inline constexpr std::uint32_t k_simple_reply_magic = 0x67446698;

inline constexpr std::size_t k_client_flags_bytes = 4;
inline constexpr std::size_t k_option_header_bytes = 16;
inline constexpr std::size_t k_request_bytes = 28;
inline constexpr std::size_t k_simple_reply_bytes = 16;
inline constexpr std::size_t k_reserved_zeroes = 124;  // after the answer to EXPORT_NAME

inline constexpr std::size_t k_max_string_bytes = 4096;          // names and texts
inline constexpr std::uint32_t k_max_payload_bytes = 32U << 20;  // of one READ or WRITE

// Handshake flags; the client's answer uses the same bits.
namespace handshake_flag {
inline constexpr std::uint16_t k_fixed_newstyle = 1U << 0;
inline constexpr std::uint16_t k_no_zeroes = 1U << 1;
}  // namespace handshake_flag

namespace transmission_flag {
inline constexpr std::uint16_t k_has_flags = 1U << 0;
inline constexpr std::uint16_t k_read_only = 1U << 1;
inline constexpr std::uint16_t k_send_flush = 1U << 2;
inline constexpr std::uint16_t k_send_fua = 1U << 3;
inline constexpr std::uint16_t k_send_trim = 1U << 5;
inline constexpr std::uint16_t k_send_write_zeroes = 1U << 6;
inline constexpr std::uint16_t k_send_df = 1U << 7;  // only with structured replies
inline constexpr std::uint16_t k_can_multi_conn = 1U << 8;
inline constexpr std::uint16_t k_send_cache = 1U << 10;
inline constexpr std::uint16_t k_send_fast_zero = 1U << 11;
}  // namespace transmission_flag

namespace command_flag {
inline constexpr std::uint16_t k_fua = 1U << 0;
inline constexpr std::uint16_t k_no_hole = 1U << 1;
inline constexpr std::uint16_t k_df = 1U << 2;  // do not fragment
inline constexpr std::uint16_t k_req_one = 1U << 3;
inline constexpr std::uint16_t k_fast_zero = 1U << 4;
}  // namespace command_flag

// What the client asks for while haggling. Other values arrive too.
enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
};

enum class ReplyType : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  error_unsupported = 0x80000001,
  error_policy = 0x80000002,
  error_invalid = 0x80000003,
  error_tls_required = 0x80000005,
  error_unknown = 0x80000006,
  error_shutdown = 0x80000007,
  error_too_big = 0x80000009,
};

enum class InfoType : std::uint16_t { basics = 0, name = 1, description = 2, block_size = 3 };

// A metadata context that can be selected: its number in answers to BLOCK_STATUS, and its name, which is a
// namespace with its colon and a leaf.
struct MetaContext {
  std::uint32_t id;
  std::string_view space;
  std::string_view leaf;

  [[nodiscard]] constexpr bool is_called(std::string_view name) const noexcept {
    return name.starts_with(space) && name.substr(space.size()) == leaf;
  }
};
inline constexpr MetaContext k_allocation_context{1, "base:", "allocation"};
inline constexpr MetaContext k_depth_context{2, "qemu:", "allocation-depth"};

// Other values arrive too.
enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

struct OptionHeader {
  Option option;
  std::uint32_t length;  // bytes of data that follow
};

// One request of the transmission phase, without its payload.
struct RequestHeader {
  std::uint16_t flags = 0;
  Command command = Command::read;
  std::uint64_t cookie = 0;  // goes back with the reply
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};

// What the client wants to know of which export: the data of INFO and GO. The name points into the data.
struct InfoRequest {
  std::string_view name;
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
};

// Which metadata contexts of which export the client asks for: the data of LIST_META_CONTEXT and
// SET_META_CONTEXT. It points into the data.
struct ContextRequest {
  std::string_view name;
  std::uint32_t queries = 0;
  std::span<const std::byte> rest;  // the queries, for next_query()
};

// Appends `value`, big-endian.
template <typename T>
  requires std::is_unsigned_v<T>
void put(std::vector<std::byte>& out, T value) {
  for (std::size_t shift = sizeof(T) * 8; shift > 0;) {
    shift -= 8;
    out.push_back(static_cast<std::byte>((std::uint64_t{value} >> shift) & 0xffU));
  }
}
void put(std::vector<std::byte>& out, std::string_view text);

// The big-endian number at byte `at`, which has to be within `in`.
template <typename T>
  requires std::is_unsigned_v<T>
[[nodiscard]] T get(std::span<const std::byte> in, std::size_t at) noexcept {
  T value{};
  std::memcpy(&value, in.subspan(at, sizeof(T)).data(), sizeof(T));
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  return value;
}

// Writes `value` big-endian at byte `at` of `out`, which has room for it.
template <typename T>
  requires std::is_unsigned_v<T>
void set(std::span<std::byte> out, std::size_t at, T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  std::memcpy(out.subspan(at, sizeof(T)).data(), &value, sizeof(T));
}

// Nothing when the magic is wrong. `in` has k_option_header_bytes.
[[nodiscard]] std::optional<OptionHeader> decode_option(std::span<const std::byte> in) noexcept;
// Nothing when lengths and data don't fit together.
[[nodiscard]] std::optional<InfoRequest> decode_info_request(std::span<const std::byte> data) noexcept;
// Nothing when lengths and data don't fit together; otherwise next_query() may be called `queries` times.
[[nodiscard]] std::optional<ContextRequest> decode_context_request(std::span<const std::byte> data) noexcept;
// Takes the next query off `rest`.
[[nodiscard]] std::string_view next_query(std::span<const std::byte>& rest) noexcept;
// Nothing when the magic is wrong. `in` has k_request_bytes.
[[nodiscard]] std::optional<RequestHeader> decode_request(std::span<const std::byte> in) noexcept;

void put_greeting(std::vector<std::byte>& out, std::uint16_t flags);
// The head of an option's reply; `length` bytes of data have to follow.
void put_option_reply(std::vector<std::byte>& out, Option option, ReplyType type, std::uint32_t length);
// A whole reply whose data is text: for errors, and empty for ACK.
void put_option_reply(std::vector<std::byte>& out, Option option, ReplyType type, std::string_view text);

[[nodiscard]] std::array<std::byte, k_request_bytes> encode_request(const RequestHeader& request) noexcept;

// The protocol's number for a status: 0, or one of its eight errors; whatever it has no word for is EIO.
[[nodiscard]] std::uint32_t wire_error(IoStatus status) noexcept;
// The same for an answer to `request`: ENOTSUP is for zeros that are to be fast, EOVERFLOW for reads that are
// not to be fragmented.
[[nodiscard]] std::uint32_t wire_error(const RequestHeader& request, IoStatus status) noexcept;

}  // namespace oxbow::nbd
