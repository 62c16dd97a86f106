// SPDX-License-Identifier: Apache-2.0
#include "control/registry.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "exports/loop/leftovers.h"
#include "jobs/run_directory.h"
#include "os/file_lock.h"
#include "os/process_info.h"

namespace oxbow::control {
namespace {

using Json = nlohmann::json;

constexpr auto k_what = "cannot make control socket";
constexpr std::string_view k_lock_suffix = ".lock";
constexpr std::string_view k_new_suffix = ".new";
constexpr std::string_view k_socket_suffix = ".control";
constexpr std::size_t k_largest_record = 1 << 20;
constexpr std::size_t k_longest_command = 4096;
constexpr int k_backlog = 64;
constexpr unsigned k_most_ids = 1000;
constexpr std::chrono::milliseconds k_pause(10);

std::string with(std::string_view id, std::string_view suffix) {
  return std::string(id) + std::string(suffix);
}

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

// The names of the directory's files that end in `suffix`, without it.
std::vector<std::string> ids(int directory, std::string_view suffix) {
  std::vector<std::string> found;
  UniqueFd copy(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, CloseDirectory> stream(copy.valid() ? ::fdopendir(copy.get()) : nullptr);
  if (stream == nullptr) return found;
  (void)copy.release();  // the stream's now
  while (const dirent* const entry = ::readdir(stream.get())) {
    const std::string_view name(entry->d_name);
    const bool ours =
        name.size() > suffix.size() && name.ends_with(suffix) && name[0] >= '1' && name[0] <= '9';
    if (ours) found.emplace_back(name.substr(0, name.size() - suffix.size()));
  }
  return found;
}

std::string read_text(int fd) {
  std::string text;
  std::array<char, 4096> part;
  while (text.size() < k_largest_record) {
    const ssize_t got = ::pread(fd, part.data(), part.size(), static_cast<off_t>(text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  return text;
}

bool write_text(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

std::string to_text(const Record& record) {
  const Json json{{"pid", record.pid}, {"command", record.command}, {"names", record.names}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<Record> from_text(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    return Record{.pid = json.at("pid").get<std::uint64_t>(),
                  .command = json.at("command").get<std::string>(),
                  .names = json.at("names").get<std::vector<std::string>>(),
                  .socket = {}};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

// What is known of the process behind a record.
enum class Life : std::uint8_t { alive, dead, gone };

// `file` is the record's, opened; invalid when the record went away.
Life life_of(int directory, const std::string& id, UniqueFd& file) {
  file = UniqueFd(::openat(directory, with(id, k_lock_suffix).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return errno == ENOENT ? Life::gone : Life::alive;
  // A reader's lock; another reader's doesn't stand in its way, the owner's does.
  if (lock_file(file.get(), LockMode::shared) != 0) return Life::alive;
  struct stat found{};
  // Its owner may have ended well in between, and removed it.
  return ::fstat(file.get(), &found) == 0 && found.st_nlink > 0 ? Life::dead : Life::gone;
}

void remove_files(int directory, const std::string& id) noexcept {
  // The record last: a socket without one would never be found again.
  ::unlinkat(directory, with(id, k_socket_suffix).c_str(), 0);
  ::unlinkat(directory, with(id, k_new_suffix).c_str(), 0);
  ::unlinkat(directory, with(id, k_lock_suffix).c_str(), 0);
}

std::set<std::string> names_of(const std::vector<Record>& records) {
  std::set<std::string> names;
  for (const Record& each : records) names.insert(each.names.begin(), each.names.end());
  return names;
}

// The living; with `clean` (the directory's lock is held) what the dead left is removed.
std::vector<Record> scan(int directory, const std::string& path, bool clean) {
  std::vector<Record> living;
  for (const std::string& id : ids(directory, k_lock_suffix)) {
    UniqueFd file;
    Life life = life_of(directory, id, file);
    // A living one may have written its record anew in between.
    if (life == Life::gone) life = life_of(directory, id, file);
    if (life == Life::dead && clean) remove_files(directory, id);
    if (life != Life::alive || !file.valid()) continue;
    if (auto record = from_text(read_text(file.get()))) {
      record->socket = path + "/" + with(id, k_socket_suffix);
      living.push_back(std::move(*record));
    }
  }
  if (clean) {
    // Of processes that were killed while they registered: nobody registers now.
    for (const std::string& id : ids(directory, k_new_suffix)) remove_files(directory, id);
    loop::remove_leftovers(path, names_of(living));
  }
  std::ranges::sort(living, {}, &Record::pid);
  return living;
}

// The directory's lock, held until the descriptor is closed; invalid when others keep it for too long.
UniqueFd lock_directory(int directory, std::chrono::milliseconds patience) {
  UniqueFd lock(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (lock.valid() && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return {};
    if (std::chrono::steady_clock::now() >= deadline) return {};
    std::this_thread::sleep_for(k_pause);
  }
  return lock;
}

Result<void> check_names(const std::vector<std::string>& names, const std::vector<Record>& living,
                         const std::string& directory) {
  for (const std::string& name : names) {
    if (std::ranges::count(names, name) > 1) {
      return std::unexpected(Error("cannot serve device", name, "two devices have that name"));
    }
    for (const Record& record : living) {
      if (std::ranges::find(record.names, name) == record.names.end()) continue;
      return std::unexpected(Error("cannot serve device", name,
                                   fmt::format("process {} serves a device of that name in {} ({})",
                                               record.pid, directory, record.command)));
    }
  }
  return {};
}

Result<UniqueFd> listen_at(const std::string& path) {
  const auto failed = [&] { return std::unexpected(Error::from_errno(k_what, path, errno)); };
  sockaddr_un address{};
  if (path.size() >= sizeof(address.sun_path)) {
    return std::unexpected(Error(
        k_what, path, fmt::format("a socket's path has at most {} bytes", sizeof(address.sun_path) - 1)));
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return failed();
  // Linux makes the file with the mode of the socket itself, so that it is never wider, whatever the umask.
  if (::fchmod(socket.get(), 0600) != 0) return failed();
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return failed();
  if (::listen(socket.get(), k_backlog) != 0) {
    const int error = errno;
    ::unlink(path.c_str());
    return std::unexpected(Error::from_errno(k_what, path, error));
  }
  return socket;
}

// Writes and locks the record, under a name that nobody takes for one.
Result<UniqueFd> write_record(int directory, const std::string& id, const Record& record,
                              const std::string& where) {
  const std::string name = with(id, k_new_suffix);
  const auto failed = [&](int error) {
    ::unlinkat(directory, name.c_str(), 0);
    return std::unexpected(Error::from_errno("cannot write control record", where, error));
  };
  UniqueFd file(::openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return failed(errno);
  if (const int error = lock_file(file.get(), LockMode::exclusive); error != 0) return failed(error);
  if (!write_text(file.get(), to_text(record))) return failed(errno);
  return file;
}

// A name for this process's files that nobody alive has; the directory's lock is held.
std::string free_id(int directory, std::uint64_t pid) {
  std::string id = std::to_string(pid);
  for (unsigned i = 2; i < k_most_ids; ++i) {
    struct stat found{};
    const bool taken =
        ::fstatat(directory, with(id, k_lock_suffix).c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
    if (!taken) break;
    id = fmt::format("{}-{}", pid, i);
  }
  return id;
}

}  // namespace

Registration::Registration(UniqueFd directory, std::string id, Record record) noexcept
    : directory_(std::move(directory)), id_(std::move(id)), record_(std::move(record)) {}

Registration::Registration(Registration&& other) noexcept = default;

Registration::~Registration() {
  // Before the lock goes: then nobody else looks at the files.
  if (directory_.valid()) remove_files(directory_.get(), id_);
}

Result<Registration> Registration::make(const std::string& directory, std::vector<std::string> names,
                                        std::chrono::milliseconds patience) {
  auto opened = open_run_directory(directory);
  if (!opened) return std::unexpected(opened.error());
  const UniqueFd lock = lock_directory(opened->get(), patience);
  if (!lock.valid()) {
    return std::unexpected(Error(k_what, directory, "another process has kept the directory locked"));
  }
  const std::vector<Record> living = scan(opened->get(), directory, true);
  if (auto free = check_names(names, living, directory); !free) return std::unexpected(free.error());

  ProcessInfo self = this_process();
  self.command.resize(std::min(self.command.size(), k_longest_command));
  std::string id = free_id(opened->get(), self.pid);
  std::string path = directory + "/" + with(id, k_socket_suffix);
  // From here on the destructor removes what was made.
  Registration made(std::move(*opened), std::move(id),
                    {self.pid, std::move(self.command), std::move(names), std::move(path)});
  auto record = write_record(made.directory_.get(), made.id_, made.record_, directory);
  if (!record) return std::unexpected(record.error());
  made.lock_ = std::move(*record);
  auto socket = listen_at(made.record_.socket);
  if (!socket) return std::unexpected(socket.error());
  made.socket_ = std::move(*socket);
  const std::string fresh = with(made.id_, k_new_suffix);
  const std::string name = with(made.id_, k_lock_suffix);
  if (::renameat(made.directory_.get(), fresh.c_str(), made.directory_.get(), name.c_str()) != 0) {
    return std::unexpected(Error::from_errno("cannot write control record", directory, errno));
  }
  return made;
}

Result<void> Registration::add(const std::string& name, std::chrono::milliseconds patience) {
  const std::string directory = record_.socket.substr(0, record_.socket.rfind('/'));
  const UniqueFd lock = lock_directory(directory_.get(), patience);
  if (!lock.valid()) {
    return std::unexpected(
        Error("cannot serve device", name, "another process has kept " + directory + " locked"));
  }
  if (auto free = check_names({name}, scan(directory_.get(), directory, false), directory); !free)
    return free;
  Record more = record_;
  more.names.push_back(name);
  auto record = write_record(directory_.get(), id_, more, directory);
  if (!record) return std::unexpected(record.error());
  const std::string fresh = with(id_, k_new_suffix);
  if (::renameat(directory_.get(), fresh.c_str(), directory_.get(), with(id_, k_lock_suffix).c_str()) != 0) {
    const int error = errno;
    ::unlinkat(directory_.get(), fresh.c_str(), 0);
    return std::unexpected(Error::from_errno("cannot write control record", directory, error));
  }
  lock_ = std::move(*record);
  record_ = std::move(more);
  return {};
}

Result<std::vector<Record>> list_records(const std::string& directory) {
  auto opened = open_run_directory(directory);
  if (!opened) {
    if (::access(directory.c_str(), F_OK) != 0 && errno == ENOENT) return std::vector<Record>{};
    return std::unexpected(opened.error());
  }
  const UniqueFd lock = lock_directory(opened->get(), std::chrono::milliseconds(0));
  return scan(opened->get(), directory, lock.valid());
}

}  // namespace oxbow::control
