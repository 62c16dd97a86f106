// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the API is made of, apart from HTTP: a request comes in as method, path and body, an answer goes out as
// status and text. A new operation is one entry in routes.cpp.

#include <atomic>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "control/served.h"
#include "oxbow/error.h"

namespace oxbow::control {

struct Reply {
  int status = 200;
  std::string body;
  std::string_view type = "application/json";
  std::string allow = {};  // with status 405: the methods that the path has
};

// A request on its way to its route.
struct Call {
  const Served& served;
  const ServedDevice* device;          // the one that the path names; null where it names none
  const nlohmann::ordered_json& body;  // an object, empty without a body
};

enum class Cost : std::uint8_t {
  quick,  // answers without waiting for a device
  waits,  // may take as long as a device takes
};

struct Route {
  std::string_view method;
  std::string_view path;  // "{name}" stands for a device's name
  Cost cost;
  std::span<const std::string_view> members;  // that the body may have; a GET takes no body
  Reply (*answer)(const Call& call);
};
// Every operation.
[[nodiscard]] std::span<const Route> routes() noexcept;

// {"error": {"what", "where", "why"}}
[[nodiscard]] Reply error_reply(int status, const Error& error);
[[nodiscard]] Reply json_reply(const nlohmann::ordered_json& json);

// Finds the route, checks the request and answers it. Thread safety: answer() from any thread; what is served is
// borrowed.
class Router {
 public:
  // At most `most_waiting` requests wait for devices at a time; more are told to come back.
  Router(const Served& served, unsigned most_waiting) noexcept
      : served_(served), most_waiting_(most_waiting) {}

  // `path` is decoded and without a query. Never throws but std::bad_alloc.
  [[nodiscard]] Reply answer(std::string_view method, std::string_view path, std::string_view body);

 private:
  [[nodiscard]] Reply answer(const Route& route, std::string_view path, std::string_view name,
                             std::string_view body);

  const Served& served_;
  const unsigned most_waiting_;
  std::atomic<unsigned> waiting_{0};
};

}  // namespace oxbow::control
