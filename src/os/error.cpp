// SPDX-License-Identifier: Apache-2.0
#include "oxbow/error.h"

#include <system_error>

namespace oxbow {

Error Error::from_errno(std::string what, std::string where, int number) {
  return {std::move(what), std::move(where), std::generic_category().message(number)};
}

std::string Error::text() const { return what_ + ": " + where_ + ": " + why_; }

}  // namespace oxbow
