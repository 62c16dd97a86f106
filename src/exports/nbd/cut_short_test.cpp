// SPDX-License-Identifier: Apache-2.0
// A file that is cut short while replies are sent from its mapping.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "exports/nbd/test_replies.h"
#include "os/queue.h"
#include "stores/file/file_store.h"
#include "stores/testing/store_model.h"
#include "targets/linear/linear_target.h"

namespace oxbow::nbd {
namespace {

constexpr std::uint32_t k_mib = 1U << 20;
constexpr std::uint32_t k_size_bytes = 4 * k_mib;

class NbdCutShort : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = folder_.file("disk", 0);
    {
      const UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      ASSERT_EQ(::write(fd.get(), bytes_.data(), bytes_.size()), k_size_bytes);
    }
    auto store = FileStore::open(path_, {});
    ASSERT_TRUE(store) << store.error().text();
    store_ = *store;
    device_ =
        std::make_unique<Device>(std::make_shared<LinearTarget>(store_, path_, Range{0, k_size_bytes}, false),
                                 Device::Options{.name = "disk"});
    Queue queue;
    Bytes all(k_size_bytes);
    ASSERT_TRUE(run_blocking(queue, [&](Io& io) { return device_->read(io, 0, all); }).ok());
    ASSERT_FALSE(store_->view({0, k_size_bytes}).empty()) << "nothing would be sent from the mapping";
  }

  [[nodiscard]] Bytes part(std::size_t at, std::size_t length) const {
    return {bytes_.begin() + static_cast<std::ptrdiff_t>(at),
            bytes_.begin() + static_cast<std::ptrdiff_t>(at + length)};
  }

  // Asks for 2 MiB from 1 MiB on and cuts the file when some of them are out and the rest can't be.
  void cut_mid_reply(Session& session, std::uintmax_t left_bytes) {
    ASSERT_TRUE(session.client.send(request(Command::read, 7, k_mib, 2 * k_mib)));
    head_ = session.client.receive(1);
    ASSERT_EQ(head_.size(), 1U);
    // The server has sent what there is room for when the client's end holds no more.
    for (int before = -1, now = 0; now != before;) {
      before = now;
      ::usleep(20'000);
      ASSERT_EQ(::ioctl(session.client.fd(), FIONREAD, &now), 0);
    }
    std::filesystem::resize_file(path_, left_bytes);
  }

  testing::TestFolder folder_;
  std::string path_;
  Bytes bytes_ = testing::random_bytes(3, k_size_bytes);
  std::shared_ptr<FileStore> store_;
  std::unique_ptr<Device> device_;
  Bytes head_;
};

TEST_F(NbdCutShort, SimpleRepliesThatAreOutInPartEndTheConnection) {
  Session session(*device_, {});
  cut_mid_reply(session, 2 * k_mib);
  const Bytes rest = session.client.receive(16 + 2 * k_mib);
  ASSERT_LT(rest.size(), 15 + 2 * k_mib);
  ASSERT_GE(rest.size(), 15U);
  const Bytes data(rest.begin() + 15, rest.end());
  EXPECT_EQ(data, part(k_mib, data.size())) << "what came is right";
}

TEST_F(NbdCutShort, StructuredOnesNameThePlaceAndTheConnectionLives) {
  Session session(*device_, {.structured_replies = true});
  cut_mid_reply(session, 2 * k_mib);
  const Bytes rest = session.client.receive(k_chunk_header_bytes + 8 - 1);
  const Bytes head = head_ + rest;
  ASSERT_EQ(get<std::uint32_t>(head, 16), 8 + 2 * k_mib);
  EXPECT_EQ(get<std::uint16_t>(head, 4), 0) << "not done before all of it is out";
  const Bytes data = session.client.receive(2 * k_mib);
  const auto error = receive_chunk(session.client);
  ASSERT_TRUE(error && error->is_error() && error->done);
  ReceivedReply reply;
  take_error(*error, reply);
  ASSERT_TRUE(reply.error_offset);
  const std::size_t good = *reply.error_offset - k_mib;
  ASSERT_LE(good, k_mib);
  EXPECT_EQ(Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(good)), part(k_mib, good));
  EXPECT_EQ(session.talk(request(Command::flush, 8, 0, 0), 16), simple_reply(8));
}

// What is left of the reply lies before the new end, but for the end of its last page.
TEST_F(NbdCutShort, ZerosBehindTheNewEndAreNotSentAsData) {
  Session session(*device_, {.structured_replies = true});
  cut_mid_reply(session, 3 * k_mib - 100);
  ASSERT_EQ(session.client.receive(k_chunk_header_bytes + 8 - 1).size(), k_chunk_header_bytes + 8 - 1);
  const Bytes data = session.client.receive(2 * k_mib);
  const auto error = receive_chunk(session.client);
  ASSERT_TRUE(error && error->is_error() && error->done);
  ReceivedReply reply;
  take_error(*error, reply);
  ASSERT_TRUE(reply.error_offset);
  const std::size_t good = *reply.error_offset - k_mib;
  ASSERT_LE(good, 2 * k_mib - 100);
  EXPECT_EQ(Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(good)), part(k_mib, good));
}

// The page that the file ends in reads as zeros behind the end: no fault tells of that.
TEST_F(NbdCutShort, TheLastPageIsNoneToSendZerosFrom) {
  Session session(*device_, {});
  std::filesystem::resize_file(path_, k_mib + 100);
  EXPECT_EQ(session.talk(request(Command::read, 1, k_mib, 4096), 16), simple_reply(1, EIO));
  EXPECT_EQ(session.talk(request(Command::read, 2, k_mib, 100), 116), simple_reply(2) + part(k_mib, 100));
}

}  // namespace
}  // namespace oxbow::nbd
