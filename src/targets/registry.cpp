// SPDX-License-Identifier: Apache-2.0
#include "targets/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "os/absolute_path.h"
#include "targets/cow/open_layer.h"
#include "targets/cowloop/open_cowloop.h"
#include "targets/error/error_target.h"
#include "targets/file/file_target.h"
#include "targets/linear/linear_target.h"
#include "targets/packed/open_packed.h"
#include "targets/zero/zero_target.h"

namespace oxbow {
namespace {

constexpr std::array k_types = {
    TargetType{"cow", make_cow_target, "PATH [SECTORS]", "a copy-on-write layer and the chain below it"},
    TargetType{"cowloop", make_cowloop_target, "RDOFILE COWFILE [SECTORS]",
               "a pair of cowloop: a read-only file, and what was modified"},
    TargetType{"error", make_error_target, "", "answers everything with an I/O error"},
    TargetType{"file", make_file_target, "PATH BYTES", "a regular file from byte BYTES on"},
    TargetType{"linear", make_linear_target, "PATH SECTORS",
               "a file or block device from 512-byte sector SECTORS on"},
    TargetType{"packed", make_packed_target, "PATH [SECTORS]",
               "a packed layer, read-only, and the chain below it"},
    TargetType{"zero", make_zero_target, "", "reads as zeros, forgets what is written"},
};
static_assert(std::ranges::is_sorted(k_types, {}, &TargetType::name));

std::string known_names() {
  std::string names;
  for (const TargetType& type : k_types) {
    if (!names.empty()) names += ", ";
    names += type.name;
  }
  return names;
}

}  // namespace

std::span<const TargetType> target_types() noexcept { return k_types; }

Result<MadeTarget> make_target(OpenContext& context, std::string_view type, std::span<const std::string> args,
                               std::uint64_t length_bytes) {
  const auto* const found = std::ranges::find(k_types, type, &TargetType::name);
  if (found == k_types.end()) {
    return std::unexpected(Error("cannot make target", std::string(type),
                                 fmt::format("no such type; there are {}", known_names())));
  }
  Result<MadeTarget> made = found->make(context, args, length_bytes);
  if (made && !Range{made->offset, length_bytes}.fits(made->target->size())) {
    return std::unexpected(Error(fmt::format("cannot make target {}", type), args.empty() ? "" : args.front(),
                                 fmt::format("it has {} bytes, the line needs {} from byte {} on",
                                             made->target->size(), length_bytes, made->offset)));
  }
  return made;
}

std::vector<std::string> lasting_arguments(std::string_view type, std::vector<std::string> args) {
  const auto* const found = std::ranges::find(k_types, type, &TargetType::name);
  if (found == k_types.end()) return args;
  const std::size_t paths = found->arguments.starts_with("PATH")      ? 1
                            : found->arguments.starts_with("RDOFILE") ? 2
                                                                      : 0;
  for (std::size_t i = 0; i < std::min(paths, args.size()); ++i) args[i] = absolute_path(args[i]);
  return args;
}

}  // namespace oxbow
