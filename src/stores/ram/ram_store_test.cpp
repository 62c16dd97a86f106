// SPDX-License-Identifier: Apache-2.0
#include "stores/ram/ram_store.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <thread>

#include "stores/testing/store_model.h"
#include "support/effort.h"

namespace oxbow {
namespace {

using testing::StoreUser;

constexpr std::uint64_t k_mib = 1U << 20;
constexpr std::uint64_t k_page = k_ram_page_bytes;

std::shared_ptr<RamStore> make(const RamOptions& options) {
  Result<std::shared_ptr<RamStore>> store = RamStore::create(options);
  EXPECT_TRUE(store) << store.error().text();
  return store ? *store : nullptr;
}

std::string refusal(const RamOptions& options) {
  Result<std::shared_ptr<RamStore>> store = RamStore::create(options);
  return store ? "" : store.error().text();
}

TEST(RamStore, AgreesWithAnArrayOfBytes) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const auto store = make({.size_bytes = k_mib + 777 * seed});
    testing::run_store_model(*store, {.seed = seed, .steps = 2000, .longest_bytes = 400'000});
  }
}

TEST(RamStore, PreallocatedAgreesWithAnArrayOfBytes) {
  const auto store = make({.size_bytes = k_mib + 777, .preallocate = true});
  EXPECT_EQ(store->allocated_bytes(), k_mib + k_page);
  testing::run_store_model(*store, {.seed = 9, .steps = 2000});
  EXPECT_EQ(store->allocated_bytes(), k_mib + k_page);
}

TEST(RamStore, LookingAtHolesTakesNoMemory) {
  const auto store = make({.size_bytes = 16 * k_mib});
  Queue queue;
  StoreUser user(queue, *store);
  std::vector<std::byte> out(16 * k_mib, std::byte{1});
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](std::byte b) { return b == std::byte{}; }));
  EXPECT_TRUE(store->view({0, k_page}).empty());
  EXPECT_EQ(user.extents({0, 16 * k_mib}).size(), 1U);
  ASSERT_TRUE(user.discard({0, 16 * k_mib}).ok());
  ASSERT_TRUE(user.zero({100, k_mib}, ZeroMode::may_punch).ok());
  EXPECT_EQ(store->allocated_bytes(), 0U);

  // What the kernel says: only the page that was written is in memory.
  ASSERT_TRUE(user.write(5 * k_page + 1, std::array{std::byte{7}}).ok());
  EXPECT_EQ(store->allocated_bytes(), k_page);
  std::byte* page = store->memory({5 * k_page, k_page}).data();
  ASSERT_NE(page, nullptr);
  std::vector<unsigned char> resident(16 * k_mib / k_page);
  ASSERT_EQ(::mincore(page - 5 * k_page, 16 * k_mib, resident.data()), 0);
  EXPECT_EQ(std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return (c & 1U) != 0; }),
            1);
}

TEST(RamStore, ExtentsAndViewsShowPages) {
  const auto store = make({.size_bytes = 100 * k_page});
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.write(3 * k_page + 5, testing::random_bytes(1, 2 * k_page)).ok());
  const auto extents = user.extents({100, 99 * k_page});
  ASSERT_EQ(extents.size(), 3U);
  EXPECT_EQ(extents[0].kind, Kind::zero);
  EXPECT_EQ(extents[0].length, 3 * k_page - 100);
  EXPECT_EQ(extents[1].kind, Kind::data);
  EXPECT_EQ(extents[1].length, 3 * k_page);
  EXPECT_EQ(extents[2].kind, Kind::zero);
  EXPECT_EQ(store->view({3 * k_page, 3 * k_page}).size(), 3 * k_page);
  EXPECT_TRUE(store->view({3 * k_page - 1, 3 * k_page}).empty());
  EXPECT_TRUE(store->memory({3 * k_page, 3 * k_page + 1}).empty());
}

