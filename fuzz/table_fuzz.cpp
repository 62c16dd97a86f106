// SPDX-License-Identifier: Apache-2.0
// Tables as text: whatever is accepted prints as a table that reads back the same.

#include <cstdlib>

#include "targets/table/table_text.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto loaded = oxbow::parse_table(text, "table");
  if (!loaded) return 0;
  const std::string printed = oxbow::print_table(*loaded);
  const auto again = oxbow::parse_table(printed, "table");
  if (!again || oxbow::print_table(*again) != printed) std::abort();
  return 0;
}
