// SPDX-License-Identifier: Apache-2.0
#include "crash/live_place.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "targets/cow/layer_head.h"

namespace oxbow::crash {
namespace {

constexpr auto k_name = "the live file";

[[noreturn]] void give_up(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

UniqueFd memory() {
  UniqueFd fd(::memfd_create("live", MFD_CLOEXEC));
  if (!fd.valid()) give_up("memfd_create");
  return fd;
}

UniqueFd same(const UniqueFd& fd) {
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) give_up("F_DUPFD_CLOEXEC");
  return copy;
}

}  // namespace

std::shared_ptr<LivePlace> LivePlace::clone() const {
  auto copy = std::make_shared<LivePlace>();
  copy->boot_ = boot_;
  if (!file_.valid()) return copy;
  struct ::stat info{};
  if (::fstat(file_.get(), &info) != 0) give_up("fstat");
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.st_size));
  copy->file_ = memory();
  const auto length = static_cast<::ssize_t>(bytes.size());
  if (::pread(file_.get(), bytes.data(), bytes.size(), 0) != length) give_up("pread");
  if (::pwrite(copy->file_.get(), bytes.data(), bytes.size(), 0) != length) give_up("pwrite");
  return copy;
}

void LivePlace::lose_power() noexcept {
  file_.reset();
  ++boot_;
}

native::Uuid LivePlace::boot_id() const noexcept {
  native::Uuid id{};
  std::memcpy(id.data(), &boot_, sizeof(boot_));
  return id;
}

LiveIdentity LivePlace::identity(const native::Superblock& superblock) const noexcept {
  return {.uuid = superblock.uuid, .device = 1, .inode = 2, .boot_id = boot_id()};
}

LiveFile::Name LivePlace::name() {
  return {k_name, [place = weak_from_this()] {
            if (const auto still = place.lock()) still->file_.reset();
          }};
}

Result<std::shared_ptr<LiveFile>> LivePlace::open(const native::Superblock& superblock) {
  if (!file_.valid()) return std::unexpected(Error::from_errno("cannot use live state", k_name, ENOENT));
  return LiveFile::open_in_memory(same(file_), name(), identity(superblock));
}

Result<bool> LivePlace::choose(Queue& queue, Store& layer, bool keep, CowTarget::Options& options) {
  auto head = read_layer_head(queue, layer);
  if (!head) return std::unexpected(head.error());
  auto left = find_left(head->superblock);
  if (!left) return std::unexpected(left.error());
  options.boot_id = boot_id();
  options.adopt = left->adopt;
  options.live = left->adopt ? std::move(left->file) : nullptr;
  if (options.writable && !left->adopt && keep) options.live = create(head->superblock);
  return left->adopt;
}

Result<LeftLive> LivePlace::find_left(const native::Superblock& superblock) {
  return find_left_live(superblock, boot_id(), [&](const std::string&) { return open(superblock); });
}

std::shared_ptr<LiveFile> LivePlace::create(const native::Superblock& superblock) {
  file_ = memory();
  auto made = LiveFile::create_in_memory(same(file_), name(), identity(superblock));
  if (!made) throw std::runtime_error(made.error().text());
  return *made;
}

bool LivePlace::is_dead(const native::Superblock& superblock) {
  if (!file_.valid()) return false;
  auto found = open(superblock);
  return found && (*found)->standing(superblock.epoch) == LiveFile::Standing::dead;
}

}  // namespace oxbow::crash
