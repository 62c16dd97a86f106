// SPDX-License-Identifier: Apache-2.0
#include "targets/file/file_target.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "os/absolute_path.h"
#include "targets/argument.h"
#include "targets/linear/file_range.h"

namespace oxbow {

TargetStatus FileTarget::status() const {
  return {"file", "", fmt::format("{} {}", escape_argument(path()), offset())};
}

Result<MadeTarget> make_file_target(OpenContext& context, std::span<const std::string> args,
                                    std::uint64_t length_bytes) {
  const auto arguments = parse_file_range("file", "PATH BYTES", args, 1);
  if (!arguments) return std::unexpected(arguments.error());
  // Looked at before it is opened, because opening anything else can block or have effects. What cannot be looked
  // at is left to the opening, which says why.
  struct stat found{};
  if (::stat(arguments->path.c_str(), &found) == 0 && !S_ISREG(found.st_mode)) {
    return std::unexpected(Error("cannot make target file", arguments->path,
                                 "is not a regular file; the target linear takes block devices"));
  }
  const Range range{arguments->offset, length_bytes};
  auto store = open_file_range(context, "file", arguments->path, range);
  if (!store) return std::unexpected(store.error());
  return MadeTarget{
      std::make_shared<FileTarget>(*store, absolute_path(arguments->path), range, context.writable)};
}

}  // namespace oxbow
