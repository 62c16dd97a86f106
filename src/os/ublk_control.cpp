// SPDX-License-Identifier: Apache-2.0
#include "os/ublk_control.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "os/fd.h"

namespace oxbow::ublk {
namespace {

constexpr auto k_path = "/dev/ublk-control";
constexpr std::chrono::milliseconds k_removal(1'000);
constexpr std::uint64_t k_needed = k_encoded_commands;
// What every driver knows; what is behind it in theirs is of kinds that are not set.
constexpr std::uint32_t k_parameter_bytes = offsetof(Parameters, pad1);

// An io_uring of one entry, whose entries have room for a command. Thread safety: one thread at a time.
class KernelLink final : public ControlLink {
 public:
  KernelLink() noexcept = default;
  ~KernelLink() override {
    if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
  }
  KernelLink(const KernelLink&) = delete;
  KernelLink& operator=(const KernelLink&) = delete;
  KernelLink(KernelLink&&) = delete;
  KernelLink& operator=(KernelLink&&) = delete;

  [[nodiscard]] Result<void> open() {
    fd_ = UniqueFd(::open(k_path, O_RDWR | O_CLOEXEC));
    if (!fd_.valid()) {
      const int error = errno;
      if (error == ENOENT || error == ENXIO || error == ENODEV)
        return std::unexpected(
            Error("cannot use ublk", k_path, "this kernel has it not, or not loaded (modprobe ublk_drv)"));
      return std::unexpected(Error::from_errno("cannot use ublk", k_path, error));
    }
    const int made = ::io_uring_queue_init(1, &ring_, IORING_SETUP_SQE128);
    if (made != 0) {
      ring_.ring_fd = -1;
      return std::unexpected(Error::from_errno("cannot use ublk", "io_uring", -made));
    }
    return {};
  }

  [[nodiscard]] int run(std::uint32_t operation, const ControlCommand& command,
                        std::chrono::milliseconds patience) noexcept override {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return -EBUSY;
    std::memset(sqe, 0, 2 * sizeof(*sqe));
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd_.get();
    sqe->cmd_op = operation;
    sqe->user_data = ++number_;
    std::memcpy(sqe->cmd, &command, sizeof(command));
    int submitted = 0;
    do {
      submitted = ::io_uring_submit(&ring_);
    } while (submitted == -EINTR);
    return submitted < 0 ? submitted : wait(patience);
  }

 private:
  [[nodiscard]] int wait(std::chrono::milliseconds patience) noexcept {
    const bool for_ever = patience == std::chrono::milliseconds::max();
    __kernel_timespec time{};
    if (!for_ever) time = {.tv_sec = patience.count() / 1000, .tv_nsec = patience.count() % 1000 * 1'000'000};
    while (true) {
      io_uring_cqe* cqe = nullptr;
      const int waited = ::io_uring_wait_cqe_timeout(&ring_, &cqe, for_ever ? nullptr : &time);
      if (waited == -EINTR) continue;
      if (waited < 0) return waited;
      const int answer = cqe->res;
      // Else to one that was not waited for any more.
      const bool ours = cqe->user_data == number_;
      ::io_uring_cqe_seen(&ring_, cqe);
      if (ours) return answer;
    }
  }

  UniqueFd fd_;
  io_uring ring_{.ring_fd = -1};
  std::uint64_t number_ = 0;  // of the last command
};

std::string why(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return std::string(std::strerror(error)) + " (it takes root, or an unprivileged device of one's own)";
    case ENODEV:
      return "there is no such device";
    case EOPNOTSUPP:
      return "this kernel's ublk does not know that";
    default:
      return std::strerror(error);
  }
}

template <typename T>
std::span<std::byte> bytes_of(T& value) noexcept {
  return std::as_writable_bytes(std::span(&value, 1));
}

Error too_old() { return {"cannot use ublk", k_path, "this kernel's is older than that of Linux 6.5"}; }

std::uint64_t process_number() noexcept { return static_cast<std::uint64_t>(::getpid()); }

}  // namespace

std::string control_path() { return k_path; }
std::string character_path(std::uint32_t device) { return "/dev/ublkc" + std::to_string(device); }
std::string block_path(std::uint32_t device) { return "/dev/ublkb" + std::to_string(device); }

Result<Control> Control::open() {
  auto link = std::make_unique<KernelLink>();
  if (auto opened = link->open(); !opened) return std::unexpected(std::move(opened.error()));
  Control control(std::move(link));
  const auto features = control.features();
  if (!features) return std::unexpected(features.error());
  if ((*features & k_needed) != k_needed) return std::unexpected(too_old());
  return control;
}

Result<void> Control::told(const char* what, std::uint32_t device, int answer) const {
  if (answer >= 0) return {};
  const std::string where = device == k_any_device ? std::string(k_path) : block_path(device);
  return std::unexpected(Error(std::string("cannot ") + what, where, why(-answer)));
}

int Control::run(std::uint32_t operation, std::uint32_t device, std::span<std::byte> bytes, bool with_path,
                 std::uint64_t data, std::chrono::milliseconds patience) {
  const std::string path = with_path ? character_path(device) : "";
  std::vector<std::byte> all(path.size() + bytes.size());
  std::ranges::transform(path, all.begin(), [](char each) { return static_cast<std::byte>(each); });
  std::ranges::copy(bytes, all.begin() + static_cast<std::ptrdiff_t>(path.size()));
  const ControlCommand command{.device = device,
                               .length = static_cast<std::uint16_t>(all.size()),
                               .address = all.empty() ? 0 : reinterpret_cast<std::uint64_t>(all.data()),
                               .data = data,
                               .path_length = static_cast<std::uint16_t>(path.size())};
  const int answer = link_->run(operation, command, patience);
  std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(path.size()), bytes.size(), bytes.begin());
  return answer;
}

