// SPDX-License-Identifier: Apache-2.0
#pragma once

// Changes to the structure of a device that is being served, its clients staying. A target is never changed in place:
//
//   suspend: requests that come wait, those in flight end → last flush, clean close → the job on the files, which are
//   closed now but still locked → opened again → the new target takes the old one's place → resume
//
// Whatever fails on the way, the device ends with a target: when it can't have its files it answers errors.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "jobs/open_device.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

class RamStore;

// The files of one device. Thread safety: any thread, one change at a time: another one meanwhile is refused. `queue`
// is the calling thread's, which is blocked until requests in flight have ended.
class DeviceFiles {
 public:
  // `opened` is borrowed, and was opened from `spec` with `options`.
  DeviceFiles(OpenedDevice& opened, DeviceSpec spec, OpenOptions options);

  enum class State : std::uint8_t {
    open,
    closed,  // let go of by close(); requests fail with EIO
    broken,  // they could not be opened again; requests fail with EIO
  };
  struct Standing {
    State state = State::open;
    bool read_only = false;  // made so by reopen_read_only()
    std::string why;         // of broken
  };
  [[nodiscard]] Standing standing() const;

  // Drops what the layer holds: the base shows again. Of a device that is a layer.
  [[nodiscard]] Result<void> reset(Queue& queue);
  // Who has the device open, in words ("1 client has it open: ..."); empty: nobody. Asked while requests wait.
  using Users = std::function<std::string()>;
  // A new size, of a layer or a RAM disk. A layer never shrinks; a RAM disk does when nobody has it open, for nobody
  // can be told.
  [[nodiscard]] Result<void> resize(Queue& queue, std::uint64_t size_bytes, const Users& users);
  // Empties a RAM disk that nobody has open.
  [[nodiscard]] Result<void> clear(Queue& queue, const Users& users);
  // Leaves the files of pairs of cowloop as a clean end would, and goes on. Does nothing where they are so already.
  // Waits for another change to end.
  [[nodiscard]] Result<void> tidy_up(Queue& queue);
  // Closes the files and lets go of them.
  [[nodiscard]] Result<void> close(Queue& queue);
  // Has the files open for reading only from now on, whether they were closed before or not.
  [[nodiscard]] Result<void> reopen_read_only(Queue& queue);

 private:
  using Job = std::function<Result<void>(Queue& queue, Store& layer)>;
  using Change = std::function<Result<void>(Queue& queue)>;
  using RamJob = std::function<Result<void>(Queue& queue, const std::shared_ptr<RamStore>& store)>;
  class Suspended;

  [[nodiscard]] Error refusal(std::string why) const;
  // Alone, with the device suspended.
  [[nodiscard]] Result<void> change(Queue& queue, const char* what, const Change& make);
  [[nodiscard]] Result<void> change_files(Queue& queue, const char* what, const Change& make);
  [[nodiscard]] Result<void> change_layer(Queue& queue, const char* what, const Job& job);
  [[nodiscard]] Result<void> run_on_layer(Queue& queue, const std::string& path, const Job& job);
  [[nodiscard]] Result<void> check_has_files() const;
  [[nodiscard]] bool is_ram() const noexcept { return std::holds_alternative<RamSpec>(spec_); }
  // The same with a RAM disk, which stays as it is.
  [[nodiscard]] Result<void> change_ram(Queue& queue, const char* what, const RamJob& job);
  [[nodiscard]] Result<void> resize_ram(const std::shared_ptr<RamStore>& store, std::uint64_t size_bytes);
  // Of the target of now, which stays in its place. When it fails the device is broken.
  [[nodiscard]] Result<void> close_target(Queue& queue);
  [[nodiscard]] Result<void> open_again(Queue& queue, std::shared_ptr<OpenStores> stores, bool read_only);
  void put(std::shared_ptr<Target> next, bool read_only, Standing standing);
  [[nodiscard]] std::string layer_path() const;

  OpenedDevice& opened_;
  const DeviceSpec spec_;
  const OpenOptions options_;
  std::mutex changing_;
  const char* what_ = "";  // guarded by changing_: what errors begin with
  mutable std::mutex mutex_;
  Standing standing_;  // guarded by mutex_
};

}  // namespace oxbow
