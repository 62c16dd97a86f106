// SPDX-License-Identifier: Apache-2.0
#pragma once

// Changes to the structure of a device that is being served, its clients staying. A target is never changed in place:
//
//   suspend: requests that come wait, those in flight end → last flush, clean close → the job on the files, which are
//   closed now but still locked → opened again → the new target takes the old one's place → resume
//
// Whatever fails on the way, the device ends with a target: when it can't have its files it answers errors.
//
// A new table is opened beside what is in use, so that nothing that doesn't fit is ever put into its place:
//
//   load: the new table is opened → (suspend: requests wait, everything is durable) → resume: what the new table
//   doesn't use is closed → it takes the place → requests go on

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
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
    bool read_only = false;                                                  // made so by reopen_read_only()
    std::string why;                                                         // of broken
    std::optional<std::chrono::system_clock::time_point> suspended_since{};  // by suspend()
    std::shared_ptr<Target> loaded{};  // the table that takes the place of the target at the next resume()
    std::string loaded_source{};       // what that one is called
    std::string source{};              // of the table that is in use, where it was loaded; else empty
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
  // --- the live table ---

  // Holds requests until resume(), everything durable. Fails when requests in flight don't end within `limit`, and
  // lets them all go on. Does nothing to a device that is suspended.
  [[nodiscard]] Result<void> suspend(Queue& queue, std::chrono::milliseconds limit);
  // Opens a table for the next resume(), in the place of another one that waits for that. `source` is what errors and
  // status call it. Nothing else of the device changes, whatever fails.
  [[nodiscard]] Result<void> load(Queue& queue, const std::string& text, const std::string& source);
  // Lets go of what load() opened.
  [[nodiscard]] Result<void> unload(Queue& queue);
  // Lets requests go on, with the table that was loaded if there is one; a device that isn't suspended is suspended for
  // that, which `limit` is for. What would take something from those who have it open is refused; then everything stays
  // as it was.
  [[nodiscard]] Result<void> resume(Queue& queue, std::chrono::milliseconds limit, const Users& users);
  // Before whoever serves the device ends: requests go on with the target of now, what was loaded is let go of, and
  // nothing can be changed any more.
  void stop(Queue& queue) noexcept;

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
  [[nodiscard]] const char* waits_for_room() const noexcept;
  [[nodiscard]] Result<void> check_not_broken() const;
  // With everything durable.
  [[nodiscard]] Result<void> hold(Queue& queue, std::chrono::milliseconds limit);
  [[nodiscard]] Result<void> follow_growth(Queue& queue, FileStore& file);
  [[nodiscard]] Result<void> swap(Queue& queue, const Users& users);
  // Of a table that waits; `next` takes its place, or none does.
  void drop_loaded(Queue& queue, const std::shared_ptr<Target>& next);
  [[nodiscard]] Result<std::shared_ptr<Target>> open_beside(Queue& queue, const TableSpec& table,
                                                            const OpenOptions& options);
  void log_unclean(const char* whose, IoStatus closed) const;
  // Whoever looks at it just now (a status) soon doesn't; then its files are closed.
  static void wait_until_gone(const std::weak_ptr<Target>& target) noexcept;
  // Alone, with the device suspended.
  [[nodiscard]] Result<void> change(Queue& queue, const char* what, const Change& make);
  [[nodiscard]] Result<void> change_files(Queue& queue, const char* what, const Change& make);
  [[nodiscard]] Result<void> change_layer(Queue& queue, const char* what, const Job& job);
  [[nodiscard]] Result<void> run_on_layer(Queue& queue, const std::string& path, const Job& job);
  [[nodiscard]] Result<void> check_has_files() const;
  // The same with a RAM disk, which stays as it is.
  [[nodiscard]] Result<void> change_ram(Queue& queue, const char* what, const RamJob& job);
  [[nodiscard]] Result<void> resize_ram(const std::shared_ptr<RamStore>& store, std::uint64_t size_bytes);
  // Of the target of now, which stays in its place. When it fails the device is broken.
  [[nodiscard]] Result<void> close_target(Queue& queue);
  [[nodiscard]] Result<void> open_again(Queue& queue, std::shared_ptr<OpenStores> stores, bool read_only);
  void put(std::shared_ptr<Target> next, bool read_only, Standing standing);
  [[nodiscard]] std::string layer_path() const;

  OpenedDevice& opened_;
  DeviceSpec spec_;  // guarded by changing_
  const bool is_ram_;
  const OpenOptions options_;
  std::mutex changing_;
  const char* what_ = "";  // guarded by changing_: what errors begin with
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  Standing standing_;  // guarded by mutex_
};

}  // namespace oxbow
