// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "exports/nbd/export.h"
#include "exports/nbd/negotiated.h"
#include "exports/nbd/protocol.h"

namespace oxbow::nbd {

// The server's side of the fixed newstyle handshake as a machine that takes bytes in pieces of any size and
// says which bytes to answer; no I/O. It holds at most the data of one option (64 KiB), and of answers those of one
// more than 64 KiB.
// Thread safety: none; belongs to one connection.
class Handshake {
 public:
  enum class State : std::uint8_t {
    haggling,
    starting_tls,  // after the output comes a TLS handshake, then secured(); what the client has sent in the
                   // clear behind its option is to be thrown away
    transmission,  // negotiated() is what the client got; what it sends from here on are requests
    closed,        // send what there is to send, then close
  };

  enum class Tls : std::uint8_t { none, required };

  // With `refusal`, a sentence, the client is told that and gets nothing.
  explicit Handshake(const Exports& exports, std::string refusal = {}, Tls tls = Tls::none);

  // Takes bytes from the client and returns how many: all of them unless the state changed, or 64 KiB and more
  // are to be sent; then the rest is to be fed again once output() is shorter.
  [[nodiscard]] std::size_t feed(std::span<const std::byte> in);

  // The TLS handshake has succeeded: what is fed from here on came, and what is put out goes, encrypted. Only
  // while `starting_tls`.
  void secured();
  // From now on the client is told that the server is stopping, and gets nothing.
  void shut_down() noexcept { stopping_ = true; }

  // To be sent, in order; the caller empties it.
  [[nodiscard]] std::vector<std::byte>& output() noexcept { return out_; }
  [[nodiscard]] State state() const noexcept { return state_; }
  // Nothing is served before the state is `transmission`.
  [[nodiscard]] Negotiated negotiated() const noexcept;
  // Why the state is `closed`, for the log; empty when the client wanted it.
  [[nodiscard]] std::string_view why_closed() const noexcept { return why_closed_; }

 private:
  struct Contexts {
    bool allocation = false;
    bool depth = false;
  };
  enum class Expect : std::uint8_t { client_flags, option_header, option_data };

  // A reply that refuses an option.
  struct Refused {
    ReplyType type;
    std::string_view why;
  };

  void complete();  // what was expected is there
  void client_flags();
  void option_header();
  void option_data();
  [[nodiscard]] std::optional<Refused> refused() const noexcept;
  void accepted_option();
  void export_name(std::string_view name);
  // `to_use`: it may be made for that.
  [[nodiscard]] const Export* find_or_answer(std::string_view name, bool to_use);
  void info();
  void list();
  void structured_reply();
  void meta_context();
  void starttls();
  void answer(ReplyType type, std::string_view text = {});
  void expect(Expect what, std::size_t bytes);
  void close(std::string_view why);

  const Exports& exports_;
  std::string refusal_;
  State state_ = State::haggling;
  Expect expecting_ = Expect::client_flags;
  std::size_t missing_ = k_client_flags_bytes;  // bytes until complete()
  bool keep_ = true;                            // whether they are collected in data_ or dropped
  std::vector<std::byte> data_;
  std::vector<std::byte> out_;
  Option option_{};
  unsigned options_ = 0;
  bool too_big_ = false;  // the option's data, which are dropped
  const Tls tls_;
  bool encrypted_ = false;
  bool stopping_ = false;
  bool no_zeroes_ = false;
  bool structured_ = false;
  Contexts contexts_;
  const Export* contexts_of_ = nullptr;  // the export that they were selected for
  const Export* chosen_ = nullptr;
  std::string_view why_closed_;
};

}  // namespace oxbow::nbd
