// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/live_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "formats/native/codec.h"
#include "os/canary.h"

namespace oxbow {
namespace {

using native::LiveHeader;

constexpr auto k_cannot_create = "cannot create live state";
constexpr auto k_cannot_use = "cannot use live state";
constexpr std::uint64_t k_largest_growth_bytes = std::uint64_t{1} << 20;
constexpr ::mode_t k_mode = S_IRUSR | S_IWUSR;

// Nothing but a session's beginning and failures, so the strongest order costs nothing.
void put(std::uint64_t& field, std::uint64_t value) noexcept { std::atomic_ref(field).store(value); }
std::uint64_t get(std::uint64_t& field) noexcept { return std::atomic_ref(field).load(); }

// Room with memory behind it, so that touching it can't fail. The answer is an errno value.
int allocate(int fd, std::uint64_t at, std::uint64_t length) noexcept {
  while (::fallocate(fd, 0, static_cast<::off_t>(at), static_cast<::off_t>(length)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

bool on_tmpfs(int fd) noexcept {
  struct ::statfs info{};
  return ::fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}

// Why a file that a layer names isn't believed to be its live state; empty when nothing speaks against it.
std::string distrust(int fd) {
  struct ::stat info{};
  if (::fstat(fd, &info) != 0) return "it can't be examined";
  if (!S_ISREG(info.st_mode)) return "it is not a regular file";
  if (info.st_uid != ::geteuid()) return fmt::format("it belongs to another user (uid {})", info.st_uid);
  if ((info.st_mode & 07777) != k_mode)
    return fmt::format("its mode is {:04o}, not 0600", info.st_mode & 07777);
  if (!on_tmpfs(fd)) return "it is not on tmpfs";
  return {};
}

// Why a header isn't that of `identity`; empty when it is.
std::string misfit(const LiveHeader& header, const LiveIdentity& identity) {
  if (header.magic != native::k_live_magic) return "it is no live state";
  if (!native::valid(header)) return "it is damaged: its checksum is wrong";
  if (header.version != native::k_live_version) {
    return fmt::format("its version is {}, not {}", header.version, native::k_live_version);
  }
  if (header.uuid != identity.uuid)
    return fmt::format("it is that of layer {}", native::to_text(header.uuid));
  if (header.device != identity.device || header.inode != identity.inode) {
    return "it is that of another file with the same layer, which was copied";
  }
  if (header.boot_id != identity.boot_id) return "it is of another boot";
  return {};
}

LiveHeader header_for(const LiveIdentity& identity) noexcept {
  LiveHeader header{};
  header.magic = native::k_live_magic;
  header.version = native::k_live_version;
  header.uuid = identity.uuid;
  header.device = identity.device;
  header.inode = identity.inode;
  header.boot_id = identity.boot_id;
  native::seal(header);
  return header;
}

}  // namespace

Result<std::shared_ptr<LiveFile>> LiveFile::make(UniqueFd fd, std::string path,
                                                 const LiveIdentity& identity) {
  const auto failed = [&](int number) {
    return std::unexpected(Error::from_errno(k_cannot_create, path, number));
  };
  if (const int failure = allocate(fd.get(), 0, sizeof(LiveHeader)); failure != 0) return failed(failure);
  std::shared_ptr<LiveFile> file(new LiveFile(std::move(fd), path));
  auto header = Mapping::shared(file->fd_.get(), sizeof(LiveHeader));
  if (!header) return failed(header.error());
  file->header_ = std::move(*header);
  file->header() = header_for(identity);
  return file;
}

// Whole before it has its name, so that nobody ever finds half of one.
Result<std::shared_ptr<LiveFile>> LiveFile::create(const std::string& path, const LiveIdentity& identity) {
  std::string temporary = path + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return std::unexpected(Error::from_errno(k_cannot_create, path, errno));
  if (!on_tmpfs(fd.get())) {
    (void)::unlink(temporary.c_str());
    return std::unexpected(Error(k_cannot_create, path, "it would not be on tmpfs"));
  }
  auto file = make(std::move(fd), path, identity);
  if (file && ::rename(temporary.c_str(), path.c_str()) == 0) return file;
  const int number = errno;
  (void)::unlink(temporary.c_str());
  if (!file) return file;
  return std::unexpected(Error::from_errno(k_cannot_create, path, number));
}

Result<std::shared_ptr<LiveFile>> LiveFile::create_in_memory(UniqueFd fd, Name name,
                                                             const LiveIdentity& identity) {
  auto file = make(std::move(fd), std::move(name.text), identity);
  if (file) (*file)->remove_ = std::move(name.remove);
  return file;
}

Result<std::shared_ptr<LiveFile>> LiveFile::take(UniqueFd fd, std::string path,
                                                 const LiveIdentity& identity) {
  const auto refuse = [&](std::string why) {
    return std::unexpected(Error(k_cannot_use, path, std::move(why)));
  };
  struct ::stat info{};
  if (::fstat(fd.get(), &info) != 0) return std::unexpected(Error::from_errno(k_cannot_use, path, errno));
  const auto length = static_cast<std::uint64_t>(info.st_size);
  if (length < sizeof(LiveHeader) || length % native::k_live_page_bytes != 0) {
    return refuse(fmt::format("it is damaged: {} bytes long", length));
  }
  std::shared_ptr<LiveFile> file(new LiveFile(std::move(fd), path));
  auto header = Mapping::shared(file->fd_.get(), sizeof(LiveHeader));
  if (!header) return std::unexpected(Error::from_errno(k_cannot_use, path, header.error()));
  file->header_ = std::move(*header);
  if (auto why = misfit(file->header(), identity); !why.empty()) return refuse(std::move(why));
  // A hole, which only damage makes, would have to find memory when it is touched.
  if (const int failure = allocate(file->fd_.get(), 0, length); failure != 0) {
    return std::unexpected(Error::from_errno(k_cannot_use, path, failure));
  }
  file->arena_bytes_ = length - sizeof(LiveHeader);
  return file;
}

Result<std::shared_ptr<LiveFile>> LiveFile::open(const std::string& path, const LiveIdentity& identity) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ELOOP) return std::unexpected(Error(k_cannot_use, path, "it is a symbolic link"));
    return std::unexpected(Error::from_errno(k_cannot_use, path, errno));
  }
  if (auto why = distrust(fd.get()); !why.empty()) {
    return std::unexpected(Error(k_cannot_use, path, std::move(why)));
  }
  return take(std::move(fd), path, identity);
}

Result<std::shared_ptr<LiveFile>> LiveFile::open_in_memory(UniqueFd fd, Name name,
                                                           const LiveIdentity& identity) {
  auto file = take(std::move(fd), std::move(name.text), identity);
  if (file) (*file)->remove_ = std::move(name.remove);
  return file;
}

void LiveFile::begin_session(std::uint64_t epoch) noexcept { put(header().next_epoch, epoch); }

void LiveFile::session_begun(std::uint64_t epoch) noexcept { put(header().epoch, epoch); }

void LiveFile::mark_dead() noexcept {
  if (!canary(Canary::live_not_marked_dead)) put(header().dead, 1);
}

LiveFile::Standing LiveFile::standing(std::uint64_t epoch) const noexcept {
  if (get(header().dead) != 0) return Standing::dead;
  const std::uint64_t begun = get(header().epoch);
  if (begun == 0) return Standing::nothing;
  return epoch == begun || epoch == get(header().next_epoch) ? Standing::states : Standing::other;
}

IoStatus LiveFile::map_arena(std::uint64_t bytes) noexcept {
  auto arena = Mapping::shared_from(fd_.get(), sizeof(LiveHeader), bytes);
  if (!arena) return IoStatus::error(arena.error());
  arena_ = std::move(*arena);
  return {};
}

IoStatus LiveFile::grow_arena() noexcept {
  // In steps that follow what is there, so that little costs little and much few calls.
  const std::uint64_t eighth = arena_bytes_ / 8 / native::k_live_page_bytes * native::k_live_page_bytes;
  std::uint64_t growth = std::clamp(eighth, native::k_live_page_bytes, k_largest_growth_bytes);
  growth = std::min(growth, arena_.size() - std::min(arena_.size(), arena_bytes_));
  if (growth == 0) return IoStatus::error(ENOMEM);
  // Whatever the reason, a full tmpfs included: it is memory that is short.
  if (allocate(fd_.get(), sizeof(LiveHeader) + arena_bytes_, growth) != 0) return IoStatus::error(ENOMEM);
  arena_bytes_ += growth;
  return {};
}

void LiveFile::remove() noexcept {
  if (remove_) return remove_();
  struct ::stat mine{};
  struct ::stat named{};
  const bool same = ::fstat(fd_.get(), &mine) == 0 && ::lstat(path_.c_str(), &named) == 0 &&
                    mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
  // What can't be removed is found, and removed, by the next opening.
  if (same) (void)::unlink(path_.c_str());
}

}  // namespace oxbow