// The driver wants the path of the character device in front of everything that is asked about a device that an
// unprivileged user owns, and of no other.
int Control::run_on(std::uint32_t operation, std::uint32_t device, std::span<std::byte> bytes,
                    std::uint64_t data, std::chrono::milliseconds patience) {
  DeviceInfo info;
  const int known = run(k_get_device_info, device, bytes_of(info), true, 0);
  if (known < 0) return known;
  return run(operation, device, bytes, (info.flags & k_unprivileged) != 0, data, patience);
}

Result<std::uint64_t> Control::features() {
  std::uint64_t features = 0;
  const int answer = run(k_get_features, k_any_device, bytes_of(features), false, 0);
  if (answer == -EOPNOTSUPP || answer == -EINVAL || answer == -ENODEV) return std::unexpected(too_old());
  if (auto done = told("ask for features", k_any_device, answer); !done) return std::unexpected(done.error());
  return features;
}

Result<DeviceInfo> Control::add(const DeviceInfo& wishes) {
  DeviceInfo info = wishes;
  const int answer = run(k_add_device, wishes.device, bytes_of(info), false, 0);
  if (auto done = told("add device", wishes.device, answer); !done) return std::unexpected(done.error());
  return info;
}

Result<DeviceInfo> Control::info(std::uint32_t device) {
  DeviceInfo info;
  const int answer = run(k_get_device_info, device, bytes_of(info), true, 0);
  if (auto done = told("look at device", device, answer); !done) return std::unexpected(done.error());
  return info;
}

Result<void> Control::set_parameters(std::uint32_t device, const Parameters& parameters) {
  Parameters copy = parameters;
  copy.length = k_parameter_bytes;
  return told("set parameters", device, run_on(k_set_parameters, device, bytes_of(copy), 0));
}

Result<Parameters> Control::parameters(std::uint32_t device) {
  Parameters found{.length = k_parameter_bytes};
  const int answer = run_on(k_get_parameters, device, bytes_of(found), 0);
  if (auto done = told("ask for parameters", device, answer); !done) return std::unexpected(done.error());
  return found;
}

Result<void> Control::start(std::uint32_t device) {
  return told("start device", device, run_on(k_start_device, device, {}, process_number()));
}

Result<void> Control::stop(std::uint32_t device) {
  return told("stop device", device, run_on(k_stop_device, device, {}, 0));
}

Result<void> Control::remove(std::uint32_t device) {
  int answer = run_on(k_remove_device_async, device, {}, 0);
  // An older driver does not know it; Linux 6.12 refuses it to who owns an unprivileged device. The other one waits
  // until nobody has the device open: that is done in the kernel whether somebody waits with it or not.
  if (answer == -EOPNOTSUPP || answer == -EINVAL) {
    answer = run_on(k_remove_device, device, {}, 0, k_removal);
    if (answer == -ETIME) answer = 0;
  }
  return told("remove device", device, answer);
}

Result<void> Control::start_recovery(std::uint32_t device, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds k_pause(10);
  const auto until = std::chrono::steady_clock::now() + patience;
  int answer = run_on(k_start_recovery, device, {}, 0);
  // The process that served it may still be on its way out.
  while (answer == -EBUSY && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(k_pause);
    answer = run_on(k_start_recovery, device, {}, 0);
  }
  return told("take over device", device, answer);
}

Result<void> Control::end_recovery(std::uint32_t device) {
  return told("take over device", device, run_on(k_end_recovery, device, {}, process_number()));
}

}  // namespace oxbow::ublk
