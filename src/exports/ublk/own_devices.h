// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which ublk devices are whose. A device carries a mark, which the driver keeps for whoever serves it: of the run
// directory of its process and of the name that it is served by. Processes that make, take over or remove devices hold
// a lock in the run directory meanwhile, so that a device without a process is one that was left behind.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "os/fd.h"
#include "os/ublk_control.h"
#include "oxbow/error.h"

namespace oxbow::ublk {

[[nodiscard]] std::uint64_t mark_of(const std::string& run_directory, const std::string& name);

// All devices of the run directory, whatever their names. None where the driver is not there.
[[nodiscard]] Result<std::vector<DeviceInfo>> own_devices(Control& control, const std::string& run_directory);
// The one of that name.
[[nodiscard]] Result<std::optional<DeviceInfo>> own_device(Control& control, const std::string& run_directory,
                                                           const std::string& name);

// Waits for the lock of the run directory, or, without patience, answers nothing when somebody else has it.
[[nodiscard]] Result<std::optional<UniqueFd>> lock_devices(const std::string& run_directory, bool patient);

// What a process that serves a device writes down for the one that may have to take it over.
// Thread safety: a value.
struct Note {
  std::string name;
  std::vector<std::string> sources;  // what its bytes come from, as continuity.h has it
  bool recovering = false;           // it was being taken over
};
[[nodiscard]] Result<void> write_note(const std::string& run_directory, std::uint32_t device,
                                      const Note& note);
// Nothing when there is none that could be read.
[[nodiscard]] std::optional<Note> read_note(const std::string& run_directory, std::uint32_t device);
void remove_note(const std::string& run_directory, std::uint32_t device) noexcept;

// A block device whose process was killed, and that waits to be served again. Thread safety: a value.
struct Waiting {
  std::string name;  // what it was served as
  std::string path;  // of the block device
};

// Removes the devices that nobody serves and nobody can take over, because their processes were killed before they
// were there or while they were taken over or taken away, and those that could be but that nobody uses. Does nothing
// while somebody else has the lock. What is left waits to be taken over.
[[nodiscard]] Result<std::vector<Waiting>> clean_up(const std::string& run_directory);
// The same for who has the lock, without the device of that name.
[[nodiscard]] Result<std::vector<Waiting>> clean_up(Control& control, const std::string& run_directory,
                                                    const std::string& but_for);

// What the device of that name had is lost: if a killed process left it, it is stopped, so that all its requests fail.
// Returns its path then.
[[nodiscard]] Result<std::optional<std::string>> fail_left(const std::string& run_directory,
                                                           const std::string& name);

}  // namespace oxbow::ublk
