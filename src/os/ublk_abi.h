// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a program and the kernel's ublk driver tell each other. The source of all of it is the kernel's
// include/uapi/linux/ublk_cmd.h and Documentation/block/ublk.rst, as of Linux 6.12 where nothing else is said; the
// headers of a system may be older, and those that are newer have longer structures.

#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace oxbow::ublk {

// --- commands of /dev/ublk-control (UBLK_U_CMD_*) ---

// struct ublksrv_ctrl_cmd: in the second half of an entry of 128 bytes.
struct ControlCommand {
  std::uint32_t device = 0;      // dev_id; k_any_device for one that is added
  std::uint16_t queue = 0xffff;  // queue_id; all ones where it is about no queue
  std::uint16_t length = 0;      // of what is at `address`
  std::uint64_t address = 0;
  std::uint64_t data = 0;
  std::uint16_t path_length = 0;  // dev_path_len: of the path at the beginning of what is at `address`
  std::uint16_t pad = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(ControlCommand) == 32 && offsetof(ControlCommand, path_length) == 24);

inline constexpr std::uint32_t k_any_device = 0xffffffff;

inline constexpr std::uint32_t k_add_device = _IOWR('u', 0x04, ControlCommand);
inline constexpr std::uint32_t k_remove_device = _IOWR('u', 0x05, ControlCommand);
inline constexpr std::uint32_t k_start_device = _IOWR('u', 0x06, ControlCommand);
inline constexpr std::uint32_t k_stop_device = _IOWR('u', 0x07, ControlCommand);
inline constexpr std::uint32_t k_set_parameters = _IOWR('u', 0x08, ControlCommand);
inline constexpr std::uint32_t k_get_parameters = _IOR('u', 0x09, ControlCommand);
inline constexpr std::uint32_t k_start_recovery = _IOWR('u', 0x10, ControlCommand);
inline constexpr std::uint32_t k_end_recovery = _IOWR('u', 0x11, ControlCommand);
inline constexpr std::uint32_t k_get_device_info = _IOR('u', 0x12, ControlCommand);      // GET_DEV_INFO2
inline constexpr std::uint32_t k_get_features = _IOR('u', 0x13, ControlCommand);         // since Linux 6.5
inline constexpr std::uint32_t k_remove_device_async = _IOR('u', 0x14, ControlCommand);  // since Linux 6.9

// --- features (UBLK_F_*) ---

inline constexpr std::uint64_t k_user_recovery = 1U << 3U;          // the device outlives who serves it
inline constexpr std::uint64_t k_user_recovery_reissue = 1U << 4U;  // with the requests that it had
inline constexpr std::uint64_t k_unprivileged = 1U << 5U;
inline constexpr std::uint64_t k_encoded_commands = 1U << 6U;    // CMD_IOCTL_ENCODE
inline constexpr std::uint64_t k_user_copy = 1U << 7U;           // since Linux 6.5
inline constexpr std::uint64_t k_no_partition_scan = 1U << 18U;  // NO_AUTO_PART_SCAN, of later kernels

// --- a device ---

enum class DeviceState : std::uint16_t { dead = 0, live = 1, quiesced = 2 };  // UBLK_S_DEV_*

// struct ublksrv_ctrl_dev_info
struct DeviceInfo {
  std::uint16_t queues = 0;
  std::uint16_t depth = 0;
  std::uint16_t state = 0;
  std::uint16_t pad0 = 0;
  std::uint32_t most_bytes = 0;  // of a request's data (max_io_buf_bytes)
  std::uint32_t device = 0;
  std::int32_t process = 0;  // ublksrv_pid
  std::uint32_t pad1 = 0;
  std::uint64_t flags = 0;
  std::uint64_t mark = 0;  // ublksrv_flags: kept for whoever serves it, unseen by the driver
  std::uint32_t owner = 0;
  std::uint32_t owner_group = 0;
  std::uint64_t reserved1 = 0;
  std::uint64_t reserved2 = 0;
};
static_assert(sizeof(DeviceInfo) == 64 && offsetof(DeviceInfo, flags) == 24 &&
              offsetof(DeviceInfo, mark) == 32);

inline constexpr unsigned k_most_queues = 4096;
inline constexpr unsigned k_most_depth = 4096;

// --- parameters (struct ublk_params), of the kinds that are used here ---

inline constexpr std::uint32_t k_basic = 1U << 0U;    // UBLK_PARAM_TYPE_BASIC
inline constexpr std::uint32_t k_discard = 1U << 1U;  // UBLK_PARAM_TYPE_DISCARD

