// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/cowloop/pairs.h"
#include "cli/cowloop/words.h"
#include "cli/served.h"

namespace oxbow::cowloop_commands {
namespace {

constexpr int k_no_device = 2;
constexpr int k_no_number = 3;
constexpr int k_not_watched = 5;

constexpr std::uint64_t k_kib = 1024;

// In bytes; more than there can be counts as everything. Decimal, octal (0…) or hexadecimal (0x…).
std::optional<std::uint64_t> threshold_of(const std::string& text) {
  std::size_t digits = std::min(text.find_first_not_of(" \t"), text.size());
  if (digits < text.size() && text[digits] == '+') ++digits;
  if (digits == text.size() || text[digits] < '0' || text[digits] > '9') return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const std::uint64_t kib = std::strtoull(text.c_str(), &end, 0);
  if (*end != '\0') return std::nullopt;
  constexpr std::uint64_t k_most = std::numeric_limits<std::uint64_t>::max();
  return kib > k_most / k_kib ? k_most : kib * k_kib;
}

// What is printed; an error where the room is not known.
Result<std::string> text_of(const nlohmann::ordered_json& space, const std::string& name) {
  const auto& total = space.at("total");
  const auto& available = space.at("available");
  if (total.is_null() || available.is_null())
    return std::unexpected(Error("cannot watch device", name, "how much room there is for it is not known"));
  return fmt::format("Total: {:>9} Kb\nAvail: {:>9} Kb\n", total.get<std::uint64_t>() / k_kib,
                     available.get<std::uint64_t>() / k_kib);
}

}  // namespace

int cowwatch(const Call& call) {
  if (call.argc < 2 || call.argc > 3) return wrong_usage(call);
  const auto pair = find_pair(call.argv[1]);
  if (!pair) {
    complain(call, pair.error());
    return k_no_device;
  }
  std::optional<std::uint64_t> below;
  if (call.argc == 3) {
    below = threshold_of(call.argv[2]);
    if (!below) {
      complain(fmt::format("{}: not a valid numerical value", call.argv[2]));
      return k_no_number;
    }
  }
  const auto space = ask_space(pair->process, pair->name, below);
  const auto text = space ? text_of(*space, pair->name) : Result<std::string>(std::unexpected(space.error()));
  if (text) return tell(call, *text) == k_done ? k_done : k_not_watched;
  complain(call, text.error());
  return k_not_watched;
}

}  // namespace oxbow::cowloop_commands
