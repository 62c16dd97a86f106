// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stores/store.h"
#include "targets/registry.h"
#include "targets/target.h"

namespace oxbow {

// A range of one store, byte for byte: what the targets `linear` and `file` are made of. It keeps no metadata, so a
// write is durable once its bytes are, and a flush is the store's barrier.
// Thread safety: as every Target; immutable.
class LinearTarget : public Target {
 public:
  // Bytes [range.offset, range.end()) of `store`, which must exist there. `path` is for status().
  LinearTarget(std::shared_ptr<Store> store, std::string path, Range range, bool writable) noexcept;

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  [[nodiscard]] bool zeroes_fast(Range range, bool allocate) noexcept override;
  void commit(Plan& plan) noexcept override;
  void capture(FlushPlan& plan) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return range_.length; }
  [[nodiscard]] bool writable() const noexcept override { return writable_; }
  [[nodiscard]] TargetStatus status() const override;
  void describe(std::vector<ChainPart>& chain) const override;
  [[nodiscard]] const std::shared_ptr<Store>& store() const noexcept { return store_; }

 protected:
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return range_.offset; }

 private:
  const std::shared_ptr<Store> store_;
  const std::string path_;
  const Range range_;
  const bool writable_;
};

// `linear PATH SECTORS`: any regular file or block device, from a 512-byte sector on.
[[nodiscard]] Result<MadeTarget> make_linear_target(OpenContext& context, std::span<const std::string> args,
                                                    std::uint64_t length_bytes);

}  // namespace oxbow
