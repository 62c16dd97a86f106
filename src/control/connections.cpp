// SPDX-License-Identifier: Apache-2.0
#include "control/connections.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "os/log.h"

namespace oxbow::control {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view k_topic = "control";
constexpr std::size_t k_most_drained = std::size_t{1} << 20;
constexpr std::chrono::milliseconds k_drain_limit(500);
constexpr int k_pause_ms = 100;

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 0)) + 1;
}

// Waits for one of the two to be ready; returns whether the socket is, before the deadline and before `wake`.
bool wait_for(int socket, short events, int wake, Clock::time_point deadline) {
  while (Clock::now() < deadline) {
    std::array<pollfd, 2> waited{pollfd{socket, events, 0}, pollfd{wake, POLLIN, 0}};
    const int ready = ::poll(waited.data(), waited.size(), milliseconds_until(deadline));
    if (ready < 0 && errno != EINTR) return false;
    if (ready > 0 && waited[0].revents != 0) return true;
    if (ready > 0 && waited[1].revents != 0) return false;
  }
  return false;
}

bool would_block() { return errno == EAGAIN || errno == EINTR; }

void send_all(int socket, std::string_view data, Clock::time_point deadline) {
  while (!data.empty()) {
    const ssize_t sent = ::send(socket, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      data.remove_prefix(static_cast<std::size_t>(sent));
    } else if (!would_block() || !wait_for(socket, POLLOUT, -1, deadline)) {
      return;  // the client doesn't want it
    }
  }
}

// What the client still sends is read for a moment: closing with bytes unread would take the response away.
void drain(int socket) {
  ::shutdown(socket, SHUT_WR);
  const auto deadline = Clock::now() + k_drain_limit;
  std::array<char, 4096> part;
  for (std::size_t total = 0; total < k_most_drained;) {
    const ssize_t got = ::recv(socket, part.data(), part.size(), MSG_DONTWAIT);
    if (got == 0) return;
    if (got > 0) {
      total += static_cast<std::size_t>(got);
    } else if (!would_block() || !wait_for(socket, POLLIN, -1, deadline)) {
      return;
    }
  }
}

}  // namespace

// A client and its thread. Thread safety: the acceptor's, but for `ended`.
struct Connections::Client {
  UniqueFd socket;
  std::atomic<bool> ended{false};
  std::thread thread;
};

Connections::Connections(int listening, Http& http, Limits limits, Log* log)
    : listening_(listening),
      http_(http),
      limits_(limits),
      log_(log),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_.valid()) throw std::system_error(errno, std::generic_category(), "eventfd");
  acceptor_ = std::thread([this] { accept_loop(); });
}

Connections::~Connections() { stop(); }

void Connections::stop() noexcept {
  if (!acceptor_.joinable()) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
  acceptor_.join();
}

bool Connections::stopping() const noexcept {
  pollfd waited{wake_.get(), POLLIN, 0};
  return ::poll(&waited, 1, 0) > 0;
}

void Connections::accept_loop() noexcept {
  while (!stopping()) {
    std::array<pollfd, 2> waited{pollfd{listening_, POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0}};
    // The limit of time is for joining threads that have ended.
    const int ready = ::poll(waited.data(), waited.size(), clients_.empty() ? -1 : k_pause_ms * 10);
    reap(false);
    if (ready > 0 && waited[0].revents != 0) accept_one();
  }
  reap(true);
}

void Connections::accept_one() noexcept {
  UniqueFd socket(::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) {
    if (would_block() || errno == ECONNABORTED) return;
    if (log_ != nullptr) {
      log_->write(LogLevel::warning, k_topic, std::string("cannot accept a client: ") + std::strerror(errno));
    }
    // Without descriptors or memory the next attempt fails too.
    pollfd waited{wake_.get(), POLLIN, 0};
    (void)::poll(&waited, 1, k_pause_ms);
    return;
  }
  try {
    if (clients_.size() >= limits_.clients) {
      const std::string refusal = Http::refusal(503, "too many clients at a time; try again later");
      (void)!::send(socket.get(), refusal.data(), refusal.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      return;
    }
    Client& client = clients_.emplace_back();
    client.socket = std::move(socket);
    client.thread = std::thread([this, &client] {
      serve(client.socket.get());
      client.ended.store(true, std::memory_order_release);
    });
  } catch (const std::exception& error) {
    if (log_ != nullptr) log_->write(LogLevel::warning, k_topic, error.what());
    if (!clients_.empty() && !clients_.back().thread.joinable()) clients_.pop_back();
  }
}

void Connections::serve(int socket) noexcept {
  try {
    const std::string response = respond(socket);
    if (response.empty()) return;
    send_all(socket, response, Clock::now() + limits_.send);
    drain(socket);
  } catch (const std::exception& error) {
    if (log_ != nullptr) log_->write(LogLevel::warning, k_topic, error.what());
  }
}

// The response to what the client sends; empty when it leaves without having asked.
std::string Connections::respond(int socket) {
  const auto deadline = Clock::now() + limits_.receive;
  std::string received;
  std::array<char, 4096> part;
  for (;;) {
    const Framing framing = Framing::of(received);
    if (framing.state == Framing::State::refused) return Http::refusal(framing.status, framing.why);
    if (framing.state == Framing::State::complete) {
      return http_.answer(std::string_view(received).substr(0, framing.length));
    }
    const ssize_t got = ::recv(socket, part.data(), part.size(), MSG_DONTWAIT);
    if (got > 0) {
      received.append(part.data(), static_cast<std::size_t>(got));
    } else if (got == 0) {
      return received.empty() ? "" : Http::refusal(400, "it ends early");
    } else if (!would_block()) {
      return {};
    } else if (!wait_for(socket, POLLIN, wake_.get(), deadline)) {
      if (stopping()) return Http::refusal(503, "the process is about to end");
      return Http::refusal(408, "it took too long to come");
    }
  }
}

void Connections::reap(bool all) noexcept {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if (!all && !client->ended.load(std::memory_order_acquire)) {
      ++client;
      continue;
    }
    client->thread.join();
    client = clients_.erase(client);
  }
}

}  // namespace oxbow::control
