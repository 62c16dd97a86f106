// SPDX-License-Identifier: Apache-2.0
// vm-load base FILE SECTORS: a base image.
// vm-load write SOCKET TRACE FLUSHES SEED COMMAND [LAST REQUESTS]: random changes and flushes over several connections
// until that many flushes have succeeded. Before the first request and after each flush there is a mark: COMMAND N runs
// in a shell, N counting marks from 1. With LAST, another mark runs that, and REQUESTS more follow, which may fail.
// vm-load verify SOCKET TRACE MARK NEXT: compares the whole device with what the trace allows for a power loss after
// MARK and before NEXT (0: no matter when).

#include <libnbd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "trace.h"

namespace oxbow::vm {
namespace {

constexpr std::size_t k_connections = 4;
constexpr std::size_t k_depth = 8;
constexpr std::uint64_t k_cluster =
    8;  // sectors; only whole clusters are trimmed, so that their content is known

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + ::nbd_get_error()); }

struct Sent {
  Request request;
  std::vector<std::byte> data;
};

struct Answer {
  Request request;
  int error = 0;
};

// A connection with requests in flight. Thread safety: none.
class Connection {
 public:
  explicit Connection(const std::string& socket) : nbd_(::nbd_create()) {
    if (nbd_ == nullptr || ::nbd_connect_unix(nbd_, socket.c_str()) != 0) fail(socket);
  }
  ~Connection() { ::nbd_close(nbd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  Connection(Connection&&) = delete;
  Connection& operator=(Connection&&) = delete;

  [[nodiscard]] std::uint64_t size() const { return static_cast<std::uint64_t>(::nbd_get_size(nbd_)); }
  [[nodiscard]] std::size_t in_flight() const noexcept { return sent_.size(); }
  [[nodiscard]] bool alive() const {
    return ::nbd_aio_is_ready(nbd_) == 1 || ::nbd_aio_is_processing(nbd_) == 1;
  }
  [[nodiscard]] bool touches(const Request& request) const noexcept {
    return std::ranges::any_of(sent_, [&](const auto& each) {
      const Request& other = each.second.request;
      return other.first < request.first + request.count && request.first < other.first + other.count;
    });
  }

  // Sends it; false when the connection has ended.
  [[nodiscard]] bool send(const Request& request) {
    Sent sent{request, {}};
    if (request.kind == 'w') {
      sent.data.resize(request.count * k_sector);
      for (std::uint64_t i = 0; i < request.count; ++i) {
        fill(std::span(sent.data).subspan(i * k_sector, k_sector), request.first + i, request.id);
      }
    }
    const std::int64_t cookie = start(sent);
    if (cookie < 0) return false;
    sent_.emplace(cookie, std::move(sent));
    return true;
  }

  // Lets it work for a millisecond at most; appends what was answered.
  void work(std::vector<Answer>& answers) {
    if (alive()) (void)::nbd_poll(nbd_, 1);
    for (std::int64_t cookie = ::nbd_aio_peek_command_completed(nbd_); cookie > 0;
         cookie = ::nbd_aio_peek_command_completed(nbd_)) {
      const int done = ::nbd_aio_command_completed(nbd_, static_cast<std::uint64_t>(cookie));
      const int error = done == 1 ? 0 : ::nbd_get_errno();
      const auto found = sent_.find(cookie);
      // Whether a request was carried out that the connection's end left unanswered is not known.
      if (done == 1 || alive())
        answers.push_back({found->second.request, error != 0 || done == 1 ? error : EIO});
      sent_.erase(found);
    }
  }

  void read(std::span<std::byte> into, std::uint64_t at) const {
    if (::nbd_pread(nbd_, into.data(), into.size(), at, 0) != 0) fail("read");
  }

 private:
  std::int64_t start(const Sent& sent) {
    const Request& request = sent.request;
    const std::uint64_t at = request.first * k_sector;
    const std::uint64_t length = request.count * k_sector;
    const std::uint32_t fua = request.fua ? LIBNBD_CMD_FLAG_FUA : 0;
    const nbd_completion_callback none{};
    switch (request.kind) {
      case 'w':
        return ::nbd_aio_pwrite(nbd_, sent.data.data(), length, at, none, fua);
      case 'z':
        return ::nbd_aio_zero(nbd_, length, at, none, fua);
      case 'n':
        return ::nbd_aio_zero(nbd_, length, at, none, fua | LIBNBD_CMD_FLAG_NO_HOLE);
      case 't':
        return ::nbd_aio_trim(nbd_, length, at, none, fua);
      default:
        return ::nbd_aio_flush(nbd_, none, 0);
    }
  }

  nbd_handle* nbd_;
  std::map<std::int64_t, Sent> sent_;
};

// Random changes over several connections, no two in flight of the same sector. Thread safety: none.
class Writer {
 public:
  Writer(const std::string& socket, const std::string& trace, std::uint64_t seed, std::string command)
      : random_(seed), command_(std::move(command)) {
    for (std::size_t i = 0; i < k_connections; ++i)
      connections_.push_back(std::make_unique<Connection>(socket));
    sectors_ = connections_.front()->size() / k_sector;
    trace_ = std::make_unique<TraceWriter>(trace, sectors_);
    mark();
  }

  void until_flushes(std::uint64_t flushes) {
    while (flushes_ < flushes && !ended_) step();
    if (errors_ != 0 || ended_) throw std::runtime_error("requests failed: " + std::to_string(errors_));
  }

  // Runs that command at a mark of its own; sends that many requests more, which may fail.
  void go_on(std::uint64_t requests, const std::string& command) {
    command_ = command;
    mark();
    command_.clear();
    for (const std::uint64_t last = id_ + requests; id_ < last && !ended_;) step();
  }

  // Waits for all answers, which the last mark of the trace has before it.
  void finish() {
    while (std::ranges::any_of(connections_, [](const auto& each) { return each->in_flight() > 0; })) work();
    trace_->mark(++marks_);
    trace_->marked(marks_);
    std::printf("vm-load: requests %llu, flushes %llu, failed %llu%s\n", static_cast<unsigned long long>(id_),
                static_cast<unsigned long long>(flushes_), static_cast<unsigned long long>(errors_),
                ended_ ? ", connection ended" : "");
  }

 private:
  std::uint64_t below(std::uint64_t end) { return random_() % end; }

  Request choose() {
    Request request;
    const std::uint64_t dice = below(100);
    if (dice < 3) return request;
    request.kind = dice < 75 ? 'w' : dice < 83 ? 'z' : dice < 89 ? 'n' : 't';
    constexpr std::array<std::uint64_t, 9> counts{1, 2, 7, 8, 9, 16, 33, 64, 128};
    request.count = counts[below(counts.size())];
    // Half of them meet in an eighth of the device.
    request.first = below((below(2) == 0 ? sectors_ / 8 : sectors_) - request.count);
    request.fua = below(12) == 0;
    if (request.kind == 't') {
      request.first -= request.first % k_cluster;
      request.count = (request.count / k_cluster + 1) * k_cluster;
      request.count = std::min(request.count, (sectors_ - request.first) / k_cluster * k_cluster);
    }
    return request;
  }

  void step() {
    Connection& connection = *connections_[below(k_connections)];
    Request request = choose();
    const bool room =
        connection.in_flight() < k_depth && (request.kind == 'f' || request.count > 0) &&
        std::ranges::none_of(connections_, [&](const auto& each) { return each->touches(request); });
    if (room) {
      request.id = ++id_;
      trace_->sent(request);
      if (!connection.send(request)) ended_ = true;
    }
    if (!room || below(3) == 0) work();
  }

  void work() {
    std::vector<Answer> answers;
    for (const auto& each : connections_) {
      each->work(answers);
      if (!each->alive()) ended_ = true;
    }
    for (const Answer& each : answers) {
      trace_->answered(each.request.id, each.error);
      if (each.error != 0) {
        ++errors_;
      } else if (each.request.kind == 'f') {
        ++flushes_;
        mark();
      }
    }
  }

  void mark() {
    if (command_.empty()) return;
    trace_->mark(++marks_);
    const std::string line = command_ + " " + std::to_string(marks_);
    if (std::system(line.c_str()) != 0) throw std::runtime_error("failed: " + line);
    trace_->marked(marks_);
  }

  std::mt19937_64 random_;
  std::string command_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::unique_ptr<TraceWriter> trace_;
  std::uint64_t sectors_ = 0;
  std::uint64_t id_ = 0;
  std::uint64_t marks_ = 0;
  std::uint64_t flushes_ = 0;
  std::uint64_t errors_ = 0;
  bool ended_ = false;
};
void make_base(const std::string& path, std::uint64_t sectors) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "we"), &std::fclose);
  std::array<std::byte, k_sector> content{};
  for (std::uint64_t i = 0; i < sectors; ++i) {
    if (base_is_hole(i)) {
      content.fill(std::byte{0});
    } else {
      fill(content, i, 0);
    }
    if (!file || std::fwrite(content.data(), k_sector, 1, file.get()) != 1) {
      throw std::runtime_error("cannot write " + path);
    }
  }
}

