// SPDX-License-Identifier: Apache-2.0
#include "cli/cowloop/pairs.h"
#include "cli/cowloop/words.h"

namespace oxbow::cowloop_commands {
namespace {

// Syncs every pair, whatever happens to others.
int sync_all(const Call& call) {
  const auto pairs = served_pairs();
  if (!pairs) {
    complain(call, pairs.error());
    return k_failed;
  }
  for (const Error& error : pairs->unknown) complain(call, error);
  int status = pairs->unknown.empty() ? k_done : k_failed;
  for (const Pair& pair : pairs->found) {
    if (const auto synced = ask(pair, "sync"); !synced) {
      complain(call, synced.error());
      status = k_failed;
    }
  }
  return status;
}

Result<void> sync_one(const std::string& word) {
  const auto pair = find_pair(word);
  if (!pair) return std::unexpected(pair.error());
  return ask(*pair, "sync");
}

}  // namespace

int cowsync(const Call& call) {
  if (call.argc < 2) return sync_all(call);
  int status = k_done;
  for (int i = 1; i < call.argc; ++i) {
    if (const auto synced = sync_one(call.argv[i]); !synced) {
      complain(call, synced.error());
      status = k_failed;
    }
  }
  return status;
}

}  // namespace oxbow::cowloop_commands
