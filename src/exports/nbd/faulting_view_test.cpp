// SPDX-License-Identifier: Apache-2.0
// Replies straight from a file's mapping, while the file is cut short: zeros and an error, never a signal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exports/nbd/test_replies.h"
#include "os/transfer.h"
#include "targets/linear/linear_target.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 4 << 20;
constexpr std::uint32_t k_eio = 5;
constexpr Negotiated k_structured{.structured_replies = true};

// A file in memory whose bytes are handed out as they are mapped. Thread safety: as for stores.
class MappedStore final : public Store {
 public:
  MappedStore() : file_(::memfd_create("oxbow-test", MFD_CLOEXEC)) {
    data_ = pattern(k_size, 1);
    must(write_all(file_.get(), 0, data_).ok() ? 0 : -1);
    memory_ = ::mmap(nullptr, k_size, PROT_READ, MAP_SHARED, file_.get(), 0);
    must(memory_ == MAP_FAILED ? -1 : 0);
  }
  ~MappedStore() override { must(::munmap(memory_, k_size)); }
  MappedStore(const MappedStore&) = delete;
  MappedStore& operator=(const MappedStore&) = delete;
  MappedStore(MappedStore&&) = delete;
  MappedStore& operator=(MappedStore&&) = delete;

  void cut(std::size_t size) { must(::ftruncate(file_.get(), static_cast<off_t>(size))); }
  [[nodiscard]] Bytes data(std::size_t at, std::size_t length) const {
    const auto first = data_.begin() + static_cast<std::ptrdiff_t>(at);
    return {first, first + static_cast<std::ptrdiff_t>(length)};
  }

  Progress read(Io& /*io*/, std::uint64_t at, std::span<std::byte> out, ReadMode /*mode*/) noexcept override {
    return Progress::done(read_at(file_.get(), at, out).status);
  }
  Progress write(Io&, std::uint64_t, WriteMode) noexcept override { return Progress::failed(EROFS); }
  Progress zero(Io&, Range, ZeroMode) noexcept override { return Progress::failed(EROFS); }
  Progress discard(Io&, Range) noexcept override { return Progress::failed(EROFS); }
  Progress sync(Io&) noexcept override { return Progress::done(); }
  Progress allocate(Io&, Range) noexcept override { return Progress::failed(EROFS); }
  Progress grow(Io&, std::uint64_t) noexcept override { return Progress::failed(EROFS); }
  std::uint64_t extents(Range range, Extents& out) noexcept override {
    out.push_back({range.length, Kind::data, 0, this, range.offset});
    return range.length;
  }
  std::span<const std::byte> view(Range range) noexcept override {
    return {static_cast<const std::byte*>(memory_) + range.offset, range.length};
  }
  std::span<std::byte> memory(Range) noexcept override { return {}; }
  [[nodiscard]] bool in_memory() const noexcept override { return true; }
  [[nodiscard]] bool views_may_fault() const noexcept override { return true; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return k_size; }
  [[nodiscard]] bool writable() const noexcept override { return false; }
  [[nodiscard]] std::string describe() const override { return "mapped"; }

 private:
  UniqueFd file_;
  Bytes data_;
  void* memory_ = nullptr;
};

class NbdFaultingView : public ::testing::Test {
 protected:
  // Of a session with little room in its socket: a large reply is out in part, and what follows waits.
  static constexpr Session::Options k_slow{.send_buffer_bytes = 16 << 10};

  // Sends a request for all of it, and takes as much of the reply as `take`.
  Bytes begin(const Session& session, std::uint64_t cookie, std::size_t take) {
    EXPECT_TRUE(session.client.send(request(Command::read, cookie, 0, k_size)));
    Bytes taken = session.client.receive(take);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the socket is full again
    return taken;
  }

  std::shared_ptr<MappedStore> store = std::make_shared<MappedStore>();
  Device device{std::make_shared<LinearTarget>(store, "mapped", Range{0, k_size}, false),
                {.name = "mapped", .read_only = true}};
};

