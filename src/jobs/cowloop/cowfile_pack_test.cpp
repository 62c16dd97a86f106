// SPDX-License-Identifier: Apache-2.0
// Packed streams, against files that were put down byte by byte, and streams that are wrong.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "formats/cowloop/testing/cowfile_bytes.h"
#include "jobs/cowloop/pack_cowfile.h"
#include "jobs/cowloop/testing/bytes_sink.h"
#include "jobs/cowloop/unpack_cowfile.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"
#include "support/effort.h"

namespace oxbow::cowloop {
namespace {

using testing::block_of;
using testing::Bytes;
using testing::BytesSink;
using testing::CowfileBytes;

// As zlib itself does it, in one call.
Bytes gzip(const Bytes& bytes) {
  z_stream stream{};
  EXPECT_EQ(::deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes out(::deflateBound(&stream, bytes.size()));
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

// Thread safety: none.
class CowfilePack : public ::testing::Test {
 protected:
  std::shared_ptr<RamStore> store_of(const Bytes& bytes) {
    auto store = RamStore::create({.size_bytes = std::max<std::uint64_t>(1, bytes.size())});
    EXPECT_TRUE(store) << store.error().text();
    EXPECT_TRUE(write_blocking(queue_, **store, 0, bytes).ok());
    return *store;
  }
  Bytes bytes_of(Store& store) {
    Bytes bytes(store.size());
    EXPECT_TRUE(read_blocking(queue_, store, 0, bytes).ok());
    return bytes;
  }
  Bytes pack(const Bytes& cowfile, Form form = Form::padded) {
    const auto store = store_of(cowfile);
    BytesSink sink;
    const Head head = parse(std::span(cowfile).first<k_block_bytes>()).value();
    EXPECT_TRUE(pack_stream(queue_, *store, head, form, sink, {}));
    return sink.stream;
  }
  // What it becomes, or why it doesn't.
  std::expected<Bytes, std::string> unpack(const Bytes& stream, bool compressed) {
    const auto in = store_of(stream);
    const auto out = store_of({});
    Result<Head> head{};
    if (compressed) {
      GzipSource first(queue_, "cannot unpack cowfile", in);
      const auto shape = shape_of("cannot unpack cowfile", "packed", first);
      if (!shape) return std::unexpected(shape.error().why());
      GzipSource source(queue_, "cannot unpack cowfile", in);
      head = unpack_stream(queue_, "packed", source, *shape, *out, {});
    } else {
      PlainSource source(queue_, "cannot unpack cowfile", in);
      head = unpack_stream(queue_, "packed", source, {}, *out, {});
    }
    if (!head) {
      EXPECT_EQ(bytes_of(*out)[0], std::byte{0}) << "no head was written";
      return std::unexpected(head.error().why());
    }
    return bytes_of(*out);
  }
  std::string refusal(const Bytes& stream, bool compressed = false) {
    const auto done = unpack(stream, compressed);
    return done ? "unpacked" : done.error();
  }

  Queue queue_;
};

CowfileBytes example(bool wide) {
  CowfileBytes file{.wide = wide, .blocks = 9000, .fingerprint = 0xffffffff81020304};
  for (const std::uint64_t block : {0U, 1U, 2U, 500U, 8191U, 8192U, 8999U})
    file.data[block] = block_of(static_cast<unsigned>(1 + (block % 250)));
  file.data[700] = block_of(0);
  return file;
}

// As cowpack compresses it: what the fields don't fill is left out.
Bytes gapless(const CowfileBytes& file) {
  const Bytes padded = file.make();
  const auto at = [&](std::uint64_t offset) { return padded.begin() + static_cast<long>(offset); };
  Bytes stream(at(0), at(file.wide ? 56 : 32));
  stream.insert(stream.end(), at(1024), at(1024 + file.map_bytes()));
  if (!file.data.empty()) stream.insert(stream.end(), at(file.data_at()), padded.end());
  return stream;
}

CowfileBytes packed(CowfileBytes file) {
  file.flags = 2;
  file.packed = true;
  return file;
}

TEST_F(CowfilePack, StreamIsTheOneOfCowpack) {
  for (const bool wide : {true, false}) {
    const CowfileBytes file = example(wide);
    const Bytes stream = packed(file).make();
    EXPECT_EQ(pack(file.make()), stream);
    EXPECT_EQ(unpack(stream, false).value(), file.make());
    EXPECT_EQ(unpack(gzip(stream), true).value(), file.make());
    EXPECT_EQ(pack(file.make(), Form::gapless), gapless(packed(file)));
    EXPECT_EQ(unpack(gzip(gapless(packed(file))), true).value(), file.make());
  }
}

TEST_F(CowfilePack, OneWithoutBlocks) {
  const CowfileBytes file{.blocks = 9000};
  EXPECT_EQ(pack(file.make()), packed(file).make());
  CowfileBytes longer = packed(file);
  longer.length = file.data_at();
  EXPECT_EQ(unpack(packed(file).make(), false).value(), file.make());
  EXPECT_EQ(unpack(gzip(longer.make()), true).value(), file.make());
  EXPECT_EQ(unpack(gzip(packed(file).make()), true).value(), file.make());
  EXPECT_EQ(pack(file.make(), Form::gapless), gapless(packed(file)));
  EXPECT_EQ(unpack(gzip(gapless(packed(file))), true).value(), file.make());
}

TEST_F(CowfilePack, WhatLiesBehindAPackedFileIsLeftOut) {
  Bytes stream = packed(example(true)).make();
  stream.resize(stream.size() + 5000, std::byte{7});
  EXPECT_EQ(unpack(stream, false).value(), example(true).make());
  Bytes compressed = gzip(gapless(packed(example(true))));
  compressed.resize(compressed.size() + 5000, std::byte{7});
  EXPECT_EQ(unpack(compressed, true).value(), example(true).make());
}

TEST_F(CowfilePack, RandomFilesComeBack) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + test::repetitions(20, 400); ++seed) {
    std::mt19937_64 random(seed);
    CowfileBytes file{.wide = random() % 2 == 0, .blocks = 1 + (random() % 20000)};
    for (std::uint64_t i = random() % 200; i > 0; --i)
      file.data[random() % file.blocks] = block_of(static_cast<unsigned>(random() % 5));
    const Bytes bytes = file.make();
    const Bytes stream = pack(bytes);
    ASSERT_EQ(stream, packed(file).make()) << "seed " << seed;
    ASSERT_EQ(unpack(stream, false).value(), bytes) << "seed " << seed;
    ASSERT_EQ(unpack(gzip(stream), true).value(), bytes) << "seed " << seed;
    ASSERT_EQ(pack(bytes, Form::gapless), gapless(packed(file))) << "seed " << seed;
    ASSERT_EQ(unpack(gzip(gapless(packed(file))), true).value(), bytes) << "seed " << seed;
  }
}

TEST_F(CowfilePack, StreamsThatEndTooEarly) {
  const CowfileBytes file = packed(example(true));
  const Bytes stream = file.make();
  const auto cut = [&](std::size_t length) {
    return Bytes(stream.begin(), stream.begin() + static_cast<long>(length));
  };
  EXPECT_EQ(refusal(cut(1)), "it ends at byte 1 of the packed stream, inside its head");
  EXPECT_EQ(refusal(cut(1023)), "it ends at byte 1023 of the packed stream, inside its head");
  EXPECT_EQ(refusal(cut(1024)), "it ends at byte 1024 of the packed stream, inside its bitmap");
  EXPECT_EQ(refusal(cut(3000)), "it ends at byte 3000 of the packed stream, inside its bitmap");
  EXPECT_EQ(refusal(cut(3072)), "it ends at byte 3072 of the packed stream, before its blocks");
  EXPECT_EQ(refusal(cut(4096)), "it ends at byte 4096 of the packed stream, inside its blocks");
  EXPECT_EQ(refusal(cut(stream.size() - 1)), "it ends at byte 12287 of the packed stream, inside its blocks");
  for (const std::size_t length : {56U, 1023U, 1024U, 3072U, 4096U, 12287U}) {
    EXPECT_EQ(refusal(gzip(cut(length)), true),
              "its gzip data holds " + std::to_string(length) +
                  " bytes, and with mapsize 2048 and cowused 8 it has to hold 10296, or 12288 with padding");
  }
  EXPECT_EQ(refusal(gzip(cut(55)), true), "it ends at byte 55 of the packed stream, inside its head");
}

TEST_F(CowfilePack, HeadsThatNoPackedFileHas) {
  CowfileBytes file = packed(example(true));
  const auto refusal = [&](const Bytes& stream) {
    std::string why = CowfilePack::refusal(stream);
    EXPECT_EQ(CowfilePack::refusal(gzip(stream), true), why);
    return why;
  };
  file.flags = 0;
  EXPECT_EQ(refusal(file.make()), "it is not packed: its flags lack 0x0002");
  file.flags = 3;
  EXPECT_EQ(refusal(file.make()), "it is dirty, which a packed file never is: its flags have 0x0001");
  file.flags = 2;
  file.used = 7;
  EXPECT_EQ(CowfilePack::refusal(file.make()), "its cowused is 7, and 8 bits of its bitmap are set");
  EXPECT_EQ(CowfilePack::refusal(gzip(file.make()), true),
            "its gzip data holds more than 11264 bytes, and with mapsize 2048 and cowused 7 it has to hold "
            "9272, or "
            "11264 with padding");
  file.used = 8;
  file.more_bits = {9000};
  EXPECT_EQ(refusal(file.make()), "bit 9000 of its bitmap is set, and its rdoblocks is 9000");
  file.more_bits = {};
  Bytes bytes = file.make();
  bytes[38] = std::byte{0xff};
  EXPECT_EQ(refusal(bytes), "its rdoblocks is 71776119061226280, and can be 1125899906842624 at the most");
  bytes[0] = std::byte{0};
  EXPECT_EQ(refusal(bytes), "its magic is 0x574f4300, and a cowfile's is 0x574f437f");
}

// A head that is consistent, of a device of 2^50 blocks, and nothing else.
TEST_F(CowfilePack, AbsurdCountsEndWithTheStream) {
  Head head = fresh_head(Layout::bytes_8, k_most_blocks, 0);
  head.packed = true;
  Bytes stream(k_block_bytes);
  encode(head, std::span(stream).first<k_block_bytes>());
  EXPECT_EQ(refusal(stream), "it ends at byte 1024 of the packed stream, inside its bitmap");
  EXPECT_EQ(refusal(gzip(stream), true),
            "its gzip data holds 1024 bytes, and with mapsize 140737488355328 and cowused 0 it has to hold "
            "140737488355384, or 140737488359424 with padding");
}

TEST_F(CowfilePack, GzipGarbageIsNamed) {
  const Bytes stream = packed(example(true)).make();
  const Bytes sound = gzip(stream);
  const auto why = [&](const Bytes& bytes) {
    const auto done = unpack(bytes, true);
    return done ? "done" : done.error();
  };
  EXPECT_EQ(why(Bytes(sound.begin(), sound.begin() + 20)),
            "its gzip data ends at byte 20, in the middle of a stream");
  EXPECT_EQ(why(Bytes(sound.begin(), sound.end() - 8)),
            "its gzip data ends at byte " + std::to_string(sound.size() - 8) + ", in the middle of a stream");
  Bytes bytes = sound;
  bytes[2] = std::byte{7};
  EXPECT_EQ(why(bytes), "its gzip data is damaged: unknown compression method");
  bytes = sound;
  bytes[bytes.size() - 5] ^= std::byte{1};
  EXPECT_EQ(why(bytes), "its gzip data is damaged: incorrect data check");
  bytes = sound;
  bytes[bytes.size() - 1] ^= std::byte{1};
  EXPECT_EQ(why(bytes), "its gzip data is damaged: incorrect length check");
  for (std::size_t i = 10; i < sound.size(); ++i) {
    bytes = sound;
    bytes[i] ^= std::byte{0x55};
    const auto done = unpack(bytes, true);
    // Some bits mean nothing, such as those that fill up a block; no others go unnoticed.
    EXPECT_TRUE(!done || *done == example(true).make()) << "byte " << i;
  }
}

// Terabytes of zeros behind the last block: not one of them is looked at.
TEST_F(CowfilePack, BombsEndWhereTheBitmapSays) {
  Bytes stream = packed(example(true)).make();
  stream.resize(stream.size() + (std::size_t{64} << 20));
  const Bytes compressed = gzip(stream);
  ASSERT_LT(compressed.size(), 100'000U);
  EXPECT_EQ(refusal(compressed, true),
            "its gzip data holds more than 12288 bytes, and with mapsize 2048 and cowused 8 it has to hold "
            "10296, or "
            "12288 with padding");
}

// A bitmap that says that all of a gigabyte is there, and it is: zeros. They take no room.
TEST_F(CowfilePack, BlocksOfZerosTakeNoRoom) {
  Head head = fresh_head(Layout::bytes_8, std::uint64_t{64} << 10, 0);
  head.used_blocks = head.base_blocks;
  head.packed = true;
  Bytes stream(head.data_offset);
  encode(head, std::span(stream).first<k_block_bytes>());
  std::fill_n(stream.begin() + k_bitmap_at, head.map_bytes, std::byte{0xff});
  stream.resize(head.file_bytes());
  const auto in = store_of(gzip(stream));
  auto out = RamStore::create({.size_bytes = 1, .budget_bytes = 1 << 20});
  ASSERT_TRUE(out) << out.error().text();
  GzipSource source(queue_, "cannot unpack cowfile", in);
  const auto done = unpack_stream(queue_, "packed", source, {}, **out, {});
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ((*out)->size(), head.file_bytes());
}

}  // namespace
}  // namespace oxbow::cowloop
