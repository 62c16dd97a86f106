// SPDX-License-Identifier: Apache-2.0
#include "errors/provocations.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "crash/sim_target.h"
#include "crash/world.h"
#include "stores/file/file_store.h"
#include "targets/error/error_target.h"
#include "targets/linear/linear_target.h"

namespace oxbow::errors {
namespace {

using crash::k_device_bytes;
using crash::letters;
using crash::World;
using sim::SimStore;
using sim::StoreCall;

const std::vector<std::string> k_changes{"write", "zero", "discard"};
const std::vector<std::string> k_fua_changes{"write with FUA", "zero with FUA", "discard with FUA"};
// Clusters that the scene wrote, and one that it left alone.
constexpr std::uint64_t k_old = 0;
constexpr std::uint64_t k_fresh = 32768;

// One operation on a range. Flush takes none.
IoStatus run(Queue& queue, Device& device, const std::string& operation, Range range) {
  const bool fua = operation.ends_with("with FUA");
  const Durability durability = fua ? Durability::when_completed : Durability::with_flush;
  std::vector<std::byte> data(range.length, std::byte{'n'});
  return run_blocking(queue, [&](Io& io) {
    if (operation.starts_with("read")) return device.read(io, range.offset, data);
    if (operation.starts_with("write")) return device.write(io, range.offset, data, durability);
    if (operation.starts_with("zero")) return device.zero(io, range, false, durability);
    if (operation.starts_with("discard")) return device.discard(io, range, durability);
    return device.flush(io);
  });
}

// A layer with two clusters written and flushed. Thread safety: none.
struct Case : World {
  explicit Case(std::uint64_t seed = 1) : World(seed, 0) {
    open_layer();
    EXPECT_TRUE(write_now(k_old, letters('o')).ok());
    EXPECT_TRUE(write_now(k_old + 4096, letters('o')).ok());
    EXPECT_TRUE(flush_now().ok());
  }
  // As it is after a clean close and another opening.
  void reopen() {
    EXPECT_TRUE(device->close(queue).ok());
    open_again();
  }
  [[nodiscard]] Outcome outcome(const std::string& operation, Range range, int injected = 0) {
    const auto bytes_of = [&] {
      std::vector<std::byte> bytes(range.length);
      const auto hook = std::exchange(store->fault, {});
      const IoStatus read =
          run_blocking(queue, [&](Io& io) { return device->read(io, range.offset, bytes); });
      store->fault = hook;
      return read.ok() ? std::optional(bytes) : std::nullopt;
    };
    const bool readable = range.fits(k_device_bytes) && !range.empty();
    const auto before = readable && operation != "read" ? bytes_of() : std::nullopt;
    return finish(operation, injected, run(queue, *device, operation, range),
                  [&] { return !readable || operation == "read" || bytes_of() == before; });
  }
  // Afterwards the medium is well again: what fails then, fails because of what was.
  [[nodiscard]] Outcome finish(const std::string& operation, int injected, IoStatus status,
                               const std::function<bool()>& unchanged) {
    Outcome outcome{.operation = operation, .number = status.error_number(), .injected = injected};
    outcome.unchanged = unchanged();
    store->fault = {};
    store->set_full(false);
    outcome.sticky = device->writable() && !write_now(k_old + 4096, letters('o')).ok();
    return outcome;
  }
  void fail(StoreCall kind, int number) {
    store->fault = [kind, number](const SimStore::Call& call) { return call.kind == kind ? number : 0; };
  }
};

// Each operation in a case of its own, that `prepare` got ready.
std::vector<Outcome> each(const std::vector<std::string>& operations, Range range,
                          const std::function<void(Case&)>& prepare, int injected = 0) {
  std::vector<Outcome> outcomes;
  for (const std::string& operation : operations) {
    Case world;
    prepare(world);
    outcomes.push_back(world.outcome(operation, range, injected));
  }
  return outcomes;
}

// With several errors of the medium.
std::vector<Outcome> each_failing(const std::vector<std::string>& operations, Range range, StoreCall kind,
                                  const std::function<void(Case&)>& prepare,
                                  const std::vector<int>& numbers = {EIO, ENXIO, ETIMEDOUT}) {
  std::vector<Outcome> all;
  for (const int number : numbers) {
    auto some = each(
        operations, range,
        [&](Case& world) {
          prepare(world);
          world.fail(kind, number);
        },
        number);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void nothing(Case& /*world*/) {}

void damage_pages(Case& world) {
  ASSERT_TRUE(world.device->close(world.queue).ok());
  for (const std::uint64_t at : world.superblock.slot_offset) world.disk->flip_bit(at + 1000, 2);
  world.open_again();
}

// Two pages, of which the second is damaged.
std::vector<Outcome> change_damaged_page() {
  auto outcomes = each(k_changes, {k_old, 4096}, damage_pages);
  // What is written to see whether it is sticky lies in the damaged page too.
  for (Outcome& outcome : outcomes) outcome.sticky = false;
  return outcomes;
}

std::vector<Outcome> error_target() {
  std::vector<Outcome> outcomes;
  for (const std::string operation : {"read", "write", "zero", "discard"}) {
    Case world;
    Device device(std::make_shared<ErrorTarget>(k_device_bytes, true), {.name = "error"}, world.queue);
    outcomes.push_back(
        {.operation = operation, .number = run(world.queue, device, operation, {0, 4096}).error_number()});
  }
  return outcomes;
}

std::vector<Outcome> read_only() {
  std::vector<Outcome> outcomes;
  for (const std::string& operation : k_changes) {
    Case world;
    Device device(world.device->target(), {.name = "only", .read_only = true}, world.queue);
    outcomes.push_back({.operation = operation,
                        .number = run(world.queue, device, operation, {k_old, 4096}).error_number(),
                        .unchanged = world.letter(k_old) == 'o'});
  }
  return outcomes;
}

std::vector<Outcome> cut_short() {
  Queue queue;
  std::string path = (std::filesystem::temp_directory_path() / "oxbow-errors-XXXXXX").string();
  const int fd = ::mkstemp(path.data());
  EXPECT_GE(fd, 0);
  EXPECT_EQ(::ftruncate(fd, 65536), 0);
  auto store = FileStore::open(path, {.writable = true});
  EXPECT_TRUE(store);
  Device device(std::make_shared<LinearTarget>(*store, path, Range{0, 65536}, true), {.name = "cut"});
  EXPECT_EQ(::ftruncate(fd, 4096), 0);
  const IoStatus status = run(queue, device, "read", {8192, 4096});
  ::close(fd);
  std::filesystem::remove(path);
  return {{.operation = "read", .number = status.error_number()}};
}

std::vector<Outcome> after_a_failure() {
  std::vector<Outcome> outcomes;
  for (const std::string operation : {"write", "zero", "discard", "flush"}) {
    for (const bool closed : {false, true}) {
      Case world;
      if (closed) {
        EXPECT_TRUE(world.device->close(world.queue).ok());
      } else {
        world.fail(StoreCall::sync, EIO);
        EXPECT_FALSE(world.flush_now().ok());
        world.store->fault = {};
      }
      const IoStatus status = run(world.queue, *world.device, operation, {k_old, 4096});
      outcomes.push_back(
          {.operation = operation, .number = status.error_number(), .unchanged = world.letter(k_old) == 'o'});
    }
  }
  return outcomes;
}

// The clusters are data that no flush has to cover any more, so that a durable write alone is enough.
std::vector<Outcome> durable_write_fails() {
  const auto settle = [](Case& world) { ASSERT_TRUE(world.flush_now().ok()); };
  return each_failing({"write with FUA"}, {k_old, 4096}, StoreCall::durable_write, settle);
}

std::vector<Outcome> fill_in_fails() {
  std::vector<Outcome> outcomes;
  for (const int number : {EIO, ENXIO}) {
    for (const std::string operation : {"write", "zero"}) {
      World world(1, 0);
      world.base_disk = std::make_shared<sim::SimDisk>(world.pool, k_device_bytes);
      world.open_layer();
      auto base = std::make_shared<SimStore>(world.queue, world.base_disk, world.options);
      auto target = CowTarget::open(world.queue, world.store, std::make_shared<crash::SimTarget>(base, false),
                                    {.writable = true});
      EXPECT_TRUE(target);
      Device device(*target, {.name = "fill"}, world.queue);
      base->fault = [number](const SimStore::Call& call) {
        return call.kind == StoreCall::read ? number : 0;
      };
      const IoStatus status = run(world.queue, device, operation, {512, 512});
      base->fault = {};
      std::byte now{'?'};
      EXPECT_TRUE(run_blocking(world.queue, [&](Io& io) { return device.read(io, 512, {&now, 1}); }).ok());
      outcomes.push_back({.operation = operation,
                          .number = status.error_number(),
                          .injected = number,
                          .sticky = !run(world.queue, device, "write", {8192, 4096}).ok(),
                          .unchanged = now == std::byte{0}});
    }
  }
  return outcomes;
}

// Nothing may read before, which would load the page.
std::vector<Outcome> page_read_fails() {
  std::vector<Outcome> outcomes;
  for (const int number : {EIO, ENXIO}) {
    for (const std::string& operation : k_changes) {
      Case world;
      world.reopen();
      world.fail(StoreCall::read, number);
      const IoStatus status = run(world.queue, *world.device, operation, {k_old, 4096});
      outcomes.push_back(world.finish(operation, number, status, [&] {
        world.store->fault = {};
        return world.letter(k_old) == 'o';
      }));
    }
  }
  return outcomes;
}

std::vector<Outcome> no_room_for_metadata() {
  const auto reopen_full = [](Case& world) {
    world.reopen();
    world.store->fault = [](const SimStore::Call& call) {
      return call.kind == StoreCall::allocate ? ENOSPC : 0;
    };
  };
  auto outcomes = each(k_changes, {k_old, 4096}, reopen_full);
  const auto quota = each_failing(k_changes, {k_old, 4096}, StoreCall::allocate,
                                  [](Case& world) { world.reopen(); }, {EDQUOT});
  outcomes.insert(outcomes.end(), quota.begin(), quota.end());
  return outcomes;
}

std::vector<Outcome> session_fails() {
  const auto reopen = [](Case& world) { world.reopen(); };
  auto outcomes = each_failing(k_changes, {k_old, 4096}, StoreCall::sync, reopen);
  const auto superblock = each_failing({"discard"}, {k_old, 4096}, StoreCall::write, reopen);
  outcomes.insert(outcomes.end(), superblock.begin(), superblock.end());
  return outcomes;
}

std::vector<Outcome> flush_fails() {
  std::vector<Outcome> outcomes;
  // The barriers of a flush, and its writes: record and page.
  for (const StoreCall kind : {StoreCall::sync, StoreCall::write}) {
    for (unsigned count = 0; count < 2; ++count) {
      Case world;
      EXPECT_TRUE(world.write_now(k_fresh, letters('f')).ok());
      world.store->fault = [=](const SimStore::Call& call) mutable {
        return call.kind == kind && count-- == 0 ? EIO : 0;
      };
      outcomes.push_back(world.outcome("flush", {}));
    }
  }
  return outcomes;
}

// Not every order of the two makes the flush fail: it may have ended before.
std::vector<Outcome> beside_a_failure() {
  const std::vector<std::byte> data = letters('d');  // outlives the requests
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.open_plain();
    EXPECT_TRUE(world.write_now(0, letters('o')).ok());
    world.store->fault = [](const SimStore::Call& call) {
      return call.kind == StoreCall::durable_write ? EIO : 0;
    };
    Request flush(world.queue);
    Request durable(world.queue);
    flush.answered(world.device->flush(flush));
    world.write(durable, 8192, data, true);
    world.queue.drain();
    if (flush.result.ok()) continue;
    world.store->fault = {};
    return {{.operation = "flush",
             .number = flush.result.error_number(),
             .sticky = !world.write_now(0, letters('o')).ok()}};
  }
  return {};
}

std::vector<Outcome> no_room_for_data() {
  const auto fill = [](Case& world) {
    EXPECT_TRUE(world.write_now(k_old + 8192, letters('o')).ok());  // the page is loaded, the session begun
  };
  // A zero takes room where a part of a fresh cluster is filled in.
  std::vector<Outcome> all;
  for (const int number : {ENOSPC, EDQUOT, EFBIG}) {
    auto some = each_failing({"write", "zero"}, {k_fresh, 512}, StoreCall::write, fill, {number});
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace

const std::map<std::string, Provocation>& provocations() {
  static const std::map<std::string, Provocation> all{
      {"empty", [] { return each({"read", "write", "zero", "discard"}, {k_old, 0}, nothing); }},
      {"read-beyond-the-end", [] { return each({"read"}, {k_device_bytes - 512, 1024}, nothing); }},
      {"read-damaged-page",
       [] {
         auto outcomes = each({"read"}, {k_old, 4096}, damage_pages);
         outcomes[0].sticky = false;  // the probe lies in the page too
         return outcomes;
       }},
      {"error-target", error_target},
      {"read-fails", [] { return each_failing({"read"}, {k_old, 4096}, StoreCall::read, nothing); }},
      {"cut-short", cut_short},
      {"read-only", read_only},
      {"change-beyond-the-end", [] { return each(k_changes, {k_device_bytes - 512, 1024}, nothing); }},
      {"after-a-failure", after_a_failure},
      {"change-damaged-page", change_damaged_page},
      {"move-fails",
       [] { return each_failing({"write", "zero"}, {k_fresh + 512, 512}, StoreCall::write, nothing); }},
      {"no-room-for-data", no_room_for_data},
      {"durable-write-fails", durable_write_fails},
      {"fua-flush-fails",
       [] { return each_failing(k_fua_changes, {k_fresh, 4096}, StoreCall::sync, nothing, {EIO}); }},
      {"punch-fails",
       [] { return each_failing({"zero", "discard"}, {k_old, 4096}, StoreCall::discard, nothing); }},
      {"fill-in-fails", fill_in_fails},
      {"page-read-fails", page_read_fails},
      {"no-room-for-metadata", no_room_for_metadata},
      {"session-fails", session_fails},
      {"flush-fails", flush_fails},
      {"beside-a-failure", beside_a_failure},
  };
  return all;
}

}  // namespace oxbow::errors