TEST(RamStore, DiscardGivesMemoryBack) {
  const auto store = make({.size_bytes = k_mib});
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.write(0, testing::random_bytes(1, k_mib)).ok());
  EXPECT_EQ(store->allocated_bytes(), k_mib);
  ASSERT_TRUE(user.discard({1, k_mib - 2}).ok());
  EXPECT_EQ(store->allocated_bytes(), 2 * k_page) << "the two pages that are partly kept";
  ASSERT_TRUE(user.zero({0, k_mib}, ZeroMode::may_punch).ok());
  EXPECT_EQ(store->allocated_bytes(), 0U);
  ASSERT_TRUE(user.zero({10, k_page}, ZeroMode::allocate).ok());
  EXPECT_EQ(store->allocated_bytes(), 2 * k_page);
  ASSERT_TRUE(user.allocate({0, 10 * k_page}).ok());
  EXPECT_EQ(store->allocated_bytes(), 10 * k_page);
}

TEST(RamStore, TheBudgetIsALimitAndAFailedWriteChangesNothing) {
  const auto store = make({.size_bytes = k_mib, .budget_bytes = 4 * k_page + 100});
  Queue queue;
  StoreUser user(queue, *store);
  const auto data = testing::random_bytes(3, 10 * k_page);
  EXPECT_EQ(user.write(0, std::span(data).first(5 * k_page)).error_number(), ENOSPC);
  EXPECT_EQ(store->allocated_bytes(), 0U);
  ASSERT_TRUE(user.write(0, std::span(data).first(4 * k_page)).ok());
  EXPECT_EQ(user.write(3 * k_page, std::span(data).subspan(4 * k_page, k_page + 1)).error_number(), ENOSPC);
  EXPECT_EQ(user.zero({k_page, 4 * k_page}, ZeroMode::allocate).error_number(), ENOSPC);
  EXPECT_EQ(user.allocate({k_page, 4 * k_page}).error_number(), ENOSPC);
  std::vector<std::byte> out(5 * k_page);
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_EQ(std::memcmp(out.data(), data.data(), 4 * k_page), 0);
  ASSERT_TRUE(user.write(0, std::span(data).first(4 * k_page)).ok()) << "overwriting costs nothing";
  ASSERT_TRUE(user.discard({k_page, k_page}).ok());
  ASSERT_TRUE(user.write(9 * k_page, std::span(data).first(k_page)).ok()) << "discarding made room";
  EXPECT_EQ(store->allocated_bytes(), 4 * k_page);
}

