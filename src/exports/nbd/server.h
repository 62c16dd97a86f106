// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "exports/nbd/client_record.h"
#include "exports/nbd/export.h"
#include "exports/nbd/listener.h"
#include "exports/nbd/tls_credentials.h"
#include "exports/nbd/worker.h"
#include "os/fd.h"
#include "os/log.h"
#include "oxbow/error.h"

namespace oxbow::nbd {

// Serves exports over NBD: a thread that accepts, and as many that serve as there are cores; each client stays
// with one of them.
// Thread safety: listen, start, stop and destruction from one thread; the rest from any.
class Server {
 public:
  struct Options {
    std::size_t max_connections = 1024;  // more are told that there are too many
    std::size_t threads = 0;             // that serve; 0: as many as there are cores
    // How long, at most, a thread looks for work before it sleeps: shortens answers, costs a core while
    // clients are busy.
    std::chrono::microseconds poll_limit{0};
    bool tcp_plaintext = false;  // TCP beyond loopback, in the clear
    // When set: nothing is served without TLS, and TCP beyond loopback is fine.
    std::shared_ptr<const TlsCredentials> tls;
    std::chrono::milliseconds handshake_limit{10'000};
    // At stop(), a client in the middle of a request gets that long to send the rest and be refused.
    std::chrono::milliseconds refuse_limit{250};
    // How long stop() waits for clients to take their last replies.
    std::chrono::milliseconds stop_limit{5'000};
    Log* log = nullptr;  // borrowed; null: silent
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

  // Ends it: no new clients; what is in flight is finished and answered; what comes now is refused with
  // ESHUTDOWN; connections whose clients have their answers are closed, and the sockets' files removed. Takes
  // at most about stop_limit plus the time that the devices need for what is in flight.
  void stop() noexcept;

  // Those that are connected now.
  [[nodiscard]] std::vector<ClientStatus> clients() const { return clients_.snapshot(); }

  // How clients call an export at socket number `listener`; the same for all sockets of one address.
  [[nodiscard]] std::string uri(std::string_view export_name = {}, std::size_t listener = 0) const;

 private:
  void accept_loop() noexcept;
  void accept_from(const Listener& listener) noexcept;
  void serve(UniqueFd socket);
  [[nodiscard]] std::size_t connections() const noexcept;
  // Whether all workers have ended by then.
  bool wait_for_workers(std::chrono::steady_clock::time_point until) noexcept;
  void wake() const noexcept;
  void log(LogLevel level, std::string_view line) const noexcept;

  Exports exports_;
  Options options_;
  std::vector<Listener> listeners_;
  ClientList clients_;
  UniqueFd wake_;  // readable: a worker has ended, or it is time to stop
  std::atomic<bool> stopping_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
  std::thread acceptor_;
  bool out_of_resources_ = false;
};

}  // namespace oxbow::nbd
