// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/server.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <iterator>
#include <system_error>
#include <utility>

namespace oxbow::nbd {
namespace {

// Clients beyond the limit that are being told so at a time; more are dropped without a word.
constexpr std::size_t k_refused_at_once = 16;
constexpr std::chrono::milliseconds k_refusal_limit{1'000};
constexpr int k_pause_ms = 100;  // before accepting again when descriptors or threads are short

}  // namespace

struct Server::Client {
  Client(UniqueFd socket, const Exports& exports, Connection::Options options)
      : connection(std::move(socket), exports, std::move(options)) {}
  Connection connection;
  std::thread thread;
};

Server::Server(Exports exports, Options options)
    : exports_(std::move(exports)),
      options_(std::move(options)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Server::~Server() { stop(); }

Result<void> Server::listen(std::string_view address) {
  auto opened = Listener::open(address, options_.tcp_plaintext);
  if (!opened) return std::unexpected(std::move(opened.error()));
  std::ranges::move(*opened, std::back_inserter(listeners_));
  return {};
}

Result<void> Server::adopt(UniqueFd socket) {
  auto listener = Listener::adopt(std::move(socket), options_.tcp_plaintext);
  if (!listener) return std::unexpected(std::move(listener.error()));
  listeners_.push_back(std::move(*listener));
  return {};
}

Result<void> Server::start() {
  if (!wake_.valid()) return std::unexpected(Error("cannot serve NBD", "eventfd", "no descriptor to be had"));
  try {
    acceptor_ = std::thread([this] { accept_loop(); });
  } catch (const std::system_error& failure) {
    return std::unexpected(Error("cannot serve NBD", "thread", failure.code().message()));
  }
  return {};
}

std::string Server::uri(std::string_view export_name, std::size_t listener) const {
  return listeners_.at(listener).uri(export_name);
}

void Server::wake() const noexcept { (void)::eventfd_write(wake_.get(), 1); }

void Server::log(std::string_view line) const noexcept {
  if (options_.log) options_.log(line);
}

void Server::accept_loop() noexcept {
  std::vector<pollfd> waited;
  for (const Listener& each : listeners_) waited.push_back({each.fd(), POLLIN, 0});
  waited.push_back({wake_.get(), POLLIN, 0});
  while (!stopping_.load(std::memory_order_acquire)) {
    // Short of descriptors or threads, only a client's end or time can help.
    const auto only_wake = waited.data() + listeners_.size();
    const bool pause = std::exchange(out_of_resources_, false);
    (void)::poll(pause ? only_wake : waited.data(), pause ? 1 : waited.size(), pause ? k_pause_ms : -1);
    eventfd_t ignored = 0;
    (void)::eventfd_read(wake_.get(), &ignored);
    reap();
    for (std::size_t i = 0; !pause && i < listeners_.size(); ++i) {
      if (waited[i].revents != 0) accept_from(listeners_[i]);
    }
  }
}

void Server::accept_from(const Listener& listener) noexcept {
  UniqueFd socket = listener.accept();
  if (!socket.valid()) {
    const int why = errno;
    if (why == EAGAIN || why == ECONNABORTED || why == EINTR) return;
    out_of_resources_ = true;
    log(std::string("nbd: cannot accept a client: ") + std::strerror(why));
    return;
  }
  try {
    serve(std::move(socket));
  } catch (const std::exception& failure) {
    out_of_resources_ = true;
    log(std::string("nbd: cannot serve a client: ") + failure.what());
  }
}

void Server::serve(UniqueFd socket) {
  Connection::Options options;
  options.handshake_limit = options_.handshake_limit;
  if (clients_.size() >= options_.max_connections) {
    if (clients_.size() >= options_.max_connections + k_refused_at_once) return;
    options.refusal =
        "there are " + std::to_string(options_.max_connections) + " connections already, which is the limit";
    options.handshake_limit = std::min(options.handshake_limit, k_refusal_limit);
  }
  Client& client = clients_.emplace_back(std::move(socket), exports_, std::move(options));
  try {
    client.thread = std::thread([this, &client] {
      client.connection.serve();
      wake();
    });
  } catch (...) {
    clients_.pop_back();
    throw;
  }
}

void Server::reap() noexcept {
  for (auto each = clients_.begin(); each != clients_.end();) {
    if (!each->connection.ended()) {
      ++each;
      continue;
    }
    each->thread.join();
    if (!each->connection.why_ended().empty())
      log("nbd: a client was let go: " + each->connection.why_ended());
    each = clients_.erase(each);
  }
}

// Waits for the clients, and after stop_limit no longer for those that don't take their replies.
void Server::end_clients() noexcept {
  for (Client& each : clients_) each.connection.stop();
  const auto until = std::chrono::steady_clock::now() + options_.stop_limit;
  while (reap(), !clients_.empty()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) break;
    pollfd waited{wake_.get(), POLLIN, 0};
    (void)::poll(&waited, 1, static_cast<int>(left));
    eventfd_t ignored = 0;
    (void)::eventfd_read(wake_.get(), &ignored);
  }
  for (Client& each : clients_) each.connection.break_off();
  for (Client& each : clients_) each.thread.join();
  clients_.clear();
}

void Server::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  wake();
  if (acceptor_.joinable()) acceptor_.join();
  listeners_.clear();
  end_clients();
}

}  // namespace oxbow::nbd
