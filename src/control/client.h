// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

#include "control/registry.h"
#include "oxbow/error.h"

namespace oxbow::control {

// Asks a serving process through its control socket. Thread safety: one thread at a time.
class Client {
 public:
  // How long an answer may take that waits for nothing.
  static constexpr std::chrono::seconds k_quick{10};

  // Connects with each request; an error names `process`.
  explicit Client(Record process) : process_(std::move(process)) {}

  // The answer's JSON. Errors are those that the process tells, or why it cannot be asked.
  [[nodiscard]] Result<nlohmann::ordered_json> get(const std::string& path) const;
  // Waits for the answer however long it takes.
  [[nodiscard]] Result<nlohmann::ordered_json> post(const std::string& path) const;
  [[nodiscard]] Result<nlohmann::ordered_json> post(const std::string& path,
                                                    const nlohmann::ordered_json& body) const;

 private:
  [[nodiscard]] Result<nlohmann::ordered_json> ask(const std::string& method, const std::string& path,
                                                   const std::string& body, std::chrono::seconds limit) const;
  [[nodiscard]] Error no_answer(const std::string& why) const;

  const Record process_;
};

// The process that serves the device `name` in the run directory; the error says how to see what there is.
[[nodiscard]] Result<Record> find_served(const std::string& directory, const std::string& name);

}  // namespace oxbow::control
