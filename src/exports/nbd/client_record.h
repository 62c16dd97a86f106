// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is known of each client, for other threads to look at while it is being served.

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/latency.h"
#include "exports/nbd/negotiated.h"

namespace oxbow::nbd {

// Who is at the other end of a socket. Thread safety: a value.
struct Peer {
  std::string address;  // of TCP: "192.0.2.1:5000", "[::1]:5000"; else empty
  ::pid_t pid = 0;      // of a Unix socket: who connected; 0 from another PID namespace
  ::uid_t uid = 0;

  // What the kernel knows of a connected socket.
  [[nodiscard]] static Peer of(int socket);
  // "process 1234 of user 1000", or the address.
  [[nodiscard]] std::string text() const;
};

// A client as it was a moment ago. Thread safety: a value.
struct ClientStatus {
  std::uint64_t id = 0;  // counts the server's clients, from 1
  Peer peer;
  std::chrono::system_clock::time_point since;
  bool serving = false;  // else it is still in the handshake, and what follows says nothing
  std::string export_name;
  const Device* device = nullptr;  // which one; not to be used
  bool encrypted = false;
  bool structured_replies = false;
  bool allocation = false;                             // base:allocation was selected
  bool depth = false;                                  // qemu:allocation-depth was selected
  std::array<std::uint64_t, k_request_kinds> bytes{};  // read, written, changed, by RequestKind
  std::uint64_t other_requests = 0;                    // of no RequestKind
  std::uint64_t errors = 0;                            // requests that were answered with one
  LatencySnapshot latency;                             // its counts are the numbers of requests
};

class ClientRecord;

// The clients of a server. Thread safety: any thread; outlives its records.
class ClientList {
 public:
  // A client that has just come.
  [[nodiscard]] std::unique_ptr<ClientRecord> add(Peer peer);
  // By id.
  [[nodiscard]] std::vector<ClientStatus> snapshot() const;

 private:
  friend class ClientRecord;
  void remove(std::uint64_t id) noexcept;

  mutable std::mutex mutex_;
  std::uint64_t last_id_ = 0;                             // guarded by mutex_
  std::map<std::uint64_t, const ClientRecord*> records_;  // guarded by mutex_
};

// One client, on the list as long as it lives. What it counts costs its thread a few plain stores per request.
// Thread safety: status() from any thread; the rest belongs to the client's.
class ClientRecord {
 public:
  ClientRecord(ClientList& list, std::uint64_t id, Peer peer);
  ~ClientRecord();
  ClientRecord(const ClientRecord&) = delete;
  ClientRecord& operator=(const ClientRecord&) = delete;
  ClientRecord(ClientRecord&&) = delete;
  ClientRecord& operator=(ClientRecord&&) = delete;

  // The handshake is over. Once only.
  void agreed(const Negotiated& negotiated) noexcept;

  // A request was answered.
  void answered(RequestKind kind, std::uint64_t bytes, std::uint64_t ns) noexcept {
    latencies_.add(kind, ns);
    increase(bytes_[static_cast<std::size_t>(kind)], bytes);
  }
  void answered_other() noexcept { increase(other_requests_, 1); }
  void failed() noexcept { increase(errors_, 1); }

  [[nodiscard]] ClientStatus status() const;

 private:
  static void increase(std::atomic<std::uint64_t>& value, std::uint64_t by) noexcept {
    value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  ClientList& list_;
  const std::uint64_t id_;
  const Peer peer_;
  const std::chrono::system_clock::time_point since_;
  Negotiated negotiated_;  // set before serving_
  std::atomic<bool> serving_{false};
  Latencies latencies_;
  std::array<std::atomic<std::uint64_t>, k_request_kinds> bytes_{};
  std::atomic<std::uint64_t> other_requests_{0};
  std::atomic<std::uint64_t> errors_{0};
};

}  // namespace oxbow::nbd
