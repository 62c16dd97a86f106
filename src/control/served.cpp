// SPDX-License-Identifier: Apache-2.0
#include "control/served.h"

#include <deque>
#include <mutex>
#include <utility>

namespace oxbow::control {

struct ServedDevices::State {
  std::mutex mutex;
  std::deque<ServedDevice> devices;  // guarded by mutex
};

ServedDevices::ServedDevices() : state_(std::make_shared<State>()) {}

void ServedDevices::push_back(ServedDevice device) {
  const std::scoped_lock lock(state_->mutex);
  state_->devices.push_back(std::move(device));
}

std::vector<std::reference_wrapper<const ServedDevice>> ServedDevices::all() const {
  const std::scoped_lock lock(state_->mutex);
  return {state_->devices.begin(), state_->devices.end()};
}

}  // namespace oxbow::control
