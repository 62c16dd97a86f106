// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/layer_head.h"

#include <gtest/gtest.h>

#include <memory>

#include "formats/native/codec.h"

namespace oxbow {
namespace {

using native::StatePage;

constexpr std::uint64_t k_page = 9;

// Two slots of a page, in a layer of epoch 5 that was not closed cleanly.
class ChoosePage : public ::testing::Test {
 protected:
  ChoosePage() {
    head_.superblock.epoch = 5;
    head_.superblock.absent_before = 2;
    head_.superblock.salt = 99;
    head_.superblock.state = native::LayerState::in_use;
  }
  std::unique_ptr<StatePage> slot(std::uint32_t number, std::uint64_t epoch, std::uint64_t flush) {
    auto page = std::make_unique<StatePage>();
    page->magic = native::k_page_magic;
    page->index = k_page;
    page->slot = number;
    page->epoch = epoch;
    page->flush_number = flush;
    native::seal(*page, head_.superblock.salt);
    return page;
  }
  static std::unique_ptr<StatePage> torn(std::unique_ptr<StatePage> page) {
    page->leaves[3][0] = 3;
    return page;
  }
  LayerHead head_;
  StatePage never_{};
};

TEST_F(ChoosePage, NeverWrittenIsEmpty) {
  const PageContent content = choose_page(never_, never_, k_page, head_);
  EXPECT_TRUE(content.empty);
  EXPECT_FALSE(content.damaged);
  EXPECT_EQ(content.next_slot, 0U);
}

TEST_F(ChoosePage, TheNewerOneCounts) {
  EXPECT_EQ(choose_page(*slot(0, 4, 9), *slot(1, 5, 2), k_page, head_).page.epoch, 5U);
  EXPECT_EQ(choose_page(*slot(0, 5, 3), *slot(1, 5, 2), k_page, head_).next_slot, 1U);
  EXPECT_EQ(choose_page(*slot(0, 5, 3), never_, k_page, head_).next_slot, 1U);
}

TEST_F(ChoosePage, ADeadSlotIsAsIfNeverWritten) {
  const PageContent content = choose_page(*slot(0, 1, 3), never_, k_page, head_);
  EXPECT_TRUE(content.empty);
  EXPECT_FALSE(content.damaged);
}

TEST_F(ChoosePage, ATornSlotIsExcusedOnlyByTheNewestRecord) {
  const auto good = slot(0, 5, 7);
  const auto bad = torn(slot(1, 5, 8));
  EXPECT_TRUE(choose_page(*good, *bad, k_page, head_).damaged) << "no record names it";
  head_.last_pages = {static_cast<std::uint32_t>(k_page)};
  EXPECT_TRUE(choose_page(*good, *bad, k_page, head_).damaged) << "the record names the other slot";
  head_.last_pages = {k_page | native::k_record_slot_bit};
  const PageContent content = choose_page(*good, *bad, k_page, head_);
  EXPECT_FALSE(content.damaged);
  EXPECT_TRUE(content.torn);
  EXPECT_EQ(content.page.flush_number, 7U);
  EXPECT_EQ(content.next_slot, 1U) << "the torn one is written next";
  head_.superblock.state = native::LayerState::clean;
  EXPECT_TRUE(choose_page(*good, *bad, k_page, head_).damaged) << "the layer was closed cleanly";
}

TEST_F(ChoosePage, AnInvalidStateIsDamage) {
  auto page = slot(0, 5, 7);
  page->leaves[0][0] = 0b10;
  native::seal(*page, head_.superblock.salt);
  EXPECT_TRUE(choose_page(*page, never_, k_page, head_).damaged);
}

}  // namespace
}  // namespace oxbow
