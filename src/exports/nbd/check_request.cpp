// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/check_request.h"

#include <cerrno>
#include <optional>

#include "device/device.h"

namespace oxbow::nbd {
namespace {

// What the protocol says of one command.
struct Rules {
  unsigned flags;        // besides FUA, which it wants accepted everywhere
  bool changes = false;  // not of read-only exports
  bool carries = false;  // data, in the request or in the reply
  int beyond_end = EINVAL;
};

std::optional<Rules> rules_of(const RequestHeader& header, const Negotiated& negotiated) noexcept {
  namespace flag = command_flag;
  switch (header.command) {
    case Command::read:
      return Rules{.flags = negotiated.structured_replies ? flag::k_df : 0U, .carries = true};
    case Command::write:
      return Rules{.flags = 0, .changes = true, .carries = true, .beyond_end = ENOSPC};
    case Command::flush:
    case Command::cache:
      return Rules{.flags = 0};
    case Command::trim:
      return Rules{.flags = 0, .changes = true};
    case Command::write_zeroes:
      return Rules{.flags = flag::k_no_hole | flag::k_fast_zero, .changes = true, .beyond_end = ENOSPC};
    case Command::block_status:
      return Rules{.flags = flag::k_req_one};
    default:
      return std::nullopt;
  }
}

Verdict refuse(int error, std::string_view why) noexcept { return {IoStatus::error(error), why}; }

}  // namespace

Verdict check_request(const RequestHeader& header, const Negotiated& negotiated) noexcept {
  if (header.command == Command::disconnect) return {};
  const std::optional<Rules> rules = rules_of(header, negotiated);
  if (!rules) return refuse(EINVAL, "the command is unknown");
  if ((header.flags & ~(rules->flags | command_flag::k_fua)) != 0) {
    return refuse(EINVAL, "a flag does not belong to this command, or was not negotiated");
  }
  if (rules->changes && !negotiated.served->writable()) return refuse(EPERM, "the export is read-only");
  if (rules->carries && header.length > k_max_payload_bytes) {
    return refuse(EINVAL, "READ and WRITE move at most 32 MiB");
  }
  if (header.command == Command::flush && (header.offset != 0 || header.length != 0)) {
    return refuse(EINVAL, "offset and length of a FLUSH have to be 0");
  }
  if (header.command == Command::block_status) {
    if (!negotiated.allocation && !negotiated.depth)
      return refuse(EINVAL, "no metadata context was selected");
    if (header.length == 0) return refuse(EINVAL, "BLOCK_STATUS of nothing");
  }
  const Range range{header.offset, header.length};
  if (!range.fits(negotiated.served->device->size())) {
    return refuse(rules->beyond_end, "the range goes beyond the end of the export");
  }
  return {};
}

std::string_view error_text(IoStatus status) noexcept {
  if (status.is_lack_of_room()) return "there is no room left";
  switch (status.error_number()) {
    case EPERM:
      return "the device is read-only";
    case ENOMEM:
      return "memory is short";
    case EOPNOTSUPP:
      return "the zeros would have to be written";
    case ESHUTDOWN:
      return "the server is stopping";
    default:
      return "the device failed";
  }
}

}  // namespace oxbow::nbd
