// SPDX-License-Identifier: Apache-2.0
#include "targets/linear/file_range.h"

#include <fmt/format.h>

#include <limits>

#include "stores/file/file_store.h"
#include "stores/open_stores.h"
#include "stores/packed/packed_index.h"
#include "targets/argument.h"
#include "targets/cow/layer_head.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_largest_offset = std::numeric_limits<std::int64_t>::max();

Error refuse(std::string_view type, std::string where, std::string why) {
  return {fmt::format("cannot make target {}", type), std::move(where), std::move(why)};
}

// A file that was open before may be longer by now.
Result<void> follow_growth(OpenContext& context, FileStore& file, Range range) {
  if (!context.follow_growth || range.fits(file.size())) return {};
  const auto now = file.current_identity();
  if (!now || now->size_bytes <= file.size()) return {};
  return context.follow_growth(file);
}

}  // namespace

Result<FileRangeArguments> parse_file_range(std::string_view type, std::string_view usage,
                                            std::span<const std::string> args, std::uint64_t unit_bytes) {
  if (args.size() != 2) {
    return std::unexpected(
        refuse(type, "arguments", fmt::format("exactly two are needed ({}), not {}", usage, args.size())));
  }
  const auto offset = parse_number(args[1]);
  if (!offset) return std::unexpected(refuse(type, fmt::format("offset {}", args[1]), offset.error()));
  if (*offset > k_largest_offset / unit_bytes) {
    return std::unexpected(refuse(type, fmt::format("offset {}", args[1]), "is too large"));
  }
  return FileRangeArguments{args[0], *offset * unit_bytes};
}

Result<std::shared_ptr<Store>> open_file_range(OpenContext& context, std::string_view type,
                                               const std::string& path, Range range) {
  FileOptions options;
  options.writable = context.writable;
  options.direct = context.direct;
  options.reserve_bytes = context.reserve_bytes;
  options.lock = context.writable ? LockMode::exclusive : LockMode::shared;
  auto store = context.stores.open_file(path, options);
  if (!store) return std::unexpected(store.error());
  if (auto followed = follow_growth(context, **store, range); !followed)
    return std::unexpected(followed.error());
  const std::uint64_t size = (*store)->size();
  if (range.offset > size) {
    return std::unexpected(
        refuse(type, path, fmt::format("offset {} is beyond the end, which is at {}", range.offset, size)));
  }
  if (!range.fits(size)) {
    return std::unexpected(
        refuse(type, path,
               fmt::format("File too small: {} bytes are needed from offset {} on, it has {}", range.length,
                           range.offset, size - range.offset)));
  }
  const auto layer = has_layer_magic(context.queue, **store);
  if (!layer) return std::unexpected(layer.error());
  if (*layer) {
    return std::unexpected(
        refuse(type, path,
               "it is an oxbow layer, not a raw image: name it as LAYER, or in a table with the "
               "target cow"));
  }
  const auto packed_layer = has_packed_magic(context.queue, **store);
  if (!packed_layer) return std::unexpected(packed_layer.error());
  if (*packed_layer) {
    return std::unexpected(
        refuse(type, path,
               "it is a packed layer, not a raw image: name it as LAYER, or in a table with the "
               "target packed"));
  }
  return *store;
}

}  // namespace oxbow
