// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/base_policy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>

namespace oxbow {
namespace {

constexpr auto k_what = "cannot open file";

// Where the file behind a descriptor is, without links.
std::optional<std::string> place_of(int fd) {
  std::array<char, PATH_MAX> place{};
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = ::readlink(link.c_str(), place.data(), place.size());
  if (length <= 0 || static_cast<std::size_t>(length) >= place.size() || place[0] != '/') return std::nullopt;
  return std::string(place.data(), static_cast<std::size_t>(length));
}

bool is_within(const std::string& place, const std::string& directory) {
  if (directory == "/") return true;
  return place.size() > directory.size() && place.starts_with(directory) && place[directory.size()] == '/';
}

std::string parent_of(const std::string& place) {
  return std::filesystem::path(place).parent_path().string();
}

// A file, held without being opened. Thread safety: none.
struct Held {
  UniqueFd fd;
  struct stat info{};
  std::string place;
};

Result<Held> hold(const std::string& path) {
  Held held;
  held.fd = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!held.fd.valid() || ::fstat(held.fd.get(), &held.info) != 0)
    return std::unexpected(Error::from_errno(k_what, path, errno));
  auto place = place_of(held.fd.get());
  if (!place) {
    return std::unexpected(Error(
        k_what, path, "where it really is can't be told (/proc is needed), so it isn't allowed as a base"));
  }
  held.place = std::move(*place);
  return held;
}

// Whether what the layer says can be taken for its user's own word.
bool is_own_word(const struct stat& layer) {
  return (layer.st_uid == ::geteuid() || layer.st_uid == 0) && (layer.st_mode & S_IWOTH) == 0;
}

std::optional<FileIdentity> identity_of(const struct stat& info) {
  FileIdentity identity;
  identity.block_device = S_ISBLK(info.st_mode);
  if (!identity.block_device && !S_ISREG(info.st_mode)) return std::nullopt;
  identity.dev = identity.block_device ? info.st_rdev : info.st_dev;
  identity.inode = identity.block_device ? 0 : info.st_ino;
  return identity;
}

bool is_named(const BasePolicy& policy, const struct stat& base) {
  return std::ranges::any_of(policy.files, [&](const std::string& file) {
    struct stat named{};
    return ::stat(file.c_str(), &named) == 0 && named.st_dev == base.st_dev && named.st_ino == base.st_ino;
  });
}

// Why the base isn't allowed; empty when it is.
std::string refusal(const BasePolicy& policy, const Held* layer, const Held& base) {
  if (is_named(policy, base.info)) return {};
  const auto holds = [&](const std::string& directory) { return is_within(base.place, directory); };
  if (!policy.directories.empty()) {
    if (std::ranges::any_of(policy.directories, holds)) return {};
    return fmt::format("it is in none of the directories that --allow-base names; --allow-base {} allows it",
                       parent_of(base.place));
  }
  if (layer == nullptr || is_own_word(layer->info) || holds(parent_of(layer->place))) return {};
  return fmt::format(
      "the layer {}, and may only name a base in its own directory or below; --allow-base {} allows it",
      (layer->info.st_mode & S_IWOTH) != 0
          ? "can be written to by everybody"
          : fmt::format("belongs to another user (uid {})", layer->info.st_uid),
      parent_of(base.place));
}

}  // namespace

Result<std::string> allowed_directory(const std::string& path) {
  constexpr auto k_cannot = "cannot allow bases";
  const UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return std::unexpected(Error::from_errno(k_cannot, path, errno));
  auto place = place_of(fd.get());
  if (!place) return std::unexpected(Error(k_cannot, path, "where it is can't be told; /proc is needed"));
  return *place;
}

Result<BasePolicy> allowed_bases(const std::vector<std::string>& directories) {
  BasePolicy policy;
  for (const std::string& each : directories) {
    auto place = allowed_directory(each);
    if (!place) return std::unexpected(place.error());
    policy.directories.push_back(std::move(*place));
  }
  return policy;
}

Result<AdmittedBase> admit_base(const BasePolicy& policy, const std::string& layer_path,
                                const FileIdentity* layer, const std::string& base_path) {
  Held above;
  if (layer != nullptr) {
    auto held = hold(layer_path);
    if (!held) return std::unexpected(held.error());
    const auto same = identity_of(held->info);
    if (!same || !same->same_file(*layer))
      return std::unexpected(Error(k_what, layer_path, "it was replaced while it was opened"));
    above = std::move(*held);
  }
  auto base = hold(base_path);
  if (!base) return std::unexpected(base.error());
  if (std::string why = refusal(policy, layer == nullptr ? nullptr : &above, *base); !why.empty())
    return std::unexpected(Error(k_what, base_path, std::move(why)));
  auto identity = identity_of(base->info);
  // Neither file nor block device: the opening says so in its own words, and nothing is served.
  return AdmittedBase(std::move(base->fd), identity.value_or(FileIdentity{}));
}

}  // namespace oxbow
