// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/protocol.h"

#include <cerrno>

namespace oxbow::nbd {
namespace {

// Writes `value` big-endian at `at`, which moves on.
template <typename T>
void store(std::span<std::byte> out, std::size_t& at, T value) noexcept {
  set(out, at, value);
  at += sizeof(T);
}

}  // namespace

void put(std::vector<std::byte>& out, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::optional<OptionHeader> decode_option(std::span<const std::byte> in) noexcept {
  if (get<std::uint64_t>(in, 0) != k_option_magic) return std::nullopt;
  return OptionHeader{static_cast<Option>(get<std::uint32_t>(in, 8)), get<std::uint32_t>(in, 12)};
}

std::optional<InfoRequest> decode_info_request(std::span<const std::byte> data) noexcept {
  constexpr std::size_t k_fixed = 4 + 2;  // length of the name, number of requests
  if (data.size() < k_fixed) return std::nullopt;
  const std::uint64_t name_bytes = get<std::uint32_t>(data, 0);
  if (name_bytes > data.size() - k_fixed) return std::nullopt;
  const std::size_t requests_at = 4 + name_bytes;
  const std::size_t requests = get<std::uint16_t>(data, requests_at);
  if (data.size() != k_fixed + name_bytes + 2 * requests) return std::nullopt;

  InfoRequest request;
  request.name = {reinterpret_cast<const char*>(data.data()) + 4, name_bytes};
  for (std::size_t i = 0; i < requests; ++i) {
    switch (static_cast<InfoType>(get<std::uint16_t>(data, requests_at + 2 + 2 * i))) {
      case InfoType::name:
        request.wants_name = true;
        break;
      case InfoType::description:
        request.wants_description = true;
        break;
      case InfoType::block_size:
        request.wants_block_size = true;
        break;
      default:
        break;  // sent anyway, or unknown: the protocol has unknown ones ignored
    }
  }
  return request;
}

std::optional<ContextRequest> decode_context_request(std::span<const std::byte> data) noexcept {
  constexpr std::size_t k_length = 4;
  constexpr std::size_t k_fixed = k_length + 4;  // length of the name, number of queries
  if (data.size() < k_fixed) return std::nullopt;
  const std::uint64_t name_bytes = get<std::uint32_t>(data, 0);
  if (name_bytes > data.size() - k_fixed) return std::nullopt;
  const ContextRequest request{{reinterpret_cast<const char*>(data.data()) + k_length, name_bytes},
                               get<std::uint32_t>(data, k_length + name_bytes),
                               data.subspan(k_fixed + name_bytes)};
  std::span<const std::byte> rest = request.rest;
  for (std::uint32_t i = 0; i < request.queries; ++i) {
    if (rest.size() < k_length || get<std::uint32_t>(rest, 0) > rest.size() - k_length) return std::nullopt;
    (void)next_query(rest);
  }
  if (!rest.empty()) return std::nullopt;
  return request;
}

std::string_view next_query(std::span<const std::byte>& rest) noexcept {
  const std::size_t length = get<std::uint32_t>(rest, 0);
  const std::string_view query(reinterpret_cast<const char*>(rest.data()) + 4, length);
  rest = rest.subspan(4 + length);
  return query;
}

std::optional<RequestHeader> decode_request(std::span<const std::byte> in) noexcept {
  if (get<std::uint32_t>(in, 0) != k_request_magic) return std::nullopt;
  return RequestHeader{get<std::uint16_t>(in, 4), static_cast<Command>(get<std::uint16_t>(in, 6)),
                       get<std::uint64_t>(in, 8), get<std::uint64_t>(in, 16), get<std::uint32_t>(in, 24)};
}

void put_greeting(std::vector<std::byte>& out, std::uint16_t flags) {
  put(out, k_init_magic);
  put(out, k_option_magic);
  put(out, flags);
}

void put_option_reply(std::vector<std::byte>& out, Option option, ReplyType type, std::uint32_t length) {
  put(out, k_option_reply_magic);
  put(out, static_cast<std::uint32_t>(option));
  put(out, static_cast<std::uint32_t>(type));
  put(out, length);
}

void put_option_reply(std::vector<std::byte>& out, Option option, ReplyType type, std::string_view text) {
  text = text.substr(0, k_max_string_bytes);
  put_option_reply(out, option, type, static_cast<std::uint32_t>(text.size()));
  put(out, text);
}

std::array<std::byte, k_request_bytes> encode_request(const RequestHeader& request) noexcept {
  std::array<std::byte, k_request_bytes> out;
  std::size_t at = 0;
  store(std::span(out), at, k_request_magic);
  store(std::span(out), at, request.flags);
  store(std::span(out), at, static_cast<std::uint16_t>(request.command));
  store(std::span(out), at, request.cookie);
  store(std::span(out), at, request.offset);
  store(std::span(out), at, request.length);
  return out;
}

std::uint32_t wire_error(const RequestHeader& request, IoStatus status) noexcept {
  const bool fast =
      request.command == Command::write_zeroes && (request.flags & command_flag::k_fast_zero) != 0;
  const bool whole = request.command == Command::read && (request.flags & command_flag::k_df) != 0;
  if (status.error_number() == EOPNOTSUPP && !fast) return wire_error(IoStatus::error(EIO));
  if (status.error_number() == EOVERFLOW && !whole) return wire_error(IoStatus::error(EIO));
  return wire_error(status);
}

std::uint32_t wire_error(IoStatus status) noexcept {
  switch (status.error_number()) {
    case 0:
      return 0;
    case EPERM:
    case EACCES:
    case EROFS:
      return 1;
    case ENOMEM:
      return 12;
    case EINVAL:
      return 22;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return 28;
    case EOVERFLOW:
      return 75;
    case EOPNOTSUPP:
      return 95;
    case ESHUTDOWN:
      return 108;
    default:
      return 5;
  }
}

}  // namespace oxbow::nbd
