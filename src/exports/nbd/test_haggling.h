// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of the handshake: what clients say and servers answer, byte for byte.

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "exports/nbd/handshake.h"
#include "exports/nbd/test_device.h"

namespace oxbow::nbd {

using Bytes = std::vector<std::byte>;
inline constexpr std::uint16_t k_writable_flags =
    0x0d6d;  // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO

inline Bytes option(std::uint32_t number, const Bytes& data = {}) {
  Bytes out;
  put(out, k_option_magic);
  put(out, number);
  put(out, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

inline Bytes text(std::string_view value) {
  Bytes out;
  put(out, value);
  return out;
}

inline Bytes info_data(std::string_view name, std::initializer_list<std::uint16_t> wanted = {}) {
  Bytes out;
  put(out, static_cast<std::uint32_t>(name.size()));
  put(out, name);
  put(out, static_cast<std::uint16_t>(wanted.size()));
  for (const std::uint16_t each : wanted) put(out, each);
  return out;
}

inline Bytes reply(std::uint32_t number, ReplyType type, const Bytes& data = {}) {
  Bytes out;
  put_option_reply(out, static_cast<Option>(number), type, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

inline Bytes error(std::uint32_t number, ReplyType type, std::string_view why) {
  return reply(number, type, text(why));
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Bytes flags(std::uint32_t value) {
  Bytes out;
  put(out, value);
  return out;
}

inline Bytes export_info(std::uint64_t size, std::uint16_t transmission) {
  Bytes out;
  put(out, std::uint16_t{0});
  put(out, size);
  put(out, transmission);
  return out;
}

// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
inline Bytes context_data(std::string_view name, const std::vector<std::string_view>& queries) {
  Bytes out;
  put(out, static_cast<std::uint32_t>(name.size()));
  put(out, name);
  put(out, static_cast<std::uint32_t>(queries.size()));
  for (const std::string_view each : queries) {
    put(out, static_cast<std::uint32_t>(each.size()));
    put(out, each);
  }
  return out;
}

inline Bytes context(std::uint32_t number, std::uint32_t id, std::string_view name) {
  Bytes data;
  put(data, id);
  put(data, name);
  return reply(number, ReplyType::meta_context, data);
}

// Two exports, a conversation with a server of them, and what came of it.
// Thread safety: none.
class Haggling {
 protected:
  // What the server answers to `in`; the client's flags 3 go before it unless `raw`.
  Bytes talk(const Bytes& in, bool raw = false) {
    Handshake handshake(exports_, {}, tls_);
    handshake.output().clear();
    const Bytes all = raw ? in : flags(3) + in;
    consumed_ = handshake.feed(all) - (raw ? 0 : 4);
    finish(handshake);
    return handshake.output();
  }
  void finish(Handshake& handshake) {
    state_ = handshake.state();
    why_ = handshake.why_closed();
    got_ = handshake.negotiated();
  }

  Handshake::Tls tls_ = Handshake::Tls::none;
  TestDevice disk_{1 << 20};
  TestDevice other_{12345};
  Exports exports_ = *Exports::make({{.name = "disk", .device = &disk_.device, .description = "the disk"},
                                     {.name = "o", .device = &other_.device, .read_only = true}});
  Handshake::State state_{};
  std::string why_;
  Negotiated got_;
  std::size_t consumed_ = 0;
};

inline constexpr auto k_haggling = Handshake::State::haggling;
inline constexpr auto k_starting_tls = Handshake::State::starting_tls;
inline constexpr auto k_transmission = Handshake::State::transmission;
inline constexpr auto k_closed = Handshake::State::closed;

}  // namespace oxbow::nbd
