// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/worker.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "device/latency.h"
#include "exports/fuse/operations.h"

namespace oxbow::fuse {
namespace {

constexpr std::size_t k_largest_transfer = std::size_t{1} << 20U;  // bytes, of a read or write
constexpr std::size_t k_page = 4096;
// Before a write's data: the header that all requests have, and that of a write.
constexpr std::size_t k_write_headers = sizeof(fuse_in_header) + sizeof(fuse_write_in);
// In front of it is room, so that a write's data is aligned for O_DIRECT.
constexpr std::size_t k_receive_at = k_page - k_write_headers;
constexpr std::size_t k_receive_bytes = k_write_headers + k_largest_transfer + k_page;
constexpr unsigned k_requests_at_once = 32;  // before completions are looked at
constexpr unsigned k_looks_at_once = 64;     // for data or a hole, each at up to 16 extents
constexpr unsigned k_most_background = 256;  // asynchronous requests that the kernel sends at a time
// A write up to that size that will wait is moved out of the way of the next request, instead of keeping a buffer for
// the largest one.
constexpr std::size_t k_copied_write = std::size_t{128} << 10U;
// With that much on loan, nothing is received until there is less.
constexpr std::size_t k_most_lent_bytes = std::size_t{64} << 20U;

// What the kernel is told. ENOSYS would mean "never ask for that again, and call it a success".
int error_for_kernel(IoStatus status) noexcept {
  return status.error_number() == ENOSYS ? EIO : status.error_number();
}

}  // namespace

Worker::Worker(Device& device, const Options& options)
    : device_(device), options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_.valid()) throw std::system_error(errno, std::generic_category(), "epoll");
  (void)::clock_gettime(CLOCK_REALTIME, &changed_at_);
}

Result<void> Worker::open_session(UniqueFd fuse) {
  const auto failed = [this](const std::string& why) {
    return std::unexpected(Error("cannot show device as file", device_.name(), why));
  };
  const int flags = ::fcntl(fuse.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fuse.get(), F_SETFL, flags | O_NONBLOCK) < 0) return failed(std::strerror(errno));
  std::array<char, 6> name{"oxbow"};
  std::array<char*, 1> words{name.data()};
  fuse_args arguments = FUSE_ARGS_INIT(1, words.data());
  session_.reset(::fuse_session_new(&arguments, &operations(), sizeof(fuse_lowlevel_ops), this));
  ::fuse_opt_free_args(&arguments);  // of the copy that libfuse makes of them
  if (session_ == nullptr) return failed("libfuse makes no session");
  const std::string where = "/dev/fd/" + std::to_string(fuse.get());
  if (::fuse_session_mount(session_.get(), where.c_str()) != 0)
    return failed("libfuse does not take a descriptor");
  const int fd = fuse.release();  // the session's now
  for (const int each : {fd, queue_.event_fd()}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = each}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, each, &event) != 0) return failed(std::strerror(errno));
  }
  return {};
}

Result<std::unique_ptr<Worker>> Worker::start(Device& device, UniqueFd fuse, const Options& options) {
  try {
    std::unique_ptr<Worker> worker(new Worker(device, options));
    if (auto opened = worker->open_session(std::move(fuse)); !opened)
      return std::unexpected(std::move(opened.error()));
    worker->thread_ = std::thread([self = worker.get()] { self->run(); });
    return worker;
  } catch (const std::system_error& failure) {
    return std::unexpected(Error("cannot show device as file", "thread", failure.what()));
  }
}

Worker::~Worker() { stop(); }

void Worker::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  wake();
  if (thread_.joinable()) thread_.join();
}

void Worker::wake() noexcept { (void)::eventfd_write(queue_.event_fd(), 1); }

void Worker::log(LogLevel level, std::string_view line) const noexcept {
  if (options_.log != nullptr) options_.log->write(level, "fuse", line);
}

// --- the thread ---

