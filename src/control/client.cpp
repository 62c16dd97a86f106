// SPDX-License-Identifier: Apache-2.0
#include "control/client.h"

#include <fmt/format.h>
#include <httplib.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>

namespace oxbow::control {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds k_connect(5);
// The library wants a limit; nothing that is waited for takes that long.
constexpr std::chrono::hours k_patient(24 * 365);

// Keeps a server that closes early from ending this process. Thread safety: its thread.
class NoPipeSignal {
 public:
  NoPipeSignal() noexcept {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    if (::sigismember(&before_, SIGPIPE) != 0) return;
    const timespec now{};
    while (::sigtimedwait(&pipe_, nullptr, &now) >= 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;
  NoPipeSignal(NoPipeSignal&&) = delete;
  NoPipeSignal& operator=(NoPipeSignal&&) = delete;

 private:
  sigset_t pipe_{};
  sigset_t before_{};
};

std::string why_unanswered(httplib::Error error, std::chrono::seconds limit) {
  switch (error) {
    case httplib::Error::Connection:
    case httplib::Error::ConnectionTimeout:
      return "nobody answers at its control socket";
    case httplib::Error::Read:
      return fmt::format("it gave no answer, or not within {} s", limit.count());
    case httplib::Error::Write:
      return "it did not take the request";
    default:
      return "what it answered is not HTTP";
  }
}

// What a process told as an error, when it is one.
std::optional<Error> told_error(const Json& json) {
  if (!json.is_object() || !json.contains("error") || !json["error"].is_object()) return std::nullopt;
  const Json& error = json["error"];
  return Error(error.value("what", "cannot be done"), error.value("where", "-"), error.value("why", "-"));
}

}  // namespace

Error Client::no_answer(const std::string& why) const {
  return {"cannot ask process", std::to_string(process_.pid), why};
}

Result<Json> Client::ask(const std::string& method, const std::string& path, const std::string& body,
                         std::chrono::seconds limit) const {
  const NoPipeSignal no_pipe_signal;
  httplib::Client http(process_.socket);
  http.set_address_family(AF_UNIX);
  http.set_connection_timeout(k_connect);
  http.set_read_timeout(limit);
  const httplib::Headers headers{{"Host", "oxbow"}};
  const auto answer =
      method == "GET" ? http.Get(path, headers) : http.Post(path, headers, body, "application/json");
  if (!answer) {
    return std::unexpected(no_answer(why_unanswered(answer.error(), limit)));
  }
  Json json = Json::parse(answer->body, nullptr, false);
  try {
    if (auto error = told_error(json)) return std::unexpected(std::move(*error));
  } catch (const Json::exception&) {
    return std::unexpected(no_answer("its error is not one of ours"));
  }
  if (answer->status != 200 || json.is_discarded()) {
    return std::unexpected(no_answer(fmt::format("status {} without JSON", answer->status)));
  }
  return json;
}

Result<Json> Client::get(const std::string& path) const { return ask("GET", path, {}, k_quick); }
Result<Json> Client::post(const std::string& path) const { return ask("POST", path, {}, k_patient); }
Result<Json> Client::post(const std::string& path, const Json& body) const {
  return ask("POST", path, body.dump(), k_patient);
}

Result<Record> find_served(const std::string& directory, const std::string& name) {
  auto records = list_records(directory);
  if (!records) return std::unexpected(records.error());
  for (Record& record : *records) {
    if (std::ranges::find(record.names, name) != record.names.end()) return std::move(record);
  }
  return std::unexpected(
      Error("no such device", name,
            fmt::format("nobody serves it in {}; oxbow list shows what is there", directory)));
}

}  // namespace oxbow::control
