// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder: devices of each kind, over real stores.

#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "device/device.h"
#include "stores/file/file_store.h"
#include "stores/ram/ram_store.h"
#include "stores/testing/store_model.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"

namespace oxbow::nbd {

enum class DiskKind : std::uint8_t { ram, file, direct, layer };

inline const char* name_of(DiskKind kind) {
  switch (kind) {
    case DiskKind::ram:
      return "ram";
    case DiskKind::file:
      return "file";
    case DiskKind::direct:
      return "direct";
    default:
      return "layer";
  }
}

template <typename T>
T or_throw(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return std::move(*result);
}

// A disk full of zeros; a layer has no base, and clusters of 4 KiB. Thread safety: as for devices.
struct Disk {
  Disk(DiskKind disk_kind, std::uint64_t size)
      : kind(disk_kind), device(make(size), {.name = name_of(kind)}) {}

  DiskKind kind;
  Queue queue;
  testing::TestFolder folder;
  std::string path;                  // of the file or layer
  std::shared_ptr<RamStore> ram;     // null otherwise
  std::shared_ptr<CowTarget> layer;  // null otherwise
  Device device;

 private:
  std::shared_ptr<Target> make(std::uint64_t size) {
    if (kind == DiskKind::ram) {
      ram = or_throw(RamStore::create({.size_bytes = size}));
      return std::make_shared<LinearTarget>(ram, "ram", Range{0, size}, true);
    }
    path = folder.file("disk", kind == DiskKind::layer ? 0 : size);
    auto store = or_throw(FileStore::open(path, {.writable = true, .direct = kind == DiskKind::direct}));
    if (kind != DiskKind::layer) return std::make_shared<LinearTarget>(store, path, Range{0, size}, true);
    LayerDescription description;
    description.size_bytes = size;
    if (auto made = format_layer(queue, *store, description); !made) {
      throw std::runtime_error(made.error().text());
    }
    layer = or_throw(CowTarget::open(queue, store, nullptr, {.writable = true}));
    return layer;
  }
};

}  // namespace oxbow::nbd