TEST(RamStore, SizesFarBeyondMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "SKIP: sanitizers leave no address space for 64 TiB";
#endif
  constexpr std::uint64_t size = std::uint64_t{64} << 40;
  const auto store = make({.size_bytes = size});
  ASSERT_NE(store, nullptr);
  Queue queue;
  StoreUser user(queue, *store);
  const auto data = testing::random_bytes(3, 10'000);
  ASSERT_TRUE(user.write(size - data.size(), data).ok());
  ASSERT_TRUE(user.write(size / 3, data).ok());
  std::vector<std::byte> out(data.size());
  ASSERT_TRUE(user.read(size - data.size(), out).ok());
  EXPECT_EQ(out, data);
  EXPECT_LE(store->allocated_bytes(), 6 * k_page);
  const auto extents = user.extents({size / 3 - k_mib, std::uint64_t{20} << 30});
  ASSERT_EQ(extents.size(), 3U);
  EXPECT_EQ(extents[1].kind, Kind::data);
}

TEST(RamStore, Grows) {
  for (const bool preallocate : {false, true}) {
    const auto store = make({.size_bytes = 3 * k_page + 10, .preallocate = preallocate});
    Queue queue;
    StoreUser user(queue, *store);
    const auto data = testing::random_bytes(5, store->size());
    ASSERT_TRUE(user.write(0, data).ok());
    const std::span<const std::byte> view = store->view({0, data.size()});
    EXPECT_EQ(user.grow(k_page).error_number(), EINVAL);
    ASSERT_TRUE(user.grow(3 * k_mib + 1).ok());
    EXPECT_EQ(store->size(), 3 * k_mib + 1);
    std::vector<std::byte> expected(data);
    expected.resize(3 * k_mib + 1);
    std::vector<std::byte> out(3 * k_mib + 1, std::byte{9});
    ASSERT_TRUE(user.read(0, out).ok());
    EXPECT_EQ(out, expected);
    EXPECT_EQ(std::memcmp(view.data(), data.data(), data.size()), 0) << "earlier views stay valid";
    EXPECT_EQ(store->allocated_bytes(), preallocate ? 3 * k_mib + k_page : 4 * k_page);
    testing::run_store_model(*store, {.seed = 4, .steps = 300});
  }
}

TEST(RamStore, PreallocatedGrowsWithinItsBudget) {
  const auto store = make({.size_bytes = 2 * k_page, .budget_bytes = 3 * k_page, .preallocate = true});
  Queue queue;
  StoreUser user(queue, *store);
  EXPECT_EQ(user.grow(4 * k_page).error_number(), ENOSPC);
  EXPECT_EQ(user.grow(4 * k_page).error_number(), ENOSPC) << "still";
  EXPECT_EQ(store->size(), 2 * k_page);
  EXPECT_TRUE(user.grow(2 * k_page + 1).ok());
  EXPECT_EQ(store->allocated_bytes(), 3 * k_page);
  EXPECT_EQ(user.grow(~std::uint64_t{0}).error_number(), EFBIG);
}

TEST(RamStore, ShrinksAndGivesBackWhatIsCutOff) {
  for (const bool preallocate : {false, true}) {
    const auto store = make({.size_bytes = 3 * k_mib, .preallocate = preallocate});
    Queue queue;
    StoreUser user(queue, *store);
    auto expected = testing::random_bytes(5, 3 * k_mib);
    ASSERT_TRUE(user.write(0, expected).ok());
    const std::span<const std::byte> view = store->view({k_mib, k_mib});
    EXPECT_EQ(store->resize(k_page + 100), 0);
    EXPECT_EQ(store->size(), k_page + 100);
    EXPECT_EQ(store->allocated_bytes(), 2 * k_page);
    EXPECT_TRUE(std::all_of(view.begin(), view.end(), [](std::byte b) { return b == std::byte{}; }));
    ASSERT_TRUE(user.discard({k_page, 100}).ok()) << "up to the new end";
    EXPECT_EQ(store->allocated_bytes(), preallocate ? 2 * k_page : k_page);

    EXPECT_EQ(store->resize(2 * k_mib), 0);
    std::fill(expected.begin() + k_page, expected.end(), std::byte{});
    expected.resize(2 * k_mib);
    std::vector<std::byte> out(2 * k_mib, std::byte{9});
    ASSERT_TRUE(user.read(0, out).ok());
    EXPECT_EQ(out, expected) << "what was cut off does not come back";
    EXPECT_EQ(store->allocated_bytes(), preallocate ? 2 * k_mib : k_page);
    testing::run_store_model(*store, {.seed = 5, .steps = 300});
  }
}

TEST(RamStore, AFailedResizeChangesNothing) {
  const auto store = make({.size_bytes = 2 * k_page, .budget_bytes = 3 * k_page, .preallocate = true});
  EXPECT_EQ(store->resize(4 * k_page), ENOSPC);
  EXPECT_EQ(store->resize(~std::uint64_t{0}), EFBIG);
  EXPECT_EQ(store->size(), 2 * k_page);
  EXPECT_EQ(store->allocated_bytes(), 2 * k_page);
  store->set_budget(4 * k_page + 1);
  EXPECT_EQ(store->resize(4 * k_page), 0);
  store->set_budget(k_page);
  EXPECT_EQ(store->free_bytes(), 0U) << "not below what is in use";
}

TEST(RamStore, ClearingLeavesNothing) {
  for (const bool preallocate : {false, true}) {
    const auto store = make({.size_bytes = 3 * k_mib + 5, .preallocate = preallocate});
    Queue queue;
    StoreUser user(queue, *store);
    ASSERT_TRUE(user.write(7, testing::random_bytes(5, 2 * k_mib)).ok());
    EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return store->clear(io); }).ok());
    EXPECT_EQ(store->allocated_bytes(), preallocate ? 3 * k_mib + k_page : 0U);
    std::vector<std::byte> out(3 * k_mib + 5, std::byte{9});
    ASSERT_TRUE(user.read(0, out).ok());
    EXPECT_EQ(out, std::vector<std::byte>(3 * k_mib + 5));
    testing::run_store_model(*store, {.seed = 6, .steps = 300});
  }
}

