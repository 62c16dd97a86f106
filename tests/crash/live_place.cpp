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
#include "targets/cowloop/cowloop_live.h"
#include "targets/cowloop/pair_checks.h"

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
  copy->sessions_ = sessions_;
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

LiveIdentity LivePlace::identity(const native::Uuid& uuid) const noexcept {
  return {.uuid = uuid, .device = 1, .inode = 2, .boot_id = boot_id()};
}

LiveFile::Name LivePlace::name() {
  return {k_name, [place = weak_from_this()] {
            if (const auto still = place.lock()) still->file_.reset();
          }};
}

Result<std::shared_ptr<LiveFile>> LivePlace::open(const native::Uuid& uuid) {
  if (!file_.valid()) return std::unexpected(Error::from_errno("cannot use live state", k_name, ENOENT));
  return LiveFile::open_in_memory(same(file_), name(), identity(uuid));
}

Result<bool> LivePlace::choose(Queue& queue, Store& layer, bool keep, CowTarget::Options& options) {
  auto head = read_layer_head(queue, layer);
  if (!head) return std::unexpected(head.error());
  auto left = find_left(head->superblock);
  if (!left) return std::unexpected(left.error());
  options.boot_id = boot_id();
  options.adopt = left->adopt;
  options.live = left->adopt ? std::move(left->file) : nullptr;
  if (options.writable && !left->adopt && keep) options.live = create(head->superblock.uuid);
  return left->adopt;
}

Result<LeftLive> LivePlace::find_left(const native::Superblock& superblock) {
  return find_left_live(superblock, boot_id(), [&](const std::string&) { return open(superblock.uuid); });
}

std::shared_ptr<LiveFile> LivePlace::create(const native::Uuid& uuid) {
  file_ = memory();
  auto made = LiveFile::create_in_memory(same(file_), name(), identity(uuid));
  if (!made) throw std::runtime_error(made.error().text());
  return *made;
}

Result<void> LivePlace::choose(Queue& queue, Store& cowfile, bool keep, CowloopTarget::Options& options) {
  const auto head = cowloop::read_head(queue, "cannot open cowfile", cowfile);
  if (!head) return std::unexpected(head.error());
  options.boot_id = boot_id();
  const bool named = cowloop::names_live(*head, options.boot_id);
  LeftLive left;
  if (named) {
    auto judged = cowloop::judge_left_live(*head, open(head->session_id));
    if (!judged) return std::unexpected(judged.error());
    left = std::move(*judged);
  }
  options.adopt = left.adopt;
  options.live = left.adopt ? std::move(left.file) : nullptr;
  if (!options.writable || (!left.adopt && !keep)) return {};
  options.session_id = head->session_id;
  if (!named) {
    ++sessions_;
    std::memcpy(options.session_id.data(), &sessions_, sizeof(sessions_));
  }
  if (!left.adopt) options.live = create(options.session_id);
  return {};
}

bool LivePlace::is_dead() const {
  native::LiveHeader header{};
  const auto length = static_cast<::ssize_t>(sizeof(header));
  return file_.valid() && ::pread(file_.get(), &header, sizeof(header), 0) == length && header.dead != 0;
}

bool LivePlace::is_dead(const native::Superblock& superblock) {
  if (!file_.valid()) return false;
  auto found = open(superblock.uuid);
  return found && (*found)->standing(superblock.epoch) == LiveFile::Standing::dead;
}

}  // namespace oxbow::crash
