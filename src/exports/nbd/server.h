// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "exports/nbd/connection.h"
#include "exports/nbd/export.h"
#include "exports/nbd/listener.h"
#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::nbd {

// Serves exports over NBD: a thread that accepts, and one for each client.
// Thread safety: listen, start, stop and destruction from one thread; uri() from any.
class Server {
 public:
  struct Options {
    std::size_t max_connections = 128;  // more are told that there are too many
    bool tcp_plaintext = false;         // TCP beyond loopback, in the clear
    std::chrono::milliseconds handshake_limit{10'000};
    std::chrono::milliseconds stop_limit{
        5'000};  // how long stop() waits for clients to take their last replies
    // Gets one line per event worth a log, from any thread; may be empty.
    std::function<void(std::string_view line)> log;
  };

  // The devices of `exports` are borrowed until stop() has returned.
  explicit Server(Exports exports) : Server(std::move(exports), Options()) {}
  Server(Exports exports, Options options);
  ~Server();  // stops
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Server(Server&&) = delete;
  Server& operator=(Server&&) = delete;

  // Adds a socket, before start(): `unix:PATH` or `tcp:HOST:PORT`, as Listener has them. Clients may connect
  // from now on and are served once it is started.
  [[nodiscard]] Result<void> listen(std::string_view address);
  // The same with a socket that listens already.
  [[nodiscard]] Result<void> adopt(UniqueFd socket);
  // How many sockets there are: an address may stand for several.
  [[nodiscard]] std::size_t listeners() const noexcept { return listeners_.size(); }
  [[nodiscard]] Result<void> start();

  // Ends it: no new clients, requests in flight are finished and answered, sockets closed and their files
  // removed. Takes at most about stop_limit plus the time that the devices need for what is in flight.
  void stop() noexcept;

  // How clients call an export at socket number `listener`; the same for all sockets of one address.
  [[nodiscard]] std::string uri(std::string_view export_name = {}, std::size_t listener = 0) const;

 private:
  struct Client;

  void accept_loop() noexcept;
  void accept_from(const Listener& listener) noexcept;
  void serve(UniqueFd socket);
  void reap() noexcept;
  void end_clients() noexcept;
  void wake() const noexcept;
  void log(std::string_view line) const noexcept;

  Exports exports_;
  Options options_;
  std::vector<Listener> listeners_;
  UniqueFd wake_;  // readable: a client has ended, or it is time to stop
  std::atomic<bool> stopping_{false};
  std::thread acceptor_;
  std::list<Client> clients_;  // the acceptor's; after it has ended, stop()'s
  bool out_of_resources_ = false;
};

}  // namespace oxbow::nbd
