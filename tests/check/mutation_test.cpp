// SPDX-License-Identifier: Apache-2.0
// Every bit of a layer's metadata counts: one that flips is named by the check, or it provably changes nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <map>

#include "check/scene.h"
#include "support/effort.h"

namespace oxbow::check {
namespace {

using What = Structure::What;

const std::uint64_t k_seed = test::seed(20261120);

// Bytes of a structure that only say who wrote it when, or what the layer's contents are: another value is another
// sound layer, not a damaged one, when its checksum is right.
bool is_statement(const Structure& structure, std::uint64_t offset) {
  const auto within = [&](std::size_t start, std::size_t length) {
    return offset >= start && offset < start + length;
  };
  switch (structure.what) {
    case What::page:
      return within(offsetof(native::StatePage, leaves), sizeof(native::StatePage::leaves)) ||
             within(offsetof(native::StatePage, epoch), 24);  // epoch, flush_number, ring_seq
    case What::record:
      return within(offsetof(native::FlushRecord, epoch), 24) ||  // epoch, flush_number, ring_tail
             within(offsetof(native::FlushRecord, count), 12) ||  // count, ring_seq
             within(offsetof(native::FlushRecord, pages), sizeof(native::FlushRecord::pages));
    case What::holder:
      return within(offsetof(native::Holder, pid), offsetof(native::Holder, reserved) - 8);
    case What::superblock:
      break;
  }
  return false;
}

// Whether the report has a finding that the layer as it was has not.
bool tells_more(const Result<CheckReport>& report, const Result<CheckReport>& before) {
  if (!report || report->unusable) return true;
  return text_of(report) != text_of(before);
}

struct Flip {
  const Structure* structure;
  std::uint64_t offset;
  unsigned bit;
};

std::ostream& operator<<(std::ostream& out, const Flip& flip) {
  return out << flip.structure->name << " byte " << flip.offset << " bit " << flip.bit;
}

class Mutation : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] bool in_use() const { return GetParam(); }
  [[nodiscard]] Scene::Disk disk() { return in_use() ? scene_.in_use() : scene_.clean(); }
  [[nodiscard]] Flip draw() {
    const auto& all = scene_.structures();
    const Structure& structure = all[scene_.random.below(all.size())];
    // Half of them at its head, where the fields are.
    const std::uint64_t most = scene_.random.below(2) == 0 ? 208 : structure.length;
    return {&structure, scene_.random.below(most), static_cast<unsigned>(scene_.random.below(8))};
  }

  Scene scene_{k_seed};
};

TEST_P(Mutation, TheSceneItselfIsSound) {
  const auto report = scene_.check(disk());
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(text_of(report), in_use()
                                 ? "note: superblock: in use or not closed cleanly; opening it for writing "
                                   "recovers it\n"
                                 : "");
  EXPECT_EQ(report->pages_checked, 3U);
}

