// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/served.h"
#include "cli/size.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct StatusArguments {
  std::string name;
  bool json = false;
};

std::string text_of(const Json& json, const char* key) { return json.at(key).get<std::string>(); }
std::uint64_t number_of(const Json& json, const char* key) { return json.at(key).get<std::uint64_t>(); }
std::string size_of(const Json& json, const char* key) { return format_size(number_of(json, key)); }

// Microseconds for people.
std::string duration_text(std::uint64_t us) {
  if (us < 1000) return fmt::format("{} µs", us);
  if (us < 1'000'000) return fmt::format("{:.3g} ms", static_cast<double>(us) / 1e3);
  return fmt::format("{:.3g} s", static_cast<double>(us) / 1e6);
}

std::string count_text(std::uint64_t count, const char* one, const char* more) {
  return fmt::format("{} {}", count, count == 1 ? one : more);
}

// Why and since when, after the state; empty when nothing waits for room.
std::string paused_text(const Json& paused) {
  if (paused.is_null()) return "";
  return fmt::format(": {}, since {}; {} and {} wait for room", text_of(paused, "reason"),
                     text_of(paused, "since"), count_text(number_of(paused, "changes"), "change", "changes"),
                     count_text(number_of(paused, "flushes"), "flush", "flushes"));
}

// Since when, after the state, and what comes next.
std::string suspended_text(const Json& status) {
  const Json& since = status.at("suspended");
  const Json& loaded = status.at("loaded");
  std::string text = since.is_null() ? "" : " since " + since.get<std::string>();
  if (!loaded.is_null()) text += fmt::format("; {} is loaded", loaded.get<std::string>());
  return text;
}

// Writes the parts of a status, one after the other. Thread safety: none.
class StatusText {
 public:
  [[nodiscard]] static std::string of(const Json& status) {
    StatusText text;
    text.add_heading(status);
    text.add_table(status.at("table"));
    text.add_statistics(status.at("statistics"));
    text.add_latency(status.at("latency"), "latency");
    for (const Json& client : status.at("clients")) text.add_client(client);
    return std::move(text.out_);
  }

 private:
  void line(const char* name, const std::string& value) { out_ += fmt::format("{:<11}{}\n", name, value); }

  void add_heading(const Json& status) {
    line("device", text_of(status, "name"));
    const Json& failure = status.at("failure");
    line("state", text_of(status, "state") + (failure.is_null() ? "" : ": " + failure.get<std::string>()) +
                      paused_text(status.at("paused")) + suspended_text(status));
    line("size", fmt::format("{} ({} bytes)", size_of(status, "size"), number_of(status, "size")));
    line("source", text_of(status, "source"));
    for (const Json& uri : status.at("uris")) line("uri", uri.get<std::string>());
    const Json& process = status.at("process");
    line("process", fmt::format("{}, oxbow {}, since {}", number_of(process, "pid"),
                                text_of(process, "version"), text_of(process, "started")));
  }

  void add_table(const Json& table) {
    out_ += "table\n";
    for (const Json& each : table) {
      const std::string arguments = text_of(each, "arguments");
      out_ += fmt::format("  {} {} {}{}{}\n", number_of(each, "start"), number_of(each, "length"),
                          text_of(each, "target"), arguments.empty() ? "" : " ", arguments);
      for (const Json& part : each.at("chain")) add_part(part);
    }
  }