TEST_F(NbdFaultingView, DataNeverEndsAReply) {
  Session session(device, k_structured);
  const ReceivedReply reply = ask(session, Command::read, 1, 100, 1 << 20);
  EXPECT_TRUE(reply.data(100, 1 << 20) == store->data(100, 1 << 20));
  ASSERT_EQ(reply.chunks.size(), 2U);
  EXPECT_FALSE(reply.chunks[0].done);
  EXPECT_EQ(reply.chunks[1].type, ChunkType::none);
  Session simple(device, {});
  EXPECT_TRUE(simple.talk(request(Command::read, 2, 5, 70'000), 16 + 70'000) ==
              simple_reply(2) + store->data(5, 70'000));
}

TEST_F(NbdFaultingView, CutShortWithinAChunkEndsInZerosAndAnError) {
  Session session(device, k_structured, k_slow);
  constexpr std::size_t k_head = k_chunk_header_bytes + 8;
  const Bytes taken = begin(session, 1, k_head + (1 << 20));
  ASSERT_EQ(taken.size(), k_head + (1 << 20));
  store->cut(2 << 20);
  Bytes data(taken.begin() + k_head, taken.end());
  data = data + session.client.receive(k_size - data.size());
  ASSERT_EQ(data.size(), k_size) << "the chunk is as long as it said";
  const auto error = receive_chunk(session.client);
  ASSERT_TRUE(error);
  EXPECT_TRUE(error->done);
  EXPECT_EQ(error->type, ChunkType::error_offset);
  ReceivedReply reply;
  take_error(*error, reply);
  EXPECT_EQ(reply.error, k_eio);
  ASSERT_TRUE(reply.error_offset);
  const std::size_t valid = *reply.error_offset;
  EXPECT_GE(valid, 1U << 20);
  EXPECT_LE(valid, 2U << 20);
  EXPECT_TRUE(Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(valid)) ==
              store->data(0, valid));
  EXPECT_TRUE(Bytes(data.begin() + static_cast<std::ptrdiff_t>(valid), data.end()) == Bytes(k_size - valid));

  EXPECT_EQ(ask(session, Command::read, 2, 4096, 4096).data(4096, 4096), store->data(4096, 4096))
      << "the connection lives";
  const ReceivedReply gone = ask(session, Command::read, 3, 3 << 20, 4096);
  EXPECT_EQ(gone.error, k_eio);
  EXPECT_TRUE(gone.content.empty()) << "nothing of it was out";
}

TEST_F(NbdFaultingView, RequestsBehindAreReadAnotherWay) {
  Session session(device, k_structured, k_slow);
  (void)begin(session, 1, 0);
  ASSERT_TRUE(
      session.client.send(request(Command::read, 2, 0, 8192) + request(Command::read, 3, 3 << 20, 8192)));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  store->cut(1 << 20);
  std::map<std::uint64_t, ReceivedReply> replies;
  for (std::size_t done = 0; done < 3;) {
    const auto chunk = receive_chunk(session.client);
    ASSERT_TRUE(chunk);
    take_chunk(*chunk, replies[chunk->cookie]);
    if (chunk->done) ++done;
  }
  EXPECT_EQ(replies[1].error, k_eio);
  EXPECT_EQ(replies[2].data(0, 8192), store->data(0, 8192));
  EXPECT_EQ(replies[3].error, k_eio);
}

TEST_F(NbdFaultingView, SimpleRepliesSayItWhileTheyCan) {
  Session session(device, {}, k_slow);
  store->cut(1 << 20);
  EXPECT_EQ(session.talk(request(Command::read, 1, 2 << 20, 4096), 16), simple_reply(1, k_eio));
  EXPECT_EQ(session.talk(request(Command::read, 2, 4096, 4096), 16 + 4096),
            simple_reply(2) + store->data(4096, 4096))
      << "the connection lives";
}

TEST_F(NbdFaultingView, SimpleRepliesThatHaveBegunEndTheConnection) {
  Session session(device, {}, k_slow);
  const Bytes taken = begin(session, 1, 16 + (1 << 20));
  ASSERT_EQ(taken.size(), 16U + (1 << 20));
  store->cut(2 << 20);
  const Bytes rest = session.client.receive(k_size);
  EXPECT_LE(rest.size(), 1U << 20) << "nothing is made up";
  EXPECT_TRUE(rest == store->data(1 << 20, rest.size()));
  EXPECT_TRUE(session.client.at_end());
  EXPECT_EQ(session.join(), "the client stopped receiving");
}

}  // namespace
}  // namespace oxbow::nbd
