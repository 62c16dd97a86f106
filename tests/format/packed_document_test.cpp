// SPDX-License-Identifier: Apache-2.0
// docs/packed.md says what the code does: its tables have the structs' fields, and its example is the end of a file
// that is made as it tells.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <regex>

#include "format/hexdump.h"
#include "format/scratch.h"
#include "formats/packed/codec.h"
#include "formats/packed/frame.h"
#include "formats/packed/writer.h"

namespace oxbow::test {
namespace {

using namespace packed;  // NOLINT(google-build-using-namespace): every struct of the format is meant

std::vector<std::string> document() {
  const char* root = std::getenv("OXBOW_SOURCE_DIR");
  std::istringstream text(read_file(std::string(root == nullptr ? "." : root) + "/docs/packed.md"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

// Name, offset and size of each field, a line each.
using Fields = std::string;

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): names of members have no other way to become text
#define OXBOW_FIELD(type, name) fmt::format("{} {} {}\n", offsetof(type, name), sizeof(type::name), #name)

std::map<std::string, Fields> structs() {
  return {
      {"Header",
       OXBOW_FIELD(Header, magic) + OXBOW_FIELD(Header, crc) + OXBOW_FIELD(Header, version) +
           OXBOW_FIELD(Header, compatible) + OXBOW_FIELD(Header, incompatible) + OXBOW_FIELD(Header, uuid) +
           OXBOW_FIELD(Header, epoch) + OXBOW_FIELD(Header, created_ns) + OXBOW_FIELD(Header, packed_ns) +
           OXBOW_FIELD(Header, size) + OXBOW_FIELD(Header, base_visible) + OXBOW_FIELD(Header, max_size) +
           OXBOW_FIELD(Header, cluster_shift) + OXBOW_FIELD(Header, frame_shift) +
           OXBOW_FIELD(Header, base_path_length) + OXBOW_FIELD(Header, reserved0) +
           OXBOW_FIELD(Header, base) + OXBOW_FIELD(Header, reserved1) + OXBOW_FIELD(Header, base_path)},
      {"FrameRecord", OXBOW_FIELD(FrameRecord, offset) + OXBOW_FIELD(FrameRecord, length) +
                          OXBOW_FIELD(FrameRecord, encoding) + OXBOW_FIELD(FrameRecord, stored_crc) +
                          OXBOW_FIELD(FrameRecord, content_crc)},
      {"RunRecord", OXBOW_FIELD(RunRecord, first) + OXBOW_FIELD(RunRecord, count) +
                        OXBOW_FIELD(RunRecord, kind) + OXBOW_FIELD(RunRecord, reserved)},
      {"Trailer", OXBOW_FIELD(Trailer, magic) + OXBOW_FIELD(Trailer, crc) + OXBOW_FIELD(Trailer, header_crc) +
                      OXBOW_FIELD(Trailer, file_bytes) + OXBOW_FIELD(Trailer, index_offset) +
                      OXBOW_FIELD(Trailer, frame_count) + OXBOW_FIELD(Trailer, run_count) +
                      OXBOW_FIELD(Trailer, index_crc) + OXBOW_FIELD(Trailer, reserved0) +
                      OXBOW_FIELD(Trailer, reserved1)},
  };
}

#undef OXBOW_FIELD

TEST(PackedDocument, TablesHaveTheFieldsOfTheStructs) {
  static const std::regex k_mark("<!-- fields: (\\w+) -->");
  static const std::regex k_row("\\| *(\\d+) \\| *(\\d+) \\| [^|]+ \\| `(\\w+)` \\|.*");
  std::map<std::string, Fields> found;
  std::string in;
  for (const std::string& line : document()) {
    std::smatch match;
    if (std::regex_match(line, match, k_mark)) {
      in = match[1];
    } else if (!line.starts_with('|')) {
      in.clear();
    } else if (!in.empty() && std::regex_match(line, match, k_row)) {
      found[in] += fmt::format("{} {} {}\n", match[1].str(), match[2].str(), match[3].str());
    }
  }
  EXPECT_EQ(found, structs());
}

// What follows the clusters of the example.
std::vector<std::byte> example() {
  Header header{};
  for (std::size_t i = 0; i < header.uuid.size(); ++i) header.uuid[i] = static_cast<std::uint8_t>(0x10 + i);
  header.epoch = 2;
  header.created_ns = 1'767'225'600'000'000'000;
  header.packed_ns = 1'767'225'700'000'000'000;
  header.size = 65536;
  header.max_size = std::uint64_t{16} << 40;
  header.cluster_shift = 12;
  header.frame_shift = 17;
  std::vector<std::byte> file;
  Writer writer(header, [&](std::span<const std::byte> bytes) -> Result<void> {
    file.insert(file.end(), bytes.begin(), bytes.end());
    return {};
  });
  EXPECT_TRUE(writer.begin());
  writer.add_run(1, 2, RunKind::data);
  writer.add_run(3, 1, RunKind::zero);
  const std::vector<std::byte> clusters(8192, std::byte{7});
  std::vector<std::byte> stored;
  const FrameRecord record = Compressor(0).encode(clusters, stored);
  EXPECT_TRUE(writer.add_frame(record, stored));
  EXPECT_TRUE(writer.finish());
  return {file.begin() + static_cast<std::ptrdiff_t>(k_header_bytes + clusters.size()), file.end()};
}

TEST(PackedDocument, ExampleIsTheEndOfAFile) {
  static const std::regex k_row("\\| 0x([0-9a-f]+) \\| `([0-9a-f ]+)` \\|.*");
  const auto bytes = example();
  std::string dump;
  bool in_block = false;
  std::size_t explained = 0;
  for (const std::string& line : document()) {
    std::smatch match;
    if (line == "```hexdump index") {
      in_block = true;
    } else if (in_block && line == "```") {
      in_block = false;
    } else if (in_block) {
      dump += line + "\n";
    } else if (std::regex_match(line, match, k_row)) {
      const std::size_t offset = std::stoul(match[1], nullptr, 16);
      EXPECT_EQ(offset, explained) << "every byte is explained, in order";
      std::string expected;
      const std::size_t length = (match[2].str().size() + 1) / 3;
      for (std::size_t i = 0; i < length && offset + i < bytes.size(); ++i)
        expected += fmt::format("{}{:02x}", i == 0 ? "" : " ", static_cast<unsigned char>(bytes[offset + i]));
      EXPECT_EQ(match[2], expected) << offset;
      explained = offset + length;
    }
  }
  EXPECT_EQ(dump, hexdump(bytes));
  EXPECT_EQ(explained, bytes.size());
}

}  // namespace
}  // namespace oxbow::test
