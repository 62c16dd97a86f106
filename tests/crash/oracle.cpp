// SPDX-License-Identifier: Apache-2.0
#include "crash/oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "os/fixed.h"
#include "sim/chooser.h"

namespace oxbow::crash {
namespace {

constexpr unsigned k_offset_bits = 40;  // of 8-byte words: devices of up to 8 TiB
constexpr std::size_t k_entries_before_compaction = 6;

[[nodiscard]] std::uint64_t word_of(WriteId id, std::uint64_t word) noexcept {
  return sim::Random::mix((std::uint64_t{id} << k_offset_bits) | word);
}

// Undoes value ^= value >> shift.
[[nodiscard]] constexpr std::uint64_t unshift(std::uint64_t value, unsigned shift) noexcept {
  std::uint64_t result = value;
  for (unsigned done = shift; done < 64; done += shift) result = value ^ (result >> shift);
  return result;
}

[[nodiscard]] std::uint64_t load_word(sim::SectorView bytes, unsigned at) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  return word;
}

}  // namespace

void fill_content(WriteId id, std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::uint64_t word = word_of(id, offset / 8);
    const std::uint64_t skip = offset % 8;
    const std::size_t length = std::min<std::size_t>(8 - skip, out.size());
    std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&word) + skip, length);
    out = out.subspan(length);
    offset += length;
  }
}

Tale tell_tale(std::uint64_t word) noexcept {
  // The inverse of Random::mix, with the multiplicative inverses of its two factors.
  word = unshift(word, 31) * 0x319642B2D24D8EC3U;
  word = unshift(word, 27) * 0x96DE1B173F119089U;
  word = unshift(word, 30);
  return {static_cast<WriteId>(word >> k_offset_bits),
          (word & ((std::uint64_t{1} << k_offset_bits) - 1)) * 8};
}

void Oracle::set_initial(std::uint64_t sector, sim::SectorView bytes) {
  sectors_[sector].base = pool_.add(bytes);
}

void Oracle::forget() {
  sectors_.clear();
  uncovered_.clear();
}

WriteId Oracle::begin_write(Range range, ChangeKind kind, bool durable) {
  const auto id = static_cast<WriteId>(writes_.size());
  writes_.push_back({.range = range, .kind = kind, .durable = durable, .submitted = ++now_, .life = life_});
  uncovered_.push_back(id);
  for (Range left = range; !left.empty();) {
    const std::uint64_t from = left.offset % k_sector_bytes;
    const std::uint64_t length = std::min(left.length, k_sector_bytes - from);
    const std::uint64_t number = left.offset / k_sector_bytes;
    Sector& sector = sectors_[number];
    if (sector.entries.size() >= k_entries_before_compaction) compact(number, sector);
    sector.entries.push_back({id, static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(from + length),
                              sim::ContentId::zeros});
    left = left.without_prefix(length);
  }
  return id;
}

void Oracle::end_write(WriteId id, bool ok) {
  Write& write = writes_[id];
  write.ended = ++now_;
  write.ok = ok;
  write.covered = ok && write.durable;
}

void Oracle::end_flush(Moment submitted) {
  ++now_;
  std::erase_if(uncovered_, [&](WriteId id) {
    Write& write = writes_[id];
    if (write.ended >= submitted) return false;
    write.covered = write.covered || write.ok;
    return true;
  });
}

Moment Oracle::begin_read() {
  reads_.push_back(++now_);
  return now_;
}

std::optional<std::string> Oracle::end_read(Moment submitted, std::uint64_t at,
                                            std::span<const std::byte> bytes) {
  ++now_;
  std::erase(reads_, submitted);
  const Firm firm{.after_crash = false, .before = submitted};
  while (!bytes.empty()) {
    const auto low = static_cast<unsigned>(at % k_sector_bytes);
    const std::size_t length = std::min<std::size_t>(bytes.size(), k_sector_bytes - low);
    sim::SectorBytes sector{};
    std::memcpy(sector.data() + low, bytes.data(), length);
    auto wrong = check_sector(at / k_sector_bytes, sector, firm, low, low + static_cast<unsigned>(length));
    if (wrong) return "a read returned: " + *wrong;
    if (length == k_sector_bytes) note_seen(at / k_sector_bytes, sector, firm);
    at += length;
    bytes = bytes.subspan(length);
  }
  return {};
}

