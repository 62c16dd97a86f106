// SPDX-License-Identifier: Apache-2.0
#include "jobs/open_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "formats/native/codec.h"
#include "jobs/cowloop/create_cowfile.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/cowloop/repair_cowfile.h"
#include "jobs/create_layer.h"
#include "os/absolute_path.h"
#include "os/available_memory.h"
#include "os/log.h"
#include "stores/open_stores.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/open_layer.h"
#include "targets/cowloop/open_cowloop.h"
#include "targets/cowloop/pair_checks.h"
#include "targets/file/file_target.h"
#include "targets/linear/file_range.h"
#include "targets/linear/ram_target.h"
#include "targets/packed/open_packed.h"
#include "targets/registry.h"
#include "targets/table/table_target.h"

namespace oxbow {
namespace {

using Opened = Result<std::shared_ptr<Target>>;

// Without a budget, how much of what is available a RAM disk leaves to others, and to buffers and tables.
std::uint64_t kept_free(std::uint64_t available_bytes) {
  constexpr std::uint64_t least = std::uint64_t{32} << 20;
  return std::max(available_bytes / 16, std::min(least, available_bytes / 2));
}

// Far beyond what can be mapped.
constexpr std::uint64_t k_most_ram_bytes = std::uint64_t{1} << 62;

Error refuse(std::string where, std::string why) {
  return {"cannot open device", std::move(where), std::move(why)};
}

Opened open_target(OpenContext& context, const LayerSpec& spec) {
  if (is_packed(context.queue, spec.path)) return open_packed(context, spec.path);
  auto layer = open_layer(context, spec.path);
  if (layer || cowloop::kind_of_file(context.queue, spec.path) != cowloop::FileKind::cowfile) return layer;
  return std::unexpected(Error("cannot open layer", spec.path,
                               "it is a cowfile of cowloop, which doesn't say where its read-only file is: "
                               "--cowloop RDOFILE COWFILE"));
}

// Why the layer, which exists, cannot stand for one over spec.base; nothing when it can.
std::optional<Error> other_base(const CowTarget& layer, const OverlaySpec& spec) {
  const native::Superblock& superblock = layer.superblock();
  const auto refuse_layer = [&](std::string why) {
    return Error("cannot open layer", spec.layer, std::move(why));
  };
  if (superblock.base.kind != spec.base_kind) {
    return refuse_layer(fmt::format("its base is {}", superblock.base.kind == native::BaseKind::layer
                                                          ? "a layer: --base-format oxb"
                                                          : "a raw image: --base-format raw"));
  }
  const std::string recorded = resolve_base_path(spec.layer, native::base_path(superblock));
  std::error_code error;
  const bool same = std::filesystem::equivalent(recorded, spec.base, error);
  if (error) return Error::from_errno("cannot open base", spec.base, error.value());
  if (same) return std::nullopt;
  return refuse_layer(fmt::format("its base is {}, not {}", recorded, spec.base));
}

Opened open_target(OpenContext& context, const OverlaySpec& spec) {
  context.bases.files.push_back(spec.base);
  if (!std::filesystem::exists(std::filesystem::symlink_status(spec.layer))) {
    CreateSpec create;
    create.allow_bases = context.bases.directories;
    create.path = spec.layer;
    create.base = spec.base;
    create.base_kind = spec.base_kind;
    if (auto created = create_layer(context.queue, create); !created) return std::unexpected(created.error());
  }
  auto layer = open_layer(context, spec.layer);
  if (!layer) return std::unexpected(layer.error());
  if (auto error = other_base(**layer, spec)) return std::unexpected(std::move(*error));
  return *layer;
}

Opened open_target(OpenContext& context, const RamSpec& spec) {
  if (spec.size_bytes == 0) return std::unexpected(refuse("RAM disk", "its size is 0"));
  const auto budget = ram_budget(spec, spec.size_bytes);
  if (!budget) return std::unexpected(budget.error());
  auto store = RamStore::create({.size_bytes = spec.size_bytes,
                                 .budget_bytes = *budget,
                                 .preallocate = spec.preallocate,
                                 .shared = spec.shared});
  if (!store) return std::unexpected(store.error());
  return std::make_shared<RamTarget>(std::move(*store), context.writable);
}

Opened open_target(OpenContext& context, const FileSpec& spec) {
  auto store = open_file_range(context, "file", spec.path, {spec.offset, spec.length.value_or(0)});
  if (!store) return std::unexpected(store.error());
  const Range range{spec.offset, spec.length.value_or((*store)->size() - spec.offset)};
  if (range.empty() && range.offset > 0)  // an empty file as a whole is a device like any other
    return std::unexpected(refuse(spec.path, fmt::format("nothing is there from byte {} on", range.offset)));
  return std::make_shared<FileTarget>(std::move(*store), absolute_path(spec.path), range, context.writable);
}

Opened open_target(OpenContext& context, const TableSpec& spec) {
  return load_table(context, spec.text, spec.source);
}

// Nothing at `path`, or an empty file, which counts as nothing.
bool is_new_cowfile(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) return true;
  return std::filesystem::is_regular_file(status) && std::filesystem::file_size(path, error) == 0 && !error;
}

// Only one that can't be opened without.
Result<void> repair_dirty(Queue& queue, const std::string& path) {
  cowloop::Head head;
  {
    const auto store = FileStore::open(path, {});
    if (!store) return {};  // the opening tells
    const auto found = cowloop::read_head(queue, "cannot open cowfile", **store);
    if (!found) return std::unexpected(found.error());
    head = *found;
  }
  if (!head.dirty || head.kept_in_order() || head.packed) return {};
  const auto repaired = cowloop::repair_cowfile(queue, path, {});
  if (!repaired) return std::unexpected(repaired.error());
  return {};
}

Opened open_target(OpenContext& context, const CowloopSpec& spec) {
  if (context.writable && is_new_cowfile(spec.cowfile)) {
    const cowloop::CreateCowfile create{.base = spec.base, .path = spec.cowfile, .layout = spec.layout};
    if (auto created = cowloop::create_cowfile(context.queue, create); !created)
      return std::unexpected(created.error());
  }
  if (spec.repair && context.writable) {
    if (auto repaired = repair_dirty(context.queue, spec.cowfile); !repaired)
      return std::unexpected(repaired.error());
  }
  return open_cowloop(context, spec.base, spec.cowfile);
}

}  // namespace

