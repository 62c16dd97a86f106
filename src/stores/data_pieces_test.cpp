// SPDX-License-Identifier: Apache-2.0
#include "stores/data_pieces.h"

#include <gtest/gtest.h>

#include <vector>

#include "os/queue.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_page = k_ram_page_bytes;

// The bytes of a store that pieces of `range` cover, one element for each page.
std::vector<std::uint64_t> pages_in(Store& store, Range range) {
  std::vector<std::uint64_t> pages;
  DataPieces pieces(store, range);
  std::uint64_t last = range.offset;
  for (Range piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    EXPECT_GE(piece.offset, last);
    EXPECT_LE(piece.end(), range.end());
    last = piece.end();
    for (std::uint64_t at = piece.offset; at < piece.end(); at += k_page) pages.push_back(at / k_page);
  }
  EXPECT_TRUE(pieces.next().empty());
  return pages;
}

TEST(DataPieces, PassOverHolesAlsoWhereThereAreMoreOfThemThanOneAnswerTells) {
  auto store = RamStore::create({.size_bytes = 1000 * k_page});
  ASSERT_TRUE(store);
  Queue queue;
  std::vector<std::uint64_t> written;
  const std::vector<std::byte> page(k_page, std::byte{1});
  for (std::uint64_t number = 1; number < 1000; number += number % 7 == 0 ? 1U : 3U) {
    ASSERT_TRUE(write_blocking(queue, **store, number * k_page, page).ok());
    written.push_back(number);
  }
  EXPECT_EQ(pages_in(**store, {0, 1000 * k_page}), written);
}

TEST(DataPieces, EndWithTheRange) {
  auto store = RamStore::create({.size_bytes = 16 * k_page});
  ASSERT_TRUE(store);
  Queue queue;
  const std::vector<std::byte> data(16 * k_page, std::byte{1});
  ASSERT_TRUE(write_blocking(queue, **store, 0, data).ok());
  DataPieces pieces(**store, {k_page + 5, 2 * k_page});
  std::uint64_t bytes = 0;
  for (Range piece = pieces.next(); !piece.empty(); piece = pieces.next()) bytes += piece.length;
  EXPECT_EQ(bytes, 2 * k_page);
}

TEST(DataPieces, AreNoneOfAHole) {
  auto store = RamStore::create({.size_bytes = 64 * k_page});
  ASSERT_TRUE(store);
  EXPECT_TRUE(pages_in(**store, {k_page, 62 * k_page}).empty());
  EXPECT_TRUE(pages_in(**store, {k_page, 0}).empty());
}

}  // namespace
}  // namespace oxbow
