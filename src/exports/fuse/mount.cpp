// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "exports/fuse/fusermount.h"
#include "exports/fuse/mount_table.h"
#include "os/absolute_path.h"

namespace oxbow::fuse {
namespace {

constexpr auto k_what = "cannot show device as file";
constexpr auto k_type = "fuse.oxbow";
constexpr auto k_fuse = "/dev/fuse";

std::unexpected<Error> refuse(const std::string& path, std::string why) {
  return std::unexpected(Error(k_what, path, std::move(why)));
}

std::unexpected<Error> refuse(const std::string& path, int error) {
  return std::unexpected(Error::from_errno(k_what, path, error));
}

// As the kernel's table of mounts has it. The last part may not be there yet.
Result<std::string> without_links(const std::string& path) {
  const std::filesystem::path whole = absolute_path(path);
  if (!whole.has_filename()) return refuse(path, EISDIR);
  std::error_code failed;
  const auto folder = std::filesystem::canonical(whole.parent_path(), failed);
  if (failed) return refuse(path, failed.value());
  return (folder / whole.filename()).string();
}

Result<void> unmount(const std::string& path) {
  if (::geteuid() != 0) return fusermount_away(path);
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
    return std::unexpected(Error::from_errno("cannot unmount", path, errno));
  return {};
}

// What mount(2) and fusermount3 take besides the descriptor; each knows how to say read-only.
std::string options_for_helper(bool read_only) {
  return std::string("fsname=oxbow,subtype=oxbow,default_permissions,nosuid,nodev") +
         (read_only ? ",ro" : "");
}

}  // namespace

Result<void> clear_place(const std::string& path) {
  while (true) {
    const auto mounted = mounted_at(path);
    if (!mounted) return std::unexpected(mounted.error());
    if (!*mounted) return {};
    if ((*mounted)->type != k_type)
      return refuse(path, fmt::format("something is mounted there already, of type {}", (*mounted)->type));
    struct ::stat ignored{};
    if (::stat(path.c_str(), &ignored) == 0 || errno != ENOTCONN)
      return refuse(path, "a process shows a device there already");
    if (auto gone = unmount(path); !gone) return gone;
  }
}

Mount::Mount(Mount&& other) noexcept
    : path_(std::move(other.path_)),
      device_(std::exchange(other.device_, {})),
      fuse_(std::move(other.fuse_)),
      made_(std::exchange(other.made_, std::nullopt)) {}

Mount::~Mount() {
  // Whoever wants to know why it fails asks take_away() before.
  if (!device_.empty()) (void)take_away();
  remove_made_file();
}

Result<Mount> Mount::make(const std::string& path, bool read_only) {
  auto resolved = without_links(path);
  if (!resolved) return std::unexpected(std::move(resolved.error()));
  if (auto cleared = clear_place(*resolved); !cleared) return std::unexpected(std::move(cleared.error()));
  Mount made(std::move(*resolved));
  auto place = made.open_place();
  if (!place) return std::unexpected(std::move(place.error()));
  if (auto mounted = made.mount(place->get(), read_only); !mounted)
    return std::unexpected(std::move(mounted.error()));
  return made;
}

// The file to cover; it is made where there is none.
Result<UniqueFd> Mount::open_place() {
  UniqueFd created(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!created.valid() && errno != EEXIST) return refuse(path_, errno);
  struct ::stat found{};
  if (created.valid()) {
    if (::fstat(created.get(), &found) != 0) return refuse(path_, errno);
    made_ = found;
  }
  UniqueFd place(::open(path_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!place.valid() || ::fstat(place.get(), &found) != 0) return refuse(path_, errno);
  if (S_ISLNK(found.st_mode)) return refuse(path_, "it is a symbolic link; give the file that it leads to");
  if (!S_ISREG(found.st_mode)) return refuse(path_, "it is not a regular file");
  return place;
}

Result<void> Mount::mount(int place, bool read_only) {
  if (::geteuid() == 0) {
    fuse_ = UniqueFd(::open(k_fuse, O_RDWR | O_CLOEXEC));
    if (!fuse_.valid()) return refuse(k_fuse, errno);
    const std::string options = fmt::format("fd={},rootmode=100000,user_id=0,group_id={},default_permissions",
                                            fuse_.get(), ::getegid());
    // By descriptor: what the name means may have changed.
    const std::string where = fmt::format("/proc/self/fd/{}", place);
    constexpr unsigned long k_flags = MS_NOSUID | MS_NODEV;
    const unsigned long flags = read_only ? k_flags | MS_RDONLY : k_flags;
    if (::mount("oxbow", where.c_str(), k_type, flags, options.c_str()) != 0) return refuse(path_, errno);
  } else {
    auto mounted = fusermount(path_, options_for_helper(read_only));
    if (!mounted) return std::unexpected(std::move(mounted.error()));
    fuse_ = std::move(*mounted);
  }
  const auto entry = mounted_at(path_);
  if (entry && *entry && (*entry)->type == k_type) {
    device_ = (*entry)->device;
    return {};
  }
  // Without its number it could not be told from others later.
  if (auto gone = unmount(path_); !gone) return gone;
  return entry ? refuse(path_, "it was moved while it was being mounted") : std::unexpected(entry.error());
}

Result<void> Mount::take_away() {
  const std::string device = std::exchange(device_, {});
  if (device.empty()) return {};
  const auto entry = mounted_at(path_);
  if (!entry) return std::unexpected(entry.error());
  // Somebody else's, who came after ours was taken away.
  if (!*entry || (*entry)->device != device) return {};
  return unmount(path_);
}

void Mount::remove_made_file() noexcept {
  if (!made_) return;
  struct ::stat found{};
  const bool ours = ::lstat(path_.c_str(), &found) == 0 && found.st_dev == made_->st_dev &&
                    found.st_ino == made_->st_ino && found.st_size == 0;
  if (ours) (void)::unlink(path_.c_str());
}

}  // namespace oxbow::fuse