// A request in flight whose value was read has taken effect there: what is submitted from now on comes after it.
// Not so one that is tried again when its disk was full: it may take effect there once more.
void Oracle::note_seen(std::uint64_t number, sim::SectorView bytes, const Firm& firm) {
  if (retries_) return;
  const auto place = sectors_.find(number);
  if (place == sectors_.end()) return;
  for (Entry& each : place->second.entries) {
    if (writes_[each.id].ended != k_never || each.seen != k_never) continue;
    if (each.from != 0 || each.to != k_sector_bytes) continue;
    const auto meant = matches(number, place->second, 0, k_sector_bytes, bytes, firm);
    if (meant.size() == 1 && meant[0].entry == &each) each.seen = now_;
  }
}

std::optional<std::string> Oracle::check_after_crash(Crash how, std::uint64_t at,
                                                     std::span<const std::byte> bytes) const {
  const Firm firm{.after_crash = true, .before = 0, .all_completed = how == Crash::kill};
  assert(at % k_sector_bytes == 0 && bytes.size() % k_sector_bytes == 0);
  for (std::size_t done = 0; done < bytes.size(); done += k_sector_bytes) {
    const sim::SectorView sector(bytes.data() + done, k_sector_bytes);
    auto wrong = check_sector((at + done) / k_sector_bytes, sector, firm, 0, k_sector_bytes);
    if (wrong) return wrong;
  }
  return {};
}

bool Oracle::is_firm(const Write& write, const Firm& firm) const noexcept {
  if (!write.ok) return false;
  if (!firm.after_crash) return write.ended < firm.before;
  return firm.all_completed || write.covered;
}

// Whether something that has to be there was submitted to all of [from, to) after a value had ended.
bool Oracle::is_replaced(const Sector& sector, Moment ended, unsigned from, unsigned to,
                         const Firm& firm) const noexcept {
  return std::ranges::any_of(sector.entries, [&](const Entry& each) {
    const Write& write = writes_[each.id];
    return each.from <= from && each.to >= to && ended < write.submitted && is_firm(write, firm);
  });
}

bool Oracle::shows(std::uint64_t number, const Sector& sector, const Entry* entry, unsigned from, unsigned to,
                   sim::SectorView bytes) const {
  const ChangeKind kind = entry == nullptr ? ChangeKind::observed : writes_[entry->id].kind;
  sim::SectorBytes made;
  const std::byte* expected = nullptr;
  if (kind == ChangeKind::content) {
    if (from % 8 == 0 && to - from >= 8 &&
        load_word(bytes, from) != word_of(entry->id, number * 64 + from / 8)) {
      return false;
    }
    fill_content(entry->id, number * k_sector_bytes + from, std::span(made).subspan(from, to - from));
    expected = made.data();
  } else if (kind == ChangeKind::zeros) {
    expected = pool_.at(sim::ContentId::zeros).data();
  } else {
    expected = pool_.at(entry == nullptr ? sector.base : entry->content).data();
  }
  return std::memcmp(bytes.data() + from, expected + from, to - from) == 0;
}

std::vector<Oracle::Candidate> Oracle::matches(std::uint64_t number, const Sector& sector, unsigned from,
                                               unsigned to, sim::SectorView bytes, const Firm& firm) const {
  std::vector<Candidate> found;
  if (!is_replaced(sector, sector.base_ended, from, to, firm) &&
      shows(number, sector, nullptr, from, to, bytes)) {
    found.push_back({nullptr, 0, sector.base_ended});
  }
  for (const Entry& each : sector.entries) {
    if (each.from > from || each.to < to) continue;
    const Write& write = writes_[each.id];
    if (is_replaced(sector, settled(each), from, to, firm)) continue;
    if (shows(number, sector, &each, from, to, bytes))
      found.push_back({&each, write.submitted, settled(each)});
  }
  return found;
}

