// SPDX-License-Identifier: Apache-2.0
#include "exports/loop/leftovers.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "exports/fuse/mount.h"

namespace oxbow::loop {
namespace {

constexpr std::string_view k_suffix = ".loop";

}  // namespace

std::string file_of(const std::string& run_directory, const std::string& name) {
  return run_directory + "/" + name + std::string(k_suffix);
}

void remove_leftovers(const std::string& run_directory, const std::set<std::string>& living) {
  // By name alone: those of the living are not even looked at.
  std::vector<std::string> left;
  std::error_code failed;
  const auto folder = std::filesystem::canonical(run_directory, failed);  // as mounts have it
  if (failed) return;
  for (std::filesystem::directory_iterator each(folder, failed), end; !failed && each != end;
       each.increment(failed)) {
    const std::string file = each->path().filename().string();
    if (!file.ends_with(k_suffix)) continue;
    if (!living.contains(file.substr(0, file.size() - k_suffix.size())))
      left.push_back(each->path().string());
  }
  for (const std::string& file : left) {
    if (!fuse::clear_place(file)) continue;
    struct ::stat found{};
    if (::lstat(file.c_str(), &found) == 0 && S_ISREG(found.st_mode) && found.st_size == 0)
      (void)::unlink(file.c_str());
  }
}

}  // namespace oxbow::loop
