// SPDX-License-Identifier: Apache-2.0
#include "control/http.h"

#include <fmt/format.h>
#include <httplib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

namespace oxbow::control {
namespace {

constexpr std::string_view k_end_of_line = "\r\n";
constexpr std::string_view k_end_of_head = "\r\n\r\n";

Framing refuse(int status, std::string_view why) {
  return {.state = Framing::State::refused, .status = status, .why = why};
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Other than the ends of lines, and tabs: what one parser takes for the end of a line, another may not.
bool has_control_bytes(std::string_view head) {
  while (!head.empty()) {
    const std::string_view line = head.substr(0, head.find(k_end_of_line));
    head.remove_prefix(std::min(head.size(), line.size() + k_end_of_line.size()));
    const bool last = head.empty();
    for (std::size_t i = 0; i < line.size(); ++i) {
      // The end of a line may not have come whole yet.
      const bool half_end = last && i + 1 == line.size() && line[i] == '\r';
      const auto byte = static_cast<unsigned char>(line[i]);
      if ((byte < 0x20 && byte != '\t' && !half_end) || byte == 0x7F) return true;
    }
  }
  return false;
}

// Calls visit(name, value) for each header field; returns false for a line that is none.
template <typename Visit>
bool for_fields(std::string_view head, Visit&& visit) {
  const std::size_t first = head.find(k_end_of_line);
  if (first == std::string_view::npos) return true;
  head.remove_prefix(first + k_end_of_line.size());
  while (!head.empty()) {
    const std::string_view line = head.substr(0, head.find(k_end_of_line));
    head.remove_prefix(std::min(head.size(), line.size() + k_end_of_line.size()));
    const std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos) return false;
    visit(line.substr(0, colon), trimmed(line.substr(colon + 1)));
  }
  return true;
}

// What the header fields say of the body.
struct BodyFields {
  std::optional<std::size_t> length;
  bool bad_length = false;
  bool coded = false;  // in chunks or compressed
  bool json = true;    // or it doesn't say
};

bool read_fields(std::string_view head, BodyFields& fields) {
  return for_fields(head, [&](std::string_view name, std::string_view value) {
    if (equal_ignoring_case(name, "Content-Length")) {
      std::size_t length = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
      const bool fits = error == std::errc() && end == value.data() + value.size();
      fields.bad_length |= !fits || fields.length.has_value();
      fields.length = length;
    }
    fields.coded |= equal_ignoring_case(name, "Transfer-Encoding");
    fields.coded |= equal_ignoring_case(name, "Content-Encoding");
    if (equal_ignoring_case(name, "Content-Type")) {
      fields.json &= equal_ignoring_case(trimmed(value.substr(0, value.find(';'))), "application/json");
    }
  });
}

std::string_view reason(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Payload Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

// The head without the fields that ask for an answer in part, compressed or announced: answers come whole and as they
// are, those of the library too.
std::string plain_head(std::string_view head) {
  std::string out(head.substr(0, head.find(k_end_of_line)));
  (void)for_fields(head, [&](std::string_view name, std::string_view value) {
    for (const std::string_view dropped : {"Range", "Accept-Encoding", "Expect"}) {
      if (equal_ignoring_case(name, dropped)) return;
    }
    out.append(k_end_of_line).append(name).append(": ").append(value);
  });
  return out.append(k_end_of_head);
}

// A request in memory, and room for its response. Thread safety: none.
class MemoryStream final : public httplib::Stream {
 public:
  explicit MemoryStream(std::string_view request) : rest_(request) {}
  [[nodiscard]] std::string take_response() { return std::move(response_); }

  bool is_readable() const override { return !rest_.empty(); }
  bool is_writable() const override { return true; }
  ssize_t read(char* out, size_t size) override {
    const std::size_t count = std::min(size, rest_.size());
    std::memcpy(out, rest_.data(), count);
    rest_.remove_prefix(count);
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* data, size_t size) override {
    response_.append(data, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  // None; a number that the library takes for one that it can wait on.
  socket_t socket() const override { return 0; }

 private:
  std::string_view rest_;
  std::string response_;
};

}  // namespace

Framing Framing::of(std::string_view received) {
  const std::size_t end = received.find(k_end_of_head);
  const std::size_t head = std::min(end, received.size());
  if (head + k_end_of_head.size() > k_largest_head) {
    return received.find(k_end_of_line) > k_largest_head / 2 ? refuse(414, "the request line is too long")
                                                             : refuse(431, "the header is too long");
  }
  if (has_control_bytes(received.substr(0, head))) return refuse(400, "the header has a control character");
  if (end == std::string_view::npos) return {};

  BodyFields fields;
  if (!read_fields(received.substr(0, end), fields))
    return refuse(400, "a line of the header has no name and colon");
  if (fields.bad_length) return refuse(400, "the length of the body is no number, or told twice");
  if (fields.coded) return refuse(411, "a body comes as it is, with its length in Content-Length");
  const std::size_t body = fields.length.value_or(0);
  if (body > k_largest_body) return refuse(413, "the body is longer than 1048576 bytes");
  if (body > 0 && !fields.json) return refuse(415, "a body is application/json");
  const std::size_t length = end + k_end_of_head.size() + body;
  if (received.size() < length) return {};
  return {.state = State::complete, .length = length};
}

// The parser and printer of messages. Thread safety: answer() from any thread.
class Http::Service final : private httplib::Server {
 public:
  explicit Service(Router& router) {
    // Every request is answered here; the library's own search for handlers and files doesn't begin.
    set_pre_routing_handler([&router](const httplib::Request& request, httplib::Response& response) {
      fill(response, router.answer(request.method, request.path, request.body));
      return HandlerResponse::Handled;
    });
    set_error_handler([](const httplib::Request& request, httplib::Response& response) {
      if (response.body.empty()) fill(response, not_http(request, response.status));
    });
  }

  std::string answer(std::string_view request) {
    const std::size_t end = request.find(k_end_of_head);
    const std::string head = plain_head(request.substr(0, end));
    MemoryStream stream(head);
    bool closed = false;
    process_request(stream, true, closed, [&](httplib::Request& parsed) {
      parsed.body = request.substr(end + k_end_of_head.size());
    });
    return stream.take_response();
  }

 private:
  static void fill(httplib::Response& response, const Reply& reply) {
    response.status = reply.status;
    if (!reply.allow.empty()) response.set_header("Allow", reply.allow);
    response.set_content(reply.body, std::string(reply.type));
  }
  static Reply not_http(const httplib::Request& request, int status) {
    const std::string why =
        status == 400 ? "it is not METHOD PATH HTTP/1.1 and header fields, with one of HTTP's methods"
                      : fmt::format("it is refused with status {}", status);
    return error_reply(status, Error("cannot answer", request.path.empty() ? "request" : request.path, why));
  }
};

Http::Http(Router& router) : service_(std::make_unique<Service>(router)) {}
Http::~Http() = default;

std::string Http::answer(std::string_view request) {
  try {
    std::string response = service_->answer(request);
    if (!response.empty()) return response;
  } catch (const std::exception& error) {
    return refusal(500, error.what());
  }
  return refusal(400, "it is not HTTP/1.1");
}

std::string Http::refusal(int status, std::string_view why) {
  const Reply reply = error_reply(status, Error("cannot answer", "request", std::string(why)));
  return fmt::format(
      "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: {}\r\nContent-Type: {}\r\n\r\n{}", status,
      reason(status), reply.body.size(), reply.type, reply.body);
}

}  // namespace oxbow::control
