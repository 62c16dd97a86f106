// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <string>
#include <utility>

namespace oxbow {

// A control-plane failure, told to a person as the sentence "what: where: why".
// `what` is the attempt ("cannot open layer"), `where` the object (a path, a table line), `why` the reason
// and, where there is one, the way out. Thread safety: a value.
class [[nodiscard]] Error {
 public:
  Error(std::string what, std::string where, std::string why)
      : what_(std::move(what)), where_(std::move(where)), why_(std::move(why)) {}

  // The reason is the system's text for errno value `number`.
  [[nodiscard]] static Error from_errno(std::string what, std::string where, int number);

  [[nodiscard]] const std::string& what() const noexcept { return what_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }

  // "what: where: why", without a trailing newline.
  [[nodiscard]] std::string text() const;

 private:
  std::string what_, where_, why_;
};

template <typename T>
using Result = std::expected<T, Error>;

}  // namespace oxbow
