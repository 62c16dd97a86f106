// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace oxbow::test {

// Bytes as `hexdump -C` prints them: 16 per line, repeated lines as one `*`, the length last.
// Thread safety: none.
class HexWriter {
 public:
  // Every call but the last one with a multiple of 16 bytes.
  void add(std::span<const std::byte> bytes);
  [[nodiscard]] std::string finish();

 private:
  using Line = std::array<std::byte, 16>;
  void add_line(std::span<const std::byte> bytes);

  std::string text_;
  std::uint64_t at_ = 0;
  Line last_{};
  bool any_ = false;
  bool starred_ = false;
};

[[nodiscard]] std::string hexdump(std::span<const std::byte> bytes);
[[nodiscard]] std::string hexdump_file(const std::string& path);

// Makes the file at `path` of which `text` is the dump; zeros become holes. What is wrong with the text, else "".
[[nodiscard]] std::string restore_file(std::string_view text, const std::string& path);

}  // namespace oxbow::test
