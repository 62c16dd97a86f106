// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "formats/cowloop/testing/cowfile_bytes.h"
#include "stores/blocking.h"
#include "stores/file/file_store.h"
#include "stores/ram/ram_store.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

using testing::base_of;
using testing::block_of;
using testing::Bytes;
using testing::CowfileBytes;
using testing::fingerprint_bytes;

constexpr std::uint64_t k_tib = std::uint64_t{1} << 40;

// Stores in memory, and what the checks say about them. Thread safety: none.
class CowloopChecks : public ::testing::Test {
 protected:
  std::shared_ptr<RamStore> store_of(const Bytes& bytes) {
    auto store = RamStore::create({.size_bytes = bytes.size()});
    EXPECT_TRUE(store) << store.error().text();
    EXPECT_TRUE(write_blocking(queue_, **store, 0, bytes).ok());
    return *store;
  }
  // Why a file of `bytes` is refused, by all checks that need it alone, in their order.
  std::string refusal(const Bytes& bytes, IfDirty if_dirty = IfDirty::refuse) {
    const auto store = store_of(bytes);
    const auto head = read_head(queue_, "cannot open", *store);
    if (!head) return head.error().why();
    for (const auto& checked : {check_length("cannot open", *store, *head),
                                check_state("cannot open", *store, *head, if_dirty, "mend it")}) {
      if (!checked) return checked.error().why();
    }
    const auto checked = check_bitmap(queue_, "cannot open", *store, *head);
    return checked ? "" : checked.error().why();
  }

  Queue queue_;
};

TEST_F(CowloopChecks, SoundFilesAreAccepted) {
  for (const bool wide : {true, false}) {
    EXPECT_EQ(refusal(CowfileBytes{.wide = wide}.make()), "") << "fresh: it ends before its data begins";
    const CowfileBytes file{.wide = wide, .data = {{3, block_of(7)}, {19, block_of(0)}}};
    EXPECT_EQ(refusal(file.make()), "");
    CowfileBytes longer = file;
    longer.length = file.data_at() + 50 * 1024;
    EXPECT_EQ(refusal(longer.make()), "") << "what is behind the last block is nobody's";
  }
}

TEST_F(CowloopChecks, StatesThatAreRefused) {
  CowfileBytes file{.data = {{3, block_of(7)}}};
  file.flags = 2;
  file.packed = true;
  EXPECT_EQ(refusal(file.make()), "it is packed: oxbow unpack makes a cowfile of it that can be used");
  file.packed = false;
  file.flags = 1;
  EXPECT_EQ(refusal(file.make()),
            "it is dirty: it was not closed, and its bitmap may lack blocks that were written; mend it");
  EXPECT_EQ(refusal(file.make(), IfDirty::accept), "");
  file.used = ~std::uint64_t{0};
  EXPECT_EQ(refusal(file.make()), "") << "kept in order";
}

TEST_F(CowloopChecks, WhatIsTooShortIsRefused) {
  const CowfileBytes file{.blocks = 9000, .data = {{3, block_of(7)}, {8999, block_of(8)}}};
  const Bytes whole = file.make();
  const auto cut = [&](std::size_t length) {
    return Bytes(whole.begin(), whole.begin() + static_cast<long>(length));
  };
  EXPECT_EQ(refusal(cut(1)), "its magic is 0x0000007f, and a cowfile's is 0x574f437f");
  EXPECT_EQ(refusal(cut(4)), "it has 4 bytes, and the head of a cowfile has 1024");
  EXPECT_EQ(refusal(cut(1023)), "it has 1023 bytes, and the head of a cowfile has 1024");
  EXPECT_EQ(refusal(cut(1024)), "it ends at byte 1024, and its bitmap of mapsize 2048 reaches to byte 3072");
  EXPECT_EQ(refusal(cut(3071)), "it ends at byte 3071, and its bitmap of mapsize 2048 reaches to byte 3072");
  EXPECT_EQ(refusal(cut(3072)),
            "it ends at byte 3072, and its bitmap says that it has block 3, which reaches to byte "
            "8192");
  EXPECT_EQ(
      refusal(cut(8192)),
      "it ends at byte 8192, and its bitmap says that it has block 8999, which reaches to byte 9220096");
  EXPECT_EQ(
      refusal(cut(whole.size() - 1)),
      "it ends at byte 9220095, and its bitmap says that it has block 8999, which reaches to byte 9220096");
}

