// SPDX-License-Identifier: Apache-2.0
// docs/format.md says what the code does: its tables have the structs' fields, and its examples are the bytes of a
// layer that is made and used as they tell.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <regex>

#include "format/hexdump.h"
#include "format/scratch.h"
#include "formats/native/codec.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"

namespace oxbow::test {
namespace {

using namespace native;  // NOLINT(google-build-using-namespace): every struct of the format is meant

// The document, line by line.
std::vector<std::string> document() {
  const char* root = std::getenv("OXBOW_SOURCE_DIR");
  std::istringstream text(read_file(std::string(root == nullptr ? "." : root) + "/docs/format.md"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

// --- the tables of fields ---

struct Field {
  std::string name;
  std::size_t offset;
  std::size_t size;
  friend bool operator==(const Field&, const Field&) = default;
  friend void PrintTo(const Field& field, std::ostream* out) {
    *out << field.name << " at " << field.offset << ", " << field.size << " bytes";
  }
};

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): names of members have no other way to become text
#define OXBOW_FIELD(type, name) \
  Field { #name, offsetof(type, name), sizeof(type::name) }

std::map<std::string, std::vector<Field>> structs() {
  return {
      {"Superblock",
       {OXBOW_FIELD(Superblock, magic),
        OXBOW_FIELD(Superblock, crc),
        OXBOW_FIELD(Superblock, version),
        OXBOW_FIELD(Superblock, compatible),
        OXBOW_FIELD(Superblock, read_only_compatible),
        OXBOW_FIELD(Superblock, incompatible),
        OXBOW_FIELD(Superblock, sequence),
        OXBOW_FIELD(Superblock, uuid),
        OXBOW_FIELD(Superblock, salt),
        OXBOW_FIELD(Superblock, created_ns),
        OXBOW_FIELD(Superblock, size),
        OXBOW_FIELD(Superblock, base_visible),
        OXBOW_FIELD(Superblock, max_size),
        OXBOW_FIELD(Superblock, cluster_shift),
        OXBOW_FIELD(Superblock, copy),
        OXBOW_FIELD(Superblock, page_count),
        OXBOW_FIELD(Superblock, slot_offset),
        OXBOW_FIELD(Superblock, record_offset),
        OXBOW_FIELD(Superblock, holder_offset),
        OXBOW_FIELD(Superblock, ring_offset),
        OXBOW_FIELD(Superblock, ring_length),
        OXBOW_FIELD(Superblock, data_offset),
        OXBOW_FIELD(Superblock, epoch),
        OXBOW_FIELD(Superblock, absent_before),
        OXBOW_FIELD(Superblock, state),
        OXBOW_FIELD(Superblock, base_path_length),
        OXBOW_FIELD(Superblock, base),
        OXBOW_FIELD(Superblock, boot_id),
        OXBOW_FIELD(Superblock, live_path),
        OXBOW_FIELD(Superblock, reserved),
        OXBOW_FIELD(Superblock, base_path)}},
      {"BaseRecord",
       {OXBOW_FIELD(BaseRecord, kind), OXBOW_FIELD(BaseRecord, flags), OXBOW_FIELD(BaseRecord, size),
        OXBOW_FIELD(BaseRecord, device), OXBOW_FIELD(BaseRecord, inode), OXBOW_FIELD(BaseRecord, mtime_ns),
        OXBOW_FIELD(BaseRecord, uuid), OXBOW_FIELD(BaseRecord, epoch), OXBOW_FIELD(BaseRecord, samples),
        OXBOW_FIELD(BaseRecord, sha256)}},
      {"StatePage",
       {OXBOW_FIELD(StatePage, crc), OXBOW_FIELD(StatePage, magic), OXBOW_FIELD(StatePage, index),
        OXBOW_FIELD(StatePage, slot), OXBOW_FIELD(StatePage, reserved0), OXBOW_FIELD(StatePage, epoch),
        OXBOW_FIELD(StatePage, flush_number), OXBOW_FIELD(StatePage, ring_seq),
        OXBOW_FIELD(StatePage, reserved1), OXBOW_FIELD(StatePage, leaves)}},
      {"FlushRecord",
       {OXBOW_FIELD(FlushRecord, crc), OXBOW_FIELD(FlushRecord, magic), OXBOW_FIELD(FlushRecord, epoch),
        OXBOW_FIELD(FlushRecord, flush_number), OXBOW_FIELD(FlushRecord, ring_tail),
        OXBOW_FIELD(FlushRecord, slot), OXBOW_FIELD(FlushRecord, count), OXBOW_FIELD(FlushRecord, ring_seq),
        OXBOW_FIELD(FlushRecord, reserved0), OXBOW_FIELD(FlushRecord, pages),
        OXBOW_FIELD(FlushRecord, reserved1)}},
      {"RingRecord",
       {OXBOW_FIELD(RingRecord, crc), OXBOW_FIELD(RingRecord, magic), OXBOW_FIELD(RingRecord, epoch),
        OXBOW_FIELD(RingRecord, sequence), OXBOW_FIELD(RingRecord, length), OXBOW_FIELD(RingRecord, count),
        OXBOW_FIELD(RingRecord, reserved)}},
      {"RingEntry",
       {OXBOW_FIELD(RingEntry, offset), OXBOW_FIELD(RingEntry, length), OXBOW_FIELD(RingEntry, state),
        OXBOW_FIELD(RingEntry, reserved)}},
      {"Holder",
       {OXBOW_FIELD(Holder, crc), OXBOW_FIELD(Holder, magic), OXBOW_FIELD(Holder, pid),
        OXBOW_FIELD(Holder, started_ns), OXBOW_FIELD(Holder, host), OXBOW_FIELD(Holder, command),
        OXBOW_FIELD(Holder, reserved)}},
      {"LiveHeader",
       {OXBOW_FIELD(LiveHeader, magic), OXBOW_FIELD(LiveHeader, crc), OXBOW_FIELD(LiveHeader, version),
        OXBOW_FIELD(LiveHeader, uuid), OXBOW_FIELD(LiveHeader, device), OXBOW_FIELD(LiveHeader, inode),
        OXBOW_FIELD(LiveHeader, boot_id), OXBOW_FIELD(LiveHeader, epoch), OXBOW_FIELD(LiveHeader, next_epoch),
        OXBOW_FIELD(LiveHeader, dead), OXBOW_FIELD(LiveHeader, reserved)}},
      {"LivePage",
       {OXBOW_FIELD(LivePage, owners), OXBOW_FIELD(LivePage, reserved), OXBOW_FIELD(LivePage, leaves)}},
  };
}

#undef OXBOW_FIELD

// Rows `| offset | size | type | `name` | …` after a line `<!-- fields: STRUCT -->`.
std::map<std::string, std::vector<Field>> tables_of_fields() {
  static const std::regex k_mark("<!-- fields: (\\w+) -->");
  static const std::regex k_row("\\| *(\\d+) \\| *(\\d+) \\| [^|]+ \\| `(\\w+)` \\|.*");
  std::map<std::string, std::vector<Field>> found;
  std::string in;
  for (const std::string& line : document()) {
    std::smatch match;
    if (std::regex_match(line, match, k_mark)) {
      in = match[1];
      found[in];
    } else if (!line.starts_with('|') && !line.empty()) {
      in.clear();
    } else if (!in.empty() && std::regex_match(line, match, k_row)) {
      found[in].push_back({match[3], std::stoul(match[1]), std::stoul(match[2])});
    }
  }
  return found;
}

TEST(FormatDocument, TablesHaveTheFieldsOfTheStructs) {
  const auto documented = tables_of_fields();
  const auto real = structs();
  for (const auto& [name, fields] : real) {
    const auto found = documented.find(name);
    ASSERT_NE(found, documented.end()) << "no table of " << name;
    EXPECT_EQ(found->second, fields) << name;
  }
  EXPECT_EQ(documented.size(), real.size());
}

// --- the example ---

constexpr std::uint64_t k_base_bytes = 1 << 20;
constexpr std::uint64_t k_cluster_bytes = 4096;

std::string bytes_of(const void* object, std::size_t size) {
  std::string bytes(size, '\0');
  std::memcpy(bytes.data(), object, size);
  return bytes;
}

LayerDescription example_description(Queue& queue, Store& base) {
  LayerDescription description;
  for (std::size_t i = 0; i < description.uuid.size(); ++i)
    description.uuid[i] = static_cast<std::uint8_t>(0x10 + i);
  description.salt = 0x0123456789abcdef;
  description.created_ns = 1'767'225'600'000'000'000;
  description.size_bytes = k_base_bytes;
  description.base.kind = BaseKind::raw;
  description.base.size = k_base_bytes;
  description.base.device = 0x801;
  description.base.inode = 131;
  description.base.mtime_ns = 1'767'182'400'000'000'000;
  auto samples = sample_base(queue, base, description.uuid);
  EXPECT_TRUE(samples) << samples.error().text();
  if (samples) description.base.samples = *samples;
  description.base_path = "golden.img";
  return description;
}

Holder example_holder() {
  Holder holder{};
  holder.magic = k_holder_magic;
  holder.pid = 4242;
  holder.started_ns = 1'767'225'700'000'000'000;
  std::ranges::copy(std::string_view("alder"), holder.host.begin());
  std::ranges::copy(std::string_view("oxbow serve work.oxb"), holder.command.begin());
  seal(holder);
  return holder;
}

// The named structs as production code writes them: a layer is made; in its first session cluster 0 is written,
// cluster 1 zeroed, and both flushed.
std::map<std::string, std::string> example() {
  const Scratch scratch;
  Queue queue;
  make_file(scratch.path("golden.img"), content("ba", 0, k_base_bytes), 0);
  auto base = FileStore::open(scratch.path("golden.img"), {});
  EXPECT_TRUE(base) << base.error().text();
  const auto layer = make_store(scratch.path("work.oxb"));
  const LayerDescription description = example_description(queue, **base);
  const auto formatted = format_layer(queue, *layer, description);
  EXPECT_TRUE(formatted) << formatted.error().text();
  std::map<std::string, std::string> found;
  found["superblock"] = read_store(queue, *layer, 0, sizeof(Superblock));

  auto below = std::make_shared<LinearTarget>(*base, "golden.img", Range{0, k_base_bytes}, false);
  auto target = CowTarget::open(queue, layer, below, {.writable = true});
  EXPECT_TRUE(target) << target.error().text();
  const Superblock superblock = (*target)->superblock();
  Device device(*target, {.name = "example"});
  const std::string data = content("wo", 0, k_cluster_bytes);
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) {
                return device.write(io, 0, std::as_bytes(std::span(data)), Durability::with_flush);
              }).ok());
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) {
                return device.zero(io, {k_cluster_bytes, k_cluster_bytes}, false, Durability::with_flush);
              }).ok());
  EXPECT_TRUE(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok());
  found["session"] = read_store(queue, *layer, k_apart_bytes, 256);
  found["record"] = read_store(queue, *layer, superblock.record_offset[0], sizeof(FlushRecord));
  found["page"] = read_store(queue, *layer, superblock.slot_offset[0], sizeof(StatePage));
  const Holder holder = example_holder();
  found["holder"] = bytes_of(&holder, sizeof(holder));
  return found;
}