inline constexpr std::uint32_t k_read_only = 1U << 0U;       // UBLK_ATTR_*
inline constexpr std::uint32_t k_volatile_cache = 1U << 2U;  // it has to be flushed
inline constexpr std::uint32_t k_fua = 1U << 3U;

struct Parameters {
  std::uint32_t length = 0;
  std::uint32_t kinds = 0;
  // struct ublk_param_basic; sizes of blocks are exponents of two
  std::uint32_t attributes = 0;
  std::uint8_t logical_block = 0;
  std::uint8_t physical_block = 0;
  std::uint8_t best_block = 0;      // io_opt_shift
  std::uint8_t smallest_block = 0;  // io_min_shift
  std::uint32_t most_sectors = 0;
  std::uint32_t chunk_sectors = 0;
  std::uint64_t sectors = 0;
  std::uint64_t boundary_mask = 0;
  // struct ublk_param_discard
  std::uint32_t discard_alignment = 0;    // bytes
  std::uint32_t discard_granularity = 0;  // bytes
  std::uint32_t most_discard_sectors = 0;
  std::uint32_t most_zero_sectors = 0;
  std::uint16_t most_discard_ranges = 0;
  std::uint16_t pad0 = 0;
  std::uint32_t pad1 = 0;
};
static_assert(sizeof(Parameters) == 64 && offsetof(Parameters, sectors) == 24 &&
              offsetof(Parameters, discard_alignment) == 40 &&
              offsetof(Parameters, most_discard_ranges) == 56);

// --- commands of /dev/ublkcN, in entries of 64 bytes (UBLK_U_IO_*) ---

// struct ublksrv_io_cmd
struct IoCommand {
  std::uint16_t queue = 0;
  std::uint16_t tag = 0;
  std::int32_t result = 0;    // of a commit: bytes, or a negative errno value
  std::uint64_t address = 0;  // of the request's data, without k_user_copy
};
static_assert(sizeof(IoCommand) == 16);

inline constexpr std::uint32_t k_fetch = _IOWR('u', 0x20, IoCommand);
inline constexpr std::uint32_t k_commit_and_fetch = _IOWR('u', 0x21, IoCommand);

// What a fetch ends with (UBLK_IO_RES_*).
inline constexpr int k_request_here = 0;
inline constexpr int k_ended = -ENODEV;

// struct ublksrv_io_desc, in the mapping of /dev/ublkcN
struct RequestDescriptor {
  std::uint32_t operation_and_flags = 0;  // bits 0 to 7, and the rest
  std::uint32_t sectors = 0;
  std::uint64_t first_sector = 0;
  std::uint64_t address = 0;
};
static_assert(sizeof(RequestDescriptor) == 24);

inline constexpr std::uint32_t k_operation_mask = 0xff;
inline constexpr std::uint32_t k_read = 0;  // UBLK_IO_OP_*
inline constexpr std::uint32_t k_write = 1;
inline constexpr std::uint32_t k_flush = 2;
inline constexpr std::uint32_t k_discard_range = 3;
inline constexpr std::uint32_t k_write_zeros = 5;
inline constexpr std::uint32_t k_fua_flag = 1U << 13U;       // UBLK_IO_F_FUA
inline constexpr std::uint32_t k_no_unmap_flag = 1U << 15U;  // UBLK_IO_F_NOUNMAP

// Where in /dev/ublkcN the descriptors of a queue are mapped from (UBLKSRV_CMD_BUF_OFFSET): each queue has the room of
// the deepest one.
[[nodiscard]] constexpr std::uint64_t descriptors_at(unsigned queue, std::uint64_t page_bytes) noexcept {
  const std::uint64_t most = k_most_depth * sizeof(RequestDescriptor);
  return queue * ((most + page_bytes - 1) / page_bytes * page_bytes);
}

// Where in /dev/ublkcN the data of a request are read and written, with k_user_copy (UBLKSRV_IO_BUF_OFFSET).
[[nodiscard]] constexpr std::uint64_t data_at(unsigned queue, unsigned tag) noexcept {
  constexpr unsigned k_tag_shift = 25;
  constexpr unsigned k_queue_shift = 41;
  return 0x80000000ULL + (std::uint64_t{queue} << k_queue_shift) + (std::uint64_t{tag} << k_tag_shift);
}

}  // namespace oxbow::ublk
