// SPDX-License-Identifier: Apache-2.0
// Making and growing a RamStore's memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "stores/ram/ram_store.h"

namespace oxbow {
namespace {

constexpr const char* k_cannot_create = "cannot create ram store";

std::string bytes_text(std::uint64_t bytes) { return fmt::format("{} bytes", bytes); }

// Beyond this, rounding up or off_t would overflow.
constexpr std::uint64_t k_most_bytes = std::uint64_t{1} << 62;

}  // namespace

RamStore::RamStore(const RamOptions& options) noexcept
    : options_(options),
      size_(options.size_bytes),
      budget_(options.budget_bytes == 0 ? PageBudget::k_unlimited : options.budget_bytes / k_ram_page_bytes,
              options.shared) {}

Result<std::shared_ptr<RamStore>> RamStore::create(const RamOptions& options) {
  const std::string where = bytes_text(options.size_bytes);
  if (options.size_bytes == 0)
    return std::unexpected(Error(k_cannot_create, where, "the size must not be 0"));
  if (options.preallocate && options.budget_bytes != 0 &&
      options.budget_bytes < whole_ram_pages(options.size_bytes)) {
    return std::unexpected(Error(k_cannot_create, where,
                                 fmt::format("preallocation needs all of it, but the budget is {}",
                                             bytes_text(options.budget_bytes))));
  }
  std::shared_ptr<RamStore> store(new RamStore(options));
  Result<void> ready = store->map();
  if (ready && options.preallocate) ready = store->preallocate();
  if (!ready) return std::unexpected(ready.error());
  return store;
}

Result<void> RamStore::map() {
  const std::string where = bytes_text(size());
  memfd_.reset(::memfd_create("oxbow-ram", MFD_CLOEXEC));
  if (!memfd_.valid()) return std::unexpected(Error::from_errno(k_cannot_create, where, errno));
  int error = map_memory(size_);
  if (error == 0) error = pages_.init(memory_.size() / k_ram_page_bytes);
  if (error == ENOMEM || error == EFBIG) {
    return std::unexpected(
        Error(k_cannot_create, where, "it does not fit into this process's address space"));
  }
  if (error != 0) return std::unexpected(Error::from_errno(k_cannot_create, where, error));
  return {};
}

int RamStore::map_memory(std::uint64_t size) noexcept {
  if (size > k_most_bytes) return EFBIG;
  const std::uint64_t bytes = whole_ram_pages(size);
  if (::ftruncate(memfd_.get(), static_cast<off_t>(bytes)) != 0) return errno;
  std::expected<Mapping, int> mapping = Mapping::shared(memfd_.get(), bytes);
  if (!mapping) return mapping.error();
  // Huge pages would take 2 MiB for a page's write. Both are refused only by kernels that lack what they
  // switch off.
  (void)::madvise(mapping->data(), bytes, MADV_NOHUGEPAGE);
  (void)::madvise(mapping->data(), bytes, MADV_DONTDUMP);
  std::swap(memory_, *mapping);
  if (mapping->data() != nullptr) outgrown_.push_back(std::move(*mapping));
  return 0;
}

Result<void> RamStore::preallocate() {
  const int error = take_pages({0, memory_.size()});
  if (error == 0) return {};
  return std::unexpected(
      Error(k_cannot_create, bytes_text(size()), "there is not enough memory to preallocate it"));
}

int RamStore::take_pages(Range range) noexcept {
  const std::uint64_t absent = pages_.count_absent(range);
  if (!budget_.charge(absent)) return ENOSPC;
  while (::fallocate(memfd_.get(), 0, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) !=
         0) {
    if (errno == EINTR) continue;
    const int error = errno;
    budget_.give_back(absent);
    return error;
  }
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    pages_.set(piece.group, piece.touched());
    range = range.without_prefix(piece.range.length);
  }
  return 0;
}

Progress RamStore::grow(Io& /*io*/, std::uint64_t size) noexcept {
  if (size < size_) return Progress::failed(EINVAL);
  const int error = make_larger(size);
  return error == 0 ? Progress::done() : Progress::failed(error);
}

int RamStore::resize(std::uint64_t size) noexcept {
  if (size >= size_) return make_larger(size);
  // The rest of its last page is zeroed, so that it is zeros when the store grows again.
  Range cut{size, whole_ram_pages(size_) - size};
  while (!cut.empty()) {
    const GroupPiece piece = first_piece(cut);
    if ((pages_.load(piece.group) & piece.touched()) != 0) drop(piece);
    cut = cut.without_prefix(piece.range.length);
  }
  size_ = size;
  return 0;
}

int RamStore::make_larger(std::uint64_t size) noexcept {
  if (size > k_most_bytes) return EFBIG;
  const std::uint64_t old_bytes = whole_ram_pages(size_);
  const std::uint64_t new_bytes = whole_ram_pages(size);
  int error = 0;
  if (new_bytes > memory_.size()) {
    error = pages_.grow(new_bytes / k_ram_page_bytes);
    if (error == 0) error = map_memory(size);
  }
  if (error == 0 && options_.preallocate && new_bytes > old_bytes) {
    error = take_pages({old_bytes, new_bytes - old_bytes});
  }
  if (error == 0) size_ = size;
  return error;
}

std::string RamStore::describe() const { return "ram of " + bytes_text(size()); }

}  // namespace oxbow
