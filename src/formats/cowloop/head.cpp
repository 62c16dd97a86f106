// SPDX-License-Identifier: Apache-2.0
#include "formats/cowloop/head.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace oxbow::cowloop {
namespace {

static_assert(std::endian::native == std::endian::little, "fields are copied as they are");

constexpr std::size_t k_version_at = 4;
constexpr std::size_t k_flags_at = 6;
constexpr std::size_t k_words_at = 8;

// The six `unsigned long` of the head, in their order.
struct Words {
  std::uint64_t mapunit, mapsize, doffset, rdoblocks, rdofingerprint, cowused;
};

template <typename T>
T load(std::span<const std::byte> from, std::size_t at) noexcept {
  T value;
  std::memcpy(&value, from.subspan(at, sizeof(T)).data(), sizeof(T));
  return value;
}

template <typename T>
void store(std::span<std::byte> to, std::size_t at, T value) noexcept {
  std::memcpy(to.subspan(at, sizeof(T)).data(), &value, sizeof(T));
}

template <typename T>
Words load_words(std::span<const std::byte> block) noexcept {
  const auto word = [&](std::size_t i) {
    return std::uint64_t{load<T>(block, k_words_at + (i * sizeof(T)))};
  };
  return {word(0), word(1), word(2), word(3), word(4), word(5)};
}

template <typename T>
void store_words(std::span<std::byte> block, const Words& words) noexcept {
  std::size_t at = k_words_at;
  for (const std::uint64_t word :
       {words.mapunit, words.mapsize, words.doffset, words.rdoblocks, words.rdofingerprint, words.cowused}) {
    store(block, at, static_cast<T>(word));
    at += sizeof(T);
  }
}

template <typename... Args>
std::unexpected<HeadFault> field(fmt::format_string<Args...> text, Args&&... args) {
  return std::unexpected(HeadFault{Fault::field, fmt::format(text, std::forward<Args>(args)...)});
}

std::expected<Layout, HeadFault> recognise(std::span<const std::byte> block) {
  const auto wide = load_words<std::uint64_t>(block);
  const auto narrow = load_words<std::uint32_t>(block);
  if (wide.mapunit == k_block_bytes) return Layout::bytes_8;
  if (narrow.mapunit != k_block_bytes)
    return field("its mapunit is {} as 8 bytes and {} as 4, and has to be {}", wide.mapunit, narrow.mapunit,
                 k_block_bytes);
  if (narrow.mapsize % k_block_bytes == 0)
    return Layout::bytes_4;  // not 0, or mapunit would be right as 8 bytes
  return field(
      "its mapunit is {} as 8 bytes and has to be {}; as 4 bytes that is right, but then its mapsize is {}, "
      "which is no multiple of {}",
      wide.mapunit, k_block_bytes, narrow.mapsize, k_block_bytes);
}

std::expected<void, HeadFault> check_fields(const Head& head) {
  const std::uint64_t most = head.layout == Layout::bytes_8 ? k_most_blocks : k_most_blocks_4;
  if (head.base_blocks == 0) return field("its rdoblocks is 0: there is no device without blocks");
  if (head.base_blocks > most)
    return field("its rdoblocks is {}, and can be {} at the most", head.base_blocks, most);
  if (const std::uint64_t wanted = map_bytes(head.base_blocks); head.map_bytes != wanted)
    return field("its mapsize is {}, and rdoblocks {} wants {}", head.map_bytes, head.base_blocks, wanted);
  if (const std::uint64_t wanted = data_offset(head.map_bytes); head.data_offset != wanted)
    return field("its doffset is {}, and mapsize {} wants {}", head.data_offset, head.map_bytes, wanted);
  if (!head.dirty && head.used_blocks > head.base_blocks)
    return field("its cowused is {}, more than its rdoblocks {}", head.used_blocks, head.base_blocks);
  return {};
}

std::expected<void, HeadFault> check_start(std::span<const std::byte> block) {
  const auto magic = load<std::uint32_t>(block, 0);
  if (magic == k_swapped_magic)
    return std::unexpected(HeadFault{Fault::big_endian,
                                     "it is a cowfile of a big-endian machine, which oxbow doesn't read: "
                                     "merge it with cowmerge on such a machine"});
  if (magic != k_magic)
    return std::unexpected(HeadFault{
        Fault::no_magic, fmt::format("its magic is {:#010x}, and a cowfile's is {:#010x}", magic, k_magic)});
  if (const auto version = load<std::uint16_t>(block, k_version_at); version != k_version)
    return std::unexpected(
        HeadFault{Fault::version,
                  fmt::format("its version is {}, and oxbow knows version {} alone", version, k_version)});
  const auto flags = load<std::uint16_t>(block, k_flags_at);
  if (const int unknown = flags & ~(k_flag_dirty | k_flag_packed); unknown != 0)
    return field("its flags are {:#06x}, of which {:#06x} mean nothing in version {}", flags, unknown,
                 k_version);
  return {};
}

// What stands there by chance is no mark: the number comes with its complement.
std::optional<std::uint32_t> load_merging(std::span<const std::byte> block) noexcept {
  const auto value = load<std::uint32_t>(block, k_merge_at + sizeof(k_merge_magic));
  const auto complement = load<std::uint32_t>(block, k_merge_at + sizeof(k_merge_magic) + sizeof(value));
  if (load<std::uint64_t>(block, k_merge_at) != k_merge_magic || complement != ~value) return std::nullopt;
  return value;
}

void store_merging(std::span<std::byte> block, std::uint32_t value) noexcept {
  store(block, k_merge_at, k_merge_magic);
  store(block, k_merge_at + sizeof(k_merge_magic), value);
  store(block, k_merge_at + sizeof(k_merge_magic) + sizeof(value), ~value);
}

}  // namespace

