// SPDX-License-Identifier: Apache-2.0
#include "os/iov.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace oxbow {
namespace {

// `text` cut at random into up to 8 pieces, some of them empty.
IovList cut(std::string& text, std::mt19937_64& random) {
  IovList iov;
  std::size_t at = 0;
  while (!iov.full()) {
    const std::size_t left = text.size() - at;
    const std::size_t length = iov.room() == 1 ? left : random() % (left / 2 + 1);
    iov.push_back({text.data() + at, length});
    at += length;
  }
  return iov;
}

std::string joined(const IovList& iov) {
  std::string text;
  for (const iovec& piece : iov) text.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  return text;
}

TEST(Iov, ConsumesFromTheFront) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 500; ++round) {
    std::string text(random() % 200, '\0');
    for (char& each : text) each = static_cast<char>('a' + random() % 26);
    IovList iov = cut(text, random);
    ASSERT_EQ(iov_bytes(iov), text.size());
    std::string rest = text;
    while (!rest.empty()) {
      const std::size_t moved = random() % (rest.size() + 1);
      rest.erase(0, moved);
      ASSERT_EQ(iov_consume(iov, moved), rest.empty());
      ASSERT_EQ(joined(iov), rest);
    }
  }
}

TEST(Iov, PayloadGivesTheBytesInOrder) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 500; ++round) {
    std::string text(random() % 200, '\0');
    for (char& each : text) each = static_cast<char>('a' + random() % 26);
    const IovList iov = cut(text, random);
    Payload payload(&iov);
    std::string out(text.size(), '\0');
    for (std::size_t at = 0; at < out.size();) {
      const std::size_t length = 1 + random() % (out.size() - at);
      payload.copy_to(reinterpret_cast<std::byte*>(out.data() + at), length);
      at += length;
    }
    ASSERT_EQ(out, text);
  }
  std::string zeros(100, 'x');
  Payload(nullptr).copy_to(reinterpret_cast<std::byte*>(zeros.data()), 99);
  EXPECT_EQ(zeros, std::string(99, '\0') + "x");
}

}  // namespace
}  // namespace oxbow
