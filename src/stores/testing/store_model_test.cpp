// SPDX-License-Identifier: Apache-2.0
#include "stores/testing/store_model.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "os/iov.h"
#include "support/effort.h"

namespace oxbow::testing {
namespace {

void fill_randomly(std::span<std::byte> bytes, std::mt19937_64& random) {
  while (!bytes.empty()) {
    const std::uint64_t word = random();
    const std::size_t length = std::min(bytes.size(), sizeof word);
    std::memcpy(bytes.data(), &word, length);
    bytes = bytes.subspan(length);
  }
}

iovec piece_of(std::span<const std::byte> bytes) noexcept {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};  // NOLINT: only read from
}

// The array of bytes next to the store, and the dice.
class Model {
 public:
  Model(Store& store, const ModelOptions& options)
      : store_(store),
        options_(options),
        user_(queue_, store),
        random_(options.seed),
        bytes_(store.size()),
        memory_(options.longest_bytes + 2 * 4096 + k_shift) {}

  void start() {
    if (options_.without_ring) refuse_ring();
    ASSERT_TRUE(user_.read(0, bytes_).ok());
  }

  void step() {
    switch (dice(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return write();
      case 4:
        return zero(ZeroMode::may_punch);
      case 5:
        return zero(ZeroMode::allocate);
      case 6:
        return discard();
      case 7:
        return check_extents();
      case 8:
        return check_views();
      case 9:
        return quick_read();
      case 10:
        return other();
      default:
        return read();
    }
  }

  void compare_all() {
    std::vector<std::byte> all(bytes_.size());
    ASSERT_TRUE(user_.read(0, all).ok());
    const auto [here, there] = std::mismatch(all.begin(), all.end(), bytes_.begin());
    ASSERT_EQ(here, all.end()) << "first difference at " << (here - all.begin());
  }

 private:
  static constexpr std::size_t k_shift = 64;

  // Makes the queue ask for its ring while the process may open no descriptors.
  void refuse_ring() {
    rlimit usual{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &usual), 0);
    const rlimit none{0, usual.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    EXPECT_EQ(queue_.ring(), nullptr);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &usual), 0);
  }

  std::uint64_t dice(std::uint64_t sides) {
    return std::uniform_int_distribution<std::uint64_t>(0, sides - 1)(random_);
  }

  // Mostly short, often touching page and block edges or the end.
  Range range() {
    const std::uint64_t size = bytes_.size();
    std::uint64_t length = 1 + dice(dice(4) == 0 ? options_.longest_bytes : 6000);
    if (dice(3) == 0) length = (length + 4095) / 4096 * 4096;
    length = std::min(length, size);
    std::uint64_t at = dice(size - length + 1);
    if (dice(3) == 0) at = at / 4096 * 4096;
    if (dice(16) == 0) at = size - length;
    return {at, length};
  }

  // Memory for `length` bytes, aligned to 4096 or deliberately not.
  std::span<std::byte> memory(std::uint64_t length) {
    std::byte* start = memory_.data();
    const auto misaligned = reinterpret_cast<std::uintptr_t>(start) % 4096;
    if (misaligned != 0) start += 4096 - misaligned;
    if (dice(2) == 0) start += 1 + dice(k_shift - 1);
    return {start, length};
  }

  std::byte* model(Range range) { return bytes_.data() + range.offset; }

  void write() {
    const Range where = range();
    const std::span<std::byte> data = memory(where.length);
    fill_randomly(data, random_);
    const WriteMode mode = dice(16) == 0 ? WriteMode::durable : WriteMode::cached;
    const IoStatus status = dice(2) == 0 ? user_.write(where.offset, data, mode)
                                         : user_.write_gathered(where.offset, data, mode, random_);
    ASSERT_EQ(status.error_number(), 0) << "write of " << where.length << " at " << where.offset;
    std::memcpy(model(where), data.data(), data.size());
  }

  void zero(ZeroMode mode) {
    const Range where = range();
    ASSERT_EQ(user_.zero(where, mode).error_number(), 0)
        << "zero of " << where.length << " at " << where.offset;
    std::memset(model(where), 0, where.length);
  }

  void discard() {
    const Range where = range();
    ASSERT_EQ(user_.discard(where).error_number(), 0)
        << "discard of " << where.length << " at " << where.offset;
    std::memset(model(where), 0, where.length);
  }

  void read() {
    const Range where = range();
    expect_same(where, memory(where.length), true);
  }

  void expect_same(Range where, std::span<std::byte> out, bool fetch) {
    if (fetch) {
      ASSERT_EQ(user_.read(where.offset, out).error_number(), 0) << where.length << " at " << where.offset;
    }
    ASSERT_EQ(std::memcmp(out.data(), model(where), out.size()), 0)
        << "read of " << where.length << " at " << where.offset;
  }

  void quick_read() {
    const Range where = range();
    const std::span<std::byte> out = memory(where.length);
    Io io(queue_, [](Io&) noexcept { std::abort(); });
    const Progress progress = store_.read(io, where.offset, out, ReadMode::no_wait);
    ASSERT_FALSE(progress.is_pending()) << "no_wait never waits";
    if (progress.is_would_block()) return;
    ASSERT_TRUE(progress.status().ok());
    expect_same(where, out, false);
  }

