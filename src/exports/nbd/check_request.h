// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "exports/nbd/negotiated.h"
#include "exports/nbd/protocol.h"
#include "oxbow/io_status.h"

namespace oxbow::nbd {

// Whether a request is refused before anything is done for it.
struct Verdict {
  IoStatus status;         // success, or the error for its reply
  std::string_view why{};  // for people; lives for ever
};

// For a write its payload follows all the same. Disconnect is never refused.
[[nodiscard]] Verdict check_request(const RequestHeader& header, const Negotiated& negotiated) noexcept;

// What an error that came from the device means, for people.
[[nodiscard]] std::string_view error_text(IoStatus status) noexcept;

}  // namespace oxbow::nbd