void Worker::run() noexcept {
  // Memory that this thread asks for must not wait for the writing of pages that it has to carry out itself.
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
    log(LogLevel::debug, std::string("may not be an I/O flusher: ") + std::strerror(errno));
  while (true) {
    (void)queue_.poll();
    const bool ending = gone_ || stopping_.load(std::memory_order_acquire);
    if (ending && in_flight_ == 0) break;
    if (!ending) receive();
    queue_.submit();
    wait();
  }
  received_ = {};
}

bool Worker::may_receive() const noexcept { return !gone_ && !stopping_.load(std::memory_order_relaxed); }

void Worker::receive() noexcept {
  for (unsigned i = 0; i < k_requests_at_once && may_receive(); ++i) {
    if (!receive_one()) return;
  }
}

// Whether there may be more.
bool Worker::receive_one() noexcept {
  // Too much is on its way; completions come first.
  if (in_flight_ > 0 && queue_.buffers().lent_bytes() > k_most_lent_bytes) return false;
  if (!received_.valid()) received_ = queue_.buffers().take(k_receive_at + k_receive_bytes);
  starved_ = !received_.valid();
  if (starved_) return false;
  std::byte* const place = received_.bytes().data() + k_receive_at;
  const ssize_t got = ::read(::fuse_session_fd(session_.get()), place, k_receive_bytes);
  if (got < 0) {
    // ENOENT: the request was interrupted before it was received.
    if (errno == EINTR || errno == ENOENT) return true;
    if (errno == EAGAIN) return false;
    const int why = errno;
    gone_ = true;
    if (why != ENODEV) {
      log(LogLevel::error, std::string("no requests can be received: ") + std::strerror(why));
    } else if (!end_expected_.load(std::memory_order_relaxed)) {
      log(LogLevel::warning, device_.name() + ": the file that shows it was unmounted");
    }
    return false;
  }
  fuse_buf request{};
  request.size = static_cast<std::size_t>(got);
  request.mem = place;
  ::fuse_session_process_buf(session_.get(), &request);
  return true;
}

void Worker::wait() noexcept {
  constexpr int k_retry_ms = 10;
  const bool full = in_flight_ > 0 && queue_.buffers().lent_bytes() > k_most_lent_bytes;
  const bool ending = gone_ || stopping_.load(std::memory_order_acquire);
  if (full || ending) {
    // Only completions help.
    if (in_flight_ > 0) queue_.wait();
    return;
  }
  std::array<epoll_event, 2> events;
  // Without memory for a request the descriptor stays readable.
  if (starved_) (void)::usleep(k_retry_ms * 1000);
  (void)::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
}

// --- the operations ---

void Worker::agree(fuse_conn_info& connection) noexcept {
  connection.want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                            FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
  connection.want |= connection.capable & static_cast<unsigned>(FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC);
  connection.max_write = k_largest_transfer;
  connection.max_background = k_most_background;
  connection.congestion_threshold = k_most_background * 3 / 4;
}

struct ::stat Worker::attributes() noexcept {
  if (std::exchange(changed_, false)) (void)::clock_gettime(CLOCK_REALTIME, &changed_at_);
  struct ::stat out{};
  out.st_ino = FUSE_ROOT_ID;
  out.st_mode = S_IFREG | (writable() ? 0600U : 0400U);
  out.st_nlink = 1;
  out.st_uid = ::geteuid();
  out.st_gid = ::getegid();
  out.st_size = static_cast<off_t>(size());
  out.st_blocks = static_cast<blkcnt_t>((size() + k_sector_bytes - 1) / k_sector_bytes);
  out.st_blksize = k_page;
  out.st_atim = out.st_mtim = out.st_ctim = changed_at_;
  return out;
}

