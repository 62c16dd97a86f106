// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

namespace oxbow::loop {

// Where the file of a device's loop device goes.
[[nodiscard]] std::string file_of(const std::string& run_directory, const std::string& name);

// Takes away such files of processes that were killed: all but those of the devices in `living`. The loop devices over
// them go by themselves. What can't be taken away stays for the next time. Nobody may come to serve meanwhile.
void remove_leftovers(const std::string& run_directory, const std::set<std::string>& living);

}  // namespace oxbow::loop
