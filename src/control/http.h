// SPDX-License-Identifier: Apache-2.0
#pragma once

// HTTP/1.1 without sockets: whole requests in, whole responses out. The connection that reads a request asks
// Framing how much belongs to it, so that no parser ever sees more than the limits allow; cpp-httplib then parses it
// and writes the response.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "control/router.h"

namespace oxbow::control {

inline constexpr std::size_t k_largest_head = 8192;  // request line and header fields, in bytes
inline constexpr std::size_t k_largest_body = std::size_t{1} << 20U;  // in bytes

// How much of a request is there. Thread safety: a value.
struct Framing {
  enum class State : std::uint8_t {
    more,      // read on
    complete,  // `length` bytes are a request
    refused,   // `status` and `why` are the answer, and nothing more is read
  };
  State state = State::more;
  std::size_t length = 0;
  int status = 0;
  std::string_view why;

  // `received` is everything so far.
  [[nodiscard]] static Framing of(std::string_view received);
};

// Turns requests into responses, one per connection ("Connection: close"). Thread safety: any thread.
class Http {
 public:
  // The router is borrowed.
  explicit Http(Router& router);
  ~Http();
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;
  Http(Http&&) = delete;
  Http& operator=(Http&&) = delete;

  // `request` is one that Framing calls complete. Answers the response's bytes.
  [[nodiscard]] std::string answer(std::string_view request);
  // The response to what is no request.
  [[nodiscard]] static std::string refusal(int status, std::string_view why);

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace oxbow::control
