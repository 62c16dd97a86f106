// SPDX-License-Identifier: Apache-2.0
#include "format/scratch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace oxbow::test {

Scratch::Scratch() : directory_((std::filesystem::temp_directory_path() / "oxbow-format-XXXXXX").string()) {
  if (::mkdtemp(directory_.data()) == nullptr) {
    std::perror("cannot make a directory for the test");
    std::abort();
  }
}

Scratch::~Scratch() { std::filesystem::remove_all(directory_); }

std::string content(std::string_view who, std::uint64_t offset, std::uint64_t length) {
  std::string bytes(length, '\0');
  std::string text;
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t at = offset + i;
    if (text.empty() || at % k_sector_bytes == 0) {
      text = fmt::format("{} sector {:06x}", who, at / k_sector_bytes);
      EXPECT_EQ(text.size(), 16U);
    }
    bytes[i] = text[at % 16];
  }
  return bytes;
}

void make_file(const std::string& path, std::string_view bytes, std::int64_t mtime_ns) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  ASSERT_TRUE(file) << path;
  constexpr std::int64_t k_ns_per_s = 1'000'000'000;
  const timespec time{.tv_sec = mtime_ns / k_ns_per_s, .tv_nsec = mtime_ns % k_ns_per_s};
  const timespec times[2] = {time, time};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0) << path;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::shared_ptr<FileStore> make_store(const std::string& path) {
  std::ofstream(path).close();
  auto store = FileStore::open(path, {.writable = true});
  EXPECT_TRUE(store) << store.error().text();
  return store ? *store : nullptr;
}

std::string read_store(Queue& queue, Store& store, std::uint64_t at, std::uint64_t length) {
  std::string bytes(length, '?');
  const IoStatus status = run_blocking(queue, [&](Io& io) {
    return store.read(io, at, std::as_writable_bytes(std::span(bytes)), ReadMode::may_wait);
  });
  EXPECT_TRUE(status.ok()) << status.error_number();
  return bytes;
}

void write_store(Queue& queue, Store& store, std::uint64_t at, std::span<const std::byte> bytes) {
  const IoStatus status = run_blocking(queue, [&](Io& io) {
    // iovec has no const form; stores only read from the list of a write.
    io.iov.push_back({const_cast<std::byte*>(bytes.data()), bytes.size()});
    return store.write(io, at, WriteMode::cached);
  });
  EXPECT_TRUE(status.ok()) << status.error_number();
}

std::string read_device(Queue& queue, Device& device, std::uint64_t at, std::uint64_t length) {
  std::string bytes(length, '?');
  const IoStatus status = run_blocking(
      queue, [&](Io& io) { return device.read(io, at, std::as_writable_bytes(std::span(bytes))); });
  EXPECT_TRUE(status.ok()) << status.error_number();
  return bytes;
}

}  // namespace oxbow::test
