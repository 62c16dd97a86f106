// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <liburing.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "exports/ublk/requests.h"
#include "os/log.h"
#include "os/mapping.h"
#include "os/queue.h"
#include "os/ublk_abi.h"
#include "oxbow/error.h"

namespace oxbow::ublk {

// Between a queue of the driver and Requests: an io_uring with a fetch for each tag, and the mapped descriptors.
// Thread safety: belongs to the queue's thread.
class KernelChannel final : public Channel {
 public:
  KernelChannel() noexcept = default;
  ~KernelChannel() override;
  KernelChannel(const KernelChannel&) = delete;
  KernelChannel& operator=(const KernelChannel&) = delete;
  KernelChannel(KernelChannel&&) = delete;
  KernelChannel& operator=(KernelChannel&&) = delete;

  // Of that queue of the device behind `character`, which is borrowed. `wake_fd` ends a wait when it is readable.
  [[nodiscard]] Result<void> open(int character, unsigned queue, const DeviceInfo& info, int wake_fd);
  // Fetches all requests. The error is the driver's.
  [[nodiscard]] Result<void> fetch();
  // Hands the answers over.
  void submit() noexcept;
  // The same, and waits until something has arrived, or the descriptor is readable.
  void wait() noexcept;

  struct Arrived {
    bool any = false;
    bool woken = false;  // by the descriptor, and not by a request
    unsigned tag = 0;
    int result = 0;
  };
  // Something of what has arrived.
  [[nodiscard]] Arrived next() noexcept;

  [[nodiscard]] RequestDescriptor descriptor(unsigned tag) const noexcept override;
  [[nodiscard]] std::span<std::byte> memory(unsigned tag) noexcept override;
  [[nodiscard]] bool receive(unsigned tag, std::span<std::byte> to) noexcept override;
  [[nodiscard]] bool send(unsigned tag, std::span<const iovec> pieces) noexcept override;
  void answer(unsigned tag, int result) noexcept override;

 private:
  void prepare(std::uint32_t operation, unsigned tag, int result) noexcept;
  void watch_wake() noexcept;
  [[nodiscard]] io_uring_sqe* entry() noexcept;

  int character_ = -1;
  int wake_fd_ = -1;
  unsigned queue_ = 0;
  DeviceInfo info_;
  io_uring ring_{.ring_fd = -1};
  Mapping descriptors_;
  Mapping memory_;  // without k_user_copy: room for the data of each tag
};

// The thread that answers the requests of one queue: they arrive and complete on it.
// Thread safety: belongs to the thread that started it.
class QueueThread {
 public:
  struct Options {
    unsigned queue = 0;
    DeviceInfo info;
    bool read_only = false;
    bool untrusted = false;  // fetches without CAP_SYS_ADMIN: the kernel then looks for no partitions
    Log* log = nullptr;      // borrowed; null: silent
  };

  // Returns when all requests have been fetched. The device and the descriptor are borrowed.
  [[nodiscard]] static Result<std::unique_ptr<QueueThread>> start(Device& device, int character,
                                                                  const Options& options);
  ~QueueThread();  // as abandon()
  QueueThread(const QueueThread&) = delete;
  QueueThread& operator=(const QueueThread&) = delete;
  QueueThread(QueueThread&&) = delete;
  QueueThread& operator=(QueueThread&&) = delete;

  // Waits for its end, which comes when the driver has ended all fetches: after Control::stop().
  void join() noexcept;
  // Answers what has arrived and ends, whatever the driver does.
  void abandon() noexcept;

 private:
  QueueThread(Device& device, const Options& options) : device_(device), options_(options) {}
  void run(int character, std::promise<Result<void>>& fetched) noexcept;
  [[nodiscard]] Result<void> fetch(int character);
  void serve(Requests& requests) noexcept;
  [[nodiscard]] bool take_some(Requests& requests) noexcept;
  void log(LogLevel level, std::string_view line) const noexcept;

  Device& device_;
  const Options options_;
  Queue queue_;
  KernelChannel channel_;
  unsigned ended_ = 0;  // fetches
  std::atomic<bool> abandoned_{false};
  std::thread thread_;  // last: it uses all of them
};

}  // namespace oxbow::ublk