TEST(RamStore, TellsWhyItCannotBeMade) {
  EXPECT_EQ(refusal({.size_bytes = 0}), "cannot create ram store: 0 bytes: the size must not be 0");
  EXPECT_EQ(refusal({.size_bytes = std::uint64_t{1} << 60}),
            "cannot create ram store: 1152921504606846976 bytes: it does not fit into this process's address "
            "space");
  EXPECT_EQ(refusal({.size_bytes = ~std::uint64_t{0}}),
            "cannot create ram store: 18446744073709551615 bytes: it does not fit into this process's "
            "address space");
  EXPECT_EQ(
      refusal({.size_bytes = 8192, .budget_bytes = 4096, .preallocate = true}),
      "cannot create ram store: 8192 bytes: preallocation needs all of it, but the budget is 4096 bytes");
}

// Runs `body(thread)` on two threads at once.
template <typename Body>
void on_two_threads(Body body) {
  std::thread other([&] { body(1); });
  body(0);
  other.join();
}

TEST(RamStore, NeighboursInAFreshPageKeepApart) {
  constexpr unsigned rounds = 10'000;
  const auto store = make({.size_bytes = rounds * k_page});
  on_two_threads([&](unsigned thread) {
    Queue queue;
    StoreUser user(queue, *store);
    const std::vector<std::byte> half(k_page / 2, static_cast<std::byte>(1 + thread));
    for (unsigned round = 0; round < rounds; ++round) {
      EXPECT_TRUE(user.write(round * k_page + thread * half.size(), half).ok());
    }
  });
  Queue queue;
  StoreUser user(queue, *store);
  std::vector<std::byte> expected(k_page, std::byte{1});
  std::fill(expected.begin() + k_page / 2, expected.end(), std::byte{2});
  std::vector<std::byte> out(k_page);
  for (unsigned round = 0; round < rounds; ++round) {
    ASSERT_TRUE(user.read(round * k_page, out).ok());
    ASSERT_EQ(out, expected) << "round " << round;
  }
  EXPECT_EQ(store->allocated_bytes(), rounds * k_page);
}

// A page in which one thread discards and writes, between pages that another writes: neither disturbs the
// other, and the books balance.
TEST(RamStore, DiscardsBesideWritesKeepApart) {
  const auto store = make({.size_bytes = 3 * k_page});
  on_two_threads([&](unsigned thread) {
    Queue queue;
    StoreUser user(queue, *store);
    std::vector<std::byte> out(k_page);
    for (unsigned round = 0; round < 10'000; ++round) {
      const std::vector<std::byte> data(k_page, static_cast<std::byte>(round));
      const Range mine{thread * (k_page + k_page / 2), k_page + k_page / 2};
      if (round % 2 == 0) {
        EXPECT_TRUE(user.write(mine.offset + 100, data).ok());
        EXPECT_TRUE(user.read(mine.offset + 100, out).ok());
        EXPECT_EQ(out, data);
      } else {
        EXPECT_TRUE(user.discard(mine).ok());
        EXPECT_TRUE(user.read(mine.offset + 100, out).ok());
        EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](std::byte b) { return b == std::byte{}; }));
      }
    }
  });
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.discard({0, 3 * k_page}).ok());
  EXPECT_EQ(store->allocated_bytes(), 0U);
}

