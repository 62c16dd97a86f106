// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/mount_table.h"

#include <gtest/gtest.h>

namespace oxbow::fuse {
namespace {

constexpr auto k_table =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "31 22 0:44 / /srv/a\\040b\\134c rw,nosuid - fuse.oxbow oxbow rw,user_id=0\n"
    "32 22 0:45 / /srv/twice ro master:2 propagate_from:3 - tmpfs tmpfs rw\n"
    "33 32 0:46 / /srv/twice rw - fuse.oxbow oxbow rw\n"
    "34 22 0:47 / /srv/short rw\n";

TEST(MountTable, FindsWhatIsMountedAtAPath) {
  const auto root = find_mount(k_table, "/");
  ASSERT_TRUE(root);
  EXPECT_EQ(root->device, "8:1");
  EXPECT_EQ(root->type, "ext4");
}

TEST(MountTable, ReadsEscapedPaths) {
  const auto found = find_mount(k_table, "/srv/a b\\c");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->device, "0:44");
  EXPECT_EQ(found->type, "fuse.oxbow");
}

TEST(MountTable, TakesTheUppermostOfSeveral) {
  const auto found = find_mount(k_table, "/srv/twice");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->device, "0:46");
}

TEST(MountTable, FindsNothingBelowAMountOrInLinesThatEndEarly) {
  EXPECT_FALSE(find_mount(k_table, "/srv"));
  EXPECT_FALSE(find_mount(k_table, "/srv/twice/x"));
  EXPECT_FALSE(find_mount(k_table, "/srv/short"));
  EXPECT_FALSE(find_mount("", "/"));
}

TEST(MountTable, ReadsTheTableOfThisProcess) {
  const auto found = mounted_at("/proc");
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_TRUE(*found);
  EXPECT_EQ((*found)->type, "proc");
}

}  // namespace
}  // namespace oxbow::fuse