TEST_F(CowloopChecks, BitmapsThatContradictTheHeadAreRefused) {
  CowfileBytes file{.data = {{3, block_of(7)}, {4, block_of(8)}}};
  file.used = 3;
  EXPECT_EQ(refusal(file.make()), "its cowused is 3, and 2 bits of its bitmap are set");
  file.used = 2;
  file.more_bits = {20};
  EXPECT_EQ(refusal(file.make()), "bit 20 of its bitmap is set, and its rdoblocks is 20");
  file.more_bits = {8191};
  EXPECT_EQ(refusal(file.make()), "bit 8191 of its bitmap is set, and its rdoblocks is 20");
}

TEST_F(CowloopChecks, PackedFilesAreMeasuredByTheirNumberOfBlocks) {
  const CowfileBytes file{.flags = 2, .data = {{3, block_of(7)}, {14, block_of(8)}}, .packed = true};
  Bytes bytes = file.make();
  EXPECT_EQ(bytes.size(), file.data_at() + 2048);
  bytes.pop_back();
  EXPECT_EQ(refusal(bytes), "it ends at byte 6143, and its 2 packed blocks (cowused) reach to byte 6144");
}

TEST_F(CowloopChecks, BaseIsHeldAgainstTheHead) {
  const Bytes bytes = base_of(20 * 1024 + 700);
  const auto base = store_of(bytes);
  const auto said = [&](const CowfileBytes& file) {
    const auto store = store_of(file.make());
    const auto head = read_head(queue_, "cannot open", *store);
    const auto checked = check_base(queue_, "cannot open", *store, *head, *base);
    return checked ? "" : checked.error().why();
  };
  const std::uint64_t right = fingerprint_bytes(bytes);
  EXPECT_EQ(said({.blocks = 20, .fingerprint = right}), "") << "a part of a block is cut off";
  EXPECT_EQ(cut_off_bytes(base->size()), 700U);
  EXPECT_EQ(said({.blocks = 20, .fingerprint = right & 0xffffffff}), "");
  EXPECT_EQ(said({.wide = false, .blocks = 20, .fingerprint = right}), "");
  EXPECT_EQ(
      said({.blocks = 21, .fingerprint = right}),
      "its rdoblocks is 21, and the read-only file " + base->describe() + " has 20 blocks of 1024 bytes");
  EXPECT_EQ(said({.blocks = 20, .fingerprint = right ^ 1}).find("its rdofingerprint is 0x"), 0U);
}

TEST_F(CowloopChecks, MergeThatWasCutOffIsRefusedAndKnowsItsBase) {
  Bytes bytes = base_of(20 * 1024);
  const CowfileBytes file{
      .blocks = 20, .fingerprint = fingerprint_bytes(bytes), .data = {{0, block_of(7)}, {2, block_of(8)}}};
  const auto store = store_of(file.make());
  Head head = *read_head(queue_, "cannot open", *store);
  const auto base = store_of(bytes);
  head.merging = fingerprint_of_rest(queue_, "cannot open", *base, *store, head).value();
  Bytes rest;
  for (const std::size_t block : {1U, 3U, 4U, 5U})
    rest.insert(rest.end(), bytes.begin() + static_cast<long>(block * 1024),
                bytes.begin() + static_cast<long>(block * 1024 + 1024));
  EXPECT_EQ(head.merging, static_cast<std::uint32_t>(fingerprint_bytes(rest)));
  ASSERT_TRUE(write_head(queue_, "cannot open", *store, head));
  EXPECT_EQ(read_head(queue_, "cannot open", *store)->merging, head.merging);
  EXPECT_EQ(check_state("cannot open", *store, head, IfDirty::accept, "").error().why(),
            "a merge into its read-only file was begun and is not finished: resume it with oxbow merge");
  bytes[0] = bytes[2500] = std::byte{0xee};
  EXPECT_TRUE(check_base(queue_, "cannot open", *store, head, *store_of(bytes))) << "what is merged differs";
  bytes[3 * 1024] = std::byte{0xee};
  const auto other = check_base(queue_, "cannot open", *store, head, *store_of(bytes));
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().why().find("its fingerprint of the blocks that it doesn't have is 0x"), 0U);
}

