// SPDX-License-Identifier: Apache-2.0
#include "jobs/live_directory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "jobs/run_directory.h"
#include "os/absolute_path.h"
#include "os/fd.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot keep live states";

Result<void> check(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct ::stat info{};
  struct ::statfs system{};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || ::fstatfs(fd.get(), &system) != 0) {
    return std::unexpected(Error::from_errno(k_what, path, errno));
  }
  const auto refuse = [&](std::string why) { return std::unexpected(Error(k_what, path, std::move(why))); };
  if (system.f_type != TMPFS_MAGIC) return refuse("it is not on tmpfs");
  if (info.st_uid != ::geteuid()) {
    return refuse("it belongs to another user (uid " + std::to_string(info.st_uid) + ")");
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return refuse("others can write to it; chmod go-w takes that away");
  }
  return {};
}

LiveSettings usual_settings() {
  if (auto run = run_directory(); run && check(*run)) return {.directory = *run, .keep = true};
  const std::string path = "/dev/shm/oxbow-" + std::to_string(::geteuid());
  if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return {.why_none = Error::from_errno(k_what, path, errno).text()};
  }
  if (auto usable = check(path); !usable) return {.why_none = usable.error().text()};
  return {.directory = path, .keep = true};
}

}  // namespace

Result<LiveSettings> live_settings(const std::optional<std::string>& wanted) {
  if (!wanted) return usual_settings();
  if (*wanted == "off") {
    LiveSettings settings = usual_settings();  // where left-over ones are
    settings.keep = false;
    settings.why_none = "--live off";
    return settings;
  }
  if (auto usable = check(*wanted); !usable) return std::unexpected(usable.error());
  return LiveSettings{.directory = absolute_path(*wanted), .keep = true};
}

}  // namespace oxbow
