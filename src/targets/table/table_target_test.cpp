// SPDX-License-Identifier: Apache-2.0
#include "targets/table/table_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/queue.h"
#include "targets/error/error_target.h"
#include "targets/fake_store.h"
#include "targets/linear/linear_target.h"
#include "targets/zero/zero_target.h"

namespace oxbow {
namespace {

using testing::UnorderedElementsAre;

constexpr std::uint64_t operator""_sectors(unsigned long long count) { return count * k_sector_bytes; }

// Answers `busy` for everything from byte `from` on, and at most `most` bytes at a time; counts what comes.
class SlowTarget final : public Target {
 public:
  SlowTarget(std::uint64_t size, std::uint64_t from, std::uint64_t most)
      : size_(size), from_(from), most_(most) {}

  Step locate(Range range, Extents& out) const noexcept override {
    if (range.offset >= from_) return {0, Answer::busy, 7, const_cast<SlowTarget*>(this)};
    const std::uint64_t length = std::min({range.length, most_, from_ - range.offset});
    out.push_back({length, Kind::zero, 0, nullptr, 0});
    return Step::ready(length);
  }
  Step plan(Range range, const Change&, Plan& plan) noexcept override {
    planned = range;
    plan.owner = this;
    return Step::ready(std::min(range.length, most_));
  }
  void commit(Plan&) noexcept override {}
  void capture(FlushPlan& flush) noexcept override {
    ++captures;
    flush.owners.push_back(this);
  }
  IoStatus close(Queue&) noexcept override {
    ++closes;
    return close_status;
  }
  std::uint64_t size() const noexcept override { return size_; }
  bool writable() const noexcept override { return true; }
  TargetStatus status() const override { return {"slow", "", ""}; }

  Range planned;
  int captures = 0;
  int closes = 0;
  IoStatus close_status;

 private:
  std::uint64_t size_, from_, most_;
};

TableTarget::Part part(std::uint64_t start, std::uint64_t length, std::shared_ptr<Target> target,
                       std::uint64_t offset = 0) {
  const std::string type = target->status().name;
  return {{0, start, length, type, {}}, {std::move(target), offset}};
}

class TableTargetTest : public testing::Test {
 protected:
  // 0-8 linear at byte 4096, 8-24 zero, 24-32 error, 32-40 linear at byte 0 of another store
  TableTarget four_lines() {
    std::vector<TableTarget::Part> parts;
    parts.push_back(part(0, 8, std::make_shared<LinearTarget>(first_, "/1", Range{4096, 8_sectors}, true)));
    parts.push_back(part(8, 16, std::make_shared<ZeroTarget>(16_sectors, true)));
    parts.push_back(part(24, 8, std::make_shared<ErrorTarget>(8_sectors, true)));
    parts.push_back(part(32, 8, std::make_shared<LinearTarget>(second_, "/2", Range{0, 8_sectors}, true)));
    return TableTarget(std::move(parts));
  }

  std::shared_ptr<FakeStore> first_ = std::make_shared<FakeStore>(1 << 20);
  std::shared_ptr<FakeStore> second_ = std::make_shared<FakeStore>(1 << 20);
};

TEST_F(TableTargetTest, LocatesAcrossLines) {
  const TableTarget table = four_lines();
  EXPECT_EQ(table.size(), 40_sectors);
  Extents out;
  const Step step = table.locate({7_sectors, 27_sectors}, out);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 27_sectors);
  ASSERT_EQ(out.size(), 4U);
  EXPECT_EQ(out[0].kind, Kind::data);
  EXPECT_EQ(out[0].store, first_.get());
  EXPECT_EQ(out[0].at, 4096 + 7_sectors);
  EXPECT_EQ(out[0].length, 1_sectors);
  EXPECT_EQ(out[1].kind, Kind::zero);
  EXPECT_EQ(out[1].length, 16_sectors);
  EXPECT_EQ(out[2].kind, Kind::error);
  EXPECT_EQ(out[2].length, 8_sectors);
  EXPECT_EQ(out[3].store, second_.get());
  EXPECT_EQ(out[3].at, 0U);
  EXPECT_EQ(out[3].length, 2_sectors);
}

TEST_F(TableTargetTest, FindsTheLineOfEverySector) {
  const TableTarget table = four_lines();
  for (std::uint64_t sector = 0; sector < 40; ++sector) {
    Extents out;
    ASSERT_EQ(table.locate({sector * k_sector_bytes + 5, 100}, out).length, 100U);
    ASSERT_EQ(out.size(), 1U);
    const Kind expected = sector < 8    ? Kind::data
                          : sector < 24 ? Kind::zero
                          : sector < 32 ? Kind::error
                                        : Kind::data;
    EXPECT_EQ(out[0].kind, expected) << "sector " << sector;
  }
}

TEST_F(TableTargetTest, StopsWhenTheAnswerIsFull) {
  std::vector<TableTarget::Part> parts;
  for (std::uint64_t i = 0; i < 20; ++i) {
    parts.push_back(
        part(i, 1, std::make_shared<LinearTarget>(first_, "/1", Range{i * 8192, 1_sectors}, true)));
  }
  const TableTarget table(std::move(parts));
  Extents out;
  EXPECT_EQ(table.locate({0, 20_sectors}, out).length, k_extents_per_answer * 1_sectors);
  EXPECT_EQ(out.size(), k_extents_per_answer);
}

TEST_F(TableTargetTest, AnswersAPrefixWhenALineDoes) {
  auto slow = std::make_shared<SlowTarget>(16_sectors, 12_sectors, 4_sectors);
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, std::make_shared<ZeroTarget>(8_sectors, true)));
  parts.push_back(part(8, 8, slow, 8_sectors));
  const TableTarget table(std::move(parts));
  Extents out;
  EXPECT_EQ(table.locate({4_sectors, 12_sectors}, out).length, 8_sectors)
      << "4 of zero, 4 of the slow target";
  out.clear();
  const Step busy = table.locate({12_sectors, 4_sectors}, out);
  EXPECT_EQ(busy.answer, Answer::busy);
  EXPECT_EQ(busy.key, 7U);
  EXPECT_EQ(busy.owner, slow.get());
  EXPECT_TRUE(out.empty());
}

