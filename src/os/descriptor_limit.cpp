// SPDX-License-Identifier: Apache-2.0
#include "os/descriptor_limit.h"

namespace oxbow {

DescriptorLimit::DescriptorLimit() noexcept {
  if (::getrlimit(RLIMIT_NOFILE, &usual_) != 0) usual_ = {};
  raise();
}

DescriptorLimit::~DescriptorLimit() { lower(); }

void DescriptorLimit::lower() const noexcept { set(usual_.rlim_cur); }

void DescriptorLimit::raise() const noexcept { set(usual_.rlim_max); }

void DescriptorLimit::set(rlim_t soft) const noexcept {
  if (usual_.rlim_max == 0) return;
  const ::rlimit wanted{soft, usual_.rlim_max};
  (void)::setrlimit(RLIMIT_NOFILE, &wanted);  // between the two that were found, it cannot fail
}

}  // namespace oxbow