// The blocks ```hexdump NAME of the document, and after each the rows `| 0x… | `bytes` | …` that explain it.
struct Explained {
  std::string dump;
  std::vector<std::pair<std::size_t, std::string>> rows;
};

std::map<std::string, Explained> documented_examples() {
  static const std::regex k_row("\\| 0x([0-9a-f]+) \\| `([0-9a-f ]+)` \\|.*");
  std::map<std::string, Explained> found;
  Explained* last = nullptr;
  bool in_block = false;
  for (const std::string& line : document()) {
    std::smatch match;
    if (line.starts_with("```hexdump ")) {
      last = &found[line.substr(line.find(' ') + 1)];
      in_block = true;
    } else if (in_block && line == "```") {
      in_block = false;
    } else if (in_block) {
      last->dump += line + "\n";
    } else if (last != nullptr && std::regex_match(line, match, k_row)) {
      last->rows.emplace_back(std::stoul(match[1], nullptr, 16), match[2]);
    }
  }
  return found;
}

TEST(FormatDocument, ExamplesAreTheBytesOfALayer) {
  const auto documented = documented_examples();
  const auto real = example();
  for (const auto& [name, bytes] : real) {
    const auto place = documented.find(name);
    const std::string dump = hexdump(std::as_bytes(std::span(bytes)));
    if (place == documented.end()) {
      ADD_FAILURE() << "no block \"hexdump " << name << "\"; it would be\n" << dump;
      continue;
    }
    EXPECT_EQ(place->second.dump, dump) << name;
    EXPECT_FALSE(place->second.rows.empty()) << name << " is not explained";
    for (const auto& [offset, text] : place->second.rows) {
      std::string expected;
      for (std::size_t i = 0; i < (text.size() + 1) / 3 && offset + i < bytes.size(); ++i) {
        expected += fmt::format("{}{:02x}", i == 0 ? "" : " ", static_cast<unsigned char>(bytes[offset + i]));
      }
      EXPECT_EQ(text, expected) << name << " at " << offset;
    }
  }
  EXPECT_EQ(documented.size(), real.size());
}

// What the document says of the examples' values, seen from the other side: they are accepted.
TEST(FormatDocument, ExamplesAreValid) {
  const auto real = example();
  const auto as = [&]<typename T>(const std::string& name, T& object) {
    ASSERT_EQ(real.at(name).size(), sizeof(object));
    std::memcpy(&object, real.at(name).data(), sizeof(object));
  };
  Superblock superblock{};
  as("superblock", superblock);
  EXPECT_EQ(check(superblock, 0).text, "");
  superblock.epoch = 2;  // the session's
  StatePage page{};
  as("page", page);
  EXPECT_EQ(inspect(page, 0, 0, superblock), SlotState::valid);
  EXPECT_FALSE(has_invalid_state(page));
  EXPECT_EQ(page.leaves[0][0], 0b00'01'11U) << "cluster 0 data, 1 zero, 2 absent";
  FlushRecord record{};
  as("record", record);
  EXPECT_EQ(inspect(record, 0, superblock), SlotState::valid);
  Holder holder{};
  as("holder", holder);
  EXPECT_TRUE(valid(holder));
}

}  // namespace
}  // namespace oxbow::test