bool has_magic(std::span<const std::byte> start) noexcept {
  if (start.size() < sizeof(k_magic)) return false;
  const auto magic = load<std::uint32_t>(start, 0);
  return magic == k_magic || magic == k_swapped_magic;
}

Head fresh_head(Layout layout, std::uint64_t blocks, std::uint32_t fingerprint) noexcept {
  Head head;
  head.layout = layout;
  head.map_bytes = map_bytes(blocks);
  head.data_offset = data_offset(head.map_bytes);
  head.base_blocks = blocks;
  head.fingerprint = fingerprint;
  return head;
}

std::expected<Head, HeadFault> parse(std::span<const std::byte, k_block_bytes> block) {
  if (auto checked = check_start(block); !checked) return std::unexpected(checked.error());
  const auto layout = recognise(block);
  if (!layout) return std::unexpected(layout.error());
  const bool wide = *layout == Layout::bytes_8;
  const Words words = wide ? load_words<std::uint64_t>(block) : load_words<std::uint32_t>(block);
  const auto flags = load<std::uint16_t>(block, k_flags_at);
  Head head;
  head.layout = *layout;
  head.dirty = (flags & k_flag_dirty) != 0;
  head.packed = (flags & k_flag_packed) != 0;
  head.map_bytes = words.mapsize;
  head.data_offset = words.doffset;
  head.base_blocks = words.rdoblocks;
  head.fingerprint = static_cast<std::uint32_t>(words.rdofingerprint);
  head.used_blocks = words.cowused;
  if (head.dirty && !wide && words.cowused == static_cast<std::uint32_t>(k_in_order))
    head.used_blocks = k_in_order;
  if (auto checked = check_fields(head); !checked) return std::unexpected(checked.error());
  const auto boot_id = load<Uuid>(block, k_session_at);
  const auto session_id = load<Uuid>(block, k_session_at + sizeof(Uuid));
  if (head.kept_in_order()) {
    head.boot_id = boot_id;
    head.session_id = session_id;
  } else {
    head.session_left = boot_id != Uuid{} || session_id != Uuid{};
  }
  head.merging = load_merging(block);
  return head;
}

void encode(const Head& head, std::span<std::byte, k_block_bytes> block) noexcept {
  std::ranges::fill(block, std::byte{0});
  store(block, 0, k_magic);
  store(block, k_version_at, head.version);
  store(block, k_flags_at,
        static_cast<std::uint16_t>((head.dirty ? k_flag_dirty : 0) | (head.packed ? k_flag_packed : 0)));
  // The sum of the fourth block reaches the highest bit of an `int`, which the original then widens.
  const auto widened = static_cast<std::int64_t>(static_cast<std::int32_t>(head.fingerprint));
  const Words words{head.block_bytes,
                    head.map_bytes,
                    head.data_offset,
                    head.base_blocks,
                    static_cast<std::uint64_t>(widened),
                    head.used_blocks};
  if (head.layout == Layout::bytes_8) {
    store_words<std::uint64_t>(block, words);
  } else {
    store_words<std::uint32_t>(block, words);
  }
  if (head.merging) store_merging(block, *head.merging);
  if (!head.kept_in_order()) return;
  store(block, k_session_at, head.boot_id);
  store(block, k_session_at + sizeof(Uuid), head.session_id);
}

const char* name_of(Layout layout) noexcept { return layout == Layout::bytes_8 ? "64-bit" : "32-bit"; }

}  // namespace oxbow::cowloop
