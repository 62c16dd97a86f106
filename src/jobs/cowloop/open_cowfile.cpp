// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/open_cowfile.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "formats/cowloop/gzip.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

Result<std::shared_ptr<FileStore>> open_file(const std::string& what, const std::string& path, Use use) {
  const FileOptions options{.writable = use == Use::write,
                            .lock = use == Use::look    ? LockMode::none
                                    : use == Use::write ? LockMode::exclusive
                                                        : LockMode::shared};
  auto store = FileStore::open(path, options);
  if (store) return store;
  return std::unexpected(Error(what, path, store.error().why()));
}

// Whether what is compressed begins like a cowfile.
bool holds_cowfile(std::span<const std::byte> compressed) {
  Inflater inflater;
  std::array<std::byte, sizeof(k_magic)> start{};
  std::size_t filled = 0;
  while (filled < start.size()) {
    const auto step = inflater.step(compressed, std::span(start).subspan(filled));
    if (!step || step->given == 0) return false;
    compressed = compressed.subspan(step->taken);
    filled += step->given;
  }
  return has_magic(start);
}

}  // namespace

FileKind kind_of_file(Queue& queue, const std::string& path) {
  constexpr std::uint64_t k_start_bytes = 4096;
  auto store = FileStore::open(path, {});
  if (!store) return FileKind::other;
  std::vector<std::byte> start(std::min(k_start_bytes, (*store)->size()));
  if (!read_blocking(queue, **store, 0, start).ok()) return FileKind::other;
  if (has_magic(start)) return FileKind::cowfile;
  return has_gzip_magic(start) && holds_cowfile(start) ? FileKind::gzip : FileKind::other;
}

Result<OpenedCowfile> open_cowfile(Queue& queue, const std::string& what, const std::string& path, Use use) {
  auto store = open_file(what, path, use);
  if (!store) return std::unexpected(store.error());
  if (auto checked = check_regular(what, **store); !checked) return std::unexpected(checked.error());
  auto head = read_head(queue, what, **store);
  if (!head) return std::unexpected(head.error());
  return OpenedCowfile{std::move(*store), *head};
}

Result<OpenedCowfile> open_sound_cowfile(Queue& queue, const std::string& what, const std::string& path) {
  auto opened = open_cowfile(queue, what, path, Use::read);
  if (!opened) return opened;
  const Head& head = opened->head;
  if (auto checked = check_state(what, *opened->store, head, IfDirty::refuse, "oxbow repair completes it");
      !checked)
    return std::unexpected(checked.error());
  if (head.dirty)
    return std::unexpected(Error(what, path, "it is dirty: it was not closed; oxbow repair makes it clean"));
  if (auto checked = check_length(what, *opened->store, head); !checked)
    return std::unexpected(checked.error());
  const auto survey = survey_bitmap(queue, what, *opened->store, head);
  if (!survey) return std::unexpected(survey.error());
  if (auto why = contradiction(*survey, head, opened->store->size()))
    return std::unexpected(Error(what, path, std::move(*why)));
  return opened;
}

Result<std::shared_ptr<FileStore>> open_base(const std::string& what, const std::string& path, Use use) {
  return open_file(what, path, use);
}

Result<void> check_distinct(const std::string& what, const FileStore& cowfile, const FileStore& base) {
  if (!cowfile.identity().same_file(base.identity())) return {};
  return std::unexpected(
      Error(what, cowfile.path(), "it is the read-only file too, and they have to be two"));
}

IoStatus read_or_zeros(Queue& queue, Store& file, std::uint64_t at, std::span<std::byte> out) {
  const std::uint64_t there = std::min<std::uint64_t>(out.size(), file.size() - std::min(file.size(), at));
  std::ranges::fill(out.subspan(there), std::byte{0});
  return there == 0 ? IoStatus{} : read_blocking(queue, file, at, out.first(there));
}

bool all_zero(std::span<const std::byte> bytes) noexcept {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace oxbow::cowloop
