// SPDX-License-Identifier: Apache-2.0
// libnbd as the judge: several connections to a RAM disk, with many requests in flight on each.

#include <gtest/gtest.h>
#include <libnbd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "device/device.h"
#include "exports/nbd/server.h"
#include "stores/ram/ram_store.h"
#include "support/effort.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size = 64 << 20;
constexpr unsigned k_connections = 4;
constexpr unsigned k_depth = 16;

using Names = std::vector<std::string>;

// A connection of libnbd. Thread safety: none.
class Handle {
 public:
  explicit Handle(const std::string& uri) : nbd_(::nbd_create()) {
    if (::nbd_connect_uri(nbd_, uri.c_str()) != 0) throw std::runtime_error(::nbd_get_error());
  }
  ~Handle() {
    (void)::nbd_shutdown(nbd_, 0);
    ::nbd_close(nbd_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle(Handle&&) = delete;
  Handle& operator=(Handle&&) = delete;
  operator nbd_handle*() const { return nbd_; }  // NOLINT(google-explicit-constructor)

  // Waits until all commands in flight are done; the number that failed.
  [[nodiscard]] int finish() const {
    int failed = 0;
    while (::nbd_aio_in_flight(nbd_) > 0) {
      if (::nbd_poll(nbd_, -1) < 0) return -1;
    }
    for (std::int64_t cookie = ::nbd_aio_peek_command_completed(nbd_); cookie > 0;
         cookie = ::nbd_aio_peek_command_completed(nbd_)) {
      if (::nbd_aio_command_completed(nbd_, static_cast<std::uint64_t>(cookie)) != 1) ++failed;
    }
    return failed;
  }

 private:
  nbd_handle* nbd_;
};

class Libnbd : public ::testing::Test {
 public:
  ~Libnbd() override {
    server_->stop();
    std::filesystem::remove_all(folder_);
  }

 protected:
  Libnbd() {
    std::string name = (std::filesystem::temp_directory_path() / "oxbow-libnbd-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    auto store = *RamStore::create({.size_bytes = k_size});
    device_ = std::make_unique<Device>(
        std::make_shared<LinearTarget>(std::move(store), "ram", Range{0, k_size}, true), Device::Options{});
    server_ = std::make_unique<nbd::Server>(*nbd::Exports::make({{.name = "ram", .device = device_.get()}}));
    EXPECT_TRUE(server_->listen("unix:" + folder_ + "/socket"));
    EXPECT_TRUE(server_->start());
  }
  [[nodiscard]] std::string uri() const { return server_->uri("ram"); }

  std::string folder_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<nbd::Server> server_;
};

// Random operations in one quarter of the disk, each batch in flight together and each in a part of its own; what
// the quarter holds is kept beside and compared. Returns the quarter.
std::vector<char> work(const Handle& nbd, std::uint64_t at, std::uint64_t seed, std::uint64_t rounds) {
  constexpr std::uint64_t k_part = k_size / k_connections / k_depth;
  std::mt19937_64 random(seed);
  std::vector<char> model(k_size / k_connections);
  std::vector<char> got(model.size());
  std::vector<std::pair<std::uint64_t, std::uint64_t>> reads;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (std::uint64_t part = 0; part < k_depth; ++part) {
      const std::uint64_t limit = random() % 4 == 0 ? k_part : 10'000;
      const std::uint64_t offset = part * k_part + random() % (k_part - limit + 1);
      const std::uint64_t length = 1 + random() % limit;
      char* const place = &model[offset];
      const std::uint32_t flags = random() % 16 == 0 ? LIBNBD_CMD_FLAG_FUA : 0;
      if (random() % 4 == 0) {
        std::memset(place, 0, length);
        EXPECT_GT(::nbd_aio_zero(nbd, length, at + offset, NBD_NULL_COMPLETION, flags), 0);
      } else {
        std::memset(place, static_cast<int>(random()), length);
        std::memcpy(place, &round, std::min<std::size_t>(length, sizeof(round)));
        EXPECT_GT(::nbd_aio_pwrite(nbd, place, length, at + offset, NBD_NULL_COMPLETION, flags), 0);
      }
    }
    EXPECT_EQ(nbd.finish(), 0) << ::nbd_get_error();
    reads.clear();
    for (std::uint64_t part = 0; part < k_depth; ++part) {
      const std::uint64_t offset = part * k_part + random() % (k_part / 2);
      const std::uint64_t length = 1 + random() % (k_part / 2);
      reads.emplace_back(offset, length);
      EXPECT_GT(::nbd_aio_pread(nbd, &got[offset], length, at + offset, NBD_NULL_COMPLETION, 0), 0);
    }
    EXPECT_EQ(nbd.finish(), 0) << ::nbd_get_error();
    for (const auto& [offset, length] : reads) {
      EXPECT_EQ(std::memcmp(&got[offset], &model[offset], length), 0)
          << "seed " << seed << " round " << round;
    }
  }
  return model;
}

TEST_F(Libnbd, SeveralConnectionsWithManyRequestsInFlight) {
  const std::uint64_t seed = test::seed();
  const std::uint64_t rounds = test::repetitions(20, 200);
  std::vector<std::vector<char>> models(k_connections);
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < k_connections; ++i) {
      threads.emplace_back([&, i] {
        const Handle handle(uri());
        EXPECT_EQ(::nbd_can_multi_conn(handle), 1);
        EXPECT_EQ(::nbd_get_size(handle), static_cast<std::int64_t>(k_size));
        models[i] = work(handle, i * (k_size / k_connections), seed + i, rounds);
        EXPECT_EQ(::nbd_flush(handle, 0), 0) << ::nbd_get_error();
      });
    }
  }
  // Another connection sees it all.
  const Handle handle(uri());
  std::vector<char> got(k_size / k_connections);
  for (unsigned i = 0; i < k_connections; ++i) {
    ASSERT_EQ(::nbd_pread(handle, got.data(), got.size(), i * got.size(), 0), 0) << ::nbd_get_error();
    EXPECT_TRUE(got == models[i]) << "quarter " << i;
  }
}

