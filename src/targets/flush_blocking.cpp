// SPDX-License-Identifier: Apache-2.0
#include "targets/flush_blocking.h"

#include "stores/blocking.h"

namespace oxbow {

IoStatus flush_blocking(Queue& queue, const FlushPlan& plan) {
  if (!plan.status.ok()) return plan.status;
  for (const FlushPlan::Round& round : plan.rounds) {
    for (const FlushWrite& write : round.writes) {
      const IoStatus written = write_blocking(queue, *write.store, write.at, write.data);
      if (!written.ok()) return written;
    }
    for (Store* store : round.syncs) {
      const IoStatus synced = sync_blocking(queue, *store);
      if (!synced.ok()) return synced;
    }
  }
  return {};
}

}  // namespace oxbow
