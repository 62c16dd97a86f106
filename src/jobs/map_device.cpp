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

Result<void> map_device(Queue& queue, Device& device,
                        const std::function<Result<void>(const MappedExtent&)>& visit) {
  std::optional<MappedExtent> piece;
  std::uint64_t at = 0;
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
        if (auto visited = visit(*piece); !visited) return visited;
      }
      piece = next;
    }
  }
  return piece ? visit(*piece) : Result<void>{};
}

}  // namespace oxbow
