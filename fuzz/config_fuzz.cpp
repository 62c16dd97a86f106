// SPDX-License-Identifier: Apache-2.0
// Configurations as text: what is accepted is consistent, what is not is refused with one line that names the source.

#include <cstdlib>
#include <set>

#include "cli/config.h"
#include "control/device_name.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const oxbow::Config& config) {
  require(!config.devices.empty());
  std::set<std::string> names;
  std::size_t defaults = 0;
  for (const oxbow::ServedDeviceArguments& each : config.devices) {
    require(oxbow::control::wrong_device_name(each.name).empty());
    require(names.insert(each.name).second);
    require(oxbow::names_a_device(each.device));
    require(each.device.table != "-");
    require(each.origin.starts_with("file line "));
    defaults += each.is_default ? 1 : 0;
  }
  require(defaults <= 1);
  for (const oxbow::AddressArgument& each : config.server.nbd)
    require(!each.address.empty() && each.origin.starts_with("file line "));
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = oxbow::parse_config(text, "file", size % 2 == 0 ? "" : "/folder");
  if (config) {
    check(*config);
    return 0;
  }
  const std::string error = config.error().text();
  require(error.starts_with("cannot use configuration: file"));
  require(error.find('\n') == std::string::npos);
  return 0;
}
