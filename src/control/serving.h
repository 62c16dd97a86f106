// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exports/nbd/server.h"
#include "jobs/open_device.h"
#include "os/fd.h"
#include "os/log.h"
#include "oxbow/error.h"

namespace oxbow::control {

// A device to serve. Thread safety: a value.
struct DeviceToServe {
  std::string name;
  DeviceSpec spec;
  std::string source;  // the same in the words of the command line
  std::string description;
  std::string fuse = {};  // the file that shows it; empty: none
  bool loop = false;      // as a loop device of the kernel's
  bool ublk = false;      // as a device of the kernel's ublk driver
  bool read_only = false;
  bool direct = false;
  bool ring = true;
  bool accept_base = false;
  std::vector<std::string> allow_bases = {};
  bool discard_live = false;
  // Of a RAM disk, one of them at most: how many more like it clients get by asking for other names.
  std::uint32_t on_demand = 0;
  std::string origin;  // where it was asked for ("vm.toml line 3"), to begin errors with; may be empty
};

// Where to serve: unix:PATH or tcp:HOST:PORT. Thread safety: a value.
struct AddressToServe {
  std::string address;
  std::string origin;  // as above
};

// The error, after `origin`, where what failed was asked for; as it is where that is empty.
[[nodiscard]] Error at_origin(const std::string& origin, const Error& error);

// What one process is to serve, and how. Thread safety: a value.
struct ServingPlan {
  std::vector<DeviceToServe> devices;  // at least one, names all different; the first is the default export
  std::vector<AddressToServe> addresses;     // may be none where each device is shown as a file
  std::vector<UniqueFd> sockets;             // listening already
  std::optional<std::string> run_directory;  // where the control socket goes; without it there is none
  OnFull on_full = OnFull::pause;
  std::uint64_t reserve_bytes = 0;  // to be kept free where the devices write
  bool ends_when_detached = false;  // once no device is the kernel's any more, by SIGTERM to itself
  bool may_be_unlisted = false;     // serve also when a name is taken there: then without the socket
  LiveSettings live;                // where layers keep their live states
  nbd::Server::Options nbd;
  Log* log = nullptr;  // borrowed; may be null
};

// What one process serves, from opened files to a clean end.
// Thread safety: one thread makes, stops and destroys it, and serves nothing: what it asks of the kernel may come back
// as requests.
class Serving {
 public:
  // Opens the devices, then the sockets, then serves. What was opened is closed again when something fails.
  [[nodiscard]] static Result<std::unique_ptr<Serving>> start(ServingPlan plan);
  ~Serving();  // stops; what goes wrong is logged
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;
  Serving(Serving&&) = delete;
  Serving& operator=(Serving&&) = delete;

  // How clients call the devices, one URI for each device at each address and one for each file and block device that
  // shows a device; the first is the default's.
  [[nodiscard]] const std::vector<std::string>& uris() const noexcept { return uris_; }

  // The block devices that show the devices: "/dev/loop0".
  [[nodiscard]] std::vector<std::string> kernel_paths() const;
  // Who uses them: "/dev/loop0: mounted at /mnt"; empty: nobody.
  [[nodiscard]] std::string kernel_users() const;

  // Lets the clients go, takes block devices away, also those in use, makes everything durable and closes it. Every
  // device is closed, whatever happens to others; the errors are handed to `failed`, and none means that all of it is
  // durable. Once only.
  void stop(const std::function<void(const Error&)>& failed);

 private:
  struct Parts;
  explicit Serving(ServingPlan plan);
  [[nodiscard]] Error not_opened(const DeviceToServe& device, const Error& error) const;
  [[nodiscard]] Result<void> open_devices();
  [[nodiscard]] Result<void> open_server();
  [[nodiscard]] Result<void> take_names();
  [[nodiscard]] Result<void> open_files();
  [[nodiscard]] Result<void> open_kernel_devices();
  [[nodiscard]] Result<void> add_loop_device(std::size_t device);
  [[nodiscard]] Result<void> add_ublk_device(std::size_t device);
  [[nodiscard]] Result<void> open_control();
  [[nodiscard]] std::vector<std::string> uris_of(std::size_t device) const;
  [[nodiscard]] std::vector<std::string> nbd_uris(const std::string& export_name) const;
  [[nodiscard]] OpenOptions options_of(const DeviceToServe& device) const;
  // Called by threads that serve clients. The error is for them.
  [[nodiscard]] std::expected<nbd::Export, std::string> make_on_demand(const DeviceToServe& like,
                                                                       const std::string& name);
  [[nodiscard]] Result<nbd::Export> add_device(DeviceToServe device);

  std::unique_ptr<Parts> parts_;
  std::vector<std::string> uris_;
};

}  // namespace oxbow::control
