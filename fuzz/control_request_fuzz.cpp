// SPDX-License-Identifier: Apache-2.0
// Requests to the control socket, without the socket: whatever a client sends is more to come, refused, or answered
// with HTTP, and a request that is not understood changes nothing. The input is what the client sends.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "control/http.h"
#include "device/statistics.h"
#include "jobs/open_device.h"
#include "os/queue.h"

namespace oxbow::control {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

// A RAM disk that is served by nobody else. Thread safety: one thread.
class Fixture {
 public:
  Fixture() {
    auto opened = open_device(queue_, RamSpec{1 << 20}, {.name = "disk"});
    require(opened.has_value());
    opened_ = std::move(*opened);
    served_.devices.push_back({.name = "disk", .source = "--ram 1M", .device = opened_.device.get()});
    router_ = std::make_unique<Router>(served_, 1);
    http_ = std::make_unique<Http>(*router_);
  }
  [[nodiscard]] std::string answer(std::string_view request) { return http_->answer(request); }
  [[nodiscard]] std::uint64_t flushes() const { return opened_.device->statistics()[Counter::flushes]; }

 private:
  Queue queue_;
  OpenedDevice opened_;
  Served served_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Http> http_;
};

void check_response(std::string_view response, bool refused) {
  require(response.starts_with("HTTP/1.1 "));
  const int status = std::atoi(std::string(response.substr(9, 3)).c_str());
  require(status == 200 || (status >= 400 && status <= 503));
  require(!refused || status != 200);
  const std::size_t end = response.find("\r\n\r\n");
  require(end != std::string_view::npos);
  const std::string_view body = response.substr(end + 4);
  if (status == 200 || body.empty()) return;  // HEAD has no body
  const auto json = nlohmann::json::parse(body, nullptr, false);
  require(json.is_object() && json.contains("error") && json["error"].size() == 3);
}

void run(std::string_view input) {
  static Fixture fixture;
  const Framing framing = Framing::of(input);
  if (framing.state == Framing::State::more) {
    require(input.size() < k_largest_head + k_largest_body);
    return;
  }
  if (framing.state == Framing::State::refused) {
    return check_response(Http::refusal(framing.status, framing.why), true);
  }
  require(framing.length <= input.size() && framing.length <= k_largest_head + k_largest_body);
  const std::string_view request = input.substr(0, framing.length);
  const std::uint64_t before = fixture.flushes();
  const std::string response = fixture.answer(request);
  check_response(response, false);
  require(fixture.flushes() == before ||
          (request.starts_with("POST ") && response.starts_with("HTTP/1.1 200 ")));
}

}  // namespace
}  // namespace oxbow::control

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  oxbow::control::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
