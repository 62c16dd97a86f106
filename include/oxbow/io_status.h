// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdint>
#include <type_traits>

namespace oxbow {

// The outcome of one data-plane operation: success, or an errno value. Four bytes, passed by value.
// Thread safety: a value; immutable.
class [[nodiscard]] IoStatus {
 public:
  constexpr IoStatus() noexcept = default;  // success

  // `number` is a positive errno value. Zero, which would turn a failure into a success, becomes EIO.
  [[nodiscard]] static constexpr IoStatus error(int number) noexcept {
    return IoStatus(number == 0 ? EIO : number);
  }

  [[nodiscard]] constexpr bool ok() const noexcept { return error_number_ == 0; }
  // 0 on success, else the errno value.
  [[nodiscard]] constexpr int error_number() const noexcept { return error_number_; }

  // Whether there merely was no room.
  [[nodiscard]] constexpr bool is_lack_of_room() const noexcept {
    return error_number_ == ENOSPC || error_number_ == EDQUOT || error_number_ == EFBIG;
  }

  friend constexpr bool operator==(IoStatus, IoStatus) noexcept = default;

 private:
  explicit constexpr IoStatus(std::int32_t number) noexcept : error_number_(number) {}
  std::int32_t error_number_ = 0;
};

static_assert(sizeof(IoStatus) == 4 && std::is_trivially_copyable_v<IoStatus>);

}  // namespace oxbow
