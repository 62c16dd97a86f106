// SPDX-License-Identifier: Apache-2.0
#include "jobs/create_layer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <span>

#include "os/fd.h"
#include "os/no_cow.h"
#include "os/process_info.h"
#include "stores/open_stores.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"
#include "targets/registry.h"

namespace oxbow {
namespace {

namespace fs = std::filesystem;

constexpr const char* k_what = "cannot create layer";

Error no_random() { return {k_what, "random numbers", "the kernel has none to give"}; }

// The directory of a path, "." for a bare name.
fs::path directory_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// A new file under a name of its own, which is removed again unless it was given its real one. Thread safety: none.
class TemporaryFile {
 public:
  // Beside `path`. The mode is that of any new file.
  [[nodiscard]] static Result<TemporaryFile> make(const std::string& path) {
    std::uint64_t number = 0;
    if (!fill_random(std::as_writable_bytes(std::span(&number, 1)))) return std::unexpected(no_random());
    TemporaryFile file;
    file.path_ = (directory_of(path) / fmt::format(".{}.{:016x}", fs::path(path).filename().string(), number))
                     .string();
    file.fd_.reset(::open(file.path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file.fd_.valid()) return file;
    const int error = errno;
    file.path_.clear();
    return std::unexpected(Error::from_errno(k_what, path, error));
  }
  TemporaryFile(TemporaryFile&& other) noexcept
      : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  // Names the finished file `path`, durably, unless that exists. Returns the errno value.
  [[nodiscard]] int publish(const std::string& path) {
    const UniqueFd directory(::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid() || ::link(path_.c_str(), path.c_str()) != 0) return errno;
    if (::unlink(path_.c_str()) == 0) path_.clear();
    if (::fsync(directory.get()) == 0) return 0;
    const int error = errno;
    ::unlink(path.c_str());
    return error;
  }

 private:
  TemporaryFile() = default;
  std::string path_;
  UniqueFd fd_;
};

Result<LayerDescription> begin_description(const CreateSpec& spec) {
  LayerDescription description;
  if (!fill_random(std::as_writable_bytes(std::span(description.uuid))) ||
      !fill_random(std::as_writable_bytes(std::span(&description.salt, 1)))) {
    return std::unexpected(no_random());
  }
  description.created_ns = now_ns();
  description.cluster_shift = spec.cluster_shift;
  auto path = recorded_base_path(spec.path, spec.base);
  if (!path) return std::unexpected(path.error());
  description.base_path = std::move(*path);
  return description;
}

// The base is held, but a raw one may be written to by those who don't ask for locks.
Result<void> add_hash(Queue& queue, const DescribedBase& base, const CreateSpec& spec,
                      native::BaseRecord& record) {
  const auto hash = hash_base(queue, base.target, spec.base, spec.progress);
  if (!hash) return std::unexpected(hash.error());
  if (base.store != nullptr) {
    const auto now = base.store->current_identity();
    if (!now) return std::unexpected(now.error());
    if (now->mtime_ns != base.store->identity().mtime_ns)
      return std::unexpected(
          Error(k_what, spec.path, "its base, " + spec.base + ", was changed while it was hashed"));
  }
  record.sha256 = *hash;
  record.flags |= native::k_base_has_sha256;
  return {};
}

}  // namespace

Result<std::string> recorded_base_path(const std::string& layer_path, const std::string& base_path) {
  std::error_code error;
  const fs::path directory = fs::canonical(directory_of(base_path), error);
  if (error) return std::unexpected(Error::from_errno("cannot open base", base_path, error.value()));
  const fs::path base = directory / fs::path(base_path).filename();
  if (fs::path(base_path).is_absolute()) return base.string();
  const fs::path from = fs::canonical(directory_of(layer_path), error);
  if (error) return std::unexpected(Error::from_errno(k_what, layer_path, error.value()));
  return base.lexically_relative(from).string();
}

Result<void> create_layer(Queue& queue, const CreateSpec& spec) {
  struct stat found{};
  if (::lstat(spec.path.c_str(), &found) == 0)
    return std::unexpected(Error(k_what, spec.path, "it exists already"));
  auto description = begin_description(spec);
  if (!description) return std::unexpected(description.error());
  OpenStores stores;
  OpenContext context{queue, stores};
  auto bases = allowed_bases(spec.allow_bases);
  if (!bases) return std::unexpected(bases.error());
  context.bases = std::move(*bases);
  context.live.discard = spec.discard_live;
  const auto base = describe_base(context, spec.base, spec.base_kind, description->uuid);
  if (!base) return std::unexpected(base.error());
  description->base = base->record;
  if (spec.hash) {
    if (auto hashed = add_hash(queue, *base, spec, description->base); !hashed) return hashed;
  }
  description->size_bytes = spec.size_bytes.value_or(base->record.size);

  auto file = TemporaryFile::make(spec.path);
  if (!file) return std::unexpected(file.error());
  const auto failed = [&](int error) { return std::unexpected(Error::from_errno(k_what, spec.path, error)); };
  if (const int error = set_no_cow(file->fd()); error != 0) return failed(error);
  auto store = stores.open_file(file->path(), {.writable = true, .lock = LockMode::exclusive});
  if (!store) return std::unexpected(store.error());
  if (auto formatted = format_layer(queue, **store, *description); !formatted) {
    return std::unexpected(Error(formatted.error().what(), spec.path, formatted.error().why()));
  }
  const int error = file->publish(spec.path);
  if (error == EEXIST) return std::unexpected(Error(k_what, spec.path, "it exists already"));
  if (error != 0) return failed(error);
  return {};
}

}  // namespace oxbow