void Worker::open(fuse_req_t kernel, const fuse_file_info& file) noexcept {
  const bool writes = (file.flags & O_ACCMODE) != O_RDONLY;
  if (writes && !writable()) {
    (void)::fuse_reply_err(kernel, EROFS);
    return;
  }
  const bool flushes = writes && options_.flush_at_close;
  // By hand, for libfuse 3.14 has no word for writes that may be in flight together.
  const fuse_open_out answer{
      .fh = 0,
      .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | (flushes ? 0U : FOPEN_NOFLUSH),
      .padding = 0};
  opens_.fetch_add(1);
  // One that was given up before it got the answer is not released.
  if (::fuse_reply_buf(kernel, reinterpret_cast<const char*>(&answer), sizeof answer) != 0) released();
}

void Worker::read(fuse_req_t kernel, std::uint64_t at, std::size_t bytes) noexcept {
  const std::uint64_t end = size();
  const Range range{at, at < end ? std::min<std::uint64_t>(bytes, end - at) : 0};
  if (range.empty()) {
    (void)::fuse_reply_buf(kernel, nullptr, 0);
    return;
  }
  const std::uint64_t arrived_ns = steady_ns();
  ReadView view;
  // Only from memory that stays: of a file that is cut short meanwhile, zeros could be sent that nobody can take back.
  if (device_.view(queue_, range, view) && !view.may_fault) {
    device_.viewed(queue_, range, view);
    (void)::fuse_reply_iov(kernel, view.pieces.begin(), static_cast<int>(view.pieces.size()));
    return took(Operation::read, arrived_ns);
  }
  view.clear();
  Request* const request = take(kernel, Operation::read, range);
  if (request == nullptr) return;
  request->arrived_ns = arrived_ns;
  request->buffer = queue_.buffers().take(range.length);
  if (!request->buffer.valid()) return answer(*request, IoStatus::error(ENOMEM));
  submitted(*request, device_.read(*request, range.offset, request->buffer.bytes()));
}

void Worker::write(fuse_req_t kernel, std::uint64_t at, std::span<const std::byte> data,
                   Durability durability) noexcept {
  const std::uint64_t end = size();
  // As at the end of a block device.
  const Range range{at, at < end ? std::min<std::uint64_t>(data.size(), end - at) : 0};
  if (range.empty() && !data.empty()) {
    (void)::fuse_reply_err(kernel, ENOSPC);
    return;
  }
  Request* const request = take(kernel, Operation::write, range);
  if (request == nullptr) return;
  if (!writable()) return answer(*request, IoStatus::error(EROFS));
  changed_ = true;
  data = data.first(range.length);
  if (writes_wait_ && range.length <= k_copied_write) {
    request->buffer = queue_.buffers().take(range.length);
    if (!request->buffer.valid()) return answer(*request, IoStatus::error(ENOMEM));
    std::ranges::copy(data, request->buffer.bytes().begin());
    data = request->buffer.bytes();
  }
  const Progress progress = device_.write(*request, range.offset, data, durability);
  writes_wait_ = progress.is_pending();
  if (writes_wait_ && !request->buffer.valid()) request->buffer = std::move(received_);
  submitted(*request, progress);
}

void Worker::flush(fuse_req_t kernel) noexcept {
  Request* const request = take(kernel, Operation::flush, {});
  if (request != nullptr) submitted(*request, device_.flush(*request));
}

void Worker::allocate(fuse_req_t kernel, int mode, Range range) noexcept {
  const std::uint64_t end = size();
  const bool punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  const bool zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
  int error = 0;
  if (!punch && !zero) {
    error = EOPNOTSUPP;
  } else if (!writable()) {
    error = EROFS;
  } else if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && !range.fits(end)) {
    error = ENOSPC;  // the file would have to grow
  }
  if (error != 0) {
    (void)::fuse_reply_err(kernel, error);
    return;
  }
  const Range within{range.offset, range.offset < end ? std::min(range.length, end - range.offset) : 0};
  Request* const request = take(kernel, Operation::change, within);
  if (request == nullptr) return;
  if (within.empty()) return answer(*request, {});
  changed_ = true;
  // Not a discard: a hole has to read as zeros in parts of clusters too.
  submitted(*request, device_.zero(*request, within, zero, Durability::with_flush));
}

