// SPDX-License-Identifier: Apache-2.0
// vm-replay all LOG TARGET BETWEEN SEED COMMAND: writes what dm-log-writes recorded in LOG to TARGET, a device of
// zeros, up to each mark, and up to BETWEEN random entries after each mark; there runs COMMAND ENTRY MARK NEXT in a
// shell, where NEXT is the mark that follows (0 after the last), or MARK itself at a mark. Names of marks are numbers.
// vm-replay some LOG TARGET ENTRY SEED: of the writes after that entry which the disk was not yet asked to make
// durable, writes a random part.

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t k_magic = 0x6a736677736872;
constexpr std::uint64_t k_flush = 1, k_fua = 2, k_discard = 4, k_mark = 8;

// The first block of a log; little-endian, as is this program's only platform.
struct LogSuper {
  std::uint64_t magic, version, entries;
  std::uint32_t sector_size;
};
// The head of each entry, in a block of its own; a mark's name follows it there, data in the blocks behind.
struct LogEntry {
  std::uint64_t sector, sectors, flags, name_length;
};

struct Entry {
  std::uint64_t target = 0;  // bytes
  std::uint64_t length = 0;
  std::uint64_t flags = 0;
  std::uint64_t data = 0;  // where its data is in the log, in bytes
  std::uint64_t mark = 0;
};

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

// A block device or file. Thread safety: none.
class Disk {
 public:
  Disk(const char* path, int flags) : path_(path), file_(::open(path, flags | O_CLOEXEC)) {
    if (file_ < 0) fail(path_);
  }
  ~Disk() { ::close(file_); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  Disk(Disk&&) = delete;
  Disk& operator=(Disk&&) = delete;

  void read(void* into, std::size_t length, std::uint64_t at) const {
    if (::pread(file_, into, length, static_cast<off_t>(at)) != static_cast<ssize_t>(length)) fail(path_);
  }
  void write(const void* from, std::size_t length, std::uint64_t at) const {
    if (::pwrite(file_, from, length, static_cast<off_t>(at)) != static_cast<ssize_t>(length)) fail(path_);
  }
  void zero(std::uint64_t length, std::uint64_t at) const {
    if (::fallocate(file_, FALLOC_FL_ZERO_RANGE, static_cast<off_t>(at), static_cast<off_t>(length)) != 0)
      fail(path_);
  }
  // Makes it durable and forgets it, so that other ways to the device see what was written.
  void settle() const {
    if (::fsync(file_) != 0) fail(path_);
  }

 private:
  std::string path_;
  int file_;
};

std::vector<Entry> entries_of(const Disk& log) {
  LogSuper super{};
  log.read(&super, sizeof super, 0);
  if (super.magic != k_magic || super.version != 1) throw std::runtime_error("no log of dm-log-writes");
  std::vector<Entry> entries;
  std::uint64_t at = super.sector_size;
  for (std::uint64_t i = 0; i < super.entries; ++i) {
    std::array<char, 513> block{};  // a zero behind a name
    LogEntry head{};
    log.read(block.data(), block.size() - 1, at);
    std::memcpy(&head, block.data(), sizeof head);
    at += super.sector_size;
    Entry entry{head.sector * super.sector_size, head.sectors * super.sector_size, head.flags, at, 0};
    if ((head.flags & k_mark) != 0) {
      // The target's own marks have names that are no numbers.
      entry.mark = std::strtoull(block.data() + sizeof head, nullptr, 10);
    } else if ((head.flags & k_discard) == 0) {
      at += entry.length;
    }
    entries.push_back(entry);
  }
  return entries;
}

void apply(const Entry& entry, const Disk& log, const Disk& target) {
  if (entry.length == 0 || (entry.flags & k_mark) != 0) return;
  if ((entry.flags & k_discard) != 0) {
    target.zero(entry.length, entry.target);
    return;
  }
  std::vector<char> data(entry.length);
  log.read(data.data(), data.size(), entry.data);
  target.write(data.data(), data.size(), entry.target);
}

void run(const std::string& command, std::size_t entry, std::uint64_t mark, std::uint64_t next) {
  const std::string line =
      command + " " + std::to_string(entry) + " " + std::to_string(mark) + " " + std::to_string(next);
  if (std::system(line.c_str()) != 0) throw std::runtime_error("failed: " + line);
}

// The entries that are marks of the test, in their order.
std::vector<std::size_t> marks_of(const std::vector<Entry>& entries) {
  std::vector<std::size_t> marks;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].mark != 0) marks.push_back(i);
  }
  return marks;
}

int replay_all(char** arguments) {
  const Disk log(arguments[0], O_RDONLY);
  const Disk target(arguments[1], O_RDWR);
  const int between = std::atoi(arguments[2]);
  std::mt19937_64 random(std::strtoull(arguments[3], nullptr, 10));
  const auto entries = entries_of(log);
  const auto marks = marks_of(entries);
  std::size_t done = 0;
  const auto advance = [&](std::size_t last) {
    for (; done <= last; ++done) apply(entries[done], log, target);
    target.settle();
  };
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const std::size_t begin = marks[i];
    const std::size_t end = i + 1 < marks.size() ? marks[i + 1] : entries.size();
    const std::uint64_t next = i + 1 < marks.size() ? entries[end].mark : 0;
    advance(begin);
    run(arguments[4], begin, entries[begin].mark, entries[begin].mark);
    std::vector<std::size_t> stops;
    for (int n = 0; n < between && end - begin > 1; ++n) stops.push_back(begin + random() % (end - begin));
    std::sort(stops.begin(), stops.end());
    for (const std::size_t stop : stops) {
      advance(stop);
      run(arguments[4], stop, entries[begin].mark, next);
    }
  }
  if (!marks.empty()) {
    advance(entries.size() - 1);
    run(arguments[4], entries.size() - 1, entries[marks.back()].mark, 0);
  }
  std::printf("vm-replay: entries %zu, marks %zu\n", entries.size(), marks.size());
  return marks.empty() ? 1 : 0;
}

int replay_some(char** arguments) {
  const Disk log(arguments[0], O_RDONLY);
  const Disk target(arguments[1], O_RDWR);
  const auto entries = entries_of(log);
  std::mt19937_64 random(std::strtoull(arguments[3], nullptr, 10));
  const std::uint64_t share = random() % 4;  // in quarters
  for (std::size_t i = std::strtoull(arguments[2], nullptr, 10) + 1; i < entries.size(); ++i) {
    // What follows a flush or a durable write may rely on it, and behind a mark may be what was sent later.
    if ((entries[i].flags & (k_flush | k_fua)) != 0 || entries[i].mark != 0) break;
    if (random() % 4 < share) apply(entries[i], log, target);
  }
  target.settle();
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const std::string what = count > 1 ? arguments[1] : "";
    if (what == "all" && count == 7) return replay_all(arguments + 2);
    if (what == "some" && count == 6) return replay_some(arguments + 2);
    std::fputs("usage: vm-replay all LOG TARGET BETWEEN SEED COMMAND | some LOG TARGET ENTRY SEED\n", stderr);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vm-replay: %s\n", error.what());
    return 1;
  }
}
