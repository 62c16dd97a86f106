// SPDX-License-Identifier: Apache-2.0
#include "os/mapping.h"

#include <sys/mman.h>

#include <cerrno>

namespace oxbow {

Mapping::~Mapping() {
  if (bytes_.data() != nullptr) (void)::munmap(bytes_.data(), bytes_.size());
}

std::expected<Mapping, int> Mapping::anonymous(std::uint64_t bytes) noexcept {
  void* start =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return std::unexpected(errno);
  // Advice: where the kernel has no huge pages it fails, and nothing is lost.
  (void)::madvise(start, bytes, MADV_NOHUGEPAGE);
  return Mapping(start, bytes);
}

std::expected<Mapping, int> Mapping::shared(int fd, std::uint64_t bytes) noexcept {
  return shared_from(fd, 0, bytes);
}

std::expected<Mapping, int> Mapping::shared_from(int fd, std::uint64_t at, std::uint64_t bytes) noexcept {
  void* start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                       static_cast<::off_t>(at));
  if (start == MAP_FAILED) return std::unexpected(errno);
  return Mapping(start, bytes);
}

std::expected<Mapping, int> Mapping::shared_for_reading(int fd, std::uint64_t bytes) noexcept {
  return shared_for_reading_from(fd, 0, bytes);
}

std::expected<Mapping, int> Mapping::shared_for_reading_from(int fd, std::uint64_t at,
                                                             std::uint64_t bytes) noexcept {
  void* start = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, static_cast<off_t>(at));
  if (start == MAP_FAILED) return std::unexpected(errno);
  return Mapping(start, bytes);
}

int Mapping::grow(std::uint64_t bytes) noexcept {
  void* start = ::mremap(bytes_.data(), bytes_.size(), bytes, MREMAP_MAYMOVE);
  if (start == MAP_FAILED) return errno;
  bytes_ = {static_cast<std::byte*>(start), bytes};
  return 0;
}

}  // namespace oxbow
