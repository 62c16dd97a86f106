// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/resource.h>

namespace oxbow {

// While it lives, this process may have as many descriptors open as the hard limit allows: the usual soft one is
// reached with about a thousand clients. It is that low for programs that use select(), so commands that this process
// starts get it back.
// Thread safety: one thread.
class DescriptorLimit {
 public:
  DescriptorLimit() noexcept;  // when the limits cannot be read or set, they stay
  ~DescriptorLimit();
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  DescriptorLimit(DescriptorLimit&&) = delete;
  DescriptorLimit& operator=(DescriptorLimit&&) = delete;

  // The usual limit, which children that are started now inherit; descriptors that are open stay.
  void lower() const noexcept;
  void raise() const noexcept;

 private:
  void set(rlim_t soft) const noexcept;

  ::rlimit usual_{};
};

}  // namespace oxbow
