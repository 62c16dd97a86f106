// SPDX-License-Identifier: Apache-2.0
#include "stores/file/range_lock.h"

#include "os/queue.h"

namespace oxbow {

Progress RangeLock::acquire(Claim& claim, Io& io) noexcept {
  const std::scoped_lock lock(mutex_);
  for (const Claim* each = first_; each != nullptr; each = each->later_) {
    if (each->conflicts(claim)) ++claim.in_the_way_;
  }
  claim.earlier_ = last_;
  (last_ != nullptr ? last_->later_ : first_) = &claim;
  last_ = &claim;
  if (claim.in_the_way_ == 0) return Progress::done();
  claim.waiting_ = &io;
  return Progress::pending();
}

void RangeLock::release(Claim& claim) noexcept {
  const std::scoped_lock lock(mutex_);
  (claim.earlier_ != nullptr ? claim.earlier_->later_ : first_) = claim.later_;
  (claim.later_ != nullptr ? claim.later_->earlier_ : last_) = claim.earlier_;
  for (Claim* each = claim.later_; each != nullptr; each = each->later_) {
    // Once told, a claim may be given up by its thread, but not before this one leaves the mutex.
    if (claim.conflicts(*each) && --each->in_the_way_ == 0) each->waiting_->queue->post(*each->waiting_, {});
  }
}

}  // namespace oxbow
