// SPDX-License-Identifier: Apache-2.0
#include "os/mount_info.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

TEST(MountInfo, HasDevicesPointsTypesAndSources) {
  const auto lines = parse_mount_info(
      "22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw\n"
      "40 22 0:45 /sub /mnt/a\\040b rw - btrfs /dev/loop0p1 rw,space_cache=v2\n"
      "41 22 7:3 / /mnt\\011 rw - fuse.oxbow oxbow rw\n");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].device, "254:0");
  EXPECT_EQ(lines[0].point, "/");
  EXPECT_EQ(lines[0].type, "ext4");
  EXPECT_EQ(lines[0].source, "/dev/root");
  EXPECT_EQ(lines[1].device, "0:45");
  EXPECT_EQ(lines[1].point, "/mnt/a b");
  EXPECT_EQ(lines[1].source, "/dev/loop0p1");
  EXPECT_EQ(lines[2].point, "/mnt\t");
}

TEST(MountInfo, LeavesOutWhatIsNoLine) {
  EXPECT_TRUE(parse_mount_info("").empty());
  EXPECT_TRUE(parse_mount_info("\n\n1 2 3:4 / /mnt rw\n1 2 3:4 / /mnt rw - ext4\n").empty());
}

TEST(MountInfo, TakesEscapesAway) {
  EXPECT_EQ(without_escapes("a\\040b\\134"), "a b\\");
  EXPECT_EQ(without_escapes("a\\04"), "a\\04");
  EXPECT_EQ(without_escapes("\\999\\"), "\\999\\");
}

}  // namespace
}  // namespace oxbow