TEST(RamStore, BytesLeftBehindByAnOldViewNeverShow) {
  const auto store = make({.size_bytes = 2 * k_page});
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.write(0, testing::random_bytes(1, 2 * k_page)).ok());
  const std::span<std::byte> memory = store->memory({0, 2 * k_page});
  ASSERT_TRUE(user.discard({0, 2 * k_page}).ok());
  std::memset(memory.data(), 1, memory.size());  // brings the pages back behind the store's back
  std::vector<std::byte> expected(2 * k_page);
  std::vector<std::byte> out(2 * k_page);
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_EQ(out, expected);
  ASSERT_TRUE(user.write(k_page - 1, std::array{std::byte{7}, std::byte{8}}).ok());
  expected[k_page - 1] = std::byte{7};
  expected[k_page] = std::byte{8};
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_EQ(out, expected);
}

#ifndef __SANITIZE_THREAD__  // its clients do overlap
// Overwrites raced by discards of the same pages: whatever wins, no memory stays behind.
TEST(RamStore, DiscardsRacingOverwritesLeaveNothingBehind) {
  constexpr std::uint64_t bytes = k_ram_group_bytes;
  const auto rounds = static_cast<unsigned>(test::repetitions(500, 5000));
  const auto store = make({.size_bytes = bytes});
  Queue queue;
  StoreUser user(queue, *store);
  const std::vector<std::byte> data(bytes, std::byte{5});
  ASSERT_TRUE(user.write(0, data).ok());
  std::byte* start = store->memory({0, bytes}).data();
  std::atomic<unsigned> begun{0};
  std::atomic<unsigned> ended{0};
  std::thread discarder([&] {
    Queue own_queue;
    StoreUser own(own_queue, *store);
    for (unsigned round = 1; round <= rounds; ++round) {
      while (begun < round) std::this_thread::yield();
      for (unsigned delay = 0; delay < round % 64 * 50; ++delay) (void)begun.load();
      EXPECT_TRUE(own.discard({0, bytes}).ok());
      ended = round;
    }
  });
  unsigned wrong = 0;
  for (unsigned round = 1; round <= rounds; ++round) {
    EXPECT_TRUE(user.write(0, data).ok());
    begun = round;
    EXPECT_TRUE(user.write(0, data).ok());
    while (ended < round) std::this_thread::yield();
    std::vector<unsigned char> resident(bytes / k_page);
    EXPECT_EQ(::mincore(start, bytes, resident.data()), 0);
    std::uint64_t in_memory = 0;
    for (const unsigned char page : resident) in_memory += page & 1U;
    if (in_memory * k_page != store->allocated_bytes()) ++wrong;
  }
  discarder.join();
  EXPECT_EQ(wrong, 0U);
}
#endif

TEST(PageBudget, WhatIsSharedCountsForAll) {
  const auto shared = std::make_shared<PageBudget>(10);
  PageBudget one(8, shared);
  {
    PageBudget other(8, shared);
    EXPECT_TRUE(one.charge(6));
    EXPECT_FALSE(one.charge(3)) << "its own limit";
    EXPECT_EQ(shared->used(), 6U) << "and nothing stays charged";
    EXPECT_EQ(other.left(), 4U);
    EXPECT_FALSE(other.charge(5)) << "that of all";
    EXPECT_TRUE(other.charge(4));
    EXPECT_EQ(one.left(), 0U);
    one.give_back(1);
    EXPECT_EQ(other.left(), 1U);
  }
  EXPECT_EQ(shared->used(), 5U) << "what ends gives back";
  EXPECT_EQ(one.left(), 3U);
}

}  // namespace
}  // namespace oxbow
