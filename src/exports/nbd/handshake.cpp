// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/handshake.h"

#include <algorithm>
#include <utility>

#include "device/device.h"

namespace oxbow::nbd {
namespace {

// What a client may send that only wants to use an export; more is an attack or a mistake.
constexpr std::uint32_t k_max_option_data_bytes = 64U << 10;
constexpr std::uint32_t k_max_drained_bytes = 1U << 20;  // with more, the client is not answered any more
constexpr unsigned k_max_options = 128;
// With more to be sent, no more options are taken.
constexpr std::size_t k_full_output_bytes = 64U << 10;
constexpr std::uint16_t k_flags = handshake_flag::k_fixed_newstyle | handshake_flag::k_no_zeroes;

bool known(Option option) {
  switch (option) {
    case Option::export_name:
    case Option::abort:
    case Option::list:
    case Option::starttls:
    case Option::info:
    case Option::go:
    case Option::structured_reply:
    case Option::list_meta_context:
    case Option::set_meta_context:
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

void put_infos(std::vector<std::byte>& out, Option option, const Export& of, const InfoRequest& wanted,
               bool structured_replies) {
  put_option_reply(out, option, ReplyType::info, 12U);
  put(out, static_cast<std::uint16_t>(InfoType::basics));
  put(out, of.device->size());
  put(out, of.transmission_flags(structured_replies));
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

void put_context(std::vector<std::byte>& out, Option option, std::uint32_t id, const MetaContext& context) {
  put_option_reply(out, option, ReplyType::meta_context,
                   static_cast<std::uint32_t>(4 + context.space.size() + context.leaf.size()));
  put(out, id);
  put(out, context.space);
  put(out, context.leaf);
}

}  // namespace

Handshake::Handshake(const Exports& exports, std::string refusal, Tls tls)
    : exports_(exports), refusal_(std::move(refusal)), tls_(tls) {
  put_greeting(out_, k_flags);
}

std::size_t Handshake::feed(std::span<const std::byte> in) {
  const std::size_t offered = in.size();
  while (state_ == State::haggling && !in.empty() && out_.size() < k_full_output_bytes) {
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
  if (tls_ == Tls::required && (flags & handshake_flag::k_fixed_newstyle) == 0) {
    return close("a client without the fixed newstyle handshake cannot use TLS");
  }
  no_zeroes_ = (flags & handshake_flag::k_no_zeroes) != 0;
  expect(Expect::option_header, k_option_header_bytes);
}

void Handshake::option_header() {
  const auto header = decode_option(data_);
  if (!header) return close("an option without the protocol's magic number");
  if (++options_ > k_max_options) return close("more than 128 options");
  option_ = header->option;
  too_big_ = header->length > k_max_option_data_bytes;
  if (too_big_ && option_ == Option::export_name) return close("an export's name of more than 64 KiB");
  if (header->length > k_max_drained_bytes) return close("an option with more than 1 MiB of data");
  expect(Expect::option_data, header->length);
  keep_ = known(option_) && !too_big_;
  if (missing_ == 0) option_data();
}

void Handshake::option_data() {
  if (option_ == Option::abort) {
    answer(ReplyType::ack);
    return close({});
  }
  if (option_ == Option::export_name) return export_name(text_of(data_));
  // It replaces what was selected before also when it fails.
  if (option_ == Option::set_meta_context) contexts_of_ = nullptr;
  if (const auto no = refused()) {
    answer(no->type, no->why);
  } else {
    accepted_option();
  }
  if (state_ == State::haggling) expect(Expect::option_header, k_option_header_bytes);
}

// Why the client doesn't get what it asks for, whatever that is in particular.
std::optional<Handshake::Refused> Handshake::refused() const noexcept {
  if (stopping_) return Refused{ReplyType::error_shutdown, "the server is stopping"};
  if (!refusal_.empty()) return Refused{ReplyType::error_policy, refusal_};
  if (tls_ == Tls::required && !encrypted_ && option_ != Option::starttls) {
    return Refused{ReplyType::error_tls_required, "this server is used with TLS only"};
  }
  if (!known(option_)) return Refused{ReplyType::error_unsupported, "this server does not know the option"};
  if (too_big_) return Refused{ReplyType::error_too_big, "an option has at most 64 KiB of data"};
  return std::nullopt;
}

void Handshake::accepted_option() {
  switch (option_) {
    case Option::list:
      return list();
    case Option::info:
    case Option::go:
      return info();
    case Option::structured_reply:
      return structured_reply();
    case Option::list_meta_context:
    case Option::set_meta_context:
      return meta_context();
    case Option::starttls:
      return starttls();
    case Option::export_name:
    case Option::abort:
      break;  // have no answer that could be an error
  }
}

void Handshake::answer(ReplyType type, std::string_view text) { put_option_reply(out_, option_, type, text); }

// The one option whose answer has no place for an error.
void Handshake::export_name(std::string_view name) {
  if (const auto no = refused()) return close(no->why);
  const auto wanted = exports_.find_or_make(name);
  if (!wanted) return close("the client asked for an export that does not exist");
  const Export* const found = *wanted;
  put(out_, found->device->size());
  put(out_, found->transmission_flags(structured_));
  if (!no_zeroes_) out_.resize(out_.size() + k_reserved_zeroes);
  chosen_ = found;
  state_ = State::transmission;
}

// Null once the client has been told that there is no such export.
const Export* Handshake::find_or_answer(std::string_view name, bool to_use) {
  if (name.size() > k_max_string_bytes) {
    answer(ReplyType::error_too_big, "an export's name has at most 4096 bytes");
  } else if (name.find('\0') != std::string_view::npos) {
    answer(ReplyType::error_invalid, "an export's name has no zero bytes");
  } else {
    const Export* const there = exports_.find(name);
    if (there != nullptr) return there;
    const auto made = to_use ? exports_.find_or_make(name) : std::unexpected(std::string());
    if (made) return *made;
    answer(ReplyType::error_unknown, "there is no export '" + std::string(name.substr(0, 256)) + "'" +
                                         (made.error().empty() ? "" : ": " + made.error()));
  }
  return nullptr;
}

void Handshake::info() {
  const auto wanted = decode_info_request(data_);
  if (!wanted)
    return answer(ReplyType::error_invalid, "the lengths in the option's data do not fit together");
  const Export* found = find_or_answer(wanted->name, option_ == Option::go);
  if (found == nullptr) return;
  put_infos(out_, option_, *found, *wanted, structured_);
  answer(ReplyType::ack);
  if (option_ == Option::go) {
    chosen_ = found;
    state_ = State::transmission;
  }
}

void Handshake::list() {
  if (!data_.empty()) return answer(ReplyType::error_invalid, "the option LIST has no data");
  for (const Export* const each : exports_.all()) {
    put_option_reply(out_, option_, ReplyType::server,
                     static_cast<std::uint32_t>(4 + each->name.size() + each->description.size()));
    put(out_, static_cast<std::uint32_t>(each->name.size()));
    put(out_, each->name);
    put(out_, each->description);
  }
  answer(ReplyType::ack);
}

void Handshake::structured_reply() {
  if (!data_.empty()) return answer(ReplyType::error_invalid, "the option STRUCTURED_REPLY has no data");
  structured_ = true;
  answer(ReplyType::ack);
}

// LIST takes a namespace for all that it has, and no query for everything; SET takes exact names only.
void Handshake::meta_context() {
  const bool listing = option_ == Option::list_meta_context;
  if (!structured_) {
    return answer(ReplyType::error_invalid, "metadata contexts are only to be had with structured replies");
  }
  const auto wanted = decode_context_request(data_);
  if (!wanted)
    return answer(ReplyType::error_invalid, "the lengths in the option's data do not fit together");
  const Export* found = find_or_answer(wanted->name, !listing);
  if (found == nullptr) return;
  const bool everything = listing && wanted->queries == 0;
  Contexts matching{.allocation = everything, .depth = everything};
  std::span<const std::byte> rest = wanted->rest;
  for (std::uint32_t i = 0; i < wanted->queries; ++i) {
    const std::string_view query = next_query(rest);
    const auto matches = [&](const MetaContext& context) {
      return context.is_called(query) || (listing && query == context.space);
    };
    matching.allocation |= matches(k_allocation_context);
    matching.depth |= matches(k_depth_context);
  }
  const auto tell = [&](const MetaContext& context) {
    put_context(out_, option_, listing ? 0 : context.id, context);
  };
  if (matching.allocation) tell(k_allocation_context);
  if (matching.depth) tell(k_depth_context);
  answer(ReplyType::ack);
  if (listing) return;
  contexts_ = matching;
  contexts_of_ = found;
}

void Handshake::starttls() {
  if (!data_.empty()) return answer(ReplyType::error_invalid, "the option STARTTLS has no data");
  if (tls_ == Tls::none) return answer(ReplyType::error_policy, "this server does not use TLS");
  if (encrypted_) return answer(ReplyType::error_invalid, "TLS is in use already");
  answer(ReplyType::ack);
  // Somebody in between may have said all that came so far.
  structured_ = false;
  contexts_of_ = nullptr;
  state_ = State::starting_tls;
}

void Handshake::secured() {
  encrypted_ = true;
  state_ = State::haggling;
  expect(Expect::option_header, k_option_header_bytes);
}

Negotiated Handshake::negotiated() const noexcept {
  const bool selected = chosen_ != nullptr && chosen_ == contexts_of_;
  return {.served = chosen_,
          .encrypted = encrypted_,
          .structured_replies = structured_,
          .allocation = selected && contexts_.allocation,
          .depth = selected && contexts_.depth};
}

}  // namespace oxbow::nbd