// Rot: the checksum tells. The finding says where, which, and both checksums, and what of the device is lost.
TEST_P(Mutation, EveryFlippedBitIsNamedWithBothChecksums) {
  const auto before = scene_.meaning(disk());
  const std::uint64_t count = test::repetitions(2000, 60'000);
  for (std::uint64_t i = 0; i < count; ++i) {
    const Flip flip = draw();
    const auto damaged = disk();
    damaged->flip_bit(flip.structure->at + flip.offset, flip.bit);
    const auto report = scene_.check(damaged);
    ASSERT_TRUE(report) << report.error().text();
    const Finding* finding = finding_about(*report, flip.structure->name);
    ASSERT_NE(finding, nullptr) << flip << ", seed " << k_seed << ":\n" << text_of(report);
    ASSERT_EQ(finding->stored, (Range{flip.structure->at, flip.structure->length})) << flip;
    const bool magic = flip.structure->what == What::superblock && flip.offset < native::k_magic.size();
    ASSERT_TRUE(magic || (finding->checksum && finding->checksum->stored != finding->checksum->computed))
        << flip << ":\n"
        << text_of(report);
    const Meaning after = scene_.meaning(damaged);
    if (flip.structure->what != What::page) {
      ASSERT_EQ(report->damaged(), false) << flip << ":\n" << text_of(report);
      ASSERT_EQ(after.pages, before.pages) << flip;
      continue;
    }
    const bool lost = after.pages[flip.structure->page].damaged;
    ASSERT_EQ(report->damaged(), lost) << flip << ":\n" << text_of(report);
    ASSERT_EQ(finding->page, flip.structure->page) << flip;
    ASSERT_EQ(finding->slot, flip.structure->slot) << flip;
    const std::uint64_t start = flip.structure->page * k_page_span;
    const std::vector<Range> range{{start, std::min(k_page_span, k_size_bytes - start)}};
    ASSERT_EQ(finding->lost, lost ? range : std::vector<Range>{}) << flip;
  }
}

// Behind the checksum: what is not named either changes nothing, or makes another sound layer of it.
TEST_P(Mutation, EveryBitIsLookedAtBehindTheChecksum) {
  const auto sound = scene_.check(disk());
  const Meaning before = scene_.meaning(disk());
  std::map<std::string, std::uint64_t> silent;
  std::uint64_t named = 0;
  const std::uint64_t count = test::repetitions(3000, 100'000);
  for (std::uint64_t i = 0; i < count; ++i) {
    const Flip flip = draw();
    const auto damaged = disk();
    const Range whole{flip.structure->at, flip.structure->length};
    damaged->flip_bit(whole.offset + flip.offset, flip.bit);
    scene_.reseal(*damaged, *flip.structure);
    if (Scene::get(*damaged, whole) == Scene::get(*disk(), whole)) continue;  // it was the checksum itself
    const auto report = scene_.check(damaged);
    if (tells_more(report, sound)) {
      ++named;
      continue;
    }
    ASSERT_TRUE(is_statement(*flip.structure, flip.offset)) << flip << " is not named, seed " << k_seed;
    ++silent[flip.structure->name];
  }
  EXPECT_GT(named, count / 3);
  EXPECT_FALSE(silent.contains("superblock copy 0") || silent.contains("superblock copy 1"));
}

// Between the structures there is nothing.
TEST_P(Mutation, WhatTheFormatDoesNotLookAtChangesNothing) {
  const auto sound = scene_.check(disk());
  const Meaning before = scene_.meaning(disk());
  const std::uint64_t count = test::repetitions(300, 3'000);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t at = scene_.random.below(native::geometry(1, 12).ring_offset);
    const auto holds = [&](const Structure& each) { return at >= each.at && at < each.at + each.length; };
    if (std::ranges::any_of(scene_.structures(), holds)) continue;
    const auto damaged = disk();
    damaged->flip_bit(at, 3);
    ASSERT_EQ(text_of(scene_.check(damaged)), text_of(sound)) << at;
    ASSERT_TRUE(scene_.meaning(damaged).same_as(before)) << at;
  }
}

// A slot in the place of another, checksum and all.
TEST_P(Mutation, MisdirectedPagesAreNamed) {
  for (const Structure& from : scene_.structures()) {
    for (const Structure& to : scene_.structures()) {
      if (from.what != What::page || to.what != What::page || &from == &to) continue;
      const auto bytes = Scene::get(*disk(), {from.at, from.length});
      if (std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; })) continue;
      const auto damaged = disk();
      Scene::put(*damaged, to.at, bytes);
      const auto report = scene_.check(damaged);
      ASSERT_TRUE(report);
      const Finding* finding = finding_about(*report, to.name);
      ASSERT_NE(finding, nullptr) << from.name << " in the place of " << to.name;
      EXPECT_EQ(finding->why.substr(0, finding->why.find_first_of(";:")), "it says that it is " + from.name);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, Mutation, testing::Bool(),
                         [](const auto& each) { return each.param ? "InUse" : "Clean"; });

}  // namespace
}  // namespace oxbow::check
