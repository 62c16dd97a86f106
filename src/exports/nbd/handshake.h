// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "exports/nbd/export.h"
#include "exports/nbd/protocol.h"

namespace oxbow::nbd {

// The server's side of the fixed newstyle handshake as a machine that takes bytes in pieces of any size and
// says which bytes to answer; no I/O. It holds at most the data of one option (64 KiB) and its answers.
// Thread safety: none; belongs to one connection.
class Handshake {
 public:
  enum class State : std::uint8_t {
    haggling,
    transmission,  // chosen() is what the client got; what it sends from here on are requests
    closed,        // send what there is to send, then close
  };

  // With `refusal`, a sentence, the client is told that and gets nothing.
  explicit Handshake(const Exports& exports, std::string refusal = {});

  // Takes bytes from the client and returns how many: all of them unless the state changed.
  [[nodiscard]] std::size_t feed(std::span<const std::byte> in);

  // To be sent, in order; the caller empties it.
  [[nodiscard]] std::vector<std::byte>& output() noexcept { return out_; }
  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] const Export* chosen() const noexcept { return chosen_; }
  // Why the state is `closed`, for the log; empty when the client wanted it.
  [[nodiscard]] std::string_view why_closed() const noexcept { return why_closed_; }

 private:
  enum class Expect : std::uint8_t { client_flags, option_header, option_data };

  void complete();  // what was expected is there
  void client_flags();
  void option_header();
  void option_data();
  void export_name(std::string_view name);
  void info();
  void list();
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
  bool no_zeroes_ = false;
  const Export* chosen_ = nullptr;
  std::string_view why_closed_;
};

}  // namespace oxbow::nbd