std::optional<std::string> Oracle::check_sector(std::uint64_t number, sim::SectorView bytes, const Firm& firm,
                                                unsigned low, unsigned high) const {
  static const Sector k_untouched;
  const auto place = sectors_.find(number);
  const Sector& sector = place == sectors_.end() ? k_untouched : place->second;
  if (sector.entries.empty()) {
    if (shows(number, sector, nullptr, low, high, bytes)) return {};
    return complaint(number, &sector, low, high, bytes, firm);
  }
  Fixed<unsigned, 256> borders;
  borders.push_back(low);
  borders.push_back(high);
  for (const Entry& each : sector.entries) {
    for (const unsigned border : {unsigned{each.from}, unsigned{each.to}}) {
      if (border > low && border < high && std::ranges::find(borders, border) == borders.end()) {
        borders.push_back(border);
      }
    }
  }
  std::ranges::sort(borders);
  std::vector<std::vector<Candidate>> found;
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
    found.push_back(matches(number, sector, borders[i], borders[i + 1], bytes, firm));
    if (found.back().empty()) return complaint(number, &sector, borders[i], borders[i + 1], bytes, firm);
  }
  if (firm.after_crash && found.size() > 1 && is_torn(sector, found, borders.span())) {
    return "torn inside a sector: " + complaint(number, &sector, low, high, bytes, firm);
  }
  return {};
}

// Whether a sector that shows `shown` in one part lacks, in some part, what was there before `shown` (or is the very
// same write). Where several values look alike, the most harmless one is assumed.
bool Oracle::lacks_older(const Sector& sector, const Candidate& shown,
                         std::span<const std::vector<Candidate>> found,
                         std::span<const unsigned> borders) const {
  if (shown.entry == nullptr) return false;
  for (std::size_t part = 0; part < found.size(); ++part) {
    const Candidate& newest = *std::ranges::max_element(found[part], {}, &Candidate::ended);
    const bool lacks = std::ranges::any_of(sector.entries, [&](const Entry& each) {
      const Write& write = writes_[each.id];
      const bool covers = each.from <= borders[part] && each.to >= borders[part + 1];
      const bool is_there = each.id == shown.entry->id || (write.ok && write.ended < shown.submitted);
      return covers && is_there && newest.ended < write.submitted;
    });
    if (lacks) return true;
  }
  return false;
}

// Whether the parts of a sector cannot be of one moment.
bool Oracle::is_torn(const Sector& sector, std::span<const std::vector<Candidate>> found,
                     std::span<const unsigned> borders) const {
  return std::ranges::any_of(found, [&](const std::vector<Candidate>& part) {
    return std::ranges::all_of(
        part, [&](const Candidate& each) { return lacks_older(sector, each, found, borders); });
  });
}

std::string Oracle::describe(WriteId id) const {
  if (id == k_base_image) return "the base image";
  if (id == 0 || id >= writes_.size()) return fmt::format("#{} (unknown)", id);
  const Write& write = writes_[id];
  static constexpr std::string_view k_kinds[] = {"write", "zeros", "what was found"};
  const std::string_view state = write.ended == k_never ? "in flight"
                                 : !write.ok            ? "failed"
                                 : write.covered        ? "durable"
                                                        : "completed";
  return fmt::format("#{} ({} {:#x}+{:#x}, life {}, {})", id, k_kinds[static_cast<std::size_t>(write.kind)],
                     write.range.offset, write.range.length, write.life, state);
}

