// SPDX-License-Identifier: Apache-2.0
#include "targets/packed/packed_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "targets/argument.h"

namespace oxbow {

PackedTarget::PackedTarget(std::shared_ptr<PackedStore> layer, std::shared_ptr<Target> base) noexcept
    : layer_(std::move(layer)), backing_(std::move(base), header().base_visible) {}

Step PackedTarget::locate(Range range, Extents& out) const noexcept {
  const packed::Index& index = layer_->index();
  const std::uint32_t shift = header().cluster_shift;
  std::size_t next = index.find(range.offset >> shift);
  std::uint64_t done = 0;
  while (done < range.length && !out.full()) {
    const Range rest = range.without_prefix(done);
    const bool last = next == index.runs().size();
    const std::uint64_t start = last ? range.end() : index.runs()[next].first << shift;
    if (rest.offset < start) {
      const Range absent = rest.prefix(start - rest.offset);
      const Step step = backing_.locate(absent, out);
      // An answer is a prefix: what was found stands, and whoever asks for the rest is told to prepare it.
      if (step.answer != Answer::ready) return done == 0 ? step : Step::ready(done);
      done += step.length;
      if (step.length < absent.length) break;
      continue;
    }
    const packed::Run& run = index.runs()[next++];
    const std::uint64_t length = std::min(rest.length, (run.end() << shift) - rest.offset);
    if (run.kind == packed::RunKind::data) {
      out.push_back({length, Kind::data, 0, layer_.get(), (run.data_first << shift) + rest.offset - start});
    } else {
      out.push_back({length, Kind::zero, 0, nullptr, 0});
    }
    done += length;
  }
  return Step::ready(done);
}

Step PackedTarget::plan(Range /*range*/, const Change& /*change*/, Plan& /*plan*/) noexcept {
  return Step::failed(EPERM);
}

TargetStatus PackedTarget::status() const {
  const StoreFacts facts = layer_->facts();
  std::string info = fmt::format("{}/{} {}", (facts.size_bytes + k_sector_bytes - 1) / k_sector_bytes,
                                 (size() + k_sector_bytes - 1) / k_sector_bytes,
                                 layer_->index().cluster_bytes() / k_sector_bytes);
  if (const std::string damage = layer_->damage(); !damage.empty()) info += " " + damage;
  return {.name = "packed", .info = std::move(info), .table = escape_argument(facts.name) + " 0"};
}

void PackedTarget::describe(std::vector<ChainPart>& chain) const {
  chain.push_back({.format = "packed",
                   .size_bytes = size(),
                   .cluster_bytes = layer_->index().cluster_bytes(),
                   .store = layer_->facts()});
  if (backing_.base() != nullptr) backing_.base()->describe(chain);
}

}  // namespace oxbow
