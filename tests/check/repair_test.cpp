// SPDX-License-Identifier: Apache-2.0
// What `repair` mends, what it leaves alone and says so, and that it leaves a layer no worse wherever it is cut off.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "check/scene.h"
#include "jobs/repair_layer.h"
#include "support/effort.h"

namespace oxbow::check {
namespace {

using What = Structure::What;
using sim::SimStore;

class Repair : public testing::Test {
 protected:
  // In the sector that every later version of the structure writes anew: else a torn write could undo the rot.
  void damage(const Scene::Disk& disk, const std::string& name, std::uint64_t offset = 100) {
    disk->flip_bit(scene_.structure(name).at + offset, 3);
  }
  [[nodiscard]] RepairReport repair(const Scene::Disk& disk, RepairOptions options = {}) {
    const auto store = scene_.store(disk);
    if (!options.recover) options.recover = [this, store] { return scene_.recover(store); };
    auto report = repair_layer(scene_.queue, *store, options);
    EXPECT_TRUE(report) << report.error().text();
    return report ? std::move(*report) : RepairReport{};
  }
  [[nodiscard]] std::string refusal(const Scene::Disk& disk, const RepairOptions& options) {
    const auto report = repair_layer(scene_.queue, *scene_.store(disk), options);
    EXPECT_FALSE(report);
    return report ? "" : report.error().text();
  }
  [[nodiscard]] static std::string steps_of(const RepairReport& report) {
    std::string out;
    for (const RepairStep& step : report.steps) out += step.where + ": " + step.what + "\n";
    return out;
  }
  // All of the device that the scene wrote, and what each cluster of it reads as.
  [[nodiscard]] std::string letters(const Scene::Disk& disk) {
    std::string out;
    for (const std::uint64_t at : {std::uint64_t{0}, std::uint64_t{8192}, std::uint64_t{16384}, k_page_span,
                                   k_page_span + 8192, 2 * k_page_span}) {
      const auto bytes = scene_.read(disk, at, 1);
      out += !bytes ? '!' : bytes->front() == '\0' ? '.' : bytes->front();
    }
    return out;
  }
  // Nothing but the holder differs.
  void expect_untouched(const Scene::Disk& disk, const Scene::Disk& before) {
    for (const Structure& each : scene_.structures()) {
      if (each.what == What::holder) continue;
      EXPECT_EQ(Scene::get(*disk, {each.at, each.length}), Scene::get(*before, {each.at, each.length}))
          << each.name;
    }
  }

