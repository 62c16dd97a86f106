// SPDX-License-Identifier: Apache-2.0
#include "format/hexdump.h"

#include <gtest/gtest.h>

#include "format/scratch.h"

namespace oxbow::test {
namespace {

constexpr std::string_view k_dump =
    "00000000  6f 78 62 6f 77 00 00 00  00 00 00 00 00 00 00 ff  |oxbow...........|\n"
    "00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
    "*\n"
    "00000040  61 61 61 61 61 61 61 61  61 61 61 61 61 61 61 61  |aaaaaaaaaaaaaaaa|\n"
    "*\n"
    "00000060  7a                                                |z|\n"
    "00000061\n";

std::vector<std::byte> dumped() {
  std::vector<std::byte> bytes(0x61);
  const std::string_view head = "oxbow";
  for (std::size_t i = 0; i < head.size(); ++i) bytes[i] = static_cast<std::byte>(head[i]);
  bytes[15] = std::byte{0xff};
  for (std::size_t i = 0x40; i < 0x60; ++i) bytes[i] = std::byte{'a'};
  bytes[0x60] = std::byte{'z'};
  return bytes;
}

TEST(Hexdump, LooksAsTheToolPrintsIt) { EXPECT_EQ(hexdump(dumped()), k_dump); }

TEST(Hexdump, IsRestoredToTheSameBytes) {
  const Scratch scratch;
  ASSERT_EQ(restore_file(k_dump, scratch.path("restored")), "");
  EXPECT_EQ(hexdump_file(scratch.path("restored")), k_dump);
}

TEST(Hexdump, RefusesWhatItCannotRestore) {
  const Scratch scratch;
  const std::string path = scratch.path("restored");
  EXPECT_EQ(restore_file("00000010  6f\n", path), "\"00000010  6f\" is out of place");
  EXPECT_EQ(restore_file("00000000  6f zz\n", path), "\"00000000  6f zz\" is no line of a dump");
  EXPECT_EQ(restore_file("layer\n", path), "\"layer\" is out of place");
}

}  // namespace
}  // namespace oxbow::test
