// SPDX-License-Identifier: Apache-2.0
#include "format/hexdump.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

namespace oxbow::test {
namespace {

constexpr std::size_t k_line_bytes = 16;
constexpr std::size_t k_chunk_bytes = 1 << 20;

// Quick, since most of a layer is holes: the first byte is zero, and each is like the one before it.
[[nodiscard]] bool all_zero(std::span<const std::byte> bytes) {
  if (bytes.empty()) return true;
  return bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

// The hexadecimal number at the start of `text`, which is taken away.
[[nodiscard]] std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

[[nodiscard]] std::optional<std::vector<char>> bytes_of_line(std::string_view text) {
  std::vector<char> bytes;
  while (true) {
    const std::size_t begin = text.find_first_not_of(' ');
    if (begin == std::string_view::npos || text[begin] == '|') return bytes;
    text.remove_prefix(begin);
    const auto value = take_number(text);
    if (!value || *value > 0xff || bytes.size() == k_line_bytes) return std::nullopt;
    bytes.push_back(static_cast<char>(*value));
  }
}

}  // namespace

void HexWriter::add_line(std::span<const std::byte> bytes) {
  const bool whole = bytes.size() == k_line_bytes;
  if (any_ && whole && std::ranges::equal(bytes, last_)) {
    if (!starred_) text_ += "*\n";
    starred_ = true;
    return;
  }
  starred_ = false;
  any_ = true;
  std::ranges::copy(bytes, last_.begin());
  std::string hex;
  std::string letters;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto value = std::to_integer<unsigned>(bytes[i]);
    hex += fmt::format("{}{:02x}", i == k_line_bytes / 2 ? "  " : " ", value);
    letters += value >= 0x20 && value < 0x7f ? static_cast<char>(value) : '.';
  }
  text_ += fmt::format("{:08x} {:<49}  |{}|\n", at_, hex, letters);
}

void HexWriter::add(std::span<const std::byte> bytes) {
  // A long row of zeros says no more than its first line.
  const bool goes_on = starred_ && all_zero(last_) && bytes.size() % k_line_bytes == 0;
  if (goes_on && all_zero(bytes)) {
    at_ += bytes.size();
    return;
  }
  while (!bytes.empty()) {
    const auto line = bytes.first(std::min(k_line_bytes, bytes.size()));
    add_line(line);
    at_ += line.size();
    bytes = bytes.subspan(line.size());
  }
}

std::string HexWriter::finish() { return text_ + fmt::format("{:08x}\n", at_); }

std::string hexdump(std::span<const std::byte> bytes) {
  HexWriter writer;
  writer.add(bytes);
  return writer.finish();
}

std::string hexdump_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> chunk(k_chunk_bytes);
  HexWriter writer;
  while (file) {
    file.read(chunk.data(), k_chunk_bytes);
    writer.add(std::as_bytes(std::span(chunk)).first(static_cast<std::size_t>(file.gcount())));
  }
  return writer.finish();
}

std::string restore_file(std::string_view text, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  std::vector<char> last;
  std::uint64_t at = 0;  // where the next line has to begin, or at least, after a star
  bool starred = false;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    const std::string where = fmt::format("\"{}\"", line);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line == "*") {
      starred = true;
      continue;
    }
    const auto offset = take_number(line);
    if (!offset || *offset < at || (*offset != at && !starred)) return where + " is out of place";
    const bool zeros = std::ranges::all_of(last, [](char each) { return each == 0; });
    for (; at < *offset && !zeros; at += last.size()) {
      file.seekp(static_cast<std::streamoff>(at));
      file.write(last.data(), static_cast<std::streamsize>(last.size()));
    }
    at = *offset;
    starred = false;
    auto bytes = bytes_of_line(line);
    if (!bytes) return where + " is no line of a dump";
    if (bytes->empty()) break;  // the length
    file.seekp(static_cast<std::streamoff>(at));
    file.write(bytes->data(), static_cast<std::streamsize>(bytes->size()));
    at += bytes->size();
    last = std::move(*bytes);
  }
  file.close();
  if (!file) return path + " cannot be written";
  std::filesystem::resize_file(path, at);
  return "";
}

}  // namespace oxbow::test