  void add_part(const Json& part) {
    const std::string format = text_of(part, "format");
    out_ += fmt::format("    {}  {}, {}", text_of(part, "store"), format == "oxb" ? "layer" : format,
                        size_of(part, "size"));
    if (!part.at("cluster").is_null()) out_ += fmt::format(", clusters of {}", size_of(part, "cluster"));
    if (!part.at("state").is_null()) {
      const Json& used = part.at("used");
      const std::uint64_t all = number_of(part, "size") / number_of(part, "cluster");
      out_ += fmt::format(", {} of {} blocks in use, {}",
                          used.is_null() ? "?" : std::to_string(used.get<std::uint64_t>()), all,
                          text_of(part, "state"));
    }
    if (!part.at("allocated").is_null()) out_ += fmt::format(", {} allocated", size_of(part, "allocated"));
    if (!part.at("free").is_null()) out_ += fmt::format(", {} free", size_of(part, "free"));
    out_ += '\n';
    if (!part.at("live").is_null()) out_ += fmt::format("      live state: {}\n", text_of(part, "live"));
    if (!part.at("without_live").is_null())
      out_ += fmt::format("      no live state, kill -9 would lose writes that no flush covers: {}\n",
                          text_of(part, "without_live"));
  }

  void add_statistics(const Json& counted) {
    line("reads", fmt::format("{}, {}", number_of(counted, "reads"), size_of(counted, "read_bytes")));
    line("writes", fmt::format("{}, {}", number_of(counted, "writes"), size_of(counted, "written_bytes")));
    line("zeroes", fmt::format("{}, {}", number_of(counted, "zeroes"), size_of(counted, "zeroed_bytes")));
    line("discards",
         fmt::format("{}, {}", number_of(counted, "discards"), size_of(counted, "discarded_bytes")));
    line("flushes",
         fmt::format("{}, in {} rounds", number_of(counted, "flushes"), number_of(counted, "flush_rounds")));
    const Json& amplification = counted.at("write_amplification");
    line("stored", fmt::format("{} of data and {} of metadata{}; {} copied from below",
                               size_of(counted, "stored_bytes"), size_of(counted, "metadata_bytes"),
                               amplification.is_null() ? ""
                                                       : fmt::format(", {:.2f} times what was written",
                                                                     amplification.get<double>()),
                               size_of(counted, "filled_bytes")));
    line("read from", fmt::format("{} pieces of its own, {} from below", number_of(counted, "own_reads"),
                                  number_of(counted, "below_reads")));
    line("errors", fmt::format("{}", number_of(counted, "errors")));
  }

  void add_latency(const Json& latency, const char* name) {
    for (const auto& [kind, counted] : latency.items()) {
      const std::uint64_t count = number_of(counted, "count");
      if (count == 0) continue;
      line(name, fmt::format("{}: half within {}, 99% within {}, mean {} of {}", kind,
                             duration_text(number_of(counted, "median_us")),
                             duration_text(number_of(counted, "p99_us")),
                             duration_text(number_of(counted, "total_ns") / count / 1000), count));
    }
  }

  void add_client(const Json& client) {
    line("client", fmt::format("{}: {}, since {}{}{}", number_of(client, "id"), text_of(client, "peer"),
                               text_of(client, "since"), client.at("tls").get<bool>() ? ", TLS" : "",
                               client.at("structured_replies").get<bool>() ? ", structured replies" : ""));
    const Json& counted = client.at("statistics");
    std::string did;
    for (const auto& [name, kind] : counted.items()) {
      if (!kind.is_object() || number_of(kind, "requests") == 0) continue;
      did += fmt::format("{}{} {}", did.empty() ? "" : ", ", number_of(kind, "requests"), name);
      if (kind.contains("bytes") && number_of(kind, "bytes") > 0)
        did += fmt::format(" ({})", size_of(kind, "bytes"));
    }
    line("", fmt::format("{}; {} errors", did.empty() ? "no requests" : did, number_of(counted, "errors")));
    add_latency(client.at("latency"), "");
  }

  std::string out_;
};

ExitStatus status(const StatusArguments& arguments) {
  const auto answer = ask_served(arguments.name, "");
  if (!answer) return fail(answer.error());
  const auto printed =
      print(arguments.json ? answer->dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                           : StatusText::of(*answer));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_status(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<StatusArguments>();
  CLI::App& command = add_command(
      app, "status", "Show the state, table, clients and statistics of a served device", "[--json] NAME");
  add_served_name(command, arguments->name);
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return status(*arguments); }; });
}

}  // namespace oxbow
