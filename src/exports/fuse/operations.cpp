// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/operations.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "exports/fuse/worker.h"

namespace oxbow::fuse {
namespace {

// What the kernel may remember of the attributes, in seconds: a device can grow.
constexpr double k_attributes_last = 0;

Worker& worker_of(fuse_req_t kernel) noexcept { return *static_cast<Worker*>(::fuse_req_userdata(kernel)); }

std::uint64_t unsigned_of(off_t offset) noexcept { return static_cast<std::uint64_t>(offset); }

void init(void* user_data, fuse_conn_info* connection) noexcept {
  static_cast<Worker*>(user_data)->agree(*connection);
}

void lookup(fuse_req_t kernel, fuse_ino_t /*parent*/, const char* /*name*/) noexcept {
  (void)::fuse_reply_err(kernel, ENOTDIR);
}

void reply_attributes(fuse_req_t kernel) noexcept {
  const struct ::stat attributes = worker_of(kernel).attributes();
  (void)::fuse_reply_attr(kernel, &attributes, k_attributes_last);
}

void getattr(fuse_req_t kernel, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) noexcept {
  reply_attributes(kernel);
}

// Nothing can be changed; what says the same as before is no change.
void setattr(fuse_req_t kernel, fuse_ino_t /*inode*/, struct ::stat* wanted, int which,
             fuse_file_info* /*file*/) noexcept {
  const bool resizes =
      (which & FUSE_SET_ATTR_SIZE) != 0 && unsigned_of(wanted->st_size) != worker_of(kernel).size();
  const bool others = (which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0;
  if (resizes) {
    (void)::fuse_reply_err(kernel, EINVAL);  // as a block device has it
  } else if (others || (which & FUSE_SET_ATTR_SIZE) == 0) {
    (void)::fuse_reply_err(kernel, EPERM);
  } else {
    reply_attributes(kernel);
  }
}

void open(fuse_req_t kernel, fuse_ino_t /*inode*/, fuse_file_info* file) noexcept {
  worker_of(kernel).open(kernel, *file);
}

void read(fuse_req_t kernel, fuse_ino_t /*inode*/, std::size_t bytes, off_t at,
          fuse_file_info* /*file*/) noexcept {
  worker_of(kernel).read(kernel, unsigned_of(at), bytes);
}

void write(fuse_req_t kernel, fuse_ino_t /*inode*/, const char* data, std::size_t bytes, off_t at,
           fuse_file_info* file) noexcept {
  const Durability durability =
      (file->flags & O_DSYNC) != 0 ? Durability::when_completed : Durability::with_flush;
  worker_of(kernel).write(kernel, unsigned_of(at), {reinterpret_cast<const std::byte*>(data), bytes},
                          durability);
}

// close(2) of a descriptor that may have been written through.
void flush(fuse_req_t kernel, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) noexcept {
  worker_of(kernel).flush(kernel);
}

void fsync(fuse_req_t kernel, fuse_ino_t /*inode*/, int /*data_only*/, fuse_file_info* /*file*/) noexcept {
  worker_of(kernel).flush(kernel);
}

void release(fuse_req_t kernel, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) noexcept {
  worker_of(kernel).released();
  (void)::fuse_reply_err(kernel, 0);
}

void fallocate(fuse_req_t kernel, fuse_ino_t /*inode*/, int mode, off_t offset, off_t length,
               fuse_file_info* /*file*/) noexcept {
  worker_of(kernel).allocate(kernel, mode, {unsigned_of(offset), unsigned_of(length)});
}

void lseek(fuse_req_t kernel, fuse_ino_t /*inode*/, off_t at, int whence, fuse_file_info* /*file*/) noexcept {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    (void)::fuse_reply_err(kernel, EINVAL);
    return;
  }
  worker_of(kernel).seek(kernel, unsigned_of(at), whence == SEEK_DATA ? SeekFor::data : SeekFor::hole);
}

void statfs(fuse_req_t kernel, fuse_ino_t /*inode*/) noexcept {
  constexpr unsigned k_block_bytes = 512;
  struct ::statvfs filled{};
  filled.f_bsize = k_block_bytes;
  filled.f_frsize = k_block_bytes;
  filled.f_blocks = worker_of(kernel).size() / k_block_bytes;
  filled.f_namemax = 255;
  (void)::fuse_reply_statfs(kernel, &filled);
}

fuse_lowlevel_ops make_operations() noexcept {
  fuse_lowlevel_ops all{};
  all.init = init;
  all.lookup = lookup;
  all.getattr = getattr;
  all.setattr = setattr;
  all.open = open;
  all.read = read;
  all.write = write;
  all.flush = flush;
  all.release = release;
  all.fsync = fsync;
  all.statfs = statfs;
  all.fallocate = fallocate;
  all.lseek = lseek;
  return all;
}

}  // namespace

const fuse_lowlevel_ops& operations() noexcept {
  static const fuse_lowlevel_ops all = make_operations();
  return all;
}

}  // namespace oxbow::fuse