void Worker::seek(fuse_req_t kernel, std::uint64_t at, SeekFor wanted) noexcept {
  const std::uint64_t end = size();
  if (at >= end) {
    (void)::fuse_reply_err(kernel, ENXIO);
    return;
  }
  Request* const request = take(kernel, Operation::seek, {at, end - at});
  if (request == nullptr) return;
  request->seek_for = wanted;
  seek_on(*request);
}

// --- the ways of a request ---

// Answers it with an error when memory is short.
Request* Worker::take(fuse_req_t kernel, Operation operation, Range range) noexcept {
  Request* const request = requests_.take(queue_, &Worker::completed, *this);
  if (request == nullptr) {
    (void)::fuse_reply_err(kernel, ENOMEM);
    return nullptr;
  }
  request->kernel = kernel;
  request->operation = operation;
  request->range = range;
  request->arrived_ns = steady_ns();
  return request;
}

void Worker::submitted(Request& request, Progress progress) noexcept {
  if (!progress.is_pending()) return finished(request, progress.status());
  ++in_flight_;
  ::fuse_req_interrupt_func(request.kernel, &Worker::interrupted, &request);
}

// Its process got a signal. On the worker's thread, as it is told by a request of its own.
void Worker::interrupted(fuse_req_t /*kernel*/, void* request) noexcept {
  auto& waiting = *static_cast<Request*>(request);
  waiting.impatient = true;
  waiting.owner->device_.hurry(waiting);
}

void Worker::completed(Io& io) noexcept {
  auto& request = static_cast<Request&>(io);
  ::fuse_req_interrupt_func(request.kernel, nullptr, nullptr);
  --request.owner->in_flight_;
  request.owner->finished(request, request.status);
}

void Worker::finished(Request& request, IoStatus status) noexcept {
  if (request.operation != Operation::seek) return answer(request, status);
  if (sought(request, status)) seek_on(request);
}

void Worker::seek_on(Request& request) noexcept {
  for (unsigned i = 0; i < k_looks_at_once; ++i) {
    const Progress progress = device_.extents(request, request.range, request.extents);
    if (progress.is_pending()) return submitted(request, progress);
    if (!sought(request, progress.status())) return;
  }
  // Others have their turn.
  request.extents.clear();
  ++in_flight_;
  queue_.post(request, {});
}

// Looks at what the extents say; answers if that decides. Whether to go on looking.
bool Worker::sought(Request& request, IoStatus status) noexcept {
  if (!status.ok()) {
    answer(request, status);
    return false;
  }
  auto found = find(request.extents, request.seek_for, request.range);
  if (!found && !request.range.empty()) return true;
  // There is a hole behind the end, and no data.
  if (!found && request.seek_for == SeekFor::hole) found = request.range.offset;
  if (found) {
    (void)::fuse_reply_lseek(request.kernel, static_cast<off_t>(*found));
    requests_.give_back(request);
  } else {
    answer(request, IoStatus::error(ENXIO));
  }
  return false;
}

// That it does not arrive means that nobody waits for it any more.
void Worker::answer(Request& request, IoStatus status) noexcept {
  if (!status.ok()) {
    (void)::fuse_reply_err(request.kernel, error_for_kernel(status));
  } else if (request.operation == Operation::read) {
    const auto bytes = request.buffer.bytes();
    (void)::fuse_reply_buf(request.kernel, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  } else if (request.operation == Operation::write) {
    (void)::fuse_reply_write(request.kernel, request.range.length);
  } else {
    (void)::fuse_reply_err(request.kernel, 0);
  }
  took(request.operation, request.arrived_ns);
  requests_.give_back(request);
}

void Worker::took(Operation operation, std::uint64_t arrived_ns) noexcept {
  constexpr std::array k_kinds{RequestKind::read, RequestKind::write, RequestKind::change,
                               RequestKind::flush};
  const auto index = static_cast<std::size_t>(operation);
  if (index < k_kinds.size()) device_.took(queue_, k_kinds[index], steady_ns() - arrived_ns);
}

}  // namespace oxbow::fuse
