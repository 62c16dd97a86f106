// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// How much a test does, and from which seed. scripts/test sets the environment variables.
namespace oxbow::test {

// Whether this is the long run (OXBOW_TEST_FULL=1).
[[nodiscard]] inline bool full_run() {
  const char* value = std::getenv("OXBOW_TEST_FULL");
  return value != nullptr && value[0] == '1';
}

// `short_count`, or `full_count` in the long run, times OXBOW_TEST_SCALE (a positive decimal number, 1 by default);
// never 0.
[[nodiscard]] inline std::uint64_t repetitions(std::uint64_t short_count, std::uint64_t full_count) {
  double scale = 1;
  if (const char* value = std::getenv("OXBOW_TEST_SCALE"); value != nullptr && value[0] != '\0') {
    char* end = nullptr;
    scale = std::strtod(value, &end);
    if (*end != '\0' || !std::isfinite(scale) || scale <= 0) {
      std::fprintf(stderr, "OXBOW_TEST_SCALE: not a positive number: %s\n", value);
      std::exit(2);
    }
  }
  const double count = static_cast<double>(full_run() ? full_count : short_count) * scale;
  return count < 1 ? 1 : static_cast<std::uint64_t>(count);
}

// The seed of a random test: OXBOW_TEST_SEED, else `usual`. Prints it, so that a failure can be run again.
[[nodiscard]] inline std::uint64_t seed(std::uint64_t usual = 1) {
  std::uint64_t chosen = usual;
  if (const char* value = std::getenv("OXBOW_TEST_SEED"); value != nullptr && value[0] != '\0') {
    char* end = nullptr;
    errno = 0;
    chosen = std::strtoull(value, &end, 10);
    if (*end != '\0' || errno != 0) {
      std::fprintf(stderr, "OXBOW_TEST_SEED: not a number: %s\n", value);
      std::exit(2);
    }
  }
  std::printf("seed: %llu\n", static_cast<unsigned long long>(chosen));
  return chosen;
}

}  // namespace oxbow::test
