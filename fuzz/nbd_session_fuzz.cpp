// SPDX-License-Identifier: Apache-2.0
// A whole conversation over a socket, from the greeting to the end. The first byte says in what pieces the client sends
// and receives, the rest is what it sends: recorded conversations of real clients are inputs. A reading of the
// protocol of its own follows what was sent and judges every byte that came back: each option and each request that
// arrived whole has its answer, of the right form and with the right error, nothing else is said, and the disk holds
// in the end what the requests left.

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "exports/nbd/chunks.h"
#include "exports/nbd/connection.h"
#include "exports/nbd/protocol.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace {

using namespace oxbow;
using Bytes = std::vector<std::byte>;
using View = std::span<const std::byte>;

constexpr std::uint64_t k_size = (300 << 10) + 123;

void require(bool condition) {
  if (!condition) std::abort();
}

// Lives as long as the process.
struct Fixture {
  Queue queue;
  Device device{std::make_shared<LinearTarget>(*RamStore::create({.size_bytes = k_size}), "ram",
                                               Range{0, k_size}, true),
                Device::Options{}, queue};
  nbd::Exports exports = *nbd::Exports::make({{.name = "disk", .device = &device, .description = "a disk"},
                                              {.name = "ro", .device = &device, .read_only = true}});
};

