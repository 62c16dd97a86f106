// SPDX-License-Identifier: Apache-2.0
#include "os/reserved_memory.h"

#include <sys/mman.h>

#include <new>

namespace oxbow {

ReservedMemory::ReservedMemory(std::size_t bytes) : bytes_(bytes) {
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = memory;
  // Advice: where the kernel has no huge pages it fails, and nothing is lost.
  (void)::madvise(data_, bytes_, MADV_NOHUGEPAGE);
}

ReservedMemory::~ReservedMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace oxbow
