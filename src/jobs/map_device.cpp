// SPDX-License-Identifier: Apache-2.0
#include "jobs/map_device.h"

#include <optional>

namespace oxbow {
namespace {

// Whether `next`, which follows `piece`, is of the same kind and place.
bool continues(const MappedExtent& piece, const MappedExtent& next) {
  if (piece.kind != next.kind || piece.layer != next.layer) return false;
  if (piece.kind == Kind::data) return piece.store == next.store && piece.at + piece.range.length == next.at;
  return piece.kind == Kind::zero || piece.at == next.at;
}

}  // namespace

const char* word(Kind kind) noexcept {
  switch (kind) {
    case Kind::data:
      return "data";
    case Kind::zero:
      return "zero";
    case Kind::error:
      return "error";
  }
  return "error";
}

const char* state_word(const MappedExtent& extent) noexcept {
  return extent.layer == 0 ? word(extent.kind) : "absent";
}

Result<void> map_device_from(Queue& queue, Device& device, std::uint64_t from,
                             const std::function<Result<bool>(const MappedExtent&)>& visit) {
  std::optional<MappedExtent> piece;
  std::uint64_t at = from;
  while (at < device.size()) {
    Extents extents;
    const IoStatus status =
        run_blocking(queue, [&](Io& io) { return device.extents(io, {at, device.size() - at}, extents); });
    if (!status.ok()) {
      return std::unexpected(Error::from_errno("cannot map device", device.name(), status.error_number()));
    }
    for (const Extent& extent : extents) {
      const bool data = extent.kind == Kind::data;
      const MappedExtent next{.range = {at, extent.length},
                              .kind = extent.kind,
                              .layer = extent.layer,
                              .store = data ? extent.store : nullptr,
                              .at = extent.kind == Kind::zero ? 0 : extent.at};
      at += extent.length;
      if (piece && continues(*piece, next)) {
        piece->range.length += next.range.length;
        continue;
      }
      if (piece) {
        const auto more = visit(*piece);
        if (!more) return std::unexpected(more.error());
        if (!*more) return {};
      }
      piece = next;
    }
  }
  if (!piece) return {};
  const auto more = visit(*piece);
  return more ? Result<void>{} : std::unexpected(more.error());
}

Result<void> map_device(Queue& queue, Device& device,
                        const std::function<Result<void>(const MappedExtent&)>& visit) {
  return map_device_from(queue, device, 0, [&](const MappedExtent& piece) -> Result<bool> {
    if (auto visited = visit(piece); !visited) return std::unexpected(visited.error());
    return true;
  });
}

}  // namespace oxbow
