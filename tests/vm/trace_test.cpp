// SPDX-License-Identifier: Apache-2.0
// That the judge of the tests in the virtual machine notices what is lost, old, invented or torn.

#include "trace.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace oxbow::vm {
namespace {

using Content = std::vector<std::byte>;

constexpr std::uint64_t k_sectors = 16;

Content values(std::initializer_list<std::uint64_t> ids) {
  Content content(ids.size() * k_sector);
  std::uint64_t sector = 0;
  for (const std::uint64_t id : ids) {
    fill(std::span(content).subspan(sector * k_sector, k_sector), sector, id);
    ++sector;
  }
  return content;
}

// A trace in a file of its own: request 1 writes sectors 0 to 3, 2 sectors 2 and 3; flush 3 covers 1 alone.
class TraceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("oxbow-trace-" + std::to_string(::getpid()))).string();
    writer_.emplace(path_, k_sectors);
    writer_->mark(1);
    writer_->marked(1);
    writer_->sent({1, 'w', 0, 4, false});
    writer_->answered(1, 0);
    writer_->sent({3, 'f', 0, 0, false});
    writer_->sent({2, 'w', 2, 2, false});
    writer_->answered(2, 0);
    writer_->answered(3, 0);
    writer_->mark(2);
    writer_->marked(2);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // How many sectors are wrong.
  std::size_t wrong(const Content& content, std::uint64_t durable = 2, std::uint64_t possible = 2) {
    return Trace(path_, durable, possible).judge(content, 0).size();
  }

  std::string path_;
  std::optional<TraceWriter> writer_;
};

TEST_F(TraceTest, AcceptsWhatWasFlushedAndWhatIsNewer) {
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 0})), 0U);
  EXPECT_EQ(wrong(values({1, 1, 2, 2, 0})), 0U);
  EXPECT_EQ(wrong(values({1, 1, 1, 2, 0})), 0U) << "sectors are torn from each other";
}

TEST_F(TraceTest, NoticesWhatIsOlderThanTheFlush) {
  EXPECT_EQ(wrong(values({1, 0, 1, 1, 0})), 1U);
  EXPECT_EQ(Trace(path_, 2, 2).judge(values({1, 0}), 0).at(0),
            "sector 1 holds request 0, which is not as new as request 1 of those that wrote there");
  EXPECT_EQ(wrong(values({0, 0, 0, 0, 0}), 1, 2), 0U) << "nothing was flushed at mark 1";
}

TEST_F(TraceTest, NoticesWhatWasNeverWritten) {
  Content content = values({1, 1, 1, 1, 0});
  content[100] ^= std::byte{1};
  EXPECT_EQ(wrong(content), 1U);
  EXPECT_EQ(wrong(Content(5 * k_sector)), 5U) << "zeros";
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 2})), 1U) << "not of request 2";
}

TEST_F(TraceTest, NoticesWhatWasNotSentYet) {
  writer_->sent({4, 'w', 4, 1, false});
  writer_->answered(4, 0);
  writer_->mark(3);
  writer_->marked(3);
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 4}), 2, 2), 1U);
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 4}), 2, 3), 0U);
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 4}), 2, 0), 0U);
}

TEST_F(TraceTest, HoldsADurableWriteToItsPromise) {
  writer_->sent({4, 'w', 4, 1, true});
  writer_->sent({5, 'z', 5, 1, true});
  writer_->answered(4, 0);
  writer_->mark(3);
  writer_->marked(3);
  Content content = values({1, 1, 1, 1, 0, 0});
  EXPECT_EQ(wrong(content, 3, 3), 1U);
  content = values({1, 1, 1, 1, 4, 0});
  EXPECT_EQ(wrong(content, 3, 3), 0U);
  std::fill(content.end() - k_sector, content.end(), std::byte{0});
  EXPECT_EQ(wrong(content, 3, 3), 0U) << "the zeros may be there already";
  EXPECT_EQ(Trace(path_, 3, 3).promised(), 5U);
}

TEST_F(TraceTest, AFailedFlushPromisesNothingAndNothingSucceedsAfterIt) {
  writer_->sent({4, 'w', 4, 1, false});
  writer_->answered(4, 0);
  writer_->sent({5, 'f', 0, 0, false});
  writer_->sent({6, 'w', 6, 1, false});
  writer_->answered(5, 5);
  writer_->answered(6, 0);
  writer_->sent({7, 'w', 7, 1, false});
  writer_->answered(7, 5);
  writer_->mark(3);
  writer_->marked(3);
  EXPECT_EQ(wrong(values({1, 1, 1, 1, 0, 0, 0, 7}), 3, 3), 0U);
  writer_->sent({8, 'w', 8, 1, false});
  writer_->answered(8, 0);
  writer_->mark(4);
  writer_->marked(4);
  EXPECT_THROW((void)Trace(path_, 3, 0), std::runtime_error);
}

TEST_F(TraceTest, RefusesATraceThatEndsTooEarly) {
  EXPECT_THROW((void)Trace(path_, 7, 0), std::runtime_error);
}

}  // namespace
}  // namespace oxbow::vm
