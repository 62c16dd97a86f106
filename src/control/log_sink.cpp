// SPDX-License-Identifier: Apache-2.0
#include "control/log_sink.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

namespace oxbow::control {
namespace {

using TimePoint = LogSink::Clock::time_point;

// Topics are constants of the program; more than this would be a mistake, and share the last one's limit.
constexpr std::size_t k_most_topics = 256;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::string time_text(TimePoint time) {
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const auto seconds = static_cast<std::time_t>(since / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", parts, since % 1000);
}

// A line is one line, whatever is in it: control characters (names that clients send, for example) are escaped.
std::string one_line(std::string_view text) {
  std::string out;
  for (const char each : text) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += each;
    }
  }
  return out;
}

// A bucket of permits that fills with time. Thread safety: none.
struct Bucket {
  double permits = 0;
  TimePoint filled;
  std::uint64_t suppressed = 0;
};

// Hands lines to a function. Thread safety: spdlog's base class locks.
class FunctionSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FunctionSink(std::function<void(std::string_view)> output) : output_(std::move(output)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    output_({message.payload.data(), message.payload.size()});
  }
  void flush_() override {}

  std::function<void(std::string_view)> output_;
};

spdlog::sink_ptr make_sink(const LogSink::Options& options) {
  if (options.output) return std::make_shared<FunctionSink>(options.output);
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  sink->set_pattern("%v");  // lines come complete
  return sink;
}

}  // namespace

// Thread safety: the buckets are guarded by the mutex; the logger has its own.
struct LogSink::Parts {
  explicit Parts(Options given) : options(std::move(given)), logger("oxbow", make_sink(options)) {
    logger.set_level(to_spdlog(options.level));
    // The program has no other place to complain to.
    logger.set_error_handler([](const std::string& /*message*/) {});
    options.per_second = std::max(options.per_second, 1U);
  }

  [[nodiscard]] TimePoint now() const { return options.now ? options.now() : Clock::now(); }

  // Whether a line of the topic may pass, and how many before it did not.
  bool admit(LogLevel level, std::string_view topic, TimePoint time, std::uint64_t& suppressed) {
    const std::lock_guard lock(mutex);
    auto found = buckets.find(topic);
    if (found == buckets.end()) {
      if (buckets.size() >= k_most_topics) topic = "";
      found = buckets.try_emplace(std::string(topic), Bucket{static_cast<double>(options.burst), time}).first;
    }
    Bucket& bucket = found->second;
    // A clock that was set back fills nothing.
    const double seconds = std::max(0.0, std::chrono::duration<double>(time - bucket.filled).count());
    bucket.permits =
        std::min(bucket.permits + seconds * options.per_second, static_cast<double>(options.burst));
    bucket.filled = time;
    if (bucket.permits < 1 && level != LogLevel::error) {
      ++bucket.suppressed;
      return false;
    }
    bucket.permits = std::max(0.0, bucket.permits - 1);
    suppressed = std::exchange(bucket.suppressed, 0);
    return true;
  }

  [[nodiscard]] std::string text(LogLevel level, std::string_view topic, std::string_view line,
                                 TimePoint time, std::uint64_t suppressed) const {
    if (options.format == LogFormat::json) {
      nlohmann::ordered_json json{
          {"time", time_text(time)}, {"level", name_of(level)}, {"topic", topic}, {"message", line}};
      if (suppressed > 0) json["suppressed"] = suppressed;
      return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    }
    std::string out = fmt::format("{} {} {}: {}", time_text(time), name_of(level), topic, one_line(line));
    if (suppressed > 0) out += fmt::format(" ({} lines before it were suppressed)", suppressed);
    return out;
  }

  Options options;
  spdlog::logger logger;
  std::mutex mutex;
  std::map<std::string, Bucket, std::less<>> buckets;
};

std::string_view name_of(LogLevel level) noexcept {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  return "error";
}

LogSink::LogSink(Options options) : parts_(std::make_unique<Parts>(std::move(options))) {}
LogSink::~LogSink() = default;

void LogSink::write(LogLevel level, std::string_view topic, std::string_view line) noexcept {
  if (level < parts_->options.level) return;
  try {
    const TimePoint time = parts_->now();
    std::uint64_t suppressed = 0;
    if (!parts_->admit(level, topic, time, suppressed)) return;
    parts_->logger.log(to_spdlog(level),
                       spdlog::string_view_t(parts_->text(level, topic, line, time, suppressed)));
  } catch (const std::exception&) {
    return;  // memory is short; the line is lost
  }
}

}  // namespace oxbow::control
