// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where a merge writes to: a raw base, or a base that is a layer itself.

#include <cstdint>
#include <functional>
#include <memory>

#include "device/device.h"
#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/cow/cow_target.h"

namespace oxbow {

// The base of a layer that is being merged; its file is held by the caller alone. Everything blocks. Thread safety:
// none.
class MergeBase {
 public:
  MergeBase() noexcept = default;
  virtual ~MergeBase() = default;
  MergeBase(const MergeBase&) = delete;
  MergeBase& operator=(const MergeBase&) = delete;
  MergeBase(MergeBase&&) = delete;
  MergeBase& operator=(MergeBase&&) = delete;

  // Makes the base `size_bytes` long where it is shorter, and opens it to be written. The device is borrowed until
  // finish().
  [[nodiscard]] virtual Result<Device*> open(Queue& queue, std::uint64_t size_bytes) = 0;
  // Makes what was written durable and leaves the base clean. Once, after open().
  [[nodiscard]] virtual Result<void> finish(Queue& queue) = 0;
  // The base as a layer over it records it.
  [[nodiscard]] virtual Result<native::BaseRecord> describe(Queue& queue) = 0;
};

// A raw file or block device. Thread safety: none.
class RawMergeBase final : public MergeBase {
 public:
  // `identify` tells what the file is now, without samples; those are taken as the layer `uuid` takes them.
  using Identify = std::function<Result<native::BaseRecord>()>;
  RawMergeBase(std::shared_ptr<Store> store, const native::Uuid& uuid, Identify identify)
      : store_(std::move(store)), uuid_(uuid), identify_(std::move(identify)) {}

  [[nodiscard]] Result<Device*> open(Queue& queue, std::uint64_t size_bytes) override;
  [[nodiscard]] Result<void> finish(Queue& queue) override;
  [[nodiscard]] Result<native::BaseRecord> describe(Queue& queue) override;

 private:
  std::shared_ptr<Store> store_;
  native::Uuid uuid_;
  Identify identify_;
  std::unique_ptr<Device> device_;
};

// A layer. Thread safety: none.
class LayerMergeBase final : public MergeBase {
 public:
  // `open` opens the layer in `store` for writing, over its own chain.
  using Open = std::function<Result<std::shared_ptr<CowTarget>>()>;
  LayerMergeBase(std::shared_ptr<Store> store, Open open)
      : store_(std::move(store)), open_(std::move(open)) {}

  [[nodiscard]] Result<Device*> open(Queue& queue, std::uint64_t size_bytes) override;
  [[nodiscard]] Result<void> finish(Queue& queue) override;
  [[nodiscard]] Result<native::BaseRecord> describe(Queue& queue) override;

 private:
  std::shared_ptr<Store> store_;
  Open open_;
  std::unique_ptr<Device> device_;
};

}  // namespace oxbow