Result<std::uint64_t> ram_budget(const RamSpec& spec, std::uint64_t size_bytes, std::uint64_t held_bytes) {
  const std::uint64_t whole = size_bytes > k_most_ram_bytes ? k_most_ram_bytes : whole_ram_pages(size_bytes);
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t available = available_memory_bytes();
  const std::uint64_t room = available > most - held_bytes ? most : available + held_bytes;
  const auto too_much = [room](const char* what, std::uint64_t bytes) {
    return std::unexpected(
        refuse("RAM disk", fmt::format("{} {} bytes, and memory has room for {}", what, bytes, room)));
  };
  if (spec.budget_bytes) {
    if (*spec.budget_bytes < k_ram_page_bytes) {
      return std::unexpected(refuse("RAM disk", fmt::format("a budget of {} bytes holds no page of {}",
                                                            *spec.budget_bytes, k_ram_page_bytes)));
    }
    const std::uint64_t asked = std::min(*spec.budget_bytes / k_ram_page_bytes * k_ram_page_bytes, whole);
    if (asked > room) return too_much("its budget is", asked);
    return asked;
  }
  if (spec.preallocate && whole > room) return too_much("preallocation takes", whole);
  const std::uint64_t most_pages = (room - kept_free(room)) / k_ram_page_bytes;
  if (spec.preallocate || whole <= most_pages * k_ram_page_bytes) return whole;
  return std::max(most_pages, std::uint64_t{1}) * k_ram_page_bytes;
}

std::shared_ptr<PageBudget> shared_ram_budget(const RamSpec& spec) {
  const std::uint64_t available = available_memory_bytes();
  const std::uint64_t bytes = spec.budget_bytes.value_or(available - kept_free(available));
  return std::make_shared<PageBudget>(std::max(bytes / k_ram_page_bytes, std::uint64_t{1}));
}

namespace {

Result<OpenContext> context_for(Queue& queue, OpenStores& stores, const OpenOptions& options) {
  OpenContext context{.queue = queue,
                      .stores = stores,
                      .writable = options.writable,
                      .direct = options.direct,
                      .reserve_bytes = options.reserve_bytes,
                      .accept_base = options.accept_base,
                      .live = options.live,
                      .ring = options.ring,
                      .log = options.log};
  auto bases = allowed_bases(options.allow_bases);
  if (!bases) return std::unexpected(bases.error());
  context.bases = std::move(*bases);
  return context;
}

}  // namespace

Result<std::shared_ptr<Target>> open_device_target(Queue& queue, OpenStores& stores, const DeviceSpec& spec,
                                                   const OpenOptions& options) {
  auto context = context_for(queue, stores, options);
  if (!context) return std::unexpected(context.error());
  return std::visit([&](const auto& each) { return open_target(*context, each); }, spec);
}

Result<std::shared_ptr<Target>> open_table_beside(Queue& queue, OpenStores& stores, const TableSpec& spec,
                                                  const OpenOptions& options, const InUse& in_use) {
  auto context = context_for(queue, stores, options);
  if (!context) return std::unexpected(context.error());
  for (const auto& target : in_use.targets) {
    if (auto layer = std::dynamic_pointer_cast<CowTarget>(target)) context->layers[&layer->store()] = layer;
    if (auto pair = std::dynamic_pointer_cast<CowloopTarget>(target)) context->pairs[&pair->store()] = pair;
  }
  context->follow_growth = in_use.follow_growth;
  return open_target(*context, spec);
}

void tell_what_a_kill_loses(const Target& target, const std::string& name, Log* log) {
  if (log == nullptr) return;
  for (const TargetLine& line : target.lines()) {
    if (line.chain.empty() || line.chain.front().without_live.empty()) continue;
    log->write(LogLevel::warning, "serve",
               fmt::format("{}: kill -9 of this process would lose writes that no flush covers, for there is "
                           "no live state of {}: {}",
                           name, line.chain.front().store.name, line.chain.front().without_live));
  }
}

Result<OpenedDevice> open_device(Queue& queue, const DeviceSpec& spec, const OpenOptions& options) {
  OpenedDevice opened;
  opened.stores = std::make_shared<OpenStores>();
  auto target = open_device_target(queue, *opened.stores, spec, options);
  if (!target) return std::unexpected(target.error());
  opened.device = std::make_unique<Device>(std::move(*target), Device::Options{.name = options.name,
                                                                               .read_only = !options.writable,
                                                                               .on_full = options.on_full,
                                                                               .log = options.log});
  return opened;
}

}  // namespace oxbow
