// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/queue_thread.h"

#include <linux/capability.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "device/device.h"

namespace oxbow::ublk {
namespace {

constexpr auto k_what = "cannot serve queue";
constexpr unsigned k_requests_at_once = 16;           // before answers are handed over
constexpr std::uint64_t k_woken = ~std::uint64_t{0};  // what a request never is

// This thread is without CAP_SYS_ADMIN as long as the object lives. Thread safety: one thread.
class WithoutAdmin {
 public:
  WithoutAdmin() noexcept {
    if (::syscall(SYS_capget, &header_, before_.data()) != 0) return;
    auto data = before_;
    data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
    changed_ = ::syscall(SYS_capset, &header_, data.data()) == 0;
  }
  ~WithoutAdmin() {
    if (changed_) (void)::syscall(SYS_capset, &header_, before_.data());
  }
  WithoutAdmin(const WithoutAdmin&) = delete;
  WithoutAdmin& operator=(const WithoutAdmin&) = delete;
  WithoutAdmin(WithoutAdmin&&) = delete;
  WithoutAdmin& operator=(WithoutAdmin&&) = delete;

 private:
  __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> before_{};
  bool changed_ = false;
};

std::uint64_t page_bytes() noexcept { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

std::uint64_t rounded_up(std::uint64_t bytes, std::uint64_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

// --- the channel ---

KernelChannel::~KernelChannel() {
  if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
}

Result<void> KernelChannel::open(int character, unsigned queue, const DeviceInfo& info, int wake_fd) {
  character_ = character;
  queue_ = queue;
  info_ = info;
  wake_fd_ = wake_fd;
  const std::string where = "queue " + std::to_string(queue);
  // One for each tag, and one to be woken.
  const unsigned entries = std::bit_ceil(info.depth + 1U);
  int made = ::io_uring_queue_init(entries, &ring_, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER);
  if (made == -EINVAL) made = ::io_uring_queue_init(entries, &ring_, 0);  // an older kernel's
  if (made != 0) {
    ring_.ring_fd = -1;
    return std::unexpected(Error::from_errno(k_what, where + ": io_uring", -made));
  }
  auto descriptors =
      Mapping::shared_for_reading_from(character, descriptors_at(queue, page_bytes()),
                                       rounded_up(info.depth * sizeof(RequestDescriptor), page_bytes()));
  if (!descriptors)
    return std::unexpected(Error::from_errno(k_what, where + ": mapping", descriptors.error()));
  descriptors_ = std::move(*descriptors);
  if ((info.flags & k_user_copy) != 0) return {};
  auto memory = Mapping::anonymous(std::uint64_t{info.depth} * info.most_bytes);
  if (!memory) return std::unexpected(Error::from_errno(k_what, where + ": buffers", memory.error()));
  memory_ = std::move(*memory);
  return {};
}

io_uring_sqe* KernelChannel::entry() noexcept {
  io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
  // There is one for each tag, so this happens only while the kernel lacks the memory to take some.
  while (sqe == nullptr) {
    (void)::io_uring_submit(&ring_);
    sqe = ::io_uring_get_sqe(&ring_);
  }
  return sqe;
}

void KernelChannel::prepare(std::uint32_t operation, unsigned tag, int result) noexcept {
  io_uring_sqe* const sqe = entry();
  std::memset(sqe, 0, sizeof(*sqe));
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = character_;
  sqe->cmd_op = operation;
  sqe->user_data = tag;
  const IoCommand command{.queue = static_cast<std::uint16_t>(queue_),
                          .tag = static_cast<std::uint16_t>(tag),
                          .result = result,
                          .address = reinterpret_cast<std::uint64_t>(memory(tag).data())};
  std::memcpy(sqe->cmd, &command, sizeof(command));
}

void KernelChannel::watch_wake() noexcept {
  io_uring_sqe* const sqe = entry();
  ::io_uring_prep_poll_multishot(sqe, wake_fd_, POLLIN);
  ::io_uring_sqe_set_data64(sqe, k_woken);
}

Result<void> KernelChannel::fetch() {
  watch_wake();
  for (unsigned tag = 0; tag < info_.depth; ++tag) prepare(k_fetch, tag, 0);
  int submitted = 0;
  for (unsigned left = info_.depth + 1U; left > 0; left -= static_cast<unsigned>(submitted)) {
    submitted = ::io_uring_submit(&ring_);
    if (submitted == -EINTR) submitted = 0;
    if (submitted < 0)
      return std::unexpected(Error::from_errno(k_what, "queue " + std::to_string(queue_), -submitted));
  }
  // What the driver does not want it says at once.
  io_uring_cqe* cqe = nullptr;
  if (::io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe->res < 0)
    return std::unexpected(Error::from_errno(k_what, "queue " + std::to_string(queue_), -cqe->res));
  return {};
}

void KernelChannel::submit() noexcept { (void)::io_uring_submit(&ring_); }

void KernelChannel::wait() noexcept { (void)::io_uring_submit_and_wait(&ring_, 1); }

KernelChannel::Arrived KernelChannel::next() noexcept {
  io_uring_cqe* cqe = nullptr;
  if (::io_uring_peek_cqe(&ring_, &cqe) != 0) return {};
  Arrived arrived{.any = true, .woken = cqe->user_data == k_woken};
  arrived.tag = static_cast<unsigned>(cqe->user_data);
  arrived.result = cqe->res;
  const bool watch_again = arrived.woken && (cqe->flags & IORING_CQE_F_MORE) == 0;
  ::io_uring_cqe_seen(&ring_, cqe);
  if (watch_again) watch_wake();
  return arrived;
}

RequestDescriptor KernelChannel::descriptor(unsigned tag) const noexcept {
  RequestDescriptor out;
  std::memcpy(&out, descriptors_.data() + tag * sizeof(out), sizeof(out));
  return out;
}

std::span<std::byte> KernelChannel::memory(unsigned tag) noexcept {
  if (memory_.size() == 0) return {};
  return {memory_.data() + std::size_t{tag} * info_.most_bytes, info_.most_bytes};
}

bool KernelChannel::receive(unsigned tag, std::span<std::byte> to) noexcept {
  std::uint64_t at = data_at(queue_, tag);
  while (!to.empty()) {
    const ssize_t got = ::pread(character_, to.data(), to.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to = to.subspan(static_cast<std::size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
  return true;
}

bool KernelChannel::send(unsigned tag, std::span<const iovec> pieces) noexcept {
  std::uint64_t at = data_at(queue_, tag);
  for (const iovec& piece : pieces) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    std::size_t left = piece.iov_len;
    while (left > 0) {
      const ssize_t put = ::pwrite(character_, from, left, static_cast<off_t>(at));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return false;
      from += put;
      left -= static_cast<std::size_t>(put);
      at += static_cast<std::uint64_t>(put);
    }
  }
  return true;
}

void KernelChannel::answer(unsigned tag, int result) noexcept { prepare(k_commit_and_fetch, tag, result); }

// --- the thread ---

Result<std::unique_ptr<QueueThread>> QueueThread::start(Device& device, int character,
                                                        const Options& options) {
  try {
    std::unique_ptr<QueueThread> thread(new QueueThread(device, options));
    std::promise<Result<void>> fetched;
    auto outcome = fetched.get_future();
    thread->thread_ =
        std::thread([self = thread.get(), character, &fetched] { self->run(character, fetched); });
    if (auto done = outcome.get(); !done) return std::unexpected(std::move(done.error()));
    return thread;
  } catch (const std::system_error& failure) {
    return std::unexpected(Error(k_what, "thread", failure.what()));
  }
}

QueueThread::~QueueThread() { abandon(); }

void QueueThread::join() noexcept {
  if (thread_.joinable()) thread_.join();
}

void QueueThread::abandon() noexcept {
  abandoned_.store(true, std::memory_order_release);
  (void)::eventfd_write(queue_.event_fd(), 1);
  join();
}

void QueueThread::log(LogLevel level, std::string_view line) const noexcept {
  if (options_.log != nullptr) options_.log->write(level, "ublk", line);
}

Result<void> QueueThread::fetch(int character) {
  // Memory that this thread asks for must not wait for the writing of pages that it has to carry out itself.
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
    log(LogLevel::debug, std::string("may not be an I/O flusher: ") + std::strerror(errno));
  if (auto opened = channel_.open(character, options_.queue, options_.info, queue_.event_fd()); !opened)
    return opened;
  if (!options_.untrusted) return channel_.fetch();
  const WithoutAdmin without;
  return channel_.fetch();
}

void QueueThread::run(int character, std::promise<Result<void>>& fetched) noexcept {
  Requests requests(device_, queue_, channel_,
                    {.depth = options_.info.depth,
                     .most_bytes = options_.info.most_bytes,
                     .read_only = options_.read_only});
  requests.keep_buffers();
  auto done = fetch(character);
  const bool ready = done.has_value();
  fetched.set_value(std::move(done));
  if (ready) serve(requests);
}

void QueueThread::serve(Requests& requests) noexcept {
  while (true) {
    const bool more = take_some(requests);
    queue_.submit();
    channel_.submit();
    if (more) continue;
    const bool ending = ended_ == options_.info.depth || abandoned_.load(std::memory_order_acquire);
    if (ending && requests.open() == 0) return;
    channel_.wait();
  }
}

// Whether there may be more.
bool QueueThread::take_some(Requests& requests) noexcept {
  for (unsigned i = 0; i < k_requests_at_once; ++i) {
    const KernelChannel::Arrived arrived = channel_.next();
    if (!arrived.any) return false;
    if (arrived.woken) {
      (void)queue_.poll();
    } else if (arrived.result == k_request_here) {
      requests.begin(arrived.tag);
    } else {
      ++ended_;
      if (arrived.result == k_ended) continue;
      log(LogLevel::error, device_.name() + ": no requests of tag " + std::to_string(arrived.tag) +
                               " can be fetched: " + std::strerror(-arrived.result));
    }
  }
  return true;
}

}  // namespace oxbow::ublk