std::string Oracle::complaint(std::uint64_t number, const Sector* sector, unsigned from, unsigned to,
                              sim::SectorView bytes, const Firm& firm) const {
  std::string text = fmt::format("sector {} bytes {}..{} (device {:#x}) show ", number, from, to - 1,
                                 number * k_sector_bytes + from);
  const auto is_zero = [](std::byte each) { return each == std::byte{0}; };
  if (std::all_of(bytes.begin() + from, bytes.begin() + to, is_zero)) {
    text += "zeros";
  } else {
    const unsigned word = std::min((from + 7) / 8 * 8, 504U);
    const Tale tale = tell_tale(load_word(bytes, word));
    text += describe(tale.id);
    if (tale.offset != number * k_sector_bytes + word) text += fmt::format(" of device {:#x}", tale.offset);
  }
  text += "; allowed:";
  if (!is_replaced(*sector, sector->base_ended, from, to, firm)) {
    text += sector->base == sim::ContentId::zeros ? " the zeros from before"
            : sector->base_id != 0                ? " " + describe(sector->base_id)
                                                  : " what was there before";
  }
  for (const Entry& each : sector->entries) {
    if (each.from >= to || each.to <= from) continue;
    const bool replaced = is_replaced(*sector, settled(each), from, to, firm);
    text += (replaced ? " not " : " ") + describe(each.id);
  }
  return text;
}

// Forgets the values that cannot show again, so that sectors that are written often stay cheap.
void Oracle::compact(std::uint64_t number, Sector& sector) {
  const Moment oldest_read = reads_.empty() ? now_ : *std::ranges::min_element(reads_);
  const Entry* last = nullptr;
  for (const Entry& each : sector.entries) {
    const Write& write = writes_[each.id];
    const bool whole = each.from == 0 && each.to == k_sector_bytes;
    // Only what replaces the old base for good can take its place.
    const bool newer = sector.base_ended < write.submitted;
    if (whole && newer && write.covered && write.ended < oldest_read) last = &each;
  }
  if (last == nullptr) return;
  const Entry kept = *last;
  const Write& keeper = writes_[kept.id];
  sim::SectorBytes bytes{};
  if (keeper.kind == ChangeKind::content) fill_content(kept.id, number * k_sector_bytes, bytes);
  sector.base = keeper.kind == ChangeKind::observed ? kept.content : pool_.add(bytes);
  const Moment base_ended = keeper.ended;
  sector.base_id = kept.id;
  std::erase_if(sector.entries, [&](const Entry& each) {
    return each.id == kept.id || writes_[each.id].ended < keeper.submitted;
  });
  sector.base_ended = base_ended;
}

void Oracle::crashed(Crash how) {
  ++now_;
  for (const WriteId id : uncovered_) {
    if (writes_[id].ended == k_never) writes_[id].ended = now_;
  }
  reads_.clear();
  ++life_;
  if (how == Crash::power_loss) uncovered_.clear();
}

void Oracle::found(Crash how, std::uint64_t at, std::span<const std::byte> bytes) {
  for (; !bytes.empty(); at += k_sector_bytes, bytes = bytes.subspan(k_sector_bytes)) {
    const auto place = sectors_.find(at / k_sector_bytes);
    if (place == sectors_.end() || place->second.entries.empty()) continue;
    Sector& sector = place->second;
    const sim::ContentId content = pool_.add(sim::SectorView(bytes.data(), k_sector_bytes));
    if (how == Crash::power_loss) {
      sector = Sector{.base = content};
      continue;
    }
    const WriteId id = begin_write({at, k_sector_bytes}, ChangeKind::observed, false);
    sector.entries.back().content = content;
    end_write(id, true);
  }
}

std::vector<std::uint64_t> Oracle::known_sectors() const {
  std::vector<std::uint64_t> numbers;
  numbers.reserve(sectors_.size());
  for (const auto& [number, sector] : sectors_) numbers.push_back(number);
  std::ranges::sort(numbers);
  return numbers;
}

}  // namespace oxbow::crash
