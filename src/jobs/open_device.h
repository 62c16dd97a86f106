// SPDX-License-Identifier: Apache-2.0
#pragma once

// From what a user names to a device that answers requests.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "device/device.h"
#include "formats/cowloop/layout.h"
#include "formats/native/layout.h"
#include "oxbow/error.h"
#include "targets/cow/live_choice.h"

namespace oxbow {

class FileStore;
class OpenStores;
class PageBudget;

// A layer; its chain comes from its own record.
struct LayerSpec {
  std::string path;
};

// A layer over `base`, made when it isn't there yet.
struct OverlaySpec {
  std::string base;
  native::BaseKind base_kind = native::BaseKind::raw;
  std::string layer;
};

// A RAM disk.
struct RamSpec {
  std::uint64_t size_bytes = 0;
  bool preallocate = false;
  // At least a page, and no more than there is; without it, as much as the size takes and there is.
  std::optional<std::uint64_t> budget_bytes = std::nullopt;
  std::shared_ptr<PageBudget> shared = nullptr;  // what it and others may take together; null: it is alone
};

// What several RAM disks like that one may take together: its budget, or else what memory has room for.
[[nodiscard]] std::shared_ptr<PageBudget> shared_ram_budget(const RamSpec& spec);

// How much memory the contents of a RAM disk of `size_bytes` may take, in whole pages: what was asked for, or else what
// the memory that is available now leaves of its size. `held_bytes` it has already. Refuses what memory has no room
// for.
[[nodiscard]] Result<std::uint64_t> ram_budget(const RamSpec& spec, std::uint64_t size_bytes,
                                               std::uint64_t held_bytes = 0);

// Bytes [offset, offset + length) of a regular file or block device; without a length up to its end.
struct FileSpec {
  std::string path;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
};

// A table, and what to call it in errors.
struct TableSpec {
  std::string text;
  std::string source;
};

// A pair of cowloop. The cowfile is made when it isn't there yet, or is empty.
struct CowloopSpec {
  std::string base;  // the read-only file
  std::string cowfile;
  cowloop::Layout layout = cowloop::Layout::bytes_8;  // of a new cowfile
  bool repair = false;                                // one that was not closed cleanly is repaired first
};

using DeviceSpec = std::variant<LayerSpec, OverlaySpec, RamSpec, FileSpec, TableSpec, CowloopSpec>;

struct OpenOptions {
  std::string name;
  bool writable = true;
  bool direct = false;  // O_DIRECT for the files of the device
  bool ring = true;     // small flushes go to the commit rings of layers
  // Of files that are opened for writing: the file system counts as full when less than this would be free.
  std::uint64_t reserve_bytes = 0;
  OnFull on_full = OnFull::error;
  Log* log = nullptr;        // borrowed, as long as the device; null: silent
  bool accept_base = false;  // take a base whose modification time alone differs from what the layer recorded
  std::vector<std::string> allow_bases = {};  // directories: BasePolicy has what they mean
  LiveSettings live{};                        // where layers keep their live states
};

// A device, and the files it has open. Thread safety: as Device; closed and destroyed by one thread.
struct OpenedDevice {
  std::shared_ptr<OpenStores> stores;
  std::unique_ptr<Device> device;
};

// Opens everything that `spec` names, through `stores`, as a target; the name in `options` is not used.
[[nodiscard]] Result<std::shared_ptr<Target>> open_device_target(Queue& queue, OpenStores& stores,
                                                                 const DeviceSpec& spec,
                                                                 const OpenOptions& options);
// What another target of the same stores is made of, which may be in use.
struct InUse {
  std::vector<std::shared_ptr<Target>> targets;  // layers and pairs among them are taken over as they are
  std::function<Result<void>(FileStore& file)> follow_growth;  // as OpenContext has it
};
// The same with a table, beside that one.
[[nodiscard]] Result<std::shared_ptr<Target>> open_table_beside(Queue& queue, OpenStores& stores,
                                                                const TableSpec& spec,
                                                                const OpenOptions& options,
                                                                const InUse& in_use);
// Whoever relies on kill -9 losing nothing has to hear that it would. `log` may be null.
void tell_what_a_kill_loses(const Target& target, const std::string& name, Log* log);
// The same as a device. `queue` is the calling thread's and may be waited on.
[[nodiscard]] Result<OpenedDevice> open_device(Queue& queue, const DeviceSpec& spec,
                                               const OpenOptions& options);

}  // namespace oxbow
