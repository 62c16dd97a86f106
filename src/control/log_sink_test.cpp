// SPDX-License-Identifier: Apache-2.0
#include "control/log_sink.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace oxbow::control {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

class LogSinkTest : public testing::Test {
 protected:
  LogSink::Options options(LogFormat format = LogFormat::human) {
    LogSink::Options made;
    made.format = format;
    made.burst = 3;
    made.per_second = 2;
    made.output = [this](std::string_view line) { lines_.emplace_back(line); };
    made.now = [this] { return now_; };
    return made;
  }
  std::vector<std::string> take() { return std::exchange(lines_, {}); }

  // 2026-11-20T13:05:34.120Z
  LogSink::Clock::time_point now_{milliseconds(1'795'179'934'120)};
  std::vector<std::string> lines_;
};

TEST_F(LogSinkTest, ForPeople) {
  LogSink log(options());
  log.write(LogLevel::info, "nbd.client", "a client came");
  log.write(LogLevel::error, "serve", "a name with\na line feed and \x1b[31m");
  EXPECT_THAT(take(),
              ElementsAre("2026-11-20T13:05:34.120Z info nbd.client: a client came",
                          "2026-11-20T13:05:34.120Z error serve: a name with\\x0aa line feed and \\x1b[31m"));
}

TEST_F(LogSinkTest, ForPrograms) {
  LogSink log(options(LogFormat::json));
  log.write(LogLevel::warning, "nbd", "a \"quote\",\na line feed and \xff");
  const auto lines = take();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(json.size(), 4U);
  EXPECT_EQ(json["time"], "2026-11-20T13:05:34.120Z");
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["topic"], "nbd");
  EXPECT_EQ(json["message"], "a \"quote\",\na line feed and \xEF\xBF\xBD");
}

TEST_F(LogSinkTest, LinesBelowTheLevelAreDropped) {
  auto warnings = options();
  warnings.level = LogLevel::warning;
  LogSink log(std::move(warnings));
  for (int i = 0; i < 10; ++i) log.write(LogLevel::info, "t", "no");
  log.write(LogLevel::warning, "t", "yes");
  EXPECT_THAT(take(), ElementsAre("2026-11-20T13:05:34.120Z warning t: yes"));
}

TEST_F(LogSinkTest, ATopicHasABurstAndThenItsRate) {
  LogSink log(options(LogFormat::json));
  const auto write = [&](int count) {
    for (int i = 0; i < count; ++i) log.write(LogLevel::info, "loud", fmt::format("{}", i));
  };
  const auto messages = [&] {
    std::vector<std::string> found;
    for (const std::string& line : take()) {
      const auto json = nlohmann::json::parse(line);
      found.push_back(json["message"].get<std::string>() + "/" +
                      std::to_string(json.value("suppressed", std::uint64_t{0})));
    }
    return found;
  };
  write(10);
  EXPECT_THAT(messages(), ElementsAre("0/0", "1/0", "2/0"));
  log.write(LogLevel::info, "quiet", "unharmed");
  EXPECT_THAT(messages(), ElementsAre("unharmed/0"));
  now_ += milliseconds(499);
  write(1);
  EXPECT_THAT(messages(), ElementsAre());
  now_ += milliseconds(1);
  write(2);
  EXPECT_THAT(messages(), ElementsAre("0/8"));  // 7 of the ten, and the one half a second later
  now_ += std::chrono::hours(1);
  write(5);
  EXPECT_THAT(messages(), ElementsAre("0/1", "1/0", "2/0"));
  now_ -= std::chrono::hours(2);
  write(1);
  EXPECT_THAT(messages(), ElementsAre());
}

TEST_F(LogSinkTest, ErrorsAreNeverHeldBack) {
  LogSink log(options());
  for (int i = 0; i < 4; ++i) log.write(LogLevel::info, "t", "x");
  take();
  log.write(LogLevel::error, "t", "bad");
  EXPECT_THAT(take(),
              ElementsAre("2026-11-20T13:05:34.120Z error t: bad (1 lines before it were suppressed)"));
}

TEST_F(LogSinkTest, NothingIsLostBetweenThreads) {
  auto counted = options(LogFormat::json);
  std::mutex mutex;
  std::uint64_t told = 0;
  counted.output = [&](std::string_view line) {
    const std::lock_guard lock(mutex);
    told += 1 + nlohmann::json::parse(line).value("suppressed", std::uint64_t{0});
  };
  LogSink log(std::move(counted));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 250; ++j) log.write(LogLevel::info, "t", "x");
    });
  }
  for (std::thread& thread : threads) thread.join();
  log.write(LogLevel::error, "t", "the rest");
  EXPECT_EQ(told, 1001U);
}

}  // namespace
}  // namespace oxbow::control
