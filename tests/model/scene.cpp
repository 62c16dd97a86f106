// SPDX-License-Identifier: Apache-2.0
#include "model/scene.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "jobs/create_layer.h"

namespace oxbow::model {
namespace {

using sim::Random;

constexpr std::size_t k_most_layers = 5;

[[nodiscard]] std::vector<std::byte> random_bytes(Random& random, std::uint64_t length) {
  std::vector<std::byte> bytes(length);
  for (std::size_t at = 0; at < length; at += 8) {
    // Every second block of 4 KiB is a hole.
    const std::uint64_t word = (at / 4096) % 2 == 0 ? random.next() : 0;
    std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(8, length - at));
  }
  return bytes;
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.good()) << path;
}

[[nodiscard]] std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::byte> bytes(text.size());
  std::ranges::transform(text, bytes.begin(), [](char each) { return static_cast<std::byte>(each); });
  return bytes;
}

void create(Queue& queue, const CreateSpec& spec) {
  const auto made = create_layer(queue, spec);
  ASSERT_TRUE(made) << made.error().text();
}

class RamScene final : public Scene {
 public:
  explicit RamScene(Random& random) : bytes_(random.between(1, 400'000)) {}
  [[nodiscard]] DeviceSpec spec() const override {
    return RamSpec{.size_bytes = bytes_, .preallocate = false};
  }
  [[nodiscard]] std::vector<Piece> pieces() const override { return {{PieceKind::memory, {0, bytes_}}}; }
  [[nodiscard]] std::vector<std::byte> initial() const override { return std::vector<std::byte>(bytes_); }
  [[nodiscard]] bool lasts() const override { return false; }

 private:
  std::uint64_t bytes_;
};

class FileScene final : public Scene {
 public:
  explicit FileScene(Random& random) : offset_(random.below(10'000)) {
    content_ = random_bytes(random, random.between(offset_ + 1, offset_ + 400'000));
    length_ = random.between(1, content_.size() - offset_);
    write_file(directory_.path("raw"), content_);
  }
  [[nodiscard]] DeviceSpec spec() const override {
    return FileSpec{.path = directory_.path("raw"), .offset = offset_, .length = length_};
  }
  [[nodiscard]] std::vector<Piece> pieces() const override { return {{PieceKind::file, {0, length_}}}; }
  [[nodiscard]] std::vector<std::byte> initial() const override {
    const auto from = content_.begin() + static_cast<std::ptrdiff_t>(offset_);
    return {from, from + static_cast<std::ptrdiff_t>(length_)};
  }
  [[nodiscard]] std::string verify() const override {
    const auto now = read_file(directory_.path("raw"));
    if (now.size() != content_.size()) return "the file has another length";
    const bool before =
        std::equal(now.begin(), now.begin() + static_cast<std::ptrdiff_t>(offset_), content_.begin());
    const auto end = static_cast<std::ptrdiff_t>(offset_ + length_);
    const bool behind = std::equal(now.begin() + end, now.end(), content_.begin() + end);
    return before && behind ? "" : "bytes outside the range were written";
  }

 private:
  Directory directory_;
  std::uint64_t offset_;
  std::uint64_t length_ = 0;
  std::vector<std::byte> content_;
};

class ChainScene final : public Scene {
 public:
  ChainScene(Random& random, Queue& queue) : random_(random) {
    base_ = random_bytes(random, random.between(1, 300'000));
    write_file(directory_.path("base"), base_);
    (void)add(queue, directory_.path("base"), native::BaseKind::raw, base_.size());
  }
  [[nodiscard]] DeviceSpec spec() const override { return LayerSpec{.path = layer(layers_)}; }
  [[nodiscard]] std::vector<Piece> pieces() const override {
    return {{PieceKind::layer, {0, size_}, 0, cluster_bytes_, size_}};
  }
  [[nodiscard]] std::vector<std::byte> initial() const override {
    std::vector<std::byte> bytes = base_;
    bytes.resize(size_);
    return bytes;
  }
  [[nodiscard]] std::uint64_t grow(Queue& queue) override {
    if (layers_ == k_most_layers) return 0;
    return add(queue, layer(layers_), native::BaseKind::layer, size_);
  }
  [[nodiscard]] std::string verify() const override {
    return read_file(directory_.path("base")) == base_ ? "" : "the base was written";
  }

 private:
  [[nodiscard]] std::string layer(std::size_t number) const {
    return directory_.path("layer" + std::to_string(number));
  }
  std::uint64_t add(Queue& queue, const std::string& below, native::BaseKind kind, std::uint64_t least) {
    ++layers_;
    size_ = random_.chance(50) ? least : least + random_.below(50'000);
    const auto shift = static_cast<std::uint32_t>(random_.chance(60) ? 12 : random_.between(13, 16));
    cluster_bytes_ = std::uint64_t{1} << shift;
    create(queue, {.path = layer(layers_),
                   .base = below,
                   .base_kind = kind,
                   .size_bytes = size_,
                   .cluster_shift = shift});
    return size_;
  }

  Directory directory_;
  Random& random_;
  std::vector<std::byte> base_;
  std::size_t layers_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t cluster_bytes_ = 0;
};

class TableScene final : public Scene {
 public:
  TableScene(Random& random, Queue& queue) {
    raw_ = random_bytes(random, 600 * k_sector_bytes);
    write_file(directory_.path("raw file"), raw_);
    for (std::size_t i = 0; i < bases_.size(); ++i) {
      bases_[i] = random_bytes(random, random.between(200, 400) * k_sector_bytes);
      write_file(base(i), bases_[i]);
      create(queue, {.path = layer(i), .base = base(i), .size_bytes = bases_[i].size(), .cluster_shift = 12});
    }
    const std::uint64_t lines = random.between(3, 12);
    std::uint64_t start = 0;
    for (std::uint64_t i = 0; i < lines; ++i) start = add_line(random, start);
  }
  [[nodiscard]] DeviceSpec spec() const override { return TableSpec{.text = text_, .source = "table"}; }
  [[nodiscard]] std::vector<Piece> pieces() const override { return pieces_; }
  [[nodiscard]] std::vector<std::byte> initial() const override { return initial_; }
  [[nodiscard]] std::string verify() const override {
    for (std::size_t i = 0; i < bases_.size(); ++i) {
      if (read_file(base(i)) != bases_[i]) return "a base was written";
    }
    return {};
  }

 private:
  [[nodiscard]] std::string base(std::size_t number) const {
    return directory_.path(fmt::format("base{}", number));
  }
  [[nodiscard]] std::string layer(std::size_t number) const {
    return directory_.path(fmt::format("layer{}", number));
  }

  // A line of a few sectors to some clusters, from where the last line of that file ended: so lines cut clusters.
  std::uint64_t add_line(Random& random, std::uint64_t start) {
    const std::uint64_t sectors = random.between(1, random.chance(40) ? 8 : 90);
    const std::uint64_t kind = random.below(4);
    const std::uint64_t from = kind < 3 ? used_[kind] : 0;
    std::uint64_t length = sectors * k_sector_bytes;
    const std::vector<std::byte>* content = kind == 0 ? &raw_ : kind < 3 ? &bases_[kind - 1] : nullptr;
    if (content != nullptr) length = std::min(length, content->size() - from);
    if (length == 0) return start;
    const Range range{start, length};
    std::string target = "zero";
    if (kind == 0) {
      target = fmt::format("linear {} {}", escaped(directory_.path("raw file")), from / k_sector_bytes);
      pieces_.push_back({PieceKind::file, range});
    } else if (kind < 3) {
      target = fmt::format("cow {} {}", layer(kind - 1), from / k_sector_bytes);
      pieces_.push_back({PieceKind::layer, range, from, 4096, content->size()});
    } else {
      pieces_.push_back({PieceKind::zero, range});
    }
    text_ += fmt::format("{} {} {}\n", start / k_sector_bytes, length / k_sector_bytes, target);
    initial_.resize(start + length);
    if (content != nullptr) std::memcpy(initial_.data() + start, content->data() + from, length);
    if (kind < 3) used_[kind] = from + length;
    return start + length;
  }
  [[nodiscard]] static std::string escaped(const std::string& path) {
    std::string text;
    for (const char each : path) text += each == ' ' ? "\\ " : std::string(1, each);
    return text;
  }

  Directory directory_;
  std::vector<std::byte> raw_;
  std::array<std::vector<std::byte>, 2> bases_;
  std::array<std::uint64_t, 3> used_{};  // of the raw file and the two layers
  std::string text_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> initial_;
};

}  // namespace

Directory::Directory() {
  std::string name = (std::filesystem::temp_directory_path() / "oxbow-model.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}

Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::unique_ptr<Scene> make_ram(Random& random) { return std::make_unique<RamScene>(random); }
std::unique_ptr<Scene> make_file(Random& random) { return std::make_unique<FileScene>(random); }
std::unique_ptr<Scene> make_chain(Random& random, Queue& queue) {
  return std::make_unique<ChainScene>(random, queue);
}
std::unique_ptr<Scene> make_table(Random& random, Queue& queue) {
  return std::make_unique<TableScene>(random, queue);
}

}  // namespace oxbow::model