  void check_extents() {
    const Range where = range();
    std::uint64_t at = where.offset;
    for (const Extent& piece : user_.extents(where)) {
      ASSERT_EQ(piece.store, &store_);
      ASSERT_EQ(piece.at, at);
      ASSERT_NE(piece.kind, Kind::error);
      if (piece.kind == Kind::zero) {
        const std::byte* bytes = model(where) + (at - where.offset);
        // All bytes are like their neighbour, and the first is zero.
        ASSERT_TRUE(bytes[0] == std::byte{} && std::memcmp(bytes, bytes + 1, piece.length - 1) == 0)
            << "hole of " << piece.length << " at " << at << " should have data";
      }
      at += piece.length;
    }
    ASSERT_EQ(at, where.end());
  }

  void check_views() {
    const Range where = range();
    const std::span<const std::byte> view = store_.view(where);
    if (view.empty()) return;
    ASSERT_EQ(view.size(), where.length);
    ASSERT_EQ(std::memcmp(view.data(), model(where), view.size()), 0)
        << where.length << " at " << where.offset;
  }

  void other() {
    if (dice(2) == 0) {
      ASSERT_TRUE(user_.sync().ok());
    } else {
      const IoStatus status = user_.allocate(range());
      ASSERT_TRUE(status.ok() || status.error_number() == EOPNOTSUPP) << status.error_number();
    }
  }

  Store& store_;
  ModelOptions options_;
  Queue queue_;
  StoreUser user_;
  std::mt19937_64 random_;
  std::vector<std::byte> bytes_;
  std::vector<std::byte> memory_;
};

}  // namespace

IoStatus StoreUser::read(std::uint64_t at, std::span<std::byte> out) {
  return run_blocking(queue_, [&](Io& io) { return store_.read(io, at, out, ReadMode::may_wait); });
}

IoStatus StoreUser::write(std::uint64_t at, std::span<const std::byte> in, WriteMode mode) {
  return run_blocking(queue_, [&](Io& io) {
    io.iov.push_back(piece_of(in));
    return store_.write(io, at, mode);
  });
}

IoStatus StoreUser::write_gathered(std::uint64_t at, std::span<const std::byte> in, WriteMode mode,
                                   std::mt19937_64& random) {
  return run_blocking(queue_, [&](Io& io) {
    while (!in.empty()) {
      std::size_t length = in.size();
      if (io.iov.room() > 1) length = std::uniform_int_distribution<std::size_t>(0, in.size())(random);
      io.iov.push_back(piece_of(in.first(length)));
      in = in.subspan(length);
    }
    return store_.write(io, at, mode);
  });
}

IoStatus StoreUser::zero(Range range, ZeroMode mode) {
  return run_blocking(queue_, [&](Io& io) { return store_.zero(io, range, mode); });
}
IoStatus StoreUser::discard(Range range) {
  return run_blocking(queue_, [&](Io& io) { return store_.discard(io, range); });
}
IoStatus StoreUser::allocate(Range range) {
  return run_blocking(queue_, [&](Io& io) { return store_.allocate(io, range); });
}
IoStatus StoreUser::sync() {
  return run_blocking(queue_, [&](Io& io) { return store_.sync(io); });
}
IoStatus StoreUser::grow(std::uint64_t size) {
  return run_blocking(queue_, [&](Io& io) { return store_.grow(io, size); });
}

std::vector<Extent> StoreUser::extents(Range range) {
  std::vector<Extent> all;
  while (!range.empty()) {
    Extents some;
    const std::uint64_t covered = store_.extents(range, some);
    EXPECT_GT(covered, 0U);
    if (covered == 0) return all;
    for (const Extent& piece : some) {
      EXPECT_GT(piece.length, 0U);
      if (!all.empty() && all.back().kind == piece.kind) {
        all.back().length += piece.length;
      } else {
        all.push_back(piece);
      }
    }
    range = range.without_prefix(covered);
  }
  return all;
}

void run_store_model(Store& store, const ModelOptions& usual) {
  ModelOptions options = usual;
  options.seed = test::seed(usual.seed);
  SCOPED_TRACE("seed " + std::to_string(options.seed));
  Model model(store, options);
  model.start();
  const std::uint64_t steps = test::repetitions(options.steps, 10 * options.steps);
  for (std::uint64_t step = 0; step < steps; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    model.step();
    if (step % 100 == 99) model.compare_all();
    if (::testing::Test::HasFailure()) return;
  }
  model.compare_all();
}

std::vector<std::byte> random_bytes(std::uint64_t seed, std::size_t bytes) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> result(bytes);
  fill_randomly(result, random);
  return result;
}

TestFolder::TestFolder() {
  std::string name = (std::filesystem::current_path() / "oxbow-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), name);
  folder_ = name;
}

TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string TestFolder::file(const std::string& name, std::uint64_t size) const {
  std::ofstream(path(name)).flush();
  std::filesystem::resize_file(path(name), size);
  return path(name);
}

}  // namespace oxbow::testing