// 0 when the device holds what it may.
int verify(const std::string& socket, const Trace& trace) {
  const Connection connection(socket);
  if (connection.size() != trace.sectors() * k_sector)
    throw std::runtime_error("the device has another size");
  std::vector<std::string> wrong;
  std::vector<std::byte> content(1 << 20);
  for (std::uint64_t at = 0; at < connection.size(); at += content.size()) {
    content.resize(std::min<std::uint64_t>(content.size(), connection.size() - at));
    connection.read(content, at);
    std::ranges::move(trace.judge(content, at / k_sector), std::back_inserter(wrong));
  }
  for (const std::string& each : std::span(wrong).first(std::min<std::size_t>(wrong.size(), 10))) {
    std::printf("vm-load: %s\n", each.c_str());
  }
  std::printf("vm-load: sectors %llu, promised %llu, wrong %zu\n",
              static_cast<unsigned long long>(trace.sectors()),
              static_cast<unsigned long long>(trace.promised()), wrong.size());
  return wrong.empty() ? 0 : 1;
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 3 && words[0] == "base") {
    make_base(words[1], std::stoull(words[2]));
    return 0;
  }
  if (words.size() == 5 && words[0] == "verify") {
    return verify(words[1], Trace(words[2], std::stoull(words[3]), std::stoull(words[4])));
  }
  if ((words.size() == 6 || words.size() == 8) && words[0] == "write") {
    Writer writer(words[1], words[2], std::stoull(words[4]), words[5]);
    writer.until_flushes(std::stoull(words[3]));
    if (words.size() == 8) writer.go_on(std::stoull(words[7]), words[6]);
    writer.finish();
    return 0;
  }
  std::fputs(
      "usage: vm-load base FILE SECTORS | write SOCKET TRACE FLUSHES SEED COMMAND [LAST REQUESTS] | "
      "verify SOCKET TRACE MARK NEXT\n",
      stderr);
  return 2;
}

}  // namespace
}  // namespace oxbow::vm

int main(int count, char** arguments) {
  try {
    return oxbow::vm::run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vm-load: %s\n", error.what());
    return 1;
  }
}
