// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string_view>
#include <thread>

#include "exports/fuse/fuse3.h"
#include "exports/fuse/request.h"
#include "os/fd.h"
#include "os/log.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow::fuse {

// The thread that answers the kernel's requests for one file: it receives them, and they complete on its queue. libfuse
// calls the operations on that thread, from receive_one().
// Thread safety: expect_end(), stop() and destruction from the thread that started it; the operations belong to the
// worker's thread.
class Worker {
 public:
  struct Options {
    bool read_only = false;      // refuses changes, whatever the device allows
    bool flush_at_close = true;  // of a descriptor that was open for writing
    Log* log = nullptr;          // borrowed; null: silent
  };

  // Serves `device`, which is borrowed until the destruction, through the descriptor of a mount.
  [[nodiscard]] static Result<std::unique_ptr<Worker>> start(Device& device, UniqueFd fuse,
                                                             const Options& options);
  // As stop(), then gives up the descriptor: whoever still has the file open gets errors from now on.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  Worker(Worker&&) = delete;
  Worker& operator=(Worker&&) = delete;

  // The mount is being taken away on purpose: that is no news.
  void expect_end() noexcept { end_expected_.store(true, std::memory_order_relaxed); }
  // Receives nothing more, answers what was received, and ends the thread.
  void stop() noexcept;
  // How many times the file is open now. From any thread.
  [[nodiscard]] std::uint64_t opens() const noexcept { return opens_.load(); }

  // --- the operations ---

  void agree(fuse_conn_info& connection) noexcept;
  [[nodiscard]] bool writable() const noexcept { return !options_.read_only && device_.writable(); }
  [[nodiscard]] std::uint64_t size() const noexcept { return device_.size(); }
  [[nodiscard]] struct ::stat attributes() noexcept;
  void open(fuse_req_t kernel, const fuse_file_info& file) noexcept;
  void released() noexcept { opens_.fetch_sub(1); }
  void read(fuse_req_t kernel, std::uint64_t at, std::size_t bytes) noexcept;
  // `data` is in what was received last.
  void write(fuse_req_t kernel, std::uint64_t at, std::span<const std::byte> data, Durability) noexcept;
  void flush(fuse_req_t kernel) noexcept;
  // As fallocate(2) has it.
  void allocate(fuse_req_t kernel, int mode, Range range) noexcept;
  void seek(fuse_req_t kernel, std::uint64_t at, SeekFor wanted) noexcept;

 private:
  Worker(Device& device, const Options& options);
  [[nodiscard]] Result<void> open_session(UniqueFd fuse);
  void run() noexcept;
  void receive() noexcept;
  [[nodiscard]] bool receive_one() noexcept;
  [[nodiscard]] bool may_receive() const noexcept;
  void wait() noexcept;
  void wake() noexcept;
  void log(LogLevel level, std::string_view line) const noexcept;

  [[nodiscard]] Request* take(fuse_req_t kernel, Operation operation, Range range) noexcept;
  static void completed(Io& io) noexcept;
  static void interrupted(fuse_req_t kernel, void* request) noexcept;
  void submitted(Request& request, Progress progress) noexcept;
  void finished(Request& request, IoStatus status) noexcept;
  void seek_on(Request& request) noexcept;
  [[nodiscard]] bool sought(Request& request, IoStatus status) noexcept;
  void answer(Request& request, IoStatus status) noexcept;
  void took(Operation operation, std::uint64_t arrived_ns) noexcept;

  struct DestroySession {
    void operator()(fuse_session* session) const noexcept { ::fuse_session_destroy(session); }
  };

  Device& device_;
  const Options options_;
  Queue queue_;
  UniqueFd epoll_;
  std::unique_ptr<fuse_session, DestroySession> session_;  // owns the descriptor
  RequestPool requests_;
  Buffer received_;  // what the next request is received in
  std::size_t in_flight_ = 0;
  bool starved_ = false;      // there was no memory for the next request
  bool writes_wait_ = false;  // the last write did not complete at once
  bool gone_ = false;         // the mount: there is nothing more to receive
  bool changed_ = false;      // since changed_at_
  std::timespec changed_at_{};
  std::atomic<std::uint64_t> opens_{0};
  std::atomic<bool> end_expected_{false};
  std::atomic<bool> stopping_{false};
  std::thread thread_;  // last: it uses all of them
};

}  // namespace oxbow::fuse
