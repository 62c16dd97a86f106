// SPDX-License-Identifier: Apache-2.0
#include "stores/open_stores.h"

#include <gtest/gtest.h>

#include <thread>

#include "stores/testing/store_model.h"

namespace oxbow {
namespace {

using testing::TestFolder;

constexpr FileOptions k_writable{.writable = true, .lock = LockMode::exclusive};
constexpr FileOptions k_base{.lock = LockMode::shared};

std::string refusal(OpenStores& stores, const std::string& path, const FileOptions& options) {
  const auto store = stores.open_file(path, options);
  return store ? "" : store.error().text();
}

TEST(OpenStores, OneStorePerFileWhateverItsName) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 8192);
  std::filesystem::create_symlink(path, folder.path("soft"));
  std::filesystem::create_hard_link(path, folder.path("hard"));
  OpenStores stores;
  const auto first = stores.open_file(path, k_writable);
  ASSERT_TRUE(first) << first.error().text();
  for (const std::string& name : {path, folder.path("soft"), folder.path("hard")}) {
    const auto again = stores.open_file(name, k_writable);
    ASSERT_TRUE(again) << again.error().text();
    EXPECT_EQ(again->get(), first->get());
  }
  const auto other = stores.open_file(folder.file("other", 8192), k_writable);
  ASSERT_TRUE(other);
  EXPECT_NE(other->get(), first->get());
}

TEST(OpenStores, HoldsNothingOpen) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 8192);
  OpenStores stores;
  for (int round = 0; round < 3; ++round) {
    const auto writable = stores.open_file(path, k_writable);
    ASSERT_TRUE(writable) << writable.error().text();
  }
  ASSERT_TRUE(stores.open_file(path, k_base)) << "the exclusive lock is gone";
  std::filesystem::remove(path);
  EXPECT_EQ(refusal(stores, path, k_base), "cannot open file: " + path + ": No such file or directory");
}

TEST(OpenStores, RefusesWhatTheOpenStoreDoesNotSatisfy) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 8192);
  const std::string start = "cannot open file: " + path + ": this process has it open ";
  OpenStores stores;
  {
    const auto store = stores.open_file(path, k_writable);
    ASSERT_TRUE(store);
    EXPECT_EQ(refusal(stores, path, k_base), start + "for writing already");
    EXPECT_EQ(refusal(stores, path, {.writable = true, .direct = true}),
              start + "without direct I/O already; use one I/O mode");
    EXPECT_EQ(refusal(stores, path, {}), "");
  }
  {
    const auto store = stores.open_file(path, k_base);
    ASSERT_TRUE(store);
    EXPECT_EQ(refusal(stores, path, k_base), "");
    EXPECT_EQ(refusal(stores, path, k_writable), start + "for reading only already");
  }
  {
    const auto store = stores.open_file(path, {.writable = true});
    ASSERT_TRUE(store);
    EXPECT_EQ(refusal(stores, path, k_writable), start + "without a lock already");
    ASSERT_TRUE((*store)->lock_shared());
    EXPECT_EQ(refusal(stores, path, k_writable), start + "as a base, which must not change, already");
  }
}

TEST(OpenStores, ManyThreadsGetTheSameStore) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 8192);
  for (int round = 0; round < 50; ++round) {
    OpenStores stores;
    std::array<std::shared_ptr<FileStore>, 4> opened;
    std::vector<std::thread> threads;
    for (auto& mine : opened) {
      threads.emplace_back([&stores, &path, &mine] {
        if (auto store = stores.open_file(path, k_writable)) mine = *store;
      });
    }
    for (std::thread& each : threads) each.join();
    ASSERT_NE(opened[0], nullptr);
    for (const auto& each : opened) EXPECT_EQ(each, opened[0]);
  }
}

}  // namespace
}  // namespace oxbow
