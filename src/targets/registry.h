// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every type of target that a table line can name, by its name.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "oxbow/error.h"
#include "targets/cow/base_policy.h"
#include "targets/cow/live_choice.h"
#include "targets/target.h"

namespace oxbow {

class CowloopTarget;
class CowTarget;
class FileStore;
class Log;
class OpenStores;
class Queue;
class Store;

// What constructors of targets open things with. Thread safety: one thread at a time, the one that owns `queue`.
struct OpenContext {
  Queue& queue;        // the calling thread's: constructors may wait on it
  OpenStores& stores;  // one store per file, shared by everything in the process that uses the file
  bool writable = false;
  bool direct = false;  // O_DIRECT for the files that are opened
  std::uint64_t reserve_bytes =
      0;                     // to be kept free on the file systems of files that are opened for writing
  bool accept_base = false;  // a base whose modification time changed is accepted when its samples are equal
  BasePolicy bases = {};     // which bases layers may name
  LiveSettings live = {};    // where layers keep their live states
  bool ring = true;          // small flushes go to the commit rings of layers
  std::map<const Store*, std::weak_ptr<CowTarget>> layers = {};     // that are open: one target per layer
  std::map<const Store*, std::weak_ptr<CowloopTarget>> pairs = {};  // and one per cowfile
  Log* log = nullptr;                                               // borrowed; may be null
  // Has an open file that has become longer since followed, while nothing else uses it; null: its length of then
  // counts.
  std::function<Result<void>(FileStore& file)> follow_growth = {};
};

// A target, and where in it a table line's bytes start. Lines may share a target.
struct MadeTarget {
  std::shared_ptr<Target> target;
  std::uint64_t offset = 0;
};

// Makes the target of one line. `length_bytes` is the line's length, which the target covers from its offset on.
using MakeTarget = Result<MadeTarget> (*)(OpenContext&, std::span<const std::string> args,
                                          std::uint64_t length_bytes);

struct TargetType {
  std::string_view name;
  MakeTarget make;
  std::string_view arguments;    // "PATH SECTORS"
  std::string_view description;  // one line
};

// All types, sorted by name.
[[nodiscard]] std::span<const TargetType> target_types() noexcept;

// Makes a target of the type with that name; for one that does not exist the error lists those that do.
[[nodiscard]] Result<MadeTarget> make_target(OpenContext& context, std::string_view type,
                                             std::span<const std::string> args, std::uint64_t length_bytes);

// The arguments of a line that was made, such that they mean the same in every working directory.
[[nodiscard]] std::vector<std::string> lasting_arguments(std::string_view type,
                                                         std::vector<std::string> args);

}  // namespace oxbow
