// SPDX-License-Identifier: Apache-2.0
// Damaged records of the commit ring: told from its end, named, and given up only when asked for.
#include <gtest/gtest.h>

#include <algorithm>

#include "check/scene.h"
#include "jobs/repair_layer.h"
#include "support/effort.h"
#include "targets/cow/ring_scan.h"

namespace oxbow::check {
namespace {

struct Record {
  std::uint64_t at = 0;  // in the file
  std::uint64_t length = 0;
  std::uint64_t sequence = 0;
};

class Ring : public testing::Test {
 protected:
  void SetUp() override {
    disk_ = scene_.in_ring();
    const auto head = read_layer_head(scene_.queue, *scene_.store(disk_));
    ASSERT_TRUE(head);
    superblock_ = head->superblock;
    const auto scan =
        scan_ring(scene_.queue, *scene_.store(disk_), superblock_,
                  [&](std::uint64_t position, std::span<const std::byte> record) -> Result<void> {
                    records_.push_back({superblock_.ring_offset + position, record.size(),
                                        native::ring_head(record).sequence});
                    return {};
                  });
    ASSERT_TRUE(scan);
    ASSERT_GE(records_.size(), 3U) << "the scene has to use the ring";
  }
  [[nodiscard]] Scene::Disk disk() const { return std::make_shared<sim::SimDisk>(*disk_); }

  Scene scene_{test::seed(5)};
  Scene::Disk disk_;
  native::Superblock superblock_{};
  std::vector<Record> records_;
};

TEST_F(Ring, WhatIsToBeReplayedIsTold) {
  const auto report = scene_.check(disk_);
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->damaged() || report->redundancy_lost()) << text_of(report);
  EXPECT_GE(report->ring_records, 3U);
  EXPECT_NE(text_of(report).find("note: commit ring: " + std::to_string(report->ring_records) +
                                 " records (sequence "),
            std::string::npos)
      << text_of(report);
}

// Every bit of every record that others follow: none of them was being written when the layer came to its end.
TEST_F(Ring, AFlippedBitInARecordIsNamed) {
  const std::uint64_t count = test::repetitions(300, 20'000);
  for (std::uint64_t i = 0; i < count; ++i) {
    const Record& record = records_[scene_.random.below(records_.size() - 1)];
    const std::uint64_t offset = scene_.random.below(scene_.random.below(2) == 0 ? 128 : record.length);
    const auto bit = static_cast<unsigned>(scene_.random.below(8));
    const auto damaged = disk();
    damaged->flip_bit(record.at + offset, bit);
    const auto report = scene_.check(damaged);
    ASSERT_TRUE(report);
    const auto found = std::ranges::find_if(report->findings, [](const Finding& each) {
      return each.where == "commit ring" && each.gravity == Gravity::damage;
    });
    ASSERT_NE(found, report->findings.end()) << "byte " << offset << " bit " << bit << ":\n"
                                             << text_of(report);
    EXPECT_EQ(found->stored.offset, record.at);
    EXPECT_EQ(found->sequence, record.sequence);
    EXPECT_FALSE(found->lost.empty());
    const bool length_or_magic = offset < 40;
    EXPECT_TRUE(length_or_magic || (found->checksum && found->checksum->stored != found->checksum->computed))
        << offset;
  }
}

// The last one may have been torn, so it is a note. What lies behind it is nothing.
TEST_F(Ring, TheLastRecordMayHaveBeenCutOff) {
  const auto damaged = disk();
  damaged->flip_bit(records_.back().at + records_.back().length - 4000, 1);
  auto report = scene_.check(damaged);
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->damaged()) << text_of(report);
  EXPECT_NE(text_of(report).find(
                "note: commit ring: the record there is not whole: an append was cut off, or it was the "
                "last one and rotted"),
            std::string::npos)
      << text_of(report);
  const auto behind = disk();
  behind->flip_bit(records_.back().at + records_.back().length + 8192, 1);
  EXPECT_EQ(text_of(scene_.check(behind)), text_of(scene_.check(disk_)));
}

TEST_F(Ring, NothingIsGivenUpUnasked) {
  const auto damaged = disk();
  damaged->flip_bit(records_[1].at + 300, 1);
  const auto store = scene_.store(damaged);
  RepairOptions options;
  options.recover = [&] { return scene_.recover(store); };
  auto report = repair_layer(scene_.queue, *store, options);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_FALSE(report->sound());
  ASSERT_TRUE(report->not_recovered);
  EXPECT_NE(report->not_recovered->text().find("its commit ring is damaged at byte"), std::string::npos)
      << report->not_recovered->text();

  options.drop_ring = true;
  report = repair_layer(scene_.queue, *store, options);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_TRUE(report->sound());
  ASSERT_EQ(report->steps.size(), 2U);
  EXPECT_EQ(report->steps[0].where, "commit ring");
  EXPECT_FALSE(report->steps[0].lost.empty());
  const auto after = scene_.check(damaged);
  ASSERT_TRUE(after);
  EXPECT_EQ(text_of(after), "");
  EXPECT_EQ(scene_.read(damaged, 0, 1), "a");
}

TEST_F(Ring, ASoundRingIsNotGivenUp) {
  const auto copy = disk();
  const auto report = repair_layer(scene_.queue, *scene_.store(copy), {.drop_ring = true});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().text(), "cannot repair layer: work.oxb: its commit ring is not damaged");
}

}  // namespace
}  // namespace oxbow::check
