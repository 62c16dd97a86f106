// SPDX-License-Identifier: Apache-2.0
#include "control/http.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "control/test_served.h"

namespace oxbow::control {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class HttpTest : public testing::Test {
 protected:
  std::string ask(const std::string& request) {
    const Framing framing = Framing::of(request);
    if (framing.state == Framing::State::refused) return Http::refusal(framing.status, framing.why);
    EXPECT_EQ(framing.state, Framing::State::complete) << request;
    EXPECT_EQ(framing.length, request.size());
    return http_.answer(request);
  }
  std::string get(const std::string& path, const std::string& fields = "") {
    return ask(fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n", path, fields));
  }
  std::string post(const std::string& path, const std::string& body,
                   const std::string& type = "application/json") {
    return ask(fmt::format("POST {} HTTP/1.1\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", path, type,
                           body.size(), body));
  }
  static int status_of(const std::string& response) {
    EXPECT_THAT(response, StartsWith("HTTP/1.1 "));
    return std::stoi(response.substr(9, 3));
  }
  static nlohmann::json body_of(const std::string& response) {
    const std::size_t end = response.find("\r\n\r\n");
    EXPECT_NE(end, std::string::npos) << response;
    return nlohmann::json::parse(response.substr(end + 4));
  }
  // "STATUS what: where: why"
  static std::string error_of(const std::string& response) {
    const auto error = body_of(response).at("error");
    EXPECT_EQ(error.size(), 3U);
    return fmt::format("{} {}: {}: {}", status_of(response), error.at("what").get<std::string>(),
                       error.at("where").get<std::string>(), error.at("why").get<std::string>());
  }

  ServedRam ram_{"disk"};
  Router router_{ram_.served, 1};
  Http http_{router_};
};

TEST_F(HttpTest, AnAnswerIsWholeAndTheLast) {
  const std::string response = get("/v1/devices");
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(response, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(response, HasSubstr("Content-Type: application/json\r\n"));
  const auto body = body_of(response);
  ASSERT_EQ(body.at("devices").size(), 1U);
  EXPECT_EQ(body["devices"][0]["name"], "disk");
  EXPECT_EQ(body["devices"][0]["size"], 1 << 20);
  EXPECT_EQ(body["devices"][0]["state"], "writable");
}

TEST_F(HttpTest, EveryPathIsListed) {
  const auto body = body_of(get("/v1"));
  EXPECT_EQ(body["api"], "v1");
  EXPECT_EQ(body["paths"].size(), routes().size());
}

TEST_F(HttpTest, StatusTableSyncAndMetrics) {
  EXPECT_EQ(body_of(get("/v1/devices/disk"))["statistics"]["flushes"], 0);
  EXPECT_EQ(body_of(get("/v1/devices/d%69sk"))["name"], "disk");
  const auto table = body_of(get("/v1/devices/disk/table"));
  EXPECT_EQ(table["table"], nlohmann::json::array({"0 2048 ram"}));
  EXPECT_EQ(table["info"], nlohmann::json::array({"0 2048 ram"}));
  EXPECT_EQ(body_of(post("/v1/devices/disk/sync", ""))["durable"], true);
  EXPECT_EQ(body_of(post("/v1/devices/disk/sync", " {} "))["durable"], true);
  EXPECT_EQ(body_of(get("/v1/devices/disk"))["statistics"]["flushes"], 2);
  EXPECT_THAT(get("/metrics"), HasSubstr("\noxbow_device_flushes_total{device=\"disk\"} 2\n"));
}

TEST_F(HttpTest, HeadHasNoBody) {
  const std::string response = ask("HEAD /v1/devices HTTP/1.1\r\n\r\n");
  EXPECT_EQ(status_of(response), 200);
  EXPECT_TRUE(response.ends_with("\r\n\r\n"));
}

TEST_F(HttpTest, WrongPathsAndMethods) {
  const std::string no_path = ": there is no such path; GET /v1 lists those that there are";
  for (const char* path : {"/", "/v2", "/v1/", "/v1/devices/", "/v1/devices/disk/", "/v1/devices/a/b",
                           "/v1/devices//table", "/V1", "/../etc/passwd", "/v1/devices/disk/table/x"}) {
    EXPECT_EQ(error_of(get(path)), fmt::format("404 cannot answer: {}{}", path, no_path));
  }
  EXPECT_EQ(error_of(get("/v1/devices/other")),
            "404 no such device: other: GET /v1/devices lists those that there are");
  EXPECT_EQ(error_of(get("/v1/devices/%00")).substr(0, 20), "404 no such device: ");
  const std::string wrong = get("/v1/devices/disk/sync");
  EXPECT_EQ(error_of(wrong),
            "405 cannot answer: /v1/devices/disk/sync: GET is no method of this path; it has POST");
  EXPECT_THAT(wrong, HasSubstr("Allow: POST\r\n"));
  EXPECT_EQ(error_of(post("/v1/devices", "")),
            "405 cannot answer: /v1/devices: POST is no method of this path; it has GET");
  EXPECT_EQ(error_of(ask("DELETE /v1/devices/disk HTTP/1.1\r\n\r\n")),
            "405 cannot answer: /v1/devices/disk: DELETE is no method of this path; it has GET");
}

TEST_F(HttpTest, WrongBodies) {
  const std::string sync = "/v1/devices/disk/sync";
  const std::string where = "400 cannot answer: " + sync + ": ";
  EXPECT_EQ(error_of(post(sync, "{")), where + "the body is not JSON");
  EXPECT_EQ(error_of(post(sync, "[]")), where + "the body is not a JSON object");
  EXPECT_EQ(error_of(post(sync, "\xff\xfe")), where + "the body is not JSON");
  EXPECT_EQ(error_of(post(sync, R"({"now": 1})")), where + "the body has a member that nobody knows: now");
  EXPECT_EQ(error_of(post(sync, std::string(60'000, '['))), where + "the body is nested too deeply");
  EXPECT_EQ(error_of(post(sync, "x=1", "application/x-www-form-urlencoded")),
            "415 cannot answer: request: a body is application/json");
  EXPECT_EQ(error_of(ask("GET /v1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")),
            "400 cannot answer: /v1: this request takes no body");
  EXPECT_EQ(body_of(get("/v1/devices/disk"))["statistics"]["flushes"], 0);
}

TEST_F(HttpTest, WhatIsNotHttp) {
  const std::string why =
      "400 cannot answer: request: it is not METHOD PATH HTTP/1.1 and header fields, with one of HTTP's "
      "methods";
  for (const char* line :
       {"FROB /v1 HTTP/1.1", "GET /v1", "GET", "GET /v1 HTTP/2", "", " ", "\x80\xff", "GET /v1 HTTP/1.1 x"}) {
    EXPECT_EQ(error_of(ask(std::string(line) + "\r\n\r\n")), why) << line;
  }
}

TEST_F(HttpTest, RangesAndCodingsAreNotForAnswers) {
  const std::string whole = get("/v1/devices");
  EXPECT_EQ(get("/v1/devices", "Range: bytes=0-1,3-5\r\n"), whole);
  EXPECT_EQ(get("/v1/devices", "RANGE: what\r\n"), whole);
  EXPECT_EQ(get("/v1/devices", "Accept-Encoding: gzip, br\r\n"), whole);
  EXPECT_EQ(get("/%", "Accept-Encoding: gzip\r\n"), get("/%"));
  EXPECT_EQ(get("/v1/devices", "Expect: 100-continue\r\n"), whole);
}

TEST(Framing, TellsHowMuchIsARequest) {
  const std::string request = "POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde";
  for (std::size_t i = 0; i < request.size(); ++i) {
    EXPECT_EQ(Framing::of(request.substr(0, i)).state, Framing::State::more) << i;
  }
  EXPECT_EQ(Framing::of(request).state, Framing::State::complete);
  EXPECT_EQ(Framing::of(request + "GET").length, request.size());
}

TEST(Framing, RefusesWhatIsTooMuchOrUnclear) {
  const auto refused = [](const std::string& request) {
    const Framing framing = Framing::of(request);
    EXPECT_EQ(framing.state, Framing::State::refused);
    return fmt::format("{} {}", framing.status, framing.why);
  };
  const auto with = [](const std::string& fields) { return "POST / HTTP/1.1\r\n" + fields + "\r\n\r\n"; };
  EXPECT_EQ(refused(std::string(k_largest_head, 'a')), "414 the request line is too long");
  EXPECT_EQ(refused("GET / HTTP/1.1\r\n" + std::string(k_largest_head, 'a')), "431 the header is too long");
  std::string many = "GET / HTTP/1.1\r\n";
  while (many.size() < k_largest_head) many += "A: b\r\n";
  EXPECT_EQ(refused(many), "431 the header is too long");
  EXPECT_EQ(refused(std::string("GET /\0 HTTP/1.1", 15)), "400 the header has a control character");
  EXPECT_EQ(refused(with("A: b\nContent-Length: 5")), "400 the header has a control character");
  EXPECT_EQ(refused(with("A: b\rContent-Length: 5")), "400 the header has a control character");
  EXPECT_EQ(refused(with("A\x7F: b")), "400 the header has a control character");
  EXPECT_EQ(refused(with("no colon")), "400 a line of the header has no name and colon");
  EXPECT_EQ(refused(with(": x")), "400 a line of the header has no name and colon");
  EXPECT_EQ(refused(with("Content-Length: 1048577")), "413 the body is longer than 1048576 bytes");
  for (const char* length :
       {"-1", "1x", "", "99999999999999999999999", "0x10", "1\r\nContent-Length: 1", "+1"}) {
    EXPECT_EQ(refused(with(std::string("content-LENGTH: ") + length)),
              "400 the length of the body is no number, or told twice");
  }
  EXPECT_EQ(refused(with("Transfer-Encoding: chunked")),
            "411 a body comes as it is, with its length in Content-Length");
  EXPECT_EQ(refused(with("Content-Encoding: gzip\r\nContent-Length: 3")),
            "411 a body comes as it is, with its length in Content-Length");
}

// Whatever comes, the answer is HTTP with JSON or text in it.
TEST_F(HttpTest, GarbageIsAnswered) {
  std::mt19937 random(20261120);
  const std::string seed =
      "POST /v1/devices/disk/sync?a=b HTTP/1.1\r\nRange: bytes=0-9\r\nContent-Length: 2\r\n\r\n{}";
  for (int round = 0; round < 2000; ++round) {
    std::string request = seed;
    for (auto change = random() % 6; change-- > 0;) {
      request[random() % request.size()] = static_cast<char>(random());
    }
    const Framing framing = Framing::of(request);
    if (framing.state != Framing::State::complete) continue;
    const std::string response = http_.answer(std::string_view(request).substr(0, framing.length));
    const int status = status_of(response);
    EXPECT_TRUE(status == 200 || (status >= 400 && status <= 503)) << response;
    if (status != 200) {
      EXPECT_EQ(body_of(response).at("error").size(), 3U);
    }
  }
}

}  // namespace
}  // namespace oxbow::control
