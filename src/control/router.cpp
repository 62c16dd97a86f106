// SPDX-License-Identifier: Apache-2.0
#include "control/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace oxbow::control {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view k_name = "{name}";
constexpr std::size_t k_deepest_body = 16;

// Whether `path` fits the pattern, and what stands for "{name}" in it (empty when there is none).
std::optional<std::string_view> match(std::string_view pattern, std::string_view path) {
  const std::size_t at = pattern.find(k_name);
  if (at == std::string_view::npos) return pattern == path ? std::optional(std::string_view()) : std::nullopt;
  const std::string_view before = pattern.substr(0, at);
  const std::string_view after = pattern.substr(at + k_name.size());
  if (path.size() <= before.size() + after.size()) return std::nullopt;
  if (!path.starts_with(before) || !path.ends_with(after)) return std::nullopt;
  const std::string_view name = path.substr(at, path.size() - before.size() - after.size());
  return name.find('/') == std::string_view::npos ? std::optional(name) : std::nullopt;
}

Reply refuse(int status, std::string_view path, std::string why) {
  return error_reply(status, Error("cannot answer", std::string(path), std::move(why)));
}

const ServedDevice* find(const Served& served, std::string_view name) {
  for (const ServedDevice& device : served.devices.all()) {
    if (device.name == name) return &device;
  }
  return nullptr;
}

// Nested deeper than any request needs: parsing and printing recurse.
bool too_deep(std::string_view text) {
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') quoted = !quoted;
    if (quoted && text[i] == '\\') ++i;
    if (quoted) continue;
    if (text[i] == '[' || text[i] == '{') ++depth;
    if ((text[i] == ']' || text[i] == '}') && depth > 0) --depth;
    if (depth > k_deepest_body) return true;
  }
  return false;
}

// The body as an object, or why it isn't what the route takes.
std::expected<Json, std::string> parse_body(const Route& route, std::string_view body) {
  if (body.empty()) return Json::object();
  if (route.method == "GET") return std::unexpected("this request takes no body");
  if (too_deep(body)) return std::unexpected("the body is nested too deeply");
  Json json = Json::parse(body, nullptr, false);
  if (json.is_discarded()) return std::unexpected("the body is not JSON");
  if (!json.is_object()) return std::unexpected("the body is not a JSON object");
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(route.members, key) == route.members.end()) {
      return std::unexpected(fmt::format("the body has a member that nobody knows: {}", key));
    }
  }
  return json;
}

// Counts a request among those that wait, for its lifetime. Thread safety: any.
class Waiting {
 public:
  Waiting(std::atomic<unsigned>& count, unsigned most) noexcept
      : count_(count), fits_(count.fetch_add(1, std::memory_order_relaxed) < most) {}
  ~Waiting() { count_.fetch_sub(1, std::memory_order_relaxed); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  Waiting(Waiting&&) = delete;
  Waiting& operator=(Waiting&&) = delete;
  [[nodiscard]] bool fits() const noexcept { return fits_; }

 private:
  std::atomic<unsigned>& count_;
  bool fits_;
};

}  // namespace

Reply json_reply(const Json& json) {
  return {.status = 200, .body = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"};
}

Reply error_reply(int status, const Error& error) {
  Reply reply =
      json_reply({{"error", {{"what", error.what()}, {"where", error.where()}, {"why", error.why()}}}});
  reply.status = status;
  return reply;
}

Reply Router::answer(std::string_view method, std::string_view path, std::string_view body) {
  std::string allow;
  for (const Route& route : routes()) {
    const auto name = match(route.path, path);
    if (!name) continue;
    const bool fits = route.method == method || (route.method == "GET" && method == "HEAD");
    if (fits) return answer(route, path, *name, body);
    allow += (allow.empty() ? "" : ", ") + std::string(route.method);
  }
  if (allow.empty()) return refuse(404, path, "there is no such path; GET /v1 lists those that there are");
  Reply reply = refuse(405, path, fmt::format("{} is no method of this path; it has {}", method, allow));
  reply.allow = std::move(allow);
  return reply;
}

Reply Router::answer(const Route& route, std::string_view path, std::string_view name,
                     std::string_view body) {
  const ServedDevice* const device = find(served_, name);
  if (!name.empty() && device == nullptr) {
    return error_reply(
        404, Error("no such device", std::string(name), "GET /v1/devices lists those that there are"));
  }
  const auto json = parse_body(route, body);
  if (!json) return refuse(400, path, json.error());
  if (route.cost == Cost::quick) return route.answer({served_, device, *json});
  const Waiting waiting(waiting_, most_waiting_);
  if (!waiting.fits()) return refuse(503, path, "too many requests wait for devices; try again later");
  return route.answer({served_, device, *json});
}

}  // namespace oxbow::control