// Bytes in order. Thread safety: none.
class Reader {
 public:
  explicit Reader(View bytes) : bytes_(bytes) {}
  [[nodiscard]] std::size_t left() const { return bytes_.size(); }
  [[nodiscard]] View take(std::size_t count) {
    require(count <= bytes_.size());
    const View taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  template <typename T>
  [[nodiscard]] T number() {
    return nbd::get<T>(take(sizeof(T)), 0);
  }

 private:
  View bytes_;
};

// --- the client ---

// Whether an option, well-formed, takes the client to its requests.
bool ends_haggling(std::uint32_t option, View data) {
  if (option == 1) return true;
  if (option != 7 || data.size() < 6) return false;
  const std::uint64_t name = nbd::get<std::uint32_t>(data, 0);
  if (name + 6 > data.size()) return false;
  const std::string_view text(reinterpret_cast<const char*>(data.data()) + 4, name);
  return text.empty() || text == "disk" || text == "ro";
}

// Gives the requests their numbers as cookies, so that answers are told apart.
void number_requests(Bytes& sent) {
  std::size_t at = 4;
  bool haggling = true;
  while (haggling && at + 16 <= sent.size()) {
    const auto option = nbd::get<std::uint32_t>(sent, at + 8);
    const std::size_t length = nbd::get<std::uint32_t>(sent, at + 12);
    at += 16;
    if (sent.size() - at < length) return;
    haggling = !ends_haggling(option, View(sent).subspan(at, length));
    at += length;
  }
  for (std::uint64_t cookie = 0; at + 28 <= sent.size(); ++cookie) {
    const auto header = nbd::decode_request(View(sent).subspan(at, 28));
    if (!header) return;
    for (unsigned i = 0; i < 8; ++i) sent[at + 8 + i] = static_cast<std::byte>(cookie >> (56 - 8 * i));
    at += 28;
    if (header->command != nbd::Command::write) continue;
    if (sent.size() - at < header->length) return;
    at += header->length;
  }
}

// Everything that the server says when `sent` is sent in pieces; both ends are gone afterwards.
Bytes converse(Fixture& fixture, View sent, unsigned how) {
  std::array<int, 2> ends{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  const UniqueFd client(ends[0]);
  nbd::Connection connection(UniqueFd(ends[1]), fixture.exports,
                             {.limits = {.requests = 8, .bytes = 1 << 20}});
  connection.begin(fixture.queue, {});
  const std::size_t piece = how % 4 == 0 ? sent.size() + 1 : 1 + (how / 4) * (how % 4 == 1 ? 1 : 61);
  const std::size_t gulp = how % 4 == 3 ? 3000 : 1 << 16;
  Bytes got;
  Bytes buffer(gulp);
  bool sending = true;
  for (unsigned idle = 0;;) {
    const ssize_t out =
        sending ? ::send(client.get(), sent.data(), std::min(piece, sent.size()), MSG_NOSIGNAL) : -1;
    if (out > 0) sent = sent.subspan(static_cast<std::size_t>(out));
    if (sending && sent.empty()) {
      sending = false;
      (void)::shutdown(client.get(), SHUT_WR);
    }
    const nbd::Interest wanted = connection.step(true);
    const ssize_t in = ::recv(client.get(), buffer.data(), buffer.size(), 0);
    if (in > 0) got.insert(got.end(), buffer.begin(), buffer.begin() + in);
    if (wanted.ended) break;
    const bool busy = out > 0 || in > 0 || wanted.again || fixture.queue.poll();
    idle = busy ? 0 : idle + 1;
    require(idle < 1000);  // it waits for something that never comes
  }
  while (true) {
    const ssize_t in = ::recv(client.get(), buffer.data(), buffer.size(), 0);
    if (in <= 0) return got;
    got.insert(got.end(), buffer.begin(), buffer.begin() + in);
  }
}

// --- the judge ---

// Follows one conversation. Thread safety: none.
class Judge {
 public:
  Judge(View sent, View got) : sent_(sent), got_(got), disk_(k_size) {}

  void session() {
    require(nbd::get<std::uint64_t>(got_.take(8), 0) == nbd::k_init_magic);
    require(got_.number<std::uint64_t>() == nbd::k_option_magic);
    require(got_.number<std::uint16_t>() == 3);
    if (sent_.left() >= 4) {
      const auto flags = sent_.number<std::uint32_t>();
      no_zeroes_ = (flags & 2U) != 0;
      if ((flags & ~3U) == 0) haggle();
    }
    require(got_.left() == 0);
  }

  // Whether a request asked for something that may have left a trace.
  [[nodiscard]] bool changes() const { return changes_; }
  // The disk, and what the last write may have left of itself when the client vanished within it.
  [[nodiscard]] const Bytes& disk() const { return disk_; }
  [[nodiscard]] Range torn() const { return torn_; }
  [[nodiscard]] View torn_data() const { return torn_data_; }

 private:
  void haggle() {
    for (unsigned count = 1; sent_.left() >= 16; ++count) {
      if (sent_.number<std::uint64_t>() != nbd::k_option_magic || count > 128) return;
      const auto option = sent_.number<std::uint32_t>();
      const auto length = sent_.number<std::uint32_t>();
      if (length > 1U << 20 || (option == 1 && length > 1U << 16)) return;
      if (sent_.left() < length) {
        // Too much for one option: refused before all of it is here, or not yet.
        require(got_.left() == 0 || length > 1U << 16);
        if (got_.left() > 0) require(final_reply(option) >= 1U << 31);
        return;
      }
      const View data = sent_.take(length);
      if (option == 1) return export_name(data);
      const bool accepted = option_answer(option, data);
      if (option == 2) return require(accepted == (length <= 1U << 16));
      if (option == 7 && accepted) return transmit();
    }
  }

  void export_name(View name) {
    const std::string_view text(reinterpret_cast<const char*>(name.data()), name.size());
    if (text != "" && text != "disk" && text != "ro") return;
    basics(got_);
    if (!no_zeroes_) {
      require(std::ranges::all_of(got_.take(124), [](std::byte each) { return each == std::byte{0}; }));
    }
    transmit();
  }

  // Size and transmission flags of an export.
  void basics(Reader& from) {
    require(from.number<std::uint64_t>() == k_size);
    const auto flags = from.number<std::uint16_t>();
    require((flags & 1U) != 0);
    require(((flags & 0x80U) != 0) == structured_);  // DF
    writable_ = (flags & 2U) == 0;
  }

  // Which export an option that was accepted is about: whether it is the one that can be written to.
  static bool about_writable(View data) {
    return nbd::get<std::uint32_t>(data, 0) != 2;  // the other one's name has two letters
  }

  // The replies to one option, as their grammar has them. Whether it was accepted.
  bool option_answer(std::uint32_t option, View data) {
    contexts_now_.clear();
    told_basics_ = false;
    const std::uint32_t last = final_reply(option);
    const bool accepted = last == 1;
    if (data.size() > 1U << 16) require(last >= 1U << 31);
    if ((option == 6 || option == 7) && accepted) require(told_basics_);
    if (option == 8) {
      require(accepted == data.empty());
      structured_ = structured_ || accepted;
    }
    if (option == 10) {  // also when it fails, nothing is left of the last one
      contexts_ = accepted ? contexts_now_ : std::set<std::uint32_t>();
      if (accepted) contexts_of_writable_ = about_writable(data);
    }
    return accepted;
  }

  std::uint32_t final_reply(std::uint32_t option) {
    while (true) {
      require(got_.number<std::uint64_t>() == nbd::k_option_reply_magic);
      require(got_.number<std::uint32_t>() == option);
      const auto type = got_.number<std::uint32_t>();
      const auto length = got_.number<std::uint32_t>();
      Reader data(got_.take(length));
      if (type == 1) {
        require(length == 0);
        return type;
      }
      if ((type & 0x80000000U) != 0) {
        require(known_error(type) && length <= 4096);
        return type;
      }
      middle_reply(option, type, data);
    }
  }
  static bool known_error(std::uint32_t type) {
    const std::uint32_t number = type & 0x7fffffffU;
    return number >= 1 && number <= 9;
  }

  void middle_reply(std::uint32_t option, std::uint32_t type, Reader& data) {
    if (type == 2) {  // SERVER
      require(option == 3 && data.left() >= 4);
      require(data.number<std::uint32_t>() <= data.left());
    } else if (type == 4) {  // META_CONTEXT
      require((option == 9 || option == 10) && structured_ && data.left() > 4);
      const bool is_new = contexts_now_.insert(data.number<std::uint32_t>()).second;
      require(option == 9 || is_new);
    } else {
      require(type == 3 && (option == 6 || option == 7));
      const auto info = data.number<std::uint16_t>();
      require(info <= 3);
      if (info == 0) {
        require(!told_basics_ && data.left() == 10);
        told_basics_ = true;
        basics(data);
      } else if (info == 3) {
        require(data.left() == 12);
        const auto smallest = data.number<std::uint32_t>();
        const auto preferred = data.number<std::uint32_t>();
        require(smallest >= 1 && preferred >= smallest && data.number<std::uint32_t>() >= preferred);
      }
    }
  }

  // --- requests ---

  // A request that arrived, and what came back for it.
  struct Asked {
    nbd::RequestHeader header;
    View payload;
    std::uint32_t expected = 0;
    std::uint32_t error = 0;
    std::vector<Range> content;
    std::set<std::uint32_t> told;  // contexts
    bool begun = false;
    bool done = false;
  };

  void transmit() {
    if (contexts_of_writable_ != writable_) contexts_.clear();
    read_requests();
    while (got_.left() > 0) read_reply();
    for (const Asked& each : asked_) {
      require(each.done);
      const bool may_be_slow = (each.header.flags & nbd::command_flag::k_fast_zero) != 0;
      require(each.error == each.expected || (each.expected == 0 && may_be_slow && each.error == 95));
      if (each.error == 0) apply(each.header, each.payload);
    }
  }

  void read_requests() {
    while (sent_.left() >= 28) {
      const auto header = nbd::decode_request(sent_.take(28));
      if (!header || header->command == nbd::Command::disconnect) return;
      Asked asked{.header = *header, .expected = error_of(*header)};
      const bool write = header->command == nbd::Command::write;
      const bool whole = !write || sent_.left() >= header->length;
      changes_ = changes_ || write || header->command == nbd::Command::write_zeroes ||
                 header->command == nbd::Command::trim;
      if (write) asked.payload = sent_.take(std::min<std::size_t>(sent_.left(), header->length));
      if (whole || asked.expected != 0) asked_.push_back(asked);
      if (whole) continue;
      // What is to be refused is refused at once; the rest is no request.
      if (asked.expected == 0) torn_ = {header->offset, asked.payload.size()}, torn_data_ = asked.payload;
      return;
    }
  }

  // A simple reply or one chunk. Cookies are the requests' numbers.
  void read_reply() {
    const auto magic = got_.number<std::uint32_t>();
    if (magic == nbd::k_simple_reply_magic) {
      const auto error = got_.number<std::uint32_t>();
      Asked& asked = of_cookie(got_.number<std::uint64_t>());
      const bool read = asked.header.command == nbd::Command::read;
      require(!asked.begun && !(structured_ && read));
      asked.error = error;
      asked.done = true;
      if (read && error == 0) (void)got_.take(asked.header.length);
      return;
    }
    require(magic == nbd::k_structured_reply_magic && structured_);
    read_chunk();
  }
  Asked& of_cookie(std::uint64_t cookie) {
    require(cookie < asked_.size() && !asked_[cookie].done);
    return asked_[cookie];
  }

  void apply(const nbd::RequestHeader& header, View payload) {
    const auto begin = disk_.begin() + static_cast<std::ptrdiff_t>(header.offset);
    if (header.command == nbd::Command::write) std::ranges::copy(payload, begin);
    if (header.command == nbd::Command::trim || header.command == nbd::Command::write_zeroes) {
      std::fill_n(begin, header.length, std::byte{0});
    }
  }

  // What the protocol wants a request to be answered.
  [[nodiscard]] std::uint32_t error_of(const nbd::RequestHeader& header) const {
    constexpr std::uint32_t k_invalid = 22;
    using enum nbd::Command;
    unsigned allowed = 1;
    bool changes = false;
    if (header.command == read && structured_) allowed |= 4U;
    if (header.command == block_status) allowed |= 8U;
    if (header.command == write_zeroes) allowed |= 2U | 16U;
    changes = header.command == write || header.command == trim || header.command == write_zeroes;
    if (static_cast<unsigned>(header.command) > 7 || (header.flags & ~allowed) != 0) return k_invalid;
    if (changes && !writable_) return 1;
    const bool carries = header.command == read || header.command == write;
    if (carries && header.length > 32U << 20) return k_invalid;
    if (header.command == flush) return header.offset == 0 && header.length == 0 ? 0 : k_invalid;
    if (header.command == block_status && (contexts_.empty() || header.length == 0)) return k_invalid;
    const bool within = header.offset <= k_size && header.length <= k_size - header.offset;
    if (within) return 0;
    return header.command == write || header.command == write_zeroes ? 28 : k_invalid;
  }

  void read_chunk() {
    const auto flags = got_.number<std::uint16_t>();
    const auto type = got_.number<std::uint16_t>();
    Asked& asked = of_cookie(got_.number<std::uint64_t>());
    Reader data(got_.take(got_.number<std::uint32_t>()));
    require(flags <= 1);
    asked.begun = true;
    if (type == 0) {
      require(flags == 1 && data.left() == 0);
    } else if (type == 1 || type == 2) {
      content(asked, type, data);
    } else if (type == 5) {
      descriptors(asked, data);
    } else {
      require(asked.error == 0);
      asked.error = error_chunk(asked.header, type, data);
    }
    asked.done = flags == 1;
    if (!asked.done || asked.error != 0) return;
    std::uint64_t covered = 0;
    for (const Range& each : asked.content) covered += each.length;
    if (asked.header.command == nbd::Command::read) require(covered == asked.header.length);
    if (asked.header.command == nbd::Command::block_status) require(asked.told == contexts_);
  }

  static void content(Asked& asked, std::uint16_t type, Reader& data) {
    const nbd::RequestHeader& header = asked.header;
    require(header.command == nbd::Command::read && data.left() >= 9);
    const auto offset = data.number<std::uint64_t>();
    if (type == 2) require(data.left() == 4);
    const Range range{offset, type == 2 ? data.number<std::uint32_t>() : data.left()};
    require(!range.empty() && range.offset >= header.offset && range.end() <= header.offset + header.length);
    for (const Range& each : asked.content) require(range.end() <= each.offset || each.end() <= range.offset);
    asked.content.push_back(range);
    require((header.flags & nbd::command_flag::k_df) == 0 || (asked.content.size() == 1 && type == 1));
  }

  void descriptors(Asked& asked, Reader& data) const {
    const nbd::RequestHeader& header = asked.header;
    require(header.command == nbd::Command::block_status);
    const auto context = data.number<std::uint32_t>();
    require(contexts_.contains(context) && asked.told.insert(context).second);
    require(data.left() >= 8 && data.left() % 8 == 0);
    if ((header.flags & nbd::command_flag::k_req_one) != 0) require(data.left() == 8);
    std::uint64_t sum = 0;
    while (data.left() > 0) {
      const auto length = data.number<std::uint32_t>();
      require(length != 0);
      sum += length;
      (void)data.number<std::uint32_t>();
    }
    require(sum <= header.length);
  }

  static std::uint32_t error_chunk(const nbd::RequestHeader& header, std::uint16_t type, Reader& data) {
    require((type == 0x8001 || type == 0x8002) && data.left() >= 6);
    const auto error = data.number<std::uint32_t>();
    require(error != 0);
    (void)data.take(data.number<std::uint16_t>());
    if (type == 0x8002) {
      const auto at = data.number<std::uint64_t>();
      require(at >= header.offset && at - header.offset < header.length);
    }
    require(data.left() == 0);
    return error;
  }

  Reader sent_;
  Reader got_;
  Bytes disk_;
  bool no_zeroes_ = false;
  bool structured_ = false;
  bool writable_ = true;
  bool told_basics_ = false;
  bool changes_ = false;
  bool contexts_of_writable_ = true;
  std::vector<Asked> asked_;
  std::set<std::uint32_t> contexts_;
  std::set<std::uint32_t> contexts_now_;  // of the option that is being answered
  Range torn_;
  View torn_data_;
};

void check_disk(Fixture& fixture, const Judge& judge) {
  Bytes now(k_size);
  const IoStatus read = run_blocking(fixture.queue, [&](Io& io) { return fixture.device.read(io, 0, now); });
  require(read.ok());
  const Range torn = judge.torn();
  for (std::uint64_t at = torn.offset; at < torn.end(); ++at) {
    require(now[at] == judge.disk()[at] || now[at] == judge.torn_data()[at - torn.offset]);
    now[at] = judge.disk()[at];
  }
  require(now == judge.disk());
}

void clear(Fixture& fixture) {
  const IoStatus cleared = run_blocking(
      fixture.queue, [&](Io& io) { return fixture.device.discard(io, {0, k_size}, Durability::with_flush); });
  require(cleared.ok());
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture fixture;
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data + 1, size - 1));
  Bytes sent(input.begin(), input.end());
  number_requests(sent);
  const Bytes got = converse(fixture, sent, data[0]);
  Judge judge(sent, got);
  judge.session();
  if (!judge.changes()) return 0;
  check_disk(fixture, judge);
  clear(fixture);
  return 0;
}
