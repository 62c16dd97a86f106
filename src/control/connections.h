// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <list>
#include <thread>

#include "control/http.h"
#include "os/fd.h"

namespace oxbow {

class Log;

namespace control {

// Accepts clients on a socket and answers each in a thread of its own: a request, a response, the end. Their
// number, the size of a request and the time that sending and receiving may take are bounded.
// Thread safety: construction, stop and destruction by one thread.
class Connections {
 public:
  struct Limits {
    std::size_t clients = 32;  // at a time; more are told that there are too many
    std::chrono::milliseconds receive{5'000};
    std::chrono::milliseconds send{5'000};
  };

  // `listening` is non-blocking and, like `http`, borrowed until stop() has returned.
  Connections(int listening, Http& http, Limits limits, Log* log);
  ~Connections();  // stops
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;
  Connections(Connections&&) = delete;
  Connections& operator=(Connections&&) = delete;

  // No more clients; those that have sent their requests get their answers.
  void stop() noexcept;

 private:
  struct Client;

  void accept_loop() noexcept;
  void accept_one() noexcept;
  void serve(int socket) noexcept;
  [[nodiscard]] std::string respond(int socket);
  void reap(bool all) noexcept;
  [[nodiscard]] bool stopping() const noexcept;

  const int listening_;
  Http& http_;
  const Limits limits_;
  Log* const log_;
  UniqueFd wake_;              // readable: it is time to stop
  std::list<Client> clients_;  // the acceptor's
  std::thread acceptor_;
};

}  // namespace control
}  // namespace oxbow
