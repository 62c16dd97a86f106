// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/server.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
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

Server::Server(Exports exports, Options options)
    : exports_(std::move(exports)),
      options_(std::move(options)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Server::~Server() { stop(); }

Result<void> Server::listen(std::string_view address) {
  auto opened = Listener::open(address, options_.tcp_plaintext || options_.tls != nullptr);
  if (!opened) return std::unexpected(std::move(opened.error()));
  std::ranges::move(*opened, std::back_inserter(listeners_));
  return {};
}

Result<void> Server::adopt(UniqueFd socket) {
  auto listener = Listener::adopt(std::move(socket), options_.tcp_plaintext || options_.tls != nullptr);
  if (!listener) return std::unexpected(std::move(listener.error()));
  listeners_.push_back(std::move(*listener));
  return {};
}

Result<void> Server::start() {
  if (!wake_.valid()) return std::unexpected(Error("cannot serve NBD", "eventfd", "no descriptor to be had"));
  std::size_t threads = options_.threads;
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  for (std::size_t i = 0; i < threads; ++i) {
    auto worker =
        Worker::start({.poll_limit = options_.poll_limit, .log = options_.log, .tell_end_fd = wake_.get()});
    if (!worker) return std::unexpected(std::move(worker.error()));
    workers_.push_back(std::move(*worker));
  }
  try {
    acceptor_ = std::thread([this] { accept_loop(); });
  } catch (const std::system_error& failure) {
    return std::unexpected(Error("cannot serve NBD", "thread", failure.code().message()));
  }
  return {};
}

std::string Server::uri(std::string_view export_name, std::size_t listener) const {
  return listeners_.at(listener).uri(export_name, options_.tls != nullptr);
}

void Server::wake() const noexcept { (void)::eventfd_write(wake_.get(), 1); }

void Server::log(LogLevel level, std::string_view line) const noexcept {
  if (options_.log != nullptr) options_.log->write(level, "nbd.accept", line);
}

void Server::accept_loop() noexcept {
  std::vector<pollfd> waited;
  for (const Listener& each : listeners_) waited.push_back({each.fd(), POLLIN, 0});
  waited.push_back({wake_.get(), POLLIN, 0});
  while (!stopping_.load(std::memory_order_acquire)) {
    // Short of descriptors, only a client's end or time can help.
    const auto only_wake = waited.data() + listeners_.size();
    const bool pause = std::exchange(out_of_resources_, false);
    (void)::poll(pause ? only_wake : waited.data(), pause ? 1 : waited.size(), pause ? k_pause_ms : -1);
    eventfd_t ignored = 0;
    (void)::eventfd_read(wake_.get(), &ignored);
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
    log(LogLevel::warning, std::string("cannot accept a client: ") + std::strerror(why));
    return;
  }
  try {
    serve(std::move(socket));
  } catch (const std::exception& failure) {
    out_of_resources_ = true;
    log(LogLevel::warning, std::string("cannot serve a client: ") + failure.what());
  }
}

std::size_t Server::connections() const noexcept {
  std::size_t sum = 0;
  for (const auto& worker : workers_) sum += worker->connections();
  return sum;
}

void Server::serve(UniqueFd socket) {
  Connection::Options options;
  options.record = clients_.add(Peer::of(socket.get()));
  options.handshake_limit = options_.handshake_limit;
  options.tls = options_.tls;
  if (const std::size_t others = connections(); others >= options_.max_connections) {
    if (others >= options_.max_connections + k_refused_at_once) return;
    options.refusal =
        "there are " + std::to_string(options_.max_connections) + " connections already, which is the limit";
    options.handshake_limit = std::min(options.handshake_limit, k_refusal_limit);
  }
  const auto& idlest =
      *std::ranges::min_element(workers_, {}, [](const auto& worker) { return worker->connections(); });
  idlest->adopt(std::make_unique<Connection>(std::move(socket), exports_, std::move(options)));
}

bool Server::wait_for_workers(std::chrono::steady_clock::time_point until) noexcept {
  while (true) {
    if (std::ranges::all_of(workers_, [](const auto& worker) { return worker->ended(); })) return true;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd waited{wake_.get(), POLLIN, 0};
    (void)::poll(&waited, 1, static_cast<int>(left));
    eventfd_t ignored = 0;
    (void)::eventfd_read(wake_.get(), &ignored);
  }
}

void Server::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  wake();
  if (acceptor_.joinable()) acceptor_.join();
  listeners_.clear();
  const auto now = std::chrono::steady_clock::now();
  const std::array<std::pair<Stop, std::chrono::milliseconds>, 2> stages{
      std::pair{Stop::refuse_requests, std::min(options_.refuse_limit, options_.stop_limit)},
      std::pair{Stop::receive_nothing, options_.stop_limit}};
  for (const auto& [how, limit] : stages) {
    for (const auto& worker : workers_) worker->stop(how);
    if (wait_for_workers(now + limit)) break;
  }
  workers_.clear();  // breaks off what is left
}

}  // namespace oxbow::nbd
