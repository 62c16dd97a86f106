// SPDX-License-Identifier: Apache-2.0
// Cowfiles of cowloop, and packed ones as a file and in gzip, that are damaged or made to deceive. The input is a
// whole file, or changes bytes of a sound one's head, bitmap and blocks; a stream may be compressed again behind
// that, so that what is behind the checksum is reached. Everything ends with bytes or an error, with bounded memory;
// what is accepted is as its head says, a repair leaves nothing for a second one, and what is packed comes back.

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "jobs/cowloop/cowfile_writer.h"
#include "jobs/cowloop/merge_cowfile.h"
#include "jobs/cowloop/pack_cowfile.h"
#include "jobs/cowloop/repair_cowfile.h"
#include "jobs/cowloop/testing/bytes_sink.h"
#include "jobs/cowloop/unpack_cowfile.h"
#include "stores/blocking.h"
#include "stores/ram/ram_store.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace {

using namespace oxbow;
using namespace oxbow::cowloop;

constexpr std::uint64_t k_blocks = 300;
constexpr std::uint64_t k_most_blocks_used = 20'000;
constexpr std::uint64_t k_budget_bytes = std::uint64_t{64} << 20;
constexpr const char* k_what = "cannot";
using Bytes = std::vector<std::byte>;
using testing::BytesSink;

std::shared_ptr<RamStore> store_of(Queue& queue, const Bytes& bytes) {
  auto store = RamStore::create(
      {.size_bytes = std::max<std::uint64_t>(1, bytes.size()), .budget_bytes = k_budget_bytes});
  if (!store || !write_blocking(queue, **store, 0, bytes).ok()) std::abort();
  return *store;
}

Bytes bytes_of(Queue& queue, Store& store) {
  Bytes bytes(store.size());
  if (!read_blocking(queue, store, 0, bytes).ok()) std::abort();
  return bytes;
}

Bytes sound_cowfile(Layout layout) {
  Queue queue;
  const auto store = store_of(queue, {});
  CowfileWriter writer(queue, k_what, *store, fresh_head(layout, k_blocks, 0x81020304));
  for (const std::uint64_t block : {0U, 1U, 5U, 63U, 64U, 255U, 299U}) {
    if (!writer.add(block, Bytes(k_block_bytes, static_cast<std::byte>(block)))) std::abort();
  }
  if (!writer.finish()) std::abort();
  return bytes_of(queue, *store);
}

Bytes sound_stream(Layout layout, Form form) {
  Queue queue;
  const auto store = store_of(queue, sound_cowfile(layout));
  const auto head = read_head(queue, k_what, *store);
  BytesSink sink;
  if (!head || !pack_stream(queue, *store, *head, form, sink, {})) std::abort();
  return sink.stream;
}

Bytes compressed(const Bytes& stream) {
  Bytes out;
  Deflater deflater([&](std::span<const std::byte> bytes) -> Result<void> {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return {};
  });
  if (!deflater.add(stream) || !deflater.finish()) std::abort();
  return out;
}

bool is_sound(Queue& queue, Store& cowfile, const Head& head) {
  if (!check_length(k_what, cowfile, head)) return false;
  const auto survey = survey_bitmap(queue, k_what, cowfile, head);
  return survey && !contradiction(*survey, head, cowfile.size());
}

void pack_and_unpack(Queue& queue, Store& cowfile, const Head& head) {
  if (head.used_blocks > k_most_blocks_used || head.map_bytes > k_budget_bytes / 4) return;
  for (const Form form : {Form::padded, Form::gapless}) {
    BytesSink sink;
    if (!pack_stream(queue, cowfile, head, form, sink, {})) std::abort();
    PlainSource source(queue, k_what, store_of(queue, sink.stream));
    const auto out = store_of(queue, {});
    if (!unpack_stream(queue, "fuzz", source, {form, head.layout}, *out, {})) std::abort();
    const Bytes again = bytes_of(queue, *out);
    Bytes before = bytes_of(queue, cowfile);
    const auto same = for_each_run(queue, k_what, cowfile, head, [&](Range run) -> Result<void> {
      const auto at = static_cast<std::ptrdiff_t>(block_at(head, run.offset));
      const auto end = at + static_cast<std::ptrdiff_t>(run.length * k_block_bytes);
      if (!std::equal(before.begin() + at, before.begin() + end, again.begin() + at)) std::abort();
      return {};
    });
    if (!same) std::abort();
  }
}