TEST_F(Libnbd, WhatItNegotiates) {
  const Handle handle(uri());
  EXPECT_EQ(::nbd_is_read_only(handle), 0);
  EXPECT_EQ(::nbd_can_flush(handle), 1);
  EXPECT_EQ(::nbd_can_fua(handle), 1);
  EXPECT_EQ(::nbd_can_trim(handle), 1);
  EXPECT_EQ(::nbd_can_zero(handle), 1);
  EXPECT_EQ(::nbd_can_fast_zero(handle), 1);
  EXPECT_EQ(::nbd_can_df(handle), 1);
  EXPECT_EQ(::nbd_can_cache(handle), 1);
  EXPECT_EQ(::nbd_get_structured_replies_negotiated(handle), 1);
  EXPECT_EQ(::nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM), 1);
  EXPECT_EQ(::nbd_get_block_size(handle, LIBNBD_SIZE_PREFERRED), 4096);
  EXPECT_EQ(::nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM), 32 << 20);
}

TEST_F(Libnbd, RequestsThatItWouldNotSendByItself) {
  const Handle handle(uri());
  ASSERT_EQ(::nbd_set_strict_mode(handle, 0), 0);
  std::vector<char> data(4096, 'x');
  EXPECT_EQ(::nbd_pread(handle, data.data(), data.size(), k_size - 4095, 0), -1);
  EXPECT_EQ(::nbd_get_errno(), EINVAL);
  EXPECT_EQ(::nbd_pwrite(handle, data.data(), data.size(), k_size - 4095, 0), -1);
  EXPECT_EQ(::nbd_get_errno(), ENOSPC);
  EXPECT_EQ(::nbd_trim(handle, 4096, k_size, 0), -1);
  EXPECT_EQ(::nbd_get_errno(), EINVAL);
  EXPECT_EQ(::nbd_cache(handle, 4096, k_size, 0), -1);
  EXPECT_EQ(::nbd_get_errno(), EINVAL);
  EXPECT_EQ(::nbd_flush(handle, LIBNBD_CMD_FLAG_DF), -1);
  EXPECT_EQ(::nbd_get_errno(), EINVAL);
  EXPECT_EQ(::nbd_pread(handle, data.data(), data.size(), 0, 0), 0) << "served on";
}

constexpr auto k_base_allocation = "base:allocation";
constexpr auto k_qemu_depth = "qemu:allocation-depth";

