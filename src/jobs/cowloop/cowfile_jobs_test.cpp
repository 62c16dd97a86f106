// SPDX-License-Identifier: Apache-2.0
// The tools on files that were put down byte by byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "formats/cowloop/testing/cowfile_bytes.h"
#include "jobs/cowloop/check_cowfile.h"
#include "jobs/cowloop/create_cowfile.h"
#include "jobs/cowloop/merge_cowfile.h"
#include "jobs/cowloop/repair_cowfile.h"
#include "os/boot_id.h"
#include "stores/blocking.h"
#include "stores/testing/store_model.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

using oxbow::testing::TestFolder;
using testing::base_of;
using testing::block_of;
using testing::Bytes;
using testing::CowfileBytes;
using testing::fingerprint_bytes;

constexpr std::uint64_t k_all_ones = ~std::uint64_t{0};

// Thread safety: none.
class CowfileJobs : public ::testing::Test {
 protected:
  std::string put(const std::string& name, const Bytes& bytes) {
    const std::string path = folder_.path(name);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  std::string path_of(const std::string& name) { return folder_.path(name); }
  static Bytes get(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    Bytes bytes(std::filesystem::file_size(path));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  // Why it fails, and that nothing of the file was changed by it.
  template <typename Job>
  std::string refusal(const std::string& path, Job job) {
    const Bytes before = get(path);
    const auto done = job();
    EXPECT_EQ(get(path), before);
    return done ? "done" : done.error().why();
  }
  std::string repair_refusal(const Bytes& bytes, bool force = false) {
    const std::string path = put("cow", bytes);
    return refusal(path, [&] { return repair_cowfile(queue_, path, {.force = force}); });
  }

  TestFolder folder_;
  Queue queue_;
};

TEST_F(CowfileJobs, CreateWritesWhatTheSpecificationSays) {
  const Bytes base = base_of(20000 * 1024 + 100);
  const std::string rdo = put("rdo", base);
  for (const bool wide : {true, false}) {
    const std::string path = path_of(wide ? "wide" : "narrow");
    const auto made = create_cowfile(
        queue_, {.base = rdo, .path = path, .layout = wide ? Layout::bytes_8 : Layout::bytes_4});
    ASSERT_TRUE(made) << made.error().text();
    EXPECT_EQ(made->cut_off, 100U);
    const CowfileBytes expected{.wide = wide, .blocks = 20000, .fingerprint = fingerprint_bytes(base)};
    EXPECT_EQ(get(path), expected.make());
  }
}

TEST_F(CowfileJobs, CreateTakesAnEmptyFileForNone) {
  const std::string rdo = put("rdo", base_of(4096));
  const std::string path = put("cow", {});
  ASSERT_TRUE(create_cowfile(queue_, {.base = rdo, .path = path}));
  EXPECT_EQ(refusal(path, [&] { return create_cowfile(queue_, {.base = rdo, .path = path}); }),
            "it exists already, and is not an empty file");
}

TEST_F(CowfileJobs, CreateRefusesWhatNoPairCanBe) {
  const auto why = [&](const CreateCowfile& spec) {
    const auto made = create_cowfile(queue_, spec);
    EXPECT_FALSE(std::filesystem::exists(spec.path));
    return made ? "made" : made.error().text();
  };
  const std::string path = path_of("cow");
  EXPECT_EQ(why({.base = put("empty", {}), .path = path}),
            "cannot create cowfile: " + path_of("empty") + ": the read-only file is empty");
  EXPECT_EQ(why({.base = put("tiny", Bytes(1000)), .path = path}),
            "cannot create cowfile: " + path_of("tiny") +
                ": the read-only file has 1000 bytes, less than a block of 1024");
  EXPECT_EQ(
      why({.base = folder_.path("."), .path = path}),
      "cannot create cowfile: " + folder_.path(".") + ": it is a directory, not a file or block device");
  EXPECT_EQ(why({.base = "/dev/null", .path = path}),
            "cannot create cowfile: /dev/null: it is neither a regular file nor a block device");
}

TEST_F(CowfileJobs, SparseFilesOf4TiB) {
  const std::string rdo = put("rdo", base_of(8192));
  std::filesystem::resize_file(rdo, (std::uint64_t{4} << 40) + 5);
  const std::string path = path_of("cow");
  EXPECT_EQ(create_cowfile(queue_, {.base = rdo, .path = path, .layout = Layout::bytes_4}).error().why(),
            "the read-only file has 4398046511109 bytes, and a cowfile of the 32-bit layout can only be of "
            "less than 4 "
            "TiB");
  const auto made = create_cowfile(queue_, {.base = rdo, .path = path});
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_EQ(made->head.base_blocks, std::uint64_t{1} << 32);
  EXPECT_EQ(std::filesystem::file_size(path), (std::uint64_t{512} << 20) + 1024);
  // Its very last block, and one behind 2^31, were written and not marked.
  {
    const auto store = FileStore::open(path, {.writable = true});
    Head dirty = made->head;
    dirty.dirty = true;
    ASSERT_TRUE(write_head(queue_, "w", **store, dirty));
    ASSERT_TRUE(run_blocking(queue_, [&](Io& io) { return (*store)->grow(io, dirty.file_bytes()); }).ok());
    for (const std::uint64_t block : {(std::uint64_t{1} << 31) + 77, (std::uint64_t{1} << 32) - 1})
      ASSERT_TRUE(write_blocking(queue_, **store, dirty.data_offset + (block * 1024), block_of(5)).ok());
  }
  std::vector<Range> corrected;
  const auto repaired =
      repair_cowfile(queue_, path, {.on_corrected = [&](Range blocks) { corrected.push_back(blocks); }});
  ASSERT_TRUE(repaired) << repaired.error().text();
  EXPECT_EQ(corrected,
            (std::vector<Range>{{(std::uint64_t{1} << 31) + 77, 1}, {(std::uint64_t{1} << 32) - 1, 1}}));
  const auto info = cowfile_info(queue_, path);
  ASSERT_TRUE(info) << info.error().text();
  EXPECT_EQ(info->head.used_blocks, 2U);
  EXPECT_EQ(info->contradiction, std::nullopt);
  EXPECT_LT(info->allocated_bytes, 1U << 20);
  auto merge = CowfileMerge::open(queue_, rdo, path);
  ASSERT_TRUE(merge) << merge.error().text();
  EXPECT_EQ((*merge)->blocks(), 2U);
  ASSERT_TRUE((*merge)->run(Afterwards::empty, {}));
  std::ifstream merged(rdo, std::ios::binary);
  merged.seekg((((std::int64_t{1} << 31) + 77) * 1024) - 1);
  char bytes[3] = {9, 9, 9};
  merged.read(bytes, 3);
  EXPECT_EQ(std::string(bytes, 3), std::string("\0\5\5", 3));
  EXPECT_EQ(std::filesystem::file_size(rdo), (std::uint64_t{4} << 40) + 5);
}

TEST_F(CowfileJobs, InfoTellsWhatTheFileIs) {
  CowfileBytes file{.wide = false, .flags = 1, .data = {{3, block_of(7)}, {19, block_of(0)}}};
  auto info = cowfile_info(queue_, put("cow", file.make()));
  ASSERT_TRUE(info) << info.error().text();
  EXPECT_EQ(info->head.layout, Layout::bytes_4);
  EXPECT_TRUE(info->head.dirty);
  EXPECT_EQ(info->survey.used, 2U);
  EXPECT_EQ(info->file_bytes, file.make().size());
  file.flags = 0;
  file.used = 5;
  info = cowfile_info(queue_, put("cow", file.make()));
  EXPECT_EQ(info->contradiction, "its cowused is 5, and 2 bits of its bitmap are set");
}

std::vector<std::string> texts(const CowfileCheck& check) {
  std::vector<std::string> found;
  for (const Finding& each : check.findings)
    found.push_back(std::string(name_of(each.gravity)) + ": " + each.where + ": " + each.why);
  return found;
}

TEST_F(CowfileJobs, CheckFindsWhatIsWrong) {
  const Bytes base = base_of(20 * 1024);
  const std::string rdo = put("rdo", base);
  const auto found = [&](const CowfileBytes& file, const CheckOptions& options = {}) {
    const auto check = check_cowfile(queue_, put("cow", file.make()), options);
    EXPECT_TRUE(check) << check.error().text();
    EXPECT_EQ(check->damaged(), !check->findings.empty() && check->findings[0].gravity == Gravity::damage);
    return texts(*check);
  };
  CowfileBytes file{.fingerprint = fingerprint_bytes(base), .data = {{3, block_of(7)}, {19, block_of(1)}}};
  using Texts = std::vector<std::string>;
  EXPECT_EQ(found(file, {.base = rdo, .data = true}), Texts{});
  file.flags = 1;
  EXPECT_EQ(found(file), Texts{"damage: head: it is dirty: its bitmap may lack blocks that were written"});
  file.used = k_all_ones;
  EXPECT_EQ(found(file),
            Texts{"note: head: it was not closed, but its bitmap was kept in order: it needs no repair"});
  file.flags = 0;
  file.used = 3;
  EXPECT_EQ(found(file), Texts{"damage: head: cowused is 3, and 2 bits of the bitmap are set"});
  file.used = 2;
  file.more_bits = {25};
  EXPECT_EQ(found(file), Texts{"damage: bitmap: bit 25 is set, and rdoblocks is 20"});
  file.more_bits = {};
  file.length = file.data_at() + (19 * 1024) + 1000;
  EXPECT_EQ(found(file),
            Texts{"damage: blocks: the file ends at byte 24552, and 1 blocks that its bitmap names lie "
                  "beyond"});
  file.length = 1500;
  EXPECT_EQ(
      found(file),
      (Texts{"damage: bitmap: the file ends at byte 1500, and with mapsize 1024 it reaches to byte 2048",
             "damage: blocks: the file ends at byte 1500, and 2 blocks that its bitmap names lie beyond"}));
  file.length = 0;
  file.fingerprint ^= 1;
  const auto other = found(file, {.base = rdo});
  ASSERT_EQ(other.size(), 1U);
  EXPECT_EQ(other[0].find("damage: head: its rdofingerprint is 0x"), 0U);
}

TEST_F(CowfileJobs, CheckOfDataCountsUnmarkedBlocks) {
  const CowfileBytes file{
      .used = 1, .data = {{3, block_of(7)}, {9, block_of(1)}, {10, block_of(1)}}, .less_bits = {9, 10}};
  const auto check = check_cowfile(queue_, put("cow", file.make()), {.data = true});
  ASSERT_TRUE(check) << check.error().text();
  EXPECT_EQ(check->unmarked, 2U);
  EXPECT_EQ(check->used, 1U);
}

TEST_F(CowfileJobs, RepairMarksEveryBlockThatHoldsSomething) {
  for (const bool wide : {true, false}) {
    CowfileBytes file{.wide = wide, .flags = 1, .blocks = 9000, .fingerprint = 0xffffffff81020304, .used = 1};
    for (const std::uint64_t block : {0U, 3U, 7U, 8U, 100U, 8191U, 8192U, 8999U})
      file.data[block] = block_of(0);
    for (const std::uint64_t block : {3U, 7U, 8U, 8192U, 8999U})
      file.data[block][block % 1024] = std::byte{1};
    file.less_bits = {3, 7, 8, 8191, 8192, 8999};
    const std::string path = put("cow", file.make());
    std::vector<Range> corrected;
    RepairCowfile options{.dry_run = true,
                          .on_corrected = [&](Range blocks) { corrected.push_back(blocks); }};
    const Bytes before = get(path);
    auto report = repair_cowfile(queue_, path, options);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_EQ(report->corrected, 5U);
    EXPECT_EQ(report->after.used_blocks, 7U);
    EXPECT_EQ(get(path), before) << "of a dry run";
    const std::vector<Range> wanted{{3, 1}, {7, 2}, {8192, 1}, {8999, 1}};
    EXPECT_EQ(corrected, wanted);
    corrected.clear();
    options.dry_run = false;
    report = repair_cowfile(queue_, path, options);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_EQ(corrected, wanted);
    file.flags = 0;
    file.used = 7;
    file.less_bits = {8191};  // of zeros: known by its bit alone
    EXPECT_EQ(get(path), file.make());
  }
}

TEST_F(CowfileJobs, RepairStopsWhereTheDeviceEnds) {
  CowfileBytes file{
      .flags = 1, .blocks = 8192, .used = 0, .data = {{8191, block_of(7)}}, .less_bits = {8191}};
  Bytes bytes = file.make();
  bytes.resize(file.data_at() + (8192 + 5000) * 1024, std::byte{0xaa});
  const std::string path = put("cow", bytes);
  const auto report = repair_cowfile(queue_, path, {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->corrected, 1U);
  EXPECT_EQ(report->after.used_blocks, 1U);
  const Bytes after = get(path);
  EXPECT_TRUE(std::equal(bytes.begin() + static_cast<long>(file.data_at()), bytes.end(),
                         after.begin() + static_cast<long>(file.data_at()), after.end()));
  EXPECT_EQ(after[1024 + 1023], std::byte{0x80});
  EXPECT_EQ(after[2048], std::byte{0});
}

TEST_F(CowfileJobs, RepairOfShortFiles) {
  CowfileBytes file{.flags = 1, .blocks = 9000, .used = 0, .data = {{2, block_of(7)}, {40, block_of(8)}}};
  file.less_bits = {40};
  Bytes bytes = file.make();
  bytes.resize(bytes.size() - 100);  // within block 40, which isn't marked
  auto report = repair_cowfile(queue_, put("cow", bytes), {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->corrected, 1U);
  EXPECT_EQ(report->blocks_added, 1U);
  EXPECT_EQ(get(path_of("cow")).size(), file.make().size());
  ASSERT_TRUE(check_cowfile(queue_, path_of("cow"), {}));
  EXPECT_TRUE(check_cowfile(queue_, path_of("cow"), {})->findings.empty());

  bytes.resize(1024 + 1000);  // within the bitmap
  report = repair_cowfile(queue_, put("cow", bytes), {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->bitmap_added, 1048U);
  EXPECT_EQ(report->blocks_added, 1U);
  EXPECT_EQ(get(path_of("cow")).size(), file.data_at() + 3 * 1024);
  EXPECT_TRUE(check_cowfile(queue_, path_of("cow"), {})->findings.empty());

  bytes.resize(1024);
  report = repair_cowfile(queue_, put("cow", bytes), {.dry_run = true});
  EXPECT_EQ(report->bitmap_added, 2048U);
  EXPECT_EQ(get(path_of("cow")), bytes);
}

TEST_F(CowfileJobs, RepairClearsBitsBehindTheLastBlock) {
  const CowfileBytes file{
      .flags = 1, .blocks = 9003, .used = 0, .data = {{9002, block_of(7)}}, .more_bits = {9003, 16383}};
  const auto report = repair_cowfile(queue_, put("cow", file.make()), {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->cleared, 2U);
  EXPECT_EQ(report->after.used_blocks, 1U);
  EXPECT_TRUE(check_cowfile(queue_, path_of("cow"), {})->findings.empty());
}

TEST_F(CowfileJobs, RepairOfCleanFilesIsAskedForByForce) {
  CowfileBytes file{.used = 1, .data = {{3, block_of(7)}, {4, block_of(8)}}, .less_bits = {4}};
  const std::string path = put("cow", file.make());
  auto report = repair_cowfile(queue_, path, {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_FALSE(report->needed);
  EXPECT_EQ(get(path), file.make());
  report = repair_cowfile(queue_, path, {.force = true});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->corrected, 1U);
  file.used = 2;
  file.less_bits = {};
  EXPECT_EQ(get(path), file.make());
}

TEST_F(CowfileJobs, RepairRefusals) {
  CowfileBytes file{.data = {{3, block_of(7)}}};
  file.used = 5;
  EXPECT_EQ(repair_refusal(file.make()),
            "it is not dirty, but its cowused is 5, and 1 bits of its bitmap are set: --force repairs it");
  file.used = 1;
  file.flags = 2;
  EXPECT_EQ(repair_refusal(file.make(), true),
            "it is packed, and can't be repaired so: oxbow unpack comes first");
  Bytes other = file.make();
  other[0] = std::byte{0};
  EXPECT_EQ(repair_refusal(other, true), "its magic is 0x574f4300, and a cowfile's is 0x574f437f");
}

TEST_F(CowfileJobs, RepairOfAFileKeptInOrderCountsAlone) {
  CowfileBytes file{
      .flags = 1, .used = k_all_ones, .data = {{3, block_of(7)}, {4, block_of(8)}}, .less_bits = {4}};
  Bytes bytes = file.make();
  bytes[512] = bytes[528] = std::byte{0xee};  // of another boot
  auto report = repair_cowfile(queue_, put("cow", bytes), {});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->corrected, 0U) << "what is not marked was not flushed";
  file.flags = 0;
  file.used = 1;
  EXPECT_EQ(get(path_of("cow")), file.make());

  const auto boot = boot_id();
  std::ranges::transform(boot, bytes.begin() + 512,
                         [](std::uint8_t each) { return static_cast<std::byte>(each); });
  EXPECT_EQ(repair_refusal(bytes),
            "a process that had it open was killed, and what it had written may be newer than the file: "
            "serving it goes "
            "on with that; --force takes the file as it is");
  report = repair_cowfile(queue_, put("cow", bytes), {.force = true});
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->corrected, 1U);
}

// Thread safety: none.
class CowfileMerges : public CowfileJobs {
 protected:
  CowfileMerges() : base_(base_of(20 * 1024 + 300)), rdo_(put("rdo", base_)) {
    file_.fingerprint = fingerprint_bytes(base_);
    file_.data = {{0, block_of(7)}, {3, block_of(0)}, {4, block_of(8)}, {19, block_of(9)}};
  }
  Bytes merged() const {
    Bytes bytes = base_;
    for (const auto& [block, data] : file_.data)
      std::ranges::copy(data, bytes.begin() + static_cast<long>(block * 1024));
    return bytes;
  }
  std::string merge_refusal(const Bytes& bytes) {
    const std::string path = put("cow", bytes);
    const std::string why = refusal(path, [&] { return CowfileMerge::open(queue_, rdo_, path); });
    EXPECT_EQ(get(rdo_), base_);
    return why;
  }

  Bytes base_;
  std::string rdo_;
  CowfileBytes file_;
};

TEST_F(CowfileMerges, WritesTheBlocksAndLeavesAFreshCowfile) {
  for (const bool wide : {true, false}) {
    file_.wide = wide;
    put("rdo", base_);
    const std::string path = put("cow", file_.make());
    auto merge = CowfileMerge::open(queue_, rdo_, path);
    ASSERT_TRUE(merge) << merge.error().text();
    EXPECT_EQ((*merge)->blocks(), 4U);
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    ASSERT_TRUE((*merge)->run(Afterwards::empty, [&](std::uint64_t now, std::uint64_t all) {
      done = now;
      total = all;
    }));
    EXPECT_EQ(done, 4096U);
    EXPECT_EQ(total, 4096U);
    merge->reset();
    EXPECT_EQ(get(rdo_), merged());
    CowfileBytes fresh{.wide = wide, .fingerprint = fingerprint_bytes(merged())};
    fresh.length = file_.make().size();
    EXPECT_EQ(get(path), fresh.make());
  }
}

TEST_F(CowfileMerges, KeepsTheBlocksWhenAsked) {
  const std::string path = put("cow", file_.make());
  auto merge = CowfileMerge::open(queue_, rdo_, path);
  ASSERT_TRUE(merge) << merge.error().text();
  ASSERT_TRUE((*merge)->run(Afterwards::keep, {}));
  EXPECT_EQ(get(rdo_), merged());
  file_.fingerprint = fingerprint_bytes(merged());
  EXPECT_EQ(get(path), file_.make());
}

TEST_F(CowfileMerges, Refusals) {
  file_.flags = 1;
  EXPECT_EQ(merge_refusal(file_.make()),
            "it is dirty: it was not closed, and its bitmap may lack blocks that were written; oxbow repair "
            "completes "
            "it");
  file_.used = k_all_ones;
  Bytes bytes = file_.make();
  bytes[512] = std::byte{1};
  EXPECT_EQ(merge_refusal(bytes), "it is dirty: it was not closed; oxbow repair makes it clean");
  file_.flags = 2;
  file_.used = 4;
  EXPECT_EQ(merge_refusal(file_.make()), "it is packed: oxbow unpack makes a cowfile of it that can be used");
  file_.flags = 0;
  file_.used = 3;
  EXPECT_EQ(merge_refusal(file_.make()), "its cowused is 3, and 4 bits of its bitmap are set");
  file_.used = 4;
  file_.length = 4096 + 4096;
  EXPECT_EQ(merge_refusal(file_.make()),
            "it ends at byte 8192, and its bitmap says that it has block 4, which reaches to byte 9216");
  file_.length = 0;
  file_.blocks = 21;
  EXPECT_EQ(merge_refusal(file_.make()),
            "its rdoblocks is 21, and the read-only file " + rdo_ + " has 20 blocks of 1024 bytes");
  file_.blocks = 20;
  file_.fingerprint ^= 0x100;
  EXPECT_NE(
      merge_refusal(file_.make()).find("it is not the file that the cowfile belongs to, or it was changed"),
      std::string::npos);
  const std::string path = put("cow", file_.make());
  const auto same = CowfileMerge::open(queue_, path, path);
  ASSERT_FALSE(same);
  EXPECT_EQ(same.error().why(), "it is in use by another process");
}

TEST_F(CowfileMerges, FilesInUseAreRefused) {
  const std::string path = put("cow", file_.make());
  {
    const auto held = FileStore::open(rdo_, {.lock = LockMode::shared});
    EXPECT_EQ(merge_refusal(file_.make()), "it is in use by another process");
  }
  const auto held = FileStore::open(path, {.lock = LockMode::shared});
  EXPECT_EQ(merge_refusal(file_.make()), "it is in use by another process");
}

TEST_F(CowfileMerges, OneThatWasCutOffIsResumedOverItsBaseAlone) {
  const std::string path = put("cow", file_.make());
  {
    const auto cow = FileStore::open(path, {.writable = true});
    const auto base = FileStore::open(rdo_, {});
    Head head = *read_head(queue_, "w", **cow);
    head.merging = *fingerprint_of_rest(queue_, "w", **base, **cow, head);
    ASSERT_TRUE(write_head(queue_, "w", **cow, head));
  }
  Bytes half = base_;
  std::ranges::fill_n(half.begin(), 600, std::byte{0x77});  // of block 0, half written
  put("rdo", half);
  EXPECT_EQ(repair_cowfile(queue_, path, {.force = true}).error().why(),
            "a merge into its read-only file was begun and is not finished: resume it with oxbow merge");
  Bytes other = half;
  other[1024] = std::byte{0x55};
  put("rdo", other);
  EXPECT_FALSE(CowfileMerge::open(queue_, rdo_, path));
  put("rdo", half);
  auto merge = CowfileMerge::open(queue_, rdo_, path);
  ASSERT_TRUE(merge) << merge.error().text();
  EXPECT_TRUE((*merge)->resumed());
  ASSERT_TRUE((*merge)->run(Afterwards::empty, {}));
  EXPECT_EQ(get(rdo_), merged());
}

}  // namespace
}  // namespace oxbow::cowloop
