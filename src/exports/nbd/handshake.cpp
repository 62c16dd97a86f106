// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/handshake.h"

#include <algorithm>
#include <utility>

#include "device/device.h"

namespace oxbow::nbd {
namespace {

// What a client may send that only wants to use an export; more is an attack or a mistake.
constexpr std::uint32_t k_max_option_data_bytes = 64U << 10;
constexpr unsigned k_max_options = 128;
constexpr std::uint16_t k_flags = handshake_flag::k_fixed_newstyle | handshake_flag::k_no_zeroes;

bool known(Option option) {
  switch (option) {
    case Option::export_name:
    case Option::abort:
    case Option::list:
    case Option::info:
    case Option::go:
      return true;
    default:
      return false;
  }
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void put_info(std::vector<std::byte>& out, Option option, InfoType type, std::string_view text) {
  put_option_reply(out, option, ReplyType::info, static_cast<std::uint32_t>(2 + text.size()));
  put(out, static_cast<std::uint16_t>(type));
  put(out, text);
}

void put_infos(std::vector<std::byte>& out, Option option, const Export& of, const InfoRequest& wanted) {
  put_option_reply(out, option, ReplyType::info, 12U);
  put(out, static_cast<std::uint16_t>(InfoType::basics));
  put(out, of.device->size());
  put(out, of.transmission_flags());
  if (wanted.wants_name) put_info(out, option, InfoType::name, of.name);
  if (wanted.wants_description && !of.description.empty()) {
    put_info(out, option, InfoType::description, of.description);
  }
  if (wanted.wants_block_size) {
    put_option_reply(out, option, ReplyType::info, 14U);
    put(out, static_cast<std::uint16_t>(InfoType::block_size));
    put(out, std::uint32_t{1});
    put(out, of.preferred_block_bytes);
    put(out, k_max_payload_bytes);
  }
}

}  // namespace

Handshake::Handshake(const Exports& exports, std::string refusal)
    : exports_(exports), refusal_(std::move(refusal)) {
  put_greeting(out_, k_flags);
}

std::size_t Handshake::feed(std::span<const std::byte> in) {
  const std::size_t offered = in.size();
  while (state_ == State::haggling && !in.empty()) {
    const std::size_t taken = std::min(in.size(), missing_);
    const auto piece = in.first(taken);
    if (keep_) data_.insert(data_.end(), piece.begin(), piece.end());
    in = in.subspan(taken);
    missing_ -= taken;
    if (missing_ == 0) complete();
  }
  return offered - in.size();
}

void Handshake::complete() {
  switch (expecting_) {
    case Expect::client_flags:
      client_flags();
      break;
    case Expect::option_header:
      option_header();
      break;
    case Expect::option_data:
      option_data();
      break;
  }
}

void Handshake::expect(Expect what, std::size_t bytes) {
  expecting_ = what;
  missing_ = bytes;
  keep_ = true;
  data_.clear();
}

void Handshake::close(std::string_view why) {
  state_ = State::closed;
  why_closed_ = why;
}

void Handshake::client_flags() {
  const auto flags = get<std::uint32_t>(data_, 0);
  if ((flags & ~std::uint32_t{k_flags}) != 0) return close("the client sent flags that were not offered");
  no_zeroes_ = (flags & handshake_flag::k_no_zeroes) != 0;
  expect(Expect::option_header, k_option_header_bytes);
}

void Handshake::option_header() {
  const auto header = decode_option(data_);
  if (!header) return close("an option without the protocol's magic number");
  if (++options_ > k_max_options) return close("more than 128 options");
  if (header->length > k_max_option_data_bytes) return close("an option with more than 64 KiB of data");
  option_ = header->option;
  expect(Expect::option_data, header->length);
  keep_ = known(option_);
  if (missing_ == 0) option_data();
}

void Handshake::option_data() {
  if (option_ == Option::abort) {
    answer(ReplyType::ack);
    return close({});
  }
  if (option_ == Option::export_name) return export_name(text_of(data_));
  if (!refusal_.empty()) {
    answer(ReplyType::error_policy, refusal_);
  } else if (option_ == Option::list) {
    list();
  } else if (option_ == Option::info || option_ == Option::go) {
    info();
  } else {
    answer(ReplyType::error_unsupported, "this server does not know the option");
  }
  if (state_ == State::haggling) expect(Expect::option_header, k_option_header_bytes);
}

void Handshake::answer(ReplyType type, std::string_view text) { put_option_reply(out_, option_, type, text); }

// The one option whose answer has no place for an error.
void Handshake::export_name(std::string_view name) {
  if (!refusal_.empty()) return close(refusal_);
  const Export* found = exports_.find(name);
  if (found == nullptr) return close("the client asked for an export that does not exist");
  put(out_, found->device->size());
  put(out_, found->transmission_flags());
  if (!no_zeroes_) out_.resize(out_.size() + k_reserved_zeroes);
  chosen_ = found;
  state_ = State::transmission;
}

void Handshake::info() {
  const auto wanted = decode_info_request(data_);
  if (!wanted)
    return answer(ReplyType::error_invalid, "the lengths in the option's data do not fit together");
  if (wanted->name.size() > k_max_string_bytes) {
    return answer(ReplyType::error_too_big, "an export's name has at most 4096 bytes");
  }
  if (wanted->name.find('\0') != std::string_view::npos) {
    return answer(ReplyType::error_invalid, "an export's name has no zero bytes");
  }
  const Export* found = exports_.find(wanted->name);
  if (found == nullptr) {
    return answer(ReplyType::error_unknown,
                  "there is no export '" + std::string(wanted->name.substr(0, 256)) + "'");
  }
  put_infos(out_, option_, *found, *wanted);
  answer(ReplyType::ack);
  if (option_ == Option::go) {
    chosen_ = found;
    state_ = State::transmission;
  }
}

void Handshake::list() {
  if (!data_.empty()) return answer(ReplyType::error_invalid, "the option LIST has no data");
  for (const Export& each : exports_.all()) {
    put_option_reply(out_, option_, ReplyType::server,
                     static_cast<std::uint32_t>(4 + each.name.size() + each.description.size()));
    put(out_, static_cast<std::uint32_t>(each.name.size()));
    put(out_, each.name);
    put(out_, each.description);
  }
  answer(ReplyType::ack);
}

}  // namespace oxbow::nbd
