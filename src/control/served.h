// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace oxbow {

class Device;
class DeviceFiles;
namespace nbd {
class Server;
}
namespace fuse {
class FileExport;
}

namespace control {

class KernelDevices;

// A device as it is served. Thread safety: a value; what is pointed to is
// borrowed.
struct ServedDevice {
  std::string name;    // what people call it, and the name of its export
  std::string source;  // what it was made from, in the words of the command line: "--ram 1G", "/srv/w.oxb"
  Device* device = nullptr;
  DeviceFiles* files = nullptr;            // for changes of its structure; null: there can't be any
  const fuse::FileExport* file = nullptr;  // that shows it; null: there is none
  KernelDevices* kernel = nullptr;         // that show it; null: there can't be any
  bool read_only = false;                  // asked for by who serves it
  std::vector<std::string> uris;           // how clients reach it otherwise, one for each listener
};

// The devices of a process, to which more may come; those that are there stay as they are. A copy is the same devices.
// Thread safety: any thread.
class ServedDevices {
 public:
  ServedDevices();
  void push_back(ServedDevice device);
  // As of now.
  [[nodiscard]] std::vector<std::reference_wrapper<const ServedDevice>> all() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// What one process serves, as the control server shows it. Everything pointed to is borrowed until the control
// server has stopped. Thread safety: a value.
struct Served {
  ServedDevices devices;
  nbd::Server* server = nullptr;    // for its clients; may be null
  bool ends_when_detached = false;  // the process is asked to end once no device is the kernel's any more
  std::chrono::system_clock::time_point started;
};

}  // namespace control
}  // namespace oxbow
