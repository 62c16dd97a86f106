// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_psk.h"

#include <optional>

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_least_key_bytes = 16;

std::optional<unsigned> digit(char character) {
  if (character >= '0' && character <= '9') return static_cast<unsigned>(character - '0');
  if (character >= 'a' && character <= 'f') return static_cast<unsigned>(character - 'a' + 10);
  if (character >= 'A' && character <= 'F') return static_cast<unsigned>(character - 'A' + 10);
  return std::nullopt;
}

// Nothing when `text` is not pairs of hexadecimal digits.
std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const auto high = digit(text[i]);
    const auto low = digit(text[i + 1]);
    if (!high || !low) return std::nullopt;
    bytes.push_back(static_cast<char>(*high * 16 + *low));
  }
  return bytes;
}

// Why the line is none; empty once it is among `keys`.
std::string add_line(std::string_view line, PskKeys& keys) {
  const std::size_t colon = line.rfind(':');
  if (colon == std::string_view::npos) return "a line has the form NAME:KEY";
  std::string name(line.substr(0, colon));
  if (name.starts_with('#')) {
    auto decoded = from_hex(std::string_view(name).substr(1));
    if (!decoded) return "the name behind # is not hexadecimal";
    name = *std::move(decoded);
  }
  if (name.empty()) return "there is no name before the colon";
  auto key = from_hex(line.substr(colon + 1));
  if (!key) return "the key is not hexadecimal";
  if (key->size() < k_least_key_bytes) return "the key is shorter than 16 bytes, 32 hexadecimal digits";
  if (!keys.try_emplace(std::move(name), *std::move(key)).second) return "the name stands in an earlier line";
  return {};
}

}  // namespace

Result<PskKeys> parse_psk(std::string_view text, const std::string& path) {
  constexpr auto k_what = "cannot use TLS keys";
  PskKeys keys;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (std::string why = add_line(line, keys); !why.empty()) {
      return std::unexpected(Error(k_what, path + " line " + std::to_string(number), std::move(why)));
    }
  }
  if (keys.empty()) return std::unexpected(Error(k_what, path, "it names no user"));
  return keys;
}

}  // namespace oxbow::nbd
