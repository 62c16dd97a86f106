// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "device/device.h"
#include "formats/cowloop/testing/cowfile_bytes.h"
#include "os/queue.h"
#include "stores/open_stores.h"
#include "support/effort.h"
#include "targets/cowloop/cowloop_target.h"
#include "targets/cowloop/open_cowloop.h"

namespace oxbow {
namespace {

using cowloop::testing::base_of;
using cowloop::testing::block_of;
using cowloop::testing::Bytes;
using cowloop::testing::CowfileBytes;
using cowloop::testing::fingerprint_bytes;

constexpr std::uint64_t k_block = 1024;
constexpr std::uint64_t k_blocks = 300;

// A directory with a read-only file, which is 700 bytes longer than its blocks.
class CowloopTargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "oxbow-cowloop-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    base_ = base_of(k_blocks * k_block + 700);
    put("base", base_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  void put(const std::string& name, const Bytes& bytes) const {
    std::ofstream(path(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  [[nodiscard]] Bytes get(const std::string& name) const {
    Bytes bytes(std::filesystem::file_size(path(name)));
    std::ifstream(path(name), std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  [[nodiscard]] CowfileBytes fresh() const {
    return {.blocks = k_blocks, .fingerprint = fingerprint_bytes(base_)};
  }

  // Why the pair can't be opened.
  [[nodiscard]] std::string refusal(const std::string& cowfile, bool writable = true) {
    OpenStores stores;
    OpenContext context{.queue = queue_, .stores = stores, .writable = writable};
    auto pair = open_cowloop(context, path("base"), path(cowfile));
    if (pair) return "it was opened";
    const std::string text = pair.error().text();
    const std::string start = "cannot open cowfile: " + path(cowfile) + ": ";
    EXPECT_TRUE(text.starts_with(start)) << text;
    return text.substr(std::min(start.size(), text.size()));
  }
  void open(const std::string& cowfile, bool writable = true) {
    device_.reset();
    stores_ = std::make_unique<OpenStores>();
    OpenContext context{.queue = queue_, .stores = *stores_, .writable = writable};
    auto pair = open_cowloop(context, path("base"), path(cowfile));
    ASSERT_TRUE(pair) << pair.error().text();
    pair_ = *pair;
    device_ = std::make_unique<Device>(*pair, Device::Options{.name = "pair", .read_only = !writable});
  }
  void close() {
    ASSERT_TRUE(device_->close(queue_).ok());
    device_.reset();
    pair_.reset();
  }
  // As a kill without live state would end it.
  void drop() {
    device_.reset();
    pair_.reset();
  }

  [[nodiscard]] Bytes read(std::uint64_t at, std::size_t length) {
    Bytes out(length, std::byte{0xEE});
    const IoStatus status = run_blocking(queue_, [&](Io& io) { return device_->read(io, at, out); });
    EXPECT_TRUE(status.ok()) << status.error_number();
    return out;
  }
  void write(std::uint64_t at, const Bytes& data, bool durable = false) {
    const IoStatus status = run_blocking(queue_, [&](Io& io) {
      return device_->write(io, at, data, durable ? Durability::when_completed : Durability::with_flush);
    });
    EXPECT_TRUE(status.ok()) << status.error_number();
  }
  void zero(std::uint64_t at, std::uint64_t length, bool allocate = false) {
    const IoStatus status = run_blocking(
        queue_, [&](Io& io) { return device_->zero(io, {at, length}, allocate, Durability::with_flush); });
    EXPECT_TRUE(status.ok()) << status.error_number();
  }
  void discard(std::uint64_t at, std::uint64_t length) {
    const IoStatus status = run_blocking(
        queue_, [&](Io& io) { return device_->discard(io, {at, length}, Durability::with_flush); });
    EXPECT_TRUE(status.ok()) << status.error_number();
  }
  void flush() {
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device_->flush(io); }).ok());
  }
  [[nodiscard]] Bytes of_base(std::uint64_t at, std::size_t length) const {
    const auto from = base_.begin() + static_cast<std::ptrdiff_t>(at);
    return {from, from + static_cast<std::ptrdiff_t>(length)};
  }
  // The head's flags and cowused, of the 8-byte layout.
  struct Marks {
    unsigned flags;
    std::uint64_t used;
    friend bool operator==(const Marks&, const Marks&) = default;
  };
  [[nodiscard]] Marks marks(const std::string& name) const {
    const Bytes file = get(name);
    std::uint64_t used = 0;
    for (std::size_t i = 0; i < 8; ++i) used |= std::to_integer<std::uint64_t>(file[48 + i]) << (8 * i);
    return {std::to_integer<unsigned>(file[6]), used};
  }
  [[nodiscard]] bool bit(const std::string& name, std::uint64_t block) const {
    return (std::to_integer<unsigned>(get(name)[1024 + (block / 8)]) >> (block % 8) & 1U) != 0;
  }

  Queue queue_;
  std::string directory_;
  Bytes base_;
  std::unique_ptr<OpenStores> stores_;
  std::shared_ptr<CowloopTarget> pair_;
  std::unique_ptr<Device> device_;
};

TEST_F(CowloopTargetTest, ShowsTheReadOnlyFileWithoutItsTrailingPart) {
  put("cow", fresh().make());
  open("cow");
  EXPECT_EQ(device_->size(), k_blocks * k_block);
  EXPECT_EQ(read(0, k_blocks * k_block), of_base(0, k_blocks * k_block));
}

TEST_F(CowloopTargetTest, ShowsBlocksOfTheCowfileWhereItHasThem) {
  CowfileBytes file = fresh();
  file.data[3] = block_of(7);
  file.data[299] = block_of(0);
  put("cow", file.make());
  open("cow", false);
  EXPECT_EQ(read(3 * k_block, k_block), block_of(7));
  EXPECT_EQ(read(299 * k_block, k_block), block_of(0));
  EXPECT_EQ(read(2 * k_block, k_block), of_base(2 * k_block, k_block));
}

TEST_F(CowloopTargetTest, ReadsAnOverLongFileAndItsHoles) {
  CowfileBytes file = fresh();
  file.data[1] = block_of(9);
  put("cow", file.make());
  std::filesystem::resize_file(path("cow"), 10'000'000);
  open("cow");
  EXPECT_EQ(read(0, 3 * k_block).size(), 3 * k_block);
  EXPECT_EQ(read(k_block, k_block), block_of(9));
  write(k_block * 299, block_of(4));
  close();
  EXPECT_EQ(std::filesystem::file_size(path("cow")), 10'000'000);
  EXPECT_EQ(refusal("cow"), "it was opened");
}

TEST_F(CowloopTargetTest, CompletesWhatAWriteLeavesOfABlock) {
  put("cow", fresh().make());
  open("cow");
  // Whole KiB from an odd sector on: two blocks are covered in part.
  write(512, Bytes(1024, std::byte{5}));
  EXPECT_EQ(read(0, 512), of_base(0, 512));
  EXPECT_EQ(read(512, 1024), Bytes(1024, std::byte{5}));
  EXPECT_EQ(read(1536, 512), of_base(1536, 512));
  close();
  EXPECT_EQ(marks("cow"), (Marks{0, 2}));
  const Bytes file = get("cow");
  const auto at = static_cast<std::ptrdiff_t>(fresh().data_at());
  EXPECT_TRUE(std::equal(file.begin() + at, file.begin() + at + 512, base_.begin()));
}

TEST_F(CowloopTargetTest, MarksTheFileBeforeTheFirstNewBlockCompletes) {
  put("cow", fresh().make());
  open("cow");
  EXPECT_EQ(marks("cow"), (Marks{0, 0}));
  write(0, block_of(1));
  EXPECT_EQ(marks("cow"), (Marks{1, cowloop::k_in_order}));
  EXPECT_FALSE(bit("cow", 0));
  flush();
  EXPECT_TRUE(bit("cow", 0));
  EXPECT_EQ(marks("cow"), (Marks{1, cowloop::k_in_order}));
  close();
  EXPECT_EQ(marks("cow"), (Marks{0, 1}));
}

TEST_F(CowloopTargetTest, SettlesToACleanHeadAndIsMarkedAgain) {
  put("cow", fresh().make());
  open("cow");
  EXPECT_FALSE(pair_->untidy());
  write(0, block_of(1));
  EXPECT_TRUE(pair_->untidy());
  device_->suspend(queue_);
  EXPECT_TRUE(device_->tidy_up(queue_).ok());
  device_->resume();
  EXPECT_FALSE(pair_->untidy());
  EXPECT_EQ(marks("cow"), (Marks{0, 1}));
  EXPECT_TRUE(bit("cow", 0));
  const Bytes settled = get("cow");
  EXPECT_TRUE(std::all_of(settled.begin() + 512, settled.begin() + 576,
                          [](std::byte each) { return each == std::byte{0}; }));
  write(0, block_of(2));  // no new block
  EXPECT_EQ(marks("cow"), (Marks{0, 1}));
  write(k_block, block_of(3));
  EXPECT_EQ(marks("cow"), (Marks{1, cowloop::k_in_order}));
  close();
  EXPECT_EQ(marks("cow"), (Marks{0, 2}));
}

TEST_F(CowloopTargetTest, KeepsZeroBlocksThatWereFlushedWithoutACleanEnd) {
  CowfileBytes file = fresh();
  file.data[5] = block_of(9);
  put("cow", file.make());
  open("cow");
  zero(0, 2 * k_block);
  zero(5 * k_block, k_block);
  write(7 * k_block, block_of(0));
  discard(10 * k_block + 1, 3 * k_block);
  flush();
  drop();
  open("cow");
  EXPECT_EQ(read(0, 2 * k_block), Bytes(2 * k_block));
  EXPECT_EQ(read(5 * k_block, k_block), block_of(0));
  EXPECT_EQ(read(7 * k_block, k_block), block_of(0));
  EXPECT_EQ(read(10 * k_block, k_block), of_base(10 * k_block, k_block));
  EXPECT_EQ(read(11 * k_block, 2 * k_block), Bytes(2 * k_block));
  EXPECT_EQ(read(13 * k_block, k_block), of_base(13 * k_block, k_block));
  EXPECT_EQ(pair_->used_blocks(), 6U);
  close();  // without a change
  EXPECT_EQ(marks("cow"), (Marks{0, 6}));
}

TEST_F(CowloopTargetTest, ShowsNothingOfWhatLiesAtThePlaceOfAnAbsentBlock) {
  CowfileBytes file = fresh();
  file.data[5] = block_of(9);
  file.data[6] = block_of(9);
  file.less_bits = {5, 6};
  file.used = 0;
  put("cow", file.make());
  open("cow");
  EXPECT_EQ(read(5 * k_block, k_block), of_base(5 * k_block, k_block));
  zero(5 * k_block, k_block);
  write(6 * k_block + 100, Bytes(1, std::byte{1}));
  EXPECT_EQ(read(5 * k_block, k_block), block_of(0));
  EXPECT_EQ(read(6 * k_block, 100), of_base(6 * k_block, 100));
}

TEST_F(CowloopTargetTest, WritesThe32BitLayoutAsItIs) {
  CowfileBytes file = fresh();
  file.wide = false;
  put("cow", file.make());
  open("cow");
  write(k_block, block_of(3));
  flush();
  const Bytes marked = get("cow");
  EXPECT_EQ(marked[6], std::byte{1});
  EXPECT_TRUE(std::all_of(marked.begin() + 28, marked.begin() + 32,
                          [](std::byte each) { return each == std::byte{0xFF}; }));
  EXPECT_EQ(marked[32], std::byte{0});
  close();
  file.data[1] = block_of(3);
  file.length = 0;
  Bytes expected = file.make();
  expected.resize(file.data_at() + k_blocks * k_block);
  EXPECT_EQ(get("cow"), expected);
}

TEST_F(CowloopTargetTest, LeavesAFileAloneThatIsOnlyRead) {
  CowfileBytes file = fresh();
  file.data[5] = block_of(9);
  file.flags = 1;
  file.used = cowloop::k_in_order;
  put("cow", file.make());
  open("cow", false);
  EXPECT_EQ(read(5 * k_block, k_block), block_of(9));
  EXPECT_EQ(
      run_blocking(queue_, [&](Io& io) { return device_->write(io, 0, block_of(1), Durability::with_flush); })
          .error_number(),
      EPERM);
  close();
  EXPECT_EQ(get("cow"), file.make());
}

TEST_F(CowloopTargetTest, RefusesWhatIsNoPair) {
  put("none", Bytes(5000));
  EXPECT_EQ(refusal("none"), "its magic is 0x00000000, and a cowfile's is 0x574f437f");
  CowfileBytes file = fresh();
  file.flags = 2;
  put("packed", file.make());
  EXPECT_EQ(refusal("packed"), "it is packed: oxbow unpack makes a cowfile of it that can be used");
  file = fresh();
  file.flags = 1;
  put("dirty", file.make());
  EXPECT_EQ(refusal("dirty"),
            "it is dirty: it was not closed, and its bitmap may lack blocks that were written; --repair, or "
            "oxbow repair, finds those that are not all zeros");
  file = fresh();
  file.used = 3;
  put("used", file.make());
  EXPECT_EQ(refusal("used"), "its cowused is 3, and 0 bits of its bitmap are set");
  file = fresh();
  file.fingerprint ^= 1;
  put("other", file.make());
  EXPECT_NE(refusal("other").find("its rdofingerprint is 0x"), std::string::npos);
  file = fresh();
  file.blocks = k_blocks + 1;
  put("longer", file.make());
  EXPECT_EQ(refusal("longer"),
            "its rdoblocks is 301, and the read-only file " + path("base") + " has 300 blocks of 1024 bytes");
  Bytes newer = fresh().make();
  newer[4] = std::byte{2};
  put("newer", newer);
  EXPECT_EQ(refusal("newer"), "its version is 2, and oxbow knows version 1 alone");
  const Bytes cut = fresh().make();
  put("cut", {cut.begin(), cut.end() - 1});
  EXPECT_EQ(refusal("cut"), "it ends at byte 2047, and its bitmap of mapsize 1024 reaches to byte 2048");
  for (const char* name : {"none", "packed", "dirty", "used", "other", "longer", "newer", "cut"}) {
    const Bytes before = get(name);
    (void)refusal(name);
    EXPECT_EQ(get(name), before) << name;
  }
}

TEST_F(CowloopTargetTest, RefusesAReadOnlyFileWithoutABlock) {
  put("cow", fresh().make());
  put("base", {});
  OpenContext context{.queue = queue_, .stores = *(stores_ = std::make_unique<OpenStores>())};
  auto pair = open_cowloop(context, path("base"), path("cow"));
  ASSERT_FALSE(pair);
  EXPECT_EQ(pair.error().text(), "cannot open cowfile: " + path("base") + ": the read-only file is empty");
}

TEST_F(CowloopTargetTest, RefusesAFileThatIsInUse) {
  put("cow", fresh().make());
  open("cow");
  EXPECT_EQ(refusal("cow"), "it is in use by another process");
}

// Threads that share blocks, each with sectors of its own, with flushes and tidying up beside them.
TEST_F(CowloopTargetTest, NeighboursInABlockKeepApart) {
  constexpr std::uint64_t k_threads = 4;
  constexpr std::uint64_t k_sector = 512;
  const std::uint64_t seed = test::seed();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  put("cow", fresh().make());
  open("cow");
  Bytes model = of_base(0, k_blocks * k_block);
  const auto work = [&](std::uint64_t number) {
    Queue queue;
    std::mt19937_64 random(seed + number);
    for (std::uint64_t i = 0; i < test::repetitions(1500, 15000); ++i) {
      const std::uint64_t sector = random() % (model.size() / k_sector / k_threads) * k_threads + number;
      const auto value = static_cast<std::byte>(random() % 3 == 0 ? 0 : random());
      const Bytes data(k_sector, value);
      std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(sector * k_sector));
      const auto durability = random() % 8 == 0 ? Durability::when_completed : Durability::with_flush;
      const IoStatus status = run_blocking(queue, [&](Io& io) {
        if (value == std::byte{0}) return device_->zero(io, {sector * k_sector, k_sector}, false, durability);
        return device_->write(io, sector * k_sector, data, durability);
      });
      ASSERT_TRUE(status.ok()) << status.error_number();
      if (random() % 50 != 0) continue;
      ASSERT_TRUE(run_blocking(queue, [&](Io& io) { return device_->flush(io); }).ok());
    }
  };
  std::vector<std::jthread> threads;
  for (std::uint64_t number = 0; number < k_threads; ++number) threads.emplace_back(work, number);
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    device_->suspend(queue_);
    EXPECT_TRUE(device_->tidy_up(queue_).ok());
    EXPECT_EQ(marks("cow").flags, 0U);
    device_->resume();
  }
  threads.clear();
  EXPECT_EQ(read(0, model.size()), model);
  close();
  open("cow");
  EXPECT_EQ(read(0, model.size()), model);
}

// Writes, zeros and discards of bytes, sectors and blocks, with flushes, clean ends and unclean ones after a flush,
// against an array.
TEST_F(CowloopTargetTest, DoesWhatAnArrayOfBytesDoes) {
  const std::uint64_t seed = test::seed();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t bound) { return random() % bound; };
  CowfileBytes file = fresh();
  file.wide = below(2) == 0;
  put("cow", file.make());
  Bytes model = of_base(0, k_blocks * k_block);
  open("cow");
  for (std::uint64_t step = 0; step < test::repetitions(3000, 30000); ++step) {
    const std::uint64_t unit = below(3) == 0 ? 1 : below(2) == 0 ? 512 : k_block;
    const std::uint64_t at = below(model.size() / unit) * unit;
    const std::uint64_t length = std::min<std::uint64_t>((1 + below(20)) * unit, model.size() - at);
    const auto from = model.begin() + static_cast<std::ptrdiff_t>(at);
    const std::uint64_t what = below(100);
    if (what < 45) {
      const Bytes data(length, static_cast<std::byte>(random()));
      std::ranges::copy(data, from);
      write(at, data, below(5) == 0);
    } else if (what < 55) {
      std::fill_n(from, length, std::byte{0});
      zero(at, length, below(3) == 0);
    } else if (what < 65) {
      const std::uint64_t first = (at + k_block - 1) / k_block * k_block;
      const std::uint64_t end = (at + length) / k_block * k_block;
      if (first < end)
        std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), end - first, std::byte{0});
      discard(at, length);
    } else if (what < 90) {
      ASSERT_EQ(read(at, length), Bytes(from, from + static_cast<std::ptrdiff_t>(length))) << "step " << step;
    } else if (what < 97) {
      flush();
    } else if (what < 98) {
      flush();
      drop();
      open("cow");
    } else {
      close();
      open("cow");
    }
  }
  ASSERT_EQ(read(0, model.size()), model);
  close();
}

}  // namespace
}  // namespace oxbow