// A connection that is still haggling. Thread safety: none.
class Haggling {
 public:
  explicit Haggling(const std::string& uri, const Names& queries, bool structured = true)
      : nbd_(::nbd_create()) {
    EXPECT_EQ(::nbd_set_opt_mode(nbd_, true), 0);
    EXPECT_EQ(::nbd_set_request_structured_replies(nbd_, structured), 0);
    for (const std::string& each : queries) EXPECT_EQ(::nbd_add_meta_context(nbd_, each.c_str()), 0);
    EXPECT_EQ(::nbd_connect_uri(nbd_, uri.c_str()), 0) << ::nbd_get_error();
  }
  ~Haggling() { ::nbd_close(nbd_); }
  Haggling(const Haggling&) = delete;
  Haggling& operator=(const Haggling&) = delete;
  Haggling(Haggling&&) = delete;
  Haggling& operator=(Haggling&&) = delete;
  operator nbd_handle*() const { return nbd_; }  // NOLINT(google-explicit-constructor)

 private:
  nbd_handle* nbd_;
};

TEST_F(Libnbd, ListsMetadataContexts) {
  const auto listed = [&](const Names& queries) {
    const Haggling handle(uri(), queries);
    Names names;
    const auto note = [](void* to, const char* name) {
      static_cast<Names*>(to)->emplace_back(name);
      return 0;
    };
    EXPECT_GE(::nbd_opt_list_meta_context(handle, {.callback = note, .user_data = &names, .free = nullptr}),
              0)
        << ::nbd_get_error();
    EXPECT_EQ(::nbd_opt_abort(handle), 0);
    return names;
  };
  EXPECT_EQ(listed({}), (Names{k_base_allocation, k_qemu_depth}));
  EXPECT_EQ(listed({"base:"}), Names{k_base_allocation});
  EXPECT_EQ(listed({"qemu:"}), Names{k_qemu_depth});
  EXPECT_EQ(listed({"x-other:"}), Names());
}

TEST_F(Libnbd, AnswersForTheContextsThatWereSelected) {
  for (const Names& wanted :
       {Names{k_base_allocation}, Names{k_qemu_depth}, Names{k_base_allocation, k_qemu_depth}}) {
    const Haggling handle(uri(), wanted);
    EXPECT_EQ(::nbd_opt_info(handle), 0) << ::nbd_get_error();
    ASSERT_EQ(::nbd_opt_go(handle), 0) << ::nbd_get_error();
    for (const char* each : {k_base_allocation, k_qemu_depth}) {
      EXPECT_EQ(::nbd_can_meta_context(handle, each), std::ranges::count(wanted, each));
    }
    Names told;
    const auto note = [](void* to, const char* name, std::uint64_t /*offset*/, std::uint32_t* /*entries*/,
                         std::size_t /*count*/, int* /*error*/) {
      static_cast<Names*>(to)->emplace_back(name);
      return 0;
    };
    const nbd_extent_callback callback{.callback = note, .user_data = &told, .free = nullptr};
    EXPECT_EQ(::nbd_block_status(handle, k_size, 0, callback, 0), 0) << ::nbd_get_error();
    std::ranges::sort(told);
    EXPECT_EQ(told, wanted);
  }
}

TEST_F(Libnbd, HasNoContextsWithoutStructuredReplies) {
  const Haggling handle(uri(), {k_base_allocation}, false);
  ASSERT_EQ(::nbd_opt_go(handle), 0) << ::nbd_get_error();
  EXPECT_EQ(::nbd_get_structured_replies_negotiated(handle), 0);
  EXPECT_EQ(::nbd_can_meta_context(handle, k_base_allocation), 0);
  EXPECT_EQ(::nbd_can_df(handle), 0);
  std::vector<char> data(100'000, 'x');
  EXPECT_EQ(::nbd_pread(handle, data.data(), data.size(), 1, 0), 0) << ::nbd_get_error();
  EXPECT_EQ(data, std::vector<char>(100'000));
}

TEST_F(Libnbd, ListsTheExport) {
  nbd_handle* handle = ::nbd_create();
  ASSERT_EQ(::nbd_set_opt_mode(handle, true), 0);
  ASSERT_EQ(::nbd_connect_uri(handle, uri().c_str()), 0) << ::nbd_get_error();
  std::vector<std::string> names;
  const auto note = [](void* to, const char* name, const char* /*description*/) {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  EXPECT_EQ(::nbd_opt_list(handle, {.callback = note, .user_data = &names, .free = nullptr}), 1);
  EXPECT_EQ(names, std::vector<std::string>{"ram"});
  ASSERT_EQ(::nbd_set_export_name(handle, "other"), 0);
  EXPECT_EQ(::nbd_opt_info(handle), -1);
  EXPECT_EQ(::nbd_get_errno(), ENOENT);
  EXPECT_EQ(::nbd_opt_abort(handle), 0);
  ::nbd_close(handle);
}

}  // namespace
}  // namespace oxbow
