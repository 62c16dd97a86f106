// SPDX-License-Identifier: Apache-2.0
#include "cli/cowloop/read_head.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "os/fd.h"
#include "os/transfer.h"

namespace oxbow::cowloop_commands {
namespace {

constexpr std::uint64_t k_fields_bytes = 56;  // of a head

}  // namespace

std::expected<cowloop::Head, HeadError> read_head(const std::string& path) {
  using Kind = HeadError::Kind;
  const auto refuse = [](Kind kind, std::string why) {
    return std::unexpected(HeadError{kind, std::move(why)});
  };
  // A FIFO must not be waited for.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return refuse(Kind::not_opened, std::strerror(errno));
  struct stat facts{};
  if (::fstat(file.get(), &facts) != 0) return refuse(Kind::not_opened, std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) return refuse(Kind::no_cowfile, "it is not a regular file");
  std::array<std::byte, cowloop::k_block_bytes> block{};
  const std::uint64_t there =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(facts.st_size), block.size());
  if (const Moved moved = read_at(file.get(), 0, std::span(block).first(there)); !moved.status.ok())
    return refuse(Kind::not_read, std::strerror(moved.status.error_number()));
  // The fields are what cowloop's commands read; a file that begins otherwise may be shorter than the block.
  const bool other = there >= k_fields_bytes && !cowloop::has_magic(block);
  if (there < block.size() && !other)
    return refuse(Kind::not_read, fmt::format("the file ends at byte {}", there));
  auto head = cowloop::parse(block);
  if (head) return *head;
  switch (head.error().fault) {
    case cowloop::Fault::no_magic:
      return refuse(Kind::no_cowfile, "wrong magic");
    case cowloop::Fault::version:
      return refuse(Kind::unknown_version, head.error().text);
    case cowloop::Fault::big_endian:
    case cowloop::Fault::field:
      break;
  }
  return refuse(Kind::no_cowfile, head.error().text);
}

std::string text_of(const HeadError& error, const std::string& path) {
  switch (error.kind) {
    case HeadError::Kind::not_opened:
      break;
    case HeadError::Kind::not_read:
      return "error during read of cowheader: " + error.why;
    case HeadError::Kind::no_cowfile:
      return fmt::format("{} is not a valid cowfile ({})", path, error.why);
    case HeadError::Kind::unknown_version:
      return fmt::format("version of cowfile {} not supported", path);
  }
  return path + ": " + error.why;
}

}  // namespace oxbow::cowloop_commands
