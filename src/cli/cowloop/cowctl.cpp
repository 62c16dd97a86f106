// SPDX-License-Identifier: Apache-2.0
#include <string_view>

#include "cli/cowloop/pairs.h"
#include "cli/cowloop/words.h"

namespace oxbow::cowloop_commands {
namespace {

constexpr int k_not_done = 2;

}  // namespace

int cowctl(const Call& call) {
  if (call.argc != 3) return wrong_usage(call);
  const std::string_view flag = call.argv[1];
  if (flag != "-c" && flag != "-r") return wrong_usage(call);
  const auto pair = find_pair(call.argv[2]);
  const auto done =
      pair ? ask(*pair, flag == "-c" ? "close" : "reopen-ro") : Result<void>(std::unexpected(pair.error()));
  if (done) return k_done;
  complain(call, done.error());
  return k_not_done;
}

}  // namespace oxbow::cowloop_commands