TEST_F(CowloopChecks, FreshFileIsAHeadAndAHole) {
  const auto store = store_of(Bytes(1));
  const Head head = fresh_head(Layout::bytes_4, 20000, 0x81020304);
  ASSERT_TRUE(write_fresh(queue_, "cannot make", *store, head));
  EXPECT_EQ(store->size(), 1024U + 3072U);
  CowfileBytes same{.wide = false, .blocks = 20000, .fingerprint = 0x81020304};
  Bytes found(store->size());
  ASSERT_TRUE(read_blocking(queue_, *store, 0, found).ok());
  EXPECT_EQ(found, same.make());
}

TEST_F(CowloopChecks, BasesWithoutABlockAreRefused) {
  const auto tiny = store_of(Bytes(1023, std::byte{1}));
  EXPECT_EQ(base_blocks("cannot open", *tiny, Layout::bytes_8).error().why(),
            "the read-only file has 1023 bytes, less than a block of 1024");
  EXPECT_EQ(base_blocks("cannot open", *store_of(Bytes(1024)), Layout::bytes_4).value(), 1U);
}

TEST_F(CowloopChecks, FingerprintOfASparseFileReadsItsDataAlone) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "SKIP: this sanitizer leaves no address space for 4 TiB";
#endif
  auto store = RamStore::create({.size_bytes = 4 * k_tib});
  ASSERT_TRUE(store) << store.error().text();
  Bytes bytes = block_of(0);
  bytes[5] = std::byte{0x91};
  std::uint64_t at = 0;
  for (const std::uint64_t step : {k_tib, k_tib, k_tib, std::uint64_t{1024}}) {
    at += step;
    ASSERT_TRUE(write_blocking(queue_, **store, at, bytes).ok());
  }
  EXPECT_EQ(fingerprint_of(queue_, "cannot open", **store).value(), 0x91919191U);
  EXPECT_EQ(base_blocks("cannot open", **store, Layout::bytes_8).value(), std::uint64_t{1} << 32);
  EXPECT_EQ(base_blocks("cannot open", **store, Layout::bytes_4).error().why(),
            "the read-only file has 4398046511104 bytes, and a cowfile of the 32-bit layout can only be of "
            "less than 4 "
            "TiB");
}

TEST_F(CowloopChecks, SparseBitmapOf4TiBIsSurveyedWithoutOverflow) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "SKIP: this sanitizer leaves no address space for 4 TiB";
#endif
  Head head = fresh_head(Layout::bytes_8, std::uint64_t{1} << 32, 0);
  head.used_blocks = 3;
  auto store = RamStore::create({.size_bytes = head.file_bytes()});
  ASSERT_TRUE(store) << store.error().text();
  const Bytes three{std::byte{0x81}, std::byte{0}, std::byte{0x40}};
  ASSERT_TRUE(write_blocking(queue_, **store, 1024 + (std::uint64_t{1} << 29) - 3, three).ok());
  std::vector<Range> runs;
  ASSERT_TRUE(for_each_run(queue_, "cannot read", **store, head, [&](Range run) -> Result<void> {
    runs.push_back(run);
    return {};
  }));
  const std::uint64_t last = (std::uint64_t{1} << 32) - 24;
  EXPECT_EQ(runs, (std::vector<Range>{{last, 1}, {last + 7, 1}, {last + 22, 1}}));
  const auto survey = survey_bitmap(queue_, "cannot read", **store, head);
  ASSERT_TRUE(survey);
  EXPECT_EQ(contradiction(*survey, head, (*store)->size()), std::nullopt);
  EXPECT_EQ(block_at(head, runs[2].offset), head.data_offset + 4 * k_tib - 2048);
  head.used_blocks = 4;
  EXPECT_EQ(*contradiction(*survey_bitmap(queue_, "cannot read", **store, head), head, (*store)->size()),
            "its cowused is 4, and 3 bits of its bitmap are set");
  EXPECT_TRUE(check_bitmap(queue_, "cannot open", **store, head)) << "too long to be counted at an opening";
}

}  // namespace
}  // namespace oxbow::cowloop