TEST_F(TableTargetTest, WhatIsKnownBeforeABusyLineIsAnAnswer) {
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, std::make_shared<ZeroTarget>(8_sectors, true)));
  parts.push_back(part(8, 8, std::make_shared<SlowTarget>(8_sectors, 0, 8_sectors)));
  const TableTarget table(std::move(parts));
  Extents out;
  const Step step = table.locate({2_sectors, 10_sectors}, out);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 6_sectors);
  EXPECT_EQ(out.size(), 1U);
}

TEST_F(TableTargetTest, PlansWithinOneLine) {
  TableTarget table = four_lines();
  Plan plan;
  const Step step = table.plan({6_sectors, 20_sectors}, {Operation::write, false, false}, plan);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 2_sectors);
  ASSERT_NE(plan.owner, nullptr);
  EXPECT_EQ(plan.owner->status().name, "linear");
  EXPECT_EQ(plan.move.store, first_.get());
  EXPECT_EQ(plan.move.at, 4096 + 6_sectors);
  EXPECT_EQ(plan.move.body, 2_sectors);
  plan.reset();
  EXPECT_EQ(table.plan({24_sectors, 1_sectors}, {}, plan).answer, Answer::failed);
}

TEST_F(TableTargetTest, LinesCanShareATarget) {
  auto shared = std::make_shared<SlowTarget>(16_sectors, 16_sectors, 16_sectors);
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, shared, 8_sectors));
  parts.push_back(part(8, 8, shared));
  TableTarget table(std::move(parts));
  Plan plan;
  EXPECT_EQ(table.plan({1_sectors, 30_sectors}, {}, plan).length, 7_sectors);
  EXPECT_EQ(shared->planned, (Range{9_sectors, 7_sectors}));
  EXPECT_EQ(plan.owner, shared.get());
  plan.reset();
  EXPECT_EQ(table.plan({8_sectors, 8_sectors}, {}, plan).length, 8_sectors);
  EXPECT_EQ(shared->planned, (Range{0, 8_sectors}));

  FlushPlan flush;
  table.capture(flush);
  EXPECT_EQ(shared->captures, 1);
  Queue queue;
  EXPECT_TRUE(table.close(queue).ok());
  EXPECT_EQ(shared->closes, 1);
}

TEST_F(TableTargetTest, AFlushReachesEveryStoreOnce) {
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, std::make_shared<LinearTarget>(first_, "/1", Range{0, 8_sectors}, true)));
  parts.push_back(part(8, 8, std::make_shared<LinearTarget>(second_, "/2", Range{0, 8_sectors}, true)));
  parts.push_back(part(16, 8, std::make_shared<LinearTarget>(first_, "/1", Range{8192, 8_sectors}, true)));
  TableTarget table(std::move(parts));
  FlushPlan flush;
  table.capture(flush);
  EXPECT_THAT(flush.rounds[0].syncs, UnorderedElementsAre(first_.get(), second_.get()));
}

TEST_F(TableTargetTest, ClosesEveryTargetAndKeepsTheFirstError) {
  auto first = std::make_shared<SlowTarget>(8_sectors, 0, 1);
  auto second = std::make_shared<SlowTarget>(8_sectors, 0, 1);
  first->close_status = IoStatus::error(ENOSPC);
  second->close_status = IoStatus::error(EIO);
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, first));
  parts.push_back(part(8, 8, second));
  TableTarget table(std::move(parts));
  Queue queue;
  EXPECT_EQ(table.close(queue), IoStatus::error(ENOSPC));
  EXPECT_EQ(second->closes, 1);
}

TEST_F(TableTargetTest, IsWritableWhenAllLinesAre) {
  EXPECT_TRUE(four_lines().writable());
  std::vector<TableTarget::Part> parts;
  parts.push_back(part(0, 8, std::make_shared<ZeroTarget>(8_sectors, true)));
  parts.push_back(part(8, 8, std::make_shared<ZeroTarget>(8_sectors, false)));
  EXPECT_FALSE(TableTarget(std::move(parts)).writable());
}

TEST_F(TableTargetTest, PrintsItself) {
  EXPECT_EQ(four_lines().status().name, "table");
  EXPECT_EQ(four_lines().status().table, "0 8 linear\n8 16 zero\n24 8 error\n32 8 linear\n");
}

}  // namespace
}  // namespace oxbow