void merge(Queue& queue, Store& cowfile, const Head& head) {
  if (head.device_bytes() > k_budget_bytes / 4) return;
  const auto base = store_of(queue, Bytes(head.device_bytes(), std::byte{3}));
  Head fits = head;
  const auto fingerprint = fingerprint_of(queue, k_what, *base);
  if (!fingerprint) std::abort();
  fits.fingerprint = *fingerprint;
  if (!write_head(queue, k_what, cowfile, fits)) std::abort();
  if (!merge_into_base(queue, cowfile, fits, *base, Afterwards::empty, {})) std::abort();
  const auto after = read_head(queue, k_what, cowfile);
  if (!after || after->dirty || after->merging || after->used_blocks != 0) std::abort();
  if (!check_base(queue, k_what, cowfile, *after, *base)) std::abort();
}

void use_cowfile(const Bytes& file) {
  Queue queue;
  const auto store = store_of(queue, file);
  const auto head = read_head(queue, k_what, *store);
  if (!head) return;
  if (!head->packed && !head->dirty && !head->merging && is_sound(queue, *store, *head))
    pack_and_unpack(queue, *store, *head);
  const Bytes before = bytes_of(queue, *store);
  const auto would = repair_cowfile(queue, *store, {.dry_run = true, .force = true});
  if (bytes_of(queue, *store) != before) std::abort();
  const auto repaired = repair_cowfile(queue, *store, {.force = true});
  if (!repaired) return;
  if (!would || would->corrected != repaired->corrected || would->after != repaired->after) std::abort();
  const auto after = read_head(queue, k_what, *store);
  if (!after || after->dirty || !is_sound(queue, *store, *after)) std::abort();
  const auto again = repair_cowfile(queue, *store, {});
  if (!again || again->needed) std::abort();
  merge(queue, *store, *after);
}

void use_stream(const Bytes& file, bool gzip) {
  Queue queue;
  const auto in = store_of(queue, file);
  const auto out = store_of(queue, {});
  Result<Head> head = std::unexpected(Error("", "", ""));
  if (gzip) {
    GzipSource first(queue, k_what, in);
    const auto shape = shape_of(k_what, "fuzz", first);
    if (!shape) return;
    GzipSource source(queue, k_what, in);
    head = unpack_stream(queue, "fuzz", source, *shape, *out, {});
  } else {
    PlainSource source(queue, k_what, in);
    head = unpack_stream(queue, "fuzz", source, {}, *out, {});
  }
  if (!head) return;
  const auto found = read_head(queue, k_what, *out);
  if (!found || *found != *head || found->packed || !is_sound(queue, *out, *found)) std::abort();
}

// Places count from the start; those of blocks are as likely as those of the head.
void edit(Bytes& file, std::span<const std::uint8_t> edits) {
  for (; edits.size() >= 4; edits = edits.subspan(4)) {
    const std::size_t at = (edits[1] | static_cast<std::size_t>(edits[2]) << 8U) % file.size();
    file[(edits[0] & 1U) != 0 ? at : at % 64] = static_cast<std::byte>(edits[3]);
  }
  if (!edits.empty())
    file.resize(file.size() - std::min<std::size_t>(file.size(), std::size_t{edits[0]} * 40));
}

Bytes as_bytes(std::span<const std::uint8_t> input) {
  Bytes bytes(input.size());
  std::ranges::transform(input, bytes.begin(),
                         [](std::uint8_t byte) { return static_cast<std::byte>(byte); });
  return bytes;
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::span<const std::uint8_t> input(data + 1, size - 1);
  const Layout layout = (data[0] & 8U) != 0 ? Layout::bytes_4 : Layout::bytes_8;
  switch (data[0] % 8) {
    case 0:
      use_cowfile(as_bytes(input));
      break;
    case 1: {
      Bytes file = sound_cowfile(layout);
      edit(file, input);
      use_cowfile(file);
      break;
    }
    case 2:
      use_stream(as_bytes(input), false);
      break;
    case 3: {
      Bytes stream = sound_stream(layout, Form::padded);
      edit(stream, input);
      use_stream(stream, false);
      break;
    }
    case 4:
      use_stream(as_bytes(input), true);
      break;
    case 5:
    case 6: {
      Bytes stream = sound_stream(layout, data[0] % 8 == 5 ? Form::gapless : Form::padded);
      edit(stream, input);
      use_stream(compressed(stream), true);
      break;
    }
    default: {
      Bytes file = compressed(sound_stream(layout, Form::gapless));
      edit(file, input);
      use_stream(file, true);
    }
  }
  return 0;
}