  Scene scene_{test::seed(7)};
};

TEST_F(Repair, MendsWhatIsStoredTwice) {
  for (const std::string name :
       {"superblock copy 0", "superblock copy 1", "flush record 0", "flush record 1"}) {
    const auto disk = scene_.clean();
    const Meaning before = scene_.meaning(disk);
    damage(disk, name);
    const auto found = scene_.check(disk);
    ASSERT_TRUE(found && found->redundancy_lost() && !found->damaged()) << name << ":\n" << text_of(found);
    const RepairReport report = repair(disk);
    EXPECT_TRUE(report.sound()) << name;
    EXPECT_EQ(report.steps.size(), 1U) << steps_of(report);
    EXPECT_EQ(report.steps.front().where, name);
    EXPECT_EQ(text_of(scene_.check(disk)), "") << name;
    EXPECT_EQ(scene_.meaning(disk).pages, before.pages);
    EXPECT_EQ(letters(disk), "ad.bec");
  }
}

TEST_F(Repair, SaysWhatItWrites) {
  const auto disk = scene_.clean();
  damage(disk, "superblock copy 0");
  damage(disk, "flush record 0");
  damage(disk, "flush record 1");
  damage(disk, "holder");
  EXPECT_EQ(steps_of(repair(disk)),
            "superblock copy 0: written again from copy 1\n"
            "flush record 0: written again: flush 7, which names no page\n"
            "flush record 1: written again: flush 8, which names no page\n");
  EXPECT_EQ(text_of(scene_.check(disk)), "");
  EXPECT_EQ(letters(disk), "ad.bec");
  damage(disk, "holder");
  EXPECT_EQ(steps_of(repair(disk)), "holder: written again\n");
}

TEST_F(Repair, HasNothingToDoOnASoundLayer) {
  const auto disk = scene_.clean();
  const RepairReport report = repair(disk);
  EXPECT_TRUE(report.steps.empty() && report.sound());
  for (const Structure& each : scene_.structures()) {
    EXPECT_EQ(Scene::get(*disk, {each.at, each.length}), Scene::get(*scene_.clean(), {each.at, each.length}));
  }
}

TEST_F(Repair, ADryRunWritesNothing) {
  for (const bool in_use : {false, true}) {
    const auto disk = in_use ? scene_.in_use() : scene_.clean();
    for (const std::string name : {"superblock copy 0", "flush record 1", "state page 0 slot 0", "holder"})
      damage(disk, name);
    const auto store = scene_.store(disk);
    std::uint64_t changes = 0;
    store->observe = [&](const SimStore::Call& call) {
      changes += call.kind != sim::StoreCall::read ? 1 : 0;
    };
    RepairOptions options{.dry_run = true, .drop = {0}};
    options.recover = [] { return Result<void>{}; };
    if (in_use) options.drop.clear();  // the flush was writing page 0
    const auto report = repair_layer(scene_.queue, *store, options);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_FALSE(report->steps.empty());
    EXPECT_EQ(changes, 0U);
  }
}

TEST_F(Repair, RecoversFromAnUncleanEnd) {
  const auto disk = scene_.in_use();
  const RepairReport report = repair(disk);
  EXPECT_EQ(steps_of(report), "layer: recovered from its unclean end, and closed\n");
  EXPECT_TRUE(report.sound());
  EXPECT_EQ(text_of(scene_.check(disk)), "");
  EXPECT_EQ(letters(disk), "adfbec");
}

TEST_F(Repair, ATornSlotIsMendedByRecovery) {
  const auto disk = scene_.in_use();
  const auto before = scene_.check(disk);
  ASSERT_TRUE(before);
  // The one that the last flush was writing: excused by its record.
  for (const std::string name : {"state page 0 slot 0", "state page 0 slot 1"}) {
    const auto torn = scene_.in_use();
    damage(torn, name);
    const auto found = scene_.check(torn);
    ASSERT_TRUE(found);
    if (found->damaged()) continue;
    const RepairReport report = repair(torn);
    EXPECT_TRUE(report.sound()) << steps_of(report);
    EXPECT_EQ(text_of(scene_.check(torn)), "");
    EXPECT_EQ(letters(torn), "ad.bec");
    return;
  }
  FAIL() << "no slot is excused";
}

// The record of the last flush says which slot it wrote; that one is there, so the damaged one is older.
TEST_F(Repair, ASlotThatTheRecordsProveToBeOlderIsEmptied) {
  unsigned proven = 0;
  for (const std::string name : {"state page 0 slot 0", "state page 0 slot 1"}) {
    const auto disk = scene_.in_use();
    damage(disk, name);
    const auto found = scene_.check(disk);
    ASSERT_TRUE(found);
    if (!found->damaged()) continue;
    EXPECT_NE(finding_about(*found, name)->why.find("which the flush records prove to be the newest"),
              std::string::npos)
        << text_of(found);
    const RepairReport report = repair(disk);
    EXPECT_TRUE(report.sound());
    EXPECT_NE(steps_of(report).find(name + ": emptied; slot "), std::string::npos) << steps_of(report);
    EXPECT_EQ(letters(disk), "adfbec");
    EXPECT_EQ(text_of(scene_.check(disk)), "");
    ++proven;
  }
  EXPECT_EQ(proven, 1U);
}

// Which of two versions was the newest is not guessed.
TEST_F(Repair, AnOlderSlotIsNotTakenUnasked) {
  const auto disk = scene_.clean();
  damage(disk, "state page 0 slot 0");
  const auto before = std::make_shared<sim::SimDisk>(*disk);
  const RepairReport report = repair(disk);
  EXPECT_FALSE(report.sound());
  EXPECT_TRUE(report.steps.empty());
  ASSERT_EQ(report.left.size(), 1U);
  EXPECT_EQ(report.left.front().where, "state page 0 slot 0");
  EXPECT_EQ(report.left.front().lost, (std::vector<Range>{{0, k_page_span}}));
  EXPECT_FALSE(report.left.front().mendable);
  expect_untouched(disk, before);
  EXPECT_EQ(letters(disk), "!!!bec");
}

TEST_F(Repair, AnOlderSlotIsTakenWhenAskedFor) {
  for (const std::string name : {"state page 0 slot 0", "state page 0 slot 1"}) {
    const auto disk = scene_.clean();
    damage(disk, name);
    const RepairReport report = repair(disk, {.accept_older = {0}});
    EXPECT_TRUE(report.sound()) << name;
    ASSERT_EQ(report.steps.size(), 1U);
    EXPECT_EQ(report.steps.front().lost, (std::vector<Range>{{0, k_page_span}}));
    EXPECT_EQ(text_of(scene_.check(disk)), "");
    const std::string found = letters(disk);
    EXPECT_TRUE(found == "ad.bec" || found == "a..bec") << found;
    EXPECT_GT(scene_.meaning(disk).superblock.epoch, scene_.superblock.epoch) << "layers over it must notice";
  }
}

TEST_F(Repair, APageIsGivenUpWhenAskedFor) {
  const auto disk = scene_.clean();
  damage(disk, "state page 0 slot 0");
  damage(disk, "state page 0 slot 1");
  const RepairReport report = repair(disk, {.drop = {0}});
  EXPECT_EQ(steps_of(report), "state page 0: given up; the base shows through again\n");
  EXPECT_TRUE(report.sound());
  EXPECT_EQ(letters(disk), "...bec");
  EXPECT_EQ(text_of(scene_.check(disk)), "");
  EXPECT_GT(scene_.meaning(disk).superblock.epoch, scene_.superblock.epoch);
  const auto place = Scene::get(*disk, {scene_.superblock.data_offset, 4096});
  EXPECT_EQ(place, std::vector<std::byte>(4096)) << "its space is given back";
}

TEST_F(Repair, RefusesToGiveUpWhatIsSound) {
  const auto disk = scene_.clean();
  damage(disk, "state page 0 slot 0");
  damage(disk, "state page 1 slot 0");
  damage(disk, "state page 1 slot 1");
  const auto before = std::make_shared<sim::SimDisk>(*disk);
  EXPECT_EQ(refusal(disk, {.drop = {2}}), "cannot repair layer: work.oxb: state page 2 is not damaged");
  EXPECT_EQ(refusal(disk, {.accept_older = {99}}),
            "cannot repair layer: work.oxb: state page 99 is not damaged");
  EXPECT_EQ(
      refusal(disk, {.accept_older = {1}}),
      "cannot repair layer: work.oxb: state page 1 has no slot that is whole, so there is none to accept");
  EXPECT_EQ(refusal(disk, {.accept_older = {0}, .drop = {0}}),
            "cannot repair layer: work.oxb: state page 0 is named twice");
  for (const Structure& each : scene_.structures()) {
    EXPECT_EQ(Scene::get(*disk, {each.at, each.length}), Scene::get(*before, {each.at, each.length}));
  }
}

// A copy that is bad and was the newer one is not made from the older.
TEST_F(Repair, ASuperblockThatWasNewerIsNotReplaced) {
  const auto disk = scene_.in_use();
  // The session's superblock got to one copy only, and that one rotted.
  const auto old = Scene::get(*scene_.clean(), {native::k_apart_bytes, native::k_superblock_bytes});
  Scene::put(*disk, native::k_apart_bytes, old);
  damage(disk, "superblock copy 0");
  const auto found = scene_.check(disk);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->damaged());
  EXPECT_NE(text_of(found).find("but it was the newer one: state pages of epoch 4 were written after it"),
            std::string::npos)
      << text_of(found);
  const auto before = std::make_shared<sim::SimDisk>(*disk);
  const RepairReport report = repair(disk);
  EXPECT_FALSE(report.sound());
  EXPECT_EQ(Scene::get(*disk, {0, 4096}), Scene::get(*before, {0, 4096}));
}

TEST_F(Repair, BothSuperblocksBadIsBeyondRepair) {
  const auto disk = scene_.clean();
  damage(disk, "superblock copy 0");
  damage(disk, "superblock copy 1");
  const auto before = std::make_shared<sim::SimDisk>(*disk);
  const RepairReport report = repair(disk);
  ASSERT_TRUE(report.before.unusable);
  EXPECT_EQ(report.before.unusable->text(),
            "cannot open layer: work.oxb: superblock copy 0 is damaged: its checksum is wrong");
  EXPECT_EQ(report.before.findings.size(), 2U);
  EXPECT_FALSE(report.sound());
  expect_untouched(disk, before);
}

TEST_F(Repair, ALayerThatCannotBeRecoveredIsSaidToBeSo) {
  const auto disk = scene_.in_use();
  RepairOptions options;
  options.recover = [] {
    return std::unexpected(Error("cannot open layer", "work.oxb", "its base is gone"));
  };
  const RepairReport report = repair(disk, options);
  ASSERT_TRUE(report.not_recovered);
  EXPECT_EQ(report.not_recovered->text(), "cannot open layer: work.oxb: its base is gone");
  EXPECT_FALSE(report.sound());
}

// --- cut off ---

struct Case {
  const char* name;
  bool in_use;
  std::vector<std::string> damaged;
  RepairOptions options;
};

std::vector<Case> cases() {
  return {{"superblock", false, {"superblock copy 0"}, {}},
          {"other superblock", false, {"superblock copy 1"}, {}},
          {"record", false, {"flush record 0"}, {}},
          {"both records", false, {"flush record 0", "flush record 1"}, {}},
          {"all of it", false, {"superblock copy 1", "flush record 1", "holder"}, {}},
          {"unclean", true, {}, {}},
          {"proven or torn", true, {"state page 0 slot 0", "superblock copy 0"}, {}},
          {"torn or proven", true, {"state page 0 slot 1", "flush record 0"}, {}},
          {"older", false, {"state page 0 slot 0"}, {.accept_older = {0}}},
          {"drop", false, {"state page 0 slot 0", "state page 0 slot 1"}, {.drop = {0}}},
          {"drop with an older", false, {"state page 0 slot 1", "flush record 0"}, {.drop = {0}}}};
}

// Power fails, or the process is killed, at every call of a repair. What is found then is no worse than before: what
// could be read reads the same, and nothing else is damaged. A second repair ends what the first began.
TEST_F(Repair, CutOffAnywhereItLeavesTheLayerNoWorse) {
  std::uint64_t states = 0;
  for (const Case& each : cases()) {
    const auto start = each.in_use ? scene_.in_use() : scene_.clean();
    for (const std::string& name : each.damaged) damage(start, name);
    const std::string readable = letters(start);
    const auto found = scene_.check(start);
    ASSERT_TRUE(found);
    bool done = false;
    for (std::uint64_t stop = 0; !done; ++stop) {
      const std::uint64_t losses = test::repetitions(4, 40);
      for (std::uint64_t loss = 0; loss < losses; ++loss) {
        const auto disk = std::make_shared<sim::SimDisk>(*start);
        const auto store = scene_.store(disk);
        std::uint64_t calls = 0;
        store->observe = [&](const SimStore::Call& call) {
          if (call.kind != sim::StoreCall::read && calls++ == stop) store->kill();
        };
        RepairOptions options = each.options;
        options.recover = [&] { return scene_.recover(store); };
        (void)repair_layer(scene_.queue, *store, options);
        done = calls <= stop;
        const auto after = std::make_shared<sim::SimDisk>(*disk);
        after->forget_submitter();
        sim::RandomLoss power(scene_.random, *after);
        if (loss != 0) after->lose_power(power);  // else the process was killed, and the cache is still there
        ++states;
        const std::string context =
            std::string(each.name) + ", call " + std::to_string(stop) + ", loss " + std::to_string(loss);
        const std::string now = letters(after);
        const bool gives_up = !each.options.drop.empty() || !each.options.accept_older.empty();
        for (std::size_t i = 0; i < readable.size(); ++i) {
          if (readable[i] == '!') continue;
          ASSERT_EQ(now[i], readable[i]) << context << ": " << readable << " " << now;
        }
        const auto worse = scene_.check(after);
        ASSERT_TRUE(worse) << context << ": " << text_of(worse);
        ASSERT_FALSE(worse->unusable) << context;
        ASSERT_TRUE(found->damaged() || !worse->damaged()) << context << ":\n" << text_of(worse);
        // Once more, and to the end. What was given up already needs no word any more.
        RepairOptions again = gives_up && worse->damaged() ? each.options : RepairOptions{};
        EXPECT_TRUE(repair(after, again).sound()) << context;
        ASSERT_EQ(text_of(scene_.check(after)), "") << context;
      }
    }
  }
  std::printf("crash states: %llu\n", static_cast<unsigned long long>(states));
  EXPECT_GT(states, 200U);
}

// A medium that fails a write fails the repair, with its words; nothing is worse then either.
TEST_F(Repair, AFailedWriteIsAnError) {
  const auto disk = scene_.clean();
  damage(disk, "superblock copy 0");
  const auto store = scene_.store(disk);
  store->fault = [](const SimStore::Call& call) { return call.kind == sim::StoreCall::sync ? EIO : 0; };
  const auto report = repair_layer(scene_.queue, *store, {});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().text(), "cannot repair layer: work.oxb: Input/output error");
  EXPECT_EQ(letters(disk), "ad.bec");
}

}  // namespace
}  // namespace oxbow::check
