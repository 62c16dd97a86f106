// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/client_record.h"

#include <netdb.h>
#include <sys/socket.h>

#include <utility>

namespace oxbow::nbd {

Peer Peer::of(int socket) {
  Peer peer;
  ::sockaddr_storage address{};
  ::socklen_t length = sizeof(address);
  if (::getpeername(socket, reinterpret_cast<::sockaddr*>(&address), &length) != 0) return peer;
  if (address.ss_family == AF_UNIX) {
    ::ucred credentials{};
    length = sizeof(credentials);
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0) {
      peer.pid = credentials.pid;
      peer.uid = credentials.uid;
    }
    return peer;
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(reinterpret_cast<::sockaddr*>(&address), length, host.data(), host.size(), port.data(),
                    port.size(), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    const std::string name = host.data();
    peer.address = (address.ss_family == AF_INET6 ? "[" + name + "]" : name) + ":" + port.data();
  }
  return peer;
}

std::string Peer::text() const {
  if (!address.empty()) return address;
  return "process " + std::to_string(pid) + " of user " + std::to_string(uid);
}

std::unique_ptr<ClientRecord> ClientList::add(Peer peer) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t id = ++last_id_;
  auto place = records_.emplace(id, nullptr).first;
  // Should this throw, the place stays, and is passed over.
  auto record = std::make_unique<ClientRecord>(*this, id, std::move(peer));
  place->second = record.get();
  return record;
}

void ClientList::remove(std::uint64_t id) noexcept {
  const std::scoped_lock lock(mutex_);
  records_.erase(id);
}

std::vector<ClientStatus> ClientList::snapshot() const {
  std::vector<ClientStatus> all;
  // Under the lock no record ends.
  const std::scoped_lock lock(mutex_);
  all.reserve(records_.size());
  for (const auto& [id, record] : records_) {
    if (record != nullptr) all.push_back(record->status());
  }
  return all;
}

ClientRecord::ClientRecord(ClientList& list, std::uint64_t id, Peer peer)
    : list_(list), id_(id), peer_(std::move(peer)), since_(std::chrono::system_clock::now()) {}

ClientRecord::~ClientRecord() { list_.remove(id_); }

void ClientRecord::agreed(const Negotiated& negotiated) noexcept {
  negotiated_ = negotiated;
  serving_.store(true, std::memory_order_release);
}

ClientStatus ClientRecord::status() const {
  ClientStatus status;
  status.id = id_;
  status.peer = peer_;
  status.since = since_;
  status.errors = errors_.load(std::memory_order_relaxed);
  status.other_requests = other_requests_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < k_request_kinds; ++i)
    status.bytes[i] = bytes_[i].load(std::memory_order_relaxed);
  status.latency = latencies_.snapshot();
  status.serving = serving_.load(std::memory_order_acquire);
  if (!status.serving) return status;
  status.export_name = negotiated_.served->name;
  status.device = negotiated_.served->device;
  status.encrypted = negotiated_.encrypted;
  status.structured_replies = negotiated_.structured_replies;
  status.allocation = negotiated_.allocation;
  status.depth = negotiated_.depth;
  return status;
}

}  // namespace oxbow::nbd
