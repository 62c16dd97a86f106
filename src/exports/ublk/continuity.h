// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace oxbow {
class Device;
}

namespace oxbow::ublk {

// What tells whether a device, opened anew after its process was killed, has everything that was answered before: a
// line for each line of its table. As of the opening, so before the first write.
[[nodiscard]] std::vector<std::string> sources_of(const Device& device);

enum class Continuity : std::uint8_t {
  same,   // reads as it was left
  other,  // is another device
  lost,  // is the same one, and reads as nobody left it: who still has it open may not get an answer any more
};
// Thread safety: a value.
struct Judgement {
  Continuity continuity = Continuity::same;
  std::string why;  // it is not the same
};

// What becomes of a device that had the sources `before` when it began, whose process was killed, and that was opened
// anew with the sources `now`.
[[nodiscard]] Judgement judge(const std::vector<std::string>& before, const std::vector<std::string>& now);

}  // namespace oxbow::ublk
