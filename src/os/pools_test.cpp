// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <vector>

#include "os/buffer_pool.h"
#include "os/frame_pool.h"

namespace oxbow {
namespace {

bool aligned(const void* memory, std::uintptr_t to) {
  return reinterpret_cast<std::uintptr_t>(memory) % to == 0;
}

TEST(FramePool, LendsDistinctAlignedMemoryOfAnySize) {
  FramePool pool;
  std::vector<std::pair<void*, std::size_t>> lent;
  for (std::size_t bytes = 1; bytes <= 200'000; bytes = bytes * 3 / 2 + 1) {
    void* memory = pool.allocate(bytes);
    ASSERT_NE(memory, nullptr);
    EXPECT_TRUE(aligned(memory, 16));
    std::memset(memory, static_cast<int>(lent.size()), bytes);
    lent.emplace_back(memory, bytes);
  }
  for (std::size_t index = 0; index < lent.size(); ++index) {
    const auto* bytes = static_cast<const unsigned char*>(lent[index].first);
    EXPECT_EQ(std::count(bytes, bytes + lent[index].second, static_cast<unsigned char>(index)),
              static_cast<std::ptrdiff_t>(lent[index].second));
    FramePool::release(lent[index].first);
  }
  FramePool::release(nullptr);
}

TEST(FramePool, LendsAgainWhatCameBack) {
  FramePool pool;
  void* first = pool.allocate(300);
  void* second = pool.allocate(512);
  EXPECT_NE(first, second);
  FramePool::release(first);
  FramePool::release(second);
  EXPECT_EQ(pool.allocate(400), second) << "last in, first out: warm in the cache";
  EXPECT_EQ(pool.allocate(257), first);
  FramePool::release(first);
  FramePool::release(second);
}

TEST(BufferPool, LendsAlignedBuffersOfTheSizeAskedFor) {
  BufferPool pool;
  std::set<std::byte*> starts;
  std::vector<Buffer> lent;
  for (const std::size_t bytes : {1U, 512U, 4096U, 4097U, 65536U, 1U << 20, 4U << 20, 5U << 20}) {
    Buffer buffer = pool.take(bytes);
    ASSERT_TRUE(buffer.valid());
    EXPECT_EQ(buffer.bytes().size(), bytes);
    EXPECT_TRUE(aligned(buffer.bytes().data(), 4096));
    std::memset(buffer.bytes().data(), 1, bytes);
    EXPECT_TRUE(starts.insert(buffer.bytes().data()).second);
    lent.push_back(std::move(buffer));
  }
}

TEST(BufferPool, LendsAgainWhatCameBack) {
  BufferPool pool;
  std::byte* first = nullptr;
  {
    const Buffer buffer = pool.take(10'000);
    first = buffer.bytes().data();
  }
  Buffer small = pool.take(4096);
  EXPECT_NE(small.bytes().data(), first) << "another size";
  Buffer again = pool.take(16'384);
  EXPECT_EQ(again.bytes().data(), first);
  EXPECT_EQ(again.bytes().size(), 16'384U);
}

TEST(BufferPool, BuffersMove) {
  BufferPool pool;
  Buffer one = pool.take(4096);
  Buffer two = pool.take(8192);
  std::byte* first = one.bytes().data();
  std::byte* second = two.bytes().data();
  two = std::move(one);
  EXPECT_EQ(two.bytes().data(), first);
  const Buffer three = std::move(two);
  EXPECT_EQ(three.bytes().data(), first);
  EXPECT_FALSE(two.valid());  // NOLINT(bugprone-use-after-move): says what is left
  one = Buffer();
  EXPECT_EQ(pool.take(8192).bytes().data(), second) << "it went back into its own size";
}

TEST(BufferPool, KeepsABoundedAmount) {
  BufferPool pool;
  std::vector<Buffer> lent;
  for (int count = 0; count < 100; ++count) lent.push_back(pool.take(4096));
  std::set<std::byte*> starts;
  for (const Buffer& buffer : lent) starts.insert(buffer.bytes().data());
  EXPECT_EQ(starts.size(), lent.size());
  lent.clear();
  for (int count = 0; count < 100; ++count) lent.push_back(pool.take(4096));
  for (const Buffer& buffer : lent) std::memset(buffer.bytes().data(), 2, buffer.bytes().size());
}

}  // namespace
}  // namespace oxbow
